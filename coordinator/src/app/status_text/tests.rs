//! What a terminal shows of a cluster that was made up.

use super::*;
use crate::snapshot::{HeardSnapshot, MeanSnapshot, MemorySnapshot, RecentSnapshot};
use crate::status::Holding;
use serde_json::json;

fn worker(name: &str, state: WorkerState) -> WorkerSnapshot {
    WorkerSnapshot {
        worker: name.to_owned(),
        worker_id: "00".to_owned(),
        machine: "0123456789abcdef".to_owned(),
        address: "10.0.0.1:7500".to_owned(),
        state,
        reason: None,
        backoff_ms: None,
        version: "0.1.0".to_owned(),
        isa: "avx2".to_owned(),
        local: false,
        threads: 4,
        read_bytes_per_s: 10 << 30,
        macs_per_s: 1 << 30,
        memory: None,
        heard: None,
        lost_ms_ago: None,
        clock_ahead_ms: None,
    }
}

fn serving() -> WorkerSnapshot {
    let held = Holding { model: "m".to_owned(), weights: 1 << 20, kv: 2 << 20, scratch: 1 << 20 };
    WorkerSnapshot {
        memory: Some(MemorySnapshot {
            allowance: 4 << 30,
            free: 3 << 30,
            is_own: false,
            kv_memory: None,
            models: vec![held],
        }),
        heard: Some(HeardSnapshot {
            joined_ms_ago: 70_000,
            heartbeat_ms_ago: 230,
            hears_ms_ago: 400,
            rtt_us: Some(345),
        }),
        ..worker("one", WorkerState::Serving)
    }
}

fn lost() -> WorkerSnapshot {
    WorkerSnapshot {
        reason: Some("its process\u{1b}[2J is gone".to_owned()),
        lost_ms_ago: Some(12_345),
        ..worker("two", WorkerState::Lost)
    }
}

fn model() -> ModelSnapshot {
    let mean = MeanSnapshot { compute_us: 2345, cpu_us: 2000, wait_us: 50, wire_us: 7 };
    let recent =
        RecentSnapshot { window_ms: 29_500, forwards: 9, busy_percent: 43, mean: Some(mean) };
    let stage = StageSnapshot {
        worker: "one".to_owned(),
        layer_end: 8,
        weights: 1 << 20,
        kv: 2 << 20,
        loaded_percent: 100,
        recent: Some(recent),
        ..StageSnapshot::default()
    };
    let plan = PlanSnapshot {
        plan: 7,
        reason: "worker two is lost".to_owned(),
        served_ms: Some(61_000),
        stages: vec![stage],
    };
    ModelSnapshot {
        model: "m".to_owned(),
        state: "ready".to_owned(),
        detail: "serving 8 layers in 1 stage".to_owned(),
        objective: Some("latency".to_owned()),
        ctx_size: 8192,
        kv_type: "f16".to_owned(),
        running: 3,
        waiting: 1,
        kv_blocks: Some(4096),
        kv_blocks_free: Some(4000),
        kv_blocks_cached: Some(10),
        plan: Some(plan),
        ..ModelSnapshot::default()
    }
}

fn line<'a>(text: &'a str, begin: &str) -> &'a str {
    let found = text.lines().find(|line| line.trim_start().starts_with(begin));
    found.unwrap_or_else(|| panic!("no line begins with {begin:?} in\n{text}"))
}

