//! IQ4_NL, IQ4_XS and MXFP4: nibbles that are looked up.
#![allow(clippy::missing_safety_doc, reason = "the trait says it")]

use super::{Format, Sink, nibbles};
use crate::kernels::simd::{Rows, Simd};
use crate::quant::tables::{E2M1_TWICE, IQ4};

/// A table of signed bytes with one scale per 32.
pub struct Iq4Nl;
/// The same in superblocks, whose groups have scales of six bits.
pub struct Iq4Xs;
/// E2M1 with a power of two per 32.
pub struct Mxfp4;

/// What [`Mxfp4`]'s values have added so that none is negative.
const MXFP4_BIAS: u32 = 4;
/// Its table, with that.
const MXFP4: [i8; 16] = {
    let mut values = E2M1_TWICE;
    let mut i = 0;
    while i < values.len() {
        values[i] += 1 << MXFP4_BIAS;
        i += 1;
    }
    values
};

/// The values of nibbles.
#[inline(always)]
unsafe fn look_up<S: Simd>(table: S::I, x: [S::I; 4]) -> [S::I; 8] {
    // SAFETY: registers only; the caller is on a machine with the instructions of `S`.
    unsafe {
        let mut q = nibbles::<S>(x);
        for q in &mut q {
            *q = S::lookup(table, *q);
        }
        q
    }
}

/// As [`look_up`] for the tables of IQ4, as [`Simd::dot_wide`] takes them.
#[inline(always)]
unsafe fn look_up_wide<S: Simd>(x: [S::I; 4]) -> [S::I; 8] {
    // SAFETY: as above.
    unsafe { look_up::<S>(S::widen(S::table(&IQ4)), x) }
}

impl Format for Iq4Nl {
    const BYTES: usize = 18;
    const GROUPS: usize = 1;
    const BLOCKS: usize = 2;
    const SCALES: usize = 1;
    const FINE: bool = true;
    const OFFSETS: usize = 0;
    const BIAS: Option<u32> = None;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn unpack<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: the caller has two blocks of each row; of each the first four bytes are read, and the last
        // sixteen; the machine has the instructions of `S`.
        unsafe {
            let x = S::dwords_4_4(rows, 2, Self::BYTES + 2);
            for g in 0..2 {
                let scale = S::half_low(S::dword(rows, g * Self::BYTES));
                let q = look_up_wide::<S>([x[4 * g], x[4 * g + 1], x[4 * g + 2], x[4 * g + 3]]);
                sink.group(g, q, [scale; 2], [S::splat_f(0.0); 2]);
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack_one<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: as above, of one block.
        unsafe {
            let scale = S::half_low(S::dword(rows, 0));
            let q = look_up_wide::<S>(S::dwords_4(rows, 2));
            sink.group(0, q, [scale; 2], [S::splat_f(0.0); 2]);
        }
    }
}

impl Format for Iq4Xs {
    const BYTES: usize = 136;
    const GROUPS: usize = 8;
    const BLOCKS: usize = 1;
    const SCALES: usize = 1;
    const OFFSETS: usize = 0;
    const BIAS: Option<u32> = None;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn unpack<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: of the block's 136 bytes the first eight are read, then four times 32; the machine has the
        // instructions of `S`.
        unsafe {
            let (head, low) = (S::dword(rows, 0), S::dword(rows, 4));
            let (d, high) = (S::half_low(head), S::shr::<16>(head));
            let scales = six_bits::<S>(low, high);
            for c in 0..4 {
                let x = S::dwords_8(rows, 8 + 32 * c);
                for g in 0..2 {
                    let q = look_up_wide::<S>([x[4 * g], x[4 * g + 1], x[4 * g + 2], x[4 * g + 3]]);
                    let scale = S::mul(d, S::to_f(scales[2 * c + g]));
                    sink.group(2 * c + g, q, [scale; 2], [S::splat_f(0.0); 2]);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack_one<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: the caller has one block of each row, which is all that `unpack` takes; the machine has the
        // instructions of `S`.
        unsafe { Self::unpack(rows, sink) }
    }
}

/// The scales of eight groups: four bits each of `low`, two each of `high`, less 32.
#[inline(always)]
unsafe fn six_bits<S: Simd>(low: S::I, high: S::I) -> [S::I; 8] {
    // SAFETY: registers only; the caller is on a machine with the instructions of `S`.
    unsafe {
        let (four, two, middle) = (S::splat(15), S::splat(0x30), S::splat(32));
        let lows = [
            low,
            S::shr::<4>(low),
            S::shr::<8>(low),
            S::shr::<12>(low),
            S::shr::<16>(low),
            S::shr::<20>(low),
            S::shr::<24>(low),
            S::shr::<28>(low),
        ];
        let highs = [
            S::shl::<4>(high),
            S::shl::<2>(high),
            high,
            S::shr::<2>(high),
            S::shr::<4>(high),
            S::shr::<6>(high),
            S::shr::<8>(high),
            S::shr::<10>(high),
        ];
        let mut out = lows;
        for i in 0..8 {
            out[i] = S::sub(S::or_masked(S::and(lows[i], four), highs[i], two), middle);
        }
        out
    }
}

impl Mxfp4 {
    /// The powers of two of the blocks that begin at `at`.
    #[inline(always)]
    unsafe fn scale<S: Simd>(rows: Rows, at: usize) -> S::F {
        // SAFETY: the caller has a block at `at` of each row; the machine has the instructions of `S`.
        unsafe {
            let exponent = S::byte::<0>(S::dword(rows, at));
            let (low, normal) = (S::shr::<1>(exponent), S::splat(63));
            let power = |exponent| S::from_bits(S::shl::<23>(S::add(exponent, normal)));
            // As `half_power`: the smallest powers are subnormal.
            S::mul(power(low), power(S::sub(exponent, low)))
        }
    }
}

impl Format for Mxfp4 {
    const BYTES: usize = 17;
    const GROUPS: usize = 1;
    const BLOCKS: usize = 2;
    const SCALES: usize = 1;
    const FINE: bool = true;
    const OFFSETS: usize = 0;
    const BIAS: Option<u32> = Some(MXFP4_BIAS);

    #[inline(always)]
    unsafe fn unpack<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: the caller has two blocks of each row; of each the first four bytes are read, and the last
        // sixteen; the machine has the instructions of `S`.
        unsafe {
            let x = S::dwords_4_4(rows, 1, Self::BYTES + 1);
            let table = S::table(&MXFP4);
            for g in 0..2 {
                let scale = Self::scale::<S>(rows, g * Self::BYTES);
                let q = look_up::<S>(table, [x[4 * g], x[4 * g + 1], x[4 * g + 2], x[4 * g + 3]]);
                sink.group(g, q, [scale; 2], [S::splat_f(0.0); 2]);
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack_one<S: Simd, K: Sink<S>>(rows: Rows, sink: &mut K) {
        // SAFETY: as above, of one block.
        unsafe {
            let scale = Self::scale::<S>(rows, 0);
            let q = look_up::<S>(S::table(&MXFP4), S::dwords_4(rows, 1));
            sink.group(0, q, [scale; 2], [S::splat_f(0.0); 2]);
        }
    }
}
