//! The microbatches that were sent of late, and what stages report of them.

use std::collections::VecDeque;
use std::time::Duration;
use woolly_protocol::ids::MicrobatchId;

/// Microbatches that are remembered for reports that are still to come. A worker reports with its
/// heartbeats, so a report may be half a second late.
const REMEMBERED_MAX: usize = 4096;

/// One stage's report of one microbatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTiming {
    /// Which one.
    pub microbatch: MicrobatchId,
    /// Wall time of the forward; at the last stage with the head and the sampling.
    pub compute: Duration,
    /// How long the compute thread waited for this forward's input.
    pub wait: Duration,
}

/// What a microbatch held, and when it was in flight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::scheduler) struct Remembered {
    /// Rows in all.
    pub(in crate::scheduler) rows: u32,
    /// Rows that are not decode rows.
    pub(in crate::scheduler) prefill_rows: u32,
    /// Time from sending to the answer; `None` while it is in flight.
    pub(in crate::scheduler) round_trip: Option<Duration>,
    /// Microbatches in flight while it was, itself included, on average.
    pub(in crate::scheduler) overlap: f32,
    sent_at: Duration,
    /// [`Traffic::area`] when it was sent.
    area: f64,
    /// What the stages that reported took in all, and how many did.
    pub(in crate::scheduler) compute: Duration,
    pub(in crate::scheduler) reports: u32,
    /// Whether a stage may have had something else to do when it came.
    pub(in crate::scheduler) queued: bool,
}

/// The microbatches of the present plan that were sent of late.
#[derive(Debug, Default)]
pub(in crate::scheduler) struct Traffic {
    /// The number of `recent[0]`; numbers have no gaps.
    first: u64,
    recent: VecDeque<Remembered>,
    /// Microbatches in flight, integrated over time in seconds.
    area: f64,
    in_flight: u32,
    changed_at: Duration,
}

impl Traffic {
    /// A new plan: what is on its way belongs to the one before.
    pub(in crate::scheduler) fn clear(&mut self, now: Duration) {
        self.recent.clear();
        self.in_flight = 0;
        self.changed_at = now;
    }

    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.changed_at);
        self.area += passed.as_secs_f64() * f64::from(self.in_flight);
        self.changed_at = now;
    }

    /// A microbatch goes on its way.
    pub(in crate::scheduler) fn sent(
        &mut self,
        now: Duration,
        id: MicrobatchId,
        rows: u32,
        prefill_rows: u32,
    ) {
        self.advance(now);
        self.in_flight += 1;
        if self.recent.len() == REMEMBERED_MAX {
            self.recent.pop_front();
            self.first += 1;
        }
        if self.recent.is_empty() {
            self.first = id.0;
        }
        self.recent.push_back(Remembered {
            rows,
            prefill_rows,
            round_trip: None,
            overlap: 1.0,
            sent_at: now,
            area: self.area,
            compute: Duration::ZERO,
            reports: 0,
            queued: false,
        });
    }

    /// A microbatch was answered. The time since it was sent, if it is remembered.
    pub(in crate::scheduler) fn answered(
        &mut self,
        now: Duration,
        id: MicrobatchId,
    ) -> Option<Duration> {
        self.update_overlap(now, id);
        self.in_flight -= 1;
        let remembered = self.get(id)?;
        remembered.round_trip = Some(now.saturating_sub(remembered.sent_at));
        remembered.round_trip
    }

    /// Brings the overlap of a microbatch that is still in flight up to date.
    pub(in crate::scheduler) fn update_overlap(&mut self, now: Duration, id: MicrobatchId) {
        self.advance(now);
        let area = self.area;
        let Some(remembered) = self.get(id) else { return };
        let passed = now.saturating_sub(remembered.sent_at);
        if remembered.round_trip.is_none() && !passed.is_zero() {
            remembered.overlap = ((area - remembered.area) / passed.as_secs_f64()) as f32;
        }
    }

    /// What is remembered of a microbatch.
    pub(in crate::scheduler) fn get(&mut self, id: MicrobatchId) -> Option<&mut Remembered> {
        let index = usize::try_from(id.0.checked_sub(self.first)?).ok()?;
        self.recent.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_overlap_is_the_mean_of_what_was_in_flight() {
        let mut traffic = Traffic::default();
        traffic.sent(ms(0), MicrobatchId(5), 3, 0);
        traffic.sent(ms(10), MicrobatchId(6), 4, 4);
        traffic.answered(ms(20), MicrobatchId(5));
        traffic.answered(ms(40), MicrobatchId(6));
        let first = *traffic.get(MicrobatchId(5)).unwrap();
        let second = *traffic.get(MicrobatchId(6)).unwrap();
        assert_eq!((first.rows, first.round_trip), (3, Some(ms(20))));
        assert!((first.overlap - 1.5).abs() < 1e-3, "{first:?}");
        assert!((second.overlap - 4.0 / 3.0).abs() < 1e-3, "{second:?}");
        assert_eq!(traffic.get(MicrobatchId(4)), None);
        assert_eq!(traffic.get(MicrobatchId(7)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut traffic = Traffic::default();
        for id in 1..=REMEMBERED_MAX as u64 + 3 {
            traffic.sent(ms(id), MicrobatchId(id), 1, 0);
            traffic.answered(ms(id), MicrobatchId(id));
        }
        assert_eq!(traffic.get(MicrobatchId(3)), None);
        assert!(traffic.get(MicrobatchId(4)).is_some());
        assert_eq!(traffic.recent.len(), REMEMBERED_MAX);
    }
}
