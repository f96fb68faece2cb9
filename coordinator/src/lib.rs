//! Cuts a model over workers, schedules their work and answers OpenAI clients.
//!
//! The binary is thin: everything is here, so that tests and benches can use it.

#![forbid(unsafe_code)]

pub mod announce;
pub mod bench;
pub mod cluster;
pub mod config;
pub mod driver;
pub mod epochs;
pub mod exit;
pub mod generation;
pub mod http;
pub mod ids;
pub mod join_server;
pub mod links;
pub mod listen;
pub mod local_workers;
pub mod log;
pub mod metrics;
pub mod models;
pub mod open_files;
pub mod scheduler;
pub mod serve;
pub mod shutdown;
pub mod state;
pub mod status;
pub mod tasks;
pub mod token_command;
pub mod tokens;
pub mod units;
