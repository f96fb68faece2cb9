//! The arithmetic of the engine, and the order in which it is done.
//!
//! # Order of operations, `NUMERICS` = 2
//!
//! * **Activations** for quantised weights are quantised per 32 values for superblocks of 256, per 16
//!   for quant blocks of 32: `d = max|x| / 127`, `q = round_ties_even(x · (127 / max|x|))`; all zero if
//!   `max|x|` is 0.
//! * **Dot product of quantised weights**: per output one sum, groups of 32 weights ascending. Inner
//!   sums are exact integers turned into floats, scales `a` and offsets `b` of a group exact products
//!   of what the quant block holds. With one or two scales per group of a superblock:
//!   `s = (Σ q·y) · a`, or `s = fma(Σ₂ q·y, a₂, (Σ₁ q·y) · a₁)`, for the first and last 16 weights;
//!   `acc = fma(s, d, acc)`. With quant blocks of 32: `s = fma(Σ₂ q·y, d₂, (Σ₁ q·y) · d₁)`;
//!   `acc = fma(s, a, acc)`. Then where the format has offsets `acc = fma(b, d · Σ y, acc)`, for the
//!   first and then the last 16 where there are two; `d₁ · Σ₁ y + d₂ · Σ₂ y`, the latter fused, where
//!   there are two scales. One sum of products and offsets, because they cancel.
//! * **F32, F16, BF16 weights** meet f32 activations: sixteen lanes, element `i` in lane `i mod 16`,
//!   ascending, fused; then lanes `l` and `l + 8`, `l + 4`, `l + 2`, `l + 1` are added.
//! * **RMS norm**: squares in sixteen fused lanes and the same tree; `1 / sqrt(mean + eps)`; then
//!   `(x · inverse) · weight`.
//! * **Attention**: positions from 0 in ranges of 1,024; in a range an online softmax over tiles of 32
//!   positions ascending; the ranges are merged ascending. Keys and values are read as the cache holds
//!   them. See `attention`.
//! * **Experts**: a row's scores, choice and weights as `routing` says; a weighted sum of its experts from zero
//!   on, in the order in which they were chosen, one fused multiply-add each; then the shared expert by its
//!   gate, fused, or by 1.
//! * `exp`, `silu` and the rotary tables are in [`math`](crate::math).
//!
//! An output's operations do not depend on the rows or tokens beside it, nor on the thread.
//!
//! # Instruction sets
//!
//! Products of quantised weights and the products of the attention are written once over
//! `simd::Simd`, which each instruction set implements; `scalar` is their definition. The rest is
//! plain code, compiled once per [`Level`]. Nothing in either may be reordered by a compiler, so every
//! level gives the same bits.

mod accumulate;
pub mod activations;
pub mod attention;
mod dispatch;
pub mod elementwise;
pub mod experts;
mod floats;
mod formats;
mod gemm;
#[cfg(target_arch = "x86_64")]
mod gemv;
mod job;
pub mod matmul;
pub mod matrix;
mod partition;
pub mod routing;
pub mod rows;
mod scalar;
pub mod scratch;
mod simd;
mod skinny;
pub mod tile;

/// An instruction set that this machine has.
///
/// A value exists only after detection, which is what makes calling its kernels sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(Isa);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// Plain code for the target's baseline: the definition.
    pub const SCALAR: Self = Self(Isa::Scalar);

    /// The levels that this machine has, slowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other targets have one level")]
        let mut levels = vec![Self::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") && has!("bmi2") {
                levels.push(Self(Isa::Avx2));
                if has!("avxvnni") {
                    levels.push(Self(Isa::AvxVnni));
                }
                if has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512vl")
                    && has!("avx512dq")
                    && has!("avx512vnni")
                {
                    levels.push(Self(Isa::Avx512));
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            levels.push(Self(Isa::Neon));
        }
        levels
    }

    /// The fastest level that this machine has.
    pub fn best() -> Self {
        *Self::available().last().expect("the scalar level is always there")
    }

    /// Its name in logs and flags.
    pub fn name(self) -> &'static str {
        match self.0 {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
        }
    }
}

/// Compiles a generic body once per level and calls the one asked for.
macro_rules! per_level {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:path;) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "the level comes on top of the body's own")]
        $vis fn $name(level: $crate::kernels::Level, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi2")]
            fn avx512($($arg: $ty),*) {
                $body($($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi2")]
            fn avx2($($arg: $ty),*) {
                $body($($arg),*);
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,dotprod")]
            fn neon($($arg: $ty),*) {
                $body($($arg),*);
            }
            match level.0 {
                $crate::kernels::Isa::Scalar => $body($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: this level exists only if the machine has these instructions.
                $crate::kernels::Isa::Avx2 | $crate::kernels::Isa::AvxVnni => unsafe {
                    avx2($($arg),*)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::kernels::Isa::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                $crate::kernels::Isa::Neon => unsafe { neon($($arg),*) },
            }
        }
    };
}
pub(crate) use per_level;

/// Lanes of every floating-point sum.
pub(crate) const LANES: usize = 16;

/// The fixed tree that ends a sum in lanes.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// Adds `Σ a·b` to sixteen lanes: element `i` to lane `i mod 16`, ascending, fused.
#[inline(always)]
pub(crate) fn add_lanes(a: &[f32], b: &[f32], lanes: &mut [f32; LANES]) {
    let mut sums = *lanes;
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] = a[i].mul_add(b[i], sums[i]);
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[i] = a.mul_add(*b, sums[i]);
    }
    *lanes = sums;
}

/// `Σ a·b` in sixteen fused lanes and the tree.
#[inline(always)]
pub(crate) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    add_lanes(a, b, &mut lanes);
    sum_lanes(lanes)
}

#[cfg(test)]
mod tests;
