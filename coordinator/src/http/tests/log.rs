//! The operator's line of each request.

use super::support::*;
use crate::http::server::keys::ApiKeys;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::json;
use std::io;
use std::sync::{Arc, Mutex};
use tracing::subscriber::DefaultGuard;

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Everything from the default level on, while the guard lives.
    fn listen() -> (Lines, DefaultGuard) {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// The lines about requests since the last call.
    fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        text.lines().filter(|line| line.contains(" request ")).map(str::to_owned).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SECRET: &str = "sk-operators-secret";

fn with_key(path: &str, key: &str, body: &str) -> Request<Body> {
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .body(Body::from(body.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn every_request_leaves_one_line_that_says_why_and_nothing_of_what() {
    let (lines, _guard) = Lines::listen();
    let keys = ApiKeys::new(["sk-first", SECRET]);
    let rig = Rig::with(|config| config.keys = keys, |_| Script::Play(say("whisper")));
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": "hush"}]});
    let cases = [
        ("/v1/chat/completions", SECRET, chat.clone(), "status=200 reason=\"ok\""),
        ("/v1/completions", SECRET, json!({"model": "tiny", "prompt": "hush"}), "status=200"),
        ("/v1/chat/completions", "hush", chat, "status=401 reason=\"invalid_api_key\""),
        (
            "/v1/completions",
            "sk-first",
            json!({"model": "other", "prompt": "hush"}),
            "model=other|status=404 reason=\"model_not_found\"",
        ),
        (
            "/v1/completions",
            "sk-first",
            json!({"model": "tiny", "prompt": "hush", "hush": 1}),
            "status=400 reason=",
        ),
    ];
    for (path, key, body, expected) in cases {
        let response = rig.send(with_key(path, key, &body.to_string())).await;
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        read_text(response).await;
        let found = lines.take();
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        let line = &found[0];
        for word in expected.split('|').chain([id.as_str(), path]) {
            assert!(line.contains(word), "{word} is missing: {line}");
        }
        for word in ["hush", "whisper", SECRET, "sk-first"] {
            assert!(!line.contains(word), "{word} is logged: {line}");
        }
        let name = match key {
            SECRET => "key=key-2",
            "sk-first" => "key=key-1",
            _ => "key=-",
        };
        assert!(line.contains(name), "{name} is missing: {line}");
    }
}

#[tokio::test]
async fn an_answer_s_tokens_and_times_are_in_its_line_and_probes_leave_none() {
    let (lines, _guard) = Lines::listen();
    let rig = Rig::saying("four");
    read_text(rig.post("/v1/completions", json!({"prompt": "abc", "stream": true})).await).await;
    let found = lines.take().join("\n");
    // The prompt's three tokens and what stands before every prompt; a byte is a token.
    for word in ["prompt=4", "completion=5", "first_ms=", "ms=", "model=tiny"] {
        assert!(found.contains(word), "{word} is missing: {found}");
    }
    for path in ["/livez", "/readyz", "/health", "/metrics"] {
        read_text(rig.get(path).await).await;
    }
    assert_eq!(lines.take(), Vec::<String>::new());
}

#[tokio::test]
async fn a_client_that_goes_away_is_said_to_be_gone() {
    let (lines, _guard) = Lines::listen();
    let rig = Rig::new(|_| Script::Hold(say("x")[..1].to_vec()));
    let response = rig.post("/v1/completions", json!({"prompt": "abc", "stream": true})).await;
    drop(response);
    rig.cancelled(&[0]).await;
    let found = lines.take().join("\n");
    assert!(found.contains("client_gone"), "{found}");
}
