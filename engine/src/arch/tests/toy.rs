//! An architecture added by one row: what its layers consist of, cost and remember, and how it is
//! refused, follow without another line.

use crate::arch::Arch;
use crate::arch::families::{
    ChoiceBias, ExpertWidth, FAMILIES, Family, Mixture, Norms, SharedExpert, Windows,
};
use crate::arch::layer::{AttentionKind, CacheGroup, FeedForwardKind, Forgetting};
use crate::gguf::tests::{HIDDEN, read, small_model, weights};
use crate::gguf::write::GgufWriter;
use crate::gguf::{Gguf, Value};
use crate::kernels::routing::{Gating, Router};
use crate::kv::KvType;
use crate::plan::{CutRequest, KV_CTX_MAX, Member, ModelLayout, Objective, SliceId, cut};
use crate::quant::TensorType;

/// Norms after as before, a window on every second layer, experts behind the leading dense layers.
const TOY: Family = Family {
    architecture: "toy",
    norms: Norms { after: true, ..FAMILIES[0].norms },
    windows: Windows::AllButLastOf {
        period: 2,
        is_optional: false,
        rope_base: Some(500.0),
        is_stretched: false,
    },
    experts: Some(MIXTURE),
    ..FAMILIES[0]
};
const MIXTURE: Mixture = Mixture {
    is_optional: false,
    gating: Gating::Sigmoid,
    may_say_gating: true,
    is_normalised: false,
    may_say_normalised: true,
    may_scale: true,
    width: ExpertWidth::Own,
    shared: SharedExpert::None,
    choice_bias: ChoiceBias::Optional,
    has_biases: false,
};
/// Its layers; the last two have experts.
const LAYERS: u32 = 4;
const WINDOW: u32 = 512;
const EXPERTS: u64 = 8;
const USED: u64 = 2;
const EXPERT_FFN: u64 = 32;
/// Bytes of a `Q8_0` matrix of so many values.
const fn q8(values: u64) -> u64 {
    values / 32 * 34
}

fn toy() -> GgufWriter {
    let mut model = small_model("toy", LAYERS)
        .kv("toy.attention.sliding_window", Value::U32(WINDOW))
        .kv("toy.expert_count", Value::U32(EXPERTS as u32))
        .kv("toy.expert_used_count", Value::U32(USED as u32))
        .kv("toy.expert_feed_forward_length", Value::U32(EXPERT_FFN as u32))
        .kv("toy.leading_dense_block_count", Value::U32(2));
    for layer in 0..LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        for part in ["post_attention_norm", "post_ffw_norm"] {
            model = weights(model, &name(part), TensorType::F32, &[HIDDEN]);
        }
        if layer < 2 {
            continue;
        }
        for part in ["ffn_gate", "ffn_up", "ffn_down"] {
            model = model.without_tensor(&name(part));
        }
        for (part, shape) in [
            ("ffn_gate_inp", &[HIDDEN, EXPERTS][..]),
            ("ffn_gate_exps", &[HIDDEN, EXPERT_FFN, EXPERTS]),
            ("ffn_up_exps", &[HIDDEN, EXPERT_FFN, EXPERTS]),
            ("ffn_down_exps", &[EXPERT_FFN, HIDDEN, EXPERTS]),
        ] {
            model = weights(model, &name(part), TensorType::Q8_0, shape);
        }
    }
    model
}

fn gguf(model: &GgufWriter) -> Gguf {
    read(model.to_bytes(32)).expect("the file itself is whole")
}

fn arch(model: &GgufWriter) -> Result<Arch, String> {
    Arch::declared(&gguf(model), &[TOY]).map_err(|error| error.to_string())
}

fn layout(model: &GgufWriter) -> Result<ModelLayout, String> {
    ModelLayout::of(&gguf(model), arch(model)?).map_err(|error| error.to_string())
}

