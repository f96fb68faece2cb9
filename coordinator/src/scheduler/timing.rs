//! What the stages report of each microbatch, matched with what the scheduler remembers of it.

use super::Scheduler;
use super::times::Measured;
use super::traffic::{Remembered, StageTiming};
use std::collections::VecDeque;
use std::time::Duration;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch};

/// A stage that waited for less than this may have had the input before it was ready for it.
const IDLE_MIN: Duration = Duration::from_micros(50);

impl Scheduler {
    /// A stage has reported how long it took for a microbatch. Reports of another plan, of unknown
    /// stages and of microbatches that are no longer remembered are counted and not used.
    pub fn handle_timing(
        &mut self,
        now: Duration,
        epoch: PlanEpoch,
        stage: usize,
        timing: &StageTiming,
    ) {
        let known = self.plan.filter(|plan| plan.epoch == epoch);
        let known = known.is_some_and(|plan| stage < super::limits::to_usize(plan.stages));
        self.traffic.update_overlap(now, timing.microbatch);
        let Some(remembered) = known.then(|| self.traffic.get(timing.microbatch)).flatten() else {
            self.unknown_timings += 1;
            return;
        };
        remembered.compute += timing.compute;
        remembered.reports += 1;
        remembered.queued |= timing.wait < IDLE_MIN;
        let of = *remembered;
        let has_prefill = of.prefill_rows > 0;
        let (rows, overlap, time) = (of.rows, of.overlap, timing.compute);
        self.times.observe(now, stage, Measured { rows, has_prefill, overlap, time });
        let complete = super::limits::to_usize(of.reports) == self.times.stages();
        if let Some(round_trip) = of.round_trip.filter(|_| complete && !of.queued && !has_prefill) {
            let outside = round_trip.saturating_sub(of.compute);
            self.times.observe_overhead(outside.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::{PlanLimits, SchedulerConfig};

    #[test]
    fn reports_that_belong_to_nothing_are_counted() {
        let mut scheduler = Scheduler::new(SchedulerConfig::default());
        let timing =
            StageTiming { microbatch: MicrobatchId(1), compute: ms(1), wait: ms(1), wire: ms(0) };
        scheduler.handle_timing(ms(0), PlanEpoch(1), 0, &timing);
        let plan = PlanLimits {
            epoch: PlanEpoch(1),
            stages: 2,
            in_flight_max: 3,
            ctx_size: 100,
            kv_blocks: 10,
            block_len: 32,
            rows_max: 8,
            chunks_max: 8,
            vocab: 16,
        };
        scheduler.handle_plan(ms(0), Some(plan));
        scheduler.handle_timing(ms(0), PlanEpoch(1), 0, &timing);
        scheduler.traffic.sent(ms(0), MicrobatchId(1), 1, 0);
        scheduler.handle_timing(ms(1), PlanEpoch(2), 0, &timing);
        scheduler.handle_timing(ms(1), PlanEpoch(1), 2, &timing);
        assert_eq!(scheduler.counts().unknown_timings, 4);
        scheduler.handle_timing(ms(1), PlanEpoch(1), 1, &timing);
        assert_eq!(scheduler.counts().unknown_timings, 4);
    }

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
