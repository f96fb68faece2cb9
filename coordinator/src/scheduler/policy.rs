//! Which rows go into the next microbatch.

use super::Scheduler;
use super::limits::to_u32;
use super::memory::Grown;
use super::sequence::Phase;
use super::step::{Room, Step, StepBuilder};
use std::ops::Bound;
use std::time::Duration;

impl Scheduler {
    /// The next microbatch, if the pipeline has room and there is work.
    pub fn poll_step(&mut self, now: Duration) -> Option<Step> {
        let plan = self.plan?;
        if self.in_flight.len() >= super::limits::to_usize(plan.in_flight_max) {
            return None;
        }
        let room = Room::whole(&plan, self.config.rows_per_step);
        let mut decode_room = room;
        if !self.prefilling.is_empty() {
            // Every second microbatch keeps a row for prefill even where a quarter is none.
            decode_room = room.without_prefill_share(self.next_microbatch.0.is_multiple_of(2));
        }
        let mut builder = StepBuilder::default();
        self.add_decodes(&mut builder, decode_room);
        self.add_prefills(&mut builder, room);
        self.add_decodes(&mut builder, room);

        let (rows, decodes) = (to_u32(builder.rows()), to_u32(builder.decodes));
        self.rows += u64::from(rows);
        let (step, in_flight) = builder.finish(&plan, self.next_microbatch, now)?;
        self.traffic.sent(now, self.next_microbatch, rows, rows - decodes);
        self.next_microbatch.0 += 1;
        self.in_flight.push_back(in_flight);
        Some(step)
    }

    /// The newest token of sequences that wait for their next one, longest wait first.
    ///
    /// Takes only this microbatch's share of all decoding sequences, so that they stay spread over
    /// the pipeline; and none while every stage has a microbatch of them already, so that those who
    /// wait join one group instead of making another.
    fn add_decodes(&mut self, builder: &mut StepBuilder, room: Room) {
        let groups = self.plan.map_or(1, |plan| plan.decode_groups());
        if self.in_flight.iter().filter(|in_flight| in_flight.decodes).count() >= groups {
            return;
        }
        let share = (self.running.len() - self.prefilling.len()).div_ceil(groups);
        let mut skipped = Vec::new();
        while builder.decodes < share {
            let Some(id) = self.ready.pop_front() else { break };
            if !builder.fits(room, self.sequence(id), 1) {
                self.ready.push_front(id);
                break;
            }
            if self.grow(id, 1) == Grown::Waits {
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

    /// The next chunks of prompts, and of token logs that are computed again, oldest first.
    fn add_prefills(&mut self, builder: &mut StepBuilder, room: Room) {
        let mut after = Bound::Unbounded;
        while builder.rows() < room.rows {
            let Some(&id) = self.prefilling.range((after, Bound::Unbounded)).next() else { break };
            after = Bound::Excluded(id);
            let sequence = self.sequence(id);
            let rows = sequence.pending().min(room.rows - builder.rows());
            if !builder.fits(room, sequence, rows) || self.grow(id, rows) == Grown::Waits {
                continue;
            }
            builder.push(id, self.sequence_mut(id), rows);
            if self.sequence(id).pending() == 0 {
                self.prefilling.remove(&id);
            }
        }
    }
}
