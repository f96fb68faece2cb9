//! What happens to rows of hidden states between the matrix products.

use super::{LANES, dot_f32, per_level};
use crate::math;
use std::ops::Range;

per_level! {
    /// `out = (x / sqrt(mean(x²) + eps)) · weight`, row by row; rows have `weight.len()` values.
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_rows;
}
per_level! {
    /// Columns `columns` of `(x / sqrt(mean(x²) + eps)) · weight` for one row `x`.
    pub fn rms_norm_columns(
        x: &[f32], weight: &[f32], eps: f32, columns: Range<usize>, out: &mut [f32],
    ) = rms_norm_part;
}
per_level! {
    /// `x = (x / sqrt(mean(x²) + eps)) · weight`, row by row; rows have `weight.len()` values.
    pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) = rms_norm_rows_in_place;
}
per_level! {
    /// `x += scale · (from / sqrt(mean(from²) + eps)) · weight` for one row, with one rounding for scale and
    /// addition.
    pub fn add_rms_norm(
        x: &mut [f32], from: &[f32], weight: &[f32], eps: f32, scale: f32,
    ) = add_rms_norm_row;
}
per_level! {
    /// `x = cap · tanh(x / cap)`.
    pub fn cap(x: &mut [f32], cap: f32) = cap_values;
}
per_level! {
    /// `out = activation(gate) · up`.
    pub fn gated(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) = gated_values;
}
per_level! {
    /// `x = x · scale`.
    pub fn scale(x: &mut [f32], scale: f32) = scale_values;
}
per_level! {
    /// Rotates each head of one row by the angles whose `[cos, sin]` are in `table`.
    ///
    /// `table` has one entry per pair; what a head has beyond `2 · table.len()` values stays.
    pub fn rotate(
        row: &mut [f32], head_dim: usize, pairing: Pairing, table: &[[f32; 2]],
    ) = rotate_heads;
}
per_level! {
    /// The largest value; `None` if one is not finite, or there is none.
    pub fn finite_max(x: &[f32], max: &mut Option<f32>) = finite_max_values;
}
per_level! {
    /// `total = Σ exp(x − max)`, in sixteen double-precision lanes, element `i` in lane `i mod 16`.
    pub fn sum_exp(x: &[f32], max: f32, total: &mut f64) = sum_exp_values;
}

#[inline(always)]
fn rms_norm_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let len = weight.len();
    for (x, out) in x.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
        rms_norm_part(x, weight, eps, 0..len, out);
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot_f32(x, x) / x.len() as f32 + eps).sqrt()
}

#[inline(always)]
fn rms_norm_rows_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    for x in x.chunks_exact_mut(weight.len()) {
        let inverse = inverse_rms(x, eps);
        for (x, weight) in x.iter_mut().zip(weight) {
            *x = (*x * inverse) * weight;
        }
    }
}

#[inline(always)]
fn add_rms_norm_row(x: &mut [f32], from: &[f32], weight: &[f32], eps: f32, scale: f32) {
    let inverse = inverse_rms(from, eps);
    for ((x, from), weight) in x.iter_mut().zip(from).zip(weight) {
        *x = ((from * inverse) * weight).mul_add(scale, *x);
    }
}

#[inline(always)]
fn cap_values(x: &mut [f32], cap: f32) {
    for x in x {
        *x = math::tanh(*x / cap) * cap;
    }
}

#[inline(always)]
fn rms_norm_part(x: &[f32], weight: &[f32], eps: f32, columns: Range<usize>, out: &mut [f32]) {
    let inverse = inverse_rms(x, eps);
    for ((x, weight), out) in x[columns.clone()].iter().zip(&weight[columns]).zip(out) {
        *out = (x * inverse) * weight;
    }
}

/// What is applied to the gate before it multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// The Gaussian one, by its tanh formula.
    Gelu,
    /// gpt-oss: `x · sigmoid(1.702 x)` of `min(x, 7)`, which multiplies one more than `y` between −7 and 7.
    ClampedSilu,
}

#[inline(always)]
fn gated_values(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let values = gate.iter().zip(up).zip(out);
    match activation {
        Activation::Silu => values.for_each(|((gate, up), out)| *out = math::silu(*gate) * up),
        Activation::Gelu => values.for_each(|((gate, up), out)| *out = math::gelu(*gate) * up),
        Activation::ClampedSilu => values.for_each(|((gate, up), out)| *out = clamped(*gate, *up)),
    }
}

/// See [`Activation::ClampedSilu`]; what is not a number stays so.
#[inline(always)]
fn clamped(gate: f32, up: f32) -> f32 {
    const LIMIT: f32 = 7.0;
    const ALPHA: f32 = 1.702;
    let gate = if gate > LIMIT { LIMIT } else { gate };
    let up = if up > LIMIT { LIMIT } else { up };
    let up = if up < -LIMIT { -LIMIT } else { up };
    gate / (1.0 + math::exp(-ALPHA * gate)) * (up + 1.0)
}

#[inline(always)]
fn scale_values(x: &mut [f32], scale: f32) {
    for x in x {
        *x *= scale;
    }
}

