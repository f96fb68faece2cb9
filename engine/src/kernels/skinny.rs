//! Products with a few tokens: a group of weights meets every token while it is in registers.
//!
//! One panel of rows at a time; weights are read once for up to [`TOKENS`] tokens.

use super::formats::{Format, Sink};
use super::simd::{Rows, Simd, prefetch_far};
use super::tile::{FIELDS, OFFSET_SUM, SCALE, SUMS, Tile};
use std::marker::PhantomData;

/// Tokens that share one pass over the weights.
pub const TOKENS: usize = 8;

/// Bytes ahead in each lane's stream that are asked for. Memory answers sooner; of twice as many the lanes'
/// streams push each other out of the nearest cache.
const AHEAD: usize = 512;

/// How a panel's way through memory goes on.
#[derive(Clone, Copy)]
pub enum Stream {
    /// Each lane takes neighbouring rows one after the other.
    OfLanes {
        /// Bytes from the start of a lane's row to the end of its rows.
        left: usize,
        /// Bytes from there to where the lane's rows of the next unit of work begin.
        jump: usize,
    },
    /// The lanes have neighbouring rows, and panels follow each other: so many bytes further on is what is asked
    /// for to the second cache, line after line, and each lane's next blocks from there to the nearest.
    OfPanels(usize),
}

/// The running sums of `T` tokens.
struct Sums<S: Simd, F: Format, const T: usize> {
    /// The first token's record of the group that comes next.
    y: *const i32,
    width: usize,
    acc: [S::F; T],
    /// The blocks that are being unpacked, and how far from them what is asked for lies.
    rows: Rows,
    ahead: usize,
    /// What is asked for to the second cache, if it is: the share of these blocks begins there.
    far: Option<*const u8>,
    format: PhantomData<F>,
}

/// The integer that part `part` of a group's products starts from: minus the bias's share.
///
/// # Safety
///
/// As for all of [`Simd`]; `y` has the record of a token, its fields `width` apart.
#[inline(always)]
pub(super) unsafe fn start<S: Simd, F: Format>(y: *const i32, width: usize, part: usize) -> S::I {
    // SAFETY: as the caller promises.
    unsafe {
        let bias = if F::WIDE { S::WIDE_BIAS } else { F::BIAS };
        let Some(bias) = bias else { return S::splat(0) };
        let sum = S::broadcast(y.add((SUMS + part) * width));
        let sum = match F::PARTS {
            1 => S::add(sum, S::broadcast(y.add((SUMS + 1) * width))),
            _ => sum,
        };
        S::shl_by(sum, bias)
    }
}

/// A group's products by the scales of its parts, after part `part`: the weights' scales, or the
/// activations' where those are finer.
///
/// # Safety
///
/// As for [`start`].
#[inline(always)]
pub(super) unsafe fn scaled<S: Simd, F: Format>(
    sum: S::F,
    (part, dot): (usize, S::I),
    scale: S::F,
    y: *const i32,
    width: usize,
) -> S::F {
    // SAFETY: as the caller promises.
    unsafe {
        let factor = if F::FINE {
            S::broadcast_f(y.add((SCALE + part) * width).cast::<f32>())
        } else {
            scale
        };
        match part {
            0 => S::mul(S::to_f(dot), factor),
            _ => S::fma(S::to_f(dot), factor, sum),
        }
    }
}

/// `acc` after a group whose products by the scales of its parts are `sum`.
///
/// # Safety
///
/// As for [`start`].
#[inline(always)]
pub(super) unsafe fn finish<S: Simd, F: Format>(
    acc: S::F,
    sum: S::F,
    (scale, offset): (S::F, [S::F; 2]),
    y: *const i32,
    width: usize,
) -> S::F {
    // SAFETY: as the caller promises.
    unsafe {
        let field = |index: usize| S::broadcast_f(y.add(index * width).cast::<f32>());
        let d = if F::FINE { scale } else { field(SCALE) };
        let acc = S::fma(sum, d, acc);
        match F::OFFSETS {
            0 => acc,
            1 => S::fma(offset[0], field(OFFSET_SUM), acc),
            _ => {
                // The record has the sums negated.
                let sum = |i: usize| S::to_f(S::broadcast(y.add((SUMS + i) * width)));
                let acc = S::fma(offset[0], S::neg(S::mul(d, sum(0))), acc);
                S::fma(offset[1], S::neg(S::mul(d, sum(1))), acc)
            }
        }
    }
}

