//! Weights times activations: `out[t, r] = Σ W[r, k] · x[t, k]`.
//!
//! A panel of weight rows is one thread's. Each quant block is unpacked once for a tile of tokens.

use super::activations::{Activations, QuantisedRow};
use super::{LANES, add_lanes, per_level, sum_lanes};
use crate::pool::{Panel, Pool};
use crate::quant::TensorType;
use crate::quant::f16::{bf16_to_f32, f16_to_f32};
use crate::quant::k_quants::{Block256, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};
use crate::quant::legacy::{Block32, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};
use std::ops::Range;

/// Tokens whose sums are kept while a weight row is read once.
const TILE: usize = 64;

/// A weight matrix as it lies in the file: `rows` rows of `cols` weights.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The weights' format.
    pub ty: TensorType,
    /// Outputs.
    pub rows: usize,
    /// Inputs; a multiple of the format's block.
    pub cols: usize,
    /// `rows` rows of `ty.row_bytes(cols)` bytes.
    pub bytes: &'a [u8],
}

/// `out = activations · Wᵀ`, `[activations.rows(), matrix.rows]`.
///
/// # Panics
///
/// If the shapes do not agree, or the activations lack the form that the weights need.
pub fn matmul(pool: &Pool, matrix: Matrix<'_>, activations: &Activations, out: &mut [f32]) {
    assert_eq!(activations.len(), matrix.cols, "inputs of the matrix");
    assert_eq!(out.len(), activations.rows() * matrix.rows, "outputs of the matrix");
    assert_eq!(matrix.bytes.len(), matrix.rows * matrix.ty.row_bytes(matrix.cols), "its bytes");
    let (need, have) = (super::activations::Forms::of(matrix.ty), activations.forms());
    assert!(have.or(need) == have, "the activations are quantised for these weights");
    // Small enough to share out evenly, large enough that taking a panel costs nothing beside it.
    let grain = matrix.rows.div_ceil(8 * pool.threads()).clamp(8, 128);
    pool.fill_columns(out, matrix.rows, grain, &|mut panel| {
        panel_of_rows(pool.level(), matrix, activations, &mut panel);
    });
}

per_level! {
    fn panel_of_rows(
        matrix: Matrix<'_>, activations: &Activations, panel: &mut Panel<'_, f32>,
    ) = panel_of_any;
}

#[inline(always)]
fn panel_of_any(matrix: Matrix<'_>, activations: &Activations, panel: &mut Panel<'_, f32>) {
    match matrix.ty {
        TensorType::F32 => floats::<4>(matrix, activations, panel, f32::from_le_bytes),
        TensorType::F16 => {
            floats::<2>(matrix, activations, panel, |b| f16_to_f32(u16::from_le_bytes(b)))
        }
        TensorType::BF16 => {
            floats::<2>(matrix, activations, panel, |b| bf16_to_f32(u16::from_le_bytes(b)))
        }
        TensorType::Q4_0 => blocks_32::<BlockQ4_0>(matrix, activations, panel),
        TensorType::Q4_1 => blocks_32::<BlockQ4_1>(matrix, activations, panel),
        TensorType::Q5_0 => blocks_32::<BlockQ5_0>(matrix, activations, panel),
        TensorType::Q5_1 => blocks_32::<BlockQ5_1>(matrix, activations, panel),
        TensorType::Q8_0 => blocks_32::<BlockQ8_0>(matrix, activations, panel),
        TensorType::Q2_K => blocks_256::<BlockQ2K>(matrix, activations, panel),
        TensorType::Q3_K => blocks_256::<BlockQ3K>(matrix, activations, panel),
        TensorType::Q4_K => blocks_256::<BlockQ4K>(matrix, activations, panel),
        TensorType::Q5_K => blocks_256::<BlockQ5K>(matrix, activations, panel),
        TensorType::Q6_K => blocks_256::<BlockQ6K>(matrix, activations, panel),
    }
}

/// Weights of a row that are unpacked before any token meets them.
const SEGMENT: usize = 2048;

/// Exact: the largest sums are 32 · 255 · 127 and 256 · 4096 · 127.
#[inline(always)]
fn dot_i16<const LEN: usize>(w: &[i16; LEN], y: &[i16; LEN]) -> i32 {
    let mut sum = 0i32;
    for i in 0..LEN {
        sum += i32::from(w[i]) * i32::from(y[i]);
    }
    sum
}

/// A run of unpacked quant blocks of 32.
struct Run32 {
    q: [[i16; 32]; SEGMENT / 32],
    scale: [f32; SEGMENT / 32],
    offset: [f32; SEGMENT / 32],
}

#[inline(always)]
fn blocks_32<B: Block32>(
    matrix: Matrix<'_>,
    activations: &Activations,
    panel: &mut Panel<'_, f32>,
) {
    let row_bytes = matrix.ty.row_bytes(matrix.cols);
    let mut run = Run32 {
        q: [[0; 32]; SEGMENT / 32],
        scale: [0.0; SEGMENT / 32],
        offset: [0.0; SEGMENT / 32],
    };
    for first in (0..activations.rows()).step_by(TILE) {
        let count = TILE.min(activations.rows() - first);
        for r in panel.range() {
            let row = &matrix.bytes[r * row_bytes..(r + 1) * row_bytes];
            let blocks = bytemuck::cast_slice::<u8, B>(row);
            let mut acc = [0.0f32; TILE];
            for (s, blocks) in blocks.chunks(SEGMENT / 32).enumerate() {
                for (i, block) in blocks.iter().enumerate() {
                    let w = block.unpack();
                    (run.q[i], run.scale[i], run.offset[i]) = (w.q, w.scale, w.offset);
                }
                for (t, acc) in acc[..count].iter_mut().enumerate() {
                    let y = activations.by_32.row(first + t, matrix.cols, 32);
                    *acc = add_run_32::<B>(&run, y, s * SEGMENT / 32, blocks.len(), *acc);
                }
            }
            for (t, acc) in acc[..count].iter().enumerate() {
                panel.set(first + t, r, *acc);
            }
        }
    }
}

