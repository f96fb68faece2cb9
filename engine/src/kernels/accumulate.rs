//! A small product of floats: `c[t, :] += Σ a[t, k] · b[k, :]`, `k` ascending, one fused sum per output.

use super::simd::Simd;
use crate::quant::f16::f16_to_f32;

/// Rows of `a` that are taken together at most.
pub const ROWS: usize = 6;
/// Columns are a multiple of this.
pub const COLUMNS: usize = 32;

/// What is multiplied: `a` is `[rows, depth]`, `b` `[depth, columns]`, `c` `[rows, columns]`.
#[derive(Clone, Copy)]
pub struct Operands {
    /// First value of `a`.
    pub a: *const f32,
    /// Values from one row of `a` to the next.
    pub a_stride: usize,
    /// First value of `b`: floats, or halves if [`halves`](Self::halves).
    pub b: *const u8,
    /// Whether values of `b` are halves. Each is widened where it is used: for a single pass of rows
    /// that is cheaper than widening all before.
    pub halves: bool,
    /// Values from one row of `b` to the next.
    pub b_stride: usize,
    /// First value of `c`.
    pub c: *mut f32,
    /// Values from one row of `c` to the next.
    pub c_stride: usize,
    /// Columns, a multiple of [`COLUMNS`].
    pub columns: usize,
    /// Products per output.
    pub depth: usize,
    /// Whether sums start at zero rather than at what `c` has.
    pub fresh: bool,
}

/// The product for `T` rows.
///
/// # Safety
///
/// As for all of [`Simd`]; the operands are there.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, const T: usize, const HALVES: bool>(o: Operands) {
    let size = if HALVES { size_of::<u16>() } else { size_of::<f32>() };
    // SAFETY: as the caller promises; `COLUMNS` is a multiple of two vectors.
    unsafe {
        for column in (0..o.columns).step_by(2 * S::LANES) {
            let (b, c) = (o.b.add(column * size), o.c.add(column));
            let mut acc = [[S::splat_f(0.0); 2]; T];
            if !o.fresh {
                for (t, acc) in acc.iter_mut().enumerate() {
                    let c = c.add(t * o.c_stride);
                    *acc = [S::load_f(c), S::load_f(c.add(S::LANES))];
                }
            }
            for k in 0..o.depth {
                let b = b.add(k * o.b_stride * size);
                let next = b.add(S::LANES * size);
                let b = if HALVES {
                    [S::load_halves(b.cast()), S::load_halves(next.cast())]
                } else {
                    [S::load_f(b.cast()), S::load_f(next.cast())]
                };
                for (t, acc) in acc.iter_mut().enumerate() {
                    let a = S::broadcast_f(o.a.add(t * o.a_stride + k));
                    *acc = [S::fma(a, b[0], acc[0]), S::fma(a, b[1], acc[1])];
                }
            }
            for (t, acc) in acc.into_iter().enumerate() {
                let c = c.add(t * o.c_stride);
                S::store_f(c, acc[0]);
                S::store_f(c.add(S::LANES), acc[1]);
            }
        }
    }
}

/// Halves as floats.
///
/// # Safety
///
/// As for all of [`Simd`].
#[inline(always)]
pub(super) unsafe fn widen<S: Simd>(from: &[[u8; 2]], to: &mut [f32]) {
    let whole = from.len().min(to.len()) / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: inside both slices.
        unsafe { S::store_f(to[i..].as_mut_ptr(), S::load_halves(from[i..].as_ptr().cast())) };
    }
    widen_by_definition(&from[whole..], &mut to[whole..]);
}

/// The definition of [`widen`].
#[inline(always)]
pub(super) fn widen_by_definition(from: &[[u8; 2]], to: &mut [f32]) {
    for (to, bits) in to.iter_mut().zip(from) {
        *to = f16_to_f32(u16::from_le_bytes(*bits));
    }
}

/// The definition, for `rows` rows.
///
/// # Safety
///
/// The operands are there.
pub(super) unsafe fn by_definition(o: Operands, rows: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        for t in 0..rows {
            for column in 0..o.columns {
                let c = o.c.add(t * o.c_stride + column);
                let mut acc = if o.fresh { 0.0 } else { *c };
                for k in 0..o.depth {
                    let index = k * o.b_stride + column;
                    let b = if o.halves {
                        f16_to_f32(o.b.cast::<u16>().add(index).read_unaligned())
                    } else {
                        *o.b.cast::<f32>().add(index)
                    };
                    acc = (*o.a.add(t * o.a_stride + k)).mul_add(b, acc);
                }
                *c = acc;
            }
        }
    }
}
