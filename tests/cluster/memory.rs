//! What a worker maps and allocates: its own tensors, its KV cache, and little else.

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use woolly_engine::gguf::Gguf;
use woolly_engine::plan::{KvType, ModelLayout, scratch_bytes};
use woolly_tests::cluster::{Cluster, READY_LIMIT, Setup};
use woolly_tests::fixtures;
use woolly_tests::memory::{PAGE, anonymous_bytes, mappings, of_file, page_hull};
use woolly_tests::process::{Process, binary};

/// Anonymous memory of a worker beyond its KV cache: code, runtimes, scratch.
const ANONYMOUS_MAX: u64 = 200 << 20;
/// A small KV cache, so that what is not the KV cache shows: pages of it that nothing was written to
/// yet take no memory.
const KV_MEMORY: &str = "16MiB";

/// The layers and KV blocks that `/health` reports for a worker.
fn stage_of(cluster: &Cluster, worker: &str) -> (std::ops::Range<u32>, u64) {
    let health = cluster.get("/health");
    let stages = health["stages"].as_array().expect("stages").clone();
    let stage = stages.iter().find(|stage| stage["worker"] == worker);
    let stage = stage.unwrap_or_else(|| panic!("{worker} has no stage: {health}"));
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let layer = |i: usize| u32::try_from(number(&stage["layers"][i])).expect("32 bits");
    (layer(0)..layer(1), number(&stage["kv_blocks"]))
}

/// The byte ranges of the model file (one part) that hold a stage's tensors.
fn own_ranges(layout: &ModelLayout, layers: std::ops::Range<u32>) -> Vec<(u64, u64)> {
    let slices = layout.stage_slices(layers);
    let tensors = slices.iter().flat_map(|slice| layout.slice_tensors(*slice));
    tensors.map(|tensor| (tensor.source.offset, tensor.source.len)).collect()
}

fn check(model: &Path, fetched: bool) {
    let layout = ModelLayout::new(&Gguf::open(model).unwrap()).unwrap();
    let mut setup = Setup::of_two(model)
        .coordinator_flags(&["--ctx-size", "512"])
        .worker_flags(&["--kv-memory", KV_MEMORY]);
    if fetched {
        setup = setup.worker_flags(&["--no-local-files"]);
    }
    let cluster = setup.start();
    for (index, worker) in cluster.workers.iter().enumerate() {
        let name = format!("worker-{}", index + 1);
        let (layers, kv_blocks) = stage_of(&cluster, &name);
        let maps = mappings(worker.id());
        let of_model = of_file(&maps, &model.canonicalize().unwrap());
        let of_slices = of_file(&maps, &cluster.folder().join(&name).join("slices"));
        let mapped: u64 = of_model.iter().chain(&of_slices).map(|mapping| mapping.size).sum();
        let ranges = own_ranges(&layout, layers.clone());
        let own: u64 = ranges.iter().map(|range| range.1).sum();
        assert!(mapped >= own, "{name} maps {mapped} bytes of its {own}");
        if fetched {
            assert!(
                of_model.is_empty(),
                "{name} fetched its slices and maps the model all the same"
            );
            let slices = layout.stage_slices(layers.clone());
            let whole: u64 =
                slices.iter().map(|s| layout.slice_len(*s).div_ceil(PAGE) * PAGE).sum();
            assert!(mapped <= whole, "{name} maps {mapped} bytes, its slices have {whole}");
        } else {
            assert!(of_slices.is_empty(), "{name} maps slices beside the model");
            let hull = page_hull(&ranges);
            assert!(mapped <= hull, "{name} maps {mapped} bytes, its tensors lie on {hull}");
            let pages = of_model.len() as u64 + 1;
            println!("{name}: {mapped} bytes mapped, {own} own, {} ranges", of_model.len());
            assert!(mapped <= own + 2 * PAGE * pages, "{name} maps {mapped} bytes for {own}");
        }
        let layer_count = layers.end - layers.start;
        let kv = kv_blocks * layout.kv_block_bytes(0..layer_count, KvType::F16);
        assert!(kv <= 16 << 20, "{name} was told to use {KV_MEMORY} for its KV cache, uses {kv}");
        let anonymous = anonymous_bytes(&maps);
        println!("{name}: {} MiB anonymous, KV cache {} MiB", anonymous >> 20, kv >> 20);
        assert!(anonymous <= kv + ANONYMOUS_MAX, "{name}: {anonymous} bytes, KV cache {kv}");
    }
}

