//! The door: who is let in under which name, from which page, with which key; connections that run
//! short; clients that send everything first, or close their half.

use super::listener::{Served, read_until, request};
use super::support::*;
use crate::http::server::keys::ApiKeys;
use crate::http::server::places::Limits;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, header};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn guarded() -> Rig {
    let keys = ApiKeys::new(["sk-a"]);
    Rig::with(|config| config.keys = keys, |_| Script::Play(say("x")))
}

fn get_with(path: &str, name: &'static str, value: &str) -> Request<Body> {
    Request::get(path).header(name, value).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_proxy_in_front_may_pass_its_own_name_on() {
    let names = vec!["llm.example".to_owned()];
    let rig = Rig::with(|config| config.allowed_hosts = names, |_| Script::Play(say("x")));
    for (host, status) in [("llm.example", 200), ("LLM.example:443", 200), ("evil.example", 403)] {
        let response = rig.send(get_with("/v1/models", "host", host)).await;
        assert_eq!(response.status(), status, "{host}");
    }
    let (_, error) = error_of(rig.send(get_with("/v1/models", "host", "my-box.local")).await).await;
    assert!(error["message"].as_str().unwrap().contains("--allow-host my-box.local"), "{error}");
}

#[tokio::test]
async fn pages_of_the_named_origins_may_ask_and_read() {
    let origins = vec![HeaderValue::from_static("https://chat.example")];
    let keys = ApiKeys::new(["sk-a"]);
    let rig = Rig::with(
        |config| (config.cors_origins, config.keys) = (origins, keys),
        |_| Script::Play(say("x")),
    );
    let ask = |origin: &str| {
        Request::builder()
            .method(Method::OPTIONS)
            .uri("/v1/chat/completions")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
            .body(Body::empty())
            .unwrap()
    };
    let response = rig.send(ask("https://chat.example")).await;
    let headers = response.headers();
    assert_eq!(response.status(), 200, "a browser asks without a key");
    assert_eq!(headers["access-control-allow-origin"], "https://chat.example");
    assert_eq!(headers["access-control-allow-headers"], "authorization,content-type");
    assert!(headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
    let response = rig.send(ask("https://evil.example")).await;
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    // Answers and errors alike.
    for (path, stream) in [("/v1/chat/completions", true), ("/v1/nothing", false)] {
        let mut request = post(path, chat(json!({"stream": stream})).to_string());
        let headers = request.headers_mut();
        headers.insert("origin", HeaderValue::from_static("https://chat.example"));
        headers.insert("authorization", HeaderValue::from_static("Bearer sk-a"));
        let response = rig.send(request).await;
        assert_eq!(response.headers()["access-control-allow-origin"], "https://chat.example");
        let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("x-woolly-seed") && exposed.contains("retry-after"), "{exposed}");
    }
    let plain = Rig::saying("x").send(ask("https://chat.example")).await;
    assert_eq!(plain.status(), 405, "off by default");
}

#[tokio::test]
async fn without_a_key_no_names_are_shown() {
    let rig = guarded();
    let health = read_json(rig.get("/health").await).await;
    assert_eq!(health, json!({"status": "ok", "service": "woolly"}));
    let with_key = rig.send(get_with("/health", "x-api-key", "sk-a")).await;
    assert_eq!(read_json(with_key).await["model"], "tiny");
    rig.status.send_modify(|status| {
        (status.ready, status.detail) = (false, "worker secret-name is lost".into());
    });
    let (status, error) = error_of(rig.get("/readyz").await).await;
    assert_eq!((status, error["message"].as_str()), (503, Some("The model is not ready.")));
    rig.status.send_modify(|status| status.stopping = true);
    assert_eq!(read_json(rig.get("/health").await).await["status"], "stopping");
    assert_eq!(error_of(rig.get("/readyz").await).await.1["code"], "shutting_down");
}

#[tokio::test]
async fn a_browser_finds_a_page() {
    for rig in [Rig::saying("x"), guarded()] {
        for (path, kind) in [
            ("/", "text/html; charset=utf-8"),
            ("/page/main.js", "text/javascript; charset=utf-8"),
            ("/page/style.css", "text/css; charset=utf-8"),
            ("/favicon.ico", "image/svg+xml"),
        ] {
            let response = rig.get(path).await;
            assert_eq!(response.status(), 200, "{path}");
            let headers = response.headers().clone();
            assert_eq!(headers[header::CONTENT_TYPE], kind);
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
                "{policy}"
            );
            let text = read_text(response).await;
            assert!(!text.contains("tiny"), "{path} is the same for everybody");
            let known = headers[header::ETAG].to_str().unwrap();
            let request = Request::get(path).header(header::HOST, "localhost");
            let request = request.header(header::IF_NONE_MATCH, known).body(Body::empty()).unwrap();
            assert_eq!(rig.send(request).await.status(), 304, "{path}");
        }
        let (status, error) = error_of(rig.get("/page/none.js").await).await;
        assert!(status == 404 && error["message"].as_str().unwrap().contains("none.js"), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_mended_by_a_retry_says_so() {
    use crate::generation::{Failure, GenerationEvent};
    for (code, hopeless) in
        [("request_timeout", true), ("model_numerics", true), ("pipeline_lost", false)]
    {
        let rig = Rig::new(move |_| {
            let failure = Failure { code, message: "why".into() };
            Script::Play(vec![GenerationEvent::Failed(failure)])
        });
        let response = rig.post("/v1/chat/completions", chat(json!({}))).await;
        let said = response.headers().get("x-should-retry").map(|value| value.to_str().unwrap());
        assert_eq!(said, hopeless.then_some("false"), "{code}");
    }
}

#[tokio::test]
async fn a_client_that_sends_everything_first_can_read_why_it_was_refused() {
    let rig = guarded();
    let served = Served::new(&rig).await;
    let cases = [
        ("/v1/completions", "authorization: Bearer sk-a\r\n", 9 << 20, "413"),
        ("/v1/completions", "", 2 << 20, "401"),
        ("/nowhere", "authorization: Bearer sk-a\r\n", 2 << 20, "404"),
        (
            "/v1/completions",
            "authorization: Bearer sk-a\r\ncontent-type: text/plain\r\n",
            2 << 20,
            "415",
        ),
    ];
    for (path, headers, length, status) in cases {
        let mut stream = served.connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // As http.client of Python: nothing is read before all is written.
        stream.write_all(&vec![b' '; length]).await.expect("the server reads it all");
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    let mut stream = served.connect().await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-a\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..9 {
        stream.write_all(b"100000\r\n").await.unwrap();
        stream.write_all(&vec![b' '; 1 << 20]).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "too_large").await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn a_client_that_closes_its_half_is_answered() {
    use crate::generation::FinishReason;
    let rig = Rig::new(|_| Script::Hold(tokens("a")));
    let served = Served::new(&rig).await;
    for (stream, number) in [(false, 0), (true, 1)] {
        let mut client = served.connect().await;
        let body = completion(json!({ "stream": stream }));
        client.write_all(&request("/v1/completions", &body)).await.unwrap();
        client.shutdown().await.unwrap();
        while rig.requests().len() <= number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Long enough to be asked several times whether it is there.
        tokio::time::sleep(Duration::from_millis(450)).await;
        let events = rig.seen.lock().unwrap().held[number].clone();
        events.send(finished(FinishReason::Length)).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("\"finish_reason\":\"length\""), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_is_gone_frees_its_place_soon() {
    let rig = Rig::new(|_| Script::Hold(Vec::new()));
    let served = Served::new(&rig).await;
    for (stream, number) in [(false, 0), (true, 1)] {
        let mut client = served.connect().await;
        let body = chat(json!({ "stream": stream }));
        client.write_all(&request("/v1/chat/completions", &body)).await.unwrap();
        while rig.requests().len() <= number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let start = Instant::now();
        drop(client);
        rig.cancelled(&(0..=number as u64).collect::<Vec<_>>()).await;
        assert!(start.elapsed() < Duration::from_secs(2), "{stream}: {:?}", start.elapsed());
    }
}

/// Opens so many connections that ask whether the server lives, and go on to.
async fn askers(served: &Served, count: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let address = served.address;
    let asker = move || async move {
        loop {
            let Ok(mut stream) = TcpStream::connect(address).await else { continue };
            loop {
                let asked =
                    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
                let mut buffer = [0; 512];
                match (asked, stream.read(&mut buffer).await) {
                    (Ok(()), Ok(count)) if count > 0 => {}
                    _ => break,
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    };
    (0..count).map(|_| tokio::spawn(asker())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_only_ask_whether_it_lives_hold_out_nobody() {
    let limits = Limits { connections: 32, probes: 4 };
    let rig = Rig::with(|config| config.connections = limits, |_| Script::Play(say("x")));
    let served = Served::new(&rig).await;
    let askers = askers(&served, 40).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        let start = Instant::now();
        let mut client = served.connect().await;
        if round % 2 == 0 {
            client.write_all(&request("/v1/completions", &completion(json!({})))).await.unwrap();
            read_until(&mut client, "\"finish_reason\":\"stop\"").await;
        } else {
            client.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            read_until(&mut client, "ok\n").await;
        }
        longest = longest.max(start.elapsed());
    }
    askers.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_connections_are_at_work_probes_are_answered_and_others_told() {
    let limits = Limits { connections: 2, probes: 2 };
    let rig = Rig::with(|config| config.connections = limits, |_| Script::Hold(tokens("a")));
    let served = Served::new(&rig).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut client = served.connect().await;
        let body = chat(json!({"stream": true}));
        client.write_all(&request("/v1/chat/completions", &body)).await.unwrap();
        read_until(&mut client, "\"content\":\"a\"").await;
        busy.push(client);
    }
    for _ in 0..5 {
        let mut probe = served.connect().await;
        probe.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let answer = read_until(&mut probe, "ok\n").await;
        assert!(answer.contains("200 OK") && answer.contains("connection: close"), "{answer}");
        let mut other = served.connect().await;
        other.write_all(&request("/v1/completions", &completion(json!({})))).await.unwrap();
        let answer = read_until(&mut other, "too_many_connections").await;
        assert!(answer.contains("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    }
    assert_eq!(rig.requests().len(), 2, "those at work were not disturbed");
    assert!(rig.seen.lock().unwrap().cancelled.is_empty());
}

#[tokio::test]
async fn a_client_that_begins_with_http_2_is_told_what_is_spoken() {
    let served = Served::new(&Rig::saying("x")).await;
    let mut stream = served.connect().await;
    // The preface and a SETTINGS frame (RFC 9113, 3.4).
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 505 "), "{answer}");
    assert!(answer.ends_with("do not begin with HTTP/2.\n"), "{answer}");
}
