//! Shapes of attention: the heads of a layer, and the rows of one sequence.

use crate::kernels::accumulate::COLUMNS;
use crate::kv::BlockTable;
use crate::limits::BLOCK_LEN;

/// Positions whose scores are taken together: one block of the cache.
pub const TILE: usize = BLOCK_LEN;
/// Query heads per key head, times the rows, of one task.
pub const QUERIES_MAX: usize = 48;
/// The widest head.
pub const HEAD_DIM_MAX: usize = 256;

/// What is the same for all rows of a layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, at most [`HEAD_DIM_MAX`].
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Positions that a query sees, its own included; `None` for all.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// Query heads per key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Why the kernel cannot compute this shape, if it cannot.
    pub fn refusal(&self) -> Option<String> {
        if self.head_dim > HEAD_DIM_MAX {
            return Some(format!("heads {} wide (at most {HEAD_DIM_MAX})", self.head_dim));
        }
        (self.group() > QUERIES_MAX)
            .then(|| format!("{} query heads per key head (at most {QUERIES_MAX})", self.group()))
    }

    /// Rows of a task.
    pub(super) fn rows(&self) -> usize {
        QUERIES_MAX / self.group()
    }

    /// Values from one position to the next, or from one query to the next, in a task's buffers.
    pub(super) fn stride(&self) -> usize {
        self.head_dim.next_multiple_of(COLUMNS)
    }
}

/// Consecutive queries of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct QueryChunk<'a> {
    /// First row in `q` and `out`.
    pub first_row: usize,
    /// Rows.
    pub rows: usize,
    /// Position of the first row.
    pub position: usize,
    /// Blocks of the sequence in the layer's cache group.
    pub table: BlockTable<'a>,
}