/// Words of a line.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_cluster_is_shown_with_its_workers_and_stages() {
    let told = Snapshot {
        at_ms: 100_000,
        version: "0.1.0".to_owned(),
        up_ms: 3_700_000,
        workers: vec![serving(), lost()],
        models: vec![model()],
        ..Snapshot::default()
    };
    let text = status_text(&told);
    assert!(
        text.starts_with("woolly-coordinator 0.1.0, up 1h 1m: 1 worker, 1 lost, 1 model\n"),
        "{text}"
    );
    let one =
        "one serving 10.0.0.1:7500 01234567 4 4 GiB 4 MiB 3 GiB 0.2 s ago 0.34 ms 10 GiB/s 0.1.0";
    assert_eq!(words(line(&text, "one ")), one);
    assert_eq!(
        words(line(&text, "two ")),
        "two lost 10.0.0.1:7500 01234567 4 - - - - - 10 GiB/s 0.1.0"
    );
    assert_eq!(line(&text, "two was"), "two was lost 12s ago: its process [2J is gone");
    assert_eq!(line(&text, "m is"), "m is ready: serving 8 layers in 1 stage");
    assert!(
        line(&text, "3 running").contains("1 waiting") && text.contains("cut for latency"),
        "{text}"
    );
    assert_eq!(line(&text, "96 of"), "  96 of 4,096 KV blocks used, 10 cached");
    assert_eq!(line(&text, "plan 7"), "  plan 7, served for 1m 1s: worker two is lost");
    assert_eq!(words(line(&text, "0 ")), "0 one 0-7 1 MiB 2 MiB 100 % 43 % 2.34 ms 0.05 ms");
    assert!(!text.contains("Last events"), "{text}");
}

#[test]
fn what_is_not_known_is_a_dash() {
    let mut model = model();
    let plan = model.plan.as_mut().unwrap();
    (plan.served_ms, plan.stages[0].recent, plan.stages[0].loaded_percent) = (None, None, 30);
    (model.kv_blocks, model.objective) = (None, None);
    let told = Snapshot { models: vec![model], ..Snapshot::default() };
    let text = status_text(&told);
    assert_eq!(words(line(&text, "0 ")), "0 one 0-7 1 MiB 2 MiB 30 % - - -");
    assert!(text.contains("plan 7, not served yet") && text.contains("cut by hand"), "{text}");
    assert!(!text.contains("KV blocks"), "{text}");
    let backs_off =
        WorkerSnapshot { backoff_ms: Some(4500), ..worker("three", WorkerState::BackingOff) };
    let text = workers_text(&Snapshot { workers: vec![backs_off], ..Snapshot::default() });
    assert!(line(&text, "three ").contains("backing off"), "{text}");
    assert_eq!(text.lines().last(), Some("three is not placed for 4.5 s"));
}

#[test]
fn events_are_told_in_words() {
    for (event, expected) in [
        (json!({"kind": "worker_joined", "worker": "a"}), "a"),
        (json!({"kind": "worker_lost", "worker": "a", "reason": "gone"}), "a: gone"),
        (
            json!({"kind": "plan_made", "model": "m", "plan": 1, "cut": "a 0-7", "reason": "the first plan"}),
            "m: plan 1 (a 0-7): the first plan",
        ),
        (
            json!({
                "kind": "plan_made", "model": "m", "plan": 2, "cut": "b 0-7", "old_plan": 1, "old_cut": "a 0-7",
                "reason": "worker a is lost",
            }),
            "m: plan 2 (b 0-7) instead of 1 (a 0-7): worker a is lost",
        ),
        (
            json!({
                "kind": "failover", "model": "m", "plan": 2, "sequences": 3, "tokens": 400, "search_ms": 300,
                "first_token_ms": 1250,
            }),
            "m: plan 2 was found in 0.3 s, 400 tokens of 3 sequences to replay; the first token came after 1.2 s",
        ),
        (
            json!({"kind": "replayed", "model": "m", "plan": 2, "tokens": 400, "took_ms": 61_000}),
            "m: 400 tokens in 1m 1s",
        ),
        (json!({"kind": "moon_phase", "id": 1, "at_ms": 2, "phase": "full"}), "phase full"),
    ] {
        assert_eq!(event_text(&event), expected);
    }
    let events = vec![json!({"id": 1, "at_ms": 97_000, "kind": "model_ready", "model": "m"})];
    let text = status_text(&Snapshot { at_ms: 100_000, events, ..Snapshot::default() });
    assert_eq!(words(text.lines().last().unwrap()), "3.0 s ago model_ready m");
}
