//! A model that uses every weight format: 3 layers, width 768 (3 superblocks), feed-forward width
//! 1,792 (7 superblocks), 12 query heads on 4 key heads.

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
            }
        }
    }
    out
}

/// Writes the model: the 13 formats go round over the 21 matrices of the layers.
pub fn write(path: &Path) {
    let text = |s: &str| Value::String(s.to_owned());
    let tokens = (0..VOCAB).map(|i| format!("t{i}")).collect();
    let mut random = Random(1);
    let mut writer = GgufWriter::new()
        .kv("general.architecture", text("llama"))
        .kv("llama.block_count", Value::U32(LAYERS))
        .kv("llama.context_length", Value::U32(4096))
        .kv("llama.embedding_length", Value::U32(HIDDEN as u32))
        .kv("llama.feed_forward_length", Value::U32(FFN as u32))
        .kv("llama.attention.head_count", Value::U32(12))
        .kv("llama.attention.head_count_kv", Value::U32(4))
        .kv("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
        .kv("llama.rope.freq_base", Value::F32(10_000.0))
        .kv("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)));
    let mut tensor = |writer: GgufWriter, name: &str, ty, rows: u64, cols: u64, sigma: f32| {
        let bytes = weights(&mut random, ty, rows * cols, sigma);
        let shape: &[u64] = if rows == 1 { &[cols] } else { &[cols, rows] };
        writer.tensor(name, ty, shape, bytes)
    };
    let vocab = u64::from(VOCAB);
    writer = tensor(writer, "token_embd.weight", TensorType::Q8_0, vocab, HIDDEN, 1.0);
    let mut formats = TensorType::ALL.into_iter().cycle();
    for layer in 0..LAYERS {
        for (part, rows, cols, gain) in [
            ("attn_q", HIDDEN, HIDDEN, 3.0),
            ("attn_k", KV, HIDDEN, 3.0),
            ("attn_v", KV, HIDDEN, 1.5),
            ("attn_output", HIDDEN, HIDDEN, 1.5),
            ("ffn_gate", FFN, HIDDEN, 1.5),
            ("ffn_up", FFN, HIDDEN, 1.5),
            ("ffn_down", HIDDEN, FFN, 1.5),
        ] {
            let ty = formats.next().expect("a cycle does not end");
            let sigma = gain / (cols as f32).sqrt();
            writer = tensor(writer, &format!("blk.{layer}.{part}.weight"), ty, rows, cols, sigma);
        }
        for part in ["attn_norm", "ffn_norm"] {
            let name = format!("blk.{layer}.{part}.weight");
            writer = tensor(writer, &name, TensorType::F32, 1, HIDDEN, 1.7);
        }
    }
    writer = tensor(writer, "output_norm.weight", TensorType::F32, 1, HIDDEN, 2.0);
    writer = tensor(writer, "output.weight", TensorType::Q6_K, vocab, HIDDEN, 0.05);
    writer.write(path).expect("the model can be written");
}
