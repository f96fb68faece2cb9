//! The `woolly-coordinator` command as people and scripts use it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod configuration;
mod hostile;
mod https;
mod planning;
mod support;
