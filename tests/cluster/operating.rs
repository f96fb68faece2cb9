//! What an operator sees of a cluster: its workers, plans and events, also when a worker is killed.

use super::chat;
use serde_json::{Value, json};
use std::time::Duration;
use woolly_tests::cluster::{Cluster, READY_LIMIT, Setup};
use woolly_tests::fixtures;
use woolly_tests::http;
use woolly_tests::process::{run, wait_until};

/// Opens the admin API over HTTP.
const KEY: &str = "admin-key-of-the-test";
/// Tokens of the answer that the loss interrupts.
const TOKENS: u32 = 400;

/// What `GET /admin/v1/cluster` answers.
fn told(cluster: &Cluster) -> Value {
    let answer = http::get_with_key(cluster.http, "/admin/v1/cluster", KEY).unwrap();
    assert_eq!(answer.status, 200, "{}", cluster.logs());
    answer.json().unwrap()
}

/// What a command prints about the cluster.
fn shown(cluster: &Cluster, words: &[&str]) -> String {
    let state = cluster.folder().join("coordinator").display().to_string();
    let all = [words, &["--state-dir", &state]].concat();
    let (code, stdout, stderr) = run("woolly-coordinator", &all, cluster.folder());
    assert_eq!(code, Some(0), "{words:?}: {stderr}\n{}", cluster.logs());
    println!("{stdout}");
    stdout
}

/// The worker with this name.
fn worker<'a>(told: &'a Value, name: &str) -> &'a Value {
    let workers = told["workers"].as_array().unwrap();
    workers.iter().find(|worker| worker["worker"] == name).unwrap_or_else(|| panic!("{told:#}"))
}

/// The last `count` events of a stream that begins with the first event of all.
fn events(cluster: &Cluster, last: &str) -> Vec<Value> {
    let answer = http::get_with_key(cluster.http, "/admin/v1/events?after=0", KEY).unwrap();
    let mut found: Vec<Value> = Vec::new();
    for event in answer.events() {
        found.push(serde_json::from_str(&event.unwrap()).unwrap());
        if found.last().is_some_and(|event| event["kind"] == last) {
            break;
        }
    }
    found
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["kind"] == kind).collect()
}

/// Both workers, and the one plan over them.
fn assert_all_is_well(cluster: &Cluster) -> u64 {
    let told = told(cluster);
    for name in ["worker-1", "worker-2"] {
        let worker = worker(&told, name);
        assert_eq!((&worker["state"], &worker["threads"]), (&json!("serving"), &json!(1)));
        let (heard, memory) = (&worker["heard"], &worker["memory"]);
        assert!(heard["heartbeat_ms_ago"].as_u64().is_some_and(|ms| ms < 5_000), "{worker:#}");
        assert!(heard["rtt_us"].as_u64().is_some_and(|us| us > 0), "{worker:#}");
        assert!(memory["models"][0]["weights"].as_u64() > Some(0), "{worker:#}");
        assert!(worker["read_bytes_per_s"].as_u64() > Some(0) && worker.get("reason").is_none());
    }
    let model = &told["models"][0];
    assert_eq!((&model["state"], &model["running"]), (&json!("ready"), &json!(1)));
    assert!(model["kv_blocks_free"].as_u64() < model["kv_blocks"].as_u64(), "{model:#}");
    let stages = model["plan"]["stages"].as_array().unwrap();
    assert_eq!((stages.len(), &stages[0]["worker"]), (2, &json!("worker-1")));
    assert_eq!(stages[0]["layer_end"], stages[1]["layer_first"]);
    model["plan"]["plan"].as_u64().unwrap()
}

#[test]
fn a_killed_worker_is_shown_with_the_plans_before_and_after_and_told_in_order() {
    let setup = Setup::of_two(fixtures::granite_tiny()).coordinator_flags(&["--admin-key", KEY]);
    let mut cluster = setup.start_with(2);
    let mut body = chat(&cluster, "What is a brick?", TOKENS);
    body["ignore_eos"] = json!(true);
    let mut stream = cluster.stream("/v1/chat/completions", &body);
    for _ in 0..9 {
        stream.next().expect("tokens come").unwrap();
    }
    let first_plan = assert_all_is_well(&cluster);
    cluster.workers[1].kill();
    let rest: Vec<String> = stream.map(Result::unwrap).collect();
    assert_eq!(rest.last().map(String::as_str), Some("[DONE]"), "{}", cluster.logs());

    let told = told(&cluster);
    let lost = worker(&told, "worker-2");
    assert_eq!(lost["state"], "lost");
    assert!(lost["reason"].is_string() && lost["lost_ms_ago"].is_u64(), "{lost:#}");
    assert!(lost.get("heard").is_none() && lost.get("memory").is_none(), "{lost:#}");
    assert_eq!(worker(&told, "worker-1")["state"], "serving");
    let (model, plan) = (&told["models"][0], &told["models"][0]["plan"]);
    assert_eq!((&model["failovers"], plan["stages"].as_array().unwrap().len()), (&json!(1), 1));
    assert!(plan["reason"].as_str().unwrap().contains("worker-2 is lost"), "{plan:#}");
    assert!(plan["plan"].as_u64() != Some(first_plan) && plan["served_ms"].is_u64(), "{plan:#}");
    // The times come with the heartbeat after the forwards.
    let forwards = || told_forwards(&cluster).filter(|forwards| *forwards > 0);
    wait_until(READY_LIMIT, forwards, || format!("no forwards\n{}", cluster.logs()));

    let events = events(&cluster, "replayed");
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
    let of_cluster: Vec<&str> =
        kinds.iter().copied().filter(|kind| !kind.starts_with("model_")).collect();
    let expected = [
        "worker_joined",
        "worker_joined",
        "plan_made",
        "plan_serving",
        "worker_lost",
        "plan_lost",
        "plan_made",
        "plan_serving",
        "failover",
        "replayed",
    ];
    assert_eq!(of_cluster, expected, "{events:#?}");
    let made = of_kind(&events, "plan_made");
    assert!(made[0].get("old_plan").is_none(), "{made:#?}");
    assert_eq!((&made[1]["old_plan"], &made[1]["old_cut"]), (&json!(first_plan), &made[0]["cut"]));
    let failover = of_kind(&events, "failover")[0];
    assert_eq!((&failover["plan"], &failover["sequences"]), (&plan["plan"], &json!(1)));
    assert!(failover["tokens"].as_u64() > Some(9) && failover["first_token_ms"].is_u64());
    // The same events stand in the snapshot.
    let last = told["events"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["kind"], &last["id"]), (&json!("replayed"), &json!(events.len())));

    let shown = shown(&cluster, &["status"]);
    for text in ["1 worker, 1 lost, 1 model", "worker-2 was lost", "failover", "instead of"] {
        assert!(shown.contains(text), "{text}:\n{shown}");
    }
    let listed = self::shown(&cluster, &["workers", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((listed.as_array().map(Vec::len), &listed[1]["state"]), (Some(2), &json!("lost")));
}

/// Forwards that the first stage computed lately.
fn told_forwards(cluster: &Cluster) -> Option<u64> {
    std::thread::sleep(Duration::from_millis(50));
    let recent = told(cluster)["models"][0]["plan"]["stages"][0]["recent"].clone();
    let means = &recent["mean"];
    assert!(means.is_null() || means["compute_us"].as_u64() > Some(0), "{recent:#}");
    recent["forwards"].as_u64()
}
