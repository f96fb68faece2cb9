//! Blocks: who starts, who grows, who is preempted, and when blocks come back.

use super::limits::blocks_for;
use super::sequence::Phase;
use super::{Scheduler, SequenceId};
use std::ops::Bound;

/// Free blocks that a start leaves for each running sequence to grow.
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
    /// Starts waiting sequences in order of age, as long as their blocks are free.
    ///
    /// A lone sequence starts in any case: longer ones than all blocks are refused at the door.
    pub(super) fn admit(&mut self) {
        while self.running.len() < self.config.running_max && self.preempting == 0 {
            let Some(&id) = self.waiting.first() else { return };
            if !self.running.is_empty() && !self.has_blocks_to_start(id) {
                return;
            }
            self.waiting.remove(&id);
            self.running.insert(id);
            self.prefilling.insert(id);
            self.sequence_mut(id).phase = Phase::Running;
        }
    }

    fn has_blocks_to_start(&self, id: SequenceId) -> bool {
        let promised: usize = self
            .prefilling
            .iter()
            .map(|id| self.sequence(*id))
            .map(|sequence| sequence.blocks_missing(sequence.pending()))
            .sum();
        let sequence = self.sequence(id);
        let doublings = sequence.preemptions.min(HEADROOM_DOUBLINGS_MAX);
        let headroom = (self.running.len() * HEADROOM_PER_RUNNING) << doublings;
        promised + blocks_for(sequence.compute_end()) + headroom <= self.blocks.free()
    }

    /// Gives a running sequence the blocks for its next `rows` rows, if need be from younger ones.
    pub(super) fn grow(&mut self, id: SequenceId, rows: usize) -> Grown {
        let missing = self.sequence(id).blocks_missing(rows);
        if missing == 0 {
            return Grown::Done;
        }
        while self.blocks.free() < missing {
            let victim = self.youngest_after(id).filter(|_| self.returning == 0);
            let Some(victim) = victim else { return Grown::Waits };
            self.preempt(victim);
        }
        let taken: Vec<_> = std::iter::from_fn(|| self.blocks.take()).take(missing).collect();
        self.sequence_mut(id).blocks.extend(taken);
        Grown::Done
    }

    /// The youngest running sequence, if any that is younger than `id` holds blocks. It may hold none
    /// itself; it goes all the same, so that those who run are always older than those who wait.
    fn youngest_after(&self, id: SequenceId) -> Option<SequenceId> {
        let mut younger = self.running.range((Bound::Excluded(id), Bound::Unbounded));
        let youngest = *younger.clone().next_back()?;
        younger.any(|id| !self.sequence(*id).blocks.is_empty()).then_some(youngest)
    }

    /// Takes a running sequence's blocks and makes it wait at the front.
    fn preempt(&mut self, id: SequenceId) {
        self.leave_running(id);
        self.preempting += 1;
        let sequence = self.sequence_mut(id);
        sequence.phase = Phase::Preempting;
        if !sequence.blocks.is_empty() {
            sequence.preemptions += 1;
            self.preemptions += 1;
        }
        self.returning += self.sequence(id).blocks.len();
        self.settle(id);
    }

    /// A sequence has finished, failed or lost its client.
    pub(super) fn end(&mut self, id: SequenceId) {
        match self.sequence(id).phase {
            Phase::Waiting => {
                self.waiting.remove(&id);
            }
            Phase::Running => {
                self.leave_running(id);
                self.returning += self.sequence(id).blocks.len();
            }
            Phase::Preempting => self.preempting -= 1,
            Phase::Ended => return,
        }
        self.sequence_mut(id).phase = Phase::Ended;
        self.settle(id);
    }

    fn leave_running(&mut self, id: SequenceId) {
        self.running.remove(&id);
        self.prefilling.remove(&id);
        self.ready.retain(|ready| *ready != id);
    }

    /// Completes a preemption or an end once nothing of the sequence is in flight: only then can no
    /// microbatch read or write its blocks any more.
    pub(super) fn settle(&mut self, id: SequenceId) {
        let sequence = self.sequence_mut(id);
        let phase = sequence.phase;
        if sequence.in_flight > 0 || !matches!(phase, Phase::Preempting | Phase::Ended) {
            return;
        }
        let blocks = std::mem::take(&mut sequence.blocks);
        sequence.sent = 0;
        self.returning -= blocks.len();
        // The last block first: the next to take some gets them in the old order.
        for block in blocks.into_iter().rev() {
            self.blocks.release(block);
        }
        if phase == Phase::Ended {
            self.sequences.remove(&id);
        } else {
            self.preempting -= 1;
            self.sequence_mut(id).phase = Phase::Waiting;
            self.waiting.insert(id);
        }
    }
}
