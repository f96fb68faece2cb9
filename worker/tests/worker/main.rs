//! Tests of the worker from outside, in one binary so that they link once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cli;
mod compute;
mod members;
mod metrics;
mod plans;
mod resident;
mod session;
mod source;
mod support;
