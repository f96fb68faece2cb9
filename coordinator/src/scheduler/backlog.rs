//! How fast the queue empties, and so when a request that found it full should come again.

use std::collections::VecDeque;
use std::time::Duration;

/// Starts that a rate is measured over.
const MEASURED_MAX: usize = 64;
/// Said when nothing was measured yet.
const UNKNOWN: Duration = Duration::from_secs(2);
/// The shortest and the longest time that is said.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// The newest of some events, to know how often they happen.
#[derive(Debug, Default)]
struct Rate {
    times: VecDeque<Duration>,
}

impl Rate {
    fn note(&mut self, now: Duration) {
        if self.times.len() == MEASURED_MAX {
            self.times.pop_front();
        }
        self.times.push_back(now);
    }

    /// Events per second; `None` if none was seen, or all of them just now.
    fn rate(&self, now: Duration) -> Option<f64> {
        let first = self.times.front()?;
        let seconds = now.saturating_sub(*first).as_secs_f64();
        (seconds > 0.0).then(|| self.times.len() as f64 / seconds)
    }
}

/// Starts and ends of late, and how many were told to come again.
///
/// Those who are refused are given places in a line of their own, which moves as fast as the queue:
/// the third of them is told to come when three places will have come free. So they find one when
/// they return, and do not all return at once.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Starts while others waited.
    starts: Rate,
    /// Ends of those that ran.
    ends: Rate,
    /// How many places in the line are taken, as of `line_at`.
    line: f64,
    line_at: Duration,
}

impl Backlog {
    /// A new sequence has left the queue; `others_wait` behind it.
    pub(super) fn started(&mut self, now: Duration, others_wait: bool) {
        if others_wait {
            self.starts.note(now);
        } else {
            // Who finds no queue says nothing of how fast one empties.
            self.starts.times.clear();
            self.line = 0.0;
        }
    }

    /// A sequence that ran has ended.
    pub(super) fn ended(&mut self, now: Duration) {
        self.ends.note(now);
    }

    /// A request found `waiting` others and no place: when it should come again.
    pub(super) fn refused(&mut self, now: Duration, waiting: usize) -> Duration {
        let Some(rate) = self.starts.rate(now).or_else(|| self.ends.rate(now)) else {
            return UNKNOWN;
        };
        let moved = now.saturating_sub(self.line_at).as_secs_f64() * rate;
        // Clients that ask again before it is time must not lengthen the line without end.
        self.line = ((self.line - moved).max(0.0) + 1.0).min(waiting.max(1) as f64);
        self.line_at = now;
        said(self.line / rate)
    }

    /// A key has as many sequences as it may, `own` of `all`: when one of them will have ended.
    pub(super) fn busy(&self, now: Duration, own: usize, all: usize) -> Duration {
        let Some(rate) = self.ends.rate(now) else { return UNKNOWN };
        said(all.max(own) as f64 / own.max(1) as f64 / rate)
    }
}

fn said(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.ceil()).map_or(LONGEST, |t| t.clamp(SHORTEST, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One start each two seconds.
    fn slow() -> Backlog {
        let mut backlog = Backlog::default();
        (0..50).for_each(|start| backlog.started(s(2 * start), true));
        backlog
    }

    #[test]
    fn each_who_is_refused_is_given_the_next_place() {
        let mut backlog = slow();
        let told: Vec<u64> = (0..4).map(|_| backlog.refused(s(100), 9).as_secs()).collect();
        assert_eq!(told, [2, 4, 6, 8]);
        assert_eq!(backlog.refused(s(106), 9), s(5), "three places have come free since");
    }

    #[test]
    fn the_line_is_never_longer_than_the_queue() {
        let mut backlog = slow();
        let last = (0..1000).map(|_| backlog.refused(s(100), 9)).last();
        assert_eq!(last, Some(s(18)));
    }

    #[test]
    fn what_is_not_known_is_said_to_be_short() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.refused(s(1), 9), UNKNOWN);
        assert_eq!(backlog.busy(s(1), 1, 1), UNKNOWN);
        // Four starts at once, and nothing since.
        (0..4).for_each(|_| backlog.started(s(1), true));
        assert_eq!(backlog.refused(s(1), 9), UNKNOWN);
        assert_eq!(backlog.refused(s(9), 9), s(2));
    }

    #[test]
    fn a_queue_that_was_empty_is_measured_anew() {
        let mut backlog = slow();
        backlog.refused(s(100), 9);
        backlog.started(s(101), false);
        assert_eq!(backlog.refused(s(102), 9), UNKNOWN);
    }

    #[test]
    fn a_key_waits_for_one_of_its_own() {
        let mut backlog = Backlog::default();
        (1..=10).for_each(|end| backlog.ended(s(end)));
        // One end per second, every fourth of this key.
        assert_eq!(backlog.busy(s(11), 2, 8), s(4));
    }
}
