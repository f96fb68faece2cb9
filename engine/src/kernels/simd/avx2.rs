//! AVX2 with FMA: eight rows per panel. With AVX-VNNI a dot product is one instruction.
#![allow(clippy::missing_safety_doc, reason = "the trait says it")]

use super::{Rows, Simd};
use std::arch::x86_64::*;

/// The instruction set; `VNNI` says whether it has the dot product of bytes.
#[derive(Clone, Copy)]
pub struct Avx2<const VNNI: bool>;

/// Transposes dwords inside each 128-bit lane of four vectors.
#[inline(always)]
unsafe fn transpose_lanes(z: [__m256i; 4]) -> [__m256i; 4] {
    // SAFETY: registers only; the caller is on a machine with the instructions.
    unsafe {
        let a = _mm256_unpacklo_epi32(z[0], z[1]);
        let b = _mm256_unpackhi_epi32(z[0], z[1]);
        let c = _mm256_unpacklo_epi32(z[2], z[3]);
        let d = _mm256_unpackhi_epi32(z[2], z[3]);
        [
            _mm256_unpacklo_epi64(a, c),
            _mm256_unpackhi_epi64(a, c),
            _mm256_unpacklo_epi64(b, d),
            _mm256_unpackhi_epi64(b, d),
        ]
    }
}

/// Vectors that hold 32 bytes of rows 0–3 and 4–7, to one dword of each row each.
#[inline(always)]
unsafe fn join_halves(low: [__m256i; 4], high: [__m256i; 4]) -> [__m256i; 8] {
    // SAFETY: registers only; the caller is on a machine with the instructions.
    unsafe {
        let (t, u) = (transpose_lanes(low), transpose_lanes(high));
        [
            _mm256_permute2x128_si256::<0x20>(t[0], u[0]),
            _mm256_permute2x128_si256::<0x20>(t[1], u[1]),
            _mm256_permute2x128_si256::<0x20>(t[2], u[2]),
            _mm256_permute2x128_si256::<0x20>(t[3], u[3]),
            _mm256_permute2x128_si256::<0x31>(t[0], u[0]),
            _mm256_permute2x128_si256::<0x31>(t[1], u[1]),
            _mm256_permute2x128_si256::<0x31>(t[2], u[2]),
            _mm256_permute2x128_si256::<0x31>(t[3], u[3]),
        ]
    }
}

/// Two 16-byte pieces.
#[inline(always)]
unsafe fn two_pieces(a: *const u8, b: *const u8) -> __m256i {
    // SAFETY: the caller has sixteen bytes at each address; the machine has the instructions.
    unsafe {
        let low = _mm256_castsi128_si256(_mm_loadu_si128(a.cast()));
        _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(b.cast()))
    }
}

