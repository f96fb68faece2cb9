//! Formats whose four bits are an index of a table: IQ4_NL, IQ4_XS and MXFP4.
//!
//! Source: `ggml-common.h` and `ggml-quants.c` of ggml; MXFP4 is the OCP Microscaling format with
//! elements of E2M1 and a scale of E8M0 per 32.

use super::f16::half;
use super::{Block, GROUP, Group, PerGroup};
use bytemuck::{Pod, Zeroable};

/// The values of IQ4_NL and IQ4_XS.
pub const IQ4: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the values of E2M1.
pub const E2M1_TWICE: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 32 nibbles with one scale.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq4Nl {
    scale: [u8; 2],
    nibbles: [u8; 16],
}

/// A superblock of eight groups of 32 nibbles, each with a scale of six bits around 32.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq4Xs {
    scale: [u8; 2],
    /// Bits 4 and 5 of the groups' scales.
    scales_high: [u8; 2],
    /// Bits 0 to 3, two groups a byte.
    scales_low: [u8; 4],
    nibbles: [[u8; 16]; 8],
}

/// 32 nibbles with a power of two.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockMxfp4 {
    exponent: u8,
    nibbles: [u8; 16],
}

const _: () = assert!(size_of::<BlockIq4Nl>() == 18);
const _: () = assert!(size_of::<BlockIq4Xs>() == 136);
const _: () = assert!(size_of::<BlockMxfp4>() == 17);

/// Low nibbles are elements 0..16, high nibbles 16..32.
#[inline(always)]
fn look_up(table: &[i8; 16], nibbles: &[u8; 16]) -> [i16; GROUP] {
    let mut q = [0; GROUP];
    for (i, byte) in nibbles.iter().enumerate() {
        q[i] = i16::from(table[usize::from(byte & 15)]);
        q[i + 16] = i16::from(table[usize::from(byte >> 4)]);
    }
    q
}

/// The factor of [`E2M1_TWICE`] that an exponent byte stands for: `2^(e − 128)`, exactly.
#[inline(always)]
pub fn half_power(exponent: u8) -> f32 {
    // Two normal factors, because the smallest results are subnormal.
    let low = u32::from(exponent) / 2;
    let power = |exponent: u32| f32::from_bits((exponent + 63) << 23);
    power(low) * power(u32::from(exponent) - low)
}

impl Block for BlockIq4Nl {
    const GROUPS: usize = 1;
    const SCALES: PerGroup = PerGroup::One;
    const OFFSETS: PerGroup = PerGroup::None;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        out[0] = Group::even(look_up(&IQ4, &self.nibbles), half(self.scale), 0.0);
    }
}

impl Block for BlockIq4Xs {
    const GROUPS: usize = 8;
    const SCALES: PerGroup = PerGroup::One;
    const OFFSETS: PerGroup = PerGroup::None;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        let d = half(self.scale);
        let high = u16::from_le_bytes(self.scales_high);
        for (g, (out, nibbles)) in out.iter_mut().zip(&self.nibbles).enumerate() {
            let low = self.scales_low[g / 2] >> (4 * (g % 2)) & 15;
            let scale = i16::from(low) | ((high >> (2 * g) & 3) << 4) as i16;
            *out = Group::even(look_up(&IQ4, nibbles), d * f32::from(scale - 32), 0.0);
        }
    }
}

impl Block for BlockMxfp4 {
    const GROUPS: usize = 1;
    const SCALES: PerGroup = PerGroup::One;
    const OFFSETS: PerGroup = PerGroup::None;
    #[inline(always)]
    fn unpack(&self, out: &mut [Group]) {
        let q = look_up(&E2M1_TWICE, &self.nibbles);
        out[0] = Group::even(q, half_power(self.exponent), 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exponent_is_an_exact_power_of_two() {
        assert_eq!(half_power(128), 1.0);
        assert_eq!(half_power(0).to_bits(), 0x0020_0000);
        assert_eq!(half_power(1).to_bits(), 0x0040_0000);
        for e in 2..=255u8 {
            assert_eq!(half_power(e).to_bits(), (u32::from(e) - 1) << 23, "{e}");
        }
    }
}
