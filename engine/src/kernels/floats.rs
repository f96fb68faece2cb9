//! Products of weights that are floats: F32, F16, BF16.
//!
//! Sixteen lanes per output, element `i` in lane `i mod 16`, ascending, fused, and the tree. Some rows
//! meet some tokens at a time, so that a value that is loaded is used more than once.

use super::simd::Simd;
use super::{LANES, sum_lanes};
use crate::quant::TensorType;
use crate::quant::f16::{bf16_to_f32, f16_to_f32};

/// A format of weights.
pub trait Float {
    /// Bytes of a weight.
    const BYTES: usize;
    /// The weight at the start of `bytes`.
    fn value(bytes: &[u8]) -> f32;
    /// Consecutive weights, one per lane.
    ///
    /// # Safety
    ///
    /// As for all of [`Simd`].
    unsafe fn load<S: Simd>(from: *const u8) -> S::F;
}

/// Single precision.
pub struct F32;
/// Half precision.
pub struct F16;
/// The upper half of single precision.
pub struct BF16;

impl Float for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::F {
        // SAFETY: as the caller promises.
        unsafe { S::load_f(from.cast()) }
    }
}

impl Float for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::F {
        // SAFETY: as the caller promises.
        unsafe { S::load_halves(from.cast()) }
    }
}

impl Float for BF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        bf16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::F {
        // SAFETY: as the caller promises.
        unsafe { S::load_bfloats(from.cast()) }
    }
}

/// Some rows of weights and the tokens that meet them.
#[derive(Clone, Copy)]
pub struct Operands<'a> {
    /// The rows, one after the other.
    pub weights: &'a [u8],
    /// The tokens' values, one after the other.
    pub values: &'a [f32],
    /// Values per row and per token.
    pub cols: usize,
}

/// The products of `R` rows with `T` tokens: `[R][T]` to `out`.
///
/// # Safety
///
/// As for all of [`Simd`]; `LANES` is a multiple of `S::LANES`.
///
/// # Panics
///
/// If there are fewer rows or tokens.
#[inline(always)]
pub(super) unsafe fn products<S: Simd, W: Float, const R: usize, const T: usize>(
    o: Operands<'_>,
    out: &mut [f32],
) {
    /// The most vectors that sixteen lanes take.
    const PARTS: usize = 4;
    let row_bytes = o.cols * W::BYTES;
    assert!(o.weights.len() >= R * row_bytes && o.values.len() >= T * o.cols, "all are there");
    let mut lanes = [[[0.0f32; LANES]; T]; R];
    let whole = o.cols / LANES * LANES;
    let (weights, values) = (o.weights.as_ptr(), o.values.as_ptr());
    // SAFETY: as the caller promises; what is read is inside the slices, whose length was checked.
    unsafe {
        let mut acc = [[[S::splat_f(0.0); PARTS]; T]; R];
        for k in (0..whole).step_by(LANES) {
            for part in 0..LANES / S::LANES {
                let at = k + part * S::LANES;
                let mut x = [S::splat_f(0.0); T];
                for (t, x) in x.iter_mut().enumerate() {
                    *x = S::load_f(values.add(t * o.cols + at));
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let w = W::load::<S>(weights.add(r * row_bytes + at * W::BYTES));
                    for (acc, x) in acc.iter_mut().zip(x) {
                        acc[part] = S::fma(w, x, acc[part]);
                    }
                }
            }
        }
        for (lanes, acc) in lanes.as_flattened_mut().iter_mut().zip(acc.as_flattened()) {
            for (part, acc) in acc.iter().enumerate().take(LANES / S::LANES) {
                S::store_f(lanes[part * S::LANES..].as_mut_ptr(), *acc);
            }
        }
    }
    finish::<W, R, T>(o, whole, &mut lanes, out);
}

/// Adds what is left of the rows from `whole` on, and the lanes.
#[inline(always)]
fn finish<W: Float, const R: usize, const T: usize>(
    o: Operands<'_>,
    whole: usize,
    lanes: &mut [[[f32; LANES]; T]; R],
    out: &mut [f32],
) {
    for (r, lanes) in lanes.iter_mut().enumerate() {
        for (t, lanes) in lanes.iter_mut().enumerate() {
            let row = &o.weights[r * o.cols * W::BYTES..(r + 1) * o.cols * W::BYTES];
            let values = &o.values[t * o.cols..(t + 1) * o.cols];
            for i in whole..o.cols {
                let lane = &mut lanes[i - whole];
                *lane = W::value(&row[i * W::BYTES..]).mul_add(values[i], *lane);
            }
            out[r * T + t] = sum_lanes(*lanes);
        }
    }
}

/// The definition: the product of one row with one token.
///
/// # Panics
///
/// If `ty` is quantised.
pub fn by_definition(ty: TensorType, row: &[u8], values: &[f32]) -> f32 {
    let (value, bytes): (fn(&[u8]) -> f32, usize) = match ty {
        TensorType::F32 => (F32::value, F32::BYTES),
        TensorType::F16 => (F16::value, F16::BYTES),
        TensorType::BF16 => (BF16::value, BF16::BYTES),
        _ => unreachable!("{ty} weights are quantised and have kernels of their own"),
    };
    let mut lanes = [0.0f32; LANES];
    for (i, (w, x)) in row.chunks_exact(bytes).zip(values).enumerate() {
        lanes[i % LANES] = value(w).mul_add(*x, lanes[i % LANES]);
    }
    sum_lanes(lanes)
}
