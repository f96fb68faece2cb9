//! From the bytes of a body to what is to be generated: every field is obeyed or refused by name.
//!
//! Nothing here knows a connection, or how an answer is written; which fields an endpoint has is said in
//! `api/`.
//!
//! | file | holds |
//! | --- | --- |
//! | `json.rs`, `fields.rs` | bytes → JSON → fields |
//! | `known/` | the table of fields that are accepted without acting on them |
//! | `constraint.rs`, `sampling.rs`, `samplers.rs`, `dry.rs`, `limits.rs`, `stopping.rs`, `choices.rs`, `messages.rs`, `tools.rs`, `thinking.rs`, `template_options.rs`, `prompts.rs` | the fields that are acted on |
//! | `tokens.rs`, `fill_in.rs` | conversations and texts → token ids |
//! | `conversation.rs` | what a conversation asks for, in no API's words |
//! | `job.rs` | all of it → choices that are ready to start |

pub mod choices;
pub mod constraint;
pub mod conversation;
pub mod dry;
pub mod fields;
pub mod fill_in;
pub mod job;
pub mod json;
pub mod known;
pub mod limits;
pub mod messages;
pub mod prompts;
pub mod samplers;
pub mod sampling;
pub mod stopping;
pub mod template_options;
mod thinking;
pub mod tokens;
pub mod tools;
