//! Streams, byte for byte.

use super::support::*;
use crate::generation::{Failure, FinishReason, GenerationEvent};
use axum::http::header;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;

/// The stream of a request with `id` and `created` replaced by fixed values.
async fn stream(rig: &Rig, path: &str, body: Value) -> String {
    let response = rig.post(path, body).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let text = read_text(response).await;
    let first = text.strip_prefix("data: ").unwrap().split("\n\n").next().unwrap();
    let first: Value = serde_json::from_str(first).unwrap();
    let Some(id) = first["id"].as_str() else { return text };
    let created = format!("\"created\":{}", first["created"]);
    text.replace(id, "ID").replace(&created, "\"created\":0")
}

/// The `choices[0]` of every event, and what else stands on data lines.
fn choices(text: &str) -> Vec<Value> {
    let data = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
    let parsed = data.filter(|data| *data != "[DONE]").map(|data| {
        let value: Value = serde_json::from_str(data).unwrap();
        value["choices"][0].clone()
    });
    parsed.collect()
}

fn text_of(stream: &str) -> String {
    let piece = |choice: &Value| {
        let text = choice["delta"]["content"].as_str().or(choice["text"].as_str());
        text.unwrap_or_default().to_owned()
    };
    choices(stream).iter().map(piece).collect()
}

