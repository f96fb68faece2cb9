//! OpenAI's Responses API.

use super::support::*;
use crate::generation::{Failure, FinishReason, GenerationEvent};
use crate::http::api::responses::encoder::ResponseEncoder;
use crate::http::api::responses::output::Shown;
use crate::http::ids::Identity;
use crate::http::output::delta::{Delta, End, WholeChoice};
use crate::http::output::encoder::Encoder;
use crate::http::output::sse::Events;
use crate::http::usage::Usage;
use axum::http::header;
use serde_json::{Map, Value, json};

fn ask(more: Value) -> Value {
    let mut body = json!({"model": "tiny", "input": "hi"});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// The events of a stream. Each says its own name, and they are numbered from 0.
fn events(text: &str) -> Vec<Value> {
    let mut number = 0..;
    let event = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let value: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(value["type"], name.strip_prefix("event: ").unwrap());
        assert_eq!(value["sequence_number"], number.next().unwrap());
        value
    };
    text.split_terminator("\n\n").map(event).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_response_is_what_openai_sends() {
    let rig = Rig::saying("ab");
    let body = ask(
        json!({"max_output_tokens": 9, "temperature": 0.5, "store": true, "metadata": {"a": "b"}}),
    );
    let response = rig.ok("/v1/responses", body).await;
    assert!(response["id"].as_str().unwrap().starts_with("resp_"));
    for (name, value) in [
        ("object", json!("response")),
        ("status", json!("completed")),
        ("error", Value::Null),
        ("incomplete_details", Value::Null),
        ("model", json!("tiny")),
        ("max_output_tokens", json!(9)),
        ("temperature", json!(0.5)),
        ("top_p", json!(1.0)),
        ("metadata", json!({"a": "b"})),
        ("parallel_tool_calls", json!(true)),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("previous_response_id", Value::Null),
        ("store", json!(false)),
    ] {
        assert_eq!(response[name], value, "{name}");
    }
    let usage = json!({
        "input_tokens": 10, "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 13,
    });
    assert_eq!(response["usage"], usage);
    let output = response["output"].as_array().unwrap();
    assert_eq!(output.len(), 1);
    assert_eq!(
        (&output[0]["type"], &output[0]["status"]),
        (&json!("message"), &json!("completed"))
    );
    let part = json!({"type": "output_text", "text": "ab", "annotations": [], "logprobs": []});
    assert_eq!(output[0]["content"], json!([part]));
    assert_eq!(rig.requests()[0].max_tokens, 9);
}

#[tokio::test]
async fn a_stream_has_numbered_events_in_openais_order() {
    let rig = Rig::saying("ab");
    let body = ask(
        json!({"stream": true, "include": ["message.output_text.logprobs"], "top_logprobs": 2}),
    );
    let response = rig.post("/v1/responses", body).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let events = events(&read_text(response).await);
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(kinds(&events), expected);
    assert_eq!(
        (&events[0]["response"]["status"], &events[0]["response"]["output"]),
        (&json!("in_progress"), &json!([]))
    );
    let item = &events[2]["item"];
    assert_eq!((&item["content"], &item["status"]), (&json!([]), &json!("in_progress")));
    for event in &events[3..9] {
        assert_eq!(
            (&event["item_id"], &event["output_index"], &event["content_index"]),
            (&item["id"], &json!(0), &json!(0))
        );
    }
    assert_eq!(
        (&events[4]["delta"], &events[4]["logprobs"][0]["token"]),
        (&json!("a"), &json!("a"))
    );
    assert_eq!(
        events[6]["logprobs"][0]["token"], "</s>",
        "the token that ended the answer has no text"
    );
    assert_eq!(
        (&events[7]["text"], events[7]["logprobs"].as_array().unwrap().len()),
        (&json!("ab"), 3)
    );
    let last = &events[10]["response"];
    assert_eq!(last["output"], json!([events[9]["item"]]));
    assert_eq!(
        (&last["id"], &last["usage"]["output_tokens"]),
        (&events[0]["response"]["id"], &json!(3))
    );
    assert_eq!(rig.requests()[0].top_logprobs, Some(2));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_incomplete() {
    let rig =
        Rig::new(|_| Script::Play([tokens("ab"), vec![finished(FinishReason::Length)]].concat()));
    let response = rig.ok("/v1/responses", ask(json!({}))).await;
    assert_eq!(
        (&response["status"], &response["output"][0]["status"]),
        (&json!("incomplete"), &json!("incomplete"))
    );
    assert_eq!(response["incomplete_details"], json!({"reason": "max_output_tokens"}));
    let text = read_text(rig.post("/v1/responses", ask(json!({"stream": true}))).await).await;
    let last = events(&text).pop().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["status"]),
        (&json!("response.incomplete"), &json!("incomplete"))
    );
}

#[tokio::test]
async fn a_failure_ends_a_stream_as_a_failed_response() {
    let rig = Rig::new(|_| {
        let failure = Failure { code: "pipeline_lost", message: "gone".into() };
        Script::Play([tokens("a"), vec![GenerationEvent::Failed(failure)]].concat())
    });
    let text = read_text(rig.post("/v1/responses", ask(json!({"stream": true}))).await).await;
    let last = events(&text).pop().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["status"]),
        (&json!("response.failed"), &json!("failed"))
    );
    assert_eq!(last["response"]["error"], json!({"code": "server_error", "message": "gone"}));
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], "a", "what was said stays");
}

