//! Flags about how many requests wait and run.

use crate::units::parse_duration;
use clap::Args;
use std::time::Duration;

/// Requests that may wait at most: each holds its prompt in memory.
const QUEUE_MAX: i64 = 65_536;
/// Sequences that may run at most: a microbatch has a chunk of each.
const RUNNING_MAX: i64 = 4096;
/// The longest wait for a new plan.
const DEADLINE_MAX: Duration = Duration::from_secs(3600);

/// How many requests wait and run; each prompt of a request counts.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Queue")]
pub struct QueueArgs {
    /// Requests that may wait for their first token to be computed; more are refused with 429 and a
    /// Retry-After that says when a place should be free: 1 to 65536 [default: 512]
    #[arg(long, env = "WOOLLY_QUEUE_MAX", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=QUEUE_MAX))]
    pub queue_max: Option<u32>,
    /// Requests that may be computed together, memory permitting: 1 to 4096 [default: 256]
    #[arg(long, env = "WOOLLY_RUNNING_MAX", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=RUNNING_MAX))]
    pub running_max: Option<u32>,
    /// How long requests wait after a worker was lost until others compute its layers, such as 30s; then
    /// they end with an error, and new ones get 503. 0s lets none wait, 1h is the longest
    #[arg(long, env = "WOOLLY_FAILOVER_DEADLINE", value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = parse_failover_deadline)]
    pub failover_deadline: Duration,
}

fn parse_failover_deadline(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time > DEADLINE_MAX { Err("expected at most 1h".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_deadline_is_a_time_of_at_most_an_hour() {
        let s = Duration::from_secs;
        assert_eq!(parse_failover_deadline("0s"), Ok(s(0)));
        assert_eq!(parse_failover_deadline("1h"), Ok(s(3600)));
        assert!(parse_failover_deadline("3601s").unwrap_err().contains("at most 1h"));
        assert!(parse_failover_deadline("soon").unwrap_err().contains("such as 500ms"));
    }
}
