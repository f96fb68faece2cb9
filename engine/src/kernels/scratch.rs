//! What one compute thread needs beside inputs and outputs. Allocated with the pool.

use super::attention::heads::{HEAD_DIM_MAX, QUERIES_MAX, TILE};
use super::gemm::UNPACKED_LEN;
use super::tile::TILE_TOKENS;
use crate::memory::Buffer;

/// Tokens that meet a panel of unpacked weights before the next panel is unpacked: whole tiles, and no
/// fewer than the 512 that prompts are mostly cut into.
pub const PASS_TOKENS: usize = 22 * TILE_TOKENS;
/// Rows of the widest pair of panels.
pub const PASS_ROWS: usize = 32;

/// The buffers of one thread.
#[derive(Debug)]
pub struct Scratch {
    /// Unpacked weights.
    pub(super) unpacked: Buffer<i32>,
    /// Sums of a pass: [`PASS_TOKENS`] · [`PASS_ROWS`].
    pub(super) sums: Buffer<f32>,
    /// One block of keys or values, as floats.
    pub(super) tile: Buffer<f32>,
    /// Queries of an attention task, one after the other.
    pub(super) queries: Buffer<f32>,
    /// Scores of the queries of an attention task.
    pub(super) scores: Buffer<f32>,
    /// Their values so far, in this range of positions.
    pub(super) partial: Buffer<f32>,
    /// What products with one token keep.
    #[cfg(target_arch = "x86_64")]
    pub(super) gemv: super::gemv::Kept,
}

impl Scratch {
    /// Buffers for one thread.
    pub fn new() -> Self {
        Self {
            unpacked: Buffer::new(UNPACKED_LEN),
            sums: Buffer::new(PASS_TOKENS * PASS_ROWS),
            tile: Buffer::new(TILE * HEAD_DIM_MAX),
            queries: Buffer::new(QUERIES_MAX * HEAD_DIM_MAX),
            scores: Buffer::new(QUERIES_MAX * TILE),
            partial: Buffer::new(QUERIES_MAX * HEAD_DIM_MAX),
            #[cfg(target_arch = "x86_64")]
            gemv: super::gemv::Kept::new(),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
