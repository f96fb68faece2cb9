//! Words that real clients send and that ask for nothing, or for what happens anyway: 200 each.
//!
//! Most were reported to other servers, by users whose client stopped working.

use super::support::*;
use axum::http::header;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn says(messages: Value) -> Value {
    json!({"model": "tiny", "max_tokens": 4, "messages": messages})
}

/// Requests to the chat endpoint that were refused once.
fn reported() -> Vec<Value> {
    let user = json!({"role": "user", "content": "Hi"});
    let part = json!({"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}});
    vec![
        says(json!([{"role": "user", "content": "Hi", "type": "text"}])),
        says(json!([{"role": "user", "content": [part], "cache_control": {"type": "ephemeral"}}])),
        says(json!([user, {"role": "assistant", "content": "x", "annotations": []}, user])),
        says(json!([user, {"role": "assistant", "content": null}, user])),
        says(json!([user, {"role": "assistant"}, user])),
        says(json!([{"role": "function", "content": "4", "name": "add"}, user])),
        chat(json!({"max_tokens": -1})),
        chat(json!({"max_tokens": null})),
        chat(json!({"max_tokens": 4.0})),
        chat(json!({"max_tokens": 100_000})),
        chat(json!({"seed": -1})),
        chat(json!({"seed": -7})),
        chat(json!({"top_k": -1})),
        chat(json!({"top_p": 0})),
        chat(json!({"stop": ""})),
        chat(json!({"chat_template_kwargs": {"enable_thinking": false}})),
        chat(json!({"reasoning_effort": "none"})),
        chat(json!({"think": false})),
        chat(json!({"include_reasoning": false})),
        chat(json!({"tools": [], "tool_choice": "auto"})),
        chat(json!({"tool_choice": "auto"})),
        chat(json!({"stream_options": {"include_usage": true}})),
        chat(json!({"store": true, "metadata": {"a": "b"}})),
        chat(json!({"verbosity": "low"})),
        chat(json!({"service_tier": "flex"})),
        chat(json!({"cache_prompt": false, "timings_per_token": false})),
        chat(
            json!({"repeat_last_n": 64, "typical_p": 1, "xtc_probability": 0, "xtc_threshold": 0.1}),
        ),
        chat(json!({"mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1})),
        chat(
            json!({"dry_multiplier": 0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": -1}),
        ),
        chat(
            json!({"samplers": ["top_k", "typ_p", "top_p", "min_p", "temperature"], "temperature": 0}),
        ),
        json!({"messages": [user]}),
    ]
}

/// As clients and evaluation harnesses send them, all fields together.
fn whole_requests() -> Vec<(&'static str, Value)> {
    let user = json!({"role": "user", "content": "Hi"});
    vec![
        // llama-server's own page.
        (
            CHAT,
            json!({"messages": [user], "stream": true, "cache_prompt": true,
            "reasoning_format": "none", "samplers": "edkypmxt", "temperature": 0.8,
            "dynatemp_range": 0, "dynatemp_exponent": 1, "top_k": 40, "top_p": 1, "min_p": 0,
            "typical_p": 1, "xtc_probability": 0, "xtc_threshold": 0.1, "repeat_last_n": 64,
            "repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0, "dry_multiplier": 0,
            "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": -1, "max_tokens": -1,
            "timings_per_token": false}),
        ),
        // lm-eval: local-chat-completions, local-completions.
        (
            CHAT,
            json!({"messages": [{"role": "user", "content": "Hi", "type": "text"}],
            "model": "tiny", "max_tokens": 8, "temperature": 0, "stop": ["\n\n"], "seed": 1234}),
        ),
        (
            COMPLETIONS,
            json!({"prompt": [[1, 2, 3]], "model": "tiny", "temperature": 0,
            "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true}),
        ),
        // openai-python with a history that OpenAI wrote.
        (
            CHAT,
            json!({"model": "tiny", "messages": [user, {"role": "assistant", "content": "x",
            "refusal": null, "annotations": [], "audio": null, "function_call": null,
            "tool_calls": null}, user], "stream": false, "n": 1, "parallel_tool_calls": true}),
        ),
    ]
}

#[tokio::test]
async fn what_was_reported_elsewhere_is_answered() {
    let rig = Rig::saying("x");
    for body in reported() {
        rig.ok(CHAT, body).await;
    }
    for (path, body) in whole_requests() {
        let response = rig.post(path, body.clone()).await;
        assert_eq!(response.status(), 200, "{body}");
    }
}

#[tokio::test]
async fn the_limits_that_clients_mean() {
    let rig = Rig::saying("x");
    let prompt = vec![1; 10];
    let asked = async |more: Value| {
        let mut body = completion(json!({"prompt": prompt}));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rig.ok(COMPLETIONS, body).await;
        rig.requests().pop().unwrap()
    };
    assert_eq!(asked(json!({})).await.max_tokens, 16);
    for to_the_end in [json!({"max_tokens": -1}), json!({"max_tokens": null})] {
        assert_eq!(asked(to_the_end).await.max_tokens, CTX - 10);
    }
    assert_eq!(asked(json!({"max_tokens": CTX + 1})).await.max_tokens, CTX - 10);
    assert_eq!(asked(json!({"max_tokens": u64::MAX})).await.max_tokens, CTX - 10);
    let most_likely = asked(json!({"top_p": 0, "top_k": -1})).await.sampling;
    assert_eq!((most_likely.top_p, most_likely.top_k), (f32::MIN_POSITIVE, 0));
}

#[tokio::test]
async fn the_seed_that_was_used_is_told_and_gives_the_same_again() {
    let rig = Rig::saying("x");
    for stream in [false, true] {
        let told = async |body: Value| {
            let response = rig.post(CHAT, body).await;
            let seed = response.headers()["x-woolly-seed"].to_str().unwrap().to_owned();
            read_text(response).await;
            seed.parse::<u64>().unwrap()
        };
        assert_eq!(told(chat(json!({"seed": 5, "stream": stream}))).await, 5);
        let negative = told(chat(json!({"seed": -2, "stream": stream}))).await;
        assert_eq!(negative, u64::MAX - 1);
        assert_eq!(told(chat(json!({"seed": negative, "stream": stream}))).await, negative);
        let drawn = told(chat(json!({"seed": -1, "stream": stream}))).await;
        assert_eq!(rig.requests().last().unwrap().sampling.seed, drawn);
    }
}

#[tokio::test]
async fn models_are_known_by_many_names() {
    let rig = Rig::saying("x");
    for name in ["tiny", "TINY", "Tiny:latest", "tiny:LATEST", "GPT-4", "org/Tiny:latest"] {
        assert_eq!(rig.ok(CHAT, chat(json!({"model": name}))).await["model"], name);
        let path = format!("/v1/models/{name}");
        assert_eq!(rig.get(&path).await.status(), 200, "{name}");
    }
    assert_eq!(
        rig.ok(CHAT, json!({"messages": [{"role": "user", "content": "a"}]})).await["model"],
        "tiny"
    );
    for name in ["tiny:7b", ":latest", "tinyx", "latest", "ö:latest"] {
        assert_eq!(rig.error(CHAT, chat(json!({"model": name}))).await.0, 404, "{name}");
    }
}

#[tokio::test]
async fn a_last_message_is_continued_if_the_client_says_so() {
    let rig = Rig::saying("x");
    let messages =
        json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "he "}]);
    let tokens = async |more: Value| {
        let mut body = chat(more);
        body["messages"] = messages.clone();
        let value = rig.ok("/tokenize", body.clone()).await;
        rig.ok(CHAT, body).await;
        assert_eq!(value["tokens"], json!(rig.requests().last().unwrap().prompt));
        rig.requests().pop().unwrap().prompt
    };
    let frame = |role: u8, text: &[u32]| [&[IM_START, role.into(), b':'.into()][..], text].concat();
    let question = [vec![BOS], frame(b'u', &[b'q'.into(), IM_END])].concat();
    let he = [HE, b' '.into()];
    let continued = [question.clone(), frame(b'a', &he)].concat();
    let answered = [question, frame(b'a', &[HE, b' '.into(), IM_END]), frame(b'a', &[])].concat();
    assert_eq!(tokens(json!({})).await, answered);
    let both = json!({"continue_final_message": true, "add_generation_prompt": false});
    assert_eq!(tokens(both).await, continued);
    assert_eq!(tokens(json!({"continue_final_message": true})).await, continued);
    let (status, error) = rig.error(CHAT, chat(json!({"continue_final_message": true}))).await;
    assert_eq!((status, &error["param"]), (400, &json!("continue_final_message")));
}

#[tokio::test]
async fn a_character_may_begin_in_the_prompt_and_end_in_the_completion() {
    let rig = Rig::new(|_| {
        let rest = [0x9f, 0xa4, 0x97];
        let mut events: Vec<_> =
            rest.map(|byte| crate::generation::GenerationEvent::Token(token(byte, -0.5))).into();
        events.push(finished(crate::generation::FinishReason::Length));
        Script::Play(events)
    });
    let prompt = [u32::from(b'a'), 0xf0];
    let body = completion(json!({"prompt": prompt, "echo": true}));
    assert_eq!(rig.ok(COMPLETIONS, body).await["choices"][0]["text"], "a🤗");
}

#[tokio::test]
async fn special_tokens_are_shown_to_those_who_look_at_tokens() {
    let rig = Rig::saying("x");
    let body = json!({"tokens": [BOS, IM_START, f64::from(HEL), IM_END]});
    let value = rig.ok("/detokenize", body).await;
    assert_eq!(value["prompt"], "<s><|im_start|>hel<|im_end|>");
}

#[tokio::test]
async fn a_refusal_says_when_to_come_again() {
    use crate::generation::Refusal;
    let rig = Rig::new(|_| {
        let retry_after = std::time::Duration::from_millis(6200);
        Script::Refuse(Refusal::QueueFull { waiting: 9, retry_after })
    });
    let response = rig.post(CHAT, chat(json!({}))).await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "7");
}