/// The low 16 bits of eight dwords.
#[inline(always)]
unsafe fn words(a: __m256i) -> __m128i {
    // SAFETY: registers only; the caller is on a machine with the instructions.
    unsafe {
        let masked = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
        let packed = _mm256_packus_epi32(masked, masked);
        _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed))
    }
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const LANES: usize = 8;
    const PANELS: usize = 1;
    const WIDE_BIAS: Option<u32> = if VNNI { Some(7) } else { None };
    type I = __m256i;
    type F = __m256;

    #[inline(always)]
    unsafe fn splat(v: i32) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_set1_epi32(v) }
    }
    #[inline(always)]
    unsafe fn splat_f(v: f32) -> __m256 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_set1_ps(v) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const i32) -> __m256i {
        // SAFETY: the caller has a value at `from`; the machine has the instructions.
        unsafe { _mm256_set1_epi32(from.read()) }
    }
    #[inline(always)]
    unsafe fn broadcast_f(from: *const f32) -> __m256 {
        // SAFETY: the caller has a value at `from`; the machine has the instructions.
        unsafe { _mm256_set1_ps(from.read()) }
    }
    #[inline(always)]
    unsafe fn load(from: *const i32) -> __m256i {
        // SAFETY: the caller has a vector of values at `from`; the machine has the instructions.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_f(from: *const f32) -> __m256 {
        // SAFETY: the caller has a vector of values at `from`; the machine has the instructions.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_halves(from: *const u16) -> __m256 {
        // SAFETY: the caller has 16 bits for each lane at `from`; the machine has the instructions.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bfloats(from: *const u16) -> __m256 {
        // SAFETY: the caller has 16 bits for each lane at `from`; the machine has the instructions.
        unsafe {
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
        }
    }
    #[inline(always)]
    unsafe fn store(to: *mut i32, v: __m256i) {
        // SAFETY: the caller has room for a vector at `to`; the machine has the instructions.
        unsafe { _mm256_storeu_si256(to.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_f(to: *mut f32, v: __m256) {
        // SAFETY: the caller has room for a vector at `to`; the machine has the instructions.
        unsafe { _mm256_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn or_masked(a: __m256i, b: __m256i, mask: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_or_si256(a, _mm256_and_si256(b, mask)) }
    }
    #[inline(always)]
    unsafe fn shr<const N: i32>(a: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_srli_epi32::<N>(a) }
    }
    #[inline(always)]
    unsafe fn shl<const N: i32>(a: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_slli_epi32::<N>(a) }
    }
    #[inline(always)]
    unsafe fn shl_by(a: __m256i, n: u32) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_sub_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn byte<const K: i32>(a: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe {
            let shifted = _mm256_srl_epi32(a, _mm_cvtsi32_si128(8 * K));
            _mm256_and_si256(shifted, _mm256_set1_epi32(0xff))
        }
    }
    #[inline(always)]
    unsafe fn signed_byte<const K: i32>(a: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe {
            let top = _mm256_sll_epi32(a, _mm_cvtsi32_si128(24 - 8 * K));
            _mm256_srai_epi32::<24>(top)
        }
    }
    #[inline(always)]
    unsafe fn widen(a: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { if VNNI { _mm256_xor_si256(a, _mm256_set1_epi8(-128)) } else { a } }
    }
    #[inline(always)]
    unsafe fn table(values: &[i8; 16]) -> __m256i {
        // SAFETY: sixteen bytes are there; the machine has the instructions.
        unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(values.as_ptr().cast())) }
    }
    #[inline(always)]
    unsafe fn lookup(table: __m256i, indices: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_shuffle_epi8(table, indices) }
    }
    #[inline(always)]
    unsafe fn from_bits(a: __m256i) -> __m256 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_castsi256_ps(a) }
    }
    #[inline(always)]
    unsafe fn to_f(a: __m256i) -> __m256 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn half_low(a: __m256i) -> __m256 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_cvtph_ps(words(a)) }
    }
    #[inline(always)]
    unsafe fn half_high(a: __m256i) -> __m256 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_cvtph_ps(words(_mm256_srli_epi32::<16>(a))) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn neg(a: __m256) -> __m256 {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { _mm256_xor_ps(a, _mm256_set1_ps(-0.0)) }
    }
    #[inline(always)]
    unsafe fn dot(acc: __m256i, w: __m256i, y: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(acc, w, y);
            }
            // Pairs of products do not saturate: 2 · 127 · 127 < 2¹⁵.
            let pairs = _mm256_maddubs_epi16(w, y);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn dot_wide(acc: __m256i, w: __m256i, y: __m256i) -> __m256i {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(acc, w, y);
            }
            // The quant's sign goes to the other factor: 2 · 128 · 127 < 2¹⁵.
            let (size, y) = (_mm256_abs_epi8(w), _mm256_sign_epi8(y, w));
            let pairs = _mm256_maddubs_epi16(size, y);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn dwords_8(rows: Rows, offset: usize) -> [__m256i; 8] {
        // SAFETY: all rows of the panel have 32 bytes from `offset` on, by the caller; the
        // machine has the instructions.
        unsafe {
            let row = |r: usize| _mm256_loadu_si256(rows.at(r, offset).cast());
            join_halves([row(0), row(1), row(2), row(3)], [row(4), row(5), row(6), row(7)])
        }
    }
    #[inline(always)]
    unsafe fn dwords_4_4(rows: Rows, first: usize, second: usize) -> [__m256i; 8] {
        // SAFETY: all rows of the panel have sixteen bytes from `first` and from `second` on, by
        // the caller; the machine has the instructions.
        unsafe {
            let row = |r: usize| two_pieces(rows.at(r, first), rows.at(r, second));
            join_halves([row(0), row(1), row(2), row(3)], [row(4), row(5), row(6), row(7)])
        }
    }
    #[inline(always)]
    unsafe fn dwords_4(rows: Rows, offset: usize) -> [__m256i; 4] {
        // SAFETY: all rows of the panel have sixteen bytes from `offset` on, by the caller; the
        // machine has the instructions.
        unsafe {
            let pair = |r: usize| two_pieces(rows.at(r, offset), rows.at(r + 4, offset));
            transpose_lanes([pair(0), pair(1), pair(2), pair(3)])
        }
    }
    #[inline(always)]
    unsafe fn dword(rows: Rows, offset: usize) -> __m256i {
        // SAFETY: all rows of the panel have four bytes from `offset` on, by the caller; the
        // machine has the instructions.
        unsafe {
            let d = |r: usize| rows.at(r, offset).cast::<i32>().read_unaligned();
            _mm256_setr_epi32(d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a hint: nothing shows, whatever the address; the machine has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}
