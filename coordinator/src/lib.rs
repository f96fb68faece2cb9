//! Cuts a model over workers, schedules their work and answers OpenAI clients.
//!
//! The binary is thin: everything is here, so that tests and benches can use it.

#![forbid(unsafe_code)]

pub mod generation;
pub mod scheduler;
