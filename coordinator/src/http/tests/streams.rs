//! Streams that go on over another connection, and after the server was started again.

use super::support::*;
use crate::generation::{FinishReason, GenerationEvent, GenerationRequest, TokenEvent};
use crate::http::api::streams::restore;
use crate::http::output::streams::Streams;
use crate::http::server::keys::ApiKeys;
use crate::journal::{Journal, Limits, Stamp};
use axum::body::{Body, BodyDataStream};
use axum::http::{Request, header};
use axum::response::Response;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const LIMITS: Limits = Limits { bytes: 1 << 20 };
const LONG: Duration = Duration::from_secs(60);
/// A template that has tools, as Qwen's do.
const TOOLS: &str = "{% if tools %}T:{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}:{{ m.content }}\
                     {% for c in m.tool_calls or [] %}<tool_call>{{ c.function.arguments.city }}{% endfor %}]\
                     {% endfor %}";

/// How a gateway with a journal is made.
struct With<'a> {
    folder: &'a Path,
    limits: Limits,
    patience: Duration,
    keys: &'a [&'a str],
    template: Option<&'a str>,
    fingerprint: Option<[u8; 32]>,
    program: &'a str,
}

impl<'a> With<'a> {
    fn new(folder: &'a Path) -> With<'a> {
        let (keys, template, fingerprint) = (&[] as &[&str], None, None);
        With { folder, limits: LIMITS, patience: LONG, keys, template, fingerprint, program: "1" }
    }

    fn rig(self, script: impl Fn(&GenerationRequest) -> Script + Send + 'static) -> Rig {
        let model = Rig::tiny(self.template);
        if let Some(fingerprint) = self.fingerprint {
            model.fingerprint.set(fingerprint).unwrap();
        }
        let keys = ApiKeys::new(self.keys.iter().copied());
        let (protocol, numerics) = (1, 2);
        let program = self.program.to_owned();
        let stamp = Stamp { program, protocol, numerics, grammar: "g".into() };
        let (journal, opened) = Journal::open(self.folder, &stamp, self.limits).unwrap();
        let patience = self.patience;
        let configure = |config: &mut crate::http::GatewayConfig| config.keys = keys;
        let rig = Rig::journalled(model, configure, script, None, |engine| {
            Some(Streams::new(journal, opened, patience, Arc::clone(engine.metrics())))
        });
        rig.status.send_modify(|status| status.ctx_size = 512);
        restore(&rig.gateway);
        let gateway = Arc::clone(&rig.gateway);
        tokio::spawn(async move {
            gateway.streams.as_ref().unwrap().look_after(gateway.closing.clone()).await;
        });
        rig
    }
}

/// What is on the disk at this moment, as a server finds it that is started after this one was killed.
fn killed(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("streams.journal"), copy.path().join("streams.journal")).unwrap();
    copy
}

fn id_of(response: &Response) -> String {
    response.headers()["x-woolly-stream"].to_str().unwrap().to_owned()
}

async fn go_on(rig: &Rig, id: &str, last: Option<&str>) -> Response {
    with_key(rig, id, last, None).await
}

async fn with_key(rig: &Rig, id: &str, last: Option<&str>, key: Option<&str>) -> Response {
    let mut request = Request::get(format!("/v1/streams/{id}"));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    if let Some(key) = key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    rig.send(request.body(Body::empty()).unwrap()).await
}

/// Events, each with its id.
fn events(text: &str) -> Vec<(String, String)> {
    let parts = text.split_terminator("\n\n").map(|event| {
        let (id, rest) = event.split_once('\n').unwrap();
        (
            id.strip_prefix("id: ").unwrap_or_else(|| panic!("no id: {event}")).to_owned(),
            untimed(rest),
        )
    });
    parts.collect()
}

/// Without what a clock says.
fn untimed(event: &str) -> String {
    let (head, data) = event.split_at(event.find("data: ").unwrap() + "data: ".len());
    let Ok(mut data) = serde_json::from_str::<Value>(data) else { return event.to_owned() };
    if data["response"].is_object() {
        data["response"]["completed_at"] = Value::Null;
    }
    if data["timings"].is_object() {
        data["timings"] = Value::Null;
    }
    format!("{head}{data}")
}

