//! The words of `probe`: what those who keep the process running ask.

use super::{StateArgs, within};
use crate::units::parse_duration;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// The shortest time for an answer.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// The longest.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// What is to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeKind {
    /// It runs and answers, or is still fetching and reading its model
    Live,
    /// A model is served, and the server is not about to end
    Ready,
}

/// The flags of `probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// What is to be known
    pub what: ProbeKind,
    /// How long an answer may take: 100ms to 1m
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_timeout)]
    pub timeout: Duration,
    /// Where the server's state is.
    #[command(flatten)]
    pub state: StateArgs,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    within(parse_duration(text)?, TIMEOUT_MIN, TIMEOUT_MAX, "100ms to 1m")
}