#[test]
fn a_worker_maps_its_own_tensors_of_the_file() {
    check(fixtures::smollm2(), false);
    check(fixtures::granite_tiny(), false);
}

#[test]
fn a_worker_maps_only_the_slices_that_it_fetched() {
    check(fixtures::smollm2(), true);
}

#[test]
fn a_worker_says_how_much_is_in_huge_pages() {
    for how in ["auto", "force", "off"] {
        let cluster =
            Setup::of_two(fixtures::smollm2()).worker_flags(&["--huge-pages", how]).start();
        for worker in &cluster.workers {
            let log = worker.stderr();
            let ready = log.lines().find(|line| line.contains("of it in huge pages"));
            let ready = ready.unwrap_or_else(|| panic!("{}", cluster.logs()));
            assert!(how != "off" || ready.contains(" 0 B of it in huge"), "{ready}");
        }
    }
}

/// A worker that may lock 64 KiB and no more, whoever runs the tests: root could lock anything.
fn limited_worker(cluster: &mut Cluster) -> Process {
    let words = cluster.join_words();
    let script = "ulimit -l 64 || exit 99; if [ \"$(id -u)\" = 0 ]; then \
                  exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock -- \"$@\"; \
                  else exec \"$@\"; fi";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(binary("woolly-worker")).args(&words[..2]);
    command.args(["--mlock", "--state-dir"]).arg(cluster.folder().join("limited"));
    Process::start_with_token("limited", &mut command, &words[3], cluster.folder())
}

#[test]
fn weights_that_cannot_be_locked_are_refused_before_ready() {
    let mut cluster = Setup::new(fixtures::granite_tiny()).workers(1).start_coordinator();
    let mut worker = limited_worker(&mut cluster);
    let log = worker.wait_for_stderr("--mlock: ", READY_LIMIT);
    let line = log.lines().find(|line| line.contains("--mlock: ")).expect("it was waited for");
    for part in ["RLIMIT_MEMLOCK is 64 KiB", "ulimit -l ", "LimitMEMLOCK="] {
        assert!(line.contains(part), "{part} is missing in: {line}");
    }
    assert!(!log.contains("ready after"), "{log}");
    cluster.wait_for_readyz(503);
}

/// What the model says, with the log-probabilities of its tokens.
fn answer(cluster: &Cluster) -> Value {
    let body = json!({
        "prompt": "a tale of", "max_tokens": 24, "temperature": 0, "logprobs": 2, "seed": 1
    });
    cluster.post("/v1/completions", &body)["choices"].clone()
}

#[test]
fn a_model_that_does_not_fit_is_refused_or_read_from_the_disk_with_the_same_tokens() {
    let model = fixtures::committed("tiny-qwen3moe");
    let layout = ModelLayout::new(&Gguf::open(&model).unwrap()).unwrap();
    let all = || 0..layout.layers;
    let kv = layout.kv_block_bytes(all(), KvType::F16) * 4;
    let needs = layout.stage_bytes(all()) + scratch_bytes(&layout, &all(), 256) + kv;
    let memory = (needs - layout.stage_disk_bytes(all()) / 4).to_string();
    let setup = || Setup::new(&model).workers(1).coordinator_flags(&["--ctx-size", "128"]);
    let tight = || setup().worker_flags(&["--memory", &memory]);

    let mut refused = tight().start_coordinator();
    refused.add_worker();
    let log = refused.coordinator.wait_for_stderr("no plan is possible", READY_LIMIT);
    let line = log.lines().find(|line| line.contains("no plan is possible")).expect("waited for");
    for part in ["stage 0 (layers 0 to", "misses ", "for its weights", "--weights-from-disk"] {
        assert!(line.contains(part), "{part} is missing in: {line}");
    }
    drop(refused);

    let expected = answer(&setup().start());
    let cluster = tight().worker_flags(&["--weights-from-disk"]).start();
    assert_eq!(answer(&cluster), expected);
    let log = cluster.workers[0].stderr();
    let line = log.lines().find(|line| line.contains("weights are read from the disk"));
    let line = line.unwrap_or_else(|| panic!("{}", cluster.logs()));
    for part in ["of experts do not fit the", "a token reads about", "tokens per second"] {
        assert!(line.contains(part), "{part} is missing in: {line}");
    }
    assert!(cluster.logs().contains("stay on its disk"), "{}", cluster.logs());
}