async fn until(body: &mut BodyDataStream, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let bytes = body.next().await.expect("more comes").unwrap();
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    text
}

/// Each choice says something of its own, with alternatives if they are asked for.
fn play(request: &GenerationRequest) -> Script {
    Script::Play(said(request))
}

fn said(request: &GenerationRequest) -> Vec<GenerationEvent> {
    let text = [
        "one \u{20ac} two",
        "three",
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>",
    ];
    let calls = request.prompt.len() > 60;
    let text = if calls { text[2] } else { text[request.sampling.choice as usize % 2] };
    let token = |(at, byte): (usize, u8)| {
        let top = (0..request.top_logprobs.unwrap_or(0)).map(|n| (n.into(), -0.1 * f32::from(n)));
        let logprob = -0.001_234_5 * at as f32;
        GenerationEvent::Token(TokenEvent { token: byte.into(), logprob, top: top.collect() })
    };
    let mut events: Vec<_> = text.bytes().enumerate().map(token).collect();
    events.push(GenerationEvent::Token(TokenEvent { token: EOS, logprob: -0.5, top: Vec::new() }));
    events.push(finished(FinishReason::Stop));
    events
}

/// A request of every API with ids, with what makes streams more than text.
fn requests() -> Vec<(&'static str, Value)> {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let usage = json!({"include_usage": true});
    let tool =
        json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    vec![
        (
            "/v1/chat/completions",
            chat(json!({
                "stream": true, "logprobs": true, "top_logprobs": 2, "n": 2, "stream_options": usage,
            })),
        ),
        ("/v1/chat/completions", chat(json!({"stream": true, "tools": [tool], "max_tokens": 90}))),
        (
            "/v1/completions",
            completion(json!({
                "stream": true, "prompt": ["a", "b"], "n": 2, "logprobs": 1, "max_tokens": 30, "stream_options": usage,
            })),
        ),
        ("/v1/messages", json!({"messages": messages, "max_tokens": 50, "stream": true})),
        ("/v1/responses", json!({"input": "hi", "stream": true})),
        (
            "/v1/completions",
            completion(json!({"stream": true, "seed": 5, "echo": true, "stop": "two"})),
        ),
    ]
}

#[tokio::test]
async fn every_event_has_an_id_and_is_otherwise_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (rig, plain) = (With::new(folder.path()).rig(play), Rig::saying("ab"));
    let options = json!({"include_usage": true});
    let body = chat(json!({"stream": true, "stream_options": options}));
    let text = read_text(rig.post("/v1/chat/completions", body.clone()).await).await;
    let ids: Vec<String> = events(&text).into_iter().map(|(id, _)| id).collect();
    // The role; six characters and a euro sign of three tokens; EOS with the reason; usage; the end.
    let expected = ["0", "1", "2", "3", "4", "7", "8", "9", "10", "11", "12", "12.1", "12.2"];
    assert_eq!(ids, expected, "{text}");
    let first: Value =
        serde_json::from_str(events(&text)[0].1.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(first["id"].as_str().unwrap().len(), "chatcmpl-".len() + 32);
    let response = plain.post("/v1/chat/completions", body).await;
    assert!(!response.headers().contains_key("x-woolly-stream"));
    assert!(!read_text(response).await.contains("id: "));
}

#[tokio::test]
async fn a_stream_goes_on_after_any_of_its_events() {
    let folder = tempfile::tempdir().unwrap();
    let rig = With { template: Some(TOOLS), ..With::new(folder.path()) }.rig(play);
    for (path, body) in requests() {
        let response = rig.post(path, body.clone()).await;
        assert_eq!(response.status(), 200, "{path}");
        let id = id_of(&response);
        let text = read_text(response).await;
        let all = events(&text);
        assert!(all.len() > 5, "{path}: {text}");
        assert_eq!(events(&read_text(go_on(&rig, &id, None).await).await), all, "{path}");
        for (at, (last, _)) in all.iter().enumerate() {
            let rest = go_on(&rig, &id, Some(last)).await;
            assert_eq!(rest.headers()[header::CONTENT_TYPE], "text/event-stream");
            assert_eq!(events(&read_text(rest).await), all[at + 1..], "{path} after {last}");
        }
    }
    let metrics = read_text(rig.get("/metrics").await).await;
    assert!(metrics.contains("woolly_journal_streams_total 6"), "{metrics}");
}

