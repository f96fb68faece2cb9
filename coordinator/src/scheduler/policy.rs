//! Which rows go into the next microbatch.

use super::Scheduler;
use super::budget::{Beside, CHUNK_MIN, Situation};
use super::grouping::predict;
use super::limits::{PlanLimits, to_u32, to_usize};
use super::memory::Grown;
use super::sequence::Phase;
use super::step::{Room, Step, StepBuilder};
use std::ops::Bound;
use std::time::Duration;

/// Prompts that are looked at to know how much is left to prefill.
const PROMPTS_LOOKED_AT: usize = 16;

impl Scheduler {
    /// The next microbatch, if the pipeline has room and there is work.
    pub fn poll_step(&mut self, now: Duration) -> Option<Step> {
        let plan = self.plan?;
        if self.in_flight.len() >= to_usize(plan.in_flight_max) {
            return None;
        }
        let room = Room::whole(&plan, self.config.rows_per_step);
        let mut decode_room = room;
        if !self.prefilling.is_empty() {
            // Every second microbatch keeps a row for prefill even where a quarter is none.
            decode_room = room.without_prefill_share(self.next_microbatch.0.is_multiple_of(2));
        }
        let (groups, beside) = self.groups(now, &plan, room.rows);
        let mut builder = StepBuilder::default();
        self.add_decodes(&mut builder, decode_room, groups);
        if let Some(rows) = self.rows_with_prefill(beside, room.rows, builder.decodes) {
            self.add_prefills(&mut builder, room.with_rows(rows));
        }
        self.add_decodes(&mut builder, room, groups);

        let (rows, decodes) = (to_u32(builder.rows()), to_u32(builder.decodes));
        let (step, in_flight) = builder.finish(&plan, self.next_microbatch, now)?;
        self.rows += u64::from(rows);
        self.traffic.sent(now, self.next_microbatch, rows, rows - decodes);
        if in_flight.decodes {
            self.grouping.sent(self.next_microbatch);
        }
        if in_flight.prefills {
            self.budget.sent(now, self.next_microbatch);
        }
        self.next_microbatch.0 += 1;
        self.offer(&in_flight);
        self.in_flight.push_back(in_flight);
        Some(step)
    }

    /// Sequences that only wait for their next token, or for their first.
    fn decoding(&self) -> usize {
        self.running.len() - self.prefilling.len()
    }

    /// How many groups the decoding sequences travel in, and what prefill may have beside them.
    fn groups(
        &mut self,
        now: Duration,
        plan: &PlanLimits,
        rows_max: usize,
    ) -> (usize, Option<Beside>) {
        let streams = self.decoding();
        let quiet = self.prefilling.is_empty();
        if quiet || streams == 0 {
            self.budget.nothing_beside();
        }
        if streams == 0 {
            return (1, None);
        }
        let most = plan.decode_groups_max();
        let groups = match self.config.decode_groups {
            Some(forced) => to_usize(forced.min(plan.in_flight_max)),
            None => self.grouping.choose(&self.times, now, (streams, most), quiet),
        };
        self.decode_groups = groups.min(streams);
        if quiet {
            return (groups, None);
        }
        let situation = Situation { groups: groups.min(streams), streams, rows_max };
        let times = &self.times;
        let gap = || predict(times, now, streams, situation.groups).map(|quiet| quiet.period);
        let target = self.config.itl_target;
        let beside = self.budget.beside(times, plan, target, situation, now, gap);
        self.decode_groups = self.decode_groups.min(beside.in_flight);
        (groups.min(beside.in_flight), Some(beside))
    }

    /// The newest token of sequences that wait for their next one, longest wait first.
    ///
    /// Takes only this microbatch's share of all decoding sequences, so that they stay spread over
    /// the groups; and none while all groups are in flight, so that those who wait join one group
    /// instead of making another.
    fn add_decodes(&mut self, builder: &mut StepBuilder, room: Room, groups: usize) {
        let in_flight = self.in_flight.iter().filter(|in_flight| in_flight.decodes).count();
        let Some(missing) = groups.checked_sub(in_flight).filter(|missing| *missing > 0) else {
            return;
        };
        // What the groups that are missing would have if they left at once; at most an equal part.
        let here = (builder.decodes + self.ready.len()).div_ceil(missing);
        let share = self.decoding().div_ceil(groups).min(here);
        let mut skipped = Vec::new();
        while builder.decodes < share {
            let Some(id) = self.ready.pop_front() else { break };
            if !builder.fits(room, self.sequence(id), 1) {
                self.ready.push_front(id);
                break;
            }
            if self.grow(id, 1) == Grown::Waits {
                // Blocks make this gap long, not rows of prefill.
                self.sequence_mut(id).token_at = None;
                skipped.push(id);
                continue;
            }
            builder.push(id, self.sequence_mut(id), 1);
            builder.decodes += 1;
        }
        for id in skipped.into_iter().rev() {
            // A sequence further back in the queue may be older and have taken its blocks.
            if self.sequence(id).phase == Phase::Running {
                self.ready.push_front(id);
            }
        }
    }

    /// Rows that the microbatch may have with prefill, `decodes` of them being there already; `None`
    /// if it may have no prefill.
    fn rows_with_prefill(
        &mut self,
        beside: Option<Beside>,
        rows_max: usize,
        decodes: usize,
    ) -> Option<usize> {
        let first = *self.prefilling.first_key_value()?.1;
        let Some(beside) = beside else {
            let others = self.prefilling.values().skip(1).take(PROMPTS_LOOKED_AT);
            let others: usize = others.map(|id| self.sequence(*id).pending()).sum();
            // The first counts whole, or its chunks would shrink as it goes on.
            let left = self.sequence(first).compute_end() + others;
            return Some(self.budget.alone(&self.times, rows_max, left));
        };
        let full = decodes == 0 && self.in_flight.len() >= beside.in_flight;
        if full || (beside.one && self.in_flight.iter().any(|in_flight| in_flight.prefills)) {
            return None;
        }
        Some(beside.rows.max(decodes + CHUNK_MIN))
    }

    /// The next chunks of prompts, and of token logs that are computed again, oldest first.
    fn add_prefills(&mut self, builder: &mut StepBuilder, room: Room) {
        let mut after = Bound::Unbounded;
        while builder.rows() < room.rows {
            let next = self.prefilling.range((after, Bound::Unbounded)).next();
            let Some((&rank, &id)) = next else { break };
            after = Bound::Excluded(rank);
            self.adopt(id);
            let sequence = self.sequence(id);
            let rows = sequence.pending().min(room.rows - builder.rows());
            if !builder.fits(room, sequence, rows) || self.grow(id, rows) == Grown::Waits {
                continue;
            }
            builder.push(id, self.sequence_mut(id), rows);
            if self.sequence(id).pending() == 0 {
                self.prefilling.remove(&rank);
            }
        }
    }
}
