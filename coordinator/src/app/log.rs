//! Logs: to stderr, as text or JSON, filtered by `WOOLLY_LOG`.

use crate::config::{self, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What is logged when `WOOLLY_LOG` is not set.
const DEFAULT_FILTER: &str = "info";

/// Starts logging. `WOOLLY_LOG` holds a filter such as `debug` or `woolly_coordinator=trace`; one
/// that cannot be read is reported and the default is used. `NO_COLOR` turns colours off.
pub fn start(format: LogFormat) {
    let wanted = config::log_filter();
    let (filter, problem) = match wanted.as_str() {
        "" => (EnvFilter::new(DEFAULT_FILTER), None),
        text => match EnvFilter::try_new(text) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
        },
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start (tests in one process) keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal() && !config::no_color())
            .with_target(false)
            .try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Some(error) = problem {
        tracing::warn!(
            "WOOLLY_LOG={wanted:?} is not a log filter ({error}); using {DEFAULT_FILTER}"
        );
    }
}
