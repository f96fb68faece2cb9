//! A stream of answers: server-sent events, kept alive, ended by `[DONE]`.
//!
//! The body pulls from the engine only as fast as the client reads; the events between wait in the
//! generation's own bounded channel. When the client goes away the server drops the body, and with
//! it the generations, which cancels them.

use super::choice::Choices;
use super::response::Answer;
use crate::http::error::{ApiError, shutting_down};
use crate::http::server::connection::PROBE_SOON;
use crate::http::server::places::ClientHalf;
use crate::http::server::request_log::{RequestLog, Streamed};
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::Value;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Silence after which a comment is sent, so that proxies and clients keep the connection.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The comment.
const PING: &str = ": ping\n\n";

/// Everything a running stream holds.
struct Stream {
    answer: Answer,
    choices: Choices,
    /// The server closes its connections now.
    closing: CancellationToken,
    /// Whether the client has closed its half; a comment then shows whether it is gone.
    client: Option<ClientHalf>,
    /// After this time without a word a client that has closed its half gets a comment.
    silent: Duration,
    log: RequestLog,
    last_sent: Instant,
    done: bool,
}

/// The response that streams `choices` to a client, whose request is in the `log`.
pub fn response(
    answer: Answer,
    choices: Choices,
    closing: CancellationToken,
    client: Option<ClientHalf>,
    log: RequestLog,
) -> Response {
    let last_sent = Instant::now();
    let silent = PROBE_SOON;
    let stream = Stream { answer, choices, closing, client, silent, log, last_sent, done: false };
    let bytes = futures_util::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, Infallible>(bytes), stream))
    });
    let mut response = Response::new(Body::from_stream(bytes));
    response.extensions_mut().insert(Streamed);
    let headers = response.headers_mut();
    let event_stream = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, event_stream);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would collect the events otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Stream {
    /// The next bytes to send, never empty; `None` when the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let text = loop {
            let piece = tokio::select! {
                biased;
                () = self.closing.cancelled() => Some(Err(shutting_down())),
                piece = self.choices.next() => piece,
                () = silence(self.client.as_ref(), self.last_sent, self.silent) => {
                    self.silent = (2 * self.silent).min(KEEP_ALIVE);
                    break PING.to_owned();
                }
            };
            match piece {
                Some(Ok((index, piece))) => {
                    let usage = self.choices.usage();
                    let text: String =
                        self.answer.chunks(index, &piece, usage).iter().map(event).collect();
                    if !text.is_empty() {
                        break text;
                    }
                }
                Some(Err(error)) => break self.end_with(&error),
                None => break self.end(),
            }
        };
        self.last_sent = Instant::now();
        Some(text.into())
    }

    fn end(&mut self) -> String {
        self.done = true;
        self.log.complete();
        let usage = self.answer.usage_chunk(self.choices.usage());
        let mut text = usage.as_ref().map(event).unwrap_or_default();
        text.push_str("data: [DONE]\n\n");
        text
    }

    /// An error after the status was sent: clients read it from an event. `[DONE]` follows, as
    /// OpenAI's clients wait for it; no choice gets a `finish_reason`.
    fn end_with(&mut self, error: &ApiError) -> String {
        self.done = true;
        self.choices.failed();
        self.log.failed(error.code());
        format!("{}data: [DONE]\n\n", event(&error.body()))
    }
}

/// Returns when it is time for a comment: every while, and after the client has closed its half ever
/// less often, from soon on, until it is as seldom.
async fn silence(client: Option<&ClientHalf>, last_sent: Instant, silent: Duration) {
    let usual = tokio::time::sleep_until(last_sent + KEEP_ALIVE);
    let Some(client) = client else { return usual.await };
    let closed = async {
        client.closed().await;
        tokio::time::sleep_until(last_sent + silent).await;
    };
    tokio::select! {
        () = usual => {}
        () = closed => {}
    }
}

/// One event. JSON has no line ends of its own, so whatever a model writes stays inside.
fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}
