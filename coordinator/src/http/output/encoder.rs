//! What the answers of an API are written by.
//!
//! An API is a pair of translators: a function from the fields of a request to a
//! [`Job`](crate::http::input::job::Job), and an [`Encoder`] from the deltas of its choices to the
//! messages of a stream or to one whole answer. How messages are told apart on the wire is the
//! [`Framing`]'s, which the API chooses.

use super::delta::{Delta, WholeChoice};
use super::framing::Framing;
use super::sse::Events;
use super::tape::Interruption;
use crate::http::error::ApiError;
use crate::http::usage::Usage;

/// Writes one answer in the words of its API.
pub trait Encoder: Send + 'static {
    /// How the messages of a stream are told apart.
    fn framing(&self) -> Framing {
        Framing::EVENTS
    }

    /// Writes what choice `index` adds to a stream, if the API has words for it; the answer has used
    /// `usage` so far.
    fn delta(&mut self, index: usize, delta: &Delta, usage: Usage, events: &mut Events);

    /// The first token of an answer that is given whole has come; in a stream, its [`Delta::Start`] says so.
    fn begins(&mut self) {}

    /// Writes the end of a stream whose choices are all complete.
    fn finish(&mut self, usage: Usage, events: &mut Events);

    /// Writes the end of a stream that an error cuts short; its status was sent already.
    fn error(&mut self, error: &ApiError, events: &mut Events);

    /// What writes, in the words of this API, why a stream stops that is not over and can be continued.
    fn interruption(&self) -> Interruption {
        |error, events| events.message(&error.body())
    }

    /// A whole answer, as JSON text; `choices[i]` is choice `i`, complete.
    fn whole(&self, choices: &[WholeChoice], usage: Usage) -> String;
}
