//! What the tests share: fixtures, the source tree as text, and clusters of real processes.

pub mod cluster;
pub mod fixtures;
pub mod fuzz;
pub mod golden;
pub mod http;
pub mod memory;
pub mod numbers;
pub mod process;
pub mod relay;
pub mod source;
