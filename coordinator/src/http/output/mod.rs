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

pub mod choice;
pub mod choices;
pub mod delta;
pub mod encoder;
pub mod framing;
pub mod sse;
pub mod stream;
pub mod text;
