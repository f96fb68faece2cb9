//! Who waits, and who starts next: preempted sequences first, then the keys in turn.

use super::sequence::Rank;
use crate::generation::KeyId;
use std::collections::{BTreeMap, BTreeSet};
use woolly_protocol::ids::SequenceId;

/// Sequences that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// In order of arrival.
    all: BTreeSet<SequenceId>,
    /// Those that have run, in the order in which they first started.
    preempted: BTreeMap<Rank, SequenceId>,
    /// Those that never ran, of each key in order of arrival. No key has an empty list.
    new: BTreeMap<KeyId, BTreeSet<SequenceId>>,
    /// The first key in turn; the next one with a waiting sequence if this one has none.
    turn: KeyId,
}

impl Waiting {
    /// Sequences that wait, preempted ones included.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Those among them that have run.
    pub(super) fn preempted(&self) -> usize {
        self.preempted.len()
    }

    /// The one that arrived first.
    pub(super) fn oldest(&self) -> Option<SequenceId> {
        self.all.first().copied()
    }

    /// The one that starts next.
    pub(super) fn front(&self) -> Option<SequenceId> {
        if let Some((_, id)) = self.preempted.first_key_value() {
            return Some(*id);
        }
        let (_, ids) = self.new.range(self.turn..).next().or(self.new.first_key_value())?;
        ids.first().copied()
    }

    /// A sequence waits; `rank` if it has run.
    pub(super) fn add(&mut self, id: SequenceId, key: KeyId, rank: Option<Rank>) {
        self.all.insert(id);
        match rank {
            Some(rank) => {
                self.preempted.insert(rank, id);
            }
            None => {
                self.new.entry(key).or_default().insert(id);
            }
        }
    }

    /// A sequence waits no more.
    pub(super) fn remove(&mut self, id: SequenceId, key: KeyId, rank: Option<Rank>) {
        self.all.remove(&id);
        if let Some(rank) = rank {
            self.preempted.remove(&rank);
        } else if let Some(ids) = self.new.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.new.remove(&key);
            }
        }
    }

    /// A new sequence of a key has started: the next key's turn.
    pub(super) fn pass_turn(&mut self, key: KeyId) {
        self.turn = KeyId(key.0.wrapping_add(1));
    }

    #[cfg(test)]
    pub(super) fn contains(&self, id: SequenceId) -> bool {
        let lists = self.new.values().filter(|ids| ids.contains(&id)).count();
        let preempted = self.preempted.values().filter(|other| **other == id).count();
        let all = self.all.contains(&id);
        assert_eq!(lists + preempted, usize::from(all), "{id} waits in one list");
        all
    }

    /// The first of those that have run.
    #[cfg(test)]
    pub(super) fn first_rank(&self) -> Option<Rank> {
        self.preempted.first_key_value().map(|(rank, _)| *rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts everything; says who, by number.
    fn starts(waiting: &mut Waiting, keys: &BTreeMap<SequenceId, KeyId>) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(id) = waiting.front() {
            waiting.remove(id, keys[&id], None);
            waiting.pass_turn(keys[&id]);
            order.push(id.0);
        }
        order
    }

    #[test]
    fn keys_take_turns_and_each_starts_its_own_in_order() {
        let mut waiting = Waiting::default();
        let keys = [(1, 0), (2, 0), (3, 0), (4, 7), (5, 2), (6, 7)];
        let keys = keys.map(|(id, key)| (SequenceId(id), KeyId(key)));
        for (id, key) in keys {
            waiting.add(id, key, None);
        }
        assert_eq!(waiting.oldest(), Some(SequenceId(1)));
        assert_eq!(starts(&mut waiting, &BTreeMap::from(keys)), [1, 5, 4, 2, 6, 3]);
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn who_has_run_starts_first() {
        let mut waiting = Waiting::default();
        waiting.add(SequenceId(1), KeyId(0), None);
        waiting.add(SequenceId(9), KeyId(0), Some(Rank(4)));
        waiting.add(SequenceId(8), KeyId(0), Some(Rank(5)));
        assert_eq!((waiting.front(), waiting.preempted()), (Some(SequenceId(9)), 2));
        waiting.remove(SequenceId(9), KeyId(0), Some(Rank(4)));
        assert_eq!(waiting.front(), Some(SequenceId(8)));
    }
}
