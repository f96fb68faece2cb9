//! Many requests at a time: what they share and what they take from each other changes no answer.

use super::model_id;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::fixtures;

/// A completion of made-up tokens that does not end before `max_tokens`.
pub(super) fn request(model: &str, prompt: Vec<u32>, max_tokens: u32) -> Value {
    json!({
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": true,
        "logprobs": 2,
    })
}

/// Tokens that differ with `seed`.
fn tokens(seed: usize, count: usize) -> Vec<u32> {
    let token = |at: usize| u32::try_from(300 + (seed * 7919 + at * 104_729) % 3000).unwrap();
    (0..count).map(token).collect()
}

/// What an answer must have in common with every other answer to the same request.
fn answer(cluster: &Cluster, body: &Value) -> Value {
    cluster.post("/v1/completions", body)["choices"].clone()
}

/// One after the other.
fn alone(cluster: &Cluster, bodies: &[Value]) -> Vec<Value> {
    bodies.iter().map(|body| answer(cluster, body)).collect()
}

/// All at once.
fn together(cluster: &Cluster, bodies: &[Value]) -> Vec<Value> {
    thread::scope(|scope| {
        let running: Vec<_> =
            bodies.iter().map(|body| scope.spawn(move || answer(cluster, body))).collect();
        running.into_iter().map(|thread| thread.join().expect("a request succeeds")).collect()
    })
}

fn assert_same(found: &[Value], expected: &[Value], what: &str, cluster: &Cluster) {
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found, expected, "{what}: request {index}\n{}", cluster.logs());
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn requests_for_four_times_the_memory_end_as_if_alone() {
    // Room for 16 sequences of full length, which is what each of the 64 becomes.
    let flags = ["--ctx-size", "128", "--prefix-cache", "off"];
    let cluster = Setup::of_two(fixtures::granite_tiny()).coordinator_flags(&flags).start();
    assert_eq!(cluster.get("/health")["kv_tokens"], 16 * 128);
    let model = model_id(&cluster);
    let bodies: Vec<Value> = (0..64).map(|seed| request(&model, tokens(seed, 20), 107)).collect();
    let expected = alone(&cluster, &bodies);
    assert_same(&together(&cluster, &bodies), &expected, "64 at a time", &cluster);
    let health = cluster.get("/health");
    assert!(health["preemptions"].as_u64().unwrap() > 0, "memory was never short: {health}");
    assert_eq!(health["kv_blocks_free"], health["kv_blocks"]);
}

/// Greedy, drawn and scored requests, most of which begin like others.
fn mixed(model: &str) -> Vec<Value> {
    let body = |index: usize| {
        let mut prompt = tokens(index % 3, [40, 70, 33][index % 3]);
        prompt.extend(tokens(100 + index, index % 9));
        let mut body = request(model, prompt, 6);
        match index % 4 {
            0 => {}
            1 => body["seed"] = json!(index),
            2 => {
                body["seed"] = json!(index);
                body["repetition_penalty"] = json!(1.2);
                body["top_p"] = json!(0.9);
            }
            _ => {
                body["echo"] = json!(true);
                body["max_tokens"] = json!(if index % 8 == 3 { 0 } else { 2 });
            }
        }
        if index % 4 == 1 || index % 4 == 2 {
            body["temperature"] = json!(0.8);
        }
        body
    };
    (0..32).map(body).collect()
}

/// Alone and all together, without a cache, with a cold one and a warm one: one value.
fn compare(path: &Path, cache_type: &str) -> Vec<Value> {
    let start = |more: &[&str]| {
        let flags = ["--cache-type", cache_type, "--ctx-size", "256"];
        let cluster = Setup::new(path).coordinator_flags(&flags).coordinator_flags(more).start();
        assert_eq!(cluster.get("/health")["kv_type"], cache_type);
        cluster
    };
    let without = start(&["--prefix-cache", "off", "--local-workers", "1"]);
    let bodies = mixed(&model_id(&without));
    let expected = alone(&without, &bodies);
    assert_same(&together(&without, &bodies), &expected, "no cache, together", &without);
    drop(without);
    let cluster = start(&["--local-workers", "2"]);
    assert_same(&together(&cluster, &bodies), &expected, "cold, together", &cluster);
    assert_same(&together(&cluster, &bodies), &expected, "warm, together", &cluster);
    assert_same(&alone(&cluster, &bodies), &expected, "warm, alone", &cluster);
    // Without the scored ones, every answer of a warm cache comes from it in part.
    let usage = cluster.post("/v1/completions", &bodies[0])["usage"].clone();
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 32, "{usage}");
    let usage = cluster.post("/v1/completions", &bodies[3])["usage"].clone();
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0, "{usage}");
    expected
}

