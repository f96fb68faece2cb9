//! Computes one stage of a model for a Woolly cluster.

#![forbid(unsafe_code)]

pub mod blocking;
pub mod config;
pub mod counters;
pub mod slice_store;
pub mod system;
pub mod units;
