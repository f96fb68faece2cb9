//! A real listener: clients that go away, stall, or speak something else; and the orderly end.

use super::support::*;
use crate::generation::FinishReason;
use crate::http::serve;
use crate::http::server::connection::Connection;
use crate::http::server::connection::{HEADER_TIMEOUT, WRITE_STALL};
use crate::http::server::places::{Limits, Places};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A gateway on a real port.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub(super) async fn new(rig: &Rig) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let gateway = rig.gateway.clone();
        let task = tokio::spawn(serve(vec![listener], None, gateway, async {
            let _ = stopped.await;
        }));
        Served { address, stop: Some(stop), task }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    pub(super) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        let _ = read.await.expect("the server did not close");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

pub(super) fn request(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}

/// Reads until `text` came.
pub(super) async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !answer.contains(text) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer));
        let count = read.await.expect("no answer in time").unwrap();
        assert!(count > 0, "closed after {answer}");
        answer.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    answer
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_generation() {
    let rig = Rig::new(|_| Script::Hold(tokens("a")));
    let served = Served::new(&rig).await;
    // In mid-stream.
    let mut stream = served.connect().await;
    stream
        .write_all(&request("/v1/chat/completions", &chat(json!({"stream": true}))))
        .await
        .unwrap();
    read_until(&mut stream, "\"content\":\"a\"").await;
    drop(stream);
    rig.cancelled(&[0]).await;
    // While it waits for a whole answer.
    let mut stream = served.connect().await;
    stream.write_all(&request("/v1/completions", &completion(json!({})))).await.unwrap();
    while rig.requests().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
    rig.cancelled(&[0, 1]).await;
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_first_token_cancels_too() {
    let rig = Rig::new(|_| Script::Hold(Vec::new()));
    let served = Served::new(&rig).await;
    let mut stream = served.connect().await;
    stream
        .write_all(&request("/v1/chat/completions", &chat(json!({"stream": true}))))
        .await
        .unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    // A reset instead of an orderly end.
    stream.set_zero_linger().unwrap();
    drop(stream);
    rig.cancelled(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_cut_off_and_cancelled() {
    let text = "x".repeat(20_000);
    let rig = Rig::new(move |_| Script::Hold(tokens(&text)));
    rig.status.send_modify(|status| status.ctx_size = 1 << 16);
    let (mut near, far) = tokio::io::duplex(4096);
    let connection = Connection {
        router: rig.router.clone(),
        gateway: rig.gateway.clone(),
        place: Arc::new(Places::default().take(Limits::default()).unwrap()),
        watched: None,
    };
    let connection = tokio::spawn(connection.serve(far));
    near.write_all(&request("/v1/chat/completions", &chat(json!({"stream": true})))).await.unwrap();
    let start = tokio::time::Instant::now();
    let ended = tokio::time::timeout(10 * WRITE_STALL, connection).await;
    ended.expect("the connection was not cut off").unwrap();
    let waited = start.elapsed();
    assert!(waited >= WRITE_STALL && waited < 2 * WRITE_STALL, "{waited:?}");
    rig.cancelled(&[0]).await;
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order() {
    let rig = Rig::saying("ab");
    let served = Served::new(&rig).await;
    let mut stream = served.connect().await;
    let mut bytes = request("/v1/chat/completions", &chat(json!({"stream": true})));
    bytes.extend(request("/v1/completions", &completion(json!({}))));
    bytes.extend(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(&bytes).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\nok\n").await;
    let done = answer.find("data: [DONE]").unwrap();
    let whole = answer.find("\"text\":\"ab\"").unwrap();
    assert!(done < whole, "{answer}");
}

#[tokio::test]
async fn slow_headers_are_cut_off() {
    let rig = Rig::saying("x");
    let served = Served::new(&rig).await;
    let start = Instant::now();
    let answer = served.exchange(b"GET /livez HTTP/1.1\r\nhost: loc").await;
    assert!(start.elapsed() >= HEADER_TIMEOUT && start.elapsed() < 2 * HEADER_TIMEOUT);
    assert!(!answer.contains(" 200 "), "{answer}");
}

#[tokio::test]
async fn what_is_not_a_decent_request_is_refused_and_closed() {
    let rig = Rig::saying("x");
    let served = Served::new(&rig).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n";
    let many: String = (0..100).map(|index| format!("x-{index}: 1\r\n")).collect();
    let cases = [
        (format!("{head}x: {}\r\n\r\n", "a".repeat(32 << 10)), "431"),
        (format!("{head}{many}\r\n"), "431"),
        (format!("{head}content-length: -1\r\n\r\n"), "400"),
        (format!("{head}content-length: 9223372036854775808000\r\n\r\n"), "400"),
        (format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"), "400"),
        (format!("{head}no colon\r\n\r\n"), "400"),
        (format!("{head}space : 1\r\n\r\n"), "400"),
        (format!("{head}nul: a\0b\r\n\r\n"), "400"),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\r\n\r\n".to_owned(), "400"),
        ("GET http://evil.example/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(), "403"),
    ];
    for (bytes, status) in cases {
        let answer = served.exchange(bytes.as_bytes()).await;
        let line = answer.lines().next().unwrap_or_default();
        assert!(line.contains(status), "{:?} gave {line:?}", &bytes[..bytes.len().min(120)]);
    }
    // HTTP/0.9 gets no body of ours, HTTP/2 is told so.
    assert!(!served.exchange(b"GET /health\r\n\r\n").await.contains("woolly"));
    assert!(
        served.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.starts_with("HTTP/1.1 505 ")
    );
    assert!(rig.requests().is_empty());
}

#[tokio::test]
async fn a_body_that_is_announced_too_long_is_refused_before_it_is_sent() {
    let rig = Rig::saying("x");
    let served = Served::new(&rig).await;
    let bytes = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
                  content-length: 8388609\r\n\r\n";
    let mut stream = served.connect().await;
    stream.write_all(bytes).await.unwrap();
    let answer = read_until(&mut stream, "request_too_large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_then_tells_the_streams() {
    let rig = Rig::new(|_| Script::Hold(tokens("a")));
    let mut served = Served::new(&rig).await;
    let mut endless = served.connect().await;
    let body = chat(json!({"stream": true}));
    endless.write_all(&request("/v1/chat/completions", &body)).await.unwrap();
    read_until(&mut endless, "\"content\":\"a\"").await;
    let mut short = served.connect().await;
    short.write_all(&request("/v1/completions", &completion(json!({})))).await.unwrap();
    while rig.requests().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _idle = served.connect().await;
    served.stop.take().unwrap().send(()).unwrap();
    while !rig.gateway.draining.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let events = rig.seen.lock().unwrap().held[1].clone();
    events.send(finished(FinishReason::Length)).await.unwrap();
    read_until(&mut short, "\"finish_reason\":\"length\"").await;
    let end = read_until(&mut endless, "[DONE]").await;
    assert!(end.contains("\"code\":\"shutting_down\""), "{end}");
    let ended = tokio::time::timeout(Duration::from_secs(20), served.task).await;
    ended.expect("the server did not end").unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
    rig.cancelled(&[0, 1]).await;
}
