//! How large a vocabulary and a text may be.

/// Most tokens of a vocabulary.
pub const TOKENS_MAX: usize = 1 << 20;
/// Longest text of one token in a file, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4_000;
/// Most merges of a vocabulary.
pub const MERGES_MAX: usize = 1 << 22;
/// Longest text that is encoded at once, in bytes. It bounds the memory of one call.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

/// No neighbour, in the linked lists of symbols.
pub(super) const NONE: u32 = u32::MAX;
