//! Hostile clients at the gateway of a real driver. One rule for every row: a typed error or the documented
//! success; no panic, no hang, no growth; and afterwards a canary is answered with the same tokens as before,
//! and blocks, tasks and connections are what they were.
//!
//! Rows have the numbers of the catalogue of hostile requests. Those that are held elsewhere:
//!
//! | rows | test |
//! | --- | --- |
//! | H-33 against the reference tokenizer | `engine/tests/tokenizer_vectors.rs` |
//! | H-52, 1,000 slow senders beside 64 good clients; H-80, H-81 | `tests/load/` |
//! | H-63, equal times; H-65, H-66, H-67 | `http/tests/door.rs`, `http/server/keys.rs` |
//! | H-70 | `scheduler/tests/prefix.rs` |
//! | H-73, H-74 | `tests/chaos/` |
//! | H-75, 30 s of a client that reads nothing | `http/tests/listener.rs` with a clock that is turned |
//! | H-77, H-78, H-79 | `http/tests/streaming.rs` |

mod bytes;
mod connections;
mod fields;
mod values;

use super::odd_chats::{TEMPLATES, compute, parts};
use super::{Player, Rig};
use crate::http::tests::support::{BOS, post, read_json};
use crate::http::{Gateway, router};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tower::ServiceExt;

/// No row may take longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Characters of an error's message at most: what a client sent is not sent back to it in whole.
const MESSAGE_MAX: usize = 2000;

/// A driver with a played worker, a gateway in front of it, and what it was like before the rows.
struct Bed {
    rig: Rig,
    router: Router,
    address: SocketAddr,
    canary: Value,
    tasks: usize,
    free: u32,
    _stop: oneshot::Sender<()>,
}

impl Bed {
    /// The worker computes a forward in `pause`.
    async fn new(pause: Duration) -> Bed {
        let (rig, mut players): (Rig, Vec<Player>) = Rig::ready(1).await;
        tokio::spawn(compute(players.remove(0), pause));
        let (config, models) = parts(TEMPLATES[5], true);
        let gateway = Arc::new(Gateway::new(config, rig.engine.clone(), models));
        let router = router(Arc::clone(&gateway), "127.0.0.1".parse().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            crate::http::serve(vec![listener], None, gateway, stopped).await
        });
        let mut bed =
            Bed { rig, router, address, canary: Value::Null, tasks: 0, free: 0, _stop: stop };
        bed.canary = bed.ask_canary().await;
        bed.free = bed.rig.status().kv_blocks_free;
        bed.tasks = Handle::current().metrics().num_alive_tasks();
        bed
    }

    /// What a decent client gets.
    async fn ask_canary(&self) -> Value {
        let body = json!({
            "model": "tiny", "prompt": [BOS, 7, 7, 7], "max_tokens": 8, "temperature": 0, "seed": 1,
            "logprobs": 1,
        });
        let asked = self.router.clone().oneshot(post("/v1/completions", body.to_string()));
        let response =
            tokio::time::timeout(PATIENCE, asked).await.expect("the canary hangs").unwrap();
        assert_eq!(response.status(), 200, "the canary is refused");
        let mut body = read_json(response).await;
        body["choices"].take()
    }

    /// Sends a request past the sockets and judges the answer; its status.
    async fn row(&self, row: &str, request: Request<Body>) -> u16 {
        let asked = async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            judge(row, response).await
        };
        let status = tokio::time::timeout(PATIENCE, asked).await;
        status.unwrap_or_else(|_| panic!("{row} hangs"))
    }

    /// Posts JSON.
    async fn post(&self, row: &str, path: &str, body: &Value) -> u16 {
        self.row(row, post(path, body.to_string())).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a connection of their own and reads until the server closes, or an answer has come to
    /// its end; what was read.
    async fn bytes(&self, row: &str, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        let (mut read, mut write) = stream.split();
        let mut answer = Vec::new();
        let exchange = async {
            // Whoever is refused early may not get rid of all that it wants to send.
            let writing = async {
                let _ = write.write_all(bytes).await;
                std::future::pending::<()>().await
            };
            tokio::select! {
                () = writing => {}
                _ = read.read_to_end(&mut answer) => {}
            }
        };
        let done = tokio::time::timeout(PATIENCE, exchange).await;
        assert!(done.is_ok(), "{row}: the server neither answers to the end nor closes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Everything is as it was: the driver lives, nothing runs, no connection, task or block is left over,
    /// and the canary sings.
    async fn after(&self, rows: &str) {
        assert!(!self.rig.driver.is_finished(), "{rows}: the driver ended");
        let port = self.address.port();
        let settled = async {
            loop {
                let status = self.rig.status();
                let tasks = Handle::current().metrics().num_alive_tasks();
                let idle = status.running + status.waiting == 0;
                let left = connections(port);
                if idle && left == 0 && tasks <= self.tasks && status.kv_blocks_free == self.free {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, settled).await.is_err() {
            let tasks = Handle::current().metrics().num_alive_tasks();
            panic!(
                "{rows}: left over: {} connections, {tasks} tasks instead of {}, {:?}",
                connections(port),
                self.tasks,
                self.rig.status(),
            );
        }
        assert_eq!(self.ask_canary().await, self.canary, "{rows}: the canary sings another song");
    }
}

/// Connections of this port that the server has not closed.
fn connections(port: u16) -> usize {
    // In the system's words: a connection is established (01) or waits for this side to close it (08).
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let ours = format!(":{port:04X}");
    let is_open = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.len() > 3 && words[1].ends_with(&ours) && ["01", "08"].contains(&words[3])
    };
    table.lines().skip(1).filter(is_open).count()
}

/// A typed error or a success.
async fn judge(row: &str, response: Response) -> u16 {
    let status = response.status().as_u16();
    let is_stream = response
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("text/event-stream")));
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| panic!("{row}: no UTF-8"));
    let head: String = text.chars().take(400).collect();
    assert!((200..500).contains(&status), "{row}: {status} {head}");
    assert!(!text.contains("server_error"), "{row}: {head}");
    if status < 400 {
        // Each API says in its own way that a stream is whole.
        let ends = [
            "data: [DONE]",
            "\"message_stop\"",
            "\"response.completed\"",
            "\"response.incomplete\"",
        ];
        let whole = !is_stream || ends.iter().any(|end| text.contains(end));
        assert!(whole, "{row}: the stream has no end: {head}");
        return status;
    }
    let body: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{row}: {status} without JSON: {head}"));
    let error = &body["error"];
    let message = error["message"].as_str().or(error.as_str()).unwrap_or_default();
    assert!(!message.is_empty(), "{row}: {status} says nothing: {head}");
    assert!(message.len() <= MESSAGE_MAX, "{row}: {status} says too much: {head}");
    status
}
