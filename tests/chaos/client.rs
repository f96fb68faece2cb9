//! A client of its own thread: sends a request at its time, and records what comes and when.

use crate::answer::Answer;
use crate::request::Request;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use woolly_tests::http;

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// When it comes, from the start of the load.
    pub at: Duration,
    /// Which request it sends.
    pub request: usize,
    /// Whether it wants a stream.
    pub streamed: bool,
    /// After how many events it leaves, if it does not wait for the end.
    pub leaves_after: Option<usize>,
}

/// A client under way.
#[derive(Debug)]
pub struct Client {
    /// How it behaves.
    pub visit: Visit,
    tokens: Arc<AtomicUsize>,
    thread: JoinHandle<Answer>,
}

/// What a client got.
#[derive(Debug)]
pub struct Seen {
    /// How it behaved.
    pub visit: Visit,
    /// What came.
    pub answer: Answer,
}

impl Client {
    /// Starts a client of a load that began at `start`.
    pub fn start(server: SocketAddr, requests: &[Request], visit: Visit, start: Instant) -> Client {
        let request = &requests[visit.request];
        let (path, mut body) = (request.path, request.body.clone());
        if visit.streamed {
            body["stream"] = json!(true);
            body["stream_options"] = json!({ "include_usage": true });
        }
        let tokens = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tokens);
        let thread = thread::spawn(move || {
            thread::sleep((start + visit.at).saturating_duration_since(Instant::now()));
            ask(server, path, &body, &visit, &count)
        });
        Client { visit, tokens, thread }
    }

    /// Tokens that have come; events where tokens are not told apart.
    pub fn tokens(&self) -> usize {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    pub fn join(self) -> Seen {
        let answer = self.thread.join().expect("a client does not panic");
        Seen { visit: self.visit, answer }
    }
}

/// Sends a request and records the answer.
pub fn ask(
    server: SocketAddr,
    path: &str,
    body: &Value,
    visit: &Visit,
    tokens: &AtomicUsize,
) -> Answer {
    let mut answer = Answer::begun();
    let read = match http::post(server, path, body) {
        Ok(head) => {
            answer.status = head.status;
            match head.status {
                200 if visit.streamed => stream(head, &mut answer, visit, tokens),
                _ => head.json().map(|whole| answer.add(&whole)).map_err(|e| e.to_string()),
            }
        }
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = read {
        answer.error.get_or_insert(error);
    }
    if answer.status != 200 {
        answer.error.get_or_insert("no error is named".to_owned());
    }
    answer
}

/// Reads events to the end, or leaves before.
fn stream(
    head: http::Answer,
    answer: &mut Answer,
    visit: &Visit,
    count: &AtomicUsize,
) -> Result<(), String> {
    let mut events = head.events();
    let mut done = false;
    while let Some(event) = events.next() {
        let event = event.map_err(|error| format!("the stream breaks off: {error}"))?;
        if done {
            return Err(format!("after [DONE] comes {event}"));
        }
        if event == "[DONE]" {
            done = true;
            continue;
        }
        let event = serde_json::from_str(&event).map_err(|error| format!("{error}: {event}"))?;
        answer.add(&event);
        let came = answer.times.len() - 1;
        count.store(came.max(answer.tokens.len()), Ordering::Relaxed);
        if visit.leaves_after.is_some_and(|most| came >= most) {
            answer.left = true;
            events.abandon();
            return Ok(());
        }
    }
    if done { Ok(()) } else { Err("the stream ends without [DONE]".to_owned()) }
}
