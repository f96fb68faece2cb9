//! Products of some rows of one matrix with an input, by one thread: which kernel computes them, and where
//! its results go.
//!
//! Few tokens meet the weights as they are read, a single one row by row where there is a kernel for that;
//! for many, a panel of rows is unpacked once for up to [`PASS_TOKENS`] of them.

use super::activations::part::Part;
use super::activations::{Activations, Forms};
use super::dispatch::{FEW, Kernels, Many, float_kernels, kernels, reads_panels};
use super::floats::{self, Operands};
#[cfg(target_arch = "x86_64")]
use super::gemv::{self, GROUPS_MAX, ROWS};
use super::matrix::Matrix;
use super::partition::SEVERAL;
use super::scratch::{PASS_ROWS, PASS_TOKENS, Scratch};
use super::simd::prefetch_far;
use super::skinny::Stream;
use super::tile::{TILE_TOKENS, Tile};
use super::{Level, gemm, per_level, scalar};
use crate::pool::{Pool, Shared};
use crate::quant::GROUP;
use std::ops::Range;

/// Panels ahead of the one at hand that are asked for where panels follow each other.
const PANELS_AHEAD: usize = 2;

/// Products that a kernel for float weights computes together at most.
const FLOATS_MAX: usize = 24;

/// Products of consecutive rows with consecutive tokens.
struct Sums<'a> {
    /// The first token's products, and what comes after them.
    values: &'a [f32],
    /// Values from one token's products to the next one's.
    stride: usize,
    tokens: Range<usize>,
    rows: Range<usize>,
}

per_level! {
    /// Writes products to the outputs of `job`, which are its unit's alone.
    fn hand_over(job: &Job<'_>, sums: &Sums<'_>) = hand_over_any;
}

#[inline(always)]
fn hand_over_any(job: &Job<'_>, sums: &Sums<'_>) {
    let Range { start: row, end } = sums.rows;
    for (i, token) in sums.tokens.clone().enumerate() {
        let products = &sums.values[i * sums.stride..][..end - row];
        let at = job.out.first + token * job.out.stride + row - job.out.origin;
        // SAFETY: rows are one unit's alone.
        let out = unsafe { job.out.values.part(at..at + products.len()) };
        match (job.bias, job.add_scaled) {
            (None, None) => {
                for (out, product) in out.iter_mut().zip(products) {
                    *out = *product;
                }
            }
            (None, Some(scale)) => {
                for (out, product) in out.iter_mut().zip(products) {
                    *out = product.mul_add(scale, *out);
                }
            }
            (Some(bias), scale) => {
                let bias = &bias[row..end];
                for ((out, product), bias) in out.iter_mut().zip(products).zip(bias) {
                    *out = match scale {
                        None => product + bias,
                        Some(scale) => (product + bias).mul_add(scale, *out),
                    };
                }
            }
        }
    }
}

/// Lines of memory that will be read soon.
struct Ahead {
    /// The row that is being asked for.
    row: *const u8,
    /// Bytes from one row to the next.
    stride: usize,
    /// Lines per row.
    lines: usize,
    /// Rows that are left.
    rows: usize,
    /// The row's next line.
    line: usize,
}

impl Ahead {
    const LINE: usize = 64;

    /// Asks for `count` lines.
    fn ask(&mut self, count: usize) {
        for _ in 0..count {
            if self.rows == 0 {
                return;
            }
            prefetch_far(self.row.wrapping_add(self.line * Self::LINE));
            self.line += 1;
            if self.line == self.lines {
                (self.row, self.line) = (self.row.wrapping_add(self.stride), 0);
                self.rows -= 1;
            }
        }
    }
}

/// Checks what every product relies on: that matrix and input belong together.
///
/// # Panics
///
/// If they do not.
pub(super) fn check(matrix: &Matrix<'_>, activations: &Activations) {
    assert_eq!(activations.len(), matrix.cols, "inputs of the matrix");
    assert_eq!(matrix.bytes.len(), matrix.rows * matrix.ty.row_bytes(matrix.cols), "its bytes");
    let (need, have) = (Forms::of(matrix.ty), activations.forms());
    assert!(have.or(need) == have, "the activations are quantised for these weights");
}

/// Where products go.
pub(super) struct Output<'a> {
    pub(super) values: Shared<'a, f32>,
    /// Where those of the first token begin.
    pub(super) first: usize,
    /// Values from those of one token to those of the next.
    pub(super) stride: usize,
    /// The row whose product is a token's first.
    pub(super) origin: usize,
}

