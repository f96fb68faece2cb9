//! Quant blocks of 256 weights: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
//!
//! A superblock has groups of 16 or 32 weights with small integer scales (and minimums) under one or
//! two half-precision factors. [`unpack`](Block256::unpack) multiplies each quant by its group's
//! scale, which is exact in 16 bits: weight `i` is `d · w[i] − dmin · mins[i / 16]`.
//! Source: `ggml-common.h` and `ggml-quants.c` of ggml.

use super::f16::half;
use bytemuck::{Pod, Zeroable};

/// A superblock's integers with what they are multiplied by.
pub struct Unpacked256 {
    /// Quants times their group's scale: at most 128 · 32 in magnitude.
    pub w: [i16; 256],
    /// Factor of `w`.
    pub d: f32,
    /// Factor of `mins`; 0 for formats without minimums.
    pub dmin: f32,
    /// One minimum per 16 weights.
    pub mins: [i16; 16],
}

/// A format with 256 weights per quant block.
pub trait Block256: Pod {
    /// Whether the format has minimums.
    const HAS_MINS: bool;
    /// The block's integers and factors.
    fn unpack(&self) -> Unpacked256;
    /// The block's weights, bit for bit as ggml dequantises them.
    fn dequantize(&self, out: &mut [f32; 256]);
}

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

#[inline(always)]
fn pairs_to_16(mins: [i16; 8]) -> [i16; 16] {
    let mut out = [0; 16];
    for j in 0..8 {
        out[2 * j] = mins[j];
        out[2 * j + 1] = mins[j];
    }
    out
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

impl Block256 for BlockQ2K {
    const HAS_MINS: bool = true;
    #[inline(always)]
    fn unpack(&self) -> Unpacked256 {
        let mut w = self.quants();
        let mut mins = [0; 16];
        for g in 0..16 {
            let scale = i16::from(self.scales[g] & 15);
            mins[g] = i16::from(self.scales[g] >> 4);
            for w in &mut w[16 * g..16 * g + 16] {
                *w *= scale;
            }
        }
        Unpacked256 { w, d: half(self.d), dmin: half(self.dmin), mins }
    }

    fn dequantize(&self, out: &mut [f32; 256]) {
        let q = self.quants();
        let (d, dmin) = (half(self.d), half(self.dmin));
        for (i, out) in out.iter_mut().enumerate() {
            let s = self.scales[i / 16];
            *out = (d * f32::from(s & 15)) * f32::from(q[i]) - dmin * f32::from(s >> 4);
        }
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

impl Block256 for BlockQ3K {
    const HAS_MINS: bool = false;
    #[inline(always)]
    fn unpack(&self) -> Unpacked256 {
        let mut w = self.quants();
        let scales = q3_scales(&self.scales);
        for g in 0..16 {
            for w in &mut w[16 * g..16 * g + 16] {
                *w *= scales[g];
            }
        }
        Unpacked256 { w, d: half(self.d), dmin: 0.0, mins: [0; 16] }
    }

    fn dequantize(&self, out: &mut [f32; 256]) {
        let q = self.quants();
        let scales = q3_scales(&self.scales);
        let d = half(self.d);
        for (i, out) in out.iter_mut().enumerate() {
            *out = (d * f32::from(scales[i / 16])) * f32::from(q[i]);
        }
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

/// Multiplies eight groups of 32 by their scales.
#[inline(always)]
fn scale_groups(q: &mut [i16; 256], scales: [i16; 8]) {
    for g in 0..8 {
        for q in &mut q[32 * g..32 * g + 32] {
            *q *= scales[g];
        }
    }
}

/// `d · scale · q − dmin · min` in ggml's order, for Q4_K and Q5_K.
fn dequantize_pairs(q: &[i16; 256], s: &[u8; 12], d: f32, dmin: f32, out: &mut [f32; 256]) {
    let (scales, mins) = six_bit_pairs(s);
    for (i, out) in out.iter_mut().enumerate() {
        let g = i / 32;
        *out = (d * f32::from(scales[g])) * f32::from(q[i]) - dmin * f32::from(mins[g]);
    }
}

impl Block256 for BlockQ4K {
    const HAS_MINS: bool = true;
    #[inline(always)]
    fn unpack(&self) -> Unpacked256 {
        let mut w = nibble_groups(&self.quants);
        let (scales, mins) = six_bit_pairs(&self.scales);
        scale_groups(&mut w, scales);
        Unpacked256 { w, d: half(self.d), dmin: half(self.dmin), mins: pairs_to_16(mins) }
    }

    fn dequantize(&self, out: &mut [f32; 256]) {
        let q = nibble_groups(&self.quants);
        dequantize_pairs(&q, &self.scales, half(self.d), half(self.dmin), out);
    }
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

impl Block256 for BlockQ5K {
    const HAS_MINS: bool = true;
    #[inline(always)]
    fn unpack(&self) -> Unpacked256 {
        let mut w = self.quants();
        let (scales, mins) = six_bit_pairs(&self.scales);
        scale_groups(&mut w, scales);
        Unpacked256 { w, d: half(self.d), dmin: half(self.dmin), mins: pairs_to_16(mins) }
    }

    fn dequantize(&self, out: &mut [f32; 256]) {
        dequantize_pairs(&self.quants(), &self.scales, half(self.d), half(self.dmin), out);
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

impl Block256 for BlockQ6K {
    const HAS_MINS: bool = false;
    #[inline(always)]
    fn unpack(&self) -> Unpacked256 {
        let mut w = self.quants();
        for g in 0..16 {
            let scale = i16::from(self.scales[g]);
            for w in &mut w[16 * g..16 * g + 16] {
                *w *= scale;
            }
        }
        Unpacked256 { w, d: half(self.d), dmin: 0.0, mins: [0; 16] }
    }

    fn dequantize(&self, out: &mut [f32; 256]) {
        let q = self.quants();
        let d = half(self.d);
        for (i, out) in out.iter_mut().enumerate() {
            *out = (d * f32::from(self.scales[i / 16])) * f32::from(q[i]);
        }
    }
}
