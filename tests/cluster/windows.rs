//! Layers with a window keep few blocks: answers are those of a cache that keeps all, however little room
//! there is, whatever is found of a prefix and whoever is lost.

use super::model_id;
use super::sharing::request;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::fixtures;
use woolly_tests::http::Events;

/// Every second of its four layers sees the last 32 tokens.
const MODEL: &str = "tiny-gpt-oss";
const CTX: &str = "512";

/// Tokens that differ with `seed`.
fn tokens(seed: usize, count: usize) -> Vec<u32> {
    let token = |at: usize| u32::try_from(20 + (seed * 7919 + at * 104_729) % 340).unwrap();
    (0..count).map(token).collect()
}

/// Requests that together need more than twice the blocks that there are.
fn bodies(model: &str) -> Vec<Value> {
    (0..10).map(|seed| request(model, tokens(seed, 40 + 7 * seed), 300)).collect()
}

/// Text, tokens and log-probabilities of a stream.
fn told(events: Events) -> Value {
    let (mut text, mut tokens, mut logprobs) = (String::new(), Vec::new(), Vec::new());
    for event in events {
        let event = event.expect("the stream goes on");
        if event == "[DONE]" {
            break;
        }
        let event: Value = serde_json::from_str(&event).expect("an event is JSON");
        assert!(event["error"].is_null(), "{event}");
        let Some(choice) = event["choices"].get(0) else { continue };
        text += choice["text"].as_str().unwrap_or_default();
        let list = |name: &str| choice["logprobs"][name].as_array().cloned().unwrap_or_default();
        tokens.extend(list("tokens"));
        logprobs.extend(list("token_logprobs"));
    }
    assert_eq!(tokens.len(), 300);
    json!({ "text": text, "tokens": tokens, "logprobs": logprobs })
}

fn begin(cluster: &Cluster, bodies: &[Value]) -> Vec<Events> {
    bodies.iter().map(|body| cluster.stream("/v1/completions", body)).collect()
}

fn end(streams: Vec<Events>) -> Vec<Value> {
    let all = streams.into_iter().map(|stream| thread::spawn(move || told(stream)));
    let all: Vec<_> = all.collect();
    all.into_iter().map(|one| one.join().expect("it ends")).collect()
}

/// Tokens of a prompt that the cache had.
fn cached(cluster: &Cluster, body: &Value) -> Value {
    let usage = cluster.post("/v1/completions", body)["usage"].clone();
    usage["prompt_tokens_details"]["cached_tokens"].clone()
}

#[test]
fn a_tight_cache_with_windows_changes_no_answer() {
    let path = fixtures::committed(MODEL);
    let flags = ["--ctx-size", CTX, "--prefix-cache", "off", "--local-workers", "1"];
    let alone = Setup::new(&path).coordinator_flags(&flags).start();
    let bodies = bodies(&model_id(&alone));
    let expected: Vec<Value> =
        bodies.iter().map(|body| told(alone.stream("/v1/completions", body))).collect();
    drop(alone);

    // 80 blocks of a layer: 49 for all positions and 31 for windows, where 40 and 40 kept all.
    let mut cluster = Setup::of_two(&path)
        .workers(3)
        .cut(&[2, 2])
        .coordinator_flags(&["--ctx-size", CTX])
        .worker_flags(&["--kv-memory", "640KiB"])
        .start_with(2);
    let health = cluster.get("/health");
    assert_eq!((&health["kv_tokens"], &health["kv_blocks"]), (&json!(49 * 32), &json!(80)));
    let said = cluster.coordinator.stderr();
    assert!(said.contains("layers that see the last 32 tokens: 31 blocks of 32"), "{said}");
    assert_eq!(end(begin(&cluster, &bodies)), expected, "together\n{}", cluster.logs());
    let health = cluster.get("/health");
    assert!(health["preemptions"].as_u64().unwrap() > 0, "memory was never short: {health}");
    assert_eq!(health["kv_blocks_free"], health["kv_blocks"], "all came back");

    // A prefix: all of one group, the last block of the other.
    let model = model_id(&cluster);
    let ask = |end: usize| {
        let prompt = [tokens(77, 300), tokens(end, 20)].concat();
        cached(&cluster, &request(&model, prompt, 3))
    };
    assert_eq!([ask(2), ask(3), ask(2)], [json!(0), json!(288), json!(288)]);

    let streams = begin(&cluster, &bodies);
    thread::sleep(Duration::from_millis(400));
    cluster.workers[1].kill();
    assert_eq!(end(streams), expected, "a worker was killed\n{}", cluster.logs());
    cluster.wait_ready();
    assert!(cluster.metric("woolly_failovers_total") >= 1.0, "{}", cluster.logs());
}
