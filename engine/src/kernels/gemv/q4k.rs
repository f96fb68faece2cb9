//! `Q4_K`: four bits, scales and minimums of six.

use super::format::{
    GROUPS, GemvFormat, PAIR, eight_each, firsts_and_lasts, load_128, quarter_sums,
};
use std::arch::x86_64::*;

/// See [`GemvFormat`].
pub(super) struct Q4K;

impl Q4K {
    /// Scales and minimums of two superblocks' groups, in the order of [`GemvFormat::PLACES`].
    #[inline(always)]
    unsafe fn scales(heads: [__m128i; PAIR]) -> (__m512, __m512) {
        // SAFETY: as the caller promises.
        unsafe {
            let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(heads[0]), heads[1]);
            let pick =
                |bytes: __m128i| _mm256_shuffle_epi8(both, _mm256_broadcastsi128_si256(bytes));
            // Groups 0, 1, 4, 5, 2, 3, 6, 7: six bits of the first four are together, of the last four
            // two bits are elsewhere.
            let low = pick(_mm_setr_epi8(4, 5, 12, 13, 6, 7, 14, 15, 8, 9, 12, 13, 10, 11, 14, 15));
            let shift = _mm_setr_epi16(0, 0, 0, 0, 0, 4, 0, 4);
            let low = _mm256_srlv_epi16(low, _mm256_broadcastsi128_si256(shift));
            let (six, four) = (0x3f3f, 0x0f0f);
            let mask = _mm_setr_epi16(six, four, six, four, six, four, six, four);
            let low = _mm256_and_si256(low, _mm256_broadcastsi128_si256(mask));
            let high =
                pick(_mm_setr_epi8(-1, -1, 4, 5, -1, -1, 6, 7, -1, -1, 8, 9, -1, -1, 10, 11));
            let high = _mm256_srli_epi16::<2>(high);
            let x = _mm256_ternarylogic_epi32::<0xf8>(low, high, _mm256_set1_epi8(0x30));
            let (scales, mins) = firsts_and_lasts(x);
            let floats = |x| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(x));
            let factors = _mm_cvtph_ps(_mm_unpacklo_epi32(heads[0], heads[1]));
            // Minimums are subtracted.
            let factors = _mm_xor_ps(factors, _mm_setr_ps(0.0, -0.0, 0.0, -0.0));
            (
                _mm512_mul_ps(eight_each(factors, 0, 2), floats(scales)),
                _mm512_mul_ps(eight_each(factors, 1, 3), floats(mins)),
            )
        }
    }

    /// Products of a superblock's quants: halves of groups, as [`quarter_sums`] leaves them.
    #[inline(always)]
    unsafe fn dots(quants: *const u8, y: *const i32) -> __m512i {
        // SAFETY: as the caller promises.
        unsafe {
            let mask = _mm512_set1_epi8(15);
            let (a, b) =
                (_mm512_loadu_si512(quants.cast()), _mm512_loadu_si512(quants.add(64).cast()));
            let low = |x| _mm512_and_si512(x, mask);
            let high = |x| _mm512_and_si512(_mm512_srli_epi16::<4>(x), mask);
            let dot = |w, i: usize| {
                _mm512_dpbusd_epi32(
                    _mm512_setzero_si512(),
                    w,
                    _mm512_loadu_si512(y.add(16 * i).cast()),
                )
            };
            quarter_sums([dot(low(a), 0), dot(high(a), 1), dot(low(b), 2), dot(high(b), 3)])
        }
    }
}

impl GemvFormat for Q4K {
    const BYTES: usize = 144;
    const ORDER: [usize; GROUPS] = [0, 2, 1, 3, 4, 6, 5, 7];
    const PLACES: [usize; GROUPS] = [0, 1, 4, 5, 2, 3, 6, 7];
    const OFFSETS: bool = true;
    const CORRECTED: Option<u32> = None;

    #[inline(always)]
    unsafe fn pair(blocks: [*const u8; PAIR], [y, _]: [*const i32; 2], to: [*mut f32; 2]) {
        // SAFETY: as the caller promises.
        unsafe {
            let a = Self::dots(blocks[0].add(16), y);
            let b = Self::dots(blocks[1].add(16), y.add(GROUPS * 8));
            let dots = _mm512_add_epi32(
                _mm512_shuffle_i32x4::<0x88>(a, b),
                _mm512_shuffle_i32x4::<0xdd>(a, b),
            );
            let (scale, offset) = Self::scales([load_128(blocks[0]), load_128(blocks[1])]);
            _mm512_storeu_ps(to[0], _mm512_mul_ps(_mm512_cvtepi32_ps(dots), scale));
            _mm512_storeu_ps(to[1], offset);
        }
    }
}
