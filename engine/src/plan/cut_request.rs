//! What a cut is made from: the workers, and what is asked of the plan.

use super::objective::Objective;
use crate::kv::KvType;

/// A worker as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes that the worker may use, or that its machine's workers may use together.
    pub memory_bytes: u64,
    /// Whether the memory is the worker's own (its cgroup's, or given to it by hand).
    pub memory_is_own: bool,
    /// Names the machine.
    pub machine: [u8; 16],
    /// Bytes that its KV cache may use; 0 for as many as fit.
    pub kv_memory_bytes: u64,
    /// Measured read bandwidth, bytes per second; 0 if unknown.
    pub read_bytes_per_s: u64,
    /// Measured multiplications per second of its own threads; 0 if unknown. If it is unknown of one
    /// member, bandwidth tells how fast all multiply.
    pub macs_per_s: u64,
    /// Compute threads.
    pub threads: u32,
    /// Whether its weights need not fit its memory: what does not is read from its disk when it is needed.
    pub weights_from_disk: bool,
}

/// What is asked of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutRequest {
    /// Positions of the longest sequence.
    pub ctx_size: u32,
    /// What the cut is to be best for; of no meaning when it is fixed by hand.
    pub objective: Objective,
    /// Layers of each stage, in order of joining, when the cut is fixed by hand.
    pub cut: Option<Vec<u32>>,
    /// Rows of the largest microbatch; scratch grows with it.
    pub rows_max: u32,
    /// How the KV cache holds its values.
    pub kv_type: KvType,
    /// Positions that are given out together, a multiple of [`BLOCK_LEN`](super::BLOCK_LEN): the number of blocks is
    /// a multiple of as many as that.
    pub block_len: u32,
    /// Contexts that the KV cache holds at most, 1 or more, however much memory there is:
    /// [`KV_CTX_MAX`](super::KV_CTX_MAX) unless other models are to have room, too.
    pub contexts_max: u64,
    /// Layers of each stage of the present plan of the same workers and model.
    pub previous: Option<Vec<u32>>,
}
