//! The process: it puts the parts together, starts and ends them, and serves the command line. Nothing
//! of the coordinator knows this folder.

mod admin_client;
pub mod config_command;
pub mod door;
pub mod first_model;
pub mod get_model;
pub mod joining;
pub mod journal;
pub mod keeper;
pub mod lane_maker;
pub mod listen;
pub mod local_workers;
pub mod log;
pub mod members_command;
pub mod models_command;
pub mod plan_command;
pub mod probe_command;
pub mod serve;
mod service;
pub mod status_command;
mod status_text;
pub mod tasks;
pub mod token_command;
mod watch_over;
