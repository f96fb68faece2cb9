//! What time of day it is, as certificates are judged by it.
//!
//! Whatever waits or measures has a monotonic clock; this one is for dates alone. Tests move it, nobody else.

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Two clocks that are further apart than this are worth a warning. Certificates bear a day.
pub const CLOCKS_APART: Duration = Duration::from_secs(300);

const DAY_SECONDS: i64 = 24 * 3600;

/// The system's time of day, moved by as much as was asked for. Clones are one clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// Now.
    pub fn now(&self) -> SystemTime {
        let ahead = self.ahead_ms.load(Relaxed);
        let by = Duration::from_millis(ahead.unsigned_abs());
        let now = SystemTime::now();
        if ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) }.unwrap_or(UNIX_EPOCH)
    }

    /// Now, in milliseconds since 1970; 0 before.
    pub fn unix_ms(&self) -> u64 {
        let since = self.now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// From now on this clock is so many milliseconds ahead of the system's, or behind it if the number is
    /// negative. For tests.
    pub fn set_ahead_ms(&self, ms: i64) {
        self.ahead_ms.store(ms, Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.unix_ms())))
    }
}

/// Seconds since 1970; 0 before.
pub fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A time of day for people, such as `2026-11-28 15:16:38 UTC`, from seconds since 1970.
pub fn show_utc(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The date of a day counted from 1970-01-01, in the calendar of today.
fn date(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the leap day is the last of one.
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_people_write_them() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_879_598, "2026-11-28 15:26:38 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(show_utc(seconds), text);
        }
    }

    #[test]
    fn clones_are_moved_together() {
        let clock = Clock::default();
        let other = clock.clone();
        let ahead = |clock: &Clock| unix_seconds(clock.now()) - unix_seconds(SystemTime::now());
        clock.set_ahead_ms(3_600_000);
        assert!((3599..=3601).contains(&ahead(&other)));
        other.set_ahead_ms(-3_600_000);
        assert!((-3601..=-3599).contains(&ahead(&clock)));
    }
}
