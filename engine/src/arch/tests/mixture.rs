//! What metadata say of experts, and what is refused of it.

use crate::arch::Arch;
use crate::arch::hyper::ExpertNumbers;
use crate::gguf::Value;
use crate::gguf::tests::{read, small_model};
use crate::gguf::write::GgufWriter;
use crate::kernels::routing::{Gating, Router};

fn experts(model: &GgufWriter) -> Result<Option<ExpertNumbers>, String> {
    let gguf = read(model.to_bytes(32)).expect("the file itself is whole");
    Arch::new(&gguf).map(|arch| arch.hyper.experts).map_err(|error| error.to_string())
}

/// A model of this architecture with 8 experts, of which a row goes to 2.
fn mixture(architecture: &str) -> GgufWriter {
    small_model(architecture, 2)
        .kv(format!("{architecture}.expert_count"), Value::U32(8))
        .kv(format!("{architecture}.expert_used_count"), Value::U32(2))
}

fn with(architecture: &str, key: &str, value: Value) -> Result<Option<ExpertNumbers>, String> {
    experts(&mixture(architecture).kv(format!("{architecture}.{key}"), value))
}

/// Asserts that the value is refused with the key, and with what is known.
#[track_caller]
fn refuses(architecture: &str, key: &str, value: Value, known: &str) {
    let text = with(architecture, key, value).expect_err("must be refused");
    assert!(text.contains(&format!("{architecture}.{key}")) && text.contains(known), "{text}");
}

#[test]
fn each_architecture_has_its_router_and_widths() {
    let router = Router { gating: Gating::Softmax, groups: None, is_normalised: true, scale: 1.0 };
    let of = |architecture| experts(&mixture(architecture)).unwrap().expect("it has experts");
    // The small model's feed-forward length is 96.
    let expected =
        ExpertNumbers { count: 8, used: 2, width: 48, dense_layers: 0, router, shared_width: 0 };
    assert_eq!(of("qwen3moe"), expected);
    let not_normalised = Router { is_normalised: false, ..router };
    let qwen2 = ExpertNumbers { router: not_normalised, shared_width: 96, ..expected };
    assert_eq!(of("qwen2moe"), qwen2);
    assert_eq!(of("granitemoe"), ExpertNumbers { width: 96, ..expected });
    assert_eq!(of("llama"), ExpertNumbers { width: 96, ..expected });
    assert_eq!(of("minimax-m2").width, 96);
    assert_eq!(of("minimax-m2").router, Router { gating: Gating::Sigmoid, ..router });
    let hunyuan = ExpertNumbers { width: 96, shared_width: 96, ..expected };
    assert_eq!(of("hunyuan-moe"), hunyuan);
    let counted = |architecture: &str, key: &str, value| {
        let model = mixture(architecture)
            .kv(format!("{architecture}.expert_shared_count"), Value::U32(2))
            .kv(format!("{architecture}.{key}"), Value::U32(value));
        experts(&model).unwrap().expect("it has experts").shared_width
    };
    assert_eq!(counted("glm4moe", "expert_feed_forward_length", 32), 64);
    assert_eq!(counted("bailingmoe2", "expert_feed_forward_length", 32), 64);
    assert_eq!(counted("bailingmoe2", "expert_shared_feed_forward_length", 40), 80);
    assert_eq!(experts(&small_model("llama", 1)), Ok(None));
    let own = with("qwen3moe", "expert_feed_forward_length", Value::U32(32)).unwrap();
    assert_eq!(own.expect("it has experts").width, 32);
    let shared = with("granitemoe", "expert_shared_feed_forward_length", Value::U32(64)).unwrap();
    assert_eq!(shared.expect("it has experts").shared_width, 64);
    let scaled = with("qwen3moe", "expert_weights_scale", Value::F32(2.5)).unwrap();
    assert_eq!(scaled.expect("it has experts").router.scale, 2.5);
}

#[test]
fn groups_divide_the_experts_and_hold_enough() {
    let grouped = |count: u32, used: u32| {
        let model = mixture("qwen3moe")
            .kv("qwen3moe.expert_group_count", Value::U32(count))
            .kv("qwen3moe.expert_group_used_count", Value::U32(used));
        experts(&model)
    };
    let groups = |count, used| grouped(count, used).unwrap().expect("experts").router.groups;
    assert_eq!(groups(4, 2), Some((2, 4)));
    assert_eq!(groups(1, 1), None);
    let text = grouped(3, 1).unwrap_err();
    assert!(text.contains("qwen3moe.expert_group_count") && text.contains("which is 8"), "{text}");
    let text = grouped(8, 1).unwrap_err();
    assert!(
        text.contains("qwen3moe.expert_group_used_count") && text.contains("2 experts"),
        "{text}"
    );
    assert!(grouped(4, 0).is_err() && grouped(4, 5).is_err());
    refuses("qwen3moe", "expert_group_count", Value::U32(65), "0 to 64");
}

#[test]
fn contradictions_are_refused_with_the_key_and_what_is_known() {
    refuses("qwen3moe", "expert_gating_func", Value::U32(2), "1 (softmax)");
    refuses("qwen3moe", "expert_gating_func", Value::U32(77), "1 (softmax)");
    assert!(with("qwen3moe", "expert_gating_func", Value::U32(1)).is_ok());
    refuses("qwen3moe", "expert_weights_norm", Value::Bool(false), "true");
    refuses("qwen2moe", "expert_weights_norm", Value::Bool(true), "false");
    refuses("qwen3moe", "expert_shared_feed_forward_length", Value::U32(64), "0");
    refuses("granitemoe", "expert_feed_forward_length", Value::U32(32), "96");
    refuses("qwen3moe", "expert_weights_scale", Value::F32(f32::NAN), "finite");
    refuses("qwen3moe", "leading_dense_block_count", Value::U32(3), "0 to 2");
    for used in [0, 9] {
        let model = mixture("qwen3moe").set("qwen3moe.expert_used_count", Value::U32(used));
        let text = experts(&model).unwrap_err();
        assert!(text.contains("qwen3moe.expert_used_count") && text.contains("1 to 8"), "{text}");
    }
    for count in [0, 1025] {
        let model = mixture("qwen3moe").set("qwen3moe.expert_count", Value::U32(count));
        assert!(experts(&model).unwrap_err().contains("qwen3moe.expert_count"));
    }
    let three = mixture("qwen3moe").set("qwen3moe.expert_used_count", Value::U32(5));
    let text = experts(&three).unwrap_err();
    assert!(text.contains("qwen3moe.expert_feed_forward_length"), "96 has no five parts: {text}");
    let dense = small_model("qwen3", 1).kv("qwen3.expert_count", Value::U32(8));
    assert!(experts(&dense).unwrap_err().contains("knows no experts"));
}