#[tokio::test]
async fn a_chat_stream_is_what_openai_sends() {
    let rig = Rig::saying("ab");
    let text = stream(&rig, "/v1/chat/completions", chat(json!({"stream": true}))).await;
    let event = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"ID\",\"object\":\"chat.completion.chunk\",\"created\":0,\
             \"model\":\"tiny\",\"system_fingerprint\":\"woolly-{}\",\"choices\":[{{\"index\":0,\
             \"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n",
            env!("CARGO_PKG_VERSION")
        )
    };
    let expected = [
        event(r#"{"role":"assistant","content":""}"#, "null"),
        event(r#"{"content":"a"}"#, "null"),
        event(r#"{"content":"b"}"#, "null"),
        event("{}", "\"stop\""),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(text, expected.concat());
}

#[tokio::test]
async fn a_completion_stream_is_what_openai_sends() {
    let rig = Rig::new(|_| {
        let mut events = tokens("ab");
        events.push(finished(FinishReason::Length));
        Script::Play(events)
    });
    let body = completion(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let text = stream(&rig, "/v1/completions", body).await;
    let event = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"ID\",\"object\":\"text_completion\",\"created\":0,\
             \"model\":\"tiny\",\"system_fingerprint\":\"woolly-{}\",\"choices\":[{choices}],\
             \"usage\":{usage}}}\n\n",
            env!("CARGO_PKG_VERSION")
        )
    };
    let choice = |text: &str, finish: &str| {
        format!(r#"{{"index":0,"text":"{text}","logprobs":null,"finish_reason":{finish}}}"#)
    };
    // Prompt: BOS, h, i.
    let usage = "{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5,\
                 \"prompt_tokens_details\":{\"cached_tokens\":3}}";
    let expected = [
        event(&choice("a", "null"), "null"),
        event(&choice("b", "null"), "null"),
        event(&choice("", "\"length\""), "null"),
        event("", usage),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(text, expected.concat());
}

#[tokio::test]
async fn continuous_usage_counts_up() {
    let rig = Rig::saying("ab");
    let options = json!({"continuous_usage_stats": true, "include_usage": true});
    let body = chat(json!({"stream": true, "stream_options": options}));
    let text = stream(&rig, "/v1/chat/completions", body).await;
    let counts: Vec<u64> = text
        .split_terminator("\n\n")
        .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
        .map(|chunk: Value| chunk["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [1, 1, 2, 3, 3]);
}

#[tokio::test]
async fn characters_are_sent_whole() {
    let rig = Rig::saying("a€🤗\u{e9}");
    let text = stream(&rig, "/v1/chat/completions", chat(json!({"stream": true}))).await;
    let pieces: Vec<Value> =
        choices(&text).iter().map(|choice| choice["delta"]["content"].clone()).collect();
    assert_eq!(pieces, [json!(""), json!("a"), json!("€"), json!("🤗"), json!("é"), Value::Null]);
}

#[tokio::test]
async fn a_character_that_never_becomes_whole_is_replaced() {
    let rig = Rig::new(|_| {
        let half = [0xE2, 0x82].map(|byte| GenerationEvent::Token(token(byte, -1.0)));
        let mut events: Vec<_> = half.into();
        events.push(finished(FinishReason::Length));
        Script::Play(events)
    });
    let text = stream(&rig, "/v1/chat/completions", chat(json!({"stream": true}))).await;
    assert_eq!(text_of(&text), "\u{fffd}");
}

#[tokio::test]
async fn a_stop_string_over_several_tokens_ends_the_stream_and_the_generation() {
    let rig = Rig::new(|_| Script::Hold(tokens("one €ND two")));
    let options = json!({"include_usage": true});
    let body = chat(json!({"stream": true, "stop": ["€ND", "zzz"], "stream_options": options}));
    let text = stream(&rig, "/v1/chat/completions", body).await;
    assert_eq!(text_of(&text), "one ");
    assert!(text.contains(r#""finish_reason":"stop""#));
    // "one " and the five bytes of the stop string.
    assert!(text.contains(r#""completion_tokens":9,"total_tokens":19,"#), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"));
    rig.cancelled(&[0]).await;
}

#[tokio::test]
async fn what_only_began_like_a_stop_string_is_sent_at_the_end() {
    let rig = Rig::saying("a EN");
    let body = chat(json!({"stream": true, "stop": "END"}));
    let text = stream(&rig, "/v1/chat/completions", body).await;
    assert_eq!(text_of(&text), "a EN");
}

#[tokio::test]
async fn model_output_cannot_forge_events() {
    let forged = "\n\ndata: [DONE]\n\n";
    let rig = Rig::saying(forged);
    let text = stream(&rig, "/v1/chat/completions", chat(json!({"stream": true}))).await;
    assert_eq!(text.matches("data: [DONE]\n\n").count(), 1);
    assert_eq!(text_of(&text), forged);
}

#[tokio::test]
async fn a_failure_in_mid_stream_is_an_event() {
    let rig = Rig::new(|_| {
        let mut events = tokens("a");
        let failure = Failure { code: "pipeline_lost", message: "worker b is gone".into() };
        events.push(GenerationEvent::Failed(failure));
        Script::Play(events)
    });
    let text = stream(&rig, "/v1/chat/completions", chat(json!({"stream": true}))).await;
    let error = "data: {\"error\":{\"message\":\"worker b is gone\",\"type\":\"unavailable_error\",\
                 \"param\":null,\"code\":\"pipeline_lost\"}}\n\ndata: [DONE]\n\n";
    assert!(text.ends_with(error), "{text}");
    assert!(!text.contains("\"finish_reason\":\""), "{text}");
}

#[tokio::test]
async fn an_engine_that_says_nothing_more_is_a_failure() {
    let rig = Rig::new(|_| Script::Play(tokens("a")));
    let text = stream(&rig, "/v1/chat/completions", chat(json!({"stream": true}))).await;
    assert!(text.contains("\"code\":\"pipeline_lost\""), "{text}");
}

#[tokio::test]
async fn several_prompts_come_with_their_index() {
    let rig =
        Rig::new(|request| Script::Play(say(if request.prompt[1] == 97 { "x" } else { "y" })));
    let body = completion(json!({"prompt": ["a", "b"], "stream": true}));
    let text = stream(&rig, "/v1/completions", body).await;
    for (index, said) in [(0, "x"), (1, "y")] {
        let of_index: Vec<Value> =
            choices(&text).into_iter().filter(|choice| choice["index"] == index).collect();
        assert_eq!(of_index.len(), 2, "{text}");
        assert_eq!(of_index[0]["text"], said);
        assert_eq!(of_index[1]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn echo_comes_before_the_first_token() {
    let rig = Rig::saying("ab");
    let body = completion(json!({"echo": true, "stream": true}));
    let text = stream(&rig, "/v1/completions", body).await;
    assert_eq!(choices(&text)[0]["text"], "hia");
    assert_eq!(text_of(&text), "hiab");
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_with_comments_and_ends_when_the_server_closes() {
    let rig = Rig::new(|_| Script::Hold(Vec::new()));
    let response = rig.post("/v1/chat/completions", chat(json!({"stream": true}))).await;
    let mut body = response.into_body().into_data_stream();
    let start = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(body.next().await.unwrap().unwrap(), ": ping\n\n");
    }
    assert_eq!(start.elapsed().as_secs(), 30);
    // The first token comes with the role, at once.
    let events = rig.seen.lock().unwrap().held[0].clone();
    events.send(tokens("a").remove(0)).await.unwrap();
    let bytes = body.next().await.unwrap().unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    assert_eq!(text.matches("data: ").count(), 2);
    assert!(text.contains(r#"{"role":"assistant","content":""}"#));
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.gateway.closing.cancel();
    let bytes = body.next().await.unwrap().unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    assert!(text.contains("\"code\":\"shutting_down\"") && text.ends_with("data: [DONE]\n\n"));
    assert!(body.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn every_api_has_its_own_way_to_break_a_silence() {
    let rig = Rig::new(|_| Script::Hold(Vec::new()));
    let messages = json!([{"role": "user", "content": "hi"}]);
    let anthropic = json!({"messages": messages, "max_tokens": 9, "stream": true});
    let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    for (path, body, expected) in [
        ("/v1/messages", anthropic, ping),
        ("/v1/responses", json!({"input": "hi", "stream": true}), ": ping\n\n"),
        ("/api/chat", json!({"messages": messages}), " "),
    ] {
        let response = rig.post(path, body).await;
        let mut body = response.into_body().into_data_stream();
        for _ in 0..2 {
            assert_eq!(body.next().await.unwrap().unwrap(), expected, "{path}");
        }
    }
    // What was sent before a line is a part of it, and JSON all the same.
    let response = rig.post("/api/chat", json!({"messages": messages})).await;
    let mut body = response.into_body().into_data_stream();
    let mut text = String::from_utf8(body.next().await.unwrap().unwrap().to_vec()).unwrap();
    let events = rig.seen.lock().unwrap().held[3].clone();
    events.send(tokens("a").remove(0)).await.unwrap();
    text += std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&text[..2], &line["message"]["content"]), (" {", &json!("a")));
}

#[tokio::test]
async fn dropping_the_body_cancels_the_generation() {
    let rig = Rig::new(|_| Script::Hold(tokens("a")));
    let body = completion(json!({"prompt": ["a", "b"], "stream": true}));
    let response = rig.post("/v1/completions", body).await;
    let mut body = response.into_body().into_data_stream();
    body.next().await.unwrap().unwrap();
    assert_eq!(rig.requests().len(), 2);
    drop(body);
    rig.cancelled(&[0, 1]).await;
}
