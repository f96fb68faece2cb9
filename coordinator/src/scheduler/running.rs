//! The sequences that run, and what each of them waits for: to compute its prompt, to send its newest
//! token, or for an answer.

use super::sequence::Rank;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use woolly_protocol::ids::SequenceId;

/// Running sequences.
#[derive(Debug, Default)]
pub(super) struct Running {
    by_rank: BTreeMap<Rank, SequenceId>,
    /// Those that have more than the newest token to send.
    prefilling: BTreeMap<Rank, SequenceId>,
    /// Those whose newest token is not sent yet; who waited longest first.
    ready: VecDeque<SequenceId>,
}

impl Running {
    /// Sequences that run.
    pub(super) fn len(&self) -> usize {
        self.by_rank.len()
    }

    /// Whether none runs.
    pub(super) fn is_empty(&self) -> bool {
        self.by_rank.is_empty()
    }

    /// Those that compute a prompt, or a log again.
    pub(super) fn prefilling(&self) -> usize {
        self.prefilling.len()
    }

    /// Those that only wait for their next token.
    pub(super) fn decoding(&self) -> usize {
        self.by_rank.len() - self.prefilling.len()
    }

    /// Those whose newest token is not sent yet.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// A sequence starts, with its prompt or its log to compute.
    pub(super) fn start(&mut self, rank: Rank, id: SequenceId) {
        self.by_rank.insert(rank, id);
        self.prefilling.insert(rank, id);
    }

    /// A sequence runs no more. One that is ready stays so until [`leave_ready`](Self::leave_ready).
    pub(super) fn leave(&mut self, rank: Rank) {
        self.by_rank.remove(&rank);
        self.prefilling.remove(&rank);
    }

    /// Whether a sequence has more than its newest tokens to send.
    pub(super) fn is_prefilling(&self, rank: Rank) -> bool {
        self.prefilling.contains_key(&rank)
    }

    /// A running sequence has many tokens to send that were not sampled.
    pub(super) fn catch_up(&mut self, rank: Rank, id: SequenceId) {
        self.prefilling.insert(rank, id);
    }

    /// All that a sequence has to compute is sent.
    pub(super) fn prefilled(&mut self, rank: Rank) {
        self.prefilling.remove(&rank);
    }

    /// The next that prefills, in order of rank.
    pub(super) fn prefilling_after(&self, after: Option<Rank>) -> Option<(Rank, SequenceId)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (rank, id) = self.prefilling.range((from, Bound::Unbounded)).next()?;
        Some((*rank, *id))
    }

    /// Those that prefill, in order of rank.
    pub(super) fn prefills(&self) -> impl Iterator<Item = SequenceId> {
        self.prefilling.values().copied()
    }

    /// Those that started after this one, oldest first.
    pub(super) fn younger(
        &self,
        rank: Rank,
    ) -> impl DoubleEndedIterator<Item = SequenceId> + Clone {
        self.by_rank.range((Bound::Excluded(rank), Bound::Unbounded)).map(|(_, id)| *id)
    }

    /// The one that waits longest to send its newest token; it waits no more.
    pub(super) fn pop_ready(&mut self) -> Option<SequenceId> {
        self.ready.pop_front()
    }

    /// A sequence that was taken from the front waits again, before all others.
    pub(super) fn return_ready(&mut self, id: SequenceId) {
        self.ready.push_front(id);
    }

    /// A sequence has a new token to send.
    pub(super) fn make_ready(&mut self, id: SequenceId) {
        self.ready.push_back(id);
    }

    /// Looks through all that are ready: for the rare preemption and cancel, not for every token. A
    /// sequence that has just been answered is not among them.
    pub(super) fn leave_ready(&mut self, id: SequenceId) {
        if let Some(index) = self.ready.iter().position(|ready| *ready == id) {
            self.ready.remove(index);
        }
    }

    /// Nobody runs any more.
    pub(super) fn clear(&mut self) {
        self.by_rank.clear();
        self.prefilling.clear();
        self.ready.clear();
    }

    #[cfg(test)]
    pub(super) fn of_rank(&self, rank: Rank) -> Option<SequenceId> {
        self.by_rank.get(&rank).copied()
    }

    /// How often a sequence is among those that are ready.
    #[cfg(test)]
    pub(super) fn times_ready(&self, id: SequenceId) -> usize {
        self.ready.iter().filter(|ready| **ready == id).count()
    }

    /// The youngest that runs.
    #[cfg(test)]
    pub(super) fn last_rank(&self) -> Option<Rank> {
        self.by_rank.last_key_value().map(|(rank, _)| *rank)
    }
}
