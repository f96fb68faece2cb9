//! Hostile files, one test for each row of the catalogue of hostile input that concerns them.

pub(crate) mod files;
mod header;
mod tensors;
mod values;

use super::write::GgufWriter;
use super::{Array, Gguf, GgufError, HeaderPart, Problem, Value};
use crate::quant::TensorType;

/// Width of the small model's hidden states.
pub(crate) const HIDDEN: u64 = 64;
/// Its vocabulary.
pub(crate) const VOCAB: u64 = 40;

/// A whole small model: `layers` layers of 64 values, 4 heads, 2 key and value heads. Tensor bytes
/// are a running count, so that no two tensors are equal.
pub(crate) fn small_model(architecture: &str, layers: u32) -> GgufWriter {
    let key = |rest: &str| format!("{architecture}.{rest}");
    let tokens = (0..VOCAB).map(|token| format!("t{token}")).collect();
    let mut model = GgufWriter::new()
        .kv("general.architecture", Value::String(architecture.into()))
        .kv("general.name", Value::String("small".into()))
        .kv(key("block_count"), Value::U32(layers))
        .kv(key("context_length"), Value::U32(256))
        .kv(key("embedding_length"), Value::U32(HIDDEN as u32))
        .kv(key("feed_forward_length"), Value::U32(96))
        .kv(key("attention.head_count"), Value::U32(4))
        .kv(key("attention.head_count_kv"), Value::U32(2))
        .kv(key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5))
        .kv("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)));
    if architecture.starts_with("granite") {
        model = model.kv(key("logit_scale"), Value::F32(8.0));
    }
    model = weights(model, "token_embd.weight", TensorType::Q8_0, &[HIDDEN, VOCAB]);
    for layer in 0..layers {
        let block = |rest: &str| format!("blk.{layer}.{rest}");
        for (name, shape) in [
            ("attn_norm.weight", vec![HIDDEN]),
            ("attn_q.weight", vec![HIDDEN, HIDDEN]),
            ("attn_k.weight", vec![HIDDEN, 32]),
            ("attn_v.weight", vec![HIDDEN, 32]),
            ("attn_output.weight", vec![HIDDEN, HIDDEN]),
            ("ffn_norm.weight", vec![HIDDEN]),
            ("ffn_gate.weight", vec![HIDDEN, 96]),
            ("ffn_up.weight", vec![HIDDEN, 96]),
            ("ffn_down.weight", vec![96, HIDDEN]),
        ] {
            let ty = if shape.len() == 1 { TensorType::F32 } else { TensorType::Q8_0 };
            model = weights(model, &block(name), ty, &shape);
        }
        if architecture == "qwen3" {
            for name in ["attn_q_norm.weight", "attn_k_norm.weight"] {
                model = weights(model, &block(name), TensorType::F32, &[16]);
            }
        }
    }
    model = weights(model, "output_norm.weight", TensorType::F32, &[HIDDEN]);
    weights(model, "output.weight", TensorType::Q8_0, &[HIDDEN, VOCAB])
}

/// Adds a tensor of counted bytes.
pub(crate) fn weights(model: GgufWriter, name: &str, ty: TensorType, shape: &[u64]) -> GgufWriter {
    let elements: u64 = shape.iter().product();
    let len = ty.row_bytes(elements as usize);
    let seed = name.bytes().fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    let bytes = (0..len).map(|at| (at as u8).wrapping_mul(7).wrapping_add(seed)).collect();
    model.tensor(name, ty, shape, bytes)
}

/// Reads a file that is wholly in memory.
pub(crate) fn read(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
    let file_size = bytes.len() as u64;
    Gguf::from_headers(vec![HeaderPart { file_name: "m.gguf".into(), bytes, file_size }])
}

/// The header of a file, put together by hand.
#[derive(Clone, Default)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl Raw {
    /// Magic, version 3 and the two counts.
    pub(crate) fn new(tensors: u64, pairs: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(pairs)
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn string(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        self.u64(text.len() as u64).bytes(text)
    }

    /// A tensor table entry.
    pub(crate) fn tensor(self, name: &str, shape: &[u64], ty: u32, offset: u64) -> Self {
        let head = self.string(name).u32(shape.len() as u32);
        shape.iter().fold(head, |raw, &dim| raw.u64(dim)).u32(ty).u64(offset)
    }

    /// Zeros up to a multiple of 32, then `len` more.
    pub(crate) fn data(mut self, len: usize) -> Self {
        let padded = self.0.len().next_multiple_of(32) + len;
        self.0.resize(padded, 0);
        self
    }

    /// So many zeros.
    pub(crate) fn zeros(mut self, len: usize) -> Self {
        self.0.resize(self.0.len() + len, 0);
        self
    }

    pub(crate) fn read(self) -> Result<Gguf, GgufError> {
        read(self.0)
    }
}

/// The problem of something that must be refused.
#[track_caller]
pub(crate) fn problem(result: Result<Gguf, GgufError>) -> String {
    let error = result.expect_err("the file must be refused");
    let text = error.to_string();
    assert!(!text.contains(['\n', '\u{1b}', '\0']), "an error is one clean line: {text:?}");
    assert!(text.len() < 1500, "an error is short: {text}");
    format!("{:?}: {text}", error.problem())
}

/// Asserts that a file is refused with a problem of this kind.
#[track_caller]
pub(crate) fn assert_refused(result: Result<Gguf, GgufError>, kind: &str) {
    let text = problem(result);
    let found = text.split(|c: char| !c.is_alphanumeric()).next();
    assert_eq!(found, Some(kind), "{text}");
}

#[test]
fn the_small_model_is_read_back() {
    let gguf = read(small_model("llama", 2).to_bytes(32)).unwrap();
    assert_eq!(gguf.metadata().u32("llama.block_count").unwrap(), 2);
    assert_eq!(gguf.metadata().str("general.name").unwrap(), "small");
    assert_eq!(gguf.tensors().len(), 21);
    let tensor = gguf.tensor("blk.1.ffn_down.weight").unwrap();
    assert_eq!((tensor.ty, tensor.shape.as_slice()), (TensorType::Q8_0, [96, 64].as_slice()));
    assert_eq!(tensor.len, 64 * 3 * 34);
    assert_eq!(gguf.parts()[0].data_start % 32, 0);
    let offsets: Vec<u64> = gguf.tensors().iter().map(|tensor| tensor.offset).collect();
    assert!(offsets.is_sorted());
    assert_eq!(offsets[0], gguf.parts()[0].data_start);
}

#[test]
fn metadata_errors_name_the_key() {
    let gguf = read(small_model("llama", 1).to_bytes(32)).unwrap();
    let metadata = gguf.metadata();
    let error = metadata.u32("no.such.key").unwrap_err();
    assert!(matches!(error.problem(), Problem::MissingKey { key } if key == "no.such.key"));
    let error = metadata.u32("general.name").unwrap_err();
    assert_eq!(
        error.to_string(),
        "metadata key \"general.name\" is \"small\", expected a whole number from 0 to 4294967295"
    );
    assert_eq!(metadata.opt_str("no.such.key").unwrap(), None);
    assert_eq!(metadata.u64("llama.block_count").unwrap(), 1);
}
