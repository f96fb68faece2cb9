//! Every maximum on the wire, each with the sum behind it.

/// Rows (tokens) of one microbatch, over all its chunks.
pub const ROWS_PER_MICROBATCH_MAX: usize = 2048;
/// Chunks (sequences) of one microbatch.
pub const CHUNKS_PER_MICROBATCH_MAX: usize = 256;
/// Positions of a sequence that a plan can hold.
pub const CTX_MAX: u32 = 1 << 20;
/// Positions per KV block.
pub const BLOCK_LEN: u32 = 32;
/// KV blocks of a plan.
pub const KV_BLOCKS_MAX: u32 = 1 << 24;
/// Cache groups of a plan: layers that forget by the same rule are one.
pub const CACHE_GROUPS_MAX: usize = 8;
/// Plans that a worker serves and loads for at a time: two of each of eight lanes.
pub const LIVE_PLANS_MAX: usize = 16;
/// State slots of a cache group.
pub const STATE_SLOTS_MAX: u32 = 1 << 20;
/// Stages of a plan.
pub const STAGES_MAX: usize = 64;
/// Microbatches in flight: one per stage and one on the wire.
pub const IN_FLIGHT_MAX: usize = STAGES_MAX + 1;
/// Width of the hidden states, in values.
pub const HIDDEN_MAX: usize = 65_536;
/// Log-probabilities of other tokens that one row may ask for.
pub const TOP_LOGPROBS_MAX: u8 = 20;
/// Entries of one row's logit bias.
pub const LOGIT_BIAS_MAX: usize = 1024;
/// Distinct tokens that one row's penalties may count.
pub const PENALTY_TOKENS_MAX: usize = 65_536;
/// Words of one row's token mask: a vocabulary of 2^20.
pub const MASK_WORDS_MAX: usize = (1 << 20) / 64;
/// Bytes of a short text for people, an address or an ISA level.
pub const NAME_MAX: usize = 256;
/// Bytes of a peer's name.
pub const PEER_NAME_MAX: usize = 64;
/// Compute threads of a worker.
pub const THREADS_MAX: u32 = 65_536;
/// Bytes of memory, bytes per second and multiply-adds per second that a worker may report; low
/// enough that sums over all stages stay far below 2^64.
pub const CAPACITY_MAX: u64 = 1 << 50;
/// Layers of a model.
pub const LAYERS_MAX: u32 = 65_536;
/// Milliseconds between two heartbeats.
pub const HEARTBEAT_MS_MAX: u32 = 60_000;
/// Timings that one heartbeat carries; 32 bytes each.
pub const HEARTBEAT_TIMINGS_MAX: usize = 256;
/// Bytes of a certificate or a signing request; ours have about 500.
pub const CERTIFICATE_MAX: usize = 4096;
/// Workers that a coordinator can have removed or banned; 8 bytes each.
pub const REMOVED_MAX: usize = 4096;
/// Bytes of a fault's or refusal's text.
pub const TEXT_MAX: usize = 4096;
/// Parts of a split model file.
pub const PARTS_MAX: usize = 1024;
/// Bytes of a path.
pub const PATH_MAX: usize = 4096;
/// Bytes that one slice chunk holds (the last of a slice may hold fewer).
pub const SLICE_CHUNK: usize = 1 << 20;
/// Chunks of one slice: 64 GiB.
pub const SLICE_CHUNKS_MAX: usize = 65_536;
/// Archive bytes of a control message.
pub const CONTROL_ARCHIVE_MAX: usize = 64 << 10;
/// Archive bytes of a join message: two certificates or one request, and short texts.
pub const JOIN_ARCHIVE_MAX: usize = 2 * CERTIFICATE_MAX + (4 << 10);
/// Archive bytes of a `Forward`: chunks with full block tables of 32,768 blocks would be more than
/// any plan holds, so the sum is bounded instead: 2^20 block ids and 256 chunks.
pub const FORWARD_ARCHIVE_MAX: usize = (4 << 20) + (64 << 10);
/// Payload bytes of a `Forward`: 2,048 rows of 65,536 f32 would be 512 MiB; no model is that wide
/// at that many rows, so the product is held to 128 MiB (2,048 rows of 16,384).
pub const FORWARD_PAYLOAD_MAX: usize = 128 << 20;
/// Archive bytes of a `Sampling`.
pub const SAMPLING_ARCHIVE_MAX: usize = 8 << 20;
/// Archive bytes of a `Sampled`: 2,048 rows with 20 log-probabilities each.
pub const SAMPLED_ARCHIVE_MAX: usize = 1 << 20;
/// Archive bytes of a slice message (a manifest holds 32 bytes per chunk).
pub const SLICE_ARCHIVE_MAX: usize = (2 << 20) + (64 << 10);
