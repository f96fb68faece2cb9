//! Hostile and mistaken requests: each gets a 400 that names its field, and the next one is served.

use super::support::*;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// A request of one more field to an endpoint.
fn body_for(path: &str, more: Value) -> Value {
    if path == CHAT { chat(more) } else { completion(more) }
}

/// Types of JSON.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Bool,
    Integer,
    Number,
    String,
    Array,
    Object,
}

/// Every honoured field with the types it takes, on both endpoints unless said otherwise.
const FIELDS: &[(&str, &[Kind])] = &[
    ("model", &[Kind::String]),
    ("max_tokens", &[Kind::Integer]),
    ("max_completion_tokens", &[Kind::Integer]),
    ("temperature", &[Kind::Integer, Kind::Number]),
    ("top_p", &[Kind::Integer, Kind::Number]),
    ("top_k", &[Kind::Integer]),
    ("min_p", &[Kind::Integer, Kind::Number]),
    ("presence_penalty", &[Kind::Integer, Kind::Number]),
    ("frequency_penalty", &[Kind::Integer, Kind::Number]),
    ("repetition_penalty", &[Kind::Integer, Kind::Number]),
    ("repeat_penalty", &[Kind::Integer, Kind::Number]),
    ("logit_bias", &[Kind::Object]),
    ("seed", &[Kind::Integer]),
    ("stop", &[Kind::String, Kind::Array]),
    ("stream", &[Kind::Bool]),
    ("stream_options", &[Kind::Object]),
    ("ignore_eos", &[Kind::Bool]),
    ("user", &[Kind::String]),
    ("n", &[Kind::Integer]),
    ("n_cmpl", &[Kind::Integer]),
    ("best_of", &[Kind::Integer]),
    ("stop_token_ids", &[Kind::Array]),
    ("min_tokens", &[Kind::Integer]),
    ("allowed_token_ids", &[Kind::Array]),
    ("bad_words", &[Kind::Array]),
    ("xtc_probability", &[Kind::Integer, Kind::Number]),
    ("xtc_threshold", &[Kind::Integer, Kind::Number]),
    ("dry_multiplier", &[Kind::Integer, Kind::Number]),
    ("dry_base", &[Kind::Integer, Kind::Number]),
    ("dry_allowed_length", &[Kind::Integer]),
    ("dry_sequence_breakers", &[Kind::Array]),
    ("return_token_ids", &[Kind::Bool]),
    ("prompt_logprobs", &[Kind::Integer]),
    ("timings_per_token", &[Kind::Bool]),
    ("include_stop_str_in_output", &[Kind::Bool]),
    ("metadata", &[Kind::Object]),
];
const CHAT_FIELDS: &[(&str, &[Kind])] = &[
    ("messages", &[Kind::Array]),
    ("logprobs", &[Kind::Bool]),
    ("top_logprobs", &[Kind::Integer]),
];
const COMPLETION_FIELDS: &[(&str, &[Kind])] = &[
    ("prompt", &[Kind::String, Kind::Array]),
    ("logprobs", &[Kind::Integer]),
    ("echo", &[Kind::Bool]),
    ("suffix", &[Kind::String]),
];

fn fields() -> impl Iterator<Item = (&'static str, &'static str, &'static [Kind])> {
    let on = |path, list: &'static [(&'static str, &'static [Kind])]| {
        list.iter().map(move |(name, kinds)| (path, *name, *kinds))
    };
    on(CHAT, FIELDS)
        .chain(on(COMPLETIONS, FIELDS))
        .chain(on(CHAT, CHAT_FIELDS))
        .chain(on(COMPLETIONS, COMPLETION_FIELDS))
}

#[tokio::test]
async fn every_field_refuses_every_wrong_type_by_name() {
    let rig = Rig::saying("x");
    let samples = [
        (Kind::Bool, json!(true)),
        (Kind::Integer, json!(1)),
        (Kind::Number, json!(0.5)),
        (Kind::String, json!("text")),
        (Kind::Array, json!([{"no": 1}])),
        (Kind::Object, json!({"no": [1]})),
    ];
    for (path, name, kinds) in fields() {
        for (kind, sample) in &samples {
            if kinds.contains(kind) {
                continue;
            }
            let (status, error) = rig.error(path, body_for(path, json!({ name: sample }))).await;
            assert_eq!((status, &error["param"]), (400, &json!(name)), "{path} {name} {sample}");
        }
    }
    assert!(rig.requests().is_empty());
}

#[tokio::test]
async fn every_number_refuses_what_is_out_of_range() {
    let rig = Rig::saying("x");
    let negative_allowed = ["presence_penalty", "frequency_penalty"];
    for (path, name, kinds) in fields() {
        let integer = kinds == [Kind::Integer];
        if !integer && !kinds.contains(&Kind::Number) {
            continue;
        }
        let mut values = vec![
            json!(-2_147_483_648_i64),
            json!(i64::MIN),
            json!(1e300),
            json!(-1e300),
            json!("1"),
            json!("NaN"),
        ];
        let any_seed = name == "seed";
        if any_seed {
            values.retain(|value| value.as_i64().is_none());
        }
        let off = ["max_tokens", "max_completion_tokens", "top_k"].contains(&name);
        if !negative_allowed.contains(&name) && !off && !any_seed {
            values.push(json!(-1));
        }
        if integer {
            values.extend([json!(1.5), json!(-0.5)]);
        }
        for value in values {
            let (status, error) = rig.error(path, body_for(path, json!({ name: value }))).await;
            assert_eq!((status, &error["param"]), (400, &json!(name)), "{path} {name} {value}");
        }
    }
    assert!(rig.requests().is_empty());
}

