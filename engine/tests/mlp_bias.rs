//! Biases of the feed-forward network, which some llama files have (Granite-Code, Bielik).

use std::path::Path;
use woolly_engine::batch::{Batch, ChunkRef};
use woolly_engine::gguf::write::GgufWriter;
use woolly_engine::gguf::{Array, Gguf, Value};
use woolly_engine::kernels::Level;
use woolly_engine::kv::{BlockTable, KvType};
use woolly_engine::plan::ModelLayout;
use woolly_engine::pool::Pool;
use woolly_engine::quant::TensorType;
use woolly_engine::stage::{Input, Stage, StageConfig};
use woolly_engine::weights::{Resident, Weights};

const HIDDEN: usize = 64;
const FFN: usize = 96;
const VOCAB: usize = 64;

/// Small numbers that differ.
fn value(seed: usize) -> f32 {
    ((seed * 37 + 11) % 101) as f32 / 50.0 - 1.0
}

fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// A model of one layer whose attention adds nothing. Its gate and up matrices are zero, so that their
/// outputs are their biases; row `i` of the down matrix takes value `i`, and row `i` of the output
/// matrix takes hidden value `i`.
fn model(biases: Option<[Vec<f32>; 3]>) -> GgufWriter {
    let tokens = (0..VOCAB).map(|i| format!("t{i}")).collect();
    let mut writer = GgufWriter::new()
        .kv("general.architecture", Value::String("llama".to_owned()))
        .kv("llama.block_count", Value::U32(1))
        .kv("llama.context_length", Value::U32(64))
        .kv("llama.embedding_length", Value::U32(HIDDEN as u32))
        .kv("llama.feed_forward_length", Value::U32(FFN as u32))
        .kv("llama.attention.head_count", Value::U32(4))
        .kv("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-6))
        .kv("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)));
    let unit = |rows: usize, columns: usize| {
        f32s((0..rows * columns).map(|at| f32::from(u8::from(at / columns == at % columns))))
    };
    let zeros = |count: usize| f32s((0..count).map(|_| 0.0));
    let ones = |count: usize| f32s((0..count).map(|_| 1.0));
    let (hidden, ffn) = (HIDDEN as u64, FFN as u64);
    let square = zeros(HIDDEN * HIDDEN);
    for (name, shape, bytes) in [
        ("token_embd.weight", vec![hidden, VOCAB as u64], f32s((0..HIDDEN * VOCAB).map(value))),
        ("blk.0.attn_norm.weight", vec![hidden], ones(HIDDEN)),
        ("blk.0.attn_q.weight", vec![hidden, hidden], square.clone()),
        ("blk.0.attn_k.weight", vec![hidden, hidden], square.clone()),
        ("blk.0.attn_v.weight", vec![hidden, hidden], square.clone()),
        ("blk.0.attn_output.weight", vec![hidden, hidden], square),
        ("blk.0.ffn_norm.weight", vec![hidden], ones(HIDDEN)),
        ("blk.0.ffn_gate.weight", vec![hidden, ffn], zeros(HIDDEN * FFN)),
        ("blk.0.ffn_up.weight", vec![hidden, ffn], zeros(HIDDEN * FFN)),
        ("blk.0.ffn_down.weight", vec![ffn, hidden], unit(HIDDEN, FFN)),
        ("output_norm.weight", vec![hidden], ones(HIDDEN)),
        ("output.weight", vec![hidden, VOCAB as u64], unit(VOCAB, HIDDEN)),
    ] {
        writer = writer.tensor(name, TensorType::F32, &shape, bytes);
    }
    for (name, bias) in
        ["ffn_gate", "ffn_up", "ffn_down"].into_iter().zip(biases.into_iter().flatten())
    {
        let shape = [bias.len() as u64];
        writer = writer.tensor(format!("blk.0.{name}.bias"), TensorType::F32, &shape, f32s(bias));
    }
    writer
}

/// The logits after token `token`.
fn logits(writer: &GgufWriter, token: u32, level: Level) -> Vec<f32> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    writer.write(&path).expect("the model can be written");
    let mut stage = load(&path, level);
    let tables = [BlockTable::whole(&[0])];
    let chunks = [ChunkRef { position: 0, token_count: 1, sample_rows: 1, tables: &tables }];
    let batch = Batch::new(&chunks, stage.limits()).expect("a good batch");
    stage
        .forward(&batch, Input::Tokens(&[token]), &std::sync::atomic::AtomicU64::new(0))
        .expect("it computes");
    let mut out = Vec::new();
    stage.logits(&batch, &mut |row| out.extend_from_slice(row)).expect("it is the last stage");
    out
}

fn load(path: &Path, level: Level) -> Stage {
    let gguf = Gguf::open(path).expect("the model opens");
    let layout = ModelLayout::new(&gguf).expect("the biases are known");
    let weights =
        Weights::from_model(&gguf, &layout.stage_slices(0..1), &Resident::new()).expect("it maps");
    let config = StageConfig {
        layers: 0..1,
        ctx_size: 64,
        caches: layout.equal_caches(2),
        rows_max: 4,
        chunks_max: 1,
        kv_type: KvType::F16,
    };
    Stage::load(&gguf, weights, &config, Pool::with_level(1, level)).expect("it loads")
}

#[test]
fn biases_are_added_to_gate_up_and_down() {
    let gate: Vec<f32> = (0..FFN).map(value).collect();
    let up: Vec<f32> = (0..FFN).map(|i| value(i + 1000)).collect();
    let down: Vec<f32> = (0..HIDDEN).map(|i| value(i + 2000)).collect();
    let token = 5;
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let embedding = |i: usize| f64::from(value(token * HIDDEN + i));
    let x = |i: usize| embedding(i) + silu(gate[i].into()) * f64::from(up[i]) + f64::from(down[i]);
    let mean: f64 = (0..HIDDEN).map(|i| x(i) * x(i)).sum::<f64>() / HIDDEN as f64;
    let biased = model(Some([gate.clone(), up.clone(), down.clone()]));
    let first = logits(&biased, token as u32, Level::best());
    for (i, found) in first.iter().enumerate() {
        let expected = x(i) / (mean + 1e-6).sqrt();
        // f32 rounds each of some ten operations by at most 6e-8 of values below 4.
        assert!((f64::from(*found) - expected).abs() < 4e-6, "{i}: {found}, expected {expected}");
    }
    let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for level in Level::available() {
        assert_eq!(bits(&logits(&biased, token as u32, level)), bits(&first), "{level:?}");
    }
}

#[test]
fn biases_of_zero_change_no_bit() {
    let zeros = Some([vec![0.0; FFN], vec![0.0; FFN], vec![0.0; HIDDEN]]);
    let bits = |model: &GgufWriter| {
        logits(model, 7, Level::best()).iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(bits(&model(zeros)), bits(&model(None)));
}
