//! Server-sent events: how the messages of a stream are told apart on the wire. What a message says is
//! unknown here.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use serde::Serialize;

/// A comment, which clients skip.
pub const PING: Bytes = Bytes::from_static(b": ping\n\n");

/// Bytes that the event of one token usually takes.
const EVENT_BYTES: usize = 384;

/// Events that are sent together.
#[derive(Debug, Default)]
pub struct Events {
    bytes: Vec<u8>,
}

impl Events {
    /// Adds an event. JSON has no line ends of its own, so whatever a model writes stays inside.
    pub fn message(&mut self, message: &impl Serialize) {
        self.bytes.reserve(EVENT_BYTES);
        self.bytes.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut self.bytes, message)
            .expect("memory takes everything, and all keys are strings");
        self.bytes.extend_from_slice(b"\n\n");
    }

    /// Adds an event with a name, and with a number to come back with.
    pub fn named(&mut self, id: Option<u64>, name: &str, message: &impl Serialize) {
        if let Some(id) = id {
            self.bytes.extend_from_slice(format!("id: {id}\n").as_bytes());
        }
        self.bytes.extend_from_slice(format!("event: {name}\n").as_bytes());
        self.message(message);
    }

    /// Adds the event that OpenAI's clients take for the end of a stream.
    pub fn done(&mut self) {
        self.bytes.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The events as they are sent.
    pub fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }
}

/// Says in the head of an answer that events follow.
pub fn announce(headers: &mut HeaderMap) {
    let event_stream = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, event_stream);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would collect the events otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
}
