//! Tiles of the KV cache: written position by position, read as floats.

use super::heads::{AttentionShape, QueryChunk};
use crate::kernels::activations::quantise;
use crate::kernels::dispatch::widen;
use crate::kernels::elementwise::{Pairing, rms_norm_in_place, rotate};
use crate::kernels::{Level, per_level};
use crate::kv::{CacheShape, KvType, SCALE_LEN};
use crate::limits::BLOCK_LEN;
use crate::pool::{Pool, Shared};
use crate::quant::f16::f16_to_f32;
use half::f16;

/// What happens to queries and keys before they meet.
#[derive(Clone, Copy)]
pub struct Rotation<'a> {
    /// Heads and their width.
    pub attention: &'a AttentionShape,
    /// How rotated pairs lie in a head.
    pub pairing: Pairing,
    /// Of the norms.
    pub eps: f32,
    /// The norm of each query head, where the family has one.
    pub q_norm: Option<&'a [f32]>,
    /// The norm of each key head.
    pub k_norm: Option<&'a [f32]>,
    /// Whether those norms come after the rotation.
    pub is_normed_after: bool,
    /// `[cos, sin]` per row and pair.
    pub angles: &'a [[f32; 2]],
    /// Pairs per row.
    pub pairs: usize,
}

impl Rotation<'_> {
    fn apply(&self, level: Level, row: usize, heads: &mut [f32], norm: Option<&[f32]>) {
        let norm = |heads: &mut [f32]| {
            if let Some(norm) = norm {
                rms_norm_in_place(level, heads, norm, self.eps);
            }
        };
        if !self.is_normed_after {
            norm(heads);
        }
        let angles = &self.angles[row * self.pairs..(row + 1) * self.pairs];
        rotate(level, heads, self.attention.head_dim, self.pairing, angles);
        if self.is_normed_after {
            norm(heads);
        }
    }
}

/// Norms and rotates queries `q` and keys `k` in place and writes keys and values to the cache:
/// `[rows, heads · head_dim]` and `[rows, kv_heads · head_dim]`.
///
/// A unit of work is what one chunk writes to one block, for one key head.
pub fn store<'a, C>(
    pool: &Pool,
    rotation: &Rotation<'_>,
    chunks: C,
    (shape, keys, values): (CacheShape, &mut [u8], &mut [u8]),
    (q, k, v): (&mut [f32], &mut [f32], &[f32]),
) where
    C: Iterator<Item = QueryChunk<'a>> + Clone + Sync,
{
    let heads = shape.kv_heads;
    let (q, k) = (Shared::new(q), Shared::new(k));
    let (keys, values) = (Shared::new(keys), Shared::new(values));
    let blocks = |chunk: &QueryChunk<'_>| {
        (chunk.position + chunk.rows).div_ceil(BLOCK_LEN) - chunk.position / BLOCK_LEN
    };
    let total: usize = chunks.clone().map(|chunk| blocks(&chunk) * heads).sum();
    pool.each(total, &|_, mut index| {
        for chunk in chunks.clone() {
            if index >= blocks(&chunk) * heads {
                index -= blocks(&chunk) * heads;
                continue;
            }
            let (block, kv_head) = (chunk.position / BLOCK_LEN + index / heads, index % heads);
            let first = chunk.position.max(block * BLOCK_LEN);
            let end = (chunk.position + chunk.rows).min((block + 1) * BLOCK_LEN);
            for position in first..end {
                let row = chunk.first_row + position - chunk.position;
                let group = rotation.attention.group() * shape.head_dim;
                let at = (row * heads + kv_head) * group;
                // SAFETY: these heads of this row are this unit's alone.
                let q = unsafe { q.part(at..at + group) };
                rotation.apply(pool.level(), row, q, rotation.q_norm);
                let at = (row * heads + kv_head) * shape.head_dim;
                let range = at..at + shape.head_dim;
                // SAFETY: as above.
                let k = unsafe { k.part(range.clone()) };
                rotation.apply(pool.level(), row, k, rotation.k_norm);
                let block = chunk.table.block(block);
                let slot = Slot { block, offset: position % BLOCK_LEN, kv_head };
                // SAFETY: no other chunk writes to this block, and no other unit of this chunk.
                unsafe { write_slot(&shape, slot, (k, &keys), (&v[range], &values)) };
            }
            return;
        }
    });
}

/// A place in the cache: one position of one head.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The block.
    pub block: u32,
    /// The position in it.
    pub offset: usize,
    /// The head.
    pub kv_head: usize,
}

