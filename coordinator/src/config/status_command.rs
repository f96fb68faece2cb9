//! The words of `status` and `workers`: what a running server is asked about its cluster.

use super::{StateArgs, within};
use crate::units::parse_duration;
use clap::Args;
use std::time::Duration;

/// The shortest pause between two looks: each makes the server count everything together.
const WATCH_MIN: Duration = Duration::from_millis(200);
/// The longest.
const WATCH_MAX: Duration = Duration::from_secs(3600);

/// The flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print what the admin API answers, for programs; with --watch one line of JSON each time
    #[arg(long)]
    pub json: bool,
    /// Show it again and again until Ctrl-C: every 2s, or --watch=TIME from 200ms to 1h
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "2s", value_parser = parse_watch)]
    pub watch: Option<Duration>,
    /// Where the server's state is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// The flags of `workers`.
#[derive(Debug, Args)]
pub struct WorkersArgs {
    /// Print the workers as the admin API tells them, for programs
    #[arg(long)]
    pub json: bool,
    /// Where the server's state is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// The flags of `page`.
#[derive(Debug, Args)]
pub struct PageArgs {
    /// Where the server's state is.
    #[command(flatten)]
    pub state: StateArgs,
}

fn parse_watch(text: &str) -> Result<Duration, String> {
    within(parse_duration(text)?, WATCH_MIN, WATCH_MAX, "200ms to 1h")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        args: StatusArgs,
    }

    #[test]
    fn watch_has_a_time_of_its_own_or_the_usual_one() {
        let watch = |flags: &[&str]| {
            let words = Words::try_parse_from([&["status"], flags].concat());
            words.map(|words| words.args.watch)
        };
        assert_eq!(watch(&[]).unwrap(), None);
        assert_eq!(watch(&["--watch"]).unwrap(), Some(Duration::from_secs(2)));
        assert_eq!(watch(&["--watch=500ms"]).unwrap(), Some(Duration::from_millis(500)));
        for wrong in ["--watch=1ms", "--watch=2h", "--watch=often"] {
            let error = watch(&[wrong]).unwrap_err().to_string();
            assert!(error.contains("expected"), "{error}");
        }
    }
}
