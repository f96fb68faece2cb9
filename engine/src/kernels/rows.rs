//! Element-wise work on all rows of a forward, shared out to the threads. Each value has its own sequence
//! of operations, so neither threads nor neighbours change a bit.

use super::elementwise;
use crate::pool::{Pool, Shared};

/// Values that a thread takes at a time: less costs more to hand out than to do.
const GRAIN: usize = 4096;

/// Norms each row of `x` as a whole, in place: `(x / sqrt(mean(x²) + eps)) · weight`; rows have
/// `weight.len()` values.
pub fn norm(pool: &Pool, x: &mut [f32], weight: &[f32], eps: f32) {
    let len = weight.len();
    let rows = x.len() / len;
    let x = Shared::new(x);
    pool.for_ranges(rows, GRAIN.div_ceil(len), &|rows| {
        // SAFETY: these rows are one unit's alone.
        let x = unsafe { x.part(rows.start * len..rows.end * len) };
        elementwise::rms_norm_in_place(pool.level(), x, weight, eps);
    });
}

/// Adds `scale` times the normed rows of `from` to those of `x`; rows have `weight.len()` values.
pub fn add_normed(
    pool: &Pool,
    x: &mut [f32],
    (from, weight): (&[f32], &[f32]),
    (eps, scale): (f32, f32),
) {
    let len = weight.len();
    let rows = x.len() / len;
    let x = Shared::new(x);
    pool.for_ranges(rows, GRAIN.div_ceil(len), &|rows| {
        for row in rows {
            let place = row * len..(row + 1) * len;
            // SAFETY: this row is one unit's alone.
            let x = unsafe { x.part(place.clone()) };
            elementwise::add_rms_norm(pool.level(), x, &from[place], weight, eps, scale);
        }
    });
}

/// `x = cap · tanh(x / cap)`.
pub fn cap(pool: &Pool, x: &mut [f32], cap: f32) {
    let len = x.len();
    let x = Shared::new(x);
    pool.for_ranges(len, GRAIN, &|range| {
        // SAFETY: this range is one unit's alone.
        elementwise::cap(pool.level(), unsafe { x.part(range) }, cap);
    });
}