#[test]
fn each_layer_is_what_the_row_says() {
    let arch = arch(&toy()).unwrap();
    let kinds: Vec<AttentionKind> = arch.layers.iter().map(|layer| layer.attention).collect();
    let window = AttentionKind::Window(WINDOW);
    assert_eq!(kinds, [window, AttentionKind::Full, window, AttentionKind::Full]);
    let bases: Vec<f32> = arch.layers.iter().map(|layer| layer.rope.base).collect();
    assert_eq!(bases, [500.0, 10_000.0, 500.0, 10_000.0]);
    let (dense, experts) = (
        FeedForwardKind::Dense { width: 96 },
        FeedForwardKind::Experts {
            count: 8,
            used: 2,
            width: 32,
            router: Router {
                gating: Gating::Sigmoid,
                groups: None,
                is_normalised: false,
                scale: 1.0,
            },
            choice_bias: ChoiceBias::Optional,
            has_biases: false,
            shared_width: 0,
            is_shared_gated: false,
        },
    );
    let kinds: Vec<FeedForwardKind> = arch.layers.iter().map(|layer| layer.feed_forward).collect();
    assert_eq!(kinds, [dense, dense, experts, experts]);
}

#[test]
fn its_tensors_are_listed_with_their_shapes_and_bytes() {
    let layout = layout(&toy()).unwrap();
    let mut names: Vec<&str> =
        layout.slice_tensors(SliceId::Layer(2)).iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    let parts = [
        "attn_k",
        "attn_norm",
        "attn_output",
        "attn_q",
        "attn_v",
        "ffn_down_exps",
        "ffn_gate_exps",
        "ffn_gate_inp",
        "ffn_norm",
        "ffn_up_exps",
        "post_attention_norm",
        "post_ffw_norm",
    ];
    assert_eq!(names, parts.map(|part| format!("blk.2.{part}.weight")));
    let attention = q8(HIDDEN * (64 + 32 + 32 + 64));
    let norms = 4 * 4 * HIDDEN;
    let (router, one_expert) = (q8(HIDDEN * EXPERTS), 3 * q8(HIDDEN * EXPERT_FFN));
    assert_eq!(layout.stage_bytes(1..2), attention + norms + 3 * q8(HIDDEN * 96));
    assert_eq!(layout.stage_bytes(2..3), attention + norms + router + EXPERTS * one_expert);
    let refused = |model: &GgufWriter| layout_error(model);
    for part in ["ffn_gate_inp", "ffn_up_exps", "post_ffw_norm"] {
        let name = format!("blk.3.{part}.weight");
        assert!(
            refused(&toy().without_tensor(&name)).contains(&format!("lacks the tensor \"{name}\""))
        );
    }
    let dense = weights(toy(), "blk.3.ffn_up.weight", TensorType::Q8_0, &[HIDDEN, 96]);
    assert!(refused(&dense).contains("blk.3.ffn_up.weight"), "a layer of experts has no other");
    let name = "blk.2.ffn_down_exps.weight";
    let other = weights(toy().without_tensor(name), name, TensorType::Q8_0, &[32, HIDDEN, 4]);
    let text = refused(&other);
    assert!(text.contains("[32, 64, 4]") && text.contains("[32, 64, 8]"), "{text}");
}

fn layout_error(model: &GgufWriter) -> String {
    layout(model).expect_err("must be refused")
}

#[test]
fn its_costs_follow_from_the_experts_that_rows_choose() {
    let layout = layout(&toy()).unwrap();
    let attention = HIDDEN * (64 + 32 + 32 + 64);
    let (router, one_expert) = (HIDDEN * EXPERTS, 3 * HIDDEN * EXPERT_FFN);
    let (dense, experts) = (layout.layer_cost(1), layout.layer_cost(2));
    for rows in [1, 7, 512] {
        assert_eq!(dense.macs(rows), u64::from(rows) * (attention + 3 * HIDDEN * 96));
        let row = attention + router + USED * one_expert;
        assert_eq!(experts.macs(rows), u64::from(rows) * row);
        assert_eq!(dense.bytes_read(rows), layout.stage_bytes(1..2));
    }
    let shared = q8(attention + router) + 4 * 4 * HIDDEN;
    let all = EXPERTS * q8(one_expert);
    assert_eq!(experts.bytes_read(1), shared + USED * q8(one_expert));
    // Two rows choose 8 · (1 − (6/8)²) = 3.5 experts.
    assert_eq!(experts.bytes_read(2), shared + all * 7 / 16);
    assert!(
        experts.bytes_read(10) < shared + all && experts.bytes_read(10) > shared + all * 9 / 10
    );
    assert!((shared + all - 1..=shared + all).contains(&experts.bytes_read(100_000)));
    // The planner reads the same figures.
    assert_eq!(layout.stage_bytes_per_token(2..3), experts.bytes_read(1));
    for rows in [4, 5] {
        assert_eq!(layout.stage_bytes_read(2..3, rows), experts.bytes_read(rows));
    }
    assert_eq!(layout.stage_macs_per_token(1..3), dense.macs(1) + experts.macs(1));
    let member = Member {
        memory_bytes: 1 << 30,
        memory_is_own: true,
        machine: [0; 16],
        kv_memory_bytes: 0,
        read_bytes_per_s: 1_000_000_000,
        macs_per_s: 0,
        threads: 1,
        weights_from_disk: false,
    };
    let request = CutRequest {
        ctx_size: 64,
        objective: Objective::Balanced,
        cut: Some(vec![2, 2]),
        rows_max: 8,
        kv_type: KvType::F16,
        block_len: 32,
        contexts_max: KV_CTX_MAX,
        previous: None,
    };
    let cut =
        cut(&layout, &[member.clone(), Member { machine: [1; 16], ..member }], &request).unwrap();
    let expected = [0..2, 2..4].map(|layers| layout.stage_bytes_per_token(layers));
    assert_eq!(cut.predicted_ns, expected);
}

