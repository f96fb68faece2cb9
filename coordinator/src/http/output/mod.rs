//! From the events of generations to the bytes of an answer.
//!
//! Nothing here knows the fields of a request, or the words of an API: those stand in `api/`.
//!
//! | file | holds |
//! | --- | --- |
//! | `choices.rs`, `choice.rs` | the running choices of a request: events → deltas |
//! | `text.rs` | tokens → whole characters; stop strings |
//! | `delta.rs`, `encoder.rs` | what an answer is made of; what writes it down |
//! | `stream.rs`, `sse.rs`, `framing.rs` | the body of a streamed answer; its messages on the wire |
//! | `place.rs`, `tape.rs` | streams that can be continued: ids of events; events as they are made and read |
//! | `record.rs`, `follow.rs` | who makes such a stream, and the body of who reads it |
//! | `streams.rs` | all of them, in memory and in the journal |

pub mod choice;
pub mod choices;
pub mod delta;
pub mod encoder;
pub mod follow;
pub mod framing;
pub mod place;
pub mod record;
pub mod sse;
pub mod stream;
pub mod streams;
pub mod tape;
pub mod text;
