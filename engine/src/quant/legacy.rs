//! Quant blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! Each is one group with one scale and, for Q4_1 and Q5_1, one offset.
//! Source: `ggml-common.h` and `ggml-quants.c` of ggml.

use super::f16::half;
use super::{Block, Group, PerGroup};
use bytemuck::{Pod, Zeroable};

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

impl Block for BlockQ4_0 {
    const GROUPS: usize = 1;
    const SCALES: PerGroup = PerGroup::One;
    const OFFSETS: PerGroup = PerGroup::None;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        let q = nibbles(&self.nibbles, 8);
        out[0] = Group::even(q, half(self.scale), 0.0);
    }
}

impl Block for BlockQ4_1 {
    const GROUPS: usize = 1;
    const SCALES: PerGroup = PerGroup::One;
    const OFFSETS: PerGroup = PerGroup::One;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        let q = nibbles(&self.nibbles, 0);
        out[0] = Group::even(q, half(self.scale), half(self.offset));
    }
}

impl Block for BlockQ5_0 {
    const GROUPS: usize = 1;
    const SCALES: PerGroup = PerGroup::One;
    const OFFSETS: PerGroup = PerGroup::None;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        let q = five_bits(&self.nibbles, self.high, 16);
        out[0] = Group::even(q, half(self.scale), 0.0);
    }
}

impl Block for BlockQ5_1 {
    const GROUPS: usize = 1;
    const SCALES: PerGroup = PerGroup::One;
    const OFFSETS: PerGroup = PerGroup::One;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        let q = five_bits(&self.nibbles, self.high, 0);
        out[0] = Group::even(q, half(self.scale), half(self.offset));
    }
}

impl Block for BlockQ8_0 {
    const GROUPS: usize = 1;
    const SCALES: PerGroup = PerGroup::One;
    const OFFSETS: PerGroup = PerGroup::None;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        let q = self.quants.map(i16::from);
        out[0] = Group::even(q, half(self.scale), 0.0);
    }
}
