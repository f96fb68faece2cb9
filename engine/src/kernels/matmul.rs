//! Weights times activations: `out[t, r] = Σ W[r, k] · x[t, k]`.
//!
//! A panel of weight rows is one thread's. Each quant block is unpacked once for a tile of tokens.

use super::activations::{Activations, QuantisedRow};
use super::{LANES, per_level, sum_lanes};
use crate::pool::{Panel, Pool};
use crate::quant::TensorType;
use crate::quant::f16::{bf16_to_f32, f16_to_f32};
use crate::quant::k_quants::{Block256, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};
use crate::quant::legacy::{Block32, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};

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

/// Exact: 32 products of at most 255 · 127 each.
#[inline(always)]
fn dot_i16<const LEN: usize>(w: &[i16; LEN], y: &[i16; LEN]) -> i32 {
    let mut sum = 0i32;
    for i in 0..LEN {
        sum += i32::from(w[i]) * i32::from(y[i]);
    }
    sum
}

#[inline(always)]
fn blocks_32<B: Block32>(
    matrix: Matrix<'_>,
    activations: &Activations,
    panel: &mut Panel<'_, f32>,
) {
    let row_bytes = matrix.ty.row_bytes(matrix.cols);
    for first in (0..activations.rows()).step_by(TILE) {
        let count = TILE.min(activations.rows() - first);
        let tokens: [QuantisedRow<'_>; TILE] = std::array::from_fn(|t| {
            activations.by_32.row(first + t.min(count - 1), matrix.cols, 32)
        });
        for r in panel.range() {
            let row = &matrix.bytes[r * row_bytes..(r + 1) * row_bytes];
            let mut acc = [0.0f32; TILE];
            for (b, block) in bytemuck::cast_slice::<u8, B>(row).iter().enumerate() {
                let w = block.unpack();
                for (acc, y) in acc[..count].iter_mut().zip(&tokens) {
                    let q: &[i16; 32] = (&y.q[32 * b..32 * b + 32]).try_into().expect("32 values");
                    let d = y.scales[b];
                    *acc = (w.scale * d).mul_add(dot_i16(&w.q, q) as f32, *acc);
                    if B::HAS_OFFSET {
                        let sum = i32::from(y.sums[2 * b]) + i32::from(y.sums[2 * b + 1]);
                        *acc = (w.offset * d).mul_add(sum as f32, *acc);
                    }
                }
            }
            for (t, acc) in acc[..count].iter().enumerate() {
                panel.set(first + t, r, *acc);
            }
        }
    }
}

#[inline(always)]
fn blocks_256<B: Block256>(
    matrix: Matrix<'_>,
    activations: &Activations,
    panel: &mut Panel<'_, f32>,
) {
    let row_bytes = matrix.ty.row_bytes(matrix.cols);
    for first in (0..activations.rows()).step_by(TILE) {
        let count = TILE.min(activations.rows() - first);
        let tokens: [QuantisedRow<'_>; TILE] = std::array::from_fn(|t| {
            activations.by_256.row(first + t.min(count - 1), matrix.cols, 256)
        });
        for r in panel.range() {
            let row = &matrix.bytes[r * row_bytes..(r + 1) * row_bytes];
            let mut acc = [0.0f32; TILE];
            let blocks = bytemuck::cast_slice::<u8, B>(row);
            for i in 0..blocks.len() {
                let b = block_in_order(i, blocks.len(), activations, count);
                let w = blocks[b].unpack();
                for (acc, y) in acc[..count].iter_mut().zip(&tokens) {
                    let q = (&y.q[256 * b..256 * b + 256]).try_into().expect("256 values");
                    let d = y.scales[b];
                    *acc = (w.d * d).mul_add(dot_i16::<256>(&w.w, q) as f32, *acc);
                    if B::HAS_MINS {
                        let sums = (&y.sums[16 * b..16 * b + 16]).try_into().expect("16 sums");
                        let mins = dot_i16::<16>(&w.mins, sums);
                        *acc = (-(w.dmin * d)).mul_add(mins as f32, *acc);
                    }
                }
            }
            for (t, acc) in acc[..count].iter().enumerate() {
                panel.set(first + t, r, *acc);
            }
        }
    }
}

/// Superblocks are added in ascending order.
#[cfg(not(test))]
#[inline(always)]
fn block_in_order(i: usize, _blocks: usize, _activations: &Activations, _tokens: usize) -> usize {
    i
}

/// As above, unless a test planted a bug: tiles of several tokens go downwards.
#[cfg(test)]
fn block_in_order(i: usize, blocks: usize, activations: &Activations, tokens: usize) -> usize {
    if activations.planted_bug && tokens > 1 { blocks - 1 - i } else { i }
}

#[inline(always)]
fn floats<const BYTES: usize>(
    matrix: Matrix<'_>,
    activations: &Activations,
    panel: &mut Panel<'_, f32>,
    value: impl Fn([u8; BYTES]) -> f32,
) {
    let row_bytes = matrix.ty.row_bytes(matrix.cols);
    for r in panel.range() {
        let row = &matrix.bytes[r * row_bytes..(r + 1) * row_bytes];
        let (weights, _) = row.as_chunks::<BYTES>();
        let (groups, rest) = weights.as_chunks::<LANES>();
        for t in 0..activations.rows() {
            let (x, x_rest) = activations.row(t).as_chunks::<LANES>();
            let mut lanes = [0.0f32; LANES];
            for (w, x) in groups.iter().zip(x) {
                for i in 0..LANES {
                    lanes[i] = value(w[i]).mul_add(x[i], lanes[i]);
                }
            }
            for (i, (w, x)) in rest.iter().zip(x_rest).enumerate() {
                lanes[i] = value(*w).mul_add(*x, lanes[i]);
            }
            panel.set(t, r, sum_lanes(lanes));
        }
    }
}
