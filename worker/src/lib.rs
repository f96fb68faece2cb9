//! Computes one stage of a model for a Woolly cluster.

#![forbid(unsafe_code)]

pub mod app;
pub mod bench;
pub mod blocking;
pub mod config;
pub mod convert;
pub mod coordinator;
pub mod counters;
pub mod folders;
pub mod machine;
pub mod metrics;
pub mod peers;
pub mod shutdown;
pub mod stage;
pub mod standing;
pub mod units;
pub mod weights;