/// Writes the keys and values of one slot, `head_dim` of each.
///
/// # Safety
///
/// Nobody else reads or writes the tiles of this slot's block and head meanwhile.
pub unsafe fn write_slot(
    shape: &CacheShape,
    slot: Slot,
    (keys, keys_to): (&[f32], &Shared<'_, u8>),
    (values, values_to): (&[f32], &Shared<'_, u8>),
) {
    let at = shape.tile(slot.block, slot.kv_head);
    let bytes = shape.ty.tile_bytes(shape.head_dim);
    // SAFETY: the tiles are the caller's alone.
    let (keys_to, values_to) =
        unsafe { (keys_to.part(at..at + bytes), values_to.part(at..at + bytes)) };
    let dim = shape.head_dim;
    let key = |d: usize| d * BLOCK_LEN + slot.offset;
    let value = |d: usize| slot.offset * dim + d;
    let groups = dim.div_ceil(SCALE_LEN);
    match shape.ty {
        KvType::F16 => {
            write_halves(keys, keys_to, key);
            write_halves(values, values_to, value);
        }
        KvType::Q8_0 => {
            write_bytes(keys, keys_to, key, |g| g * BLOCK_LEN + slot.offset);
            write_bytes(values, values_to, value, |g| slot.offset * groups + g);
        }
    }
}

fn write_halves(x: &[f32], to: &mut [u8], place: impl Fn(usize) -> usize) {
    for (d, x) in x.iter().enumerate() {
        let at = 2 * place(d);
        to[at..at + 2].copy_from_slice(&f16::from_f32(*x).to_le_bytes());
    }
}

fn write_bytes(
    x: &[f32],
    to: &mut [u8],
    place: impl Fn(usize) -> usize,
    scale_place: impl Fn(usize) -> usize,
) {
    let scales = x.len() * BLOCK_LEN;
    for (g, x) in x.chunks(SCALE_LEN).enumerate() {
        let mut group = [0.0; SCALE_LEN];
        group[..x.len()].copy_from_slice(x);
        let (q, scale) = quantise(&group);
        for (i, q) in q[..x.len()].iter().enumerate() {
            to[place(g * SCALE_LEN + i)] = *q as u8;
        }
        let at = scales + 2 * scale_place(g);
        to[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    }
}

/// A tile of keys as floats, `[head_dim, 32]`.
pub fn widen_keys(level: Level, shape: CacheShape, tile: &[u8], out: &mut [f32]) {
    match shape.ty {
        KvType::F16 => {
            let len = shape.head_dim * BLOCK_LEN;
            widen(level, tile.as_chunks::<2>().0, &mut out[..len]);
        }
        KvType::Q8_0 => widen_key_bytes(level, shape.head_dim, tile, out),
    }
}

/// The first `count` positions of a tile of values as floats, `[count, stride]`.
pub fn widen_values(
    level: Level,
    shape: CacheShape,
    (tile, count): (&[u8], usize),
    stride: usize,
    out: &mut [f32],
) {
    let dim = shape.head_dim;
    match shape.ty {
        KvType::F16 if stride == dim => {
            widen(level, tile[..2 * count * dim].as_chunks::<2>().0, &mut out[..count * dim]);
        }
        KvType::F16 => {
            let tile = tile.chunks_exact(2 * dim).take(count);
            for (halves, out) in tile.zip(out.chunks_exact_mut(stride)) {
                widen(level, halves.as_chunks::<2>().0, &mut out[..dim]);
            }
        }
        KvType::Q8_0 => widen_value_bytes(level, dim, (tile, count), stride, out),
    }
}

per_level! {
    fn widen_key_bytes(dim: usize, tile: &[u8], out: &mut [f32]) = widen_key_bytes_any;
}
per_level! {
    fn widen_value_bytes(
        dim: usize, tile: (&[u8], usize), stride: usize, out: &mut [f32],
    ) = widen_value_bytes_any;
}

#[inline(always)]
fn half_at(bytes: &[u8], index: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]))
}

#[inline(always)]
fn widen_key_bytes_any(dim: usize, tile: &[u8], out: &mut [f32]) {
    let (quants, scales) = tile.split_at(dim * BLOCK_LEN);
    let quants = quants.as_chunks::<BLOCK_LEN>().0;
    let out = out.as_chunks_mut::<BLOCK_LEN>().0;
    let mut scale = [0.0f32; BLOCK_LEN];
    for d in 0..dim {
        if d % SCALE_LEN == 0 {
            let from = d / SCALE_LEN * BLOCK_LEN;
            for (i, scale) in scale.iter_mut().enumerate() {
                *scale = half_at(scales, from + i);
            }
        }
        for i in 0..BLOCK_LEN {
            out[d][i] = f32::from(quants[d][i] as i8) * scale[i];
        }
    }
}

#[inline(always)]
fn widen_value_bytes_any(
    dim: usize,
    (tile, count): (&[u8], usize),
    stride: usize,
    out: &mut [f32],
) {
    let (quants, scales) = tile.split_at(dim * BLOCK_LEN);
    let groups = dim.div_ceil(SCALE_LEN);
    for (j, out) in out.chunks_exact_mut(stride).take(count).enumerate() {
        let quants = &quants[j * dim..(j + 1) * dim];
        for g in 0..groups {
            let scale = half_at(scales, j * groups + g);
            let range = g * SCALE_LEN..dim.min((g + 1) * SCALE_LEN);
            for (out, q) in out[range.clone()].iter_mut().zip(&quants[range]) {
                *out = f32::from(*q as i8) * scale;
            }
        }
    }
}
