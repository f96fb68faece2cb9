//! Anthropic's API.

use super::support::*;
use crate::generation::{FinishReason, GenerationEvent};
use crate::http::api::messages::encoder::MessageEncoder;
use crate::http::ids::Identity;
use crate::http::output::delta::{Delta, End, WholeChoice};
use crate::http::output::encoder::Encoder;
use crate::http::output::sse::Events;
use crate::http::server::keys::ApiKeys;
use crate::http::usage::Usage;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

fn ask(more: Value) -> Value {
    let mut body = json!({
        "model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}],
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// The events of a stream: their names and what they say. Each says its own name.
fn events(text: &str) -> Vec<Value> {
    let event = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let value: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(value["type"], name.strip_prefix("event: ").unwrap());
        value
    };
    text.split_terminator("\n\n").map(event).collect()
}

#[tokio::test]
async fn a_message_is_what_anthropic_sends() {
    let rig = Rig::saying("ab");
    let mut message = rig.ok("/v1/messages", ask(json!({}))).await;
    let id = message["id"].take();
    assert!(id.as_str().unwrap().starts_with("msg_"));
    let expected = json!({
        "id": null, "type": "message", "role": "assistant", "model": "tiny",
        "content": [{"type": "text", "text": "ab"}],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3, "output_tokens": 3},
    });
    assert_eq!(message, expected);
    assert_eq!(rig.requests()[0].max_tokens, 9);
}

#[tokio::test]
async fn a_stream_has_named_events_in_anthropics_order() {
    let rig = Rig::saying("ab");
    let response = rig.post("/v1/messages", ask(json!({"stream": true}))).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let events = events(&read_text(response).await);
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(kinds, expected);
    let message = &events[0]["message"];
    assert_eq!((&message["content"], &message["stop_reason"]), (&json!([]), &Value::Null));
    assert_eq!(message["usage"]["input_tokens"], 10);
    assert_eq!(events[1]["content_block"], json!({"type": "text", "text": ""}));
    assert_eq!(events[2]["delta"], json!({"type": "text_delta", "text": "a"}));
    assert_eq!(events[5]["delta"], json!({"stop_reason": "end_turn", "stop_sequence": null}));
    assert_eq!(events[5]["usage"]["output_tokens"], 3);
}

#[tokio::test]
async fn why_it_ended_is_said_in_anthropics_words() {
    let rig = Rig::saying("abXYc");
    let message = rig.ok("/v1/messages", ask(json!({"stop_sequences": ["Q", "XY"]}))).await;
    assert_eq!(message["stop_reason"], "stop_sequence");
    assert_eq!(message["stop_sequence"], "XY");
    assert_eq!(message["content"][0]["text"], "ab");
    let rig =
        Rig::new(|_| Script::Play([tokens("ab"), vec![finished(FinishReason::Length)]].concat()));
    assert_eq!(rig.ok("/v1/messages", ask(json!({}))).await["stop_reason"], "max_tokens");
}

#[tokio::test]
async fn system_and_turns_reach_the_template() {
    let rig = Rig::saying("x");
    let body = ask(json!({
        "system": "s", "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": "b"},
        ],
        "temperature": 0.5, "top_k": 7, "top_p": 0.25, "metadata": {"user_id": "u"}, "service_tier": "auto",
        "cache_control": {"type": "ephemeral"},
    }));
    rig.ok("/v1/messages", body.clone()).await;
    let request = &rig.requests()[0];
    let text: String = request.prompt.iter().map(|id| char::from_u32(*id).unwrap_or('|')).collect();
    let shown = text.replace('\u{100}', "").replace(['\u{102}', '\u{103}'], "|");
    assert_eq!(shown, "|s:s||u:a||a:b", "the last turn is continued");
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.5, 7, 0.25));
    let mut counted = body;
    counted.as_object_mut().unwrap().remove("max_tokens");
    let counted = rig.ok("/v1/messages/count_tokens", counted).await;
    assert_eq!(counted, json!({ "input_tokens": request.prompt.len() }));
    assert_eq!(rig.requests().len(), 1, "counting asks nobody");
}

/// The status and the error of an answer in Anthropic's shape.
async fn refused(response: axum::response::Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let id = response.headers()["request-id"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["x-request-id"], id.as_str());
    let body = read_json(response).await;
    assert_eq!((&body["type"], &body["request_id"]), (&json!("error"), &json!(id)));
    assert_eq!(body.as_object().unwrap().len(), 3);
    let word = |name: &str| body["error"][name].as_str().unwrap().to_owned();
    (status, word("type"), word("message"))
}

