//! The gateway against a fake engine: what clients see, and what the engine is asked to do.

mod admin;
mod bad_input;
mod door;
mod endpoints;
mod harmless;
mod listener;
mod log;
mod logprobs;
mod many_prompts;
mod metrics;
mod streaming;
pub(crate) mod support;
mod third_api;
mod whole;
