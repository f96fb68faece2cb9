//! Tensor types: how weights lie in a GGUF file, and what they mean.
//!
//! The formats with blocks of 32 are in [`legacy`], those with blocks of 256 in [`k_quants`], and those that
//! look their values up in [`tables`].

pub mod f16;
pub mod k_quants;
pub mod legacy;
pub mod tables;

use bytemuck::Pod;
use k_quants::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};
use legacy::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};
use tables::{BlockIq4Nl, BlockIq4Xs, BlockMxfp4};

/// Weights that share their scales: 32 consecutive ones of a row.
pub const GROUP: usize = 32;

/// 32 weights as the dot product with 8-bit activations takes them: weight `i` is
/// `scale[i / 16] · q[i] + offset[i / 16]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Group {
    /// Signed quants, at most 128 in magnitude.
    pub q: [i16; GROUP],
    /// Factors of the first and the last 16 quants; exact products of what the block holds.
    pub scale: [f32; 2],
    /// What is added to the first and the last 16 weights; 0 for formats without it.
    pub offset: [f32; 2],
}

impl Group {
    /// A group with one scale and one offset.
    #[inline(always)]
    fn even(q: [i16; GROUP], scale: f32, offset: f32) -> Self {
        Self { q, scale: [scale; 2], offset: [offset; 2] }
    }
}

/// How many different values a group has of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerGroup {
    /// None at all.
    None,
    /// One for 32 weights.
    One,
    /// One for each 16 weights.
    Two,
}

/// A quantised format: what its quant block means.
pub trait Block: Pod {
    /// Groups per quant block.
    const GROUPS: usize;
    /// Scales per group: one or two.
    const SCALES: PerGroup;
    /// Offsets per group.
    const OFFSETS: PerGroup;

    /// The block's groups; `out` has [`GROUPS`](Self::GROUPS).
    fn unpack(&self, out: &mut [Group]);

    /// The block's weights, bit for bit as ggml dequantises them.
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        let mut groups = [Group::default(); 8];
        self.unpack(&mut groups[..Self::GROUPS]);
        for (group, out) in groups.iter().zip(out.as_chunks_mut::<GROUP>().0) {
            for (i, out) in out.iter_mut().enumerate() {
                let product = group.scale[i / 16] * f32::from(group.q[i]);
                *out = match Self::OFFSETS {
                    PerGroup::None => product,
                    _ => product + group.offset[i / 16],
                };
            }
        }
    }
}

/// The element types that a tensor can have. The number is GGUF's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
#[allow(non_camel_case_types, missing_docs, reason = "these are GGUF's own names")]
pub enum TensorType {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ4_NL = 20,
    IQ4_XS = 23,
    BF16 = 30,
    MXFP4 = 39,
}

impl TensorType {
    /// Every type, in the order of GGUF's numbers.
    pub const ALL: [Self; 16] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
        Self::IQ4_XS,
        Self::BF16,
        Self::MXFP4,
    ];

    /// The type with GGUF's number `id`, if Woolly computes with it.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| *ty as u32 == id)
    }

    /// ggml's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2_K => "Q2_K",
            Self::Q3_K => "Q3_K",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
            Self::IQ4_NL => "IQ4_NL",
            Self::IQ4_XS => "IQ4_XS",
            Self::BF16 => "BF16",
            Self::MXFP4 => "MXFP4",
        }
    }

    /// Weights per quant block; a row's length is a multiple of it.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0
            | Self::Q4_1
            | Self::Q5_0
            | Self::Q5_1
            | Self::Q8_0
            | Self::IQ4_NL
            | Self::MXFP4 => 32,
            Self::Q2_K | Self::Q3_K | Self::Q4_K | Self::Q5_K | Self::Q6_K | Self::IQ4_XS => 256,
        }
    }

    /// Bytes per quant block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 | Self::IQ4_NL => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2_K => 84,
            Self::Q3_K => 110,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
            Self::IQ4_XS => 136,
            Self::MXFP4 => 17,
        }
    }

    /// Bytes of a row of `len` weights; `len` is a multiple of [`block_len`](Self::block_len).
    pub fn row_bytes(self, len: usize) -> usize {
        len / self.block_len() * self.block_bytes()
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The weights of one row, bit for bit as ggml dequantises them.
///
/// # Panics
///
/// If `bytes` is not a row of `out.len()` weights of type `ty`.
pub fn dequantize_row(ty: TensorType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), ty.row_bytes(out.len()), "a row of {} {ty} weights", out.len());
    match ty {
        TensorType::F32 => each::<4, 1>(bytes, out, |b, o| o[0] = f32::from_le_bytes(*b)),
        TensorType::F16 => each::<2, 1>(bytes, out, |b, o| o[0] = f16::half(*b)),
        TensorType::BF16 => {
            each::<2, 1>(bytes, out, |b, o| o[0] = f16::bf16_to_f32(u16::from_le_bytes(*b)));
        }
        TensorType::Q4_0 => blocks::<BlockQ4_0>(bytes, out),
        TensorType::Q4_1 => blocks::<BlockQ4_1>(bytes, out),
        TensorType::Q5_0 => blocks::<BlockQ5_0>(bytes, out),
        TensorType::Q5_1 => blocks::<BlockQ5_1>(bytes, out),
        TensorType::Q8_0 => blocks::<BlockQ8_0>(bytes, out),
        TensorType::IQ4_NL => blocks::<BlockIq4Nl>(bytes, out),
        TensorType::IQ4_XS => blocks::<BlockIq4Xs>(bytes, out),
        TensorType::MXFP4 => blocks::<BlockMxfp4>(bytes, out),
        TensorType::Q2_K => blocks::<BlockQ2K>(bytes, out),
        TensorType::Q3_K => blocks::<BlockQ3K>(bytes, out),
        TensorType::Q4_K => blocks::<BlockQ4K>(bytes, out),
        TensorType::Q5_K => blocks::<BlockQ5K>(bytes, out),
        TensorType::Q6_K => blocks::<BlockQ6K>(bytes, out),
    }
}

fn each<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    value: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (bytes, _) = bytes.as_chunks::<BYTES>();
    let (out, _) = out.as_chunks_mut::<LEN>();
    for (b, o) in bytes.iter().zip(out) {
        value(b, o);
    }
}

fn blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytemuck::cast_slice::<u8, B>(bytes);
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::GROUPS * GROUP)) {
        block.dequantize(out);
    }
}