/// Products of rows of one matrix with all rows of an input, and what becomes of them.
pub(super) struct Job<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) kernels: Option<&'static Kernels>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) add_scaled: Option<f32>,
    pub(super) out: Output<'a>,
    pub(super) activations: Part<'a>,
}

impl<'a> Job<'a> {
    /// Plain products.
    pub(super) fn new(
        level: Level,
        matrix: Matrix<'a>,
        activations: Part<'a>,
        out: Output<'a>,
    ) -> Self {
        let kernels = kernels(level, matrix.ty).filter(|kernels| matrix.rows >= kernels.lanes);
        Self { matrix, kernels, bias: None, add_scaled: None, out, activations }
    }
}

impl Job<'_> {
    /// All outputs of some rows.
    pub(super) fn rows(&self, pool: &Pool, scratch: &mut Scratch, rows: Range<usize>) {
        if Forms::of(self.matrix.ty).values {
            return self.floats(pool.level(), rows);
        }
        match self.kernels {
            Some(kernels) if !self.has_planted_bug() => match self.activations.rows() {
                0..=SEVERAL => self.few(pool.level(), kernels, scratch, rows),
                _ => self.many(pool, kernels, scratch, rows),
            },
            _ => self.by_definition(pool.level(), rows),
        }
    }

    /// Float weights.
    fn floats(&self, level: Level, rows: Range<usize>) {
        let Matrix { ty, cols, bytes, .. } = self.matrix;
        let (row_bytes, tokens) = (ty.row_bytes(cols), self.activations.rows());
        let weights = |row: usize| &bytes[row * row_bytes..];
        let Some(kernels) = float_kernels(level, ty) else {
            for (row, token) in rows.flat_map(|r| (0..tokens).map(move |t| (r, t))) {
                let (weights, values) = (&weights(row)[..row_bytes], self.activations.row(token));
                self.set(level, token, row, &[floats::by_definition(ty, weights, values)]);
            }
            return;
        };
        let mut row = rows.start;
        while row < rows.end {
            let count = if row + kernels.rows <= rows.end { kernels.rows } else { 1 };
            let mut token = 0;
            while token < tokens {
                let beside = if token + kernels.tokens <= tokens { kernels.tokens } else { 1 };
                let values = self.activations.rows_from(token);
                let operands = Operands { weights: weights(row), values, cols };
                let kernel = match (count, beside) {
                    (1, 1) => kernels.one,
                    (1, _) => kernels.row,
                    (_, 1) => kernels.token,
                    _ => kernels.many,
                };
                let mut out = [0.0f32; FLOATS_MAX];
                // SAFETY: the level exists only on a machine with its instructions.
                unsafe { kernel(operands, &mut out) };
                for (i, out) in out[..count * beside].iter().enumerate() {
                    self.set(level, token + i % beside, row + i / beside, &[*out]);
                }
                token += beside;
            }
            row += count;
        }
    }

    fn by_definition(&self, level: Level, rows: Range<usize>) {
        let bytes = self.matrix.ty.row_bytes(self.matrix.cols);
        for r in rows {
            let row = &self.matrix.bytes[r * bytes..(r + 1) * bytes];
            for tile in 0..self.activations.tiles() {
                let reversed = self.has_planted_bug();
                let sums = scalar::products(self.matrix.ty, row, self.activations, tile, reversed);
                for (t, sum) in sums.iter().enumerate() {
                    let token = tile * TILE_TOKENS + t;
                    if token < self.activations.rows() {
                        self.set(level, token, r, &[*sum]);
                    }
                }
            }
        }
    }

    #[cfg(not(test))]
    fn has_planted_bug(&self) -> bool {
        false
    }

    #[cfg(test)]
    fn has_planted_bug(&self) -> bool {
        self.activations.planted_bug && self.activations.rows() > 1
    }

    /// The rows of the panel whose first wanted row is `first`, at group `group`: the last panel of a
    /// matrix reaches back.
    fn panel(&self, kernels: &Kernels, first: usize, group: usize) -> (usize, *const u8, usize) {
        let Matrix { ty, rows, cols, bytes } = self.matrix;
        let start = first.min(rows - kernels.lanes);
        let stride = ty.row_bytes(cols);
        let base = bytes[start * stride + ty.row_bytes(group * GROUP)..].as_ptr();
        (start, base, stride)
    }

    /// A few tokens: weights are read from memory once, and unpacked once for each [`FEW`].
    ///
    /// Each lane takes neighbouring rows one after the other, so that the processor sees as many long
    /// streams through memory as there are lanes, and reads ahead in each; or, where that many are too many for
    /// it, panels follow each other and it sees one.
    fn few(&self, level: Level, kernels: &Kernels, scratch: &mut Scratch, rows: Range<usize>) {
        let tokens = self.activations.rows();
        #[cfg(target_arch = "x86_64")]
        if tokens == 1 && self.gemv(level, scratch, rows.clone()) {
            return;
        }
        let tile = self.activations.tile(0, self.matrix.ty);
        let (lanes, row_bytes) = (kernels.lanes, self.matrix.ty.row_bytes(self.matrix.cols));
        let mut sums = [0.0f32; SEVERAL * PASS_ROWS];
        let (count, length) = (rows.len(), rows.len() / lanes);
        // The unit's products, token by token.
        let gathered = &mut scratch.sums[..tokens * count];
        let panels = reads_panels(self.matrix.ty);
        let product = |first: usize, step: usize, left: usize, sums: &mut [f32]| {
            let stream = if panels {
                Stream::OfPanels(PANELS_AHEAD * lanes * row_bytes)
            } else {
                let jump = (lanes - 1) * length * row_bytes;
                Stream::OfLanes { left: left * row_bytes, jump }
            };
            let base = self.matrix.bytes[first * row_bytes..].as_ptr();
            for first in (0..tokens).step_by(FEW) {
                let kernel = kernels.few[FEW.min(tokens - first) - 1];
                let to = sums[first * lanes..].as_mut_ptr();
                // SAFETY: the level exists only on a machine with its instructions; the rows from
                // `first` on, `step` apart, are inside the matrix, whose length was checked, and the tile
                // has all their groups.
                unsafe {
                    let tile = Tile { record: tile.record.add(first), ..tile };
                    kernel(base, step * row_bytes, tile, stream, to);
                }
            }
        };
        for i in 0..length {
            // A lane's first row, and from one lane's row to the next.
            let (first, step) = if panels { (i * lanes, 1) } else { (i, length) };
            product(rows.start + first, step, length - i, &mut sums);
            for (token, sums) in sums.chunks_exact(lanes).take(tokens).enumerate() {
                for (lane, sum) in sums.iter().enumerate() {
                    gathered[token * count + first + lane * step] = *sum;
                }
            }
        }
        // What is left is the end of a panel that reaches back.
        let left = count - length * lanes;
        if left > 0 {
            product(rows.end - lanes, 1, 1, &mut sums);
            for (token, sums) in sums.chunks_exact(lanes).take(tokens).enumerate() {
                gathered[(token + 1) * count - left..(token + 1) * count]
                    .copy_from_slice(&sums[lanes - left..]);
            }
        }
        hand_over(level, self, &Sums { values: gathered, stride: count, tokens: 0..tokens, rows });
    }

    /// One token: rows one after the other. `false` if there is no such kernel.
    #[cfg(target_arch = "x86_64")]
    fn gemv(&self, level: Level, scratch: &mut Scratch, rows: Range<usize>) -> bool {
        let Matrix { ty, cols, bytes, .. } = self.matrix;
        let Some(kernels) = super::dispatch::gemv(level, ty).filter(|_| cols / GROUP <= GROUPS_MAX)
        else {
            return false;
        };
        let tile = self.activations.tile(0, ty);
        let count = rows.len();
        let Scratch { gemv, sums, .. } = scratch;
        // SAFETY: the level exists only on a machine with its instructions; the rows are inside the
        // matrix, whose length was checked, and the tile has all their groups and one token.
        unsafe {
            (kernels.prepare)(tile, gemv);
            // A call gives the sums of the rows of the one before.
            for i in 0..=count.div_ceil(ROWS) {
                let start = count.min(i * ROWS);
                let next = gemv::Strip {
                    first: bytes.as_ptr().add((rows.start + start) * ty.row_bytes(cols)),
                    count: ROWS.min(count - start),
                };
                let products = (kernels.advance)(next, tile, gemv);
                if i > 0 {
                    let before = &mut sums[(i - 1) * ROWS..start];
                    before.copy_from_slice(&products[..before.len()]);
                }
            }
        }
        hand_over(level, self, &Sums { values: &sums[..count], stride: count, tokens: 0..1, rows });
        true
    }

    /// Many tokens: weights are unpacked once for each pass.
    fn many(&self, pool: &Pool, kernels: &Kernels, scratch: &mut Scratch, rows: Range<usize>) {
        let width = kernels.lanes * kernels.panels;
        for first in rows.clone().step_by(width) {
            let rows = first..rows.end.min(first + width);
            for tokens in (0..self.activations.rows()).step_by(PASS_TOKENS) {
                let end = self.activations.rows().min(tokens + PASS_TOKENS);
                self.pass(pool, kernels, scratch, (rows.clone(), tokens..end));
            }
        }
    }

    fn pass(
        &self,
        pool: &Pool,
        kernels: &Kernels,
        scratch: &mut Scratch,
        (rows, tokens): (Range<usize>, Range<usize>),
    ) {
        let groups = self.matrix.cols / GROUP;
        for group in (0..groups).step_by(gemm::GROUPS) {
            let count = gemm::GROUPS.min(groups - group);
            for index in 0..kernels.panels {
                let first = rows.start + index * kernels.lanes;
                let (_, base, stride) = self.panel(kernels, first, group);
                let to = scratch.unpacked.as_mut_ptr();
                // SAFETY: as for `few`; the buffer holds this many groups.
                unsafe { (kernels.unpack)(base, stride, count, index, to) };
            }
            let mut ahead = self.ahead(&rows, group);
            let share = ahead.lines * ahead.rows;
            let share = share.div_ceil(tokens.len().div_ceil(kernels.many.len()));
            self.for_tiles(kernels, tokens.clone(), &mut |tile, token, kernel| {
                ahead.ask(share);
                let Tile { record, width, .. } = tile;
                // SAFETY: the record of this group is inside the tile's.
                let record = unsafe { record.add(group * super::tile::FIELDS * width) };
                let tile = Tile { record, width, groups: count };
                let at = (token - tokens.start) * kernels.panels * kernels.lanes;
                let sums = scratch.sums[at..].as_mut_ptr();
                // SAFETY: as for `few`; the weights were unpacked, the sums of a pass fit.
                unsafe { kernel(scratch.unpacked.as_ptr(), tile, group == 0, sums) };
            });
        }
        for index in 0..kernels.panels {
            let first = rows.start + index * kernels.lanes;
            let start = first.min(self.matrix.rows - kernels.lanes);
            let end = rows.end.min(first + kernels.lanes);
            if first < end {
                let sums = Sums {
                    values: &scratch.sums[index * kernels.lanes + first - start..],
                    stride: kernels.panels * kernels.lanes,
                    tokens: tokens.clone(),
                    rows: first..end,
                };
                hand_over(pool.level(), self, &sums);
            }
        }
    }

    /// What is unpacked after the groups of `rows` from `group` on: the next groups, or the next rows.
    fn ahead(&self, rows: &Range<usize>, group: usize) -> Ahead {
        let Matrix { ty, cols, bytes, .. } = self.matrix;
        let (groups, stride) = (cols / GROUP, ty.row_bytes(cols));
        let next = group + gemm::GROUPS;
        let (first, group) = if next < groups { (rows.start, next) } else { (rows.end, 0) };
        let count = gemm::GROUPS.min(groups - group);
        let base = bytes.as_ptr().wrapping_add(first * stride + ty.row_bytes(group * GROUP));
        let lines = ty.row_bytes(count * GROUP).div_ceil(Ahead::LINE);
        Ahead { row: base, stride, lines, rows: rows.len(), line: 0 }
    }

    /// Hands over the products of consecutive rows with one token.
    fn set(&self, level: Level, token: usize, row: usize, products: &[f32]) {
        let rows = row..row + products.len();
        let sums = Sums { values: products, stride: 0, tokens: token..token + 1, rows };
        hand_over(level, self, &sums);
    }

    /// Calls `work` with each part of a tile that one kernel takes: the tile from the part's first
    /// token on, that token, and the kernel.
    fn for_tiles(
        &self,
        kernels: &Kernels,
        tokens: Range<usize>,
        work: &mut dyn FnMut(Tile, usize, Many),
    ) {
        for index in tokens.start / TILE_TOKENS..tokens.end.div_ceil(TILE_TOKENS) {
            let tile = self.activations.tile(index, self.matrix.ty);
            for first in (0..tile.width).step_by(kernels.many.len()) {
                let count = kernels.many.len().min(tile.width - first);
                // SAFETY: the token is in the tile.
                let record = unsafe { tile.record.add(first) };
                work(Tile { record, ..tile }, index * TILE_TOKENS + first, kernels.many[count - 1]);
            }
        }
    }
}
