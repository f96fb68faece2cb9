//! Quant blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! Each block says twice what it means: [`dequantize`](Block32::dequantize) gives the weights
//! themselves, and [`unpack`](Block32::unpack) the integers, scale and offset that the dot product
//! with 8-bit activations works on: weight `i` is `scale · q[i] + offset`.
//! Source: `ggml-common.h` and `ggml-quants.c` of ggml.

use super::f16::half;
use bytemuck::{Pod, Zeroable};

/// A block's integers with what they are multiplied by and what is added.
pub struct Unpacked32 {
    /// Signed quants.
    pub q: [i16; 32],
    /// Factor of each quant.
    pub scale: f32,
    /// Added to each weight; 0 for formats without it.
    pub offset: f32,
}

/// A format with 32 weights per quant block.
pub trait Block32: Pod {
    /// Whether the format has an offset.
    const HAS_OFFSET: bool;
    /// The block's integers, scale and offset.
    fn unpack(&self) -> Unpacked32;
    /// The block's weights, bit for bit as ggml dequantises them.
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let Unpacked32 { q, scale, offset } = self.unpack();
        for (out, q) in out.iter_mut().zip(q) {
            let product = f32::from(q) * scale;
            *out = if Self::HAS_OFFSET { product + offset } else { product };
        }
    }
}

/// 32 nibbles around 8 with one scale.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    scale: [u8; 2],
    nibbles: [u8; 16],
}

/// 32 nibbles with a scale and an offset.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_1 {
    scale: [u8; 2],
    offset: [u8; 2],
    nibbles: [u8; 16],
}

/// 32 five-bit quants around 16 with one scale.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    scale: [u8; 2],
    high: [u8; 4],
    nibbles: [u8; 16],
}

/// 32 five-bit quants with a scale and an offset.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    scale: [u8; 2],
    offset: [u8; 2],
    high: [u8; 4],
    nibbles: [u8; 16],
}

/// 32 signed bytes with one scale.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    scale: [u8; 2],
    quants: [i8; 32],
}

const _: () = assert!(size_of::<BlockQ4_0>() == 18);
const _: () = assert!(size_of::<BlockQ4_1>() == 20);
const _: () = assert!(size_of::<BlockQ5_0>() == 22);
const _: () = assert!(size_of::<BlockQ5_1>() == 24);
const _: () = assert!(size_of::<BlockQ8_0>() == 34);

/// Low nibbles are elements 0..16, high nibbles 16..32; `bias` is subtracted.
#[inline(always)]
fn nibbles(bytes: &[u8; 16], bias: i16) -> [i16; 32] {
    let mut q = [0; 32];
    for i in 0..16 {
        q[i] = i16::from(bytes[i] & 15) - bias;
        q[i + 16] = i16::from(bytes[i] >> 4) - bias;
    }
    q
}

/// As [`nibbles`], with bit `i` of `high` as the fifth bit of element `i`.
#[inline(always)]
fn five_bits(bytes: &[u8; 16], high: [u8; 4], bias: i16) -> [i16; 32] {
    let high = u32::from_le_bytes(high);
    let mut q = nibbles(bytes, bias);
    for (i, q) in q.iter_mut().enumerate() {
        *q += (((high >> i) & 1) << 4) as i16;
    }
    q
}

impl Block32 for BlockQ4_0 {
    const HAS_OFFSET: bool = false;
    #[inline(always)]
    fn unpack(&self) -> Unpacked32 {
        Unpacked32 { q: nibbles(&self.nibbles, 8), scale: half(self.scale), offset: 0.0 }
    }
}

impl Block32 for BlockQ4_1 {
    const HAS_OFFSET: bool = true;
    #[inline(always)]
    fn unpack(&self) -> Unpacked32 {
        let q = nibbles(&self.nibbles, 0);
        Unpacked32 { q, scale: half(self.scale), offset: half(self.offset) }
    }
}

impl Block32 for BlockQ5_0 {
    const HAS_OFFSET: bool = false;
    #[inline(always)]
    fn unpack(&self) -> Unpacked32 {
        let q = five_bits(&self.nibbles, self.high, 16);
        Unpacked32 { q, scale: half(self.scale), offset: 0.0 }
    }
}

impl Block32 for BlockQ5_1 {
    const HAS_OFFSET: bool = true;
    #[inline(always)]
    fn unpack(&self) -> Unpacked32 {
        let q = five_bits(&self.nibbles, self.high, 0);
        Unpacked32 { q, scale: half(self.scale), offset: half(self.offset) }
    }
}

impl Block32 for BlockQ8_0 {
    const HAS_OFFSET: bool = false;
    #[inline(always)]
    fn unpack(&self) -> Unpacked32 {
        let q = self.quants.map(i16::from);
        Unpacked32 { q, scale: half(self.scale), offset: 0.0 }
    }
}
