//! Makes a stream that can be continued: deltas of its choices → events with places → its tape.
//!
//! It does not stop because a reader goes away.

use super::choices::Choices;
use super::delta::{Delta, Deltas};
use super::encoder::Encoder;
use super::place::{Place, Places};
use super::sse::Events;
use super::tape::Tape;
use crate::http::error::{ApiError, Problem, shutting_down};
use crate::http::server::request_log::RequestLog;
use crate::journal::{Journal, Note};
use axum::body::Bytes;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// All that makes a stream.
pub struct Recorder {
    /// The stream's number in the journal.
    pub number: u128,
    /// Where it goes.
    pub tape: Arc<Tape>,
    /// What writes it.
    pub encoder: Box<dyn Encoder>,
    /// What it is made of, in order.
    pub choices: Choices,
    /// Where it is said what becomes of it.
    pub journal: Journal,
    /// The server closes its connections now.
    pub closing: CancellationToken,
    /// The line of a stream that is made again; the first time its reader has it.
    pub log: Option<RequestLog>,
}

impl Recorder {
    /// Makes the stream, to its end or until nobody waits for it. What the server's own end cuts off stays in the
    /// journal.
    pub async fn run(mut self) {
        self.tape.begins(self.encoder.interruption());
        let mut places = Places::default();
        loop {
            let (tape, closing) = (Arc::clone(&self.tape), self.closing.clone());
            let deltas = tokio::select! {
                biased;
                () = closing.cancelled() => return tape.stop(shutting_down()),
                () = tape.abandoned.cancelled() => return,
                deltas = self.next() => deltas,
            };
            let mut events = Events::apart();
            match deltas {
                Some(Ok((index, deltas))) => {
                    let usage = self.choices.usage();
                    for delta in deltas.iter() {
                        if *delta == Delta::Start {
                            self.note_cached(index);
                        }
                        self.encoder.delta(index, delta, usage, &mut events);
                    }
                    self.add(&events, &mut places);
                }
                Some(Err(error)) if error.problem() == Problem::ShuttingDown => {
                    return self.tape.stop(error);
                }
                Some(Err(error)) => return self.fail(&error),
                None => {
                    self.encoder.finish(self.choices.usage(), &mut events);
                    self.add(&events, &mut places);
                    return self.finish();
                }
            }
        }
    }

    async fn next(&mut self) -> Option<Result<(usize, Deltas), ApiError>> {
        self.tape.room().await;
        self.choices.next().await
    }

    /// What a cache held is part of the usage: the same must be said if the answer is made again.
    fn note_cached(&mut self, index: usize) {
        if let (Some(tokens), Ok(choice)) =
            (self.choices.settle_cached(index), u32::try_from(index))
        {
            self.journal.note(self.number, Note::Cached { choice, tokens });
        }
    }

    fn add(&self, events: &Events, places: &mut Places) {
        if events.is_empty() {
            return;
        }
        let messages = events.messages();
        let tokens = self.choices.usage().completion_tokens;
        let given = places.next(messages.len(), tokens).into_iter().zip(messages);
        self.tape.add(given.map(|(place, event)| (place, with_id(place, event))));
    }

    fn fail(mut self, error: &ApiError) {
        self.choices.failed();
        if let Some(log) = &self.log {
            log.failed(error.code());
        }
        let mut events = Events::apart();
        self.encoder.error(error, &mut events);
        let messages = events.messages().map(Bytes::copy_from_slice).collect();
        self.tape.fail(error.code(), messages);
        self.end();
    }

    fn finish(self) {
        if let Some(log) = &self.log {
            log.complete();
        }
        self.end();
    }

    fn end(self) {
        self.tape.end();
        self.journal.note(self.number, Note::Finished);
    }
}

/// An event with the id that a client comes back with.
pub fn with_id(place: Place, event: &[u8]) -> Bytes {
    let mut bytes = format!("id: {place}\n").into_bytes();
    bytes.extend_from_slice(event);
    bytes.into()
}