impl<S: Simd, F: Format, const T: usize> Sums<S, F, T> {
    /// Asks for what some lanes will have [`AHEAD`] bytes further on. Every group does so for its share
    /// of the rows: all at once would wait for each other.
    #[inline(always)]
    fn prefetch(&self, g: usize) {
        const LINE: usize = 64;
        let (groups, bytes) = (F::BLOCKS * F::GROUPS, F::BLOCKS * F::BYTES);
        if let Some(far) = self.far {
            let share = S::LANES * bytes / groups;
            for line in 0..share.div_ceil(LINE) {
                prefetch_far(far.wrapping_add(g * share + line * LINE));
            }
        }
        for row in g * S::LANES / groups..(g + 1) * S::LANES / groups {
            for line in 0..bytes.div_ceil(LINE) {
                // SAFETY: an address that does not exist is passed over.
                unsafe { S::prefetch(self.rows.at(row, self.ahead + line * LINE)) };
            }
        }
    }
}

#[allow(clippy::needless_range_loop, reason = "see the loops")]
impl<S: Simd, F: Format, const T: usize> Sink<S> for Sums<S, F, T> {
    #[inline(always)]
    unsafe fn group(&mut self, g: usize, q: [S::I; 8], scale: [S::F; 2], offset: [S::F; 2]) {
        // SAFETY: the records of the row's groups are there, and as the caller promises.
        unsafe {
            let y = self.y.add(g * FIELDS * self.width);
            self.prefetch(g);
            let mut sums = [S::splat_f(0.0); T];
            // Indices, because the compiler unrolls these loops and keeps arrays in registers only then.
            for part in 0..F::PARTS {
                let mut dots = [S::splat(0); T];
                for (t, dot) in dots.iter_mut().enumerate() {
                    *dot = start::<S, F>(y.add(t), self.width, part);
                }
                for k in part * 8 / F::PARTS..(part + 1) * 8 / F::PARTS {
                    for (t, dot) in dots.iter_mut().enumerate() {
                        let y = S::broadcast(y.add(k * self.width + t));
                        *dot = if F::WIDE {
                            S::dot_wide(*dot, q[k], y)
                        } else {
                            S::dot(*dot, q[k], y)
                        };
                    }
                }
                for (t, sum) in sums.iter_mut().enumerate() {
                    let (dot, y) = ((part, dots[t]), y.add(t));
                    *sum = scaled::<S, F>(*sum, dot, scale[part], y, self.width);
                }
            }
            for (t, acc) in self.acc.iter_mut().enumerate() {
                let factors = (scale[0], offset);
                *acc = finish::<S, F>(*acc, sums[t], factors, y.add(t), self.width);
            }
        }
    }
}

/// The products of a panel's rows with the first `T` tokens of `tile`: one vector per token, one
/// lane per row.
///
/// # Safety
///
/// As for all of [`Simd`]; the rows have `tile.groups` groups.
#[inline(always)]
pub(super) unsafe fn panel<S: Simd, F: Format, const T: usize>(
    rows: Rows,
    tile: Tile,
    stream: Stream,
) -> [S::F; T] {
    // SAFETY: steps of whole blocks inside the rows; the records are there; and as promised.
    unsafe {
        let mut sums = Sums::<S, F, T> {
            y: tile.record,
            width: tile.width,
            acc: [S::splat_f(0.0); T],
            rows,
            ahead: 0,
            far: None,
            format: PhantomData,
        };
        let first = rows.at(0, 0);
        let mut rows = rows;
        let blocks = tile.groups / F::GROUPS;
        for step in 0..blocks / F::BLOCKS {
            sums.rows = rows;
            let done = step * F::BLOCKS * F::BYTES;
            (sums.ahead, sums.far) = match stream {
                Stream::OfLanes { left, .. } if done + AHEAD < left => (AHEAD, None),
                Stream::OfLanes { jump, .. } => (AHEAD + jump, None),
                Stream::OfPanels(far) => {
                    let far = first.wrapping_add(far + S::LANES * done);
                    (F::BLOCKS * F::BYTES, Some(far))
                }
            };
            F::unpack::<S, _>(rows, &mut sums);
            sums.y = sums.y.add(F::BLOCKS * F::GROUPS * FIELDS * tile.width);
            rows = rows.advanced(F::BLOCKS * F::BYTES);
        }
        for _ in 0..blocks % F::BLOCKS {
            F::unpack_one::<S, _>(rows, &mut sums);
            sums.y = sums.y.add(F::GROUPS * FIELDS * tile.width);
            rows = rows.advanced(F::BYTES);
        }
        sums.acc
    }
}
