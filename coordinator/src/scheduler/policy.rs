//! Which rows go into the next microbatch.

use super::Scheduler;
use super::limits::{PlanLimits, to_u32, to_usize};
use super::memory::Grown;
use super::pace::{Allowance, CHUNK_MIN, Load, Sent};
use super::prefix::EXTENTS_AHEAD;
use super::sequence::Phase;
use super::step::{Room, Step, StepBuilder, mask_bytes_of};
use std::time::Duration;

/// Prompts that are looked at to know how much is left to prefill.
const PROMPTS_LOOKED_AT: usize = 16;
/// Prefill rows that a microbatch beside decodes may have however little is to be computed. More than
/// an equal part for each stage cannot fill the pipeline, and holds streams up in vain.
const PART_MIN: usize = 16;

impl Scheduler {
    /// The next microbatch, if the pipeline has room and there is work.
    pub fn poll_step(&mut self, now: Duration) -> Option<Step> {
        let plan = self.plan?;
        if self.hands_over || self.in_flight.len() >= to_usize(plan.in_flight_max) {
            return None;
        }
        let room = Room::whole(&plan, self.config.rows_per_step);
        let waiting = self.running.prefilling();
        let prefills = waiting > 0;
        let mut decode_room = room;
        if prefills {
            // Every second microbatch keeps a row for prefill even where a quarter is none.
            decode_room = room.without_prefill_share(self.next_microbatch.0.is_multiple_of(2));
        }
        let load = Load { streams: self.running.decoding(), waiting, rows_max: room.rows };
        let wishes = (self.config.itl_target, self.config.decode_groups);
        let share = self.pace.share(now, &plan, wishes, load);
        if self.in_flight.len() >= share.in_flight_max {
            return None;
        }
        let mut builder = std::mem::take(&mut self.builder);
        let groups = self.caches.groups().len();
        builder.begin(self.in_flight.back(), (groups, self.caches.extent_len()));
        self.add_decodes(&mut builder, decode_room, share.groups);
        if prefills && !(share.decode_only && builder.decodes > 0) {
            if let Some(rows) =
                self.rows_with_prefill(&plan, share.prefill, room.rows, builder.decode_rows)
            {
                self.add_prefills(&mut builder, room.with_rows(rows));
            }
            // What the prompts have left.
            self.add_decodes(&mut builder, room, share.groups);
        }

        let (rows, decode_rows) = (to_u32(builder.rows()), to_u32(builder.decode_rows));
        let microbatch = self.next_microbatch;
        let made = builder.finish(&plan, microbatch, now);
        let mut filled = std::mem::take(&mut builder.filled);
        self.builder = builder;
        let (step, in_flight) = made?;
        self.tally.rows += u64::from(rows);
        self.tally.mask_bytes += step.sampling.as_ref().map_or(0, mask_bytes_of);
        self.pace.sent(now, Sent { microbatch, rows, decode_rows });
        self.next_microbatch.0 += 1;
        self.offer(&filled);
        self.leave_behind(&in_flight.chunks);
        filled.clear();
        self.builder.filled = filled;
        self.in_flight.push_back(in_flight);
        Some(step)
    }

    /// The newest tokens of sequences that wait for their next one, longest wait first: one each, and those
    /// before it that were not sampled.
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
        let here = (builder.decodes + self.running.ready()).div_ceil(missing);
        let share = self.running.decoding().div_ceil(groups).min(here);
        let mut skipped = Vec::new();
        while builder.decodes < share {
            let Some(id) = self.running.pop_ready() else { break };
            let sequence = self.sequence_mut(id);
            let rows = sequence.pending();
            if !builder.fits(room, sequence, rows) {
                self.running.return_ready(id);
                break;
            }
            if sequence.blocks_missing(rows) == 0 {
                builder.push(id, sequence, rows);
            } else if self.grow(id, rows) == Grown::Done {
                builder.push(id, self.sequence_mut(id), rows);
            } else {
                // Blocks make this gap long, not rows of prefill.
                self.sequence_mut(id).token_at = None;
                skipped.push(id);
                continue;
            }
            builder.decodes += 1;
            builder.decode_rows += rows;
        }
        for id in skipped.into_iter().rev() {
            // A sequence further back in the queue may be older and have taken its blocks.
            if self.sequence(id).phase == Phase::Running {
                self.running.return_ready(id);
            }
        }
    }

    /// Rows that the microbatch may have with prefill, `decodes` of them being there already; `None`
    /// if it may have no prefill.
    fn rows_with_prefill(
        &mut self,
        plan: &PlanLimits,
        allowance: Option<Allowance>,
        rows_max: usize,
        decodes: usize,
    ) -> Option<usize> {
        let stages = to_usize(plan.stages);
        let (_, first) = self.running.prefilling_after(None)?;
        let Some(allowance) = allowance else {
            let others = self.running.prefills().skip(1).take(PROMPTS_LOOKED_AT);
            let others: usize = others.map(|id| self.sequence(id).pending()).sum();
            // The first counts whole, or its chunks would shrink as it goes on.
            let left = self.sequence(first).compute_end() + others;
            let (rows, in_flight) = self.pace.chunk_alone(plan, rows_max, left);
            return (self.in_flight.len() < in_flight).then_some(rows);
        };
        let full = decodes == 0 && self.in_flight.len() >= allowance.in_flight;
        if full || (allowance.one && self.in_flight.iter().any(|in_flight| in_flight.prefills)) {
            return None;
        }
        let part = self.prompt_rows().div_ceil(stages).max(PART_MIN);
        Some(allowance.rows.min(decodes + part).max(decodes + CHUNK_MIN))
    }

    /// Rows of prompts that are still to be computed, if those that are not looked at are like those that
    /// are.
    fn prompt_rows(&self) -> usize {
        let looked_at = self.running.prefills().take(PROMPTS_LOOKED_AT);
        let rows: usize = looked_at.map(|id| self.sequence(id).pending()).sum();
        let count = self.running.prefilling();
        rows * count / count.clamp(1, PROMPTS_LOOKED_AT)
    }

    /// The next chunks of prompts, and of token logs that are computed again, oldest first.
    fn add_prefills(&mut self, builder: &mut StepBuilder, room: Room) {
        let (mut after, mut computed) = (None, Vec::new());
        while builder.rows() < room.rows {
            let Some((rank, id)) = self.running.prefilling_after(after) else { break };
            after = Some(rank);
            self.adopt(id, EXTENTS_AHEAD);
            if self.awaits(id, &computed) {
                continue;
            }
            let sequence = self.sequence(id);
            let rows = sequence.pending().min(room.rows - builder.rows());
            if rows == 0 {
                // All but the row after which a token is sampled, and its guide is still asked.
                continue;
            }
            if !builder.fits(room, sequence, rows) || self.grow(id, rows) == Grown::Waits {
                continue;
            }
            builder.push(id, self.sequence_mut(id), rows);
            let sent = self.sequence(id).sent;
            self.note_computed(id, sent - rows..sent, &mut computed);
            if self.sequence(id).unsent() == 0 {
                self.running.prefilled(rank);
            }
        }
    }
}
