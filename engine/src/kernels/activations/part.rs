//! Rows of an input as a product reads them.

use crate::kernels::tile::{FIELDS, TILE_TOKENS, Tile};
use crate::quant::{GROUP, TensorType};

/// Consecutive rows of an input, whose tiles are theirs alone.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub(super) rows: usize,
    pub(super) len: usize,
    pub(super) values: &'a [f32],
    pub(super) by_32: &'a [i32],
    pub(super) by_16: &'a [i32],
    /// See [`Activations::planted_bug`].
    #[cfg(test)]
    pub planted_bug: bool,
}

impl<'a> Part<'a> {
    /// Its rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The values of one row; only if that form was made.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.len..(row + 1) * self.len]
    }

    /// The values of row `row` and of those after it; only if that form was made.
    pub(in crate::kernels) fn rows_from(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.len..self.rows * self.len]
    }

    /// Tiles of the rows.
    pub(in crate::kernels) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE_TOKENS)
    }

    /// The records of tile `index` for weights of type `ty`; only if that form was made.
    pub(in crate::kernels) fn tile(&self, index: usize, ty: TensorType) -> Tile {
        let groups = self.len / GROUP;
        let width = TILE_TOKENS.min(self.rows - index * TILE_TOKENS);
        let record = self.records(ty)[index * TILE_TOKENS * groups * FIELDS..].as_ptr();
        Tile { record, width, groups }
    }

    fn records(&self, ty: TensorType) -> &'a [i32] {
        if ty.block_len() == GROUP { self.by_16 } else { self.by_32 }
    }

    /// One row's record of one group for weights of type `ty`: fields in order.
    pub(in crate::kernels) fn record(
        &self,
        ty: TensorType,
        row: usize,
        group: usize,
    ) -> [i32; FIELDS] {
        let (at, width) = self.place(row, group);
        let records = self.records(ty);
        std::array::from_fn(|field| records[at + field * width])
    }

    /// Where a row's record of a group begins, and how far its fields are apart.
    pub(super) fn place(&self, row: usize, group: usize) -> (usize, usize) {
        let (tile, token) = (row / TILE_TOKENS, row % TILE_TOKENS);
        let (groups, width) = (self.len / GROUP, TILE_TOKENS.min(self.rows - tile * TILE_TOKENS));
        (tile * TILE_TOKENS * groups * FIELDS + group * FIELDS * width + token, width)
    }
}
