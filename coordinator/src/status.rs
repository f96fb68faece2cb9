//! What is known of the server at one moment, for people, probes and metrics.

use std::time::Duration;

/// What `/readyz`, `/health` and the terminal show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// All stages are ready.
    pub ready: bool,
    /// The server is going down.
    pub stopping: bool,
    /// One line for people: what is being waited for, or what is served.
    pub detail: String,
    /// The stages of the plan.
    pub stages: Vec<StageStatus>,
    /// KV capacity in tokens; 0 without a plan.
    pub kv_tokens: u64,
    /// The longest sequence; 0 without a plan.
    pub ctx_size: u32,
    /// Sequences waiting and running.
    pub waiting: usize,
    /// See `waiting`.
    pub running: usize,
    /// KV blocks free and in all.
    pub kv_blocks_free: u32,
    /// See `kv_blocks_free`.
    pub kv_blocks: u32,
    /// Sequences that gave their blocks to older ones, since the start.
    pub preemptions: u64,
    /// How the KV cache holds its values, `f16` or `q8_0`; empty without a plan.
    pub kv_type: &'static str,
}

/// One stage of the plan, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct StageStatus {
    /// Its worker's name.
    pub worker: String,
    /// Its worker's id in hex.
    pub worker_id: String,
    /// First layer.
    pub layer_first: u32,
    /// One past the last layer.
    pub layer_end: u32,
    /// Bytes of the model mapped.
    pub mapped_bytes: u64,
    /// KV blocks.
    pub kv_blocks: u32,
    /// Loaded and linked.
    pub ready: bool,
}

/// What the scheduler holds at one moment, for the status and for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequences that wait, preempted ones included.
    pub waiting: usize,
    /// Those among them that were preempted.
    pub waiting_preempted: usize,
    /// Sequences that run.
    pub running: usize,
    /// Those among them that compute a prompt, or a log again.
    pub prefilling: usize,
    /// Sequences that have ended or are to wait, and have something in flight.
    pub leaving: usize,
    /// Microbatches in flight.
    pub in_flight: usize,
    /// When the oldest microbatch in flight was sent.
    pub in_flight_since: Option<Duration>,
    /// When the sequence that waits longest arrived.
    pub waiting_since: Option<Duration>,
    /// KV blocks that nobody holds; 0 without a plan.
    pub kv_blocks_free: u32,
    /// Those among them that the prefix cache keeps until they are needed.
    pub kv_blocks_cached: u32,
    /// KV blocks in all; 0 without a plan.
    pub kv_blocks: u32,
    /// Sequences preempted since the start.
    pub preemptions: u64,
    /// Extents that the prefix cache gave up for others since the plan began.
    pub evictions: u64,
    /// Positions that were found in the prefix cache since the start.
    pub prefix_hit_tokens: u64,
    /// Prompt tokens of all requests since the start.
    pub prompt_tokens: u64,
    /// Requests that ran out of time since the start.
    pub expired: u64,
    /// Answers to an earlier plan that were dropped since the start.
    pub stale_answers: u64,
    /// Faults that workers said of a plan that was over, since the start.
    pub stale_faults: u64,
    /// Reports of stages that belong to nothing that is remembered, since the start.
    pub unknown_timings: u64,
    /// Groups in which the decoding sequences travelled last; 0 before any did.
    pub decode_groups: usize,
    /// Rows that a microbatch with prefill could have beside decodes last; 0 before any had.
    pub rows_beside_decode: usize,
    /// Rows sent since the start.
    pub rows: u64,
}
