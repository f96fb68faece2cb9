//! What single rows of the table allow and others do not: parts of heads rotated, layers that are skipped,
//! windows that may be absent, caps of logits, factors by context.

use crate::arch::Arch;
use crate::arch::hyper::{RopeScaling, Window};
use crate::arch::layer::RopeKind;
use crate::gguf::tests::{HIDDEN, read, small_model, weights};
use crate::gguf::write::GgufWriter;
use crate::gguf::{Gguf, Value};
use crate::plan::{ModelLayout, SliceId};
use crate::quant::TensorType;

fn arch(model: &GgufWriter) -> Result<Arch, String> {
    let gguf = read(model.to_bytes(32)).expect("the file itself is whole");
    Arch::new(&gguf).map_err(|error| error.to_string())
}

fn with(architecture: &str, key: &str, value: Value) -> Result<Arch, String> {
    arch(&small_model(architecture, 2).set(&format!("{architecture}.{key}"), value))
}

/// Asserts that the value is refused with the key, and with what is expected.
#[track_caller]
fn refuses(architecture: &str, key: &str, value: Value, expected: &str) {
    let text = with(architecture, key, value).expect_err("must be refused");
    assert!(text.contains(key) && text.contains(expected), "{text}");
}

#[test]
fn a_part_of_a_head_is_rotated_where_the_family_may() {
    let found = with("phi3", "rope.dimension_count", Value::U32(12)).unwrap();
    assert_eq!((found.hyper.rope_dim, found.hyper.head_dim_k), (12, 16));
    for wrong in [13, 18] {
        let expected = "an even number up to 16";
        refuses("phi3", "rope.dimension_count", Value::U32(wrong), expected);
    }
    refuses("qwen3", "rope.dimension_count", Value::U32(12), "16, the length of a key");
    refuses("qwen3", "rope.dimension_sections", Value::U32(1), "vision");
}

#[test]
fn gemma_scales_its_embedding_and_may_cap_its_logits() {
    let found = with("gemma3", "final_logit_softcapping", Value::F32(30.0)).unwrap().hyper;
    assert_eq!((found.embedding_scale, found.logit_cap), (Some(8.0), Some(30.0)));
    let none = with("gemma3", "final_logit_softcapping", Value::F32(0.0)).unwrap().hyper;
    assert_eq!(none.logit_cap, None);
    refuses("gemma3", "final_logit_softcapping", Value::F32(-1.0), "above 0");
    refuses("gemma3", "final_logit_softcapping", Value::F32(f32::NAN), "finite");
    // Its largest model has another factor of the scores: of the hidden width over the heads.
    let own = |layers| {
        let model = small_model("gemma3", layers)
            .kv("gemma3.attention.key_length", Value::U32(32))
            .kv("gemma3.attention.value_length", Value::U32(32));
        arch(&model).unwrap().layers[0].attention_scale
    };
    assert_eq!((own(2), own(62)), (1.0 / 32f32.sqrt(), 0.25));
}

#[test]
fn windows_of_gemma_may_be_absent_and_have_their_own_rotation() {
    let none = with("gemma3", "attention.sliding_window", Value::U32(0)).unwrap();
    assert_eq!(none.hyper.window, None);
    assert_eq!(arch(&small_model("gemma3", 2)).unwrap().hyper.window, None);
    let some = with("gemma3", "attention.sliding_window", Value::U32(512)).unwrap();
    let expected =
        Window { positions: 512, period: 6, rope_base: Some(10_000.0), is_stretched: false };
    assert_eq!(some.hyper.window, Some(expected));
    assert_eq!(some.layers[0].rope, RopeKind { base: 10_000.0, is_stretched: false });
    let text = arch(&small_model("gpt-oss", 2)).unwrap_err();
    assert!(text.contains("gpt-oss.attention.sliding_window"), "{text}");
}

#[test]
fn factors_by_context_replace_no_other_scaling() {
    let found = with("phi3", "rope.scaling.attn_factor", Value::F32(1.5)).unwrap().hyper;
    let expected = RopeScaling::OfContext { orig_ctx: 256, attn_factor: Some(1.5) };
    assert_eq!(found.rope_scaling, expected);
    let linear = with("phi3", "rope.scaling.factor", Value::F32(4.0)).unwrap().hyper;
    assert_eq!(linear.rope_scaling, RopeScaling::Linear { factor: 4.0 });
    let factors =
        weights(small_model("llama", 2), "rope_factors_long.weight", TensorType::F32, &[8]);
    let text = layout(&read(factors.to_bytes(32)).unwrap()).unwrap_err();
    assert!(text.contains("rope_factors_long.weight"), "{text}");
}

fn layout(gguf: &Gguf) -> Result<ModelLayout, String> {
    ModelLayout::new(gguf).map_err(|error| error.to_string())
}

/// A dense model of a family that may predict further tokens, with one layer that does.
fn further() -> GgufWriter {
    let model = small_model("glm4moe", 3)
        .kv("glm4moe.nextn_predict_layers", Value::U32(1))
        .kv("glm4moe.expert_count", Value::U32(4))
        .kv("glm4moe.expert_used_count", Value::U32(2))
        .kv("glm4moe.expert_shared_count", Value::U32(0))
        .kv("glm4moe.leading_dense_block_count", Value::U32(2));
    let norm = |model, layer| {
        let name = format!("blk.{layer}.post_attention_norm.weight");
        let without = GgufWriter::without_tensor(model, &format!("blk.{layer}.ffn_norm.weight"));
        weights(without, &name, TensorType::F32, &[HIDDEN])
    };
    let model = (0..3).fold(model, norm);
    weights(model, "blk.2.nextn.eh_proj.weight", TensorType::Q8_0, &[2 * HIDDEN, HIDDEN])
}

#[test]
fn layers_that_predict_further_tokens_are_skipped_by_count() {
    let found = layout(&read(further().to_bytes(32)).unwrap()).unwrap();
    assert_eq!((found.layers, found.skipped.layers), (2, 1));
    assert!(!found.has_slice(SliceId::Layer(2)));
    let own = found.slice_tensors(SliceId::Layer(1)).len();
    assert_eq!(found.skipped.tensors, own + 1, "a layer's own and one more");
    let of_layer: u64 = found.slice_tensors(SliceId::Layer(1)).iter().map(|t| t.source.len).sum();
    assert_eq!(found.skipped.bytes, of_layer + 2 * HIDDEN * HIDDEN / 32 * 34);
    let all = further().set("glm4moe.nextn_predict_layers", Value::U32(3));
    assert!(arch(&all).unwrap_err().contains("0 to 2"));
    refuses("qwen3moe", "nextn_predict_layers", Value::U32(1), "0: Woolly does not compute");
}
