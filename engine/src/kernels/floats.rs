//! Products of weights that are floats: F32, F16, BF16.
//!
//! Sixteen lanes per output, element `i` in lane `i mod 16`, ascending, fused, and the tree.

use super::activations::Activations;
use super::matmul::Matrix;
use super::{LANES, Level, add_lanes, per_level, sum_lanes};
use crate::quant::TensorType;
use crate::quant::f16::{bf16_to_f32, f16_to_f32};
use std::ops::Range;

/// Tokens whose sums are kept while a weight row is read once.
const TILE: usize = 64;
/// Weights of a row that are widened before any token meets them.
const SEGMENT: usize = 2048;

/// Computes the products of `rows` with every token: `set(token, row, product)`.
pub fn rows(
    level: Level,
    matrix: Matrix<'_>,
    activations: &Activations,
    rows: Range<usize>,
    set: &dyn Fn(usize, usize, f32),
) {
    rows_at_level(level, matrix, activations, rows, set);
}

per_level! {
    fn rows_at_level(
        matrix: Matrix<'_>,
        activations: &Activations,
        rows: Range<usize>,
        set: &dyn Fn(usize, usize, f32),
    ) = rows_of_any;
}

#[inline(always)]
fn rows_of_any(
    matrix: Matrix<'_>,
    activations: &Activations,
    rows: Range<usize>,
    set: &dyn Fn(usize, usize, f32),
) {
    match matrix.ty {
        TensorType::F16 => {
            let value = |b| f16_to_f32(u16::from_le_bytes(b));
            floats::<2>(matrix, activations, rows, set, value);
        }
        TensorType::BF16 => {
            let value = |b| bf16_to_f32(u16::from_le_bytes(b));
            floats::<2>(matrix, activations, rows, set, value);
        }
        _ => floats::<4>(matrix, activations, rows, set, f32::from_le_bytes),
    }
}

#[inline(always)]
fn floats<const BYTES: usize>(
    matrix: Matrix<'_>,
    activations: &Activations,
    rows: Range<usize>,
    set: &dyn Fn(usize, usize, f32),
    value: impl Fn([u8; BYTES]) -> f32 + Copy,
) {
    let row_bytes = matrix.ty.row_bytes(matrix.cols);
    let mut segment = [0.0f32; SEGMENT];
    for first in (0..activations.rows()).step_by(TILE) {
        let count = TILE.min(activations.rows() - first);
        for r in rows.clone() {
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
                set(first + t, r, sum_lanes(*lanes));
            }
        }
    }
}
