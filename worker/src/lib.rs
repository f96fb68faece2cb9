//! Computes one stage of a model for a Woolly cluster.

#![forbid(unsafe_code)]

pub mod arrivals;
pub mod blocking;
pub mod compute;
pub mod config;
pub mod convert;
pub mod counters;
pub mod samplings;
pub mod slice_store;
pub mod source;
pub mod system;
pub mod units;
