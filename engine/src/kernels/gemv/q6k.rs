//! `Q6_K`: six bits, scales of eight for every sixteen.

use super::format::{
    GROUPS, GemvFormat, LANES, PAIR, eight_each, firsts_and_lasts, load_128, quarter_sums,
};
use std::arch::x86_64::*;

/// See [`GemvFormat`].
pub(super) struct Q6K;

impl Q6K {
    /// Scales of the first and of the last sixteen weights of two superblocks' groups, in the order of
    /// [`GemvFormat::PLACES`].
    #[inline(always)]
    unsafe fn scales(blocks: [*const u8; PAIR]) -> [__m512; 2] {
        // SAFETY: as the caller promises.
        unsafe {
            let head = |i: usize| load_128(blocks[i].add(192));
            let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(head(0)), head(1));
            let order = _mm_setr_epi8(0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15);
            let x = _mm256_shuffle_epi8(both, _mm256_broadcastsi128_si256(order));
            let (first, last) = firsts_and_lasts(x);
            let half = |i: usize| i32::from(blocks[i].add(208).cast::<u16>().read_unaligned());
            let factors = _mm_cvtph_ps(_mm_setr_epi32(half(0), half(1), 0, 0));
            let factor = eight_each(factors, 0, 2);
            let scaled = |x| _mm512_mul_ps(factor, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x)));
            [scaled(first), scaled(last)]
        }
    }

    /// Products of a superblock's quants by sixteen: as [`quarter_sums`] leaves them.
    #[inline(always)]
    unsafe fn dots(block: *const u8, y: *const i32) -> __m512i {
        // SAFETY: as the caller promises.
        unsafe {
            let (four, two) = (_mm512_set1_epi8(0x0f), _mm512_set1_epi8(0x30));
            let halves = |low, high| {
                let low = _mm512_castsi256_si512(_mm256_set1_epi16(low));
                _mm512_inserti64x4::<1>(low, _mm256_set1_epi16(high))
            };
            let (up, down) = (halves(4, 2), halves(0, 2));
            let quants = |half: usize| {
                let low = _mm512_loadu_si512(block.add(64 * half).cast());
                let high = _mm256_loadu_si256(block.add(128 + 32 * half).cast());
                let high = _mm512_broadcast_i64x4(high);
                let first = _mm512_and_si512(low, four);
                let last = _mm512_and_si512(_mm512_srli_epi16::<4>(low), four);
                [
                    _mm512_ternarylogic_epi32::<0xf8>(first, _mm512_sllv_epi16(high, up), two),
                    _mm512_ternarylogic_epi32::<0xf8>(last, _mm512_srlv_epi16(high, down), two),
                ]
            };
            let dot = |w, i: usize| {
                _mm512_dpbusd_epi32(
                    _mm512_setzero_si512(),
                    w,
                    _mm512_loadu_si512(y.add(16 * i).cast()),
                )
            };
            let ([a, b], [c, d]) = (quants(0), quants(1));
            quarter_sums([dot(a, 0), dot(b, 1), dot(c, 2), dot(d, 3)])
        }
    }
}

impl GemvFormat for Q6K {
    const BYTES: usize = 210;
    const ORDER: [usize; GROUPS] = [0, 1, 2, 3, 4, 5, 6, 7];
    const PLACES: [usize; GROUPS] = [0, 4, 1, 5, 2, 6, 3, 7];
    const OFFSETS: bool = false;
    const CORRECTED: Option<u32> = Some(5);

    #[inline(always)]
    unsafe fn pair(
        blocks: [*const u8; PAIR],
        [y, corrections]: [*const i32; 2],
        to: [*mut f32; 2],
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let a = Self::dots(blocks[0], y);
            let b = Self::dots(blocks[1], y.add(GROUPS * 8));
            let part = |dots, i: usize| {
                let correction = _mm512_loadu_si512(corrections.add(LANES * i).cast());
                _mm512_cvtepi32_ps(_mm512_add_epi32(dots, correction))
            };
            let first = part(_mm512_shuffle_i32x4::<0x88>(a, b), 0);
            let last = part(_mm512_shuffle_i32x4::<0xdd>(a, b), 1);
            let scales = Self::scales(blocks);
            let sum = _mm512_fmadd_ps(last, scales[1], _mm512_mul_ps(first, scales[0]));
            _mm512_storeu_ps(to[0], sum);
        }
    }
}
