//! The whole of `bench` against a gateway that is not one.

use super::config::BenchArgs;
use super::*;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

/// What the gateway saw, and which request it fails.
#[derive(Default)]
struct Seen {
    bodies: Mutex<Vec<Value>>,
    keys: Mutex<Vec<String>>,
    scrapes: AtomicUsize,
    fail: Option<usize>,
}

async fn complete(State(seen): State<Arc<Seen>>, headers: HeaderMap, request: Request) -> Response {
    let bytes = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    let tokens = body["max_tokens"].as_u64().unwrap();
    let key = headers.get("authorization").map(|key| key.to_str().unwrap().to_owned());
    seen.keys.lock().unwrap().extend(key);
    let number = {
        let mut bodies = seen.bodies.lock().unwrap();
        bodies.push(body);
        bodies.len()
    };
    if seen.fail == Some(number) {
        return (StatusCode::TOO_MANY_REQUESTS, "the queue is full").into_response();
    }
    let events = (1..=tokens).map(move |token| {
        let end = if token == tokens { json!("length") } else { Value::Null };
        let event = json!({
            "choices": [{"text": "x", "finish_reason": end}],
            "usage": {"completion_tokens": token, "prompt_tokens_details": {"cached_tokens": 2}},
        });
        format!("data: {event}\n\n")
    });
    let events = events.chain(["data: [DONE]\n\n".to_owned()]);
    let events = futures_util::stream::iter(events);
    let events = futures_util::StreamExt::then(events, |event| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok::<_, std::convert::Infallible>(event)
    });
    Body::from_stream(events).into_response()
}

/// Stages that are busy for a second more at every reading.
async fn metrics(State(seen): State<Arc<Seen>>) -> String {
    let count = seen.scrapes.fetch_add(1, Relaxed);
    format!(
        "woolly_stage_forwards_total{{stage=\"0\"}} {count}\n\
         woolly_stage_cpu_seconds_total{{stage=\"0\"}} {count}\n"
    )
}

async fn gateway(seen: &Arc<Seen>) -> String {
    let models = json!({"data": [{"id": "fake", "meta": {"n_vocab": 50}}]}).to_string();
    let router = Router::new()
        .route("/v1/models", get(|| async { models }))
        .route("/v1/completions", post(complete))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(seen));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = crate::shutdown::shutdown();
    tokio::spawn(async move {
        let _open = seen;
        let service = hyper_util::service::TowerToHyperService::new(router);
        while let Ok((stream, _)) = listener.accept().await {
            let io = hyper_util::rt::TokioIo::new(stream);
            let service = service.clone();
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    url
}

async fn run(seen: &Arc<Seen>, words: &[&str]) -> (Result<(), Fatal>, String) {
    let url = gateway(seen).await;
    let words = ["bench", "--url", &url].into_iter().chain(words.iter().copied());
    let args = Cli::try_parse_from(words).unwrap().bench;
    let mut out = Vec::new();
    let ended = bench(&args, &args.loads().unwrap(), &mut out).await;
    (ended, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn loads_are_put_on_the_gateway_and_their_figures_printed() {
    let seen = Arc::new(Seen::default());
    let words = ["--streams", "1,4", "--prompt-tokens", "9", "--gen-tokens", "20", "--json"];
    let (ended, out) = run(&seen, &words).await;
    ended.unwrap();
    let figures: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(figures.len(), 2);
    for (figure, streams) in figures.iter().zip([1, 4]) {
        assert_eq!(figure["model"], "fake");
        assert_eq!((&figure["streams"], &figure["answered"]), (&json!(streams), &json!(streams)));
        assert_eq!((&figure["errors"], &figure["cached_tokens"]), (&json!(0), &json!(2 * streams)));
        assert_eq!(figure["overall"]["tokens"], 20 * streams);
        assert_eq!(figure["prefill"]["tokens"], 9 * streams);
        // 2 ms at least between two tokens of a stream.
        assert!(figure["itl_ms"]["p50"].as_f64().unwrap() >= 1.0, "{figure}");
        assert!(figure["decode"]["tok_s"].as_f64().unwrap() > 0.0, "{figure}");
        assert_eq!(figure["itl_ms"]["count"], 19 * streams);
        assert_eq!(figure["stages"][0]["cpu_s"], 2.0);
    }
    let bodies = seen.bodies.lock().unwrap();
    // One request before the loads.
    assert_eq!(bodies.len(), 1 + 1 + 4);
    for body in &bodies[1..] {
        assert_eq!((&body["max_tokens"], &body["ignore_eos"]), (&json!(20), &json!(true)));
        assert_eq!(body["prompt"].as_array().unwrap().len(), 9);
    }
    assert!(seen.keys.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_failed_request_is_counted_and_ends_the_command_with_an_error() {
    let seen = Arc::new(Seen { fail: Some(3), ..Seen::default() });
    let words = ["--streams", "2", "--requests", "5", "--gen-tokens", "3", "--api-key", "k"];
    let (ended, out) = run(&seen, &words).await;
    let error = ended.unwrap_err();
    assert_eq!(error.code(), 1);
    assert!(error.to_string().contains("1 of 5 requests failed"), "{error}");
    let row: Vec<&str> = out.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row[..3], ["2", "5", "1"], "{out}");
    assert!(out.starts_with("fake: prompts of 128 tokens (0 shared), 3 generated"), "{out}");
    assert_eq!(*seen.keys.lock().unwrap(), ["Bearer k"; 6]);
}

#[tokio::test]
async fn requests_that_come_at_their_own_times_are_all_answered() {
    let seen = Arc::new(Seen::default());
    let words = [
        "--streams",
        "2",
        "--requests",
        "10",
        "--gen-tokens",
        "2",
        "--arrival",
        "poisson:200",
        "--json",
    ];
    let (ended, out) = run(&seen, &words).await;
    ended.unwrap();
    let figure: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&figure["answered"], &figure["arrival"]), (&json!(10), &json!("poisson:200")));
    assert_eq!((&figure["decode"], &figure["prefill"]), (&Value::Null, &Value::Null));
    assert_eq!(figure["ttft_ms"]["count"], 10);
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_an_error() {
    let words = ["bench", "--url", "http://127.0.0.1:1"];
    let args = Cli::try_parse_from(words).unwrap().bench;
    let error = bench(&args, &args.loads().unwrap(), &mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("cannot reach http://127.0.0.1:1"), "{error}");
}