#[tokio::test]
async fn instructions_and_items_reach_the_template() {
    let rig = Rig::saying("x");
    let body = ask(json!({"instructions": "s", "input": [
        {"role": "user", "content": "a"},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [
            {"type": "output_text", "text": "b", "annotations": [], "logprobs": []},
        ]},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "c"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "d"}]},
    ]}));
    rig.ok("/v1/responses", body.clone()).await;
    let prompt = rig.requests()[0].prompt.clone();
    let text: String = prompt.iter().map(|id| char::from_u32(*id).unwrap_or('|')).collect();
    let shown = text.replace('\u{100}', "").replace(['\u{102}', '\u{103}'], "|");
    assert_eq!(shown, "|s:s||u:a||a:b||s:c||u:d||a:");
    let counted = rig.ok("/v1/responses/input_tokens", body).await;
    let expected = json!({"object": "response.input_tokens", "input_tokens": prompt.len()});
    assert_eq!((counted, rig.requests().len()), (expected, 1));
}

#[tokio::test]
async fn what_cannot_be_honoured_is_named_in_this_apis_words() {
    let rig = Rig::saying("x");
    for (more, param) in [
        (json!({"input": null}), "input"),
        (json!({"input": 7}), "input"),
        (json!({"input": [{"role": "robot", "content": "x"}]}), "input[0].role"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
            "input[0].content[0].type",
        ),
        (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input[0].type"),
        (
            json!({"input": [{"type": "function_call", "call_id": "1", "name": "f"}]}),
            "input[0].arguments",
        ),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"conversation": "c"}), "conversation"),
        (json!({"background": true}), "background"),
        (json!({"prompt": {"id": "p"}}), "prompt"),
        (json!({"reasoning": {"effort": "high"}}), "reasoning.effort"),
        (json!({"reasoning": {"summary": "concise"}}), "reasoning.summary"),
        (json!({"text": {"format": {"type": "xml"}}}), "text.format.type"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tool_choice": {"type": "allowed_tools"}}), "tool_choice"),
        (json!({"truncation": "middle"}), "truncation"),
        (json!({"include": ["everything"]}), "include[0]"),
        (json!({"colour": "red"}), "colour"),
    ] {
        let (status, error) = rig.error("/v1/responses", ask(more.clone())).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{more} {error}");
    }
    let harmless = json!({
        "truncation": "auto", "include": ["reasoning.encrypted_content"], "background": false, "user": "u",
        "previous_response_id": null, "max_tool_calls": 3, "text": {"format": {"type": "text"}},
        "reasoning": {"effort": "none", "summary": "auto"}, "stream_options": {"include_obfuscation": false},
    });
    rig.ok("/v1/responses", ask(harmless)).await;
}

#[tokio::test]
async fn nothing_is_stored() {
    let rig = Rig::saying("x");
    let (status, error) = error_of(rig.get("/v1/responses/resp_1").await).await;
    assert_eq!((status, &error["code"]), (404, &json!("not_found")));
    assert!(error["message"].as_str().unwrap().contains("not stored"), "{error}");
}

/// What a stream of these deltas says, and the whole of it.
fn written(deltas: &[Delta], shown: Shown) -> (Vec<Value>, Value) {
    let new =
        || ResponseEncoder::new(Identity::new().unwrap(), "tiny".into(), Map::new(), shown, None);
    let (mut encoder, mut stream, mut whole) = (new(), Events::default(), WholeChoice::default());
    for delta in deltas {
        encoder.delta(0, delta, Usage::default(), &mut stream);
        whole.add(delta.clone());
    }
    encoder.finish(Usage::default(), &mut stream);
    let stream = String::from_utf8(stream.into_bytes().to_vec()).unwrap();
    let whole = serde_json::from_str(&encoder.whole(&[whole], Usage::default())).unwrap();
    (events(&stream), whole)
}

#[test]
fn thoughts_and_calls_are_items_of_their_own_and_the_same_whole() {
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
    for shown in [Shown::Content, Shown::Summary] {
        let (stream, whole) = written(&deltas, shown);
        let last = &stream.last().unwrap()["response"];
        assert_eq!(last["output"], whole["output"]);
        assert_eq!(last["status"], "completed");
        let done: Vec<&Value> = stream
            .iter()
            .filter(|event| event["type"] == "response.output_item.done")
            .map(|event| &event["item"])
            .collect();
        assert_eq!(json!(done), last["output"]);
        let kind = |index: usize| last["output"][index]["type"].as_str().unwrap();
        assert_eq!(
            [kind(0), kind(1), kind(2), kind(3)],
            ["reasoning", "message", "function_call", "function_call"]
        );
        let call = &last["output"][2];
        assert_eq!((&call["call_id"], &call["arguments"]), (&json!("c1"), &json!("{\"a\":1}")));
        let pieces: String = stream
            .iter()
            .filter(|event| event["type"] == "response.function_call_arguments.delta")
            .map(|event| event["delta"].as_str().unwrap())
            .collect();
        assert_eq!(pieces, "{\"a\":1}");
    }
    let (stream, _) = written(&deltas, Shown::Content);
    let thought = [
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ];
    assert_eq!(kinds(&stream)[2..9], thought);
    let (stream, whole) = written(&deltas, Shown::Summary);
    assert_eq!(kinds(&stream)[3], "response.reasoning_summary_part.added");
    assert_eq!(kinds(&stream)[4], "response.reasoning_summary_text.delta");
    assert_eq!(whole["output"][0]["summary"], json!([{"type": "summary_text", "text": "hm"}]));
}
