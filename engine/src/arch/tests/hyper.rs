//! G-40 to G-46: hyper-parameters.

use crate::arch::Arch;
use crate::arch::hyper::{HyperParameters, RopeScaling};
use crate::gguf::tests::{read, small_model, weights};
use crate::gguf::write::GgufWriter;
use crate::gguf::{Array, Value};
use crate::quant::TensorType;

fn hyper(model: &GgufWriter) -> Result<HyperParameters, String> {
    let gguf = read(model.to_bytes(32)).expect("the file itself is whole");
    Arch::new(&gguf).map(|arch| arch.hyper).map_err(|error| error.to_string())
}

/// Asserts that the model with this value is refused with the key's name.
#[track_caller]
fn refuses(key: &str, value: Value) {
    let text = hyper(&small_model("llama", 2).set(key, value)).expect_err("must be refused");
    assert!(text.contains(key), "{text}");
}

#[test]
fn every_architecture_is_read() {
    for architecture in ["llama", "qwen2", "qwen3", "granite"] {
        let found = hyper(&small_model(architecture, 3)).unwrap();
        assert_eq!(found.architecture, architecture);
        assert_eq!((found.layers, found.hidden, found.ffn, found.vocab), (3, 64, 96, 40));
        assert_eq!((found.heads, found.kv_heads, found.head_dim_k, found.rope_dim), (4, 2, 16, 16));
        assert_eq!((found.rope_base, found.rope_scaling), (10_000.0, RopeScaling::None));
        assert_eq!(found.logit_scale, (architecture == "granite").then_some(8.0));
    }
}

#[test]
fn g_40_architecture() {
    let model = small_model("llama", 1);
    let text = hyper(&model.clone().without("general.architecture")).unwrap_err();
    assert!(text.contains("general.architecture"), "{text}");
    for other in ["mamba", "../llama", "llama/", "", "Llama", "llama4"] {
        let text = hyper(&model.clone().set("general.architecture", Value::String(other.into())))
            .unwrap_err();
        assert!(text.contains(other) && text.contains("llama, qwen2, qwen2moe, qwen3"), "{text}");
    }
}

#[test]
fn g_41_block_count() {
    for value in [Value::U32(0), Value::I32(-1), Value::U64(1 << 32), Value::U32(1025)] {
        refuses("llama.block_count", value);
    }
    assert!(hyper(&small_model("llama", 2).without("llama.block_count")).is_err());
}

#[test]
fn g_42_heads() {
    refuses("llama.attention.head_count", Value::U32(0));
    refuses("llama.attention.head_count_kv", Value::U32(0));
    refuses("llama.attention.head_count_kv", Value::U32(3));
    refuses("llama.attention.head_count_kv", Value::U32(8));
    for layers in [vec![2], vec![2, 2, 2], vec![2, 4], vec![2, -2], vec![], vec![0, 0]] {
        refuses("llama.attention.head_count_kv", Value::Array(Array::I32(layers)));
    }
    refuses("llama.attention.head_count_kv", Value::Array(Array::Bools(vec![true, true])));
    let model = small_model("llama", 2);
    let arrays = model
        .clone()
        .set("llama.attention.head_count_kv", Value::Array(Array::I32(vec![2, 2])))
        .set("llama.feed_forward_length", Value::Array(Array::U32(vec![96, 96])));
    assert_eq!(hyper(&arrays), hyper(&model), "the same number for every layer is that number");
    let found = hyper(&model.without("llama.attention.head_count_kv")).unwrap();
    assert_eq!(found.kv_heads, 4, "as many as heads unless said otherwise");
}

#[test]
fn g_43_head_dimensions() {
    refuses("llama.embedding_length", Value::U32(66));
    refuses("llama.embedding_length", Value::U32(0));
    for value in [Value::U32(0), Value::U64(1 << 32), Value::U32(1025)] {
        refuses("llama.attention.key_length", value.clone());
        refuses("llama.attention.value_length", value);
    }
    refuses("llama.attention.value_length", Value::U32(8));
    refuses("llama.rope.dimension_count", Value::U32(8));
    let odd = small_model("llama", 1)
        .set("llama.attention.key_length", Value::U32(17))
        .set("llama.attention.value_length", Value::U32(17));
    assert!(hyper(&odd).unwrap_err().contains("even"));
    let own = small_model("llama", 1)
        .set("llama.embedding_length", Value::U32(66))
        .set("llama.attention.key_length", Value::U32(32))
        .set("llama.attention.value_length", Value::U32(32));
    assert_eq!(hyper(&own).unwrap().head_dim_k, 32);
}

#[test]
fn g_44_context_length() {
    for value in [Value::U32(0), Value::U64(1 << 63), Value::I32(-1), Value::U32((1 << 30) + 1)] {
        refuses("llama.context_length", value);
    }
    let one = small_model("llama", 1).set("llama.context_length", Value::U32(1));
    assert_eq!(hyper(&one).unwrap().ctx_train, 1);
}

