//! What an answer says beside its text: tokens, the prompt's log-probabilities, how long it took. And what the
//! engine is told of limits.

use super::support::*;
use crate::generation::{FinishReason, GenerationEvent, GenerationRequest, TokenEvent};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// The messages of a stream.
fn messages(text: &str) -> Vec<Value> {
    let events = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    events
        .filter(|event| *event != "[DONE]")
        .map(|event| serde_json::from_str(event).unwrap())
        .collect()
}

#[tokio::test]
async fn token_ids_are_those_of_the_prompt_and_of_everything_that_was_generated() {
    let rig = Rig::saying("xy");
    let body = completion(json!({"prompt": ["h", "i"], "n": 2, "return_token_ids": true}));
    let value = rig.ok(COMPLETIONS, body).await;
    let ids = json!([120, 121, EOS]);
    for (index, choice) in value["choices"].as_array().unwrap().iter().enumerate() {
        let prompt = json!([BOS, if index < 2 { 104 } else { 105 }]);
        assert_eq!((&choice["token_ids"], &choice["prompt_token_ids"]), (&ids, &prompt));
    }
    let value = rig.ok(CHAT, chat(json!({"return_token_ids": true}))).await;
    assert_eq!(value["choices"][0]["token_ids"], ids);
    assert_eq!(value["prompt_token_ids"], json!(rig.requests().last().unwrap().prompt));
    let value = rig.ok(CHAT, chat(json!({}))).await;
    assert!(
        value.get("prompt_token_ids").is_none() && value["choices"][0].get("token_ids").is_none()
    );
}

#[tokio::test]
async fn a_stream_brings_the_prompts_tokens_first_and_each_token_once() {
    let rig = Rig::saying("xyz");
    let options = json!({"stream": true, "return_token_ids": true, "stop": "yz"});
    for (path, mut body) in [(CHAT, chat(json!({}))), (COMPLETIONS, completion(json!({})))] {
        options.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        let messages = messages(&read_text(rig.post(path, body).await).await);
        let ids =
            messages.iter().filter_map(|message| message["choices"][0]["token_ids"].as_array());
        // The stop string's tokens were generated, too.
        assert_eq!(ids.flatten().cloned().collect::<Vec<_>>(), [120, 121, 122]);
        let prompt = |message: &Value| match path {
            CHAT => message.get("prompt_token_ids").cloned(),
            _ => message["choices"][0].get("prompt_token_ids").cloned(),
        };
        let told: Vec<_> = messages.iter().map(prompt).collect();
        assert_eq!(told[0], Some(json!(rig.requests().last().unwrap().prompt)));
        assert!(told[1..].iter().all(Option::is_none));
    }
}

/// Scores `BOS h i` and says one token.
fn scoring(request: &GenerationRequest) -> Script {
    let event =
        |token, logprob, top: &[(u32, f32)]| TokenEvent { token, logprob, top: top.to_vec() };
    let mut events = Vec::new();
    if request.score_prompt {
        let first = event(104, -2.0, &[(97, -0.5), (104, -2.0), (98, -3.0)]);
        let second = event(105, -8.0, &[(97, -0.5), (98, -1.0), (99, -3.0)]);
        events.push(GenerationEvent::Scored(vec![first, second]));
    }
    let top = [(120, -0.25), (121, -1.0), (122, -3.0)];
    let top = &top[..usize::from(request.top_logprobs.unwrap_or(0)).min(3)];
    events.push(GenerationEvent::Token(event(120, -0.25, top)));
    events.push(finished(FinishReason::Length));
    Script::Play(events)
}