#[inline(always)]
fn finite_max_values(x: &[f32], max: &mut Option<f32>) {
    const EXPONENT: u32 = 0x7f80_0000;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    // All bits of the exponent are set in what is not finite, and only there.
    let mut wrong = [0u32; LANES];
    let (groups, rest) = x.as_chunks::<LANES>();
    for x in groups {
        for i in 0..LANES {
            lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
            wrong[i] |= u32::from(x[i].to_bits() & EXPONENT == EXPONENT);
        }
    }
    for x in rest {
        lanes[0] = if *x > lanes[0] { *x } else { lanes[0] };
        wrong[0] |= u32::from(!x.is_finite());
    }
    let largest = lanes.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    let finite = wrong.iter().all(|wrong| *wrong == 0) && !x.is_empty();
    *max = finite.then_some(largest);
}

#[inline(always)]
fn sum_exp_values(x: &[f32], max: f32, total: &mut f64) {
    let mut lanes = [0.0f64; LANES];
    let (groups, rest) = x.as_chunks::<LANES>();
    for x in groups {
        for i in 0..LANES {
            lanes[i] += f64::from(math::exp(x[i] - max));
        }
    }
    for (i, x) in rest.iter().enumerate() {
        lanes[i] += f64::from(math::exp(x - max));
    }
    *total = lanes.iter().sum();
}

/// How the two halves of a rotated pair lie in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Neighbours: 0 and 1, 2 and 3, … (llama, granite).
    Neighbours,
    /// Halves: 0 and n/2, 1 and n/2 + 1, … (qwen2, qwen3).
    Halves,
}

#[inline(always)]
fn rotate_heads(row: &mut [f32], head_dim: usize, pairing: Pairing, table: &[[f32; 2]]) {
    let pairs = table.len();
    for head in row.chunks_exact_mut(head_dim) {
        for (i, [cos, sin]) in table.iter().enumerate() {
            let (a, b) = match pairing {
                Pairing::Neighbours => (2 * i, 2 * i + 1),
                Pairing::Halves => (i, i + pairs),
            };
            let (x, y) = (head[a], head[b]);
            head[a] = x.mul_add(*cos, -(y * sin));
            head[b] = x.mul_add(*sin, y * cos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Level, sum_lanes};

    fn values(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 40) as f32 / 16_777_216.0 - 0.5) * 8.0
        })
        .take(len)
        .collect()
    }

    #[test]
    fn every_level_gives_the_bits_of_the_scalar_one_and_they_are_right() {
        for len in [1, 15, 16, 17, 64, 576, 1000] {
            let (x, y) = (values(len, 3), values(len, 5));
            let mut definition: Option<Vec<u32>> = None;
            for level in Level::available() {
                let mut out = Vec::new();
                let mut row = vec![0.0; len];
                rms_norm(level, &x, &y, 1e-5, &mut row);
                let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / len as f64;
                for i in 0..len {
                    let truth = f64::from(x[i]) / (mean + 1e-5).sqrt() * f64::from(y[i]);
                    assert!((f64::from(row[i]) - truth).abs() <= 1e-5 * truth.abs().max(1e-3));
                }
                out.extend(row.iter().map(|v| v.to_bits()));
                gated(level, Activation::Silu, &x, &y, &mut row);
                for i in 0..len {
                    let (g, u) = (f64::from(x[i]), f64::from(y[i]));
                    let truth = g / (1.0 + (-g).exp()) * u;
                    assert!((f64::from(row[i]) - truth).abs() <= 1e-6 * truth.abs().max(1e-3));
                }
                out.extend(row.iter().map(|v| v.to_bits()));
                let normed = row.clone();
                let mut in_place = x.clone();
                rms_norm_in_place(level, &mut in_place, &y, 1e-5);
                rms_norm(level, &x, &y, 1e-5, &mut row);
                assert_eq!(in_place, row);
                let mut sum = normed.clone();
                add_rms_norm(level, &mut sum, &x, &y, 1e-5, 0.5);
                for i in 0..len {
                    assert_eq!(sum[i], row[i].mul_add(0.5, normed[i]));
                }
                let mut capped = x.clone();
                cap(level, &mut capped, 3.0);
                for i in 0..len {
                    let truth = 3.0 * (f64::from(x[i]) / 3.0).tanh();
                    assert!((f64::from(capped[i]) - truth).abs() <= 2e-6 * truth.abs().max(1e-3));
                }
                out.extend(sum.iter().chain(&capped).map(|v| v.to_bits()));
                row = normed;
                let part = len / 3..len;
                let mut columns = vec![0.0; part.len()];
                rms_norm_columns(level, &x, &y, 1e-5, part.clone(), &mut columns);
                out.extend(columns.iter().map(|v| v.to_bits()));
                scale(level, &mut row, 1.5);
                out.extend(row.iter().map(|v| v.to_bits()));
                let mut max = None;
                finite_max(level, &x, &mut max);
                assert_eq!(max, x.iter().copied().reduce(f32::max));
                for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut y = x.clone();
                    y[len / 2] = wrong;
                    finite_max(level, &y, &mut max);
                    assert_eq!(max, None);
                }
                let mut total = 0.0;
                sum_exp(level, &x, 4.0, &mut total);
                let truth: f64 = x.iter().map(|x| (f64::from(*x) - 4.0).exp()).sum();
                assert!((total / truth - 1.0).abs() < 1e-6);
                out.extend([(total.to_bits() >> 32) as u32, total.to_bits() as u32]);
                assert_eq!(*definition.get_or_insert(out.clone()), out, "{level:?} at {len}");
            }
        }
        assert_eq!(sum_lanes([1.0; LANES]), 16.0);
    }
}
