//! AVX-512 with VNNI: sixteen rows per panel.
#![allow(clippy::missing_safety_doc, reason = "the trait says it")]

use super::{Rows, Simd};
use std::arch::x86_64::*;

/// The instruction set.
#[derive(Clone, Copy)]
pub struct Avx512;

/// Transposes dwords inside each 128-bit lane of four vectors.
#[inline(always)]
unsafe fn transpose_lanes(z: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: registers only; the caller is on a machine with the instructions.
    unsafe {
        let a = _mm512_unpacklo_epi32(z[0], z[1]);
        let b = _mm512_unpackhi_epi32(z[0], z[1]);
        let c = _mm512_unpacklo_epi32(z[2], z[3]);
        let d = _mm512_unpackhi_epi32(z[2], z[3]);
        [
            _mm512_unpacklo_epi64(a, c),
            _mm512_unpackhi_epi64(a, c),
            _mm512_unpacklo_epi64(b, d),
            _mm512_unpackhi_epi64(b, d),
        ]
    }
}

/// Vectors that hold rows 0–7 and 8–15, two 128-bit lanes per row, to one dword of each row each.
#[inline(always)]
unsafe fn join_halves(low: [__m512i; 4], high: [__m512i; 4]) -> [__m512i; 8] {
    // SAFETY: registers only; the caller is on a machine with the instructions.
    unsafe {
        let (t, u) = (transpose_lanes(low), transpose_lanes(high));
        [
            _mm512_shuffle_i32x4::<0x88>(t[0], u[0]),
            _mm512_shuffle_i32x4::<0x88>(t[1], u[1]),
            _mm512_shuffle_i32x4::<0x88>(t[2], u[2]),
            _mm512_shuffle_i32x4::<0x88>(t[3], u[3]),
            _mm512_shuffle_i32x4::<0xdd>(t[0], u[0]),
            _mm512_shuffle_i32x4::<0xdd>(t[1], u[1]),
            _mm512_shuffle_i32x4::<0xdd>(t[2], u[2]),
            _mm512_shuffle_i32x4::<0xdd>(t[3], u[3]),
        ]
    }
}

#[inline(always)]
unsafe fn load_128(from: *const u8) -> __m128i {
    // SAFETY: the caller has sixteen bytes at `from`; the machine has the instructions.
    unsafe { _mm_loadu_si128(from.cast()) }
}

/// 32 bytes of two rows.
#[inline(always)]
unsafe fn two_rows(rows: Rows, a: usize, b: usize, offset: usize) -> __m512i {
    // SAFETY: both rows have 32 bytes from `offset` on, by the caller; the
    // machine has the instructions.
    unsafe {
        let low = _mm512_castsi256_si512(_mm256_loadu_si256(rows.at(a, offset).cast()));
        _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(rows.at(b, offset).cast()))
    }
}