#[tokio::test]
async fn a_stream_goes_on_after_the_server_was_killed_and_is_the_same_stream() {
    let folder = tempfile::tempdir().unwrap();
    let with = |folder| With { template: Some(TOOLS), ..With::new(folder) };
    // What a cache holds is another thing in each run, and part of the usage.
    let first = with(folder.path()).rig(|request| {
        let cached = GenerationEvent::Prefilled { cached_tokens: 2 };
        Script::Play([vec![cached], said(request)].concat())
    });
    let mut streams = Vec::new();
    for (path, body) in requests() {
        let response = first.post(path, body).await;
        let (id, seed) = (id_of(&response), response.headers()["x-woolly-seed"].clone());
        streams.push((path, id, seed, events(&read_text(response).await)));
    }
    let asked = first.requests();
    let copy = killed(folder.path());
    let second = with(copy.path()).rig(play);
    for (path, id, _, all) in &streams {
        let last = &all[all.len() / 2].0;
        let text = read_text(go_on(&second, id, Some(last)).await).await;
        assert_eq!(events(&text), all[all.len() / 2 + 1..], "{path} after {last}");
        let text = read_text(go_on(&second, id, None).await).await;
        assert_eq!(events(&text), *all, "{path} from the beginning");
    }
    // Complete ones are computed again only because somebody asked, and as what they were. The end of the last one may
    // not have been on the disk: then it was begun again before anyone asked.
    let again = second.requests();
    let facts = |requests: &[GenerationRequest]| {
        let facts =
            requests.iter().map(|one| (one.prompt.clone(), one.sampling.clone(), one.max_tokens));
        let mut facts = facts.collect::<Vec<_>>();
        facts.sort_by_key(|(prompt, sampling, _)| (sampling.seed, sampling.choice, prompt.clone()));
        facts
    };
    assert_eq!(facts(&again), facts(&asked));
}

#[tokio::test]
async fn what_had_not_ended_is_begun_again_in_order_before_anyone_asks() {
    let folder = tempfile::tempdir().unwrap();
    let first = With::new(folder.path()).rig(|_| Script::Hold(tokens("one")));
    let mut ids = Vec::new();
    for text in ["a", "b", "c"] {
        let body = completion(json!({"prompt": text, "stream": true, "temperature": 1.5}));
        let response = first.post("/v1/completions", body).await;
        ids.push(id_of(&response));
        // The client is gone with its server.
        until(&mut response.into_body().into_data_stream(), "id: 3\n").await;
    }
    let copy = killed(folder.path());
    let second = With::new(copy.path()).rig(|_| Script::Play(say("one more")));
    let text = read_text(go_on(&second, &ids[2], Some("2")).await).await;
    let said: Vec<String> = events(&text).into_iter().map(|(id, _)| id).collect();
    assert_eq!(said, ["3", "4", "5", "6", "7", "8", "9", "9.1"]);
    let prompts =
        |rig: &Rig| rig.requests().iter().map(|one| one.prompt.clone()).collect::<Vec<_>>();
    let seeds = |rig: &Rig| rig.requests().iter().map(|one| one.sampling.seed).collect::<Vec<_>>();
    assert_eq!((prompts(&second), seeds(&second)), (prompts(&first), seeds(&first)));
}

#[tokio::test]
async fn a_reader_that_goes_away_is_waited_for_and_then_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let patience = Duration::from_millis(600);
    let rig = With { patience, ..With::new(folder.path()) }.rig(|_| Script::Hold(tokens("ab")));
    let response = rig.post("/v1/chat/completions", chat(json!({"stream": true}))).await;
    let id = id_of(&response);
    let mut body = response.into_body().into_data_stream();
    until(&mut body, "id: 2\n").await;
    drop(body);
    // The engine goes on meanwhile.
    let engine = rig.seen.lock().unwrap().held[0].clone();
    engine.send(tokens("c").remove(0)).await.unwrap();
    let mut body = go_on(&rig, &id, Some("1")).await.into_body().into_data_stream();
    assert!(until(&mut body, "id: 3\n").await.starts_with("id: 2\n"));
    assert!(rig.seen.lock().unwrap().cancelled.is_empty());
    drop(body);
    rig.cancelled(&[0]).await;
    let (status, error) = error_of(go_on(&rig, &id, Some("2")).await).await;
    assert_eq!((status, &error["code"]), (410, &json!("stream_gone")));
    assert!(error["message"].as_str().unwrap().contains("--journal-patience"), "{error}");
    let copy = killed(folder.path());
    let second = With::new(copy.path()).rig(play);
    assert_eq!(go_on(&second, &id, None).await.status(), 404);
    assert!(second.requests().is_empty());
}

