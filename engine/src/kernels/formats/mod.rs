//! The quantised formats, unpacked for a panel of rows at a time.
//!
//! A format turns the quant blocks of one panel into groups of 32 weights per row: the quants as
//! unsigned bytes (less a bias that all quants of the format share), the scales and the offsets as
//! floats, one lane per row. What is done with a group is the [`Sink`]'s business: it may meet tokens
//! at once, or be kept for many of them. The meaning of a block is defined by [`crate::quant`].

pub mod k_quants;
pub mod legacy;
pub mod tables;

use super::simd::{Rows, Simd};

/// Takes a panel's groups in ascending order.
pub trait Sink<S: Simd> {
    /// Group `g` of the blocks that are being unpacked: eight vectors of four quants per row, the
    /// scales and offsets of the first and last 16 weights (equal where the format has one).
    ///
    /// # Safety
    ///
    /// As for all of [`Simd`].
    unsafe fn group(&mut self, g: usize, q: [S::I; 8], scale: [S::F; 2], offset: [S::F; 2]);
}

/// A quantised format.
pub trait Format {
    /// Bytes of a quant block.
    const BYTES: usize;
    /// Groups of 32 weights per quant block.
    const GROUPS: usize;
    /// Quant blocks that are unpacked together where there are so many.
    const BLOCKS: usize;
    /// Scales per group: 1 or 2.
    const SCALES: usize;
    /// Whether activations have a scale per 16 values rather than per 32; if so, `SCALES` is 1.
    const FINE: bool = false;
    /// Parts of a group whose products are summed apart: 16 weights each, or all 32.
    const PARTS: usize = if Self::FINE { 2 } else { Self::SCALES };
    /// Offsets per group: 0, 1 or 2.
    const OFFSETS: usize;
    /// Each quant has `1 << BIAS` subtracted; `None` for 0.
    const BIAS: Option<u32>;
    /// Whether quants take all of 8 bits, signed.
    const WIDE: bool = false;

    /// Unpacks [`BLOCKS`](Self::BLOCKS) quant blocks of each row.
    ///
    /// # Safety
    ///
    /// The rows have these blocks; as for all of [`Simd`].
    unsafe fn unpack<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K);

    /// Unpacks one quant block of each row: what is left at the end of a row.
    ///
    /// # Safety
    ///
    /// As above.
    unsafe fn unpack_one<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K);
}

// Arrays are changed in loops: `map` is not always inlined, and a call loses the instruction set.

/// Nibbles: the low and the high four bits of each byte.
///
/// # Safety
///
/// As for all of [`Simd`].
#[inline(always)]
unsafe fn low_nibbles<S: Simd>(x: [S::I; 8]) -> [S::I; 8] {
    // SAFETY: as the caller promises.
    unsafe {
        let mask = S::splat(0x0f0f_0f0f);
        let mut out = x;
        for out in &mut out {
            *out = S::and(*out, mask);
        }
        out
    }
}

/// As [`low_nibbles`], the high ones.
///
/// # Safety
///
/// As for all of [`Simd`].
#[inline(always)]
unsafe fn high_nibbles<S: Simd>(x: [S::I; 8]) -> [S::I; 8] {
    // SAFETY: as the caller promises.
    unsafe {
        let mask = S::splat(0x0f0f_0f0f);
        let mut out = x;
        for out in &mut out {
            *out = S::and(S::shr::<4>(*out), mask);
        }
        out
    }
}

/// The quants of a group from four dwords of nibbles: low ones first.
///
/// # Safety
///
/// As for all of [`Simd`].
#[inline(always)]
unsafe fn nibbles<S: Simd>(x: [S::I; 4]) -> [S::I; 8] {
    // SAFETY: as the caller promises.
    unsafe {
        let mask = S::splat(0x0f0f_0f0f);
        let low = |i: usize| S::and(x[i], mask);
        let high = |i: usize| S::and(S::shr::<4>(x[i]), mask);
        [low(0), low(1), low(2), low(3), high(0), high(1), high(2), high(3)]
    }
}
