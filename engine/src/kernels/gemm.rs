//! Products with many tokens: weights are unpacked once into a buffer that stays in the cache, and
//! every tile of tokens passes over it.
//!
//! ```text
//! Unpacked: [group][8 vectors of quants, scales, offsets][panel][lane]
//! ```

use super::formats::{Format, Sink};
use super::simd::{Rows, Simd};
use super::skinny::{finish, scaled, start};
use super::tile::{FIELDS, Tile};
use std::marker::PhantomData;

/// Groups that are unpacked before tokens meet them: 4,096 weights of each row.
pub const GROUPS: usize = 128;
/// Vectors per group and panel: eight of quants, up to two of scales, up to two of offsets.
const VECTORS: usize = 12;
/// Lanes of the widest instruction set times the panels taken together.
const LANES_MAX: usize = 32;
/// 32-bit values of the buffer that [`unpack`] fills.
pub const UNPACKED_LEN: usize = GROUPS * VECTORS * LANES_MAX;

/// Keeps groups for many tokens.
struct Keep<S: Simd, F: Format> {
    /// This panel's place of the first group of the blocks being unpacked.
    to: *mut i32,
    format: PhantomData<(S, F)>,
}

/// Vectors that format `F` needs per group.
#[inline(always)]
fn vectors<F: Format>() -> usize {
    8 + F::SCALES + F::OFFSETS
}

impl<S: Simd, F: Format> Sink<S> for Keep<S, F> {
    #[inline(always)]
    unsafe fn group(&mut self, g: usize, q: [S::I; 8], scale: [S::F; 2], offset: [S::F; 2]) {
        // SAFETY: the buffer holds `GROUPS` groups, and as the caller promises.
        unsafe {
            let to = self.to.add(g * vectors::<F>() * S::PANELS * S::LANES);
            let at = |vector: usize| to.add(vector * S::PANELS * S::LANES);
            for (k, q) in q.into_iter().enumerate() {
                S::store(at(k), q);
            }
            for (k, scale) in scale[..F::SCALES].iter().enumerate() {
                S::store_f(at(8 + k).cast(), *scale);
            }
            for (k, offset) in offset[..F::OFFSETS].iter().enumerate() {
                S::store_f(at(8 + F::SCALES + k).cast(), *offset);
            }
        }
    }
}

/// Unpacks `groups` groups of one panel as panel `index` of `to`.
///
/// # Safety
///
/// As for all of [`Simd`]; the rows have the groups; `to` has [`UNPACKED_LEN`] values and `groups` is
/// at most [`GROUPS`].
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd, F: Format>(
    rows: Rows,
    groups: usize,
    index: usize,
    to: *mut i32,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let group_len = vectors::<F>() * S::PANELS * S::LANES;
        let mut keep = Keep::<S, F> { to: to.add(index * S::LANES), format: PhantomData };
        let mut rows = rows;
        let blocks = groups / F::GROUPS;
        for _ in 0..blocks / F::BLOCKS {
            F::unpack::<S, _>(rows, &mut keep);
            keep.to = keep.to.add(F::BLOCKS * F::GROUPS * group_len);
            rows = rows.advanced(F::BLOCKS * F::BYTES);
        }
        for _ in 0..blocks % F::BLOCKS {
            F::unpack_one::<S, _>(rows, &mut keep);
            keep.to = keep.to.add(F::GROUPS * group_len);
            rows = rows.advanced(F::BYTES);
        }
    }
}

/// Vector `index` of panel `r` of an unpacked group.
///
/// # Safety
///
/// It is there.
#[inline(always)]
unsafe fn vector<S: Simd>(group: *const i32, index: usize, r: usize) -> *const i32 {
    // SAFETY: as the caller promises.
    unsafe { group.add((index * S::PANELS + r) * S::LANES) }
}

/// The products of one group by their scales.
///
/// # Safety
///
/// As for [`product`].
#[inline(always)]
unsafe fn group_sums<S: Simd, F: Format, const R: usize, const T: usize>(
    w: *const i32,
    y: *const i32,
    width: usize,
) -> [[S::F; R]; T] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums = [[S::splat_f(0.0); R]; T];
        for part in 0..F::PARTS {
            let mut dots = [[S::splat(0); R]; T];
            for (t, dots) in dots.iter_mut().enumerate() {
                *dots = [start::<S, F>(y.add(t), width, part); R];
            }
            for k in part * 8 / F::PARTS..(part + 1) * 8 / F::PARTS {
                let mut q = [S::splat(0); R];
                for (r, q) in q.iter_mut().enumerate() {
                    *q = S::load(vector::<S>(w, k, r));
                }
                for (t, dots) in dots.iter_mut().enumerate() {
                    let y = S::broadcast(y.add(k * width + t));
                    for r in 0..R {
                        dots[r] = if F::WIDE {
                            S::dot_wide(dots[r], q[r], y)
                        } else {
                            S::dot(dots[r], q[r], y)
                        };
                    }
                }
            }
            for r in 0..R {
                let scale = S::load_f(vector::<S>(w, 8 + part % F::SCALES, r).cast());
                for t in 0..T {
                    let dot = (part, dots[t][r]);
                    sums[t][r] = scaled::<S, F>(sums[t][r], dot, scale, y.add(t), width);
                }
            }
        }
        sums
    }
}

/// Adds `groups` groups of `R` unpacked panels times `T` tokens to `sums`, `[T][R][lane]`.
///
/// `tile` starts at the first token and group; `fresh` starts the sums at zero.
///
/// # Safety
///
/// As for all of [`Simd`]; `weights` was filled by [`unpack`]; `sums` has `T · R · LANES` values.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, F: Format, const R: usize, const T: usize>(
    weights: *const i32,
    tile: Tile,
    fresh: bool,
    sums: *mut f32,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let (mut w, mut y, width) = (weights, tile.record, tile.width);
        let mut acc = [[S::splat_f(0.0); R]; T];
        if !fresh {
            for (t, acc) in acc.iter_mut().enumerate() {
                for (r, acc) in acc.iter_mut().enumerate() {
                    *acc = S::load_f(sums.add((t * R + r) * S::LANES));
                }
            }
        }
        for _ in 0..tile.groups {
            let group = group_sums::<S, F, R, T>(w, y, width);
            for r in 0..R {
                let mut offset = [S::splat_f(0.0); 2];
                for (i, offset) in offset[..F::OFFSETS].iter_mut().enumerate() {
                    *offset = S::load_f(vector::<S>(w, 8 + F::SCALES + i, r).cast());
                }
                let factors = (S::load_f(vector::<S>(w, 8, r).cast()), offset);
                for t in 0..T {
                    acc[t][r] = finish::<S, F>(acc[t][r], group[t][r], factors, y.add(t), width);
                }
            }
            w = w.add(vectors::<F>() * S::PANELS * S::LANES);
            y = y.add(FIELDS * width);
        }
        for (t, acc) in acc.iter().enumerate() {
            for (r, acc) in acc.iter().enumerate() {
                S::store_f(sums.add((t * R + r) * S::LANES), *acc);
            }
        }
    }
}
