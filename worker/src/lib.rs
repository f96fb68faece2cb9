//! Computes one stage of a model for a Woolly cluster.

#![forbid(unsafe_code)]

pub mod arrivals;
pub mod assignment;
pub mod bench;
pub mod blocking;
pub mod compute;
pub mod config;
pub mod convert;
pub mod counters;
pub mod dial;
pub mod exit;
pub mod fetch;
pub mod join;
pub mod link;
pub mod load;
pub mod log;
pub mod model_files;
pub mod outbox;
pub mod pages;
pub mod progress;
pub mod resident;
pub mod retry;
pub mod run;
pub mod samplings;
pub mod session;
pub mod shutdown;
pub mod simd;
pub mod slice_store;
pub mod slices_command;
pub mod source;
pub mod stages;
pub mod system;
pub mod timings;
pub mod units;
pub mod verify;
