//! Q2_K to Q6_K: superblocks of eight groups.
#![allow(clippy::missing_safety_doc, reason = "the trait says it")]

use super::{Format, Sink, high_nibbles, low_nibbles};
use crate::kernels::simd::{Rows, Simd};

/// 2-bit quants.
pub struct Q2K;
/// 3-bit quants.
pub struct Q3K;
/// 4-bit quants.
pub struct Q4K;
/// 5-bit quants.
pub struct Q5K;
/// 6-bit quants.
pub struct Q6K;

/// The four bytes of a lane as floats times `d`.
#[inline(always)]
unsafe fn scaled_bytes<S: Simd>(x: S::I, d: S::F) -> [S::F; 4] {
    // SAFETY: registers only; the caller is on a machine with the instructions of `S`.
    unsafe {
        [
            S::mul(d, S::to_f(S::byte::<0>(x))),
            S::mul(d, S::to_f(S::byte::<1>(x))),
            S::mul(d, S::to_f(S::byte::<2>(x))),
            S::mul(d, S::to_f(S::byte::<3>(x))),
        ]
    }
}

/// The four signed bytes of a lane as floats times `d`.
#[inline(always)]
unsafe fn scaled_signed_bytes<S: Simd>(x: S::I, d: S::F) -> [S::F; 4] {
    // SAFETY: registers only; the caller is on a machine with the instructions of `S`.
    unsafe {
        [
            S::mul(d, S::to_f(S::signed_byte::<0>(x))),
            S::mul(d, S::to_f(S::signed_byte::<1>(x))),
            S::mul(d, S::to_f(S::signed_byte::<2>(x))),
            S::mul(d, S::to_f(S::signed_byte::<3>(x))),
        ]
    }
}

