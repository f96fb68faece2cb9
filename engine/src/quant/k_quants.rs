//! Quant blocks of 256 weights: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
//!
//! A superblock has groups of 16 or 32 weights with small integer scales (and minimums) under one or
//! two half-precision factors. A factor times a small integer is exact in single precision.
//! Source: `ggml-common.h` and `ggml-quants.c` of ggml.

use super::f16::half;
use super::{Block, GROUP, Group, PerGroup};
use bytemuck::{Pod, Zeroable};

/// 2-bit quants, 16 groups with 4-bit scales and minimums.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2K {
    scales: [u8; 16],
    quants: [u8; 64],
    d: [u8; 2],
    dmin: [u8; 2],
}

/// 3-bit quants around 4, 16 groups with 6-bit scales around 32.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ3K {
    high: [u8; 32],
    quants: [u8; 64],
    scales: [u8; 12],
    d: [u8; 2],
}

/// 4-bit quants, 8 groups with 6-bit scales and minimums.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4K {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: [u8; 12],
    quants: [u8; 128],
}

/// 5-bit quants, 8 groups with 6-bit scales and minimums.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: [u8; 12],
    high: [u8; 32],
    quants: [u8; 128],
}

/// 6-bit quants around 32, 16 groups with signed 8-bit scales.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    low: [u8; 128],
    high: [u8; 64],
    scales: [i8; 16],
    d: [u8; 2],
}

const _: () = assert!(size_of::<BlockQ2K>() == 84);
const _: () = assert!(size_of::<BlockQ3K>() == 110);
const _: () = assert!(size_of::<BlockQ4K>() == 144);
const _: () = assert!(size_of::<BlockQ5K>() == 176);
const _: () = assert!(size_of::<BlockQ6K>() == 210);

/// The eight 6-bit scales and minimums that Q4_K and Q5_K pack into 12 bytes.
#[inline(always)]
fn six_bit_pairs(s: &[u8; 12]) -> ([i16; 8], [i16; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = i16::from(s[j] & 63);
        mins[j] = i16::from(s[j + 4] & 63);
        scales[j + 4] = i16::from((s[j + 8] & 15) | ((s[j] >> 6) << 4));
        mins[j + 4] = i16::from((s[j + 8] >> 4) | ((s[j + 4] >> 6) << 4));
    }
    (scales, mins)
}

/// The sixteen 6-bit scales that Q3_K packs into 12 bytes, less 32.
#[inline(always)]
fn q3_scales(s: &[u8; 12]) -> [i16; 16] {
    let mut scales = [0; 16];
    for (i, scale) in scales.iter_mut().enumerate() {
        let low = if i < 8 { s[i] & 15 } else { s[i - 8] >> 4 };
        let high = (s[8 + (i & 3)] >> (2 * (i >> 2))) & 3;
        *scale = i16::from(low | (high << 4)) - 32;
    }
    scales
}

/// Groups of 16 with a scale each, and an offset each.
#[inline(always)]
fn by_16(
    q: &[i16; 256],
    out: &mut [Group],
    scale: impl Fn(usize) -> f32,
    offset: impl Fn(usize) -> f32,
) {
    for (g, out) in out.iter_mut().enumerate() {
        out.q = q.as_chunks::<GROUP>().0[g];
        out.scale = [scale(2 * g), scale(2 * g + 1)];
        out.offset = [offset(2 * g), offset(2 * g + 1)];
    }
}

/// Groups of 32 with Q4_K's and Q5_K's scales and minimums.
#[inline(always)]
fn by_pairs(q: &[i16; 256], s: &[u8; 12], d: f32, dmin: f32, out: &mut [Group]) {
    let (scales, mins) = six_bit_pairs(s);
    for (g, out) in out.iter_mut().enumerate() {
        let q = q.as_chunks::<GROUP>().0[g];
        *out = Group::even(q, d * f32::from(scales[g]), -(dmin * f32::from(mins[g])));
    }
}

