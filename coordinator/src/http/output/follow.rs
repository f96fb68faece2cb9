//! The body of an answer that can be continued: what a reader takes from a tape, kept alive while nothing comes.
//!
//! When the client goes away the server drops the body, and with it the reader; the stream itself goes on. What is
//! said to a client because its own connection ends has the id of the last event that it got: it misses nothing when
//! it comes back.

use super::framing::Framing;
use super::record::with_id;
use super::sse::Events;
use super::stream::{KEEP_ALIVE, silence};
use super::tape::{Reader, Taken};
use crate::http::error::{ApiError, Problem, shutting_down};
use crate::http::server::connection::PROBE_SOON;
use crate::http::server::places::ClientHalf;
use crate::http::server::request_log::{RequestLog, Streamed};
use axum::body::{Body, Bytes};
use axum::response::Response;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// All that an answer holds.
struct Following {
    reader: Reader,
    closing: CancellationToken,
    client: Option<ClientHalf>,
    silent: Duration,
    last_sent: Instant,
    log: RequestLog,
    done: bool,
}

/// The response that gives a reader its events.
pub fn response(
    reader: Reader,
    closing: CancellationToken,
    client: Option<ClientHalf>,
    log: RequestLog,
) -> Response {
    let (silent, last_sent, done) = (PROBE_SOON, Instant::now(), false);
    let following = Following { reader, closing, client, silent, last_sent, log, done };
    let bytes = futures_util::stream::unfold(following, |mut following| async move {
        let bytes = following.next().await?;
        Some((Ok::<_, Infallible>(bytes), following))
    });
    let mut response = Response::new(Body::from_stream(bytes));
    response.extensions_mut().insert(Streamed);
    Framing::EVENTS.announce(response.headers_mut());
    response
}

impl Following {
    async fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let taken = tokio::select! {
            biased;
            () = self.closing.cancelled() => Taken::Stopped(shutting_down()),
            taken = self.reader.next() => taken,
            () = silence(self.client.as_ref(), self.last_sent, self.silent) => {
                self.silent = (2 * self.silent).min(KEEP_ALIVE);
                self.last_sent = Instant::now();
                // A comment in every API: a ping that is an event would have no id.
                return Some(Framing::EVENTS.ping());
            }
        };
        self.last_sent = Instant::now();
        let error = match taken {
            Taken::Events(bytes) => return Some(bytes),
            Taken::End => {
                self.log.complete();
                return None;
            }
            Taken::Failed(code, events) => {
                self.done = true;
                self.log.failed(code);
                let events: Vec<Bytes> = events.iter().map(|event| self.at_last(event)).collect();
                return Some(events.concat().into()).filter(|bytes: &Bytes| !bytes.is_empty());
            }
            Taken::Stopped(error) => error,
            Taken::TakenOver => taken_over(),
            Taken::Beyond => beyond(),
        };
        self.done = true;
        self.log.failed(error.code());
        let mut events = Events::default();
        self.reader.tape().interrupt(&error, &mut events);
        Some(self.at_last(&events.into_bytes()))
    }

    /// An event that has no place of its own: a client that comes back goes on after the last that has one.
    fn at_last(&self, event: &Bytes) -> Bytes {
        self.reader.last().map_or_else(|| event.clone(), |last| with_id(last, event))
    }
}

fn taken_over() -> ApiError {
    let text = "This stream is read over another connection now: a later request continues it.";
    ApiError::new(Problem::Conflict, text).coded("stream_taken_over")
}

/// A place that no event of the stream has.
fn beyond() -> ApiError {
    let text = "The stream ended before the event that 'Last-Event-ID' names.";
    ApiError::invalid("Last-Event-ID", text)
}
