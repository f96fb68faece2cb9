//! What the products of superblocks ask of a format, and the shuffles that formats share.

use std::arch::x86_64::*;

/// Groups of a superblock.
pub(super) const GROUPS: usize = 8;
/// Superblocks that share a vector.
pub(super) const PAIR: usize = 2;
/// Groups of a vector.
pub(super) const LANES: usize = PAIR * GROUPS;
/// A format of superblocks.
pub(super) trait GemvFormat {
    /// Bytes of a superblock.
    const BYTES: usize;
    /// The groups of a superblock in the order in which its bytes have them.
    const ORDER: [usize; GROUPS];
    /// Where [`pair`](Self::pair) leaves each group.
    const PLACES: [usize; GROUPS];
    /// Whether groups have offsets.
    const OFFSETS: bool;
    /// All quants are `1 << CORRECTED` too much; `None` for 0.
    const CORRECTED: Option<u32>;

    /// The products of two superblocks with the token's quants, less the corrections, by the scales
    /// of their groups; and the offsets.
    ///
    /// # Safety
    ///
    /// The blocks are there, and so is a pair's worth of all others.
    unsafe fn pair(blocks: [*const u8; PAIR], y: [*const i32; 2], to: [*mut f32; 2]);
}

/// Of four vectors the sums of each 128 bits: lane `i` of quarter `k` is that of quarter `k` of vector
/// `i`.
#[inline(always)]
pub(super) unsafe fn quarter_sums(x: [__m512i; 4]) -> __m512i {
    // SAFETY: as the caller promises.
    unsafe {
        let pair =
            |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low, high) = (pair(x[0], x[1]), pair(x[2], x[3]));
        _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high))
    }
}

/// The first eight bytes of both halves, then the last eight.
#[inline(always)]
pub(super) unsafe fn firsts_and_lasts(x: __m256i) -> (__m128i, __m128i) {
    // SAFETY: as the caller promises.
    unsafe {
        let x = _mm256_permute4x64_epi64::<0xd8>(x);
        (_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x))
    }
}

/// Lanes `a` and `b` of four, eight times each.
#[inline(always)]
pub(super) unsafe fn eight_each(x: __m128, a: i32, b: i32) -> __m512 {
    // SAFETY: as the caller promises.
    unsafe {
        let index = _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b);
        _mm512_permutexvar_ps(index, _mm512_castps128_ps512(x))
    }
}

#[inline(always)]
pub(super) unsafe fn load_128(from: *const u8) -> __m128i {
    // SAFETY: as the caller promises.
    unsafe { _mm_loadu_si128(from.cast()) }
}
