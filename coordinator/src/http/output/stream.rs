//! The body of a streamed answer: deltas as they come, kept alive while none does.
//!
//! The body pulls from the engine only as fast as the client reads; the events between wait in the
//! generation's own bounded channel. When the client goes away the server drops the body, and with
//! it the generations, which cancels them.

use super::choices::Choices;
use super::encoder::Encoder;
use super::sse::Events;
use crate::http::error::{ApiError, shutting_down};
use crate::http::server::connection::PROBE_SOON;
use crate::http::server::places::ClientHalf;
use crate::http::server::request_log::{RequestLog, Streamed};
use axum::body::{Body, Bytes};
use axum::response::Response;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Silence after which the framing's ping is sent, so that proxies and clients keep the connection.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Everything a running stream holds.
struct Stream<E> {
    encoder: E,
    choices: Choices,
    /// The server closes its connections now.
    closing: CancellationToken,
    /// Whether the client has closed its half; a ping then shows whether it is gone.
    client: Option<ClientHalf>,
    /// After this time without a word a client that has closed its half gets a ping.
    silent: Duration,
    log: RequestLog,
    last_sent: Instant,
    done: bool,
}

/// The response that streams `choices` as `encoder` writes them to a client, whose request is in the `log`.
pub fn response(
    encoder: impl Encoder,
    choices: Choices,
    closing: CancellationToken,
    client: Option<ClientHalf>,
    log: RequestLog,
) -> Response {
    let last_sent = Instant::now();
    let silent = PROBE_SOON;
    let framing = encoder.framing();
    let stream = Stream { encoder, choices, closing, client, silent, log, last_sent, done: false };
    let bytes = futures_util::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, Infallible>(bytes), stream))
    });
    let mut response = Response::new(Body::from_stream(bytes));
    response.extensions_mut().insert(Streamed);
    framing.announce(response.headers_mut());
    response
}

impl<E: Encoder> Stream<E> {
    /// The next bytes to send, never empty; `None` when the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        let mut events = Events::default();
        while !self.done && events.is_empty() {
            let deltas = tokio::select! {
                biased;
                () = self.closing.cancelled() => Some(Err(shutting_down())),
                deltas = self.choices.next() => deltas,
                () = silence(self.client.as_ref(), self.last_sent, self.silent) => {
                    self.silent = (2 * self.silent).min(KEEP_ALIVE);
                    self.last_sent = Instant::now();
                    return Some(self.encoder.framing().ping());
                }
            };
            match deltas {
                Some(Ok((index, deltas))) => {
                    let usage = self.choices.usage();
                    for delta in deltas.iter() {
                        self.encoder.delta(index, delta, usage, &mut events);
                    }
                }
                Some(Err(error)) => self.end_with(&error, &mut events),
                None => self.end(&mut events),
            }
        }
        self.last_sent = Instant::now();
        (!events.is_empty()).then(|| events.into_bytes())
    }

    fn end(&mut self, events: &mut Events) {
        self.done = true;
        self.log.complete();
        self.encoder.finish(self.choices.usage(), events);
    }

    /// An error after the status was sent: clients read it from an event. No choice gets a reason why it
    /// finished.
    fn end_with(&mut self, error: &ApiError, events: &mut Events) {
        self.done = true;
        self.choices.failed();
        self.log.failed(error.code());
        self.encoder.error(error, events);
    }
}

/// Returns when it is time for a ping: every while, and after the client has closed its half ever
/// less often, from soon on, until it is as seldom.
pub(super) async fn silence(client: Option<&ClientHalf>, last_sent: Instant, silent: Duration) {
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
