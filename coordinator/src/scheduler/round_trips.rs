//! How long answers take, to know when one is overdue.
//!
//! The longest of the latest answers, whatever was in flight beside them: who waits for several times as long
//! waits in vain. It outlives plans, as the machines stay about as fast.

use std::time::Duration;

/// Answers after which an older longest one is forgotten, at the latest after twice as many.
const WINDOW: u32 = 128;

/// The longest answer of a window.
#[derive(Clone, Copy, Debug, Default)]
struct Longest {
    rows: u32,
    took: Duration,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    before: Longest,
    present: Longest,
    seen: u32,
}

/// An answer that is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The oldest microbatch in flight.
    pub microbatch: woolly_protocol::ids::MicrobatchId,
    /// Its rows.
    pub rows: u32,
    /// Since when nothing but it is waited for: when it was sent, or the answer before it came.
    pub since: Duration,
    /// How long an answer with so many rows takes at most; `None` before any came.
    pub usual: Option<Duration>,
}

impl RoundTrips {
    /// An answer with so many rows came so long after it was sent.
    pub(super) fn note(&mut self, rows: u32, took: Duration) {
        if took > self.present.took {
            self.present = Longest { rows, took };
        }
        self.seen += 1;
        if self.seen == WINDOW {
            (self.before, self.present, self.seen) = (self.present, Longest::default(), 0);
        }
    }

    /// How long one with so many rows takes at most, as far as that is known: more rows than were seen take
    /// as much more time.
    pub(super) fn usual(&self, rows: u32) -> Option<Duration> {
        let longest = if self.present.took > self.before.took { self.present } else { self.before };
        if longest.took.is_zero() {
            return None;
        }
        let times = rows.div_ceil(longest.rows.max(1)).max(1);
        Some(longest.took.saturating_mul(times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_longest_of_the_latest_answers_is_usual() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.usual(1), None);
        trips.note(4, ms(50));
        trips.note(1, ms(10));
        assert_eq!((trips.usual(1), trips.usual(9)), (Some(ms(50)), Some(ms(150))));
        (0..WINDOW).for_each(|_| trips.note(1, ms(20)));
        assert_eq!(trips.usual(1), Some(ms(50)), "remembered for a while");
        (0..WINDOW).for_each(|_| trips.note(1, ms(20)));
        assert_eq!(trips.usual(1), Some(ms(20)));
    }
}
