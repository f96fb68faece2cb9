//! Files of machines with and without mistakes, and answers that can be checked.

use super::machines::Machines;
use super::report::Report;
use super::{answer, lines, read, read_text};
use crate::cluster::PlacementConfig;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use woolly_engine::gguf::Gguf;
use woolly_engine::gguf::Value;
use woolly_engine::gguf::write::GgufWriter;
use woolly_engine::plan::{KvType, ModelLayout, Objective};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Eight layers.
fn granite() -> Arc<ModelLayout> {
    let gguf = Gguf::open(&repository("tests/fixtures/models/granite-tiny.gguf")).unwrap();
    Arc::new(ModelLayout::new(&gguf).unwrap())
}

/// A model with as many layers, each like the first of a small one.
fn deep(layers: u32) -> Arc<ModelLayout> {
    let path = repository("tests/fixtures/models/tiny-llama3.gguf");
    let first: Vec<_> = Gguf::open(&path).unwrap().tensors().to_vec();
    let mut writer = GgufWriter::copy_of(&path).unwrap();
    for tensor in first.iter().filter(|tensor| tensor.name.starts_with("blk.")) {
        writer = writer.without_tensor(&tensor.name);
    }
    writer = writer.set("llama.block_count", Value::U32(layers));
    let of_first: Vec<_> =
        first.iter().filter_map(|t| Some((t, t.name.strip_prefix("blk.0.")?))).collect();
    for layer in 0..layers {
        for (tensor, name) in &of_first {
            let bytes = vec![0; tensor.len as usize];
            writer = writer.tensor(format!("blk.{layer}.{name}"), tensor.ty, &tensor.shape, bytes);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep.gguf");
    writer.write(&path).unwrap();
    Arc::new(ModelLayout::new(&Gguf::open(&path).unwrap()).unwrap())
}

fn config(layout: Arc<ModelLayout>, machines: &Machines) -> PlacementConfig {
    PlacementConfig {
        name: layout.name.clone(),
        ctx_size: layout.ctx_train.min(8192),
        layout,
        parts: Vec::new(),
        workers_wanted: machines.list.len() as u32,
        objective: Objective::Balanced,
        cut: None,
        rows_max: 256,
        kv_type: KvType::F16,
        extent_len: 32,
        contexts_max: 16,
        kv_memory: None,
        must_fit: false,
    }
}

/// What is said of some machines with `text` for the file.
fn of(layout: &Arc<ModelLayout>, text: &str) -> Report {
    let machines = read_text(text, "file").unwrap();
    let report = answer(&machines, &config(Arc::clone(layout), &machines)).unwrap();
    for line in lines(&report) {
        assert!(line.chars().count() <= 120, "{line}");
        assert!(!line.contains("NaN") && !line.contains("inf"), "{line}");
    }
    report
}

/// So many machines of a kind.
fn machines(name: &str, count: usize, memory: &str) -> String {
    format!(
        "[[machine]]\nname = '{name}'\ncount = {count}\nmemory = '{memory}'\nthreads = 8\n\
         read = '40GB/s'\nmultiply = '500G/s'\n"
    )
}

#[test]
fn a_machine_is_read_with_all_its_keys() {
    let text = "[link]\nround-trip = '2ms'\n\
                [[machine]]\nname = 'a'\nmemory = '10GiB'\nmay-use = '4GiB'\nkv-memory = 1048576\nthreads = 2\n\
                read = '40GB/s'\nread-1 = '15GB/s'\nmultiply = '500G/s'\n\
                [[machine]]\nname = 'b'\ncount = 3\nmemory = '10GiB'\nthreads = 8\nread = '40GB/s'\n\
                read-1 = '15GB/s'\nmultiply = '500G/s'\n\
                [[between]]\nmachines = ['a', 'b']\nbandwidth = '10Gbit/s'\n\
                [[between]]\nmachines = ['b-2', 'any']\nround-trip = '7ms'\n\
                [[between]]\nmachines = ['coordinator', 'a']\nround-trip = '1us'\n";
    let machines = read_text(text, "file").unwrap();
    let names: Vec<&str> = machines.list.iter().map(|machine| &machine.name[..]).collect();
    assert_eq!(names, ["a", "b-1", "b-2", "b-3"]);
    let (a, b) = (&machines.list[0], &machines.list[1]);
    assert_eq!((a.allowance_bytes(), a.kv_memory_bytes), (4 << 30, 1 << 20));
    assert_eq!(b.allowance_bytes(), (10 << 30) / 100 * 80);
    assert_eq!(a.worker_read_bytes_per_s(), 30_000_000_000, "two threads read no more");
    assert_eq!(b.worker_read_bytes_per_s(), 40_000_000_000, "the memory gives no more");
    let wire = |a, b| {
        let wire = machines.wire(a, b);
        (wire.round_trip.as_micros(), wire.bytes_per_s)
    };
    assert_eq!(
        wire(Some(1), Some(3)),
        (2_000, 125_000_000),
        "as [link] says, which leaves one out"
    );
    assert_eq!(wire(Some(0), Some(3)), (2_000, 1_250_000_000));
    assert_eq!(wire(Some(1), Some(0)), (2_000, 1_250_000_000), "both ways");
    assert_eq!(wire(Some(2), Some(0)), (7_000, 125_000_000), "the last one counts");
    assert_eq!(wire(None, Some(2)), (7_000, 125_000_000));
    assert_eq!(wire(None, Some(0)), (1, 125_000_000));
    assert_eq!(wire(None, Some(1)), (2_000, 125_000_000));
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = "[[machine]]\nname = 'a'\nmemory = '10'\nthreads = 0\nread = '40'\nmultiply = 'much'\n\
                [[machine]]\nname = 'a'\nmemmory = '10GiB'\nthreads = 2\nread = '40GB/s'\nread-1 = '50GB/s'\n\
                multiply = '5G/s'\n\
                [[machine]]\nname = 'any'\n\
                [link]\nrtt = '1ms'\n\
                [[between]]\nmachines = ['a', 'c']\nround-trip = 'soon'\n\
                [[between]]\nmachines = 'a'\nbandwidth = '1Gbit/s'\n\
                [other]\n";
    let mistakes = read_text(text, "file").unwrap_err();
    let expected = [
        ("file:4:1", "threads"),
        ("file:5:1", "read: expected bytes or bits per second"),
        ("file:6:1", "multiply: expected a number per second"),
        ("file:9:1", "did you mean memory?"),
        ("file:7:1", "needs the key memory"),
        ("file:7:1", "read-1"),
        ("file:7:1", "given twice"),
        ("file:15:1", "any"),
        ("file:14:1", "needs the key threads"),
        ("file:17:1", "rtt"),
        ("file:16:", "needs round-trip or bandwidth"),
        ("file:20:1", "round-trip"),
        ("file:19:1", "no machine c"),
        ("file:22:1", "two names"),
        ("file:24:", "other"),
    ];
    for (place, why) in expected {
        let found = mistakes.iter().any(|text| text.starts_with(place) && text.contains(why));
        assert!(found, "{place} {why} in {mistakes:#?}");
    }
    for text in ["", "machine = 3", "[[machine]\n", "[machine]\nname = 'a'", "link = 3\n"] {
        let mistakes = read_text(text, "file").unwrap_err();
        assert!(!mistakes.is_empty() && mistakes[0].starts_with("file:"), "{text:?} {mistakes:?}");
    }
    let many = read_text(&machines("a", 1024, "1GiB").replace("count", "[[machine]]\ncount"), "f");
    assert!(many.is_err());
    let too_many = machines("a", 1000, "1GiB") + &machines("b", 1000, "1GiB");
    let mistakes = read_text(&too_many, "file").unwrap_err();
    assert!(mistakes[0].contains("1024 machines"), "{mistakes:?}");
    assert!(
        read(Path::new("/nowhere/at/all.toml")).unwrap_err()[0].contains("/nowhere/at/all.toml")
    );
}

#[test]
fn the_file_to_start_from_has_ten_machines_that_hold_a_model() {
    let machines = read(&repository("deploy/machines.toml")).unwrap();
    assert_eq!(machines.list.len(), 10);
    let layout = deep(40);
    let report = answer(&machines, &config(layout, &machines)).unwrap();
    let plan = report.plan.expect("it fits");
    assert_eq!((plan.stages.len(), report.losses.len()), (10, 10));
    assert!(report.losses.iter().all(|loss| loss.plan.is_some()));
}

#[test]
fn equal_machines_get_equal_layers_and_a_loss_leaves_the_others() {
    let layout = granite();
    let report = of(&layout, &machines("desk", 4, "1GiB"));
    let plan = report.plan.unwrap();
    assert_eq!((plan.stages.len(), plan.stages[3].layer_last), (4, 7));
    assert!(plan.stages.iter().all(|stage| stage.layer_last - stage.layer_first <= 2));
    assert!(plan.stages.iter().all(|stage| stage.left_bytes > 0 && stage.kv_bytes > 0));
    let weights: u64 = plan.stages.iter().map(|stage| stage.weights_bytes).sum();
    assert!(weights >= layout.stage_bytes(0..8));
    assert_eq!(report.losses.len(), 4);
    for loss in &report.losses {
        let then = loss.plan.as_ref().unwrap();
        assert_eq!(then.stages.len(), 3);
        assert!(then.stages.iter().all(|stage| stage.machine != loss.machine));
    }
    assert!(report.spares.is_empty());
    // One machine spends nothing on links.
    let fewer: Vec<(u32, &str, u32)> =
        report.fewer.iter().map(|fewer| (fewer.machines, fewer.what, fewer.of)).collect();
    assert!(fewer.contains(&(1, "decode", 1)), "{fewer:?}");
}

#[test]
fn what_does_not_fit_is_said_with_the_bytes_that_are_missing() {
    let layout = granite();
    let report = of(&layout, &machines("desk", 2, "2MiB"));
    assert!(report.plan.is_none() && report.losses.is_empty());
    let refused = report.refused.as_ref().unwrap();
    assert!(refused.missing_bytes.unwrap() > 0 && refused.text.contains("misses"), "{refused:?}");
    assert!(refused.needed_bytes.unwrap() > refused.usable_bytes.unwrap());
    assert!(lines(&report).iter().any(|line| line == "No plan is possible."));
    // Two hold it, one does not.
    let whole = layout.stage_bytes(0..8) / 10 * 9;
    let report = of(&layout, &machines("desk", 2, &(whole * 100 / 80).to_string()));
    if report.plan.is_some() {
        for loss in &report.losses {
            assert!(
                loss.plan.is_none() && loss.refused.as_ref().unwrap().missing_bytes.unwrap() > 0
            );
        }
    }
    let report = of(&layout, &machines("desk", 1, "8GiB"));
    assert!(report.losses[0].plan.is_none(), "nobody is left");
    assert!(report.losses[0].refused.as_ref().unwrap().missing_bytes.unwrap() > 0);
}

#[test]
fn spares_say_why_they_are_and_take_the_place_of_what_is_lost() {
    let layout = granite();
    let text = machines("desk", 3, "1GiB") + &machines("tiny", 1, "1MiB");
    let report = of(&layout, &text);
    assert_eq!(report.plan.as_ref().unwrap().stages.len(), 3);
    let [spare] = &report.spares[..] else { panic!("{:?}", report.spares) };
    assert!(spare.machine == "tiny" && spare.why.contains("one layer takes"), "{spare:?}");

    let report = of(&layout, &machines("desk", 10, "1GiB"));
    let plan = report.plan.unwrap();
    assert_eq!((plan.stages.len(), report.spares.len()), (8, 2));
    assert!(
        report.spares.iter().all(|spare| spare.why.contains("8 layers")),
        "{:?}",
        report.spares
    );
    for loss in &report.losses {
        assert_eq!(loss.plan.as_ref().unwrap().stages.len(), 8, "a spare takes its place");
    }

    let machines = read_text(&machines("desk", 4, "1GiB"), "file").unwrap();
    let two = PlacementConfig { workers_wanted: 2, ..config(layout, &machines) };
    let report = answer(&machines, &two).unwrap();
    assert_eq!((report.plan.unwrap().stages.len(), report.spares.len()), (2, 2));
    assert!(report.spares[0].why.contains("first 2"), "{:?}", report.spares);
}

#[test]
fn the_link_that_limits_is_named() {
    let text = machines("desk", 2, "1GiB")
        + "[[between]]\nmachines = ['desk-1', 'desk-2']\nbandwidth = '10kB/s'\n";
    let report = of(&granite(), &text);
    let plan = report.plan.unwrap();
    let many = &plan.prediction.decode[2];
    assert_eq!((many.limit, &many.slowest_link.from[..]), ("link", "desk-1"));
    assert_eq!(many.slowest_link.to, "desk-2");
}

#[test]
fn more_streams_than_the_cache_holds_run_in_turn() {
    let text = machines("desk", 1, "1GiB").replace("threads", "kv-memory = '1MiB'\nthreads");
    let report = of(&granite(), &text);
    if let Some(plan) = report.plan {
        let most = plan.prediction.decode.last().unwrap();
        assert!(u64::from(most.running * plan.prediction.positions) <= plan.kv_tokens.max(1));
    }
}

#[test]
fn a_thousand_machines_are_planned_in_time() {
    let layout = deep(128);
    let mut text = String::new();
    for (kind, read) in ["30GB/s", "45GB/s", "70GB/s", "100GB/s", "160GB/s"].iter().enumerate() {
        text += &machines(&format!("kind{kind}"), 200, "64GiB").replace("40GB/s", read);
    }
    let started = Instant::now();
    let report = of(&layout, &text);
    let took = started.elapsed();
    println!("1,000 machines and 128 layers took {took:?}");
    assert_eq!(report.plan.unwrap().stages.len(), 64);
    assert_eq!(report.spares.len(), 936);
    assert_eq!(report.losses.iter().map(|loss| loss.stands_for).sum::<usize>(), 64);
    // Without optimisation it takes many times as long.
    let most = if cfg!(debug_assertions) { 60 } else { 1 };
    assert!(took < Duration::from_secs(most), "{took:?}");
}
