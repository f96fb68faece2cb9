//! Products of superblocks with one token, where each row is read to its end before the next begins.
//!
//! Sixteen rows side by side, as in `skinny`, are sixteen streams through memory; rows one after the
//! other are a single one, which can be asked for far ahead. Here a vector has sixteen groups of one
//! row. Their products with the token, by the groups' scales, are kept until sixteen rows have theirs;
//! then they are added up in the defined order, with a row in each lane, while the products of the next
//! sixteen rows are computed.

use crate::kernels::simd::avx512::Avx512;
use crate::kernels::simd::{Rows, Simd};
use crate::kernels::tile::{FIELDS, OFFSET_SUM, SCALE, SUMS, Tile};
use crate::memory::Buffer;
use crate::quant::TensorType;
use std::arch::x86_64::*;

/// Rows whose products are added up together.
pub const ROWS: usize = 16;
/// Groups of the longest row.
pub const GROUPS_MAX: usize = 1024;
/// Groups of a superblock.
const GROUPS: usize = 8;
/// Superblocks that share a vector.
const PAIR: usize = 2;
/// Groups of a vector.
const LANES: usize = PAIR * GROUPS;
/// Values of sixteen rows.
const KEPT: usize = GROUPS_MAX * ROWS;
/// Bytes ahead of what is computed that are asked for; docs/kernels.md has what other distances give.
const AHEAD: usize = 8 << 10;
const LINE: usize = 64;

/// What a thread keeps for these products.
#[derive(Debug)]
pub struct Kept {
    /// The token's quants, in the order in which a format's bytes meet them.
    quants: Buffer<i32>,
    /// What all quants of a format have too much, by the token's: two parts of each group.
    corrections: Buffer<i32>,
    /// Products by scales, `[pair][row][lane]`, of the rows at hand and of those before.
    products: [Buffer<f32>; 2],
    /// Offsets, likewise.
    offsets: [Buffer<f32>; 2],
}

impl Kept {
    /// Room for rows of [`GROUPS_MAX`] groups.
    pub fn new() -> Self {
        Self {
            quants: Buffer::new(GROUPS_MAX * 8),
            corrections: Buffer::new(GROUPS_MAX * 2),
            products: [Buffer::new(KEPT), Buffer::new(KEPT)],
            offsets: [Buffer::new(KEPT), Buffer::new(KEPT)],
        }
    }
}

/// Up to [`ROWS`] neighbouring rows.
#[derive(Clone, Copy)]
pub struct Strip {
    /// The first row's first byte.
    pub first: *const u8,
    /// Their number.
    pub count: usize,
}

/// One format's kernels.
///
/// Calling one is sound on a machine that has the instructions, with the memory that it names.
pub struct Gemv {
    /// Puts the only token of a tile into the order that the format needs.
    pub prepare: unsafe fn(tile: Tile, kept: &mut Kept),
    /// Computes the products of rows, and adds up those of the call before: `[row]`, with places
    /// beyond its rows undefined.
    pub advance: unsafe fn(rows: Strip, tile: Tile, kept: &mut Kept) -> [f32; ROWS],
}

impl Gemv {
    const fn of<F: Format>() -> Self {
        Self { prepare: prepare::<F>, advance: advance::<F> }
    }
}

/// The kernels for weights of type `ty`, if there are any.
pub fn kernels(ty: TensorType) -> Option<&'static Gemv> {
    match ty {
        TensorType::Q4_K => Some(&const { Gemv::of::<Q4K>() }),
        TensorType::Q6_K => Some(&const { Gemv::of::<Q6K>() }),
        _ => None,
    }
}