#[tokio::test]
async fn null_is_not_given() {
    let rig = Rig::saying("x");
    for (path, name, _) in fields() {
        if !["model", "messages", "prompt"].contains(&name) {
            rig.ok(path, body_for(path, json!({ name: null }))).await;
        }
    }
    rig.ok(CHAT, chat(json!({"something_new": null}))).await;
}

#[tokio::test]
async fn limits_between_fields() {
    let rig = Rig::saying("x");
    let cases = [
        (CHAT, json!({"max_tokens": 0}), "max_tokens"),
        (CHAT, json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (COMPLETIONS, json!({"max_tokens": 0}), "max_tokens"),
        (COMPLETIONS, json!({"max_tokens": 0, "logprobs": 1}), "max_tokens"),
        (CHAT, json!({"top_logprobs": 2}), "top_logprobs"),
        (CHAT, json!({"top_logprobs": 2, "logprobs": false}), "top_logprobs"),
        (CHAT, json!({"top_logprobs": 21, "logprobs": true}), "top_logprobs"),
        (COMPLETIONS, json!({"logprobs": 21}), "logprobs"),
        (
            CHAT,
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
        ),
        (CHAT, json!({"stream": true, "stream_options": {"more": 1}}), "stream_options.more"),
        (CHAT, json!({"stream": "true"}), "stream"),
        (CHAT, json!({"n": 9, "stream": true}), "n"),
        (CHAT, json!({"n": 1_000_000_000}), "n"),
        (COMPLETIONS, json!({"best_of": 1_000_000}), "best_of"),
        (COMPLETIONS, json!({"suffix": "x"}), "suffix"),
        (COMPLETIONS, json!({"logit_bias": {"263": 1}}), "logit_bias"),
        (COMPLETIONS, json!({"prompt": [263]}), "prompt"),
        (CHAT, json!({"tools": [{"type": "function"}]}), "tools[0].function"),
        (CHAT, json!({"tool_choice": "required"}), "tool_choice"),
        (CHAT, json!({"response_format": {"type": "sound"}}), "response_format.type"),
        (CHAT, json!({"json_schema": {"type": "hiccup"}}), "json_schema"),
        (CHAT, json!({"grammar": "root ::= foo**"}), "grammar"),
        (CHAT, json!({"chat_template": "{{ 1 }}"}), "chat_template"),
        (CHAT, json!({"chat_template_kwargs": {"tokenize": true}}), "chat_template_kwargs"),
        (CHAT, json!({"guided_regex": "(a+b"}), "guided_regex"),
        (CHAT, json!({"prompt_logprobs": -1}), "prompt_logprobs"),
        (CHAT, json!({"n_discard": -1}), "n_discard"),
        (CHAT, json!({"foo": 1}), "foo"),
    ];
    for (path, more, param) in cases {
        let (status, error) = rig.error(path, body_for(path, more.clone())).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{more} {error}");
    }
    assert!(rig.requests().is_empty());
    rig.ok(COMPLETIONS, completion(json!({"max_tokens": 0, "echo": true}))).await;
}

#[tokio::test]
async fn the_model_is_checked() {
    let rig = Rig::saying("x");
    let long = "x".repeat(1 << 20);
    for name in ["", "unknown", "../x", &long] {
        for path in [CHAT, COMPLETIONS] {
            let (status, error) = rig.error(path, body_for(path, json!({"model": name}))).await;
            assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
            assert_eq!(error["param"], "model");
            assert!(error["message"].as_str().unwrap().len() < 300);
        }
    }
    for absent in [json!({"prompt": "a"}), json!({"model": null, "prompt": "a"})] {
        assert_eq!(rig.ok(COMPLETIONS, absent).await["model"], "tiny");
    }
    for name in ["tiny", "gpt-4", "org/tiny"] {
        assert_eq!(rig.ok(CHAT, chat(json!({"model": name}))).await["model"], name);
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_object() {
    let rig = Rig::saying("x");
    let deep = "[".repeat(100_000);
    let keys: Vec<String> = (0..100_000).map(|key| format!("\"{key}\":0")).collect();
    let keys = format!("{{{}}}", keys.join(","));
    let twice = r#"{"model":"tiny","prompt":"a","max_tokens":1,"max_tokens":100000}"#;
    let surrogate = r#"{"model":"tiny","prompt":"\ud800"}"#;
    for text in [
        "", "{", "nul", "[]", "\"x\"", "{} {}", "{,}", "'a'", &deep, &keys, twice, surrogate, "NaN",
    ] {
        let (status, error) = error_of(rig.post_text(COMPLETIONS, text.to_owned()).await).await;
        assert_eq!((status, &error["type"]), (400, &json!("invalid_request_error")));
    }
    let (status, _) = error_of(rig.post_text(CHAT, b"{\"model\":\"\xff\"}".to_vec()).await).await;
    assert_eq!(status, 400);
    rig.ok(COMPLETIONS, completion(json!({"prompt": "\u{0}\u{10ffff}\u{ffff}媽 🤗"}))).await;
}

#[tokio::test]
async fn a_template_that_refuses_is_the_clients_error() {
    let rig = Rig::saying("x");
    let messages = json!([{"role": "ipython", "content": "a"}]);
    let (status, error) = rig.error(CHAT, chat(json!({ "messages": messages }))).await;
    assert_eq!((status, &error["param"]), (400, &json!("messages")));
    assert!(error["message"].as_str().unwrap().contains("no python here"), "{error}");
}
