//! Cuts a model over workers, schedules their work and answers OpenAI clients.
//!
//! The binary is thin: everything is here, so that tests and benches can use it.

#![forbid(unsafe_code)]

pub mod admin;
pub mod announce;
pub mod app;
pub mod bench;
pub mod chat_formats;
pub mod cluster;
pub mod config;
pub mod driver;
pub mod epochs;
pub mod events;
pub mod exit;
pub mod fetch;
pub mod few;
pub mod generation;
pub mod guides;
pub mod http;
pub mod ids;
pub mod inspect;
pub mod journal;
pub mod links;
pub mod metrics;
pub mod models;
pub mod open_files;
pub mod planning;
pub mod scheduler;
pub mod shutdown;
pub mod snapshot;
pub mod status;
#[cfg(test)]
mod test_report;
#[cfg(test)]
mod tests;
pub mod trace;
pub mod trust;
pub mod units;
