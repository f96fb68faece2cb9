//! Rows that are sorted into groups, as mixtures of experts need them: each group's rows lie in tiles of
//! their own, so that a product reads them as if they were all there is.

use super::part::Part;
use super::{Activations, Forms, PIECE, Producer, Target};
use crate::kernels::tile::{FIELDS, TILE_TOKENS};
use crate::pool::Pool;
use crate::quant::GROUP;
use std::ops::Range;

impl Activations {
    /// Makes the forms `forms` of rows of `len` values as [`fill`](Self::fill), with the rows of each of
    /// `groups` in tiles of their own: consecutive ranges from 0 on.
    ///
    /// # Panics
    ///
    /// As [`fill`](Self::fill).
    pub fn fill_groups(
        &mut self,
        pool: &Pool,
        (groups, len): (&[Range<usize>], usize),
        forms: Forms,
        producer: &impl Producer,
    ) {
        self.begin(groups.last().map_or(0, |group| group.end), len, forms);
        let pieces = len.div_ceil(PIECE);
        let splits = pool.threads().div_ceil(groups.len().max(1)).min(pieces);
        let (level, target) = (pool.level(), self.target(forms));
        pool.each(groups.len() * splits, &|_, unit| {
            let (group, split) = (&groups[unit / splits], unit % splits);
            let columns = split * pieces / splits * PIECE..(split + 1) * pieces / splits * PIECE;
            let columns = columns.start..columns.end.min(len);
            for first in group.clone().step_by(TILE_TOKENS) {
                let tile = first..group.end.min(first + TILE_TOKENS);
                target.fill(level, tile, columns.clone(), producer);
            }
        });
    }

    /// The same with rows of `from` in the forms `forms`, which it has: row `i` is its row `rows[i]`.
    ///
    /// # Panics
    ///
    /// As [`fill`](Self::fill).
    pub fn gather(
        &mut self,
        pool: &Pool,
        from: &Self,
        (rows, groups): (&[u32], &[Range<usize>]),
        forms: Forms,
    ) {
        self.begin(groups.last().map_or(0, |group| group.end), from.len, forms);
        let (from, target) = (from.part(0..from.rows), self.target(forms));
        pool.each(groups.len(), &|_, group| {
            for first in groups[group].clone().step_by(TILE_TOKENS) {
                let tile = first..groups[group].end.min(first + TILE_TOKENS);
                for row in tile.clone() {
                    target.copy(&from, rows[row] as usize, &tile, row);
                }
            }
        });
    }
}

impl Target<'_> {
    /// Makes row `row`, which is of the tile `tile`, the row `source` of another input.
    fn copy(&self, from: &Part<'_>, source: usize, tile: &Range<usize>, row: usize) {
        if self.forms.values {
            // SAFETY: rows are one unit's alone.
            let to = unsafe { self.values.part(row * self.len..(row + 1) * self.len) };
            to.copy_from_slice(from.row(source));
        }
        let (groups, width) = (self.len / GROUP, tile.len());
        let records = [
            (self.forms.by_32, &self.by_32, from.by_32),
            (self.forms.by_16, &self.by_16, from.by_16),
        ];
        for (_, to, from_records) in records.into_iter().filter(|(is_wanted, ..)| *is_wanted) {
            for group in 0..groups {
                let (at, apart) = from.place(source, group);
                let first = tile.start * groups * FIELDS + group * FIELDS * width;
                // SAFETY: tiles are one unit's alone.
                let record = unsafe { to.part(first..first + FIELDS * width) };
                let places = record[row - tile.start..].iter_mut().step_by(width);
                for (place, value) in places.zip(from_records[at..].iter().step_by(apart)) {
                    *place = *value;
                }
            }
        }
    }
}
