//! Models that use every weight format: 3 layers, width 768 (3 superblocks), feed-forward width
//! 1,792 (7 superblocks) or a mixture of experts, 12 query heads on 4 key heads.

use crate::gguf::write::GgufWriter;
use crate::gguf::{Array, Value};
use crate::quant::TensorType;
use std::path::Path;

pub const LAYERS: u32 = 3;
pub const VOCAB: u32 = 320;
const HIDDEN: u64 = 768;
const FFN: u64 = 1792;
const KV: u64 = 256;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// In (−1, 1).
    pub fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }
}

/// Where a format's half-precision factors are, and how large they are for weights near ±1.
fn factors(ty: TensorType) -> &'static [(usize, f32)] {
    match ty {
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => &[],
        TensorType::Q4_0 => &[(0, 0.12)],
        TensorType::Q4_1 => &[(0, 0.13), (2, -1.0)],
        TensorType::Q5_0 => &[(0, 0.06)],
        TensorType::Q5_1 => &[(0, 0.06), (2, -1.0)],
        TensorType::Q8_0 => &[(0, 0.008)],
        TensorType::Q2_K => &[(80, 0.08), (82, 0.1)],
        TensorType::Q3_K => &[(108, 0.01)],
        TensorType::Q4_K => &[(0, 0.004), (2, 0.03)],
        TensorType::Q5_K => &[(0, 0.002), (2, 0.03)],
        TensorType::Q6_K => &[(208, 0.0004)],
        TensorType::IQ4_NL => &[(0, 0.008)],
        TensorType::IQ4_XS => &[(0, 0.0005)],
        // Its factor is no half, see `weights`.
        TensorType::MXFP4 => &[],
    }
}

/// Where a quant block of type `ty` has its half-precision factors.
pub fn factor_places(ty: TensorType) -> Vec<usize> {
    factors(ty).iter().map(|(at, _)| *at).collect()
}

/// Random weights of size about `sigma`.
pub fn weights(random: &mut Random, ty: TensorType, count: u64, sigma: f32) -> Vec<u8> {
    let blocks = count as usize / ty.block_len();
    let mut out = Vec::with_capacity(blocks * ty.block_bytes());
    for _ in 0..blocks {
        match ty {
            TensorType::F32 => out.extend((random.value() * sigma).to_le_bytes()),
            TensorType::F16 => {
                out.extend(half::f16::from_f32(random.value() * sigma).to_le_bytes());
            }
            TensorType::BF16 => {
                out.extend(half::bf16::from_f32(random.value() * sigma).to_le_bytes());
            }
            _ => {
                let start = out.len();
                out.extend((0..ty.block_bytes()).map(|_| random.next() as u8));
                for (at, size) in factors(ty) {
                    let factor = size * sigma * (1.0 + 0.3 * random.value());
                    let bytes = half::f16::from_f32(factor).to_le_bytes();
                    out[start + at..start + at + 2].copy_from_slice(&bytes);
                }
                if ty == TensorType::MXFP4 {
                    // 2⁻³ to 2⁻¹ of the size, as the table goes to 12.
                    let exponent = (sigma.to_bits() >> 23) as u8;
                    out[start] = exponent - 2 + (random.next() % 3) as u8;
                }
            }
        }
    }
    out
}

/// What follows attention in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One network.
    Dense,
    /// 10 experts of width 512, 3 of them for a row, and a shared one of width 768 with a gate.
    Mixture,
}

/// Experts of the mixture, and those of a row.
const EXPERTS: (u64, u64) = (10, 3);
/// Widths of one of them, and of the shared one.
const WIDTHS: (u64, u64) = (512, 768);