/// A format of superblocks.
trait Format {
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

/// See [`Gemv::prepare`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi2")]
unsafe fn prepare<F: Format>(tile: Tile, kept: &mut Kept) {
    let pairs = tile.groups.div_ceil(LANES);
    let (quants, _) = kept.quants[..pairs * LANES * 8].as_chunks_mut::<8>();
    for (i, to) in quants.iter_mut().enumerate() {
        let group = i / GROUPS * GROUPS + F::ORDER[i % GROUPS];
        if group < tile.groups {
            // SAFETY: the tile has a record of each of its groups, and one token.
            unsafe { to.as_mut_ptr().copy_from_nonoverlapping(tile.record.add(group * FIELDS), 8) };
        }
    }
    let Some(bias) = F::CORRECTED else { return };
    let (corrections, _) = kept.corrections[..pairs * LANES * 2].as_chunks_mut::<LANES>();
    for (i, to) in corrections.iter_mut().enumerate() {
        for (block, to) in to.as_chunks_mut::<GROUPS>().0.iter_mut().enumerate() {
            let first = (i / 2 * PAIR + block) * GROUPS;
            if first < tile.groups {
                for g in 0..GROUPS {
                    // SAFETY: as above.
                    let sum = unsafe { *tile.record.add((first + g) * FIELDS + SUMS + i % 2) };
                    to[F::PLACES[g]] = sum << bias;
                }
            }
        }
    }
}

/// See [`Gemv::advance`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi2")]
unsafe fn advance<F: Format>(rows: Strip, tile: Tile, kept: &mut Kept) -> [f32; ROWS] {
    kept.products.swap(0, 1);
    kept.offsets.swap(0, 1);
    let before = [kept.products[1].as_ptr(), kept.offsets[1].as_ptr()];
    let now = [kept.products[0].as_mut_ptr(), kept.offsets[0].as_mut_ptr()];
    let y = [kept.quants.as_ptr(), kept.corrections.as_ptr()];
    let blocks = tile.groups / GROUPS;
    // SAFETY: blocks inside the rows; what is kept has room for every pair of them.
    unsafe {
        let (mut acc, mut added, mut step) = (Avx512::splat_f(0.0), 0, 0);
        for row in 0..rows.count {
            let mut block = rows.first.add(row * blocks * F::BYTES);
            for pair in 0..blocks.div_ceil(PAIR) {
                for line in 0..(PAIR * F::BYTES).div_ceil(LINE) {
                    Avx512::prefetch(block.wrapping_add(AHEAD + line * LINE));
                }
                // An odd block is taken twice; the second time is not added.
                let second = if pair * PAIR + 1 < blocks { block.add(F::BYTES) } else { block };
                let (quants, corrections) = (pair * LANES * 8, pair * LANES * 2);
                let to = (pair * ROWS + row) * LANES;
                F::pair(
                    [block, second],
                    [y[0].add(quants), y[1].add(corrections)],
                    [now[0].add(to), now[1].add(to)],
                );
                block = second.add(F::BYTES);
                // One of the blocks before for each that sixteen rows have here: all at once would
                // wait for one another.
                step += PAIR;
                if step >= ROWS && added < blocks {
                    acc = add::<F>(acc, before, tile, added);
                    (step, added) = (step - ROWS, added + 1);
                }
            }
        }
        for block in added..blocks {
            acc = add::<F>(acc, before, tile, block);
        }
        let mut out = [0.0; ROWS];
        Avx512::store_f(out.as_mut_ptr(), acc);
        out
    }
}

/// `acc` after the groups of one superblock of sixteen rows, of which products and offsets are kept.
#[inline(always)]
unsafe fn add<F: Format>(acc: __m512, kept: [*const f32; 2], tile: Tile, block: usize) -> __m512 {
    let at = block / PAIR * ROWS * LANES + block % PAIR * GROUPS;
    // SAFETY: the records of all groups are there; what is kept has all pairs.
    unsafe {
        let lanes = |values: *const f32| {
            let rows = Rows::new(values.add(at).cast(), LANES * size_of::<f32>());
            Avx512::dwords_8(rows, 0)
        };
        let products = lanes(kept[0]);
        let offsets = if F::OFFSETS { lanes(kept[1]) } else { products };
        let mut acc = acc;
        for g in 0..GROUPS {
            let record = tile.record.add((block * GROUPS + g) * FIELDS);
            let field = |index: usize| Avx512::broadcast_f(record.add(index).cast());
            let place = F::PLACES[g];
            acc = Avx512::fma(_mm512_castsi512_ps(products[place]), field(SCALE), acc);
            if F::OFFSETS {
                let offset = _mm512_castsi512_ps(offsets[place]);
                acc = Avx512::fma(offset, field(OFFSET_SUM), acc);
            }
        }
        acc
    }
}

/// Of four vectors the sums of each 128 bits: lane `i` of quarter `k` is that of quarter `k` of vector
/// `i`.
#[inline(always)]
unsafe fn quarter_sums(x: [__m512i; 4]) -> __m512i {
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
unsafe fn firsts_and_lasts(x: __m256i) -> (__m128i, __m128i) {
    // SAFETY: as the caller promises.
    unsafe {
        let x = _mm256_permute4x64_epi64::<0xd8>(x);
        (_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x))
    }
}

/// Lanes `a` and `b` of four, eight times each.
#[inline(always)]
unsafe fn eight_each(x: __m128, a: i32, b: i32) -> __m512 {
    // SAFETY: as the caller promises.
    unsafe {
        let index = _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b);
        _mm512_permutexvar_ps(index, _mm512_castps128_ps512(x))
    }
}

#[inline(always)]
unsafe fn load_128(from: *const u8) -> __m128i {
    // SAFETY: as the caller promises.
    unsafe { _mm_loadu_si128(from.cast()) }
}

struct Q4K;

impl Q4K {
    /// Scales and minimums of two superblocks' groups, in the order of [`Format::PLACES`].
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

impl Format for Q4K {
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

struct Q6K;

impl Q6K {
    /// Scales of the first and of the last sixteen weights of two superblocks' groups, in the order of
    /// [`Format::PLACES`].
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

impl Format for Q6K {
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