#[tokio::test]
async fn the_newest_reader_has_the_stream_and_the_one_before_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let rig = With::new(folder.path()).rig(|_| Script::Hold(tokens("ab")));
    let messages = json!([{"role": "user", "content": "hi"}]);
    for (at, (path, body)) in [
        ("/v1/chat/completions", chat(json!({"stream": true}))),
        ("/v1/messages", json!({"messages": messages, "max_tokens": 50, "stream": true})),
        ("/v1/responses", json!({"input": "hi", "stream": true})),
    ]
    .into_iter()
    .enumerate()
    {
        let response = rig.post(path, body).await;
        let id = id_of(&response);
        let mut old = response.into_body().into_data_stream();
        until(&mut old, "id: 2\n").await;
        let mut new = go_on(&rig, &id, Some("1")).await.into_body().into_data_stream();
        until(&mut new, "id: 2\n").await;
        let bytes = old.next().await.unwrap().unwrap();
        let told = std::str::from_utf8(&bytes).unwrap();
        // A client that comes back with this id has missed nothing.
        assert!(told.starts_with("id: 2\n") && told.contains("error"), "{path}: {told}");
        assert!(old.next().await.is_none());
        let engine = rig.seen.lock().unwrap().held[at].clone();
        engine.send(tokens("c").remove(0)).await.unwrap();
        until(&mut new, "id: 3\n").await;
    }
}

#[tokio::test]
async fn a_stream_is_found_by_its_key_only_and_at_its_own_places_only() {
    let folder = tempfile::tempdir().unwrap();
    let with = |folder| With { keys: &["sk-a", "sk-b"], ..With::new(folder) };
    let rig = with(folder.path()).rig(|_| Script::Play(say("ab")));
    let mut request = post("/v1/chat/completions", chat(json!({"stream": true})).to_string());
    request.headers_mut().insert(header::AUTHORIZATION, "Bearer sk-a".parse().unwrap());
    let response = rig.send(request).await;
    let id = id_of(&response);
    read_text(response).await;
    // In the other order the keys have other numbers.
    let copy = killed(folder.path());
    let again =
        With { keys: &["sk-b", "sk-a"], ..with(copy.path()) }.rig(|_| Script::Play(say("ab")));
    for rig in [&rig, &again] {
        let other = error_of(with_key(rig, &id, None, Some("sk-b")).await).await;
        let unknown = error_of(with_key(rig, &"0".repeat(32), None, Some("sk-b")).await).await;
        assert_eq!((other.0, unknown.0), (404, 404));
        let text = |error: &Value| error["message"].as_str().unwrap().replace(&id, "ID");
        assert_eq!(text(&other.1), text(&unknown.1).replace(&"0".repeat(32), "ID"));
        for bad in ["x", "-1", "1e3"] {
            let (status, error) = error_of(with_key(rig, &id, Some(bad), Some("sk-a")).await).await;
            assert_eq!((status, &error["param"]), (400, &json!("Last-Event-ID")));
        }
        let own = with_key(rig, &id, Some("2"), Some("sk-a")).await;
        assert_eq!(events(&read_text(own).await).len(), 2);
        let (status, error) = error_of(with_key(rig, &id, Some("4"), Some("sk-a")).await).await;
        assert_eq!((status, &error["param"]), (400, &json!("Last-Event-ID")), "{error}");
    }
    assert_eq!(rig.get("/v1/streams/x").await.status(), 401);
    let bytes = std::fs::read(folder.path().join("streams.journal")).unwrap();
    let hash = *blake3::hash(b"sk-a").as_bytes();
    for secret in [&b"sk-a"[..], &hash] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

#[tokio::test]
async fn a_stream_that_would_be_another_one_ends_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let one = || With { fingerprint: Some([1; 32]), ..With::new(folder.path()) };
    let first = one().rig(|_| Script::Hold(tokens("ab")));
    let response = first.post("/v1/chat/completions", chat(json!({"stream": true}))).await;
    let id = id_of(&response);
    until(&mut response.into_body().into_data_stream(), "id: 2\n").await;
    let changed = [
        (With { fingerprint: Some([2; 32]), ..one() }, "model is another one"),
        (With { template: Some(TOOLS), ..one() }, "means something else"),
        (With { program: "2", ..one() }, "version 1, now 2"),
        (With { keys: &["sk-a"], ..one() }, ""),
    ];
    for (with, reason) in changed {
        let copy = killed(folder.path());
        let keyed = !with.keys.is_empty();
        let second = With { folder: copy.path(), ..with }.rig(play);
        if keyed {
            assert_eq!(with_key(&second, &id, None, Some("sk-a")).await.status(), 404);
            continue;
        }
        // Whoever comes before that is found out hears it as an event.
        let response = go_on(&second, &id, Some("2")).await;
        let text = read_text(response).await;
        assert!(text.contains(reason) && text.contains("stream_gone"), "{reason}: {text}");
        let (status, error) = error_of(go_on(&second, &id, Some("2")).await).await;
        assert_eq!((status, &error["code"]), (410, &json!("stream_gone")));
        assert!(error["message"].as_str().unwrap().contains(reason), "{error}");
        assert!(second.requests().is_empty());
    }
}

