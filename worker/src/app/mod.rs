//! The process: it joins, comes back to a coordinator that was gone, and ends. Everything is put together here.

pub mod command_line;
pub mod config_command;
pub mod exit;
pub mod join;
pub mod log;
pub mod measure_command;
pub mod probe;
pub mod probe_command;
pub mod retry;
pub mod run;
pub mod slices_command;