/// Writes the model: the formats go round over the matrices of the layers.
pub fn write(path: &Path, kind: Kind) {
    let mut random = Random(1);
    let mut writer = metadata(kind);
    let mut tensor = |writer: GgufWriter, name: &str, ty, shape: &[u64], sigma: f32| {
        let bytes = weights(&mut random, ty, shape.iter().product(), sigma);
        writer.tensor(name, ty, shape, bytes)
    };
    let vocab = u64::from(VOCAB);
    writer = tensor(writer, "token_embd.weight", TensorType::Q8_0, &[HIDDEN, vocab], 1.0);
    let mut formats = TensorType::ALL.into_iter().cycle();
    for layer in 0..LAYERS {
        for (part, shape, gain) in ATTENTION.iter().chain(feed_forward(kind)) {
            let ty = formats.next().expect("a cycle does not end");
            let sigma = gain / (shape[0] as f32).sqrt();
            writer = tensor(writer, &format!("blk.{layer}.{part}.weight"), ty, shape, sigma);
        }
        for (part, sigma) in floats(kind) {
            let name = format!("blk.{layer}.{part}.weight");
            let router = [HIDDEN, EXPERTS.0];
            let shape = if *part == "ffn_gate_inp" { &router[..] } else { &router[..1] };
            writer = tensor(writer, &name, TensorType::F32, shape, *sigma);
        }
    }
    writer = tensor(writer, "output_norm.weight", TensorType::F32, &[HIDDEN], 2.0);
    writer = tensor(writer, "output.weight", TensorType::Q6_K, &[HIDDEN, vocab], 0.05);
    writer.write(path).expect("the model can be written");
}

/// A matrix of a layer: its name, its shape, and how much it makes its input larger.
type Part = (&'static str, &'static [u64], f32);

const ATTENTION: [Part; 4] = [
    ("attn_q", &[HIDDEN, HIDDEN], 3.0),
    ("attn_k", &[HIDDEN, KV], 3.0),
    ("attn_v", &[HIDDEN, KV], 1.5),
    ("attn_output", &[HIDDEN, HIDDEN], 1.5),
];

fn feed_forward(kind: Kind) -> &'static [Part] {
    match kind {
        Kind::Dense => &[
            ("ffn_gate", &[HIDDEN, FFN], 1.5),
            ("ffn_up", &[HIDDEN, FFN], 1.5),
            ("ffn_down", &[FFN, HIDDEN], 1.5),
        ],
        Kind::Mixture => &[
            ("ffn_gate_exps", &[HIDDEN, WIDTHS.0, EXPERTS.0], 1.5),
            ("ffn_up_exps", &[HIDDEN, WIDTHS.0, EXPERTS.0], 1.5),
            ("ffn_down_exps", &[WIDTHS.0, HIDDEN, EXPERTS.0], 1.5),
            ("ffn_gate_shexp", &[HIDDEN, WIDTHS.1], 1.5),
            ("ffn_up_shexp", &[HIDDEN, WIDTHS.1], 1.5),
            ("ffn_down_shexp", &[WIDTHS.1, HIDDEN], 1.5),
        ],
    }
}

/// What is not quantised, with its size.
fn floats(kind: Kind) -> &'static [(&'static str, f32)] {
    let all = &[
        ("attn_norm", 1.7),
        ("ffn_norm", 1.7),
        ("ffn_gate_inp", 0.2),
        ("ffn_gate_inp_shexp", 0.05),
    ];
    if kind == Kind::Dense { &all[..2] } else { all }
}

fn metadata(kind: Kind) -> GgufWriter {
    let name = if kind == Kind::Dense { "llama" } else { "qwen2moe" };
    let tokens = (0..VOCAB).map(|i| format!("t{i}")).collect();
    let mut writer = GgufWriter::new()
        .kv("general.architecture", Value::String(name.to_owned()))
        .kv("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)))
        .kv(format!("{name}.attention.layer_norm_rms_epsilon"), Value::F32(1e-5))
        .kv(format!("{name}.rope.freq_base"), Value::F32(10_000.0));
    let numbers = [
        ("block_count", LAYERS),
        ("context_length", 4096),
        ("embedding_length", HIDDEN as u32),
        ("feed_forward_length", FFN as u32),
        ("attention.head_count", 12),
        ("attention.head_count_kv", 4),
        ("expert_count", EXPERTS.0 as u32),
        ("expert_used_count", EXPERTS.1 as u32),
        ("expert_feed_forward_length", WIDTHS.0 as u32),
        ("expert_shared_feed_forward_length", WIDTHS.1 as u32),
    ];
    let count = if kind == Kind::Dense { 6 } else { numbers.len() };
    for (key, number) in &numbers[..count] {
        writer = writer.kv(format!("{name}.{key}"), Value::U32(*number));
    }
    writer
}