impl BlockQ2K {
    #[inline(always)]
    fn quants(&self) -> [i16; 256] {
        let mut q = [0; 256];
        for half in 0..2 {
            for shift in 0..4 {
                for l in 0..32 {
                    let byte = self.quants[32 * half + l];
                    q[128 * half + 32 * shift + l] = i16::from((byte >> (2 * shift)) & 3);
                }
            }
        }
        q
    }
}

impl BlockQ3K {
    #[inline(always)]
    fn quants(&self) -> [i16; 256] {
        let mut q = [0; 256];
        for half in 0..2 {
            for shift in 0..4 {
                for l in 0..32 {
                    let low = (self.quants[32 * half + l] >> (2 * shift)) & 3;
                    let high = (self.high[l] >> (4 * half + shift)) & 1;
                    q[128 * half + 32 * shift + l] = i16::from(low) + 4 * i16::from(high) - 4;
                }
            }
        }
        q
    }
}

/// Low nibbles of 32 bytes are one group of 32, high nibbles the next.
#[inline(always)]
fn nibble_groups(bytes: &[u8; 128]) -> [i16; 256] {
    let mut q = [0; 256];
    for pair in 0..4 {
        for l in 0..32 {
            let byte = bytes[32 * pair + l];
            q[64 * pair + l] = i16::from(byte & 15);
            q[64 * pair + 32 + l] = i16::from(byte >> 4);
        }
    }
    q
}

impl BlockQ5K {
    #[inline(always)]
    fn quants(&self) -> [i16; 256] {
        let mut q = nibble_groups(&self.quants);
        for g in 0..8 {
            for l in 0..32 {
                q[32 * g + l] += i16::from((self.high[l] >> g) & 1) << 4;
            }
        }
        q
    }
}

impl BlockQ6K {
    #[inline(always)]
    fn quants(&self) -> [i16; 256] {
        let mut q = [0; 256];
        for half in 0..2 {
            for l in 0..32 {
                let (a, b) = (self.low[64 * half + l], self.low[64 * half + 32 + l]);
                let h = self.high[32 * half + l];
                let at = 128 * half + l;
                q[at] = i16::from((a & 15) | ((h & 3) << 4)) - 32;
                q[at + 32] = i16::from((b & 15) | (((h >> 2) & 3) << 4)) - 32;
                q[at + 64] = i16::from((a >> 4) | (((h >> 4) & 3) << 4)) - 32;
                q[at + 96] = i16::from((b >> 4) | ((h >> 6) << 4)) - 32;
            }
        }
        q
    }
}

impl Block for BlockQ2K {
    const GROUPS: usize = 8;
    const SCALES: PerGroup = PerGroup::Two;
    const OFFSETS: PerGroup = PerGroup::Two;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        let (d, dmin, s) = (half(self.d), half(self.dmin), &self.scales);
        let scale = |i: usize| d * f32::from(s[i] & 15);
        by_16(&self.quants(), out, scale, |i| -(dmin * f32::from(s[i] >> 4)));
    }
}

impl Block for BlockQ3K {
    const GROUPS: usize = 8;
    const SCALES: PerGroup = PerGroup::Two;
    const OFFSETS: PerGroup = PerGroup::None;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        let (d, scales) = (half(self.d), q3_scales(&self.scales));
        by_16(&self.quants(), out, |i| d * f32::from(scales[i]), |_| 0.0);
    }
}

impl Block for BlockQ4K {
    const GROUPS: usize = 8;
    const SCALES: PerGroup = PerGroup::One;
    const OFFSETS: PerGroup = PerGroup::One;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        let q = nibble_groups(&self.quants);
        by_pairs(&q, &self.scales, half(self.d), half(self.dmin), out);
    }
}

impl Block for BlockQ5K {
    const GROUPS: usize = 8;
    const SCALES: PerGroup = PerGroup::One;
    const OFFSETS: PerGroup = PerGroup::One;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        by_pairs(&self.quants(), &self.scales, half(self.d), half(self.dmin), out);
    }
}

impl Block for BlockQ6K {
    const GROUPS: usize = 8;
    const SCALES: PerGroup = PerGroup::Two;
    const OFFSETS: PerGroup = PerGroup::None;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        let d = half(self.d);
        by_16(&self.quants(), out, |i| d * f32::from(self.scales[i]), |_| 0.0);
    }
}
