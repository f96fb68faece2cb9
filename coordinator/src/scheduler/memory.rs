//! Blocks: who starts, who grows, who is preempted, and when blocks come back.

use super::Scheduler;
use super::blocks::Blocks;
use super::sequence::Phase;
use super::step::SentChunk;
use std::time::Duration;
use woolly_protocol::ids::SequenceId;

/// Free extents of blocks that a start leaves for each running sequence to grow.
const HEADROOM_PER_RUNNING: usize = 1;
/// A sequence preempted often waits for at most 2^3 times that headroom.
const HEADROOM_DOUBLINGS_MAX: u32 = 3;

/// Whether a sequence has the blocks that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grown {
    /// It has.
    Done,
    /// It has to wait: blocks are on their way back, or older sequences hold them.
    Waits,
}

impl Scheduler {
    /// Starts waiting sequences in the order of [`Waiting`](super::queue::Waiting), as long as their
    /// blocks are free.
    ///
    /// A lone sequence starts in any case, once those that left have given back what they claimed: longer
    /// ones than all blocks are refused at the door.
    pub(super) fn admit(&mut self, now: Duration) {
        let may_start = self.plan.is_some() && !self.hands_over;
        while may_start && self.running.len() < self.config.running_max && self.preempting == 0 {
            let Some(id) = self.waiting.front() else { return };
            let has_room =
                self.has_claims(id) && (self.running.is_empty() || self.has_blocks_to_start(id));
            if !has_room {
                return;
            }
            self.start(now, id);
        }
    }

    fn start(&mut self, now: Duration, id: SequenceId) {
        let (key, rank) = (self.sequence(id).request.key, self.sequence(id).rank);
        self.waiting.remove(id, key, rank);
        let rank = rank.unwrap_or_else(|| {
            self.waiting.pass_turn(key);
            self.backlog.started(now, self.waiting.len() > self.waiting.preempted());
            self.next_rank.0 += 1;
            self.next_rank
        });
        self.running.start(rank, id);
        let (rows, longest) = self.claims(id);
        let extents = self.caches.extents_for(rows);
        let sequence = self.sequences.get_mut(&id).expect("it waited");
        self.caches.claim(&mut sequence.tables, rows, longest);
        sequence.rank = Some(rank);
        sequence.phase = Phase::Running;
        sequence.reserved = extents;
        self.reserved += extents;
        self.adopt(id, usize::MAX);
    }

    /// What a sequence's claims follow from: the rows that it computes now, and how long it gets at most.
    fn claims(&self, id: SequenceId) -> (usize, usize) {
        let longest = self.plan.map_or(0, |plan| plan.positions_max());
        let sequence = self.sequence(id);
        (sequence.compute_end(), sequence.longest(longest))
    }

    fn has_claims(&self, id: SequenceId) -> bool {
        let (rows, longest) = self.claims(id);
        self.caches.has_claims(rows, longest)
    }

    /// Whether the group that remembers all positions has blocks for it.
    fn has_blocks_to_start(&mut self, id: SequenceId) -> bool {
        let Some(free) = self.caches.full().map(Blocks::free) else { return true };
        let sequence = self.sequence(id);
        let doublings = sequence.preemptions.min(HEADROOM_DOUBLINGS_MAX);
        let headroom = (self.running.len() * HEADROOM_PER_RUNNING) << doublings;
        let wanted = self.reserved + self.caches.extents_for(sequence.compute_end()) + headroom;
        wanted <= free || wanted - self.shared_extents(id) <= free
    }

    /// Gives a running sequence the blocks for its next `rows` rows, if need be from younger ones.
    pub(super) fn grow(&mut self, id: SequenceId, rows: usize) -> Grown {
        let missing = self.sequence(id).blocks_missing(rows);
        if missing == 0 {
            return Grown::Done;
        }
        let extents = missing.div_ceil(self.caches.per_extent());
        while !self.caches.have(extents) {
            let victim = self.youngest_after(id).filter(|_| self.draining == 0);
            let Some(victim) = victim else { return Grown::Waits };
            self.preempt(victim);
        }
        let sequence = self.sequences.get_mut(&id).expect("it runs");
        self.caches.take(&mut sequence.tables, extents);
        self.use_reserved(id, extents);
        Grown::Done
    }

