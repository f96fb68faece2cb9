//! The definition of a product: one output, written to be read.

use super::activations::part::Part;
use super::tile::{FIELDS, OFFSET_SUM, SCALE, SUMS, TILE_TOKENS};
use crate::quant::k_quants::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};
use crate::quant::legacy::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};
use crate::quant::tables::{BlockIq4Nl, BlockIq4Xs, BlockMxfp4};
use crate::quant::{Block, GROUP, Group, PerGroup, TensorType};

/// The products of one row of quantised weights with each token of tile `tile`; places without a
/// token are 0. `reversed` adds the quant blocks in the wrong order, for a test that has to notice.
///
/// # Panics
///
/// If `ty` is not quantised.
pub fn products(
    ty: TensorType,
    row: &[u8],
    activations: Part<'_>,
    tile: usize,
    reversed: bool,
) -> [f32; TILE_TOKENS] {
    let sums = match ty {
        TensorType::Q4_0 => sums::<BlockQ4_0>,
        TensorType::Q4_1 => sums::<BlockQ4_1>,
        TensorType::Q5_0 => sums::<BlockQ5_0>,
        TensorType::Q5_1 => sums::<BlockQ5_1>,
        TensorType::Q8_0 => sums::<BlockQ8_0>,
        TensorType::IQ4_NL => sums::<BlockIq4Nl>,
        TensorType::IQ4_XS => sums::<BlockIq4Xs>,
        TensorType::MXFP4 => sums::<BlockMxfp4>,
        TensorType::Q2_K => sums::<BlockQ2K>,
        TensorType::Q3_K => sums::<BlockQ3K>,
        TensorType::Q4_K => sums::<BlockQ4K>,
        TensorType::Q5_K => sums::<BlockQ5K>,
        TensorType::Q6_K => sums::<BlockQ6K>,
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => {
            unreachable!("{ty} weights are floats and have a kernel of their own")
        }
    };
    sums(ty, row, activations, tile, reversed)
}

fn sums<B: Block>(
    ty: TensorType,
    row: &[u8],
    activations: Part<'_>,
    tile: usize,
    reversed: bool,
) -> [f32; TILE_TOKENS] {
    let first = tile * TILE_TOKENS;
    let tokens = TILE_TOKENS.min(activations.rows() - first);
    let blocks = bytemuck::cast_slice::<u8, B>(row);
    let mut acc = [0.0; TILE_TOKENS];
    let mut groups = [Group::default(); 8];
    for i in 0..blocks.len() {
        let b = if reversed { blocks.len() - 1 - i } else { i };
        blocks[b].unpack(&mut groups[..B::GROUPS]);
        for (t, acc) in acc[..tokens].iter_mut().enumerate() {
            for (g, group) in groups[..B::GROUPS].iter().enumerate() {
                let record = activations.record(ty, first + t, b * B::GROUPS + g);
                *acc = add_group::<B>(group, &record, *acc);
            }
        }
    }
    acc
}

/// `acc` after one group.
fn add_group<B: Block>(group: &Group, record: &[i32; FIELDS], acc: f32) -> f32 {
    let d = [SCALE, SCALE + 1].map(|field| f32::from_bits(record[field] as u32));
    let dot = |range: std::ops::Range<usize>| -> f32 {
        let y = |i: usize| i32::from(record[i / 4].to_le_bytes()[i % 4] as i8);
        range.map(|i| i32::from(group.q[i]) * y(i)).sum::<i32>() as f32
    };
    let acc = match (B::GROUPS, B::SCALES) {
        (1, _) => {
            let products = dot(16..GROUP).mul_add(d[1], dot(0..16) * d[0]);
            products.mul_add(group.scale[0], acc)
        }
        (_, PerGroup::Two) => {
            let products = dot(16..GROUP).mul_add(group.scale[1], dot(0..16) * group.scale[0]);
            products.mul_add(d[0], acc)
        }
        _ => (dot(0..GROUP) * group.scale[0]).mul_add(d[0], acc),
    };
    match B::OFFSETS {
        PerGroup::None => acc,
        PerGroup::One => {
            let scaled_sum = f32::from_bits(record[OFFSET_SUM] as u32);
            group.offset[0].mul_add(scaled_sum, acc)
        }
        PerGroup::Two => {
            let scaled_sum = |i: usize| -(d[0] * record[SUMS + i] as f32);
            let acc = group.offset[0].mul_add(scaled_sum(0), acc);
            group.offset[1].mul_add(scaled_sum(1), acc)
        }
    }
}
