//! Sizes that several parts of the engine share.

/// Positions per block of the KV cache.
pub const BLOCK_LEN: usize = 32;
/// Rows whose logits exist at the same time.
pub const LOGIT_ROWS: usize = 32;
