//! Arithmetic of plans: what a model consists of, what a stage weighs, where to cut.
//!
//! * [`ModelLayout`] sorts the tensors of a file into slices (the embedding, each layer, the head)
//!   and knows their bytes.
//! * [`cut`] places contiguous layers on workers so that the slowest stage is fast, by an [`Objective`].
//! * [`Pipeline`] says how fast a plan would be, by a model of time.
//! * [`fingerprint`] names a model by its bytes.

mod caches;
mod cut;
mod cut_request;
mod disk;
mod error;
mod findings;
mod fingerprint;
mod from_disk;
mod layout;
mod names;
mod objective;
mod partition;
mod predict;
mod room;
mod shortage;
mod slice;
mod slowness;
mod speeds;
mod work;

pub use crate::kv::{GroupBlocks, KvType};
pub use caches::window_blocks;
pub use cut::{Cut, KV_CTX_MAX, StageBudget, cut};
pub use cut_request::{CutRequest, Member};
pub use error::{Bytes, MemoryLimit, PlanError};
pub use findings::Findings;
pub use fingerprint::{CHUNK_BYTES, FingerprintMemory, fingerprint, fingerprint_of};
pub use layout::{BLOCK_LEN, FEW_ROWS, MANY_ROWS, ModelLayout, PREFILL_ROWS};
pub use objective::Objective;
pub use predict::{Decode, Limit, Link, Pipeline, Prompt, StageSpeed};
pub use room::scratch_bytes;
pub use slice::{ByteRange, SLICE_ALIGNMENT, Skipped, SliceId, SlicePiece, SliceTensor};
pub use slowness::Slowness;

#[cfg(test)]
mod tests;