#[tokio::test]
async fn every_error_has_anthropics_shape() {
    let rig = Rig::saying("x");
    for (body, named) in [
        (json!({"messages": [{"role": "user", "content": "hi"}]}), "'max_tokens' is missing"),
        (ask(json!({"max_tokens": 0})), "'max_tokens' must be at least 1"),
        (ask(json!({"max_tokens": -1})), "'max_tokens' must be an integer of at least 1"),
        (ask(json!({"temperature": 1.5})), "'temperature' must be a number from 0 to 1"),
        (ask(json!({"stop_sequences": [7]})), "'stop_sequences' must be a string"),
        (
            ask(json!({"thinking": {"type": "enabled", "budget_tokens": 1024}})),
            "less than 'max_tokens'",
        ),
        (ask(json!({"thinking": {"type": "always"}})), "'thinking.type'"),
        (ask(json!({"tools": [{"type": "bash_20250124", "name": "bash"}]})), "no tools of its own"),
        (ask(json!({"tool_choice": {"type": "tool"}})), "'tool_choice' must"),
        (ask(json!({"output_config": {"format": {"type": "text"}}})), "json_schema"),
        (ask(json!({"container": "c"})), "leave 'container' out"),
        (ask(json!({"stop": "a", "stop_sequences": ["b"]})), "give one of them"),
        (ask(json!({"colour": "red"})), "Unknown field 'colour'"),
    ] {
        let (status, kind, text) = refused(rig.post("/v1/messages", body).await).await;
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{text}");
        assert!(text.contains(named), "{text}");
    }
    let (status, kind, _) =
        refused(rig.post("/v1/messages", ask(json!({"model": "gpt-5"}))).await).await;
    assert_eq!((status, kind.as_str()), (404, "not_found_error"));
    let (status, kind, _) = refused(rig.get("/v1/messages/batches").await).await;
    assert_eq!((status, kind.as_str()), (404, "not_found_error"));
    let locked =
        Rig::with(|config| config.keys = ApiKeys::new(["sk-1"]), |_| Script::Play(say("x")));
    let (status, kind, _) = refused(locked.post("/v1/messages", ask(json!({}))).await).await;
    assert_eq!((status, kind.as_str()), (401, "authentication_error"));
    let mut request = post("/v1/messages", ask(json!({})).to_string());
    request.headers_mut().insert("x-api-key", "sk-1".parse().unwrap());
    assert_eq!(locked.send(request).await.status(), 200);
    let request = Request::get("/v1/models/gpt-5").header("anthropic-version", "2023-06-01");
    let (status, ..) = refused(rig.send(request.body(Body::empty()).unwrap()).await).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn an_error_ends_a_stream_as_an_event() {
    let rig = Rig::new(|_| {
        let failure = crate::generation::Failure { code: "pipeline_lost", message: "gone".into() };
        Script::Play([tokens("a"), vec![GenerationEvent::Failed(failure)]].concat())
    });
    let text = read_text(rig.post("/v1/messages", ask(json!({"stream": true}))).await).await;
    let last = events(&text).pop().unwrap();
    assert_eq!(
        last,
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "gone"}})
    );
}

#[test]
fn blocks_follow_each_other_and_are_the_same_whole() {
    let deltas = [
        Delta::Start,
        Delta::Reasoning { text: "h".into() },
        Delta::Reasoning { text: "m".into() },
        Delta::Text { text: "so".into(), logprobs: Default::default() },
        Delta::ToolCall { call: 0, id: "c1".into(), name: "f".into() },
        Delta::Arguments { call: 0, text: "{\"a\"".into() },
        Delta::Arguments { call: 0, text: ":1}".into() },
        Delta::ToolCall { call: 1, id: "c2".into(), name: "g".into() },
        Delta::End { end: End::ToolCalls },
    ];
    let mut encoder = MessageEncoder::new(&Identity::new().unwrap(), "tiny".into(), false);
    let (mut written, mut whole) = (Events::default(), WholeChoice::default());
    for delta in &deltas {
        encoder.delta(0, delta, Usage::default(), &mut written);
        whole.add(delta.clone());
    }
    encoder.finish(Usage::default(), &mut written);
    let written = String::from_utf8(written.into_bytes().to_vec()).unwrap();
    // What a client puts together, by the rules of Anthropic's own package.
    let mut content: Vec<Value> = Vec::new();
    let mut partial: Vec<String> = Vec::new();
    for event in events(&written) {
        let index = event["index"].as_u64().map(|index| index as usize);
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert_eq!(index, Some(content.len()));
                content.push(event["content_block"].clone());
                partial.push(String::new());
            }
            "content_block_delta" => {
                let delta = event["delta"].as_object().unwrap();
                let (_, more) = delta.iter().find(|(key, _)| *key != "type").unwrap();
                partial[index.unwrap()].push_str(more.as_str().unwrap());
            }
            _ => {}
        }
    }
    for (block, text) in content.iter_mut().zip(partial) {
        match block["type"].as_str().unwrap() {
            "tool_use" if text.is_empty() => {}
            "tool_use" => block["input"] = serde_json::from_str(&text).unwrap(),
            kind => {
                let kind = kind.to_owned();
                block[kind] = text.into();
            }
        }
    }
    let message: Value = serde_json::from_str(&encoder.whole(&[whole], Usage::default())).unwrap();
    assert_eq!(message["content"], json!(content));
    assert_eq!(content[0], json!({"type": "thinking", "thinking": "hm", "signature": ""}));
    assert_eq!(content[2], json!({"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}));
    assert_eq!((content.len(), &message["stop_reason"]), (4, &json!("tool_use")));
}
