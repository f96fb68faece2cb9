//! What the flags say about looking at slices again that were right once.

use crate::units::parse_duration;
use clap::Args;
use clap::builder::BoolishValueParser;
use std::time::Duration;

/// The longest time between two readings in the background.
const INTERVAL_MAX: Duration = Duration::from_secs(365 * 86_400);

/// When stored slices are compared with their hashes although nothing says that they changed: disks
/// and memory rot without a word.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verify {
    /// Compare every slice with its hashes when it is first used, and the model's file if it is on
    /// this machine. Without it that is done once after each boot
    #[arg(long, env = "WOOLLY_VERIFY", value_parser = BoolishValueParser::new())]
    pub verify: bool,
    /// How often the slices in use are read from the disk again in the background, at 50 MB/s at most,
    /// such as 1h or 7d; 0s is never
    #[arg(long, value_name = "TIME", env = "WOOLLY_VERIFY_INTERVAL", default_value = "24h",
          value_parser = parse_interval)]
    pub verify_interval: Duration,
}

impl Default for Verify {
    /// Once after each boot, and every day.
    fn default() -> Verify {
        Verify { verify: false, verify_interval: Duration::from_secs(86_400) }
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        time if time <= INTERVAL_MAX => Ok(time),
        _ => Err("expected 0s to 365d".to_owned()),
    }
}
