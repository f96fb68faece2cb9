//! Three answers at a time under a grammar: what the grammar wants, and the same whoever computes beside them and whoever is
//! lost.

use super::model_id;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::fixtures;
use woolly_tests::http::Events;

const MODEL: &str = "tiny-qwen3";

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 24},
            "colour": {"enum": ["red", "green", "blue"]},
            "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 999},
                "minItems": 80, "maxItems": 120},
            "nested": {"type": "object", "properties": {"is_it": {"type": "boolean"}},
                "required": ["is_it"], "additionalProperties": false},
        },
        "required": ["name", "colour", "sizes", "nested"],
        "additionalProperties": false,
    })
}

fn body(model: &str, seed: usize) -> Value {
    json!({
        "model": model, "prompt": format!("Object {seed}: "), "max_tokens": 900, "seed": seed, "temperature": 1.0,
        "json_schema": schema(), "logprobs": 2, "n": 3,
    })
}

/// Texts and how they came about, of three answers that have to be what the schema says.
fn told(answer: &Value) -> Value {
    let choices = answer["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 3, "{answer}");
    choices.iter().map(told_of).collect()
}

fn told_of(choice: &Value) -> Value {
    assert_eq!(choice["finish_reason"], "stop", "{choice}");
    let text = choice["text"].as_str().expect("a text");
    let object: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(object.to_string(), text, "nothing between its parts");
    assert_eq!(object.as_object().expect("an object").len(), 4);
    assert!(["red", "green", "blue"].map(Value::from).contains(&object["colour"]));
    assert!((80..=120).contains(&object["sizes"].as_array().expect("an array").len()));
    assert!(object["nested"]["is_it"].is_boolean());
    json!({ "text": text, "logprobs": choice["logprobs"] })
}

fn together(cluster: &Cluster, bodies: &[Value]) -> Vec<Value> {
    thread::scope(|scope| {
        let all: Vec<_> = bodies
            .iter()
            .map(|body| scope.spawn(|| told(&cluster.post("/v1/completions", body))))
            .collect();
        all.into_iter().map(|one| one.join().expect("an answer")).collect()
    })
}

fn streamed(body: &Value) -> Value {
    let mut body = body.clone();
    body["stream"] = json!(true);
    body
}

/// The texts of a stream.
fn texts(events: Events) -> [String; 3] {
    let mut texts = [const { String::new() }; 3];
    for event in events {
        let event = event.expect("the stream goes on");
        if event == "[DONE]" {
            break;
        }
        let event: Value = serde_json::from_str(&event).expect("an event is JSON");
        assert!(event["error"].is_null(), "{event}");
        let Some(choice) = event["choices"].get(0) else { continue };
        let index = choice["index"].as_u64().expect("an index");
        texts[usize::try_from(index).unwrap()] += choice["text"].as_str().unwrap_or_default();
    }
    texts
}

#[test]
fn a_grammar_holds_under_load_without_blocks_and_across_a_kill() {
    let path = fixtures::committed(MODEL);
    let alone = Setup::new(&path).coordinator_flags(&["--local-workers", "1"]).start();
    let bodies: Vec<Value> = (0..4).map(|seed| body(&model_id(&alone), seed)).collect();
    let expected: Vec<Value> =
        bodies.iter().map(|body| told(&alone.post("/v1/completions", body))).collect();
    drop(alone);

    // Two stages and fewer blocks than all of them need, and a third worker that takes over.
    let mut cluster = Setup::of_two(&path)
        .workers(3)
        .coordinator_flags(&["--ctx-size", "1024", "--prefix-cache", "off"])
        .worker_flags(&["--kv-memory", "1MiB"])
        .start_with(2);
    assert_eq!(together(&cluster, &bodies), expected, "together\n{}", cluster.logs());
    let health = cluster.get("/health");
    assert!(health["preemptions"].as_u64().unwrap() > 0, "memory was never short: {health}");
    assert!(cluster.metric("woolly_mask_seconds_count") > 100.0);
    let streams: Vec<_> =
        bodies.iter().map(|body| cluster.stream("/v1/completions", &streamed(body))).collect();
    thread::sleep(Duration::from_millis(250));
    cluster.workers[1].kill();
    let texts: Vec<[String; 3]> = streams.into_iter().map(texts).collect();
    let text = |told: &Value| told["text"].as_str().unwrap().to_owned();
    let wanted: Vec<[String; 3]> =
        expected.iter().map(|told| [0, 1, 2].map(|index| text(&told[index]))).collect();
    assert_eq!(texts, wanted, "a worker was killed\n{}", cluster.logs());
    cluster.wait_ready();
    assert!(cluster.metric("woolly_failovers_total") >= 1.0, "{}", cluster.logs());
}