/// Four 16-byte pieces.
#[inline(always)]
unsafe fn four_pieces(a: *const u8, b: *const u8, c: *const u8, d: *const u8) -> __m512i {
    // SAFETY: the caller has sixteen bytes at each address; the machine has the instructions.
    unsafe {
        let z = _mm512_castsi128_si512(load_128(a));
        let z = _mm512_inserti32x4::<1>(z, load_128(b));
        let z = _mm512_inserti32x4::<2>(z, load_128(c));
        _mm512_inserti32x4::<3>(z, load_128(d))
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const PANELS: usize = 2;
    const WIDE_BIAS: Option<u32> = Some(7);
    type I = __m512i;
    type F = __m512;

    #[inline(always)]
    unsafe fn splat(v: i32) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_set1_epi32(v) }
    }
    #[inline(always)]
    unsafe fn splat_f(v: f32) -> __m512 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_set1_ps(v) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const i32) -> __m512i {
        // SAFETY: the caller has a value at `from`; the machine has the instructions.
        unsafe { _mm512_set1_epi32(from.read()) }
    }
    #[inline(always)]
    unsafe fn broadcast_f(from: *const f32) -> __m512 {
        // SAFETY: the caller has a value at `from`; the machine has the instructions.
        unsafe { _mm512_set1_ps(from.read()) }
    }
    #[inline(always)]
    unsafe fn load(from: *const i32) -> __m512i {
        // SAFETY: the caller has a vector of values at `from`; the machine has the instructions.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_f(from: *const f32) -> __m512 {
        // SAFETY: the caller has a vector of values at `from`; the machine has the instructions.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_halves(from: *const u16) -> __m512 {
        // SAFETY: the caller has 16 bits for each lane at `from`; the machine has the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bfloats(from: *const u16) -> __m512 {
        // SAFETY: the caller has 16 bits for each lane at `from`; the machine has the instructions.
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }
    #[inline(always)]
    unsafe fn store(to: *mut i32, v: __m512i) {
        // SAFETY: the caller has room for a vector at `to`; the machine has the instructions.
        unsafe { _mm512_storeu_si512(to.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_f(to: *mut f32, v: __m512) {
        // SAFETY: the caller has room for a vector at `to`; the machine has the instructions.
        unsafe { _mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn or_masked(a: __m512i, b: __m512i, mask: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_ternarylogic_epi32::<0xf8>(a, b, mask) }
    }
    #[inline(always)]
    unsafe fn shr<const N: i32>(a: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    unsafe fn shl<const N: i32>(a: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    unsafe fn shl_by(a: __m512i, n: u32) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn byte<const K: i32>(a: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe {
            // −1 clears a byte.
            const NONE: i32 = 0xffff_ff00_u32 as i32;
            let lane = _mm_setr_epi32(NONE | K, NONE | (K + 4), NONE | (K + 8), NONE | (K + 12));
            _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(lane))
        }
    }
    #[inline(always)]
    unsafe fn signed_byte<const K: i32>(a: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe {
            let top = _mm512_sll_epi32(a, _mm_cvtsi32_si128(24 - 8 * K));
            _mm512_srai_epi32::<24>(top)
        }
    }
    #[inline(always)]
    unsafe fn widen(a: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_xor_si512(a, _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn table(values: &[i8; 16]) -> __m512i {
        // SAFETY: sixteen bytes are there; the machine has the instructions.
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(values.as_ptr().cast())) }
    }
    #[inline(always)]
    unsafe fn lookup(table: __m512i, indices: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_shuffle_epi8(table, indices) }
    }
    #[inline(always)]
    unsafe fn from_bits(a: __m512i) -> __m512 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_castsi512_ps(a) }
    }
    #[inline(always)]
    unsafe fn to_f(a: __m512i) -> __m512 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn half_low(a: __m512i) -> __m512 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)) }
    }
    #[inline(always)]
    unsafe fn half_high(a: __m512i) -> __m512 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(a))) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn neg(a: __m512) -> __m512 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe {
            let sign = _mm512_set1_epi32(i32::MIN);
            _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), sign))
        }
    }
    #[inline(always)]
    unsafe fn dot(acc: __m512i, w: __m512i, y: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_dpbusd_epi32(acc, w, y) }
    }
    #[inline(always)]
    unsafe fn dot_wide(acc: __m512i, w: __m512i, y: __m512i) -> __m512i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm512_dpbusd_epi32(acc, w, y) }
    }
    #[inline(always)]
    unsafe fn dwords_8(rows: Rows, offset: usize) -> [__m512i; 8] {
        // SAFETY: all rows of the panel have 32 bytes from `offset` on, by the caller; the
        // machine has the instructions.
        unsafe {
            let pair = |a: usize| two_rows(rows, a, a + 4, offset);
            join_halves(
                [pair(0), pair(1), pair(2), pair(3)],
                [pair(8), pair(9), pair(10), pair(11)],
            )
        }
    }
    #[inline(always)]
    unsafe fn dwords_4_4(rows: Rows, first: usize, second: usize) -> [__m512i; 8] {
        // SAFETY: all rows of the panel have sixteen bytes from `first` and from `second` on, by
        // the caller; the machine has the instructions.
        unsafe {
            let pair = |a: usize| {
                four_pieces(
                    rows.at(a, first),
                    rows.at(a, second),
                    rows.at(a + 4, first),
                    rows.at(a + 4, second),
                )
            };
            join_halves(
                [pair(0), pair(1), pair(2), pair(3)],
                [pair(8), pair(9), pair(10), pair(11)],
            )
        }
    }
    #[inline(always)]
    unsafe fn dwords_4(rows: Rows, offset: usize) -> [__m512i; 4] {
        // SAFETY: all rows of the panel have sixteen bytes from `offset` on, by the caller; the
        // machine has the instructions.
        unsafe {
            let four = |a: usize| {
                four_pieces(
                    rows.at(a, offset),
                    rows.at(a + 4, offset),
                    rows.at(a + 8, offset),
                    rows.at(a + 12, offset),
                )
            };
            transpose_lanes([four(0), four(1), four(2), four(3)])
        }
    }
    #[inline(always)]
    unsafe fn dword(rows: Rows, offset: usize) -> __m512i {
        // SAFETY: all rows of the panel have four bytes from `offset` on, by the caller; the
        // machine has the instructions.
        unsafe {
            let four = |a: usize| {
                let dword = |r: usize| rows.at(r, offset).cast::<i32>().read_unaligned();
                let x = _mm_cvtsi32_si128(dword(a));
                let x = _mm_insert_epi32::<1>(x, dword(a + 1));
                let x = _mm_insert_epi32::<2>(x, dword(a + 2));
                _mm_insert_epi32::<3>(x, dword(a + 3))
            };
            let z = _mm512_castsi128_si512(four(0));
            let z = _mm512_inserti32x4::<1>(z, four(4));
            let z = _mm512_inserti32x4::<2>(z, four(8));
            _mm512_inserti32x4::<3>(z, four(12))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a hint: nothing shows, whatever the address; the machine has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}
