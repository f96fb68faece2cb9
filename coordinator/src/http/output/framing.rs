//! How the messages of a stream are told apart on the wire, and what is sent while there is none.
//!
//! What a message says is unknown here.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};

/// A comment, which every client of server-sent events skips.
const COMMENT: &[u8] = b": ping\n\n";
/// A space: JSON allows it before the object that follows on the same line. Nothing else may stand between
/// the lines, as clients parse each of them.
const SPACE: &[u8] = b" ";

/// A framing. Whatever it sends while there is no message also shows whether a client that has closed its
/// half of the connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Events {
        /// Sent after a silence: whole events or comments.
        ping: &'static [u8],
    },
    /// A JSON object on each line.
    Lines,
}

impl Framing {
    /// Server-sent events that are kept alive by a comment.
    pub const EVENTS: Framing = Framing::Events { ping: COMMENT };

    /// What is sent after a silence, so that proxies and clients keep the connection.
    pub fn ping(self) -> Bytes {
        Bytes::from_static(match self {
            Framing::Events { ping } => ping,
            Framing::Lines => SPACE,
        })
    }

    /// Says in the head of an answer what follows.
    pub fn announce(self, headers: &mut HeaderMap) {
        let kind = match self {
            Framing::Events { .. } => "text/event-stream",
            Framing::Lines => "application/x-ndjson",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // nginx would collect the messages otherwise.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
}
