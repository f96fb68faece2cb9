//! The messages of a stream as they stand on the wire: server-sent events with and without a name, or
//! lines of JSON. What a message says is unknown here.

use axum::body::Bytes;
use serde::Serialize;

/// Bytes that the event of one token usually takes.
const EVENT_BYTES: usize = 384;

/// Messages that are sent together.
#[derive(Debug, Default)]
pub struct Events {
    bytes: Vec<u8>,
    /// Where each message ends, if they are wanted apart.
    ends: Option<Vec<usize>>,
}

impl Events {
    /// Messages that are sent together and kept apart.
    pub fn apart() -> Events {
        Events { ends: Some(Vec::new()), ..Events::default() }
    }

    /// Adds an event without a name. JSON has no line ends of its own, so whatever a model writes stays
    /// inside.
    pub fn message(&mut self, message: &impl Serialize) {
        self.bytes.reserve(EVENT_BYTES);
        self.bytes.extend_from_slice(b"data: ");
        self.json(message);
        self.bytes.extend_from_slice(b"\n\n");
        self.ended();
    }

    /// Adds an event with a name, and with a number to come back with.
    pub fn named(&mut self, id: Option<u64>, name: &str, message: &impl Serialize) {
        if let Some(id) = id {
            self.bytes.extend_from_slice(format!("id: {id}\n").as_bytes());
        }
        self.bytes.extend_from_slice(format!("event: {name}\n").as_bytes());
        self.message(message);
    }

    /// Adds a line of JSON.
    pub fn line(&mut self, message: &impl Serialize) {
        self.bytes.reserve(EVENT_BYTES);
        self.json(message);
        self.bytes.push(b'\n');
        self.ended();
    }

    /// Adds the event that OpenAI's clients take for the end of a stream.
    pub fn done(&mut self) {
        self.bytes.extend_from_slice(b"data: [DONE]\n\n");
        self.ended();
    }

    fn ended(&mut self) {
        let end = self.bytes.len();
        if let Some(ends) = &mut self.ends {
            ends.push(end);
        }
    }

    /// The messages one by one; all as one if they were not kept apart.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let whole = [self.bytes.len()];
        let ends = self.ends.clone().unwrap_or_else(|| whole.into());
        let mut from = 0;
        ends.into_iter().map(move |end| &self.bytes[std::mem::replace(&mut from, end)..end])
    }

    fn json(&mut self, message: &impl Serialize) {
        serde_json::to_writer(&mut self.bytes, message)
            .expect("memory takes everything, and all keys are strings");
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The messages as they are sent.
    pub fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }
}