#[inline(always)]
fn eight<F: Copy>(a: [F; 4], b: [F; 4]) -> [F; 8] {
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// Scales and negated minimums of Q4_K's and Q5_K's eight groups.
#[inline(always)]
unsafe fn six_bit_pairs<S: Simd>(rows: Rows) -> ([S::F; 8], [S::F; 8]) {
    // SAFETY: a block of either format begins with the sixteen bytes that are read; the machine
    // has the instructions of `S`.
    unsafe {
        let [factors, a, b, c] = S::dwords_4(rows, 0);
        let (d, dmin) = (S::half_low(factors), S::neg(S::half_high(factors)));
        let (six, four, two) = (S::splat(0x3f3f_3f3f), S::splat(0x0f0f_0f0f), 0x3030_3030);
        let two = S::splat(two);
        let scales_low = S::and(a, six);
        let mins_low = S::and(b, six);
        let scales_high = S::or_masked(S::and(c, four), S::shr::<2>(a), two);
        let mins_high = S::or_masked(S::and(S::shr::<4>(c), four), S::shr::<2>(b), two);
        (
            eight(scaled_bytes::<S>(scales_low, d), scaled_bytes::<S>(scales_high, d)),
            eight(scaled_bytes::<S>(mins_low, dmin), scaled_bytes::<S>(mins_high, dmin)),
        )
    }
}

impl Format for Q4K {
    const BYTES: usize = 144;
    const GROUPS: usize = 8;
    const BLOCKS: usize = 1;
    const SCALES: usize = 1;
    const OFFSETS: usize = 1;
    const BIAS: Option<u32> = None;

    #[inline(always)]
    unsafe fn unpack<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: of the block's 144 bytes the first sixteen are read, then four times 32; the
        // machine has the instructions of `S`.
        unsafe {
            let (scale, offset) = six_bit_pairs::<S>(rows);
            for c in 0..4 {
                let q = S::dwords_8(rows, 16 + 32 * c);
                let (a, b) = (2 * c, 2 * c + 1);
                sink.group(a, low_nibbles::<S>(q), [scale[a]; 2], [offset[a]; 2]);
                sink.group(b, high_nibbles::<S>(q), [scale[b]; 2], [offset[b]; 2]);
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack_one<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: the caller has one block of each row, which is all that `unpack` takes; the
        // machine has the instructions of `S`.
        unsafe { Self::unpack(rows, sink) }
    }
}

/// Bit `N` of each byte of `high` as bit 4 of each byte of `q`.
#[inline(always)]
unsafe fn fifth_bits<S: Simd>(q: [S::I; 8], high: [S::I; 8], bit: usize) -> [S::I; 8] {
    // SAFETY: registers only; the caller is on a machine with the instructions of `S`.
    unsafe {
        let mask = S::splat(0x1010_1010);
        let mut out = q;
        for i in 0..8 {
            let h = match bit {
                0 => S::shl::<4>(high[i]),
                1 => S::shl::<3>(high[i]),
                2 => S::shl::<2>(high[i]),
                3 => S::shl::<1>(high[i]),
                4 => high[i],
                5 => S::shr::<1>(high[i]),
                6 => S::shr::<2>(high[i]),
                _ => S::shr::<3>(high[i]),
            };
            out[i] = S::or_masked(q[i], h, mask);
        }
        out
    }
}

impl Format for Q5K {
    const BYTES: usize = 176;
    const GROUPS: usize = 8;
    const BLOCKS: usize = 1;
    const SCALES: usize = 1;
    const OFFSETS: usize = 1;
    const BIAS: Option<u32> = None;

    #[inline(always)]
    unsafe fn unpack<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: of the block's 176 bytes the first 48 are read, then four times 32; the
        // machine has the instructions of `S`.
        unsafe {
            let (scale, offset) = six_bit_pairs::<S>(rows);
            let high = S::dwords_8(rows, 16);
            for c in 0..4 {
                let q = S::dwords_8(rows, 48 + 32 * c);
                let (a, b) = (2 * c, 2 * c + 1);
                let low = fifth_bits::<S>(low_nibbles::<S>(q), high, a);
                sink.group(a, low, [scale[a]; 2], [offset[a]; 2]);
                let q = fifth_bits::<S>(high_nibbles::<S>(q), high, b);
                sink.group(b, q, [scale[b]; 2], [offset[b]; 2]);
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack_one<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: the caller has one block of each row, which is all that `unpack` takes; the
        // machine has the instructions of `S`.
        unsafe { Self::unpack(rows, sink) }
    }
}

/// Two bits of each byte, moved to bits 0 and 1.
#[inline(always)]
unsafe fn two_bits<S: Simd>(x: [S::I; 8], shift: usize) -> [S::I; 8] {
    // SAFETY: registers only; the caller is on a machine with the instructions of `S`.
    unsafe {
        let mask = S::splat(0x0303_0303);
        let mut out = x;
        for (out, x) in out.iter_mut().zip(x) {
            let moved = match shift {
                0 => x,
                1 => S::shr::<2>(x),
                2 => S::shr::<4>(x),
                _ => S::shr::<6>(x),
            };
            *out = S::and(moved, mask);
        }
        out
    }
}

/// Sixteen scales in four dwords per row.
#[inline(always)]
fn sixteen<F: Copy>(x: [[F; 4]; 4]) -> [F; 16] {
    let [a, b, c, d] = x;
    [
        a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], //
        c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3],
    ]
}

impl Format for Q2K {
    const BYTES: usize = 84;
    const GROUPS: usize = 8;
    const BLOCKS: usize = 1;
    const SCALES: usize = 2;
    const OFFSETS: usize = 2;
    const BIAS: Option<u32> = None;

    #[inline(always)]
    unsafe fn unpack<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: of the block's 84 bytes all are read: sixteen, twice 32, four; the machine has
        // the instructions of `S`.
        unsafe {
            let factors = S::dword(rows, 80);
            let (d, dmin) = (S::half_low(factors), S::neg(S::half_high(factors)));
            let packed = S::dwords_4(rows, 0);
            let four = S::splat(0x0f0f_0f0f);
            let [mut scale, mut offset] = [[[d; 4]; 4]; 2];
            for i in 0..4 {
                scale[i] = scaled_bytes::<S>(S::and(packed[i], four), d);
                offset[i] = scaled_bytes::<S>(S::and(S::shr::<4>(packed[i]), four), dmin);
            }
            let (scale, offset) = (sixteen(scale), sixteen(offset));
            for half in 0..2 {
                let q = S::dwords_8(rows, 16 + 32 * half);
                for j in 0..4 {
                    let g = 4 * half + j;
                    let (a, b) = (2 * g, 2 * g + 1);
                    let (scale, offset) = ([scale[a], scale[b]], [offset[a], offset[b]]);
                    sink.group(g, two_bits::<S>(q, j), scale, offset);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack_one<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: the caller has one block of each row, which is all that `unpack` takes; the
        // machine has the instructions of `S`.
        unsafe { Self::unpack(rows, sink) }
    }
}

/// The sixteen scales of Q3_K times its factor: four low bits in eight bytes, two high bits in four.
#[inline(always)]
unsafe fn q3_scales<S: Simd>(rows: Rows) -> [S::F; 16] {
    // SAFETY: the last sixteen of a block's 110 bytes are read; the machine has the instructions
    // of `S`.
    unsafe {
        // Read so that the last 16 bytes end with the block: two bytes of quants come first.
        let tail = S::dwords_4(rows, 94);
        let d = S::half_high(tail[3]);
        let dword = |i: usize| S::or(S::shr::<16>(tail[i]), S::shl::<16>(tail[i + 1]));
        let (a, b, high) = (dword(0), dword(1), dword(2));
        let (four, two, bias) = (S::splat(0x0f0f_0f0f), S::splat(0x3030_3030), S::splat(32));
        let packed = [
            S::or_masked(S::and(a, four), S::shl::<4>(high), two),
            S::or_masked(S::and(b, four), S::shl::<2>(high), two),
            S::or_masked(S::and(S::shr::<4>(a), four), high, two),
            S::or_masked(S::and(S::shr::<4>(b), four), S::shr::<2>(high), two),
        ];
        let mut out = [[d; 4]; 4];
        for (out, x) in out.iter_mut().zip(packed) {
            let one = |x: S::I| S::mul(d, S::to_f(S::sub(x, bias)));
            *out = [
                one(S::byte::<0>(x)),
                one(S::byte::<1>(x)),
                one(S::byte::<2>(x)),
                one(S::byte::<3>(x)),
            ];
        }
        sixteen(out)
    }
}

impl Format for Q3K {
    const BYTES: usize = 110;
    const GROUPS: usize = 8;
    const BLOCKS: usize = 1;
    const SCALES: usize = 2;
    const OFFSETS: usize = 0;
    const BIAS: Option<u32> = Some(2);

    #[inline(always)]
    unsafe fn unpack<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: of the block's 110 bytes the first 96 are read here; the machine has the
        // instructions of `S`.
        unsafe {
            let scale = q3_scales::<S>(rows);
            let high = S::dwords_8(rows, 0);
            let (none, mask) = ([S::splat_f(0.0); 2], S::splat(0x0404_0404));
            for half in 0..2 {
                let q = S::dwords_8(rows, 32 + 32 * half);
                for j in 0..4 {
                    let g = 4 * half + j;
                    let mut q = two_bits::<S>(q, j);
                    for i in 0..8 {
                        let h = match g {
                            0 => S::shl::<2>(high[i]),
                            1 => S::shl::<1>(high[i]),
                            2 => high[i],
                            3 => S::shr::<1>(high[i]),
                            4 => S::shr::<2>(high[i]),
                            5 => S::shr::<3>(high[i]),
                            6 => S::shr::<4>(high[i]),
                            _ => S::shr::<5>(high[i]),
                        };
                        q[i] = S::or_masked(q[i], h, mask);
                    }
                    sink.group(g, q, [scale[2 * g], scale[2 * g + 1]], none);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack_one<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: the caller has one block of each row, which is all that `unpack` takes; the
        // machine has the instructions of `S`.
        unsafe { Self::unpack(rows, sink) }
    }
}

/// Bits 4 and 5 of each byte of `q` from two bits of each byte of `high`.
#[inline(always)]
unsafe fn six_bits<S: Simd>(q: [S::I; 8], high: [S::I; 8], j: usize) -> [S::I; 8] {
    // SAFETY: registers only; the caller is on a machine with the instructions of `S`.
    unsafe {
        let mask = S::splat(0x3030_3030);
        let mut out = q;
        for i in 0..8 {
            let h = match j {
                0 => S::shl::<4>(high[i]),
                1 => S::shl::<2>(high[i]),
                2 => high[i],
                _ => S::shr::<2>(high[i]),
            };
            out[i] = S::or_masked(q[i], h, mask);
        }
        out
    }
}

impl Format for Q6K {
    const BYTES: usize = 210;
    const GROUPS: usize = 8;
    const BLOCKS: usize = 1;
    const SCALES: usize = 2;
    const OFFSETS: usize = 0;
    const BIAS: Option<u32> = Some(5);

    #[inline(always)]
    unsafe fn unpack<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: of the block's 210 bytes quants and high bits fill 192, scales sixteen, and
        // the last four read end with it; the machine has the instructions of `S`.
        unsafe {
            let d = S::half_high(S::dword(rows, 206));
            let packed = S::dwords_4(rows, 192);
            let mut scale = [[d; 4]; 4];
            for (scale, packed) in scale.iter_mut().zip(packed) {
                *scale = scaled_signed_bytes::<S>(packed, d);
            }
            let (scale, none) = (sixteen(scale), [S::splat_f(0.0); 2]);
            for half in 0..2 {
                let a = S::dwords_8(rows, 64 * half);
                let b = S::dwords_8(rows, 64 * half + 32);
                let high = S::dwords_8(rows, 128 + 32 * half);
                for j in 0..4 {
                    let g = 4 * half + j;
                    let q = match j {
                        0 => low_nibbles::<S>(a),
                        1 => low_nibbles::<S>(b),
                        2 => high_nibbles::<S>(a),
                        _ => high_nibbles::<S>(b),
                    };
                    let q = six_bits::<S>(q, high, j);
                    sink.group(g, q, [scale[2 * g], scale[2 * g + 1]], none);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack_one<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: the caller has one block of each row, which is all that `unpack` takes; the
        // machine has the instructions of `S`.
        unsafe { Self::unpack(rows, sink) }
    }
}
