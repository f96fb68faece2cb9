//! What a client gets: streams, whole answers, several at a time; and what it leaves when it goes.

use super::{chat, model_id};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::fixtures;

/// The events of a stream as JSON; the last one must be `[DONE]`.
fn events(cluster: &Cluster, path: &str, body: &Value) -> Vec<Value> {
    let mut all: Vec<String> =
        cluster.stream(path, body).collect::<Result<_, _>>().expect("the stream is whole");
    assert_eq!(all.pop().as_deref(), Some("[DONE]"));
    all.iter().map(|event| serde_json::from_str(event).expect("an event is JSON")).collect()
}

fn streamed_text(events: &[Value]) -> String {
    let text = |event: &Value| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    events.iter().filter_map(text).collect()
}

#[test]
fn a_chat_is_streamed_and_answered_alike() {
    let cluster = Setup::of_two(fixtures::smollm2()).start();
    let mut body = chat(&cluster, "Name three uses for a brick.", 24);
    let whole = cluster.post("/v1/chat/completions", &body);
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["choices"][0]["message"]["role"], "assistant");
    let usage = &whole["usage"];
    assert_eq!(usage["completion_tokens"], 24);
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    let sum = usage["prompt_tokens"].as_u64().unwrap() + 24;
    assert_eq!(usage["total_tokens"], sum);

    body["stream_options"] = json!({ "include_usage": true });
    let events = events(&cluster, "/v1/chat/completions", &body);
    assert_eq!(events[0]["object"], "chat.completion.chunk");
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let (last, before) = (&events[events.len() - 1], &events[events.len() - 2]);
    assert_eq!(last["choices"], json!([]));
    assert_eq!(&last["usage"]["completion_tokens"], &usage["completion_tokens"]);
    assert_eq!(before["choices"][0]["finish_reason"], "length");
    let text = streamed_text(&events);
    assert_eq!(whole["choices"][0]["message"]["content"], text);
    assert!(text.contains("brick"), "an answer about bricks: {text:?}");
}

#[test]
fn a_completion_takes_text_or_token_ids() {
    let cluster = Setup::of_two(fixtures::smollm2()).start();
    let prompt = "The capital of France is";
    let tokens = cluster.post("/tokenize", &json!({ "prompt": prompt }))["tokens"].clone();
    let back = cluster.post("/detokenize", &json!({ "tokens": tokens }));
    assert_eq!(back["prompt"], prompt);
    let complete = |prompt: Value| {
        let body = json!({
            "model": model_id(&cluster), "prompt": prompt, "max_tokens": 6, "temperature": 0,
        });
        cluster.post("/v1/completions", &body)["choices"][0]["text"].clone()
    };
    let text = complete(json!(prompt));
    assert!(text.as_str().unwrap().contains("Paris"), "{text}");
    assert_eq!(complete(tokens), text);
}

#[test]
fn a_seed_gives_the_same_text_again() {
    let cluster = Setup::of_two(fixtures::smollm2()).start();
    let complete = |seed: u32| {
        let mut body = chat(&cluster, "Tell me a story.", 16);
        body["temperature"] = json!(1.0);
        body["seed"] = json!(seed);
        cluster.post("/v1/chat/completions", &body)["choices"][0]["message"]["content"].clone()
    };
    assert_eq!(complete(1), complete(1));
    assert_ne!(complete(1), complete(2));
}

#[test]
fn requests_share_the_pipeline_and_do_not_change_each_other() {
    let cluster = Setup::of_two(fixtures::smollm2()).start();
    let questions = ["What is a brick?", "Count to ten.", "Why is the sky blue?", "Hello!"];
    let ask = |question: &str| {
        let body = chat(&cluster, question, 16);
        cluster.post("/v1/chat/completions", &body)["choices"][0]["message"]["content"].clone()
    };
    let alone: Vec<Value> = questions.iter().map(|question| ask(question)).collect();
    let ask = &ask;
    let together: Vec<Value> = thread::scope(|scope| {
        let running: Vec<_> =
            questions.iter().map(|question| scope.spawn(move || ask(question))).collect();
        running.into_iter().map(|thread| thread.join().expect("a request succeeds")).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn a_short_request_does_not_wait_for_a_long_one() {
    let cluster = Setup::of_two(fixtures::granite_tiny()).start();
    let mut long = chat(&cluster, "Begin.", 4000);
    long["ignore_eos"] = json!(true);
    let mut long = cluster.stream("/v1/chat/completions", &long);
    long.next().expect("the long answer has begun").unwrap();
    let short = cluster.post("/v1/chat/completions", &chat(&cluster, "Hello!", 4));
    assert!(short["usage"]["completion_tokens"].as_u64().unwrap() <= 4);
    let running = cluster.get("/health")["requests_running"].as_u64();
    assert_eq!(running, Some(1), "the long answer still runs");
    long.abandon();
}

#[test]
fn a_client_that_goes_away_frees_its_blocks() {
    let cluster = Setup::of_two(fixtures::granite_tiny()).start();
    let free = |cluster: &Cluster| cluster.get("/health")["kv_blocks_free"].as_u64().unwrap();
    let before = free(&cluster);
    assert!(before > 0);
    let mut body = chat(&cluster, "Begin.", 6000);
    body["ignore_eos"] = json!(true);
    let mut events = cluster.stream("/v1/chat/completions", &body);
    for _ in 0..4 {
        events.next().expect("tokens come").unwrap();
    }
    assert_eq!(cluster.get("/health")["requests_running"], 1);
    events.abandon();
    cluster.wait_for_health(Duration::from_secs(20), "blocks of an abandoned request", |health| {
        health["requests_running"] == 0 && health["kv_blocks_free"].as_u64() == Some(before)
    });
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let cluster = Setup::of_two(fixtures::granite_tiny()).start();
    let mut body = chat(&cluster, "Hello!", 4);
    body["num_beams"] = json!(2);
    let (status, answer) = cluster.try_post("/v1/chat/completions", &body);
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("num_beams")));
    let mut body = chat(&cluster, "Hello!", 4);
    body["model"] = json!("another");
    let (status, answer) = cluster.try_post("/v1/chat/completions", &body);
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")));
}
