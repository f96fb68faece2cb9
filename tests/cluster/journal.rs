//! The coordinator dies under streams that are in its journal: they go on when it is started again.

use super::model_id;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use woolly_tests::cluster::{Cluster, Setup, temporary_folder};
use woolly_tests::fixtures;
use woolly_tests::http::{self, Events};

/// Tokens of an answer that the death interrupts.
const TOKENS: u32 = 300;

/// A request, the path that it goes to, and how many events its client has when the coordinator dies.
struct Asked {
    path: &'static str,
    body: Value,
    events: usize,
}

/// Eight streams: greedy and by chance, with one choice and with several, chats and texts; the last one is short, so
/// it is complete before its client has read it.
fn asked(cluster: &Cluster) -> Vec<Asked> {
    let model = model_id(cluster);
    let chat = |seed: u32, choices: u32, events: usize| {
        let body = json!({
            "model": model, "messages": [{"role": "user", "content": format!("Tell story number {seed}.")}],
            "max_tokens": TOKENS, "ignore_eos": true, "temperature": if seed == 0 { 0.0 } else { 0.9 },
            "seed": seed, "n": choices, "frequency_penalty": 0.3, "logprobs": true, "top_logprobs": 2,
            "stream": true, "stream_options": {"include_usage": true},
        });
        Asked { path: "/v1/chat/completions", body, events }
    };
    let text = |prompt: &str, tokens: u32, events: usize| {
        let body = json!({
            "model": model, "prompt": [prompt, "Once upon a time"], "max_tokens": tokens, "ignore_eos": true,
            "seed": 7, "logprobs": 1, "stream": true, "stream_options": {"include_usage": true},
        });
        Asked { path: "/v1/completions", body, events }
    };
    vec![
        chat(0, 1, 1),
        chat(1, 1, 20),
        chat(2, 1, 9),
        chat(3, 2, 15),
        chat(4, 2, 4),
        text("A brick is", TOKENS, 11),
        text("The sea", TOKENS, 30),
        text("A river", 6, 2),
    ]
}

/// A stream that was begun, and its first events, each with its id.
fn begin(cluster: &Cluster, asked: &Asked) -> (Events, Vec<(String, String)>) {
    let stream = cluster.stream(asked.path, &asked.body);
    take(stream, asked.events, cluster)
}

fn take(mut stream: Events, most: usize, cluster: &Cluster) -> (Events, Vec<(String, String)>) {
    let mut events = Vec::new();
    while events.len() < most {
        let Some(event) = stream.next() else { break };
        let event = event.unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
        let id = stream.last_id().unwrap_or_else(|| panic!("no id: {event}")).to_owned();
        events.push((id, event));
    }
    (stream, events)
}

/// Of each choice its text, its log-probabilities as they are printed and its end; and the usage. What a cache held
/// depends on what ran before.
fn told(events: &[(String, String)]) -> Value {
    assert_eq!(events.last().map(|(_, event)| event.as_str()), Some("[DONE]"));
    let (mut choices, mut usage) = (BTreeMap::new(), Value::Null);
    for (_, event) in &events[..events.len() - 1] {
        let event: Value = serde_json::from_str(event).unwrap();
        assert!(event["error"].is_null(), "{event}");
        for choice in event["choices"].as_array().unwrap() {
            let of: &mut (String, Vec<Value>, Value) =
                choices.entry(choice["index"].as_u64().unwrap()).or_default();
            of.0 +=
                choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
            of.1.extend(Some(&choice["logprobs"]).filter(|scores| !scores.is_null()).cloned());
            if !choice["finish_reason"].is_null() {
                of.2 = choice["finish_reason"].clone();
            }
        }
        if event["usage"].is_object() {
            usage = event["usage"].clone();
        }
    }
    let counts =
        ["prompt_tokens", "completion_tokens", "total_tokens"].map(|name| usage[name].clone());
    json!({ "choices": choices.into_values().collect::<Vec<_>>(), "usage": counts })
}

/// What an event says of its answer as a whole.
fn identity(event: &str) -> (Value, Value) {
    let event: Value = serde_json::from_str(event).unwrap();
    (event["id"].clone(), event["created"].clone())
}

#[test]
fn streams_go_on_after_the_coordinator_was_killed_as_if_nothing_had_been() {
    let folder = temporary_folder();
    let journal = folder.path().join("journal").display().to_string();
    let setup = Setup::of_two(fixtures::granite_tiny());
    let mut cluster = setup.coordinator_flags(&["--journal", &journal]).start();
    let asked = asked(&cluster);
    let undisturbed: Vec<Value> = asked
        .iter()
        .map(|one| told(&take(cluster.stream(one.path, &one.body), usize::MAX, &cluster).1))
        .collect();
    let begun: Vec<_> = asked.iter().map(|one| begin(&cluster, one)).collect();
    cluster.restart_killed();
    for ((asked, (_, mut events)), expected) in asked.iter().zip(begun).zip(&undisturbed) {
        assert_eq!(events.len(), asked.events, "the coordinator was killed too late");
        let (last, event) = events.last().unwrap();
        let (id, created) = identity(event);
        let path = format!("/v1/streams/{}", id.as_str().unwrap());
        let answer = http::get_after(cluster.http, &path, last).unwrap();
        let status = answer.status;
        assert_eq!(status, 200, "{:?}\n{}", answer.text(), cluster.logs());
        let (_, rest) = take(answer.events(), usize::MAX, &cluster);
        for (_, event) in rest.iter().filter(|(_, event)| event != "[DONE]") {
            assert_eq!(identity(event), (id.clone(), created.clone()));
        }
        events.extend(rest);
        let ids: Vec<f64> = events.iter().map(|(id, _)| id.parse().unwrap()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        assert_eq!(told(&events), *expected, "{}", cluster.logs());
    }
    let restored = cluster.metric("woolly_journal_restored_total");
    assert!(restored >= 8.0, "{restored} streams were begun again");
}
