//! The flags of `probe`.

use crate::units::parse_duration;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// The shortest and the longest time for an answer.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);

/// What is to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeKind {
    /// It runs and answers
    Live,
    /// It has joined, and its stage is loaded if it has one
    Ready,
}

/// Flags of `probe`, as typed.
#[derive(Args, Clone, Debug)]
pub struct ProbeArgs {
    /// What is to be known
    pub what: ProbeKind,
    /// How long an answer may take: 100ms to 60s
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_timeout)]
    pub timeout: Duration,
    /// The worker's state directory [default: $XDG_STATE_HOME/woolly/worker]
    #[arg(long, value_name = "DIR", env = "WOOLLY_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if TIMEOUTS.contains(&time) {
        Ok(time)
    } else {
        Err("expected a time from 100ms to 60s".to_owned())
    }
}
