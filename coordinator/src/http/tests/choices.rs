//! Several choices of a prompt, and what ends a choice.

use super::support::*;
use crate::generation::{FinishReason, GenerationEvent, GenerationRequest};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// An engine whose choice `k` says `k + 1` times the letter that follows the last one by `k`.
fn counting(request: &GenerationRequest) -> Script {
    let choice = request.sampling.choice;
    let letter = b'a' + u8::try_from(choice).unwrap();
    let text = String::from_utf8(vec![letter; choice as usize + 1]).unwrap();
    Script::Play(say(&text))
}

fn texts(value: &Value) -> Vec<(u64, String)> {
    let choices = value["choices"].as_array().unwrap().iter();
    let text = |choice: &Value| {
        let text = choice["text"].as_str().or(choice["message"]["content"].as_str());
        (choice["index"].as_u64().unwrap(), text.unwrap().to_owned())
    };
    choices.map(text).collect()
}

fn named(list: &[(u64, &str)]) -> Vec<(u64, String)> {
    list.iter().map(|(index, text)| (*index, (*text).to_owned())).collect()
}

#[tokio::test]
async fn a_prompt_has_as_many_choices_as_asked_for_and_counts_once() {
    let rig = Rig::new(counting);
    let alone = rig.ok(CHAT, chat(json!({}))).await;
    let value = rig.ok(CHAT, chat(json!({"n": 3}))).await;
    assert_eq!(texts(&value), named(&[(0, "a"), (1, "bb"), (2, "ccc")]));
    assert_eq!(value["usage"]["prompt_tokens"], alone["usage"]["prompt_tokens"]);
    assert_eq!(value["usage"]["completion_tokens"], 2 + 3 + 4);
    assert_eq!(value["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
    let requests = rig.requests();
    let (alone, three) = requests.split_at(1);
    assert_eq!(alone[0].siblings, None);
    for (index, one) in three.iter().enumerate() {
        assert_eq!((&one.prompt, one.sampling.choice), (&alone[0].prompt, index as u32));
        assert_eq!(one.sampling.seed, three[0].sampling.seed);
        assert_eq!(one.siblings, three[0].siblings);
    }
    assert!(three[0].siblings.is_some());
    let metrics = read_text(rig.get("/metrics").await).await;
    let counted = format!("woolly_prompt_tokens_total {}\n", 2 * alone[0].prompt.len());
    assert!(metrics.contains(&counted), "{metrics}");
}

#[tokio::test]
async fn choices_follow_the_order_of_their_prompts() {
    let rig = Rig::new(counting);
    let value = rig.ok(COMPLETIONS, completion(json!({"prompt": ["x", "y"], "n": 2}))).await;
    assert_eq!(texts(&value), named(&[(0, "a"), (1, "bb"), (2, "ccc"), (3, "dddd")]));
    assert_eq!(value["usage"]["prompt_tokens"], 4);
    let asked: Vec<_> = rig.requests().iter().map(|one| (one.prompt[1], one.siblings)).collect();
    assert_eq!(asked.iter().map(|one| one.0).collect::<Vec<_>>(), [120, 120, 121, 121]);
    assert!(asked[0].1 == asked[1].1 && asked[2].1 == asked[3].1 && asked[1].1 != asked[2].1);
}

#[tokio::test]
async fn a_stream_of_eight_choices_names_each_in_every_chunk() {
    let rig = Rig::new(counting);
    let options = json!({"include_usage": true});
    for (path, body) in [(CHAT, chat(json!({}))), (COMPLETIONS, completion(json!({})))] {
        let mut body = body;
        (body["n"], body["stream"], body["stream_options"]) =
            (json!(8), json!(true), options.clone());
        let text = read_text(rig.post(path, body).await).await;
        let (mut said, mut ends) = (vec![String::new(); 8], vec![0; 8]);
        let events = text.split("\n\n").filter_map(|event| event.strip_prefix("data: {"));
        let mut usage = Value::Null;
        for event in events {
            let event: Value = serde_json::from_str(&format!("{{{event}")).unwrap();
            usage = event["usage"].clone();
            let Some(choice) = event["choices"].get(0) else { continue };
            let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
            assert_eq!(ends[index], 0, "nothing follows the end of a choice: {event}");
            let new = choice["text"].as_str().or(choice["delta"]["content"].as_str());
            said[index].push_str(new.unwrap_or(""));
            ends[index] += usize::from(choice["finish_reason"] == "stop");
        }
        assert_eq!(ends, [1; 8]);
        let letters: Vec<_> = (1..=8).map(|k| "abcdefgh"[k - 1..k].repeat(k)).collect();
        assert_eq!(said, letters);
        assert_eq!(usage["completion_tokens"], (2..=9).sum::<u64>());
        assert!(text.ends_with("data: [DONE]\n\n"));
    }
}

#[tokio::test]
async fn more_choices_than_there_may_be_are_refused_at_once() {
    let rig = Rig::with(|config| config.key_concurrency = Some(4), counting);
    let started = Instant::now();
    for (path, more, param) in [
        (CHAT, json!({"n": 0}), "n"),
        (CHAT, json!({"n": 9, "stream": true}), "n"),
        (CHAT, json!({"n": 1_000_000_000, "stream": true}), "n"),
        (CHAT, json!({"n": 5}), "n"),
        (COMPLETIONS, json!({"n": 2, "prompt": ["a", "b", "c"]}), "n"),
        (COMPLETIONS, json!({"n": 8, "prompt": vec!["a"; 257]}), "n"),
        (COMPLETIONS, json!({"n": 2, "best_of": 1}), "best_of"),
        (COMPLETIONS, json!({"best_of": 1_000_000}), "best_of"),
    ] {
        let body = if path == CHAT { chat(more.clone()) } else { completion(more.clone()) };
        let (status, error) = rig.error(path, body).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{more} {error}");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(rig.requests().is_empty());
    rig.ok(CHAT, chat(json!({"n": 4}))).await;
    rig.ok(COMPLETIONS, completion(json!({"n": 2, "best_of": 2}))).await;
}

#[tokio::test]
async fn a_stream_that_goes_away_cancels_every_choice() {
    let rig = Rig::new(|_| Script::Hold(Vec::new()));
    let response = rig.post(CHAT, chat(json!({"n": 3, "stream": true}))).await;
    drop(response);
    rig.cancelled(&[0, 1, 2]).await;
}

/// An engine that stops at this byte.
fn stopping_at(text: &'static str) -> Rig {
    Rig::new(move |_| {
        let mut events = tokens(text);
        events.push(finished(FinishReason::Stop));
        Script::Play(events)
    })
}

#[tokio::test]
async fn a_stop_token_ends_the_answer_and_is_named() {
    let rig = stopping_at("abx");
    let body = json!({"stop_token_ids": [120, 120, 7], "logprobs": 0});
    let value = rig.ok(COMPLETIONS, completion(body)).await;
    let choice = &value["choices"][0];
    assert_eq!((&choice["text"], &choice["stop_reason"]), (&json!("ab"), &json!(120)));
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["logprobs"]["tokens"], json!(["a", "b", "x"]));
    let model = rig.gateway.models.first().unwrap();
    let ends = &model.end_tokens;
    assert_eq!(rig.requests()[0].stop_tokens[..], [&ends[..], &[7, 120]].concat());
    let body = json!({"stop_token_ids": [120], "include_stop_str_in_output": true});
    let value = rig.ok(CHAT, chat(body)).await;
    let choice = &value["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["stop_reason"]),
        (&json!("abx"), &json!(120))
    );
}

#[tokio::test]
async fn the_models_own_end_is_no_stop_token_of_the_request() {
    let rig = Rig::saying("ab");
    let value = rig.ok(CHAT, chat(json!({"stop_token_ids": [EOS, 7]}))).await;
    assert!(value["choices"][0].get("stop_reason").is_none(), "{value}");
    let body = json!({"stop_token_ids": [EOS], "ignore_eos": true, "stream": true});
    let text = read_text(rig.post(CHAT, chat(body)).await).await;
    assert!(text.contains(r#""finish_reason":"stop","stop_reason":257"#), "{text}");
    assert_eq!(rig.requests()[1].stop_tokens[..], [EOS]);
    for bad in [json!([VOCAB]), json!([-1]), json!(["a"]), json!(7), json!(vec![7; 257])] {
        let (status, error) = rig.error(CHAT, chat(json!({"stop_token_ids": bad}))).await;
        assert_eq!((status, &error["param"]), (400, &json!("stop_token_ids")));
    }
}

#[tokio::test]
async fn a_stop_string_is_named_and_shown_if_asked_for() {
    let rig = Rig::new(|_| {
        let mut events = tokens("one END two");
        events.push(GenerationEvent::Token(token(EOS, -0.25)));
        Script::Play(events)
    });
    for (show, text) in [(false, "one "), (true, "one END")] {
        let body = json!({"stop": ["zzz", "END"], "include_stop_str_in_output": show});
        let value = rig.ok(COMPLETIONS, completion(body.clone())).await;
        let choice = &value["choices"][0];
        assert_eq!((&choice["text"], &choice["stop_reason"]), (&json!(text), &json!("END")));
        let mut body = completion(body);
        body["stream"] = json!(true);
        let streamed = read_text(rig.post(COMPLETIONS, body).await).await;
        let said: String = streamed
            .split("\"text\":\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert_eq!(said, text);
        assert!(streamed.contains(r#""finish_reason":"stop","stop_reason":"END""#), "{streamed}");
    }
}
