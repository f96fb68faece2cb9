//! Slices and their bytes; G-41, layers that are missing or too many.

use super::layout;
use crate::arch::error::ArchError;
use crate::gguf::Value;
use crate::gguf::tests::{HIDDEN, VOCAB, read, small_model, weights};
use crate::gguf::write::GgufWriter;
use crate::plan::{ByteRange, KvType, ModelLayout, PlanError, SliceId, SlicePiece};
use crate::quant::TensorType;

fn refused(model: &GgufWriter) -> PlanError {
    ModelLayout::new(&read(model.to_bytes(32)).unwrap()).expect_err("must be refused")
}

#[test]
fn g_41_layers_that_do_not_match_block_count() {
    let model = small_model("llama", 3);
    let fewer = model.clone().set("llama.block_count", Value::U32(2));
    let error = refused(&fewer);
    assert!(matches!(&error, PlanError::Arch(ArchError::ExtraLayer { layers: 2, .. })), "{error}");
    let more = refused(&model.clone().set("llama.block_count", Value::U32(4)));
    let missing = "blk.3.attn_norm.weight";
    assert!(
        matches!(&more, PlanError::Arch(ArchError::MissingTensor { name }) if name == missing),
        "{more}"
    );
    let most = refused(&model.clone().set("llama.block_count", Value::U32(1024)));
    assert!(matches!(&most, PlanError::Arch(ArchError::MissingTensor { .. })), "{most}");
    let hole = refused(&model.clone().without_tensor("blk.1.ffn_up.weight"));
    assert!(hole.to_string().contains("\"blk.1.ffn_up.weight\""), "{hole}");
    for name in ["blk.99.attn_q.weight", "blk.4294967295.attn_q.weight"] {
        let extra = refused(&weights(model.clone(), name, TensorType::F32, &[8]));
        assert!(matches!(&extra, PlanError::Arch(ArchError::ExtraLayer { .. })), "{extra}");
    }
}

#[test]
fn unknown_tensors_are_named() {
    for name in [
        "blk.0.attn_qkv.weight",
        "blk.0.ffn_gate_inp.weight",
        "blk.00.attn_q.bias",
        "blk.+1.attn_q.bias",
        "blk.4294967296.attn_q.bias",
        "blk.x.attn_q.bias",
        "blk.0",
        "output.bias",
        "blk.0.attn_q_norm.weight",
    ] {
        let error = refused(&weights(small_model("llama", 2), name, TensorType::F32, &[8]));
        assert!(matches!(&error, PlanError::Arch(ArchError::UnknownTensor { .. })), "{error}");
        assert!(error.to_string().contains(&format!("\"{name}\"")), "{error}");
    }
    let biased = weights(small_model("qwen2", 2), "blk.0.attn_q.bias", TensorType::F32, &[64]);
    assert!(ModelLayout::new(&read(biased.to_bytes(32)).unwrap()).is_ok());
    let without_norm = small_model("qwen3", 2).without_tensor("blk.1.attn_k_norm.weight");
    assert!(refused(&without_norm).to_string().contains("blk.1.attn_k_norm.weight"));
}

#[test]
fn shapes_that_contradict_the_metadata_are_refused() {
    let model = small_model("llama", 2).set("llama.feed_forward_length", Value::U32(31));
    let error = refused(&model);
    let expected = vec![HIDDEN, 31];
    assert!(
        matches!(&error, PlanError::Arch(ArchError::Shape { name, expected: e, .. })
            if name == "blk.0.ffn_gate.weight" && *e == expected),
        "{error}"
    );
    for (name, ty, shape) in [
        ("blk.0.attn_q.bias", TensorType::F32, &[8][..]),
        ("blk.1.ffn_down.bias", TensorType::F32, &[HIDDEN, 2]),
        ("rope_freqs.weight", TensorType::F32, &[3]),
        ("blk.0.ffn_up.bias", TensorType::F16, &[96]),
    ] {
        let error = refused(&weights(small_model("llama", 2), name, ty, shape));
        assert!(error.to_string().contains(&format!("\"{name}\"")), "{error}");
    }
    // A dimension of one element says nothing.
    let flat = weights(small_model("llama", 2), "blk.0.ffn_up.bias", TensorType::F32, &[96, 1]);
    assert!(ModelLayout::new(&read(flat.to_bytes(32)).unwrap()).is_ok());
}

#[test]
fn slices_cover_the_model_once() {
    let layout = layout(3);
    let mut ranges: Vec<ByteRange> = Vec::new();
    for slice in layout.slices() {
        for piece in layout.slice_ranges(slice) {
            match piece {
                SlicePiece::Source(range) => ranges.push(range),
                SlicePiece::Zeros(len) => assert!(len < 32),
            }
        }
    }
    ranges.sort_by_key(|range| range.offset);
    assert_eq!(ranges[0].offset, 0);
    for pair in ranges.windows(2) {
        let gap = pair[1].offset - (pair[0].offset + pair[0].len);
        assert!(gap < 32, "{pair:?}");
    }
    let last = ranges.last().unwrap();
    assert!(layout.file_bytes - (last.offset + last.len) < 32);
}

