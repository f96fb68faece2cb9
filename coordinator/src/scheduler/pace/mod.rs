//! What the scheduler learns from the stages' times, and what it makes of it: in how many groups
//! decoding sequences travel, and how many rows of prefill go beside them.
//!
//! It knows rows, microbatches and times; no sequence, no block, no token. What was sent, answered and
//! reported is told to it; [`Pace::share`] and [`Pace::chunk_alone`] are the two questions that it
//! answers. `docs/scheduling.md` has the arithmetic.

mod chunk;
mod curve;
mod grouping;
mod prefill_budget;
mod shape;
mod times;
mod traffic;

pub(super) use prefill_budget::{Allowance, CHUNK_MIN};
pub use traffic::StageTiming;

use super::limits::{ItlTarget, PlanLimits, Reads, to_usize};
use chunk::Chunks;
use grouping::{Grouping, predict};
use prefill_budget::{Budget, DecodeLoad};
use shape::Shape;
use std::time::Duration;
use times::{Measured, StageTimes};
use traffic::Traffic;
use woolly_protocol::ids::MicrobatchId;

/// A stage that waited for less than this may have had the input before it was ready for it.
const IDLE_MIN: Duration = Duration::from_micros(50);
/// Microbatches with decode rows of which one may be without prefill while prompts wait: what decodes
/// take alone is what the target is a multiple of.
const DECODE_ONLY_EVERY: usize = 64;

/// What was measured under the present plan, and what was chosen by it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// What was sent of late.
    traffic: Traffic,
    times: StageTimes,
    grouping: Grouping,
    /// What was last chosen or forced; 0 before.
    decode_groups: usize,
    budget: Budget,
    chunks: Chunks,
    /// Microbatches with decode rows since the last that had nothing else, or since it was last seen
    /// that none is due.
    since_decode_only: usize,
}

/// What a microbatch holds, as far as its pace goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) microbatch: MicrobatchId,
    pub(super) rows: u32,
    /// Those among them that are decode rows.
    pub(super) decode_rows: u32,
}

/// What is to be shared out over the microbatches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Sequences that decode.
    pub(super) streams: usize,
    /// Prompts that are to be computed as well.
    pub(super) waiting: usize,
    /// Rows of a microbatch at most.
    pub(super) rows_max: usize,
}

/// How decode rows and prefill share the microbatches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Groups in which the decoding sequences travel.
    pub(super) groups: usize,
    /// Microbatches in flight at most.
    pub(super) in_flight_max: usize,
    /// What prefill may have beside them; `None` if one of both is not there.
    pub(super) prefill: Option<Allowance>,
    /// Whether a microbatch with decode rows should have nothing else, to measure what they take.
    pub(super) decode_only: bool,
}

impl Share {
    /// With nothing beside decodes.
    fn new(groups: usize, in_flight_max: usize) -> Self {
        Self { groups, in_flight_max, prefill: None, decode_only: false }
    }
}

impl Pace {
    /// A plan of so many stages begins: nothing that was measured before holds.
    pub(super) fn begin(&mut self, now: Duration, stages: u32, reads: Reads) {
        self.traffic.clear(now);
        self.times = StageTimes::new(stages, Shape::new(reads));
        self.grouping = Grouping::default();
        self.decode_groups = 0;
        self.budget = Budget::default();
        self.chunks = Chunks::default();
        self.since_decode_only = 0;
    }

    /// Groups that were last chosen or forced; 0 before any were.
    pub(super) fn decode_groups(&self) -> usize {
        self.decode_groups
    }

    /// Rows that a microbatch with prefill could have beside decodes last; 0 before any had.
    pub(super) fn rows_beside_decode(&self) -> usize {
        self.budget.rows_beside()
    }

    /// A microbatch goes on its way.
    pub(super) fn sent(&mut self, now: Duration, sent: Sent) {
        let prefill_rows = sent.rows - sent.decode_rows;
        self.traffic.sent(now, sent.microbatch, sent.rows, prefill_rows);
        if sent.decode_rows > 0 {
            self.grouping.sent(sent.microbatch);
            self.since_decode_only = if prefill_rows == 0 { 0 } else { self.since_decode_only + 1 };
        }
        if prefill_rows > 0 {
            self.budget.sent(now, sent.microbatch);
            self.chunks.sent();
        }
    }

    /// A microbatch was answered; `decodes` if it held decode rows.
    pub(super) fn answered(&mut self, now: Duration, id: MicrobatchId, decodes: bool) {
        let round_trip = self.traffic.answered(now, id);
        if decodes {
            self.grouping.answered(id, round_trip.unwrap_or_default());
        }
    }

