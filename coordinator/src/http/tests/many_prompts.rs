//! Requests of many prompts: they take places as they come free, and leave some for others.

use super::support::*;
use crate::generation::Refusal;
use crate::http::input::prompts::PROMPTS_MAX;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const COMPLETIONS: &str = "/v1/completions";

fn full() -> Script {
    Script::Refuse(Refusal::QueueFull { waiting: 1, retry_after: Duration::from_secs(1) })
}

#[tokio::test]
async fn as_many_prompts_as_openai_allows_are_answered() {
    let rig = Rig::saying("x");
    let prompts: Vec<String> = (0..PROMPTS_MAX).map(|n| (n % 10).to_string()).collect();
    let value = rig.ok(COMPLETIONS, completion(json!({"prompt": prompts, "max_tokens": 1}))).await;
    let choices = value["choices"].as_array().unwrap();
    assert_eq!(choices.len(), PROMPTS_MAX);
    assert!(choices.iter().all(|choice| choice["text"] == "x"));
    let order: Vec<u32> = rig.requests().iter().map(|one| one.sampling.choice).collect();
    assert!(order.is_sorted(), "they enter in order");
    assert_eq!(value["usage"]["prompt_tokens"], 2 * PROMPTS_MAX);
}

#[tokio::test]
async fn a_prompt_without_a_place_waits_for_one_of_its_own_request() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    // The first is accepted, then every second is refused.
    let rig = Rig::new(move |_| match counted.fetch_add(1, SeqCst) % 2 {
        0 => Script::Play(say("x")),
        _ => full(),
    });
    let prompts: Vec<[u32; 1]> = (0..9).map(|n| [n]).collect();
    for stream in [false, true] {
        asked.store(0, SeqCst);
        let body = completion(json!({"prompt": prompts, "stream": stream}));
        let text = read_text(rig.post(COMPLETIONS, body).await).await;
        assert!(!text.contains("error"), "{text}");
        assert_eq!(text.matches("\"finish_reason\":\"stop\"").count(), 9, "{text}");
    }
}

#[tokio::test]
async fn a_request_takes_only_some_places_at_a_time() {
    let rig = Rig::new(|_| Script::Hold(Vec::new()));
    let body = completion(json!({"prompt": vec!["a"; 200], "stream": true}));
    let response = rig.post(COMPLETIONS, body).await;
    assert_eq!(rig.requests().len(), 64);
    drop(response);
    rig.cancelled(&(0..64).collect::<Vec<_>>()).await;
}

#[tokio::test(start_paused = true)]
async fn time_counts_from_the_arrival_of_the_request() {
    let rig = Rig::with(
        |config| config.request_timeout = Some(Duration::from_secs(5)),
        |request| match request.prompt[0] {
            1 => Script::Play(say("x")),
            _ => full(),
        },
    );
    let (status, error) = rig.error(COMPLETIONS, completion(json!({"prompt": [[1], [2]]}))).await;
    assert_eq!((status, &error["code"]), (504, &json!("request_timeout")));
}

#[tokio::test]
async fn more_prompts_than_a_key_may_have_are_never_tried() {
    let rig = Rig::with(|config| config.key_concurrency = Some(2), |_| Script::Play(say("x")));
    let (status, error) =
        rig.error(COMPLETIONS, completion(json!({"prompt": ["a", "b", "c"]}))).await;
    assert_eq!((status, &error["param"]), (400, &json!("prompt")));
    assert!(error["message"].as_str().unwrap().contains("--key-concurrency"));
    rig.ok(COMPLETIONS, completion(json!({"prompt": ["a", "b"]}))).await;
}
