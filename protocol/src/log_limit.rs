//! Bounds the log lines that a peer can cause.

use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines that are written within [`PERIOD`].
const LINES_MAX: u32 = 10;
/// The time in which so many lines are written.
const PERIOD: Duration = Duration::from_secs(10);

/// Writes at most 10 warnings in 10 seconds; the first one after that says how many were left out.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<Period>);

#[derive(Debug, Default)]
struct Period {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Period {
    /// Whether a line may be written now, and how many were left out before it.
    fn line(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= PERIOD) {
            (self.began, self.written) = (Some(now), 0);
        }
        if self.written >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl LogLimit {
    /// Nothing was written yet.
    pub const fn new() -> LogLimit {
        LogLimit(Mutex::new(Period { began: None, written: 0, left_out: 0 }))
    }

    /// Writes a warning, unless there were too many of late.
    pub fn warn(&self, text: impl Display) {
        let mut period = self.0.lock().expect("nobody panics while counting");
        let line = period.line(Instant::now());
        drop(period);
        match line {
            Some(0) => tracing::warn!("{text}"),
            Some(left_out) => tracing::warn!("{text} ({left_out} lines like this were left out)"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_what_was_left_out_is_counted() {
        let (mut period, now) = (Period::default(), Instant::now());
        let written = (0..1000).filter(|_| period.line(now).is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        assert_eq!(period.line(now + PERIOD), Some(1000 - u64::from(LINES_MAX)));
        assert_eq!(period.line(now + PERIOD), Some(0));
    }
}
