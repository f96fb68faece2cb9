//! A decode step allocates nothing on the heap.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use woolly_engine::batch::{Batch, ChunkRef};
use woolly_engine::gguf::Gguf;
use woolly_engine::kv::{BlockTable, KvType};
use woolly_engine::plan::ModelLayout;
use woolly_engine::pool::Pool;
use woolly_engine::sampler::{RowRequest, SampleParams};
use woolly_engine::stage::{Input, Stage, StageConfig};
use woolly_engine::weights::{Resident, Weights};

const PARAMS: SampleParams<'static> = SampleParams {
    temperature: 0.8,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.05,
    xtc_probability: 0.5,
    xtc_threshold: 0.1,
    repetition_penalty: 1.1,
    frequency_penalty: 0.1,
    presence_penalty: 0.1,
    seed: 1,
    choice: 0,
    position: 0,
    logit_bias: &[(3, 1.0)],
    prompt_counts: &[(5, 1)],
    output_counts: &[(5, 1)],
    mask: None,
};

fn stage(model: &str, threads: usize, on_disk: bool) -> Stage {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models");
    let path = folder.join(model);
    let gguf = Gguf::open(&path).expect("the model opens");
    let layout = ModelLayout::new(&gguf).expect("its layout is known");
    let slices = layout.stage_slices(0..layout.layers);
    let mut weights =
        Weights::from_model(&gguf, &slices, &Resident::new()).expect("its weights map");
    weights.leave_on_disk(|name| on_disk && name.contains("_exps"));
    let config = StageConfig {
        layers: 0..layout.layers,
        ctx_size: 512,
        caches: layout.equal_caches(32),
        rows_max: 64,
        chunks_max: 4,
        kv_type: KvType::F16,
    };
    Stage::load(&gguf, weights, &config, Pool::on_this_thread(threads)).expect("it loads")
}

/// One token for each of two sequences, sampled with every option.
fn step(stage: &mut Stage, position: u32, out: &mut Vec<woolly_engine::sampler::RowResult>) {
    let tables: [Vec<u32>; 2] = [(0..16).collect(), (16..32).collect()];
    let groups = &stage.limits().caches;
    // Where a window has left blocks behind, the table begins later.
    let of_group = |table: &'_ Vec<u32>| -> Vec<(u32, Vec<u32>)> {
        let first = groups.iter().map(|group| group.first_read(position));
        first.map(|first| (first, table[first as usize..].to_vec())).collect()
    };
    let held = tables.each_ref().map(of_group);
    let tables = held.each_ref().map(|held| {
        let tables = held.iter().map(|(first, blocks)| BlockTable { first: *first, blocks });
        tables.collect::<Vec<_>>()
    });
    let chunks = tables.each_ref().map(|tables| ChunkRef {
        position,
        token_count: 1,
        sample_rows: 1,
        tables,
    });
    let progress = AtomicU64::new(0);
    let requests = [RowRequest::Sample { params: &PARAMS, top: 0 }; 2];
    out.clear();
    let counted = allocation_counter::measure(|| {
        let batch = Batch::new(&chunks, stage.limits()).expect("a good batch");
        stage.forward(&batch, Input::Tokens(&[7, 9]), &progress).expect("it computes");
        stage.sample(&batch, &requests, out).expect("it samples");
    });
    assert_eq!(counted.count_total, 0, "position {position} allocates");
}

#[test]
fn a_decode_step_allocates_nothing() {
    // Dense; a mixture with a shared expert, whose experts may be on the disk; two cache groups.
    let models = [
        ("granite-tiny.gguf", false),
        ("tiny-qwen2moe.gguf", false),
        ("tiny-qwen2moe.gguf", true),
        ("tiny-gpt-oss.gguf", false),
    ];
    for ((model, on_disk), threads) in models.map(|m| [(m, 1), (m, 2)]).concat() {
        let run = std::thread::spawn(move || {
            let mut stage = stage(model, threads, on_disk);
            let mut out = Vec::with_capacity(2);
            for position in 0..200 {
                step(&mut stage, position, &mut out);
            }
            assert_eq!(out.len(), 2);
        });
        run.join().expect("no step allocates");
    }
}
