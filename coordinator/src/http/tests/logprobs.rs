//! Log-probabilities as clients such as lm-eval read them.

use super::support::*;
use crate::generation::{FinishReason, GenerationEvent, TokenEvent};
use serde_json::{Value, json};

fn with_top(id: u32, logprob: f32, top: &[(u32, f32)]) -> TokenEvent {
    TokenEvent { token: id, logprob, top: top.to_vec() }
}

/// Scores the prompt `BOS h é` (é in two tokens) and then says `x` and EOS.
fn scoring() -> Rig {
    Rig::new(|request| {
        let scored = vec![
            with_top(104, -0.1, &[(104, -0.1)]),
            with_top(0xC3, -2.5, &[(97, -0.3)]),
            with_top(0xA9, -8192.0, &[(0xA9, -0.7)]),
        ];
        let mut events = Vec::new();
        if request.score_prompt {
            events.push(GenerationEvent::Scored(scored));
        }
        if request.max_tokens > 0 {
            events.push(GenerationEvent::Token(with_top(120, -1.5, &[(121, -1.0)])));
        }
        let stopped = request.max_tokens > 1;
        if stopped {
            events.push(GenerationEvent::Token(with_top(EOS, -0.125, &[(EOS, -0.125)])));
        }
        let reason = if stopped { FinishReason::Stop } else { FinishReason::Length };
        events.push(finished(reason));
        Script::Play(events)
    })
}

#[tokio::test]
async fn echo_with_logprobs_has_an_entry_for_every_token() {
    let rig = scoring();
    let body = completion(json!({"prompt": "hé", "echo": true, "logprobs": 1}));
    let value = rig.ok("/v1/completions", body).await;
    let choice = &value["choices"][0];
    assert_eq!(choice["text"], "héx");
    let number = |value: f32| json!(f64::from(value));
    let expected = json!({
        "text_offset": [0, 0, 1, 1, 2, 3],
        "token_logprobs": [null, number(-0.1), -2.5, -8192.0, -1.5, -0.125],
        "tokens": ["<s>", "h", "bytes:\\xc3", "bytes:\\xa9", "x", "</s>"],
        "top_logprobs": [
            null,
            {"h": number(-0.1)},
            {"a": number(-0.3), "bytes:\\xc3": -2.5},
            {"bytes:\\xa9": -8192.0},
            {"y": -1.0, "x": -1.5},
            {"</s>": -0.125},
        ],
    });
    assert_eq!(choice["logprobs"].to_string(), expected.to_string());
    let request = &rig.requests()[0];
    assert!(request.score_prompt);
    assert_eq!(request.top_logprobs, Some(1));
}

#[tokio::test]
async fn lm_eval_finds_what_it_slices() {
    let rig = scoring();
    let body = completion(json!({
        "prompt": [[BOS, 104, 0xC3, 0xA9]], "max_tokens": 0, "logprobs": 1, "echo": true,
        "temperature": 0, "seed": 1234,
    }));
    let value = rig.ok("/v1/completions", body).await;
    let choice = &value["choices"][0];
    assert_eq!(choice["text"], "hé");
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["logprobs"]["token_logprobs"].as_array().unwrap().len(), 4);
    assert_eq!(value["usage"]["completion_tokens"], 0);
    assert_eq!(rig.requests()[0].max_tokens, 0);
    // With one token more, [ctxlen:-1] leaves the prompt's own.
    let body = completion(json!({
        "prompt": [[BOS, 104, 0xC3, 0xA9]], "max_tokens": 1, "logprobs": 1, "echo": true,
    }));
    let value = rig.ok("/v1/completions", body).await;
    let logprobs = &value["choices"][0]["logprobs"];
    for (values, tops) in logprobs["token_logprobs"]
        .as_array()
        .unwrap()
        .iter()
        .zip(logprobs["top_logprobs"].as_array().unwrap())
        .skip(1)
    {
        assert!(tops.as_object().unwrap().values().any(|top| top == values));
    }
}

