//! Links between workers that failed, and what that says of their ends.
//!
//! A broken link has two ends, and either of them may be to blame: one that reports is not believed more
//! than the one that it reports about. What is sure is that this pair could not talk in this direction. It
//! is remembered, and not planned again while there are other ways to place the layers. An end whose links
//! with several partners fail has these partners as witnesses: it is the one that nobody reaches.
//!
//! Knows ids and times; no worker, no plan.

use std::collections::BTreeMap;
use std::time::Duration;
use woolly_protocol::ids::WorkerId;

/// The first pause before a pair that failed may be planned again where nothing else can be; each further
/// one is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Doublings that reach `PAUSE_MAX`.
const DOUBLINGS_MAX: u32 = 6;
/// A failure is forgotten after so long: networks mend.
const FORGET: Duration = Duration::from_secs(600);
/// Partners that have to have failed with a worker before it is to blame.
const WITNESSES: usize = 2;

/// A link from the worker that dials to the one that is dialled.
type Direction = (WorkerId, WorkerId);

/// What is remembered of a link.
#[derive(Clone, Copy, Debug, Default)]
struct Failed {
    failures: u32,
    /// Not planned before this moment, even if nothing else can be.
    until: Duration,
    /// When it failed last.
    at: Duration,
}

/// Links that failed. At most one for each pair of workers that are here.
#[derive(Debug, Default)]
pub(super) struct BrokenLinks {
    failed: BTreeMap<Direction, Failed>,
}

impl BrokenLinks {
    /// A link failed. `served` if it had worked before: then it is the way between both that broke, and not
    /// the address that one of them is dialled at.
    pub(super) fn note(&mut self, now: Duration, (from, to): Direction, served: bool) {
        let mut note = |direction| {
            let failed = self.failed.entry(direction).or_default();
            let pause = (PAUSE_MIN * (1 << failed.failures.min(DOUBLINGS_MAX))).min(PAUSE_MAX);
            failed.failures = failed.failures.saturating_add(1);
            (failed.until, failed.at) = (now + pause, now);
        };
        note((from, to));
        if served {
            note((to, from));
        }
    }

    /// A link works: what was remembered of it does not hold any more.
    pub(super) fn works(&mut self, direction: Direction) {
        self.failed.remove(&direction);
    }

    /// A worker has left, or joined anew: its links may be others now.
    pub(super) fn forget(&mut self, id: WorkerId) {
        self.failed.retain(|(from, to), _| *from != id && *to != id);
    }

    /// What failed long ago does not count any more.
    pub(super) fn forget_old(&mut self, now: Duration) {
        self.failed.retain(|_, failed| now < failed.at + FORGET);
    }

    /// Whether these two may stand next to each other in a plan.
    pub(super) fn is_good(&self, direction: Direction) -> bool {
        !self.failed.contains_key(&direction)
    }

    /// Whether they may where nothing else can be planned.
    pub(super) fn may_be_tried(&self, now: Duration, direction: Direction) -> bool {
        self.failed.get(&direction).is_none_or(|failed| failed.until <= now)
    }

    /// The next moment at which a link may be tried that may not now.
    pub(super) fn next_try(&self, now: Duration) -> Option<Duration> {
        self.failed.values().map(|failed| failed.until).filter(|until| *until > now).min()
    }

    /// The end of a link that failed that is to blame, if its partners say so: it failed with several, and
    /// with more than the other end did.
    pub(super) fn culprit(&self, (from, to): Direction) -> Option<WorkerId> {
        let (a, b) = (self.partners(from), self.partners(to));
        let (worst, most, other) = if a > b { (from, a, b) } else { (to, b, a) };
        (most >= WITNESSES && most > other).then_some(worst)
    }

    /// With how many others a worker failed.
    fn partners(&self, id: WorkerId) -> usize {
        let other = |(from, to): &Direction| match (*from == id, *to == id) {
            (true, _) => Some(*to),
            (_, true) => Some(*from),
            _ => None,
        };
        let mut others: Vec<WorkerId> = self.failed.keys().filter_map(other).collect();
        others.sort_unstable();
        others.dedup();
        others.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);
    const C: WorkerId = WorkerId(3);
    const D: WorkerId = WorkerId(4);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_accuser_is_not_believed_and_two_partners_are() {
        let mut links = BrokenLinks::default();
        links.note(s(0), (A, B), false);
        assert_eq!(links.culprit((A, B)), None, "either may be it");
        links.note(s(1), (A, B), false);
        assert_eq!(links.culprit((A, B)), None, "the same pair says the same again");
        links.note(s(2), (C, B), false);
        assert_eq!(links.culprit((C, B)), Some(B));
        // Now A fails with as many: it is not clear any more.
        links.note(s(3), (A, D), false);
        assert_eq!(links.culprit((A, B)), None);
        links.forget(B);
        assert_eq!(links.culprit((A, D)), None);
        assert!(links.is_good((A, B)) && !links.is_good((A, D)));
    }

    #[test]
    fn an_address_fails_in_one_direction_and_a_way_in_both() {
        let mut links = BrokenLinks::default();
        links.note(s(0), (A, B), false);
        assert!(!links.is_good((A, B)) && links.is_good((B, A)));
        links.note(s(0), (A, C), true);
        assert!(!links.is_good((C, A)));
        links.works((C, A));
        assert!(links.is_good((C, A)) && !links.is_good((A, C)));
    }

    #[test]
    fn what_failed_long_ago_is_forgotten() {
        let mut links = BrokenLinks::default();
        links.note(s(10), (A, B), true);
        links.forget_old(s(609));
        assert!(!links.is_good((A, B)));
        links.forget_old(s(610));
        assert!(links.is_good((A, B)) && links.culprit((A, B)).is_none());
    }

    #[test]
    fn pauses_grow_to_a_ceiling() {
        let mut links = BrokenLinks::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            links.note(s(10), (A, B), false);
            let next = links.next_try(s(10)).unwrap();
            pauses.push((next - s(10)).as_secs());
            assert!(!links.may_be_tried(s(10), (A, B)) && links.may_be_tried(next, (A, B)));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(links.next_try(s(70)), None);
    }
}
