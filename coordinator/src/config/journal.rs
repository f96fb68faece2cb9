//! Flags about requests that survive a restart.

use super::within;
use crate::units::{parse_duration, parse_size};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// The smallest journal: a body of 8 MiB must fit a third of it.
const SIZE_MIN: u64 = 32 << 20;
/// The longest time that a stream waits for its reader.
const PATIENCE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Whether accepted requests survive a restart.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Journal")]
pub struct JournalArgs {
    /// Write accepted streams to this folder, so that they survive a restart: a client goes on with GET
    /// /v1/streams/ID and the header Last-Event-ID. It holds prompts as they came: files for their owner
    /// only [default: streams end with their connection]
    #[arg(long, env = "WOOLLY_JOURNAL", value_name = "DIR")]
    pub journal: Option<PathBuf>,
    /// How large the journal may become, at least 32MiB; requests that have not ended have a third of it
    #[arg(
        long,
        env = "WOOLLY_JOURNAL_SIZE",
        value_name = "BYTES",
        default_value = "256MiB",
        requires = "journal"
    )]
    #[arg(value_parser = parse_journal_size)]
    pub journal_size: u64,
    /// How long a stream without a reader goes on, and how long a complete one is kept: 1s to 24h
    #[arg(
        long,
        env = "WOOLLY_JOURNAL_PATIENCE",
        value_name = "TIME",
        default_value = "60s",
        requires = "journal"
    )]
    #[arg(value_parser = parse_patience)]
    pub journal_patience: Duration,
}

fn parse_journal_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if size < SIZE_MIN { Err("expected at least 32MiB".to_owned()) } else { Ok(size) }
}

fn parse_patience(text: &str) -> Result<Duration, String> {
    within(parse_duration(text)?, Duration::from_secs(1), PATIENCE_MAX, "1s to 24h")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_and_patience_have_bounds() {
        assert_eq!(parse_journal_size("32MiB"), Ok(32 << 20));
        assert!(parse_journal_size("31MiB").unwrap_err().contains("32MiB"));
        assert_eq!(parse_patience("90s"), Ok(Duration::from_secs(90)));
        assert!(parse_patience("0s").is_err() && parse_patience("25h").is_err());
    }
}