    /// The longest gap between two tokens of a stream that an answer ends. `begun` are the times at
    /// which the streams' last tokens came; `later` is the first microbatch that what is learnt now
    /// can change.
    pub(super) fn observe_gaps(
        &mut self,
        now: Duration,
        of: MicrobatchId,
        later: MicrobatchId,
        begun: impl Iterator<Item = Duration>,
    ) {
        let Some(begins) = self.budget.gaps_begin() else { return };
        let gaps = begun.filter(|at| begins.contains(at)).map(|at| now.saturating_sub(at));
        if let Some(longest) = gaps.max() {
            self.budget.observe_gap(longest, of, later);
        }
    }

    /// A stage has reported how long it took for a microbatch; `false` if that is not remembered.
    pub(super) fn observe(&mut self, now: Duration, stage: usize, timing: &StageTiming) -> bool {
        self.traffic.update_overlap(now, timing.microbatch);
        if stage >= self.times.stages() {
            return false;
        }
        let Some(remembered) = self.traffic.get(timing.microbatch) else { return false };
        remembered.compute += timing.compute;
        remembered.reports += 1;
        remembered.queued |= timing.wait < IDLE_MIN;
        let of = *remembered;
        let has_prefill = of.prefill_rows > 0;
        let (rows, overlap, time) = (of.rows, of.overlap, timing.compute);
        self.times.observe(now, stage, Measured { rows, has_prefill, overlap, time });
        let complete = to_usize(of.reports) == self.times.stages();
        if let Some(round_trip) = of.round_trip.filter(|_| complete && !of.queued) {
            let outside = round_trip.saturating_sub(of.compute);
            self.times.observe_overhead(outside.as_secs_f64());
        }
        true
    }

    /// How many groups the decoding sequences travel in, and what prefill may have beside them.
    /// `forced` groups are used whatever was measured. Looks at the curves now and then, and may
    /// begin a probe.
    pub(super) fn share(
        &mut self,
        now: Duration,
        plan: &PlanLimits,
        (target, forced): (ItlTarget, Option<u32>),
        load: Load,
    ) -> Share {
        let Load { streams, waiting, rows_max } = load;
        let prefills = waiting > 0;
        if !prefills || streams == 0 {
            self.budget.nothing_beside();
        }
        if streams == 0 {
            return Share::new(1, to_usize(plan.in_flight_max));
        }
        let most = to_usize(plan.in_flight_max);
        let groups = match forced {
            Some(forced) => to_usize(forced.min(plan.in_flight_max)),
            None => self.grouping.choose(&self.times, now, (streams, most), !prefills),
        };
        self.decode_groups = groups.min(streams);
        if !prefills {
            return Share::new(groups, to_usize(plan.in_flight_max));
        }
        let load = DecodeLoad { groups: groups.min(streams), streams, rows_max, waiting };
        let times = &self.times;
        let gap = || predict(times, now, streams, load.groups).map(|alone| alone.period);
        let allowance = self.budget.allowance(times, plan, target, load, now, gap);
        self.decode_groups = self.decode_groups.min(allowance.in_flight);
        let Allowance { in_flight, in_flight_max, .. } = allowance;
        let groups = groups.min(in_flight);
        let rows = streams as f64 / groups as f64;
        let decode_only = self.decode_only_is_due(now, rows);
        Share { prefill: Some(allowance), decode_only, ..Share::new(groups, in_flight_max) }
    }

    /// Whether a microbatch should have about so many decode rows and nothing else. Curves are looked
    /// through for it only now and then.
    fn decode_only_is_due(&mut self, now: Duration, rows: f64) -> bool {
        if self.since_decode_only < DECODE_ONLY_EVERY {
            return false;
        }
        let due = !self.times.decode_is_fresh(now, rows);
        if !due {
            self.since_decode_only = 0;
        }
        due
    }

    /// Rows of the next microbatch when nobody decodes and `left` rows of prompts are to be computed,
    /// and how many such microbatches may be in flight.
    pub(super) fn chunk_alone(
        &mut self,
        plan: &PlanLimits,
        rows_max: usize,
        left: usize,
    ) -> (usize, usize) {
        self.chunks.choose(&self.times, (rows_max, to_usize(plan.in_flight_max)), left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn reports_that_belong_to_nothing_are_not_used() {
        let timing = StageTiming { microbatch: MicrobatchId(1), compute: ms(1), wait: ms(1) };
        let mut pace = Pace::default();
        assert!(!pace.observe(ms(0), 0, &timing), "no plan");
        pace.begin(ms(0), 2, Reads::default());
        assert!(!pace.observe(ms(0), 0, &timing), "nothing was sent");
        pace.sent(ms(0), Sent { microbatch: MicrobatchId(1), rows: 1, decode_rows: 1 });
        assert!(!pace.observe(ms(1), 2, &timing), "no such stage");
        assert!(pace.observe(ms(1), 1, &timing));
    }
}