    /// What a window leaves behind goes back, now that a microbatch with these chunks is complete. A sequence
    /// whose prompt is computed goes on row by row and claims less.
    pub(super) fn leave_behind(&mut self, chunks: &[SentChunk]) {
        if !self.caches.has_windows() {
            return;
        }
        let longest = self.plan.map_or(0, |plan| plan.positions_max());
        for chunk in chunks {
            let sequence = self.sequences.get_mut(&chunk.sequence).expect("it is in flight");
            // One that a later chunk of the same microbatch has preempted gives all back, and all is counted.
            if sequence.phase != Phase::Running {
                continue;
            }
            self.caches.leave_behind(&mut sequence.tables, sequence.sent);
            if sequence.unsent() == 0 {
                let longest = sequence.longest(longest);
                self.caches.claim(&mut sequence.tables, 1, longest);
            }
        }
    }

    /// A running sequence holds extents that were counted on for it when it started.
    pub(super) fn use_reserved(&mut self, id: SequenceId, extents: usize) {
        let sequence = self.sequence_mut(id);
        let kept = extents.min(sequence.reserved);
        sequence.reserved -= kept;
        self.reserved -= kept;
    }

    /// The youngest running sequence, if any that is younger than `id` holds blocks. It may hold none
    /// itself; it goes all the same, so that those who run are always older than those who wait.
    fn youngest_after(&self, id: SequenceId) -> Option<SequenceId> {
        let rank = self.sequence(id).rank.expect("it runs");
        let mut younger = self.running.younger(rank);
        let youngest = younger.clone().next_back()?;
        younger.any(|id| self.sequence(id).blocks_held() > 0).then_some(youngest)
    }

    /// Takes a running sequence's blocks and makes it wait at the front.
    fn preempt(&mut self, id: SequenceId) {
        self.leave_running(id);
        self.running.leave_ready(id);
        self.preempting += 1;
        let sequence = self.sequence_mut(id);
        sequence.phase = Phase::Preempting;
        if sequence.blocks_held() > 0 {
            sequence.preemptions += 1;
            self.tally.preemptions += 1;
        }
        self.draining += self.sequence(id).blocks_held();
        self.settle(id);
    }

    /// A sequence has finished, failed, lost its client or run out of time.
    pub(super) fn end(&mut self, now: Duration, id: SequenceId) {
        let sequence = self.sequence(id);
        let (key, rank, deadline) = (sequence.request.key, sequence.rank, sequence.deadline);
        match sequence.phase {
            Phase::Waiting => self.waiting.remove(id, key, rank),
            Phase::Running => {
                self.backlog.ended(now);
                self.leave_running(id);
                self.draining += self.sequence(id).blocks_held();
            }
            Phase::Preempting => self.preempting -= 1,
            Phase::Ended => return,
        }
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.note_replayed(now, id, false);
        self.sequence_mut(id).phase = Phase::Ended;
        self.settle(id);
    }

    fn leave_running(&mut self, id: SequenceId) {
        let sequence = self.sequence_mut(id);
        let rank = sequence.rank.expect("it ran");
        let reserved = std::mem::take(&mut sequence.reserved);
        self.reserved -= reserved;
        self.running.leave(rank);
    }

    /// Completes a preemption or an end once nothing of the sequence is in flight: only then can no
    /// microbatch read or write its blocks any more.
    pub(super) fn settle(&mut self, id: SequenceId) {
        let sequence = self.sequence_mut(id);
        let phase = sequence.phase;
        if sequence.in_flight > 0 || !matches!(phase, Phase::Preempting | Phase::Ended) {
            return;
        }
        let held = sequence.blocks_held();
        let tables = std::mem::take(&mut sequence.tables);
        sequence.sent = 0;
        // The pause is no gap that fewer rows of prefill would have made shorter.
        sequence.token_at = None;
        sequence.offered = 0;
        let (key, rank) = (sequence.request.key, sequence.rank);
        self.draining -= held;
        self.caches.take_back(tables);
        if phase == Phase::Ended {
            self.sequences.remove(&id);
        } else {
            self.preempting -= 1;
            self.sequence_mut(id).phase = Phase::Waiting;
            self.waiting.add(id, key, rank);
        }
    }
}