#[test]
fn mixed_requests_get_the_same_whatever_is_cached_and_who_is_beside_them() {
    let halves = compare(fixtures::smollm2(), "f16");
    let bytes = compare(fixtures::smollm2(), "q8_0");
    assert_ne!(halves, bytes, "the type of the cache is honoured");
}

#[test]
fn a_long_common_prefix_is_computed_once() {
    let flags = ["--block-size", "64"];
    let cluster = Setup::of_two(fixtures::granite_tiny()).coordinator_flags(&flags).start();
    let model = model_id(&cluster);
    let ask = |end: usize| {
        let mut prompt = tokens(1, 1000);
        prompt.extend(tokens(end, 20));
        let mut body = request(&model, prompt, 3);
        body["stream_options"] = json!({ "include_usage": true });
        let events = cluster.stream("/v1/completions", &body);
        let last = events.map(Result::unwrap).filter(|event| event != "[DONE]").last().unwrap();
        let last: Value = serde_json::from_str(&last).unwrap();
        last["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    // 15 blocks of 64 tokens are full.
    assert_eq!([ask(2), ask(3), ask(2)], [0, 960, 960]);
}

#[test]
fn keys_are_asked_for_and_limited() {
    let flags = ["--api-key", "sk-one,sk-two", "--key-concurrency", "1"];
    let cluster = Setup::of_two(fixtures::granite_tiny()).coordinator_flags(&flags).start();
    let model = fixtures::granite_tiny().file_stem().unwrap().to_str().unwrap();
    let mut body = request(model, tokens(1, 40), 3000);
    let (status, refused) = cluster.try_post("/v1/completions", &body);
    assert_eq!((status, &refused["error"]["code"]), (401, &json!("invalid_api_key")));
    let post = |key: &str, body: &Value| cluster.post_with_key("/v1/completions", key, body);
    assert_eq!(post("sk-three", &body).0, 401);
    body["stream"] = json!(true);
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (status, answer) = post("sk-one", &body);
                match status {
                    200 => assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}"),
                    _ => {
                        assert!(status == 429 && answer.contains("key_concurrency"), "{answer}");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(refused.into_inner(), 1, "{}", cluster.logs());
    // A prefix of one key is not found by another.
    body["stream"] = json!(false);
    body["max_tokens"] = json!(1);
    let cached = |key: &str| {
        let answer: Value = serde_json::from_str(&post(key, &body).1).unwrap();
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64()
    };
    assert_eq!(
        [cached("sk-one"), cached("sk-two"), cached("sk-two")],
        [Some(32), Some(0), Some(32)]
    );
}

#[test]
fn a_request_that_takes_too_long_ends_with_an_error() {
    let flags = ["--request-timeout", "1s", "--ctx-size", "0"];
    let cluster = Setup::of_two(fixtures::smollm2()).coordinator_flags(&flags).start();
    let body = request(&model_id(&cluster), tokens(1, 40), 4000);
    let (status, answer) = cluster.try_post("/v1/completions", &body);
    assert_eq!((status, &answer["error"]["code"]), (504, &json!("request_timeout")), "{answer}");
    let events: Vec<String> =
        cluster.stream("/v1/completions", &body).collect::<Result<_, _>>().unwrap();
    assert!(events.len() > 3, "tokens came before");
    assert!(events[events.len() - 2].contains("request_timeout"), "{events:?}");
    cluster.wait_for_health(std::time::Duration::from_secs(20), "blocks come back", |health| {
        health["requests_running"] == 0 && health["kv_blocks_free"] == health["kv_blocks"]
    });
}