#[tokio::test]
async fn without_room_in_the_journal_a_stream_is_served_as_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let rig = With { limits: Limits { bytes: 600 }, ..With::new(folder.path()) }.rig(play);
    let response = rig.post("/v1/chat/completions", chat(json!({"stream": true}))).await;
    assert_eq!(response.headers()["x-woolly-journal"], "full");
    assert!(!response.headers().contains_key("x-woolly-stream"));
    let text = read_text(response).await;
    assert!(text.starts_with("data: ") && text.ends_with("data: [DONE]\n\n"), "{text}");
    let metrics = read_text(rig.get("/metrics").await).await;
    assert!(metrics.contains("woolly_journal_unjournalled_total 1"), "{metrics}");
    let health = read_json(rig.get("/health").await).await;
    assert_eq!(health["journal"]["failing"], false);
}

#[tokio::test]
async fn what_is_no_stream_of_events_is_not_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let rig = With::new(folder.path()).rig(play);
    let messages = json!([{"role": "user", "content": "hi"}]);
    for (path, body) in [
        ("/v1/chat/completions", chat(json!({}))),
        ("/api/chat", json!({"messages": messages, "stream": true})),
    ] {
        let response = rig.post(path, body).await;
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("x-woolly-stream"));
    }
    let journal = &rig.gateway.streams.as_ref().unwrap().journal;
    assert_eq!(journal.standing().requests, 0);
    let plain = Rig::saying("x");
    let (status, error) = error_of(plain.get("/v1/streams/x").await).await;
    assert_eq!(status, 404);
    assert!(error["message"].as_str().unwrap().contains("--journal"), "{error}");
}

#[tokio::test]
async fn a_server_that_goes_down_leaves_its_streams_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let first = With::new(folder.path()).rig(|_| Script::Hold(tokens("ab")));
    let response = first.post("/v1/chat/completions", chat(json!({"stream": true}))).await;
    let id = id_of(&response);
    let mut body = response.into_body().into_data_stream();
    until(&mut body, "id: 2\n").await;
    first.gateway.closing.cancel();
    let bytes = body.next().await.unwrap().unwrap();
    let told = std::str::from_utf8(&bytes).unwrap();
    assert!(told.starts_with("id: 2\n") && told.contains("shutting_down"), "{told}");
    let copy = killed(folder.path());
    let second = With::new(copy.path()).rig(|_| Script::Play(say("abc")));
    let text = read_text(go_on(&second, &id, Some("2")).await).await;
    let ids: Vec<String> = events(&text).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["3", "4", "4.1"]);
}
