//! A stage whose weights stay on the disk until they are needed: the same bits, and only what must be is read in.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use woolly_engine::batch::{Batch, ChunkRef};
use woolly_engine::gguf::Gguf;
use woolly_engine::kv::{BlockTable, KvType};
use woolly_engine::plan::ModelLayout;
use woolly_engine::pool::Pool;
use woolly_engine::stage::{Input, Stage, StageConfig};
use woolly_engine::weights::{Resident, Weights};

/// A committed model: dense, or a mixture; its tensors as they are in memory, or left on the disk where they may be.
fn stage(model: &str, on_disk: bool) -> Stage {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models");
    let gguf = Gguf::open(&folder.join(format!("{model}.gguf"))).expect("the model opens");
    let layout = ModelLayout::new(&gguf).expect("its layout is known");
    let all = 0..layout.layers;
    let slices = layout.stage_slices(all.clone());
    let mut weights = Weights::from_model(&gguf, &slices, &Resident::new()).expect("they map");
    if on_disk {
        let tensors = slices.iter().flat_map(|slice| layout.slice_tensors(*slice));
        let left = tensors.filter(|tensor| layout.may_be_on_disk(tensor.is_of_experts));
        let left: Vec<&str> = left.map(|tensor| tensor.name.as_str()).collect();
        weights.leave_on_disk(|name| left.contains(&name));
    }
    let read_in = weights.populate(&AtomicU64::new(0));
    let mut held = Resident::new();
    held.extend(weights.slices());
    let (whole, disk) = (layout.stage_bytes(all.clone()), layout.stage_disk_bytes(all.clone()));
    assert_eq!(weights.is_on_disk(), on_disk);
    assert_eq!(weights.on_disk().is_some(), on_disk);
    assert_eq!(held.bytes(), if on_disk { whole - disk } else { whole }, "{model}");
    assert!(on_disk == (read_in < whole), "{model}: {read_in} of {whole} are read in");
    let config = StageConfig {
        layers: all,
        ctx_size: 64,
        caches: layout.equal_caches(2),
        rows_max: 16,
        chunks_max: 1,
        kv_type: KvType::F16,
    };
    Stage::load(&gguf, weights, &config, Pool::on_this_thread(2)).expect("it loads")
}

/// The bits of all logits of a prompt of 16 tokens and of 4 tokens after it.
fn logits(mut stage: Stage) -> Vec<u32> {
    let mut bits = Vec::new();
    let tables = vec![BlockTable::whole(&[0, 1]); stage.limits().caches.len()];
    for (position, count) in [(0, 16), (16, 1), (17, 1), (18, 2)] {
        let (token_count, sample_rows) = (count, count);
        let chunks = [ChunkRef { position, token_count, sample_rows, tables: &tables }];
        let batch = Batch::new(&chunks, stage.limits()).expect("a good batch");
        let tokens: Vec<u32> = (position..position + count).map(|at| (at * 37) % 200).collect();
        stage.forward(&batch, Input::Tokens(&tokens), &AtomicU64::new(0)).expect("it computes");
        let mut add = |row: &[f32]| bits.extend(row.iter().map(|value| value.to_bits()));
        stage.logits(&batch, &mut add).expect("it is the last stage");
    }
    bits
}

#[test]
fn what_is_left_on_the_disk_changes_no_bit() {
    for model in ["tiny-qwen3moe", "tiny-qwen2moe", "tiny-gpt-oss", "granite-tiny"] {
        assert!(logits(stage(model, false)) == logits(stage(model, true)), "{model}");
    }
}
