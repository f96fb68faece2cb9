//! The vector kernels of each instruction set, by format.

use super::accumulate;
use super::floats::{self, Float, Operands};
use super::formats::{Format, k_quants, legacy, tables};
use super::gemm;
#[cfg(target_arch = "x86_64")]
use super::gemv::{self, Gemv};
use super::simd::{Rows, Simd};
use super::skinny::{self, Stream};
use super::tile::Tile;
use super::{Isa, Level};
use crate::quant::TensorType;
#[cfg(all(target_arch = "x86_64", not(test)))]
use std::sync::LazyLock;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};

/// Tokens that share one pass over the weights.
pub const FEW: usize = skinny::TOKENS;

/// The products of the rows of a panel, which begin at `base`, `stride` bytes apart, with the first
/// tokens of a tile: `[token][lane]` to `out`.
pub type Few = unsafe fn(base: *const u8, stride: usize, tile: Tile, stream: Stream, out: *mut f32);
/// See [`gemm::unpack`].
pub type Unpack =
    unsafe fn(base: *const u8, stride: usize, groups: usize, index: usize, to: *mut i32);
/// See [`gemm::product`].
pub type Many = unsafe fn(weights: *const i32, tile: Tile, fresh: bool, sums: *mut f32);

/// One format's kernels for one instruction set.
///
/// Calling one is sound on a machine that has the instructions, with the memory that it names.
pub struct Kernels {
    /// Rows of a panel.
    pub lanes: usize,
    /// Panels that the product with many tokens takes together.
    pub panels: usize,
    /// Tokens that it takes together: there is one kernel for each number up to it.
    pub many: &'static [Many],
    /// For 1 to [`FEW`] tokens.
    pub few: [Few; FEW],
    /// Unpacks for the product with many tokens.
    pub unpack: Unpack,
}

