//! Every test of the whole, in one binary so that it links once.

#![allow(clippy::unwrap_used, reason = "all of this binary is tests, helpers included")]

mod architecture;
mod circles;
mod cluster;
mod golden;
mod relay;
mod source;
mod tidy;
mod watching;
