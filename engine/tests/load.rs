//! What a stage refuses to load: tensors that are missing, of another shape or type than their role.

use std::path::Path;
use woolly_engine::gguf::write::GgufWriter;
use woolly_engine::gguf::{Array, Gguf, Value};
use woolly_engine::kv::KvType;
use woolly_engine::model::error::LoadError;
use woolly_engine::plan::ModelLayout;
use woolly_engine::pool::Pool;
use woolly_engine::quant::TensorType;
use woolly_engine::stage::{Stage, StageConfig};
use woolly_engine::weights::{Resident, Weights};

const HIDDEN: u64 = 64;
const FFN: u64 = 96;
const VOCAB: u64 = 40;

/// A valid model of one layer, all F32.
fn model() -> GgufWriter {
    let tokens = (0..VOCAB).map(|i| format!("t{i}")).collect();
    let writer = GgufWriter::new()
        .kv("general.architecture", Value::String("llama".to_owned()))
        .kv("llama.block_count", Value::U32(1))
        .kv("llama.context_length", Value::U32(64))
        .kv("llama.embedding_length", Value::U32(HIDDEN as u32))
        .kv("llama.feed_forward_length", Value::U32(FFN as u32))
        .kv("llama.attention.head_count", Value::U32(4))
        .kv("llama.attention.head_count_kv", Value::U32(2))
        .kv("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
        .kv("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)));
    [
        ("token_embd.weight", vec![HIDDEN, VOCAB]),
        ("blk.0.attn_norm.weight", vec![HIDDEN]),
        ("blk.0.attn_q.weight", vec![HIDDEN, HIDDEN]),
        ("blk.0.attn_k.weight", vec![HIDDEN, 32]),
        ("blk.0.attn_v.weight", vec![HIDDEN, 32]),
        ("blk.0.attn_output.weight", vec![HIDDEN, HIDDEN]),
        ("blk.0.ffn_norm.weight", vec![HIDDEN]),
        ("blk.0.ffn_gate.weight", vec![HIDDEN, FFN]),
        ("blk.0.ffn_up.weight", vec![HIDDEN, FFN]),
        ("blk.0.ffn_down.weight", vec![FFN, HIDDEN]),
        ("output_norm.weight", vec![HIDDEN]),
    ]
    .into_iter()
    .fold(writer, |writer, (name, shape)| tensor(writer, name, TensorType::F32, &shape))
}

fn tensor(writer: GgufWriter, name: &str, ty: TensorType, shape: &[u64]) -> GgufWriter {
    let count: u64 = shape.iter().product();
    writer.tensor(name, ty, shape, vec![0; ty.row_bytes(count as usize)])
}

fn load(writer: &GgufWriter) -> Result<Stage, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    writer.write(&path).expect("the model can be written");
    load_path(&path)
}

fn load_path(path: &Path) -> Result<Stage, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let gguf = Gguf::open(path).map_err(|e| text(&e))?;
    let layout = ModelLayout::new(&gguf).map_err(|e| text(&e))?;
    let weights = Weights::from_model(&gguf, &layout.stage_slices(0..1), &Resident::new())
        .map_err(|e| text(&e))?;
    let config = StageConfig {
        layers: 0..1,
        ctx_size: 64,
        caches: layout.equal_caches(2),
        rows_max: 4,
        chunks_max: 1,
        kv_type: KvType::F16,
    };
    Stage::load(&gguf, weights, &config, Pool::on_this_thread(1)).map_err(|e: LoadError| text(&e))
}

#[test]
fn g_58_a_tensor_of_the_wrong_shape_for_its_role_is_named_with_both_shapes() {
    assert!(load(&model()).is_ok(), "the model itself is fine");
    for (name, shape, expected) in [
        ("blk.0.attn_q.weight", vec![HIDDEN, 32], "[64, 64]"),
        ("blk.0.attn_k.weight", vec![32, HIDDEN], "[64, 32]"),
        ("blk.0.ffn_down.weight", vec![HIDDEN, FFN], "[96, 64]"),
        ("blk.0.ffn_norm.weight", vec![32], "[64]"),
        ("output_norm.weight", vec![HIDDEN, 2], "[64]"),
    ] {
        let broken = tensor(model().without_tensor(name), name, TensorType::F32, &shape);
        let error = load(&broken).err().unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(error.contains(name) && error.contains(expected), "{error}");
    }
}

#[test]
fn g_59_the_output_may_be_its_own_or_the_embeddings_and_norms_are_f32() {
    let own = tensor(model(), "output.weight", TensorType::Q8_0, &[HIDDEN, VOCAB]);
    assert!(load(&own).is_ok());
    let wrong = tensor(model(), "output.weight", TensorType::F32, &[HIDDEN, VOCAB - 1]);
    let error = load(&wrong).expect_err("an output of another vocabulary");
    assert!(error.contains("output.weight"), "{error}");
    let name = "blk.0.attn_norm.weight";
    let half = tensor(model().without_tensor(name), name, TensorType::F16, &[HIDDEN]);
    let error = load(&half).expect_err("a norm in half precision");
    assert!(error.contains(name) && error.contains("F32"), "{error}");
}

#[test]
fn an_mxfp4_scale_that_is_no_number_is_named_with_its_block() {
    let name = "blk.0.ffn_up.weight";
    let with = |exponent: u8| {
        let ty = TensorType::MXFP4;
        let mut bytes = vec![0u8; ty.row_bytes((HIDDEN * FFN) as usize)];
        bytes[5 * ty.block_bytes()] = exponent;
        load(&model().without_tensor(name).tensor(name, ty, &[HIDDEN, FFN], bytes))
    };
    assert!(with(254).is_ok());
    let text = with(255).expect_err("must be refused");
    assert!(text.contains(name) && text.contains("255") && text.contains("block 5"), "{text}");
}
