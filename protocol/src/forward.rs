//! `Forward`: one microbatch on its way through the stages.

use crate::ids::{BlockId, MicrobatchId, PlanEpoch, SequenceId};
use rkyv::{Archive, Deserialize, Serialize};

/// Consecutive tokens of one or more sequences, to be computed together.
///
/// Payload: at stage 0 the token ids, `u32` little-endian, one per row; after that the hidden
/// states, `f32` little-endian, `[rows, hidden]`. Rows follow the order of `chunks` and, inside a
/// chunk, of position.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Forward {
    /// The plan that this microbatch was made for.
    pub epoch: PlanEpoch,
    /// Unique while in flight; `Sampled` repeats it.
    pub microbatch: MicrobatchId,
    /// From 1 to `CHUNKS_PER_MICROBATCH_MAX`, no sequence twice.
    pub chunks: Vec<Chunk>,
}

/// Consecutive tokens of one sequence.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Chunk {
    /// The sequence that these tokens belong to.
    pub sequence: SequenceId,
    /// Position of the first token, counted from 0. All before it is in the KV cache already.
    pub position: u32,
    /// Tokens in this chunk, at least 1.
    pub token_count: u32,
    /// How many of the last rows are sampled or scored: at most `token_count`.
    pub sample_rows: u16,
    /// The sequence's blocks in order of position, covering `position + token_count` positions.
    pub block_table: Vec<BlockId>,
}
