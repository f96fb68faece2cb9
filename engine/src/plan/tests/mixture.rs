//! Plans of a mixture of experts: the shape of Qwen3-30B-A3B.

use super::cut::{GIB, member};
use super::objective::{by_hand, equal, header};
use crate::plan::{Member, ModelLayout};
use crate::quant::TensorType;

const EXPERTS: u64 = 128;
const USED: u64 = 8;
const HIDDEN: u64 = 2048;
const FFN: u64 = 768;

/// Qwen3-30B-A3B with so many of its 48 layers, all of them Q4_K.
pub(super) fn qwen3_30b_a3b(layers: u64) -> ModelLayout {
    let (q4, q6, f32) = (TensorType::Q4_K, TensorType::Q6_K, TensorType::F32);
    let vocab = 151_936;
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![HIDDEN, vocab], q4),
        ("output_norm.weight".to_owned(), vec![HIDDEN], f32),
        ("output.weight".to_owned(), vec![HIDDEN, vocab], q6),
    ];
    for layer in 0..layers {
        for (part, shape, ty) in [
            ("attn_norm", vec![HIDDEN], f32),
            ("attn_q", vec![HIDDEN, 4096], q4),
            ("attn_k", vec![HIDDEN, 512], q4),
            ("attn_v", vec![HIDDEN, 512], q4),
            ("attn_output", vec![4096, HIDDEN], q4),
            ("attn_q_norm", vec![128], f32),
            ("attn_k_norm", vec![128], f32),
            ("ffn_norm", vec![HIDDEN], f32),
            ("ffn_gate_inp", vec![HIDDEN, EXPERTS], f32),
            ("ffn_gate_exps", vec![HIDDEN, FFN, EXPERTS], q4),
            ("ffn_up_exps", vec![HIDDEN, FFN, EXPERTS], q4),
            ("ffn_down_exps", vec![FFN, HIDDEN, EXPERTS], q4),
        ] {
            tensors.push((format!("blk.{layer}.{part}.weight"), shape, ty));
        }
    }
    let numbers = [
        ("block_count", layers),
        ("context_length", 40_960),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", 6144),
        ("attention.head_count", 32),
        ("attention.head_count_kv", 4),
        ("attention.key_length", 128),
        ("attention.value_length", 128),
        ("expert_count", EXPERTS),
        ("expert_used_count", USED),
        ("expert_feed_forward_length", FFN),
    ];
    ModelLayout::new(&header("qwen3moe", &numbers, &tensors)).unwrap()
}

/// Bytes of one expert of a layer.
fn expert_bytes() -> u64 {
    3 * FFN * TensorType::Q4_K.row_bytes(HIDDEN as usize) as u64
}

#[test]
fn a_forward_reads_the_experts_that_its_rows_are_expected_to_choose() {
    let layout = qwen3_30b_a3b(2);
    let dense = layout.stage_bytes(1..2) - layout.stage_bytes_read(1..2, 1);
    assert_eq!(dense, (EXPERTS - USED) * expert_bytes(), "one row reads all but these");
    let cost = layout.layer_cost(0);
    let shared = cost.bytes_read(1) - USED * expert_bytes();
    let experts = |rows| {
        let read = cost.bytes_read(rows) - shared;
        (read as f64 / expert_bytes() as f64).round() as u64
    };
    assert_eq!([1, 4, 8, 16, 64].map(experts), [8, 29, 52, 82, 126]);
    // Multiplications are those of the chosen experts, for every row.
    let row = cost.macs(1);
    assert_eq!(row, HIDDEN * (2 * 4096 + 2 * 512 + EXPERTS) + USED * 3 * HIDDEN * FFN);
    assert_eq!([4, 64].map(|rows| cost.macs(rows)), [4 * row, 64 * row]);
}

#[test]
fn a_stage_reads_what_its_layers_and_its_head_read() {
    let layout = qwen3_30b_a3b(4);
    let layer = |rows| layout.layer_cost(1).bytes_read(rows);
    for rows in [1, 3, 4, 8, 32, 256] {
        assert_eq!(layout.stage_bytes_read(1..3, rows), 2 * layer(rows), "{rows} rows");
    }
    let head = layout.stage_bytes_read(3..4, 8) - layer(8);
    assert_eq!(head, layout.stage_bytes(3..4) - layout.stage_bytes(2..3), "the head is read once");
    assert_eq!(layout.stage_prefill_bytes_read(3..4, 8), layer(8), "and not for a prompt");
}

/// Two workers of which the first reads twice as fast and multiplies as fast as the second.
fn one_reads_faster() -> [Member; 2] {
    let of =
        |machine, read| Member { macs_per_s: 400_000_000_000, ..member(machine, 64 * GIB, read) };
    [of(0, 40_000_000_000), of(1, 20_000_000_000)]
}

#[test]
fn many_rows_of_a_mixture_wait_for_its_experts_and_prompts_multiply() {
    let layout = qwen3_30b_a3b(48);
    let even = by_hand(&layout, &one_reads_faster(), &[24, 24]).slowness;
    let by_reading = by_hand(&layout, &one_reads_faster(), &[32, 16]).slowness;
    // Of 32 rows a layer reads 112 of 128 experts, and multiplies two rows with each.
    assert!((1_450_000..1_600_000).contains(&even.many_rows), "{even:?}");
    assert!(by_reading.many_rows < 1_100_000, "{by_reading:?}");
    // Of 256 rows each expert has 16: they multiply longer than they read.
    assert_eq!(even.prefill, 1_000_000);
    assert_eq!(by_reading.prefill, 1_333_333);
    // Workers that multiply as fast as they read are as they were.
    let equal = by_hand(&layout, &equal(2), &[24, 24]).slowness;
    assert_eq!(equal.prefill, 1_000_000);
}