#[test]
fn slice_files_are_laid_out() {
    let layout = layout(2);
    assert_eq!(layout.slices().len(), 5);
    for slice in layout.slices() {
        let mut at = 0;
        let mut sources = Vec::new();
        for piece in layout.slice_ranges(slice) {
            match piece {
                SlicePiece::Source(range) => {
                    sources.push((at, range));
                    at += range.len;
                }
                SlicePiece::Zeros(len) => at += len,
            }
        }
        assert_eq!(at, layout.slice_len(slice));
        if let SliceId::Header(_) = slice {
            continue;
        }
        let tensors = layout.slice_tensors(slice);
        assert_eq!(sources.len(), tensors.len());
        for (tensor, (at, source)) in tensors.iter().zip(sources) {
            assert_eq!((tensor.at, tensor.source), (at, source));
            assert_eq!(tensor.at % 32, 0);
        }
    }
    let head: Vec<&str> =
        layout.slice_tensors(SliceId::Head).iter().map(|t| t.name.as_str()).collect();
    assert_eq!(head, ["output_norm.weight", "output.weight"]);
}

#[test]
fn stages_are_weighed() {
    let layout = layout(3);
    let matrix = |rows: u64| rows * HIDDEN / 32 * 34;
    let norms = 2 * 4 * HIDDEN;
    let block = norms + matrix(64 + 32 + 32 + 64 + 96 + 96) + 64 * 96 / 32 * 34;
    let embedding = matrix(VOCAB);
    let head = 4 * HIDDEN + matrix(VOCAB);
    assert_eq!(layout.stage_bytes(1..2), block);
    assert_eq!(layout.stage_bytes(0..1), embedding + block);
    assert_eq!(layout.stage_bytes(0..3), embedding + 3 * block + head);
    assert_eq!(layout.stage_bytes_per_token(0..3), embedding / VOCAB + 3 * block + head);
    let few = layout.stage_bytes_read(0..3, 4);
    assert_eq!(few, 4 * (embedding / VOCAB) + 3 * block + head, "all but embeddings are read once");
    let macs = HIDDEN * (64 + 32 + 32 + 64 + 96 + 96) + 96 * 64;
    assert_eq!(layout.stage_prefill_macs_per_token(0..3), 3 * macs, "a prompt needs no head");
    assert_eq!(layout.stage_macs_per_token(0..2), 2 * macs);
    assert_eq!(layout.stage_macs_per_token(2..3), macs + HIDDEN * VOCAB);
    assert_eq!(layout.kv_block_bytes(0..3, KvType::F16), 3 * 2 * 2 * 16 * 32 * 2);
    // A byte per value, and a half per 32 values or less of a position.
    assert_eq!(layout.kv_block_bytes(0..3, KvType::Q8_0), 3 * 2 * 2 * 32 * (16 + 2));
    assert_eq!(layout.parameters, 2 * HIDDEN * VOCAB + HIDDEN + 3 * (macs + 2 * HIDDEN));
    assert_eq!(layout.file_type, "Q8_0");
    assert!(!layout.tied);
    assert_eq!((layout.name.as_str(), layout.ctx_train), ("small", 256));
}

#[test]
fn a_tied_head_weighs_once_beside_the_embedding() {
    let model = small_model("llama", 3).without_tensor("output.weight");
    let layout = ModelLayout::new(&read(model.to_bytes(32)).unwrap()).unwrap();
    assert!(layout.tied);
    let names: Vec<&str> =
        layout.slice_tensors(SliceId::Head).iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["token_embd.weight", "output_norm.weight"], "in the order of the file");
    let embedding = VOCAB * HIDDEN / 32 * 34;
    let block = layout.stage_bytes(1..2);
    assert_eq!(layout.stage_bytes(0..1), embedding + block);
    assert_eq!(layout.stage_bytes(2..3), block + 4 * HIDDEN + embedding, "a copy of its own");
    assert_eq!(layout.stage_bytes(0..3), embedding + 3 * block + 4 * HIDDEN, "together, one");
}

#[test]
fn shared_rotary_frequencies_are_in_every_layer_and_weigh_once() {
    let plain = layout(2);
    let model = weights(small_model("llama", 2), "rope_freqs.weight", TensorType::F32, &[8]);
    let layout = ModelLayout::new(&read(model.to_bytes(32)).unwrap()).unwrap();
    for layer in 0..2 {
        let tensors = layout.slice_tensors(SliceId::Layer(layer));
        assert!(tensors.iter().any(|tensor| tensor.name == "rope_freqs.weight"));
    }
    assert_eq!(layout.stage_bytes(0..2), plain.stage_bytes(0..2) + 32);
    assert_eq!(layout.stage_bytes(1..2), plain.stage_bytes(1..2) + 32);
}
