//! The gateway against a fake engine: what clients see, and what the engine is asked to do.

mod admin;
mod bad_input;
mod choices;
mod door;
mod door_tools;
mod endpoints;
mod fields;
mod harmless;
mod infill;
mod listener;
mod log;
mod logprobs;
mod many_prompts;
mod members;
mod messages;
mod metrics;
mod ollama;
mod reports;
mod responses;
mod streaming;
mod streams;
pub(crate) mod support;
mod thinking;
mod third_api;
mod tls;
mod tools;
mod whole;