/// Products of float weights: `[row][token]`.
pub type Floats = unsafe fn(operands: Operands<'_>, out: &mut [f32]);

/// One float format's kernels for one instruction set: see [`floats::products`].
pub struct FloatKernels {
    /// Rows that are taken together.
    pub rows: usize,
    /// Tokens that are taken together.
    pub tokens: usize,
    /// For that many of both.
    pub many: Floats,
    /// For one row and that many tokens.
    pub row: Floats,
    /// For that many rows and one token.
    pub token: Floats,
    /// For one row and one token.
    pub one: Floats,
}

/// See [`accumulate::accumulate`].
type Accumulate = unsafe fn(operands: accumulate::Operands);
/// See [`accumulate::widen`].
type Widen = unsafe fn(from: &[[u8; 2]], to: &mut [f32]);

/// All kernels for one instruction set.
struct Set {
    /// Those of a format; `None` for floats.
    kernels: fn(ty: TensorType) -> Option<&'static Kernels>,
    /// Those of F32, F16 and BF16.
    floats: [FloatKernels; 3],
    /// For 1 to [`accumulate::ROWS`] rows.
    accumulate: [Accumulate; accumulate::ROWS],
    widen: Widen,
}

/// Compiles the kernels for an instruction set.
macro_rules! instruction_set {
    (
        $module:ident, $simd:ty, $panels:literal, [$($tokens:literal),*],
        $float_rows:literal x $float_tokens:literal, $features:literal
    ) => {
        mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            unsafe fn few<F: Format, const T: usize>(
                base: *const u8, stride: usize, tile: Tile, stream: Stream, out: *mut f32,
            ) {
                // SAFETY: as the caller promises; these are the instructions.
                unsafe {
                    let rows = Rows::new(base, stride);
                    let sums = skinny::panel::<$simd, F, T>(rows, tile, stream);
                    for (t, sums) in sums.into_iter().enumerate() {
                        <$simd>::store_f(out.add(t * <$simd>::LANES), sums);
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn unpack<F: Format>(
                base: *const u8, stride: usize, groups: usize, index: usize, to: *mut i32,
            ) {
                // SAFETY: as above.
                unsafe { gemm::unpack::<$simd, F>(Rows::new(base, stride), groups, index, to) }
            }

            #[target_feature(enable = $features)]
            unsafe fn many<F: Format, const T: usize>(
                weights: *const i32, tile: Tile, fresh: bool, sums: *mut f32,
            ) {
                // SAFETY: as above.
                unsafe { gemm::product::<$simd, F, $panels, T>(weights, tile, fresh, sums) }
            }

            #[target_feature(enable = $features)]
            unsafe fn accumulate<const T: usize>(operands: accumulate::Operands) {
                // SAFETY: as above.
                unsafe {
                    if operands.halves {
                        accumulate::accumulate::<$simd, T, true>(operands)
                    } else {
                        accumulate::accumulate::<$simd, T, false>(operands)
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn widen(from: &[[u8; 2]], to: &mut [f32]) {
                // SAFETY: as above.
                unsafe { accumulate::widen::<$simd>(from, to) }
            }

            #[target_feature(enable = $features)]
            unsafe fn floats<W: Float, const R: usize, const T: usize>(
                operands: Operands<'_>, out: &mut [f32],
            ) {
                // SAFETY: as above.
                unsafe { floats::products::<$simd, W, R, T>(operands, out) }
            }

            const fn float_kernels<W: Float>() -> FloatKernels {
                FloatKernels {
                    rows: $float_rows,
                    tokens: $float_tokens,
                    many: floats::<W, $float_rows, $float_tokens>,
                    row: floats::<W, 1, $float_tokens>,
                    token: floats::<W, $float_rows, 1>,
                    one: floats::<W, 1, 1>,
                }
            }

            pub static SET: Set = Set {
                kernels,
                floats: [
                    float_kernels::<floats::F32>(),
                    float_kernels::<floats::F16>(),
                    float_kernels::<floats::BF16>(),
                ],
                accumulate: [
                    accumulate::<1>, accumulate::<2>, accumulate::<3>,
                    accumulate::<4>, accumulate::<5>, accumulate::<6>,
                ],
                widen,
            };

            struct Of<F>(std::marker::PhantomData<F>);
            impl<F: Format> Of<F> {
                const KERNELS: Kernels = Kernels {
                    lanes: <$simd>::LANES,
                    panels: $panels,
                    many: &[$(many::<F, $tokens>),*],
                    few: [
                        few::<F, 1>, few::<F, 2>, few::<F, 3>, few::<F, 4>,
                        few::<F, 5>, few::<F, 6>, few::<F, 7>, few::<F, 8>,
                    ],
                    unpack: unpack::<F>,
                };
            }

            fn kernels(ty: TensorType) -> Option<&'static Kernels> {
                Some(match ty {
                    TensorType::Q4_0 => const { &Of::<legacy::Q4_0>::KERNELS },
                    TensorType::Q4_1 => const { &Of::<legacy::Q4_1>::KERNELS },
                    TensorType::Q5_0 => const { &Of::<legacy::Q5_0>::KERNELS },
                    TensorType::Q5_1 => const { &Of::<legacy::Q5_1>::KERNELS },
                    TensorType::Q8_0 => const { &Of::<legacy::Q8_0>::KERNELS },
                    TensorType::IQ4_NL => const { &Of::<tables::Iq4Nl>::KERNELS },
                    TensorType::IQ4_XS => const { &Of::<tables::Iq4Xs>::KERNELS },
                    TensorType::MXFP4 => const { &Of::<tables::Mxfp4>::KERNELS },
                    TensorType::Q2_K => const { &Of::<k_quants::Q2K>::KERNELS },
                    TensorType::Q3_K => const { &Of::<k_quants::Q3K>::KERNELS },
                    TensorType::Q4_K => const { &Of::<k_quants::Q4K>::KERNELS },
                    TensorType::Q5_K => const { &Of::<k_quants::Q5K>::KERNELS },
                    TensorType::Q6_K => const { &Of::<k_quants::Q6K>::KERNELS },
                    TensorType::F32 | TensorType::F16 | TensorType::BF16 => return None,
                })
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instruction_set!(
    avx512,
    super::super::simd::avx512::Avx512,
    2,
    [1, 2, 3, 4, 5, 6],
    4 x 6,
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi2"
);

#[cfg(target_arch = "x86_64")]
instruction_set!(
    avx2,
    super::super::simd::avx2::Avx2<false>,
    1,
    [1, 2, 3, 4],
    2 x 3,
    "avx2,fma,f16c,bmi2"
);

#[cfg(target_arch = "x86_64")]
instruction_set!(
    avxvnni,
    super::super::simd::avx2::Avx2<true>,
    1,
    [1, 2, 3, 4],
    2 x 3,
    "avx2,fma,f16c,bmi2,avxvnni"
);

#[cfg(target_arch = "aarch64")]
instruction_set!(
    neon,
    super::super::simd::neon::Neon,
    2,
    [1, 2, 3, 4, 5, 6],
    2 x 3,
    "neon,dotprod"
);

/// The kernels of `level`; `None` where the scalar definitions compute. A level exists only on a machine
/// with its instructions.
fn set(level: Level) -> Option<&'static Set> {
    match level.0 {
        Isa::Scalar => None,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Some(&avx2::SET),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => Some(&avxvnni::SET),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Some(&avx512::SET),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Some(&neon::SET),
    }
}

/// The kernels of `level` for weights of type `ty`; `None` where the scalar definition computes.
pub fn kernels(level: Level, ty: TensorType) -> Option<&'static Kernels> {
    (set(level)?.kernels)(ty)
}

/// The kernels of `level` that multiply rows of type `ty` with one token, one row after the other;
/// `None` where those of [`kernels`] do, which give the same bits.
#[cfg(target_arch = "x86_64")]
pub fn gemv(level: Level, ty: TensorType) -> Option<&'static Gemv> {
    if matches!(level.0, Isa::Avx512) && takes_rows_alone() { gemv::kernels(ty) } else { None }
}

/// Whether rows one after the other are the faster way here. The unit tests take both ways in turn.
#[cfg(target_arch = "x86_64")]
fn takes_rows_alone() -> bool {
    #[cfg(test)]
    {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        in_turn(&CALLS)
    }
    #[cfg(not(test))]
    !*HALVES_VECTORS
}

/// Whether panels of neighbouring rows that follow each other are the faster way through memory here: with
/// superblocks they are, on some processors. The unit tests take both ways in turn.
pub fn reads_panels(ty: TensorType) -> bool {
    if ty.block_len() < 256 {
        return false;
    }
    #[cfg(test)]
    {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        in_turn(&CALLS)
    }
    #[cfg(all(target_arch = "x86_64", not(test)))]
    {
        *HALVES_VECTORS
    }
    #[cfg(not(any(target_arch = "x86_64", test)))]
    false
}

/// Yes and no in turn.
#[cfg(test)]
fn in_turn(calls: &AtomicU64) -> bool {
    calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)
}

/// Whether this processor computes 512 bits in two halves (AMD's family 19h, Zen 4): there the work of
/// putting one row's groups in order costs more than what many streams through memory lose.
#[cfg(all(target_arch = "x86_64", not(test)))]
static HALVES_VECTORS: LazyLock<bool> = LazyLock::new(|| {
    use std::arch::x86_64::__cpuid;
    let (vendor, version) = (__cpuid(0), __cpuid(1).eax);
    let is_amd = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes)
        == [*b"Auth", *b"enti", *b"cAMD"];
    is_amd && (version >> 8 & 15) + (version >> 20 & 255) == 0x19
});

/// [`accumulate::accumulate`] for `rows` rows.
///
/// # Safety
///
/// The operands are there; `rows` is 1 to [`accumulate::ROWS`].
pub unsafe fn accumulate(level: Level, rows: usize, operands: accumulate::Operands) {
    // SAFETY: the level exists only on a machine with its instructions; and as the caller promises.
    unsafe {
        match set(level) {
            Some(set) => set.accumulate[rows - 1](operands),
            None => accumulate::by_definition(operands, rows),
        }
    }
}

/// The kernels of `level` for float weights of type `ty`; `None` where the definition computes.
pub fn float_kernels(level: Level, ty: TensorType) -> Option<&'static FloatKernels> {
    let kernels = &set(level)?.floats;
    Some(match ty {
        TensorType::F16 => &kernels[1],
        TensorType::BF16 => &kernels[2],
        _ => &kernels[0],
    })
}

/// `from` as floats.
pub fn widen(level: Level, from: &[[u8; 2]], to: &mut [f32]) {
    // SAFETY: a level exists only on a machine with its instructions.
    unsafe {
        match set(level) {
            Some(set) => (set.widen)(from, to),
            None => accumulate::widen_by_definition(from, to),
        }
    }
}
