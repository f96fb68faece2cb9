//! Half-precision and bfloat values as they lie in a file, turned into `f32` without a branch.

/// The value of the IEEE half `bits`; exact, subnormals and infinities included.
///
/// The exponent is rebased by a multiplication, which also normalises subnormals. Our own routine,
/// because it has to inline into the vector kernels.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    const REBASE: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    let value = (f32::from_bits(magnitude) * REBASE).to_bits() | special;
    f32::from_bits(value | (u32::from(bits & 0x8000) << 16))
}

/// The value of the bfloat `bits`; exact.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The half at the start of `bytes`.
#[inline(always)]
pub(crate) fn half(bytes: [u8; 2]) -> f32 {
    f16_to_f32(u16::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_and_every_bfloat_equals_the_library() {
        for bits in 0..=u16::MAX {
            let ours = f16_to_f32(bits);
            let theirs = ::half::f16::from_bits(bits).to_f32();
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()));
            let ours = bf16_to_f32(bits);
            let theirs = ::half::bf16::from_bits(bits).to_f32();
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()));
        }
    }
}
