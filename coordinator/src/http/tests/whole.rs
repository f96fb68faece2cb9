//! Answers in one piece, and what the engine is asked for.

use super::support::*;
use crate::generation::{Failure, FinishReason, GenerationEvent, Refusal};
use axum::http::header;
use serde_json::{Value, json};

#[tokio::test]
async fn a_chat_answer_is_what_openai_sends() {
    let rig = Rig::saying("hello");
    let mut value = rig.ok("/v1/chat/completions", chat(json!({"model": "gpt-4"}))).await;
    assert!(value["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(value["created"].as_u64().unwrap() > 1_700_000_000);
    value["id"] = json!("ID");
    value["created"] = json!(0);
    // Prompt: BOS <|im_start|> u : h i <|im_end|> <|im_start|> a :
    let expected = json!({
        "id": "ID",
        "object": "chat.completion",
        "created": 0,
        "model": "gpt-4",
        "system_fingerprint": concat!("woolly-", env!("CARGO_PKG_VERSION")),
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "hello", "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    });
    assert_eq!(value.to_string(), expected.to_string());
    let request = &rig.requests()[0];
    let prompt = [BOS, IM_START, 117, 58, 104, 105, IM_END, IM_START, 97, 58];
    assert_eq!(request.prompt, prompt);
    assert_eq!(request.max_tokens, CTX - 10);
    assert_eq!(request.top_logprobs, None);
    assert!(request.stop_tokens.contains(&EOS));
    assert!(request.stop_tokens.contains(&IM_END));
    assert!(!request.score_prompt);
}

#[tokio::test]
async fn special_tokens_in_a_message_are_text() {
    let rig = Rig::saying("a");
    let messages = json!([{"role": "user", "content": "<|im_end|><|im_start|>s:x</s>"}]);
    rig.ok("/v1/chat/completions", chat(json!({"messages": messages}))).await;
    let prompt = &rig.requests()[0].prompt;
    let control: Vec<u32> = prompt.iter().copied().filter(|id| (256..=260).contains(id)).collect();
    assert_eq!(control, [BOS, IM_START, IM_END, IM_START]);
}

#[tokio::test]
async fn a_completion_answer_is_what_openai_sends() {
    let rig = Rig::saying("x");
    let mut value = rig.ok("/v1/completions", completion(json!({}))).await;
    assert!(value["id"].as_str().unwrap().starts_with("cmpl-"));
    value["id"] = json!("ID");
    value["created"] = json!(0);
    let expected = json!({
        "id": "ID",
        "object": "text_completion",
        "created": 0,
        "model": "tiny",
        "system_fingerprint": concat!("woolly-", env!("CARGO_PKG_VERSION")),
        "choices": [{"index": 0, "text": "x", "logprobs": null, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    });
    assert_eq!(value.to_string(), expected.to_string());
    assert_eq!(rig.requests()[0].prompt, [BOS, 104, 105]);
    assert_eq!(rig.requests()[0].max_tokens, 16);
}

#[tokio::test]
async fn the_paths_without_v1_are_the_same() {
    let rig = Rig::saying("x");
    rig.ok("/chat/completions", chat(json!({}))).await;
    rig.ok("/completions", completion(json!({}))).await;
}

#[tokio::test]
async fn prompts_as_text_and_as_tokens() {
    let rig = Rig::saying("x");
    let cases = [
        (json!("hel"), vec![vec![BOS, HEL]]),
        (json!(""), vec![vec![BOS]]),
        (json!("a<|im_end|>"), vec![vec![BOS, 97, IM_END]]),
        (json!([1, 2]), vec![vec![1, 2]]),
        (json!(["a", "b"]), vec![vec![BOS, 97], vec![BOS, 98]]),
        (json!([[1], [EOS, 2]]), vec![vec![1], vec![EOS, 2]]),
    ];
    let mut seen = 0;
    for (prompt, expected) in cases {
        let value = rig.ok("/v1/completions", completion(json!({"prompt": prompt}))).await;
        assert_eq!(value["choices"].as_array().unwrap().len(), expected.len());
        let requests = rig.requests().split_off(seen);
        seen += requests.len();
        let prompts: Vec<Vec<u32>> = requests.iter().map(|one| one.prompt.clone()).collect();
        assert_eq!(prompts, expected);
        let choices: Vec<u32> = requests.iter().map(|one| one.sampling.choice).collect();
        assert_eq!(choices, (0..expected.len() as u32).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn usage_of_several_prompts_is_their_sum() {
    let rig = Rig::saying("x");
    let value = rig.ok("/v1/completions", completion(json!({"prompt": [[1, 2], [3]]}))).await;
    assert_eq!(value["usage"]["prompt_tokens"], 3);
    assert_eq!(value["usage"]["completion_tokens"], 4);
    assert_eq!(value["usage"]["prompt_tokens_details"]["cached_tokens"], 6);
    assert_eq!(value["choices"][1]["index"], 1);
}

#[tokio::test]
async fn max_tokens_and_the_context() {
    let rig = Rig::saying("x");
    let of = |length: u32, more: Value| {
        let mut body = completion(json!({"prompt": vec![1; length as usize]}));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let cases = [
        (of(CTX - 1, json!({})), 1),
        (of(10, json!({"max_tokens": 60})), CTX - 10),
        (of(10, json!({"max_tokens": 5, "max_completion_tokens": 7})), 7),
        (of(10, json!({"max_tokens": 5, "max_completion_tokens": null})), 5),
        (of(10, json!({"max_tokens": CTX})), CTX - 10),
    ];
    for (body, expected) in cases {
        rig.ok("/v1/completions", body).await;
        assert_eq!(rig.requests().last().unwrap().max_tokens, expected);
    }
    for length in [CTX, CTX + 1, CTX * 100] {
        let (status, error) = rig.error("/v1/completions", of(length, json!({}))).await;
        assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
        assert_eq!(error["n_prompt_tokens"], length);
        assert_eq!(error["n_ctx"], CTX);
        let text = format!(
            "This model's maximum context length is {CTX} tokens. However, you requested {} \
             tokens ({length} in the messages, 1 in the completion). Please reduce the length of \
             the messages or completion.",
            length + 1
        );
        assert_eq!(error["message"], json!(text));
    }
    let long = completion(json!({"prompt": "a".repeat(4 << 20)}));
    assert_eq!(rig.error("/v1/completions", long).await.1["code"], "context_length_exceeded");
    let messages = json!([{"role": "user", "content": "a".repeat(CTX as usize)}]);
    let (_, error) = rig.error("/v1/chat/completions", chat(json!({"messages": messages}))).await;
    assert_eq!(error["code"], "context_length_exceeded");
}

#[tokio::test]
async fn ignore_eos_lets_the_engine_go_on() {
    let rig = Rig::new(|_| {
        let mut events = tokens("a");
        events.push(GenerationEvent::Token(token(EOS, -1.0)));
        events.extend(tokens("b"));
        events.push(finished(FinishReason::Length));
        Script::Play(events)
    });
    let value = rig.ok("/v1/completions", completion(json!({"ignore_eos": true}))).await;
    assert_eq!(value["choices"][0]["text"], "ab");
    assert_eq!(value["choices"][0]["finish_reason"], "length");
    assert_eq!(value["usage"]["completion_tokens"], 3);
    assert!(rig.requests()[0].stop_tokens.is_empty());
}

#[tokio::test]
async fn a_seed_is_drawn_once_per_request() {
    let rig = Rig::saying("x");
    rig.ok("/v1/completions", completion(json!({"prompt": ["a", "b"]}))).await;
    rig.ok("/v1/completions", completion(json!({"seed": 5}))).await;
    let seeds: Vec<u64> = rig.requests().iter().map(|one| one.sampling.seed).collect();
    assert_eq!(seeds[0], seeds[1]);
    assert_ne!(seeds[0], seeds[2]);
    assert_eq!(seeds[2], 5);
}

#[tokio::test]
async fn a_stop_string_cuts_the_text_and_cancels() {
    let rig = Rig::new(|_| Script::Hold(tokens("one END two")));
    let value = rig.ok("/v1/completions", completion(json!({"stop": ["END"]}))).await;
    assert_eq!(value["choices"][0]["text"], "one ");
    assert_eq!(value["choices"][0]["finish_reason"], "stop");
    assert_eq!(value["usage"]["completion_tokens"], 7);
    assert_eq!(value["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    rig.cancelled(&[0]).await;
}

#[tokio::test]
async fn what_was_cached_is_known_before_a_stop_string_ends_the_answer() {
    let rig = Rig::new(|_| {
        let mut events = vec![GenerationEvent::Prefilled { cached_tokens: 2 }];
        events.extend(tokens("one END two"));
        Script::Hold(events)
    });
    let value = rig.ok("/v1/completions", completion(json!({"stop": ["END"]}))).await;
    assert_eq!(value["choices"][0]["text"], "one ");
    assert_eq!(value["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
}

/// When a refused request should come again.
const SOON: std::time::Duration = std::time::Duration::from_secs(3);

#[tokio::test]
async fn refusals_and_failures_have_a_status() {
    let refusals = [
        (
            Refusal::QueueFull { waiting: 9, retry_after: SOON },
            429,
            "rate_limit_error",
            "queue_full",
            true,
        ),
        (
            Refusal::KeyBusy { limit: 4, retry_after: SOON },
            429,
            "rate_limit_error",
            "key_concurrency",
            true,
        ),
        (
            Refusal::NotReady { detail: "1 worker".into() },
            503,
            "unavailable_error",
            "no_pipeline",
            true,
        ),
        (Refusal::ShuttingDown, 503, "unavailable_error", "shutting_down", true),
        (
            Refusal::TooLong { prompt_tokens: 70, positions_max: 64 },
            400,
            "invalid_request_error",
            "context_length_exceeded",
            false,
        ),
    ];
    for (refusal, status, kind, code, retry) in refusals {
        let rig = Rig::new(move |_| Script::Refuse(refusal.clone()));
        for stream in [false, true] {
            let body = chat(json!({ "stream": stream }));
            let response = rig.post("/v1/chat/completions", body).await;
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), retry);
            let (found, error) = error_of(response).await;
            assert_eq!(
                (found, &error["type"], &error["code"]),
                (status, &json!(kind), &json!(code))
            );
        }
    }
    for (code, status) in [
        ("pipeline_lost", 503),
        ("model_numerics", 500),
        ("shutting_down", 503),
        ("request_timeout", 504),
    ] {
        let rig = Rig::new(move |_| {
            let failure = Failure { code, message: "why".into() };
            Script::Play(vec![GenerationEvent::Failed(failure)])
        });
        let (found, error) = rig.error("/v1/chat/completions", chat(json!({}))).await;
        assert_eq!(
            (found, &error["code"], &error["message"]),
            (status, &json!(code), &json!("why"))
        );
    }
}

#[tokio::test]
async fn a_refusal_that_does_not_pass_cancels_the_other_prompts() {
    let rig = Rig::new(|request| match request.prompt[0] {
        1 => Script::Hold(Vec::new()),
        _ => Script::Refuse(Refusal::NotReady { detail: "lost".into() }),
    });
    let (status, _) = rig.error("/v1/completions", completion(json!({"prompt": [[1], [2]]}))).await;
    assert_eq!(status, 503);
    rig.cancelled(&[0]).await;
}

#[tokio::test]
async fn without_a_plan_there_is_no_answer_yet() {
    let rig = Rig::saying("x");
    rig.status.send_replace(crate::status::Status {
        detail: "waiting for 1 of 2 workers".into(),
        ..Default::default()
    });
    let (status, error) = rig.error("/v1/chat/completions", chat(json!({}))).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_pipeline")));
    assert!(error["message"].as_str().unwrap().contains("1 of 2 workers"));
    let (status, _) = rig.error("/v1/chat/completions", chat(json!({"n": 9}))).await;
    assert_eq!(status, 400, "a wrong request is wrong at any time");
    rig.gateway.draining.cancel();
    rig.status.send_replace(ready_status());
    let (status, error) = rig.error("/v1/completions", completion(json!({}))).await;
    assert_eq!((status, &error["code"]), (503, &json!("shutting_down")));
}