#[test]
fn layers_that_remember_alike_are_a_group() {
    let layout = layout(&toy()).unwrap();
    let groups = [
        CacheGroup { forgetting: Forgetting::After(WINDOW), layers: vec![0, 2] },
        CacheGroup { forgetting: Forgetting::Never, layers: vec![1, 3] },
    ];
    assert_eq!(layout.cache_groups(), groups);
    let layer = 2 * 2 * 16 * 32 * 2;
    assert_eq!(layout.group_block_bytes(&groups[0], 0..4, KvType::F16), 2 * layer);
    assert_eq!(layout.group_block_bytes(&groups[1], 0..3, KvType::F16), layer);
    let of_groups = groups.iter().map(|group| layout.group_block_bytes(group, 0..4, KvType::Q8_0));
    assert_eq!(of_groups.sum::<u64>(), layout.kv_block_bytes(0..4, KvType::Q8_0));
    let dense = ModelLayout::new(&gguf(&small_model("llama", 3))).unwrap();
    let all = CacheGroup { forgetting: Forgetting::Never, layers: vec![0, 1, 2] };
    assert_eq!(dense.cache_groups(), [all]);
}

#[test]
fn what_is_declared_and_not_computed_is_refused_with_the_layer() {
    let gguf = gguf(&toy());
    let unknown = ModelLayout::new(&gguf).unwrap_err().to_string();
    assert!(
        unknown.contains("\"toy\", expected one of llama, qwen2, qwen2moe, qwen3"),
        "{unknown}"
    );
    let refusal = |family: Family| {
        let arch = Arch::declared(&gguf, &[family]).unwrap();
        arch.check_computed().expect_err("must be refused").to_string()
    };
    let not = "which this version does not compute";
    assert_eq!(refusal(TOY), format!("layer 2 has a norm after its experts, {not}"));
    let only = Family { norms: Norms { before: false, ..TOY.norms }, ..TOY };
    let after = "has norms only after attention and feed-forward";
    assert_eq!(refusal(only), format!("layer 0 {after}, {not}"));
    let none = Family { norms: Norms { after: false, ..only.norms }, ..TOY };
    assert_eq!(refusal(none), format!("layer 0 has no norms, {not}"));
    let before = Family { norms: FAMILIES[0].norms, ..TOY };
    Arch::declared(&gguf, &[before]).unwrap().check_computed().unwrap();
}

#[test]
fn the_keys_that_are_read_follow_from_the_row() {
    for key in ["attention.sliding_window", "expert_count", "expert_used_count"] {
        let key = format!("toy.{key}");
        assert!(arch(&toy().without(&key)).unwrap_err().contains(&key));
        assert!(arch(&toy().set(&key, Value::U32(0))).unwrap_err().contains(&key));
    }
    let many = toy().set("toy.expert_used_count", Value::U32(9));
    assert!(arch(&many).unwrap_err().contains("1 to 8"));
    // A family without windows does not read the window.
    let llama = small_model("llama", 1).kv("llama.attention.sliding_window", Value::U32(0));
    assert!(ModelLayout::new(&gguf(&llama)).is_ok());
}