/// `acc` after `count` blocks, of which the first is block `start` of the row.
#[inline(always)]
fn add_run_32<B: Block32>(
    run: &Run32,
    y: QuantisedRow<'_>,
    start: usize,
    count: usize,
    mut acc: f32,
) -> f32 {
    let q = &y.q.as_chunks::<32>().0[start..start + count];
    let scales = &y.scales[start..start + count];
    let sums = &y.sums.as_chunks::<2>().0[start..start + count];
    for b in 0..count {
        let d = scales[b];
        acc = (run.scale[b] * d).mul_add(dot_i16(&run.q[b], &q[b]) as f32, acc);
        if B::HAS_OFFSET {
            let sum = i32::from(sums[b][0]) + i32::from(sums[b][1]);
            acc = (run.offset[b] * d).mul_add(sum as f32, acc);
        }
    }
    acc
}

/// A run of unpacked superblocks.
struct Run256 {
    w: [[i16; 256]; SEGMENT / 256],
    d: [f32; SEGMENT / 256],
    dmin: [f32; SEGMENT / 256],
    mins: [[i16; 16]; SEGMENT / 256],
}

#[inline(always)]
fn blocks_256<B: Block256>(
    matrix: Matrix<'_>,
    activations: &Activations,
    panel: &mut Panel<'_, f32>,
) {
    let row_bytes = matrix.ty.row_bytes(matrix.cols);
    let mut run = Run256 {
        w: [[0; 256]; SEGMENT / 256],
        d: [0.0; SEGMENT / 256],
        dmin: [0.0; SEGMENT / 256],
        mins: [[0; 16]; SEGMENT / 256],
    };
    for first in (0..activations.rows()).step_by(TILE) {
        let count = TILE.min(activations.rows() - first);
        for r in panel.range() {
            let row = &matrix.bytes[r * row_bytes..(r + 1) * row_bytes];
            let blocks = bytemuck::cast_slice::<u8, B>(row);
            let mut acc = [0.0f32; TILE];
            for (s, blocks) in blocks.chunks(SEGMENT / 256).enumerate() {
                for (i, block) in blocks.iter().enumerate() {
                    let w = block.unpack();
                    (run.w[i], run.d[i], run.dmin[i], run.mins[i]) = (w.w, w.d, w.dmin, w.mins);
                }
                let reversed = reversed(activations, count);
                for (t, acc) in acc[..count].iter_mut().enumerate() {
                    let y = activations.by_256.row(first + t, matrix.cols, 256);
                    let start = s * SEGMENT / 256;
                    *acc = add_run_256::<B>(&run, y, start..start + blocks.len(), reversed, *acc);
                }
            }
            for (t, acc) in acc[..count].iter().enumerate() {
                panel.set(first + t, r, *acc);
            }
        }
    }
}

/// `acc` after the superblocks `range` of the row, which `run` holds.
#[inline(always)]
fn add_run_256<B: Block256>(
    run: &Run256,
    y: QuantisedRow<'_>,
    range: Range<usize>,
    reversed: bool,
    mut acc: f32,
) -> f32 {
    let q = &y.q.as_chunks::<256>().0[range.clone()];
    let scales = &y.scales[range.clone()];
    let sums = &y.sums.as_chunks::<16>().0[range.clone()];
    for i in 0..range.len() {
        let b = if reversed { range.len() - 1 - i } else { i };
        let d = scales[b];
        acc = (run.d[b] * d).mul_add(dot_i16(&run.w[b], &q[b]) as f32, acc);
        if B::HAS_MINS {
            let mins = dot_i16(&run.mins[b], &sums[b]) as f32;
            acc = (-(run.dmin[b] * d)).mul_add(mins, acc);
        }
    }
    acc
}

/// Superblocks are added in ascending order.
#[cfg(not(test))]
#[inline(always)]
fn reversed(_activations: &Activations, _tokens: usize) -> bool {
    false
}

/// As above, unless a test planted a bug: tiles of several tokens go downwards.
#[cfg(test)]
fn reversed(activations: &Activations, tokens: usize) -> bool {
    activations.planted_bug && tokens > 1
}

#[inline(always)]
fn floats<const BYTES: usize>(
    matrix: Matrix<'_>,
    activations: &Activations,
    panel: &mut Panel<'_, f32>,
    value: impl Fn([u8; BYTES]) -> f32 + Copy,
) {
    let row_bytes = matrix.ty.row_bytes(matrix.cols);
    let mut segment = [0.0f32; SEGMENT];
    for first in (0..activations.rows()).step_by(TILE) {
        let count = TILE.min(activations.rows() - first);
        for r in panel.range() {
            let row = &matrix.bytes[r * row_bytes..(r + 1) * row_bytes];
            let (weights, _) = row.as_chunks::<BYTES>();
            let mut lanes = [[0.0f32; LANES]; TILE];
            for (s, weights) in weights.chunks(SEGMENT).enumerate() {
                for (out, w) in segment.iter_mut().zip(weights) {
                    *out = value(*w);
                }
                let range = s * SEGMENT..s * SEGMENT + weights.len();
                for (t, lanes) in lanes[..count].iter_mut().enumerate() {
                    let x = &activations.row(first + t)[range.clone()];
                    add_lanes(&segment[..weights.len()], x, lanes);
                }
            }
            for (t, lanes) in lanes[..count].iter().enumerate() {
                panel.set(first + t, r, sum_lanes(*lanes));
            }
        }
    }
}