#[tokio::test]
async fn the_prompts_log_probabilities_have_vllms_shape() {
    let rig = Rig::new(scoring);
    let entry = |text: &str, logprob: f64, rank: Option<u32>| json!({"logprob": logprob, "rank": rank, "decoded_token": text});
    let expected = json!([
        null,
        {"104": entry("h", -2.0, Some(2)), "97": entry("a", -0.5, Some(1))},
        {"105": entry("i", -8.0, None), "97": entry("a", -0.5, Some(1)), "98": entry("b", -1.0, Some(2))},
    ]);
    let body = json!({"prompt_logprobs": 2, "logprobs": 1, "n": 2});
    let value = rig.ok(COMPLETIONS, completion(body)).await;
    for choice in value["choices"].as_array().unwrap() {
        assert_eq!(choice["prompt_logprobs"], expected);
        assert_eq!(choice["text"], "x");
        assert_eq!(choice["logprobs"]["top_logprobs"], json!([{"x": -0.25}]), "one was asked for");
    }
    let asked: Vec<_> =
        rig.requests().iter().map(|one| (one.score_prompt, one.top_logprobs)).collect();
    assert_eq!(asked, [(true, Some(2)), (false, Some(1))], "the first choice scores for all");
    let value = rig.ok(CHAT, chat(json!({"prompt_logprobs": 0}))).await;
    assert_eq!(value["prompt_logprobs"][1], json!({"104": entry("h", -2.0, None)}));
    assert!(value["choices"][0]["logprobs"].is_null());
    let body = chat(json!({"prompt_logprobs": 1, "stream": true}));
    let (status, error) = rig.error(CHAT, body).await;
    assert_eq!((status, &error["param"]), (400, &json!("prompt_logprobs")));
}

#[tokio::test(start_paused = true)]
async fn timings_are_told_to_whoever_asks() {
    let rig = Rig::saying("xy");
    let value = rig.ok(CHAT, chat(json!({"timings_per_token": true}))).await;
    assert_eq!(
        (&value["timings"]["predicted_n"], &value["timings"]["cache_n"]),
        (&json!(3), &json!(3))
    );
    assert!(value["timings"]["prompt_per_second"].is_number());
    assert!(rig.ok(CHAT, chat(json!({}))).await.get("timings").is_none());
    let body = completion(json!({"timings_per_token": true, "stream": true}));
    let messages = messages(&read_text(rig.post(COMPLETIONS, body).await).await);
    let counts: Vec<_> =
        messages.iter().map(|message| message["timings"]["predicted_n"].clone()).collect();
    assert_eq!(counts, [1, 2, 3]);
}

#[tokio::test]
async fn limits_reach_the_engine() {
    let rig = Rig::saying("xy");
    let body = json!({"min_tokens": 2, "allowed_token_ids": [120, 121], "bad_words": ["zz"],
        "stop_token_ids": [9], "max_tokens": 4, "dry_multiplier": 0.5, "xtc_probability": 0.25});
    rig.ok(CHAT, chat(body)).await;
    rig.ok(CHAT, chat(json!({"min_tokens": 0, "bad_words": [], "dry_multiplier": 0}))).await;
    let requests = rig.requests();
    let limits = requests[0].limits.as_ref().unwrap();
    assert_eq!(limits.min_tokens, 2);
    assert_eq!(limits.ends, requests[0].stop_tokens);
    assert!(limits.ends.contains(&9) && limits.ends.contains(&EOS));
    assert_eq!(limits.bad_words[..], [vec![122, 122]]);
    let only = woolly_protocol::sampling::TokenMask::Only(vec![120, 121]);
    assert_eq!(limits.only.as_deref(), Some(&only));
    assert!(requests[0].dry.is_some() && requests[0].sampling.xtc_probability == 0.25);
    assert!(requests[1].limits.is_none() && requests[1].dry.is_none());
    for (body, param) in [
        (json!({"min_tokens": 5, "max_tokens": 4}), "min_tokens"),
        (json!({"min_tokens": 1000}), "min_tokens"),
        (json!({"min_tokens": 1, "allowed_token_ids": [EOS]}), "allowed_token_ids"),
        (json!({"bad_words": ["x"], "allowed_token_ids": [120]}), "allowed_token_ids"),
    ] {
        let (status, error) = rig.error(CHAT, chat(body)).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
    }
    let (status, error) = rig.error(COMPLETIONS, completion(json!({"min_tokens": 17}))).await;
    assert_eq!((status, &error["param"]), (400, &json!("min_tokens")), "16 is the default");
}

#[tokio::test]
async fn no_stop_string_counts_before_there_are_enough_tokens() {
    let rig = Rig::saying("abab");
    let value = rig.ok(COMPLETIONS, completion(json!({"stop": "b", "min_tokens": 3}))).await;
    assert_eq!(value["choices"][0]["text"], "aba");
    assert_eq!(value["choices"][0]["stop_reason"], "b");
}
