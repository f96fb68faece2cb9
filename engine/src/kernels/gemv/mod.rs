//! Products of superblocks with one token, where each row is read to its end before the next begins.
//!
//! Sixteen rows side by side, as in `skinny`, are sixteen streams through memory; rows one after the
//! other are a single one, which can be asked for far ahead. Here a vector has sixteen groups of one
//! row. Their products with the token, by the groups' scales, are kept until sixteen rows have theirs;
//! then they are added up in the defined order, with a row in each lane, while the products of the next
//! sixteen rows are computed.

mod format;
mod q4k;
mod q6k;

use crate::kernels::simd::avx512::Avx512;
use crate::kernels::simd::{Rows, Simd};
use crate::kernels::tile::{FIELDS, OFFSET_SUM, SCALE, SUMS, Tile};
use crate::memory::Buffer;
use crate::quant::TensorType;
use format::{GROUPS, GemvFormat, LANES, PAIR};
use q4k::Q4K;
use q6k::Q6K;
use std::arch::x86_64::*;

/// Rows whose products are added up together.
pub const ROWS: usize = 16;
/// Groups of the longest row.
pub const GROUPS_MAX: usize = 1024;
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
    const fn of<F: GemvFormat>() -> Self {
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

/// See [`Gemv::prepare`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi2")]
unsafe fn prepare<F: GemvFormat>(tile: Tile, kept: &mut Kept) {
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
unsafe fn advance<F: GemvFormat>(rows: Strip, tile: Tile, kept: &mut Kept) -> [f32; ROWS] {
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
unsafe fn add<F: GemvFormat>(
    acc: __m512,
    kept: [*const f32; 2],
    tile: Tile,
    block: usize,
) -> __m512 {
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
