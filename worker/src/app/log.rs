//! Logs: to stderr, filtered by `WOOLLY_LOG`.

use crate::config::{log_filter, no_color};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What is logged when `WOOLLY_LOG` is not set: all of Woolly's, and the warnings of others.
const DEFAULT_FILTER: &str = "warn,woolly_worker=info,woolly_protocol=info,woolly_engine=info";

/// Starts logging. `WOOLLY_LOG` holds a filter such as `debug` or `woolly_worker=trace`; one that
/// cannot be read is reported and the default is used. `NO_COLOR` turns colours off.
pub fn start() {
    let wanted = log_filter();
    let (filter, problem) = match wanted.as_str() {
        "" => (EnvFilter::new(DEFAULT_FILTER), None),
        text => match EnvFilter::try_new(text) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
        },
    };
    // A second start (tests in one process) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_color())
        .with_target(false)
        .try_init();
    if let Some(error) = problem {
        tracing::warn!("WOOLLY_LOG={wanted:?} is not a log filter ({error}); using the default");
    }
}