#[test]
fn g_45_floats_and_experts() {
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        refuses("llama.rope.freq_base", Value::F32(bad));
        refuses("llama.rope.scaling.factor", Value::F32(bad));
        refuses("llama.rope.scale_linear", Value::F32(bad));
        refuses("llama.attention.layer_norm_rms_epsilon", Value::F32(bad));
        refuses("llama.rope.scaling.yarn_log_multiplier", Value::F32(bad + 2.0));
    }
    refuses("llama.attention.layer_norm_rms_epsilon", Value::U32(1));
    refuses("llama.expert_used_count", Value::U32(2));
    refuses("llama.attention.causal", Value::Bool(false));
    refuses("llama.logit_scale", Value::F32(2.0));
    refuses("llama.rope.scaling.attn_factor", Value::F32(2.0));
    refuses("llama.rope.scaling.type", Value::String("longrope".into()));
    let without = small_model("llama", 1).without("llama.attention.layer_norm_rms_epsilon");
    assert!(hyper(&without).is_err());
    assert!(hyper(&small_model("llama", 1).set("llama.expert_count", Value::U32(0))).is_ok());
    let granite = small_model("granite", 1);
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(hyper(&granite.clone().set("granite.residual_scale", Value::F32(bad))).is_err());
    }
    assert!(hyper(&granite.clone().without("granite.logit_scale")).is_err());
    assert!(hyper(&granite.set("granite.rope.scaling.finetuned", Value::Bool(false))).is_err());
}

#[test]
fn rope_scaling_is_read() {
    let scaling = |pairs: &[(&str, Value)]| {
        let model = small_model("qwen2", 1);
        let model = pairs.iter().fold(model, |model, (key, value)| {
            model.kv(format!("qwen2.rope.{key}"), value.clone())
        });
        hyper(&model).map(|found| found.rope_scaling)
    };
    let kind = |name: &str| ("scaling.type", Value::String(name.into()));
    let factor = ("scaling.factor", Value::F32(4.0));
    let linear = Ok(RopeScaling::Linear { factor: 4.0 });
    assert_eq!(scaling(&[kind("linear"), factor.clone()]), linear);
    assert_eq!(scaling(std::slice::from_ref(&factor)), linear, "linear unless said otherwise");
    assert_eq!(scaling(&[("scale_linear", Value::F32(4.0))]), linear);
    assert_eq!(scaling(&[kind("none"), factor.clone()]), Ok(RopeScaling::None));
    assert_eq!(scaling(&[kind("linear")]), Ok(RopeScaling::None));
    let yarn = |orig_ctx, attn_factor, beta_fast| RopeScaling::Yarn {
        factor: 4.0,
        orig_ctx,
        ext_factor: None,
        attn_factor,
        beta_fast,
        beta_slow: 1.0,
    };
    assert_eq!(scaling(&[kind("yarn"), factor.clone()]), Ok(yarn(256, None, 32.0)));
    let full = [
        kind("yarn"),
        factor,
        ("scaling.original_context_length", Value::U32(64)),
        ("scaling.attn_factor", Value::F32(0.5)),
        ("scaling.yarn_beta_fast", Value::F32(16.0)),
        ("scaling.yarn_ext_factor", Value::F32(-1.0)),
    ];
    assert_eq!(scaling(&full), Ok(yarn(64, Some(0.5), 16.0)));
    assert!(scaling(&[kind("yarn"), ("scaling.yarn_beta_fast", Value::F32(0.5))]).is_err());
}

#[test]
fn g_46_vocabulary_and_embedding() {
    for count in [39, 41, 0] {
        let tokens = (0..count).map(|token| format!("t{token}")).collect();
        let model = small_model("llama", 1)
            .set("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)));
        let text = hyper(&model).unwrap_err();
        assert!(text.contains(&format!("{count} tokens")) && text.contains("40 tokens"), "{text}");
    }
    refuses("tokenizer.ggml.tokens", Value::Array(Array::I32(vec![0; 40])));
    let bare = small_model("llama", 1).without("tokenizer.ggml.tokens");
    assert_eq!(hyper(&bare).unwrap().vocab, 40);
    assert!(hyper(&bare.clone().kv("llama.vocab_size", Value::U32(41))).is_err());
    assert!(hyper(&bare.kv("llama.vocab_size", Value::U32(40))).is_ok());
    let wide = weights(
        small_model("llama", 1).without_tensor("token_embd.weight"),
        "token_embd.weight",
        TensorType::Q2_K,
        &[256, (1 << 20) + 1],
    );
    assert!(hyper(&wide).unwrap_err().contains("limit of 1048576"));
}
