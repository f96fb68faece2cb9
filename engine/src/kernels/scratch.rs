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
    /// Outputs of experts before they are added up; for as many as the first forward
    /// with experts has asked for.
    pub(super) unsummed: Buffer<f32>,
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
            unsummed: Buffer::new(0),
            #[cfg(target_arch = "x86_64")]
            gemv: super::gemv::Kept::new(),
        }
    }
}

impl Scratch {
    /// The buffer for `len` outputs of experts, which is to be put back.
    pub(super) fn take_unsummed(&mut self, len: usize) -> Buffer<f32> {
        let kept = std::mem::replace(&mut self.unsummed, Buffer::new(0));
        if kept.len() < len { Buffer::new(len) } else { kept }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
