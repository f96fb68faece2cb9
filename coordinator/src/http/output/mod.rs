//! From the events of generations to the bytes of an answer.
//!
//! Nothing here knows the fields of a request.
//!
//! | file | holds |
//! | --- | --- |
//! | `choice.rs` | the running choices of a request: events → pieces of text |
//! | `text.rs` | tokens → whole characters; stop strings |
//! | `response.rs`, `logprobs.rs` | text → JSON, whole and in chunks |
//! | `sse.rs` | the stream of an answer |

pub mod choice;
pub mod logprobs;
pub mod response;
pub mod sse;
pub mod text;
