//! The records of a few tokens side by side, as the kernels read quantised activations
//! ([`super::activations`]).

/// Tokens of a tile.
pub const TILE_TOKENS: usize = 24;
/// Fields of a record.
pub const FIELDS: usize = 13;
/// The first of the two fields of scales.
pub const SCALE: usize = 8;
/// The field of the scaled sum, which offsets are multiplied by.
pub const OFFSET_SUM: usize = 10;
/// The first of the two fields of sums.
pub const SUMS: usize = 11;

/// Records of consecutive groups for the tokens of one tile.
#[derive(Clone, Copy)]
pub struct Tile {
    /// The first token's first record.
    pub record: *const i32,
    /// Tokens side by side.
    pub width: usize,
    /// Groups.
    pub groups: usize,
}
