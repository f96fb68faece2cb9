//! Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: quant blocks of one group.
//!
//! Two blocks are unpacked together, so that a load fetches 32 bytes of quants of a row.
#![allow(clippy::missing_safety_doc, reason = "the trait says it")]

use super::{Format, Sink, nibbles};
use crate::kernels::simd::{Rows, Simd};

/// 4-bit quants around 8.
pub struct Q4_0;
/// 4-bit quants with an offset.
pub struct Q4_1;
/// 5-bit quants around 16.
pub struct Q5_0;
/// 5-bit quants with an offset.
pub struct Q5_1;
/// 8-bit quants.
pub struct Q8_0;

/// Eight dwords of nibbles, four of each of two blocks.
#[inline(always)]
unsafe fn two_blocks<S: Simd>(rows: Rows, at: usize, bytes: usize) -> [[S::I; 4]; 2] {
    // SAFETY: the caller has two blocks of each row, with sixteen bytes of nibbles from `at` on
    // in both; the machine has the instructions of `S`.
    unsafe {
        let x = S::dwords_4_4(rows, at, bytes + at);
        [[x[0], x[1], x[2], x[3]], [x[4], x[5], x[6], x[7]]]
    }
}

/// Adds bit `i` of `high` as bit 4 of quant `i`.
#[inline(always)]
unsafe fn fifth_bits<S: Simd>(q: [S::I; 8], high: S::I) -> [S::I; 8] {
    // SAFETY: registers only; the caller is on a machine with the instructions of `S`.
    unsafe {
        let mut out = q;
        let four = S::splat(0x0f);
        let mask = S::splat(0x1010_1010);
        let nibble = [
            S::and(high, four),
            S::and(S::shr::<4>(high), four),
            S::and(S::shr::<8>(high), four),
            S::and(S::shr::<12>(high), four),
            S::and(S::shr::<16>(high), four),
            S::and(S::shr::<20>(high), four),
            S::and(S::shr::<24>(high), four),
            S::shr::<28>(high),
        ];
        for i in 0..8 {
            // Bit k of the nibble goes to bit 4 of byte k: 7k + 4 places up, the others are masked.
            let n = nibble[i];
            let a = S::or(S::shl::<4>(n), S::shl::<11>(n));
            let b = S::or(S::shl::<18>(n), S::shl::<25>(n));
            out[i] = S::or_masked(q[i], S::or(a, b), mask);
        }
        out
    }
}

macro_rules! format {
    ($name:ident, $bytes:literal, $offsets:literal, $bias:expr, $quants:literal, $high:expr) => {
        impl Format for $name {
            const BYTES: usize = $bytes;
            const GROUPS: usize = 1;
            const BLOCKS: usize = 2;
            const SCALES: usize = 1;
            const FINE: bool = true;
            const OFFSETS: usize = $offsets;
            const BIAS: Option<u32> = $bias;

            #[inline(always)]
            unsafe fn unpack<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
                // SAFETY: the caller has two blocks of each row, whose nibbles fill their last
                // sixteen bytes; the machine has the instructions of `S`.
                unsafe {
                    let [a, b] = two_blocks::<S>(rows, $quants, $bytes);
                    Self::block::<S, K>(rows, 0, a, sink);
                    Self::block::<S, K>(rows, 1, b, sink);
                }
            }

            #[inline(always)]
            unsafe fn unpack_one<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
                // SAFETY: the caller has one block of each row, whose nibbles fill its last
                // sixteen bytes; the machine has the instructions of `S`.
                unsafe { Self::block::<S, K>(rows, 0, S::dwords_4(rows, $quants), sink) }
            }
        }

        impl $name {
            /// Block `g` of each row, whose nibbles are `x`.
            #[inline(always)]
            unsafe fn block<S: Simd, K: Sink<S>>(rows: Rows, g: usize, x: [S::I; 4], sink: &mut K) {
                // SAFETY: the caller has block `g` of each row; its first four bytes are read, and four
                // of high bits where it has some; the machine has the instructions of `S`.
                unsafe {
                    let head = S::dword(rows, $bytes * g);
                    let mut q = nibbles::<S>(x);
                    let high: Option<usize> = $high;
                    if let Some(high) = high {
                        q = fifth_bits::<S>(q, S::dword(rows, $bytes * g + high));
                    }
                    let offset = match $offsets {
                        0 => S::splat_f(0.0),
                        _ => S::half_high(head),
                    };
                    sink.group(g, q, [S::half_low(head); 2], [offset; 2]);
                }
            }
        }
    };
}

format!(Q4_0, 18, 0, Some(3), 2, None);
format!(Q4_1, 20, 1, None, 4, None);
format!(Q5_0, 22, 0, Some(4), 6, Some(2));
format!(Q5_1, 24, 1, None, 8, Some(4));

impl Format for Q8_0 {
    const BYTES: usize = 34;
    const GROUPS: usize = 1;
    const BLOCKS: usize = 1;
    const SCALES: usize = 1;
    const FINE: bool = true;
    const OFFSETS: usize = 0;
    // Which bias, if any, is the instruction set's choice: see `Simd::WIDE_BIAS`.
    const BIAS: Option<u32> = None;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn unpack<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: of the block's 34 bytes the first four are read, and the 32 behind the scale;
        // the machine has the instructions of `S`.
        unsafe {
            let scale = S::half_low(S::dword(rows, 0));
            let mut q = S::dwords_8(rows, 2);
            for q in &mut q {
                *q = S::widen(*q);
            }
            sink.group(0, q, [scale; 2], [S::splat_f(0.0); 2]);
        }
    }

    #[inline(always)]
    unsafe fn unpack_one<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: the caller has one block of each row, which is all that `unpack` takes; the
        // machine has the instructions of `S`.
        unsafe { Self::unpack(rows, sink) }
    }
}