#[tokio::test]
async fn a_stream_carries_the_same_logprobs() {
    let rig = scoring();
    let body = |stream: bool| {
        completion(json!({"prompt": "hé", "echo": true, "logprobs": 1, "stream": stream}))
    };
    let whole = rig.ok("/v1/completions", body(false)).await;
    let text = read_text(rig.post("/v1/completions", body(true)).await).await;
    let chunks: Vec<Value> = text
        .split_terminator("\n\n")
        .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
        .collect();
    for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        let joined: Vec<Value> = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["logprobs"][field].as_array())
            .flatten()
            .cloned()
            .collect();
        assert_eq!(json!(joined), whole["choices"][0]["logprobs"][field]);
    }
    let joined: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(joined, "héx");
}

#[tokio::test]
async fn chat_logprobs_have_bytes_and_alternatives() {
    let rig = scoring();
    let body = chat(json!({"logprobs": true, "top_logprobs": 1}));
    let value = rig.ok("/v1/chat/completions", body).await;
    let expected = json!({
        "content": [
            {
                "token": "x", "logprob": -1.5, "bytes": [120],
                "top_logprobs": [{"token": "y", "logprob": -1.0, "bytes": [121]}],
            },
            {
                "token": "</s>", "logprob": -0.125, "bytes": [60, 47, 115, 62],
                "top_logprobs": [{"token": "</s>", "logprob": -0.125, "bytes": [60, 47, 115, 62]}],
            },
        ],
        "refusal": null,
    });
    assert_eq!(value["choices"][0]["logprobs"].to_string(), expected.to_string());
    assert_eq!(rig.requests()[0].top_logprobs, Some(1));
    rig.ok("/v1/chat/completions", chat(json!({"logprobs": true}))).await;
    assert_eq!(rig.requests()[1].top_logprobs, Some(0));
    for off in [json!({}), json!({"logprobs": false, "top_logprobs": 0})] {
        let value = rig.ok("/v1/chat/completions", chat(off)).await;
        assert_eq!(value["choices"][0]["logprobs"], Value::Null);
    }
}

#[tokio::test]
async fn echo_of_a_single_token_needs_no_score() {
    let rig = Rig::new(|_| panic!("the engine is not needed"));
    for logprobs in [json!(null), json!(2)] {
        let body = completion(
            json!({"prompt": [104], "echo": true, "max_tokens": 0, "logprobs": logprobs}),
        );
        let value = rig.ok("/v1/completions", body).await;
        assert_eq!(value["choices"][0]["text"], "h");
        assert_eq!(value["usage"]["total_tokens"], 1);
        let expected = match logprobs {
            Value::Null => Value::Null,
            _ => json!({"text_offset": [0], "token_logprobs": [null], "tokens": ["h"],
                        "top_logprobs": [null]}),
        };
        assert_eq!(value["choices"][0]["logprobs"], expected);
    }
}

#[tokio::test]
async fn an_impossible_token_is_a_number() {
    let rig = Rig::new(|_| {
        let event = with_top(120, f32::NEG_INFINITY, &[]);
        Script::Play(vec![GenerationEvent::Token(event), finished(FinishReason::Length)])
    });
    let value = rig.ok("/v1/completions", completion(json!({"logprobs": 0}))).await;
    assert_eq!(value["choices"][0]["logprobs"]["token_logprobs"], json!([-9999.0]));
    assert_eq!(value["choices"][0]["logprobs"]["top_logprobs"], json!([{"x": -9999.0}]));
}

#[tokio::test]
async fn tokens_held_back_for_a_stop_string_are_reported_with_their_text() {
    let rig = Rig::saying("aENb");
    let body = completion(json!({"stop": "END", "logprobs": 0, "stream": true}));
    let text = read_text(rig.post("/v1/completions", body).await).await;
    let mut seen = Vec::new();
    for event in text.split_terminator("\n\n") {
        let Ok(chunk) = serde_json::from_str::<Value>(event.strip_prefix("data: ").unwrap()) else {
            continue;
        };
        let choice = &chunk["choices"][0];
        seen.push((choice["text"].clone(), choice["logprobs"]["tokens"].clone()));
    }
    let expected = [
        (json!("a"), json!(["a"])),
        (json!("ENb"), json!(["E", "N", "b"])),
        (json!(""), json!(["</s>"])),
        (json!(""), Value::Null),
    ];
    assert_eq!(seen, expected);
}
