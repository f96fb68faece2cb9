//! What the stages report of each microbatch, matched with what the scheduler remembers of it.

use super::Scheduler;
use super::times::Measured;
use super::traffic::StageTiming;
use std::time::Duration;
use woolly_protocol::ids::PlanEpoch;

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
    use woolly_protocol::ids::MicrobatchId;

    #[test]
    fn reports_that_belong_to_nothing_are_counted() {
        let mut scheduler = Scheduler::new(SchedulerConfig::default());
        let timing = StageTiming { microbatch: MicrobatchId(1), compute: ms(1), wait: ms(1) };
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
}
