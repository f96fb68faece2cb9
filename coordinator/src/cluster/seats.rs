//! Who sits where: an order of workers in which neighbours can talk to each other.
//!
//! Knows ids only. Who was in the last plan keeps its place where that is possible, so that little is
//! loaded anew; others come in the order that is given, in which they joined.

use std::collections::BTreeSet;
use woolly_protocol::ids::WorkerId;

/// Places that are tried at most: few links are broken, so that the first ways mostly are good.
const TRIES_MAX: usize = 20_000;

/// `count` of the `available` workers, in an order of which each two that follow each other are `good`.
/// `kept` are the workers of the last plan by stage. `None` if there is no such order, or none was found.
pub(super) fn arrange(
    kept: &[WorkerId],
    available: &[WorkerId],
    count: usize,
    good: impl Fn((WorkerId, WorkerId)) -> bool,
) -> Option<Vec<WorkerId>> {
    if available.len() < count {
        return None;
    }
    let here: BTreeSet<WorkerId> = available.iter().copied().collect();
    let mut search = Search { kept, available, here, count, good, tries: 0, seats: Vec::new() };
    search.fill().then_some(search.seats)
}

struct Search<'a, F> {
    kept: &'a [WorkerId],
    available: &'a [WorkerId],
    here: BTreeSet<WorkerId>,
    count: usize,
    good: F,
    tries: usize,
    seats: Vec<WorkerId>,
}

impl<F: Fn((WorkerId, WorkerId)) -> bool> Search<'_, F> {
    /// Fills the seats that are left; `false` leaves them as they were.
    fn fill(&mut self) -> bool {
        if self.seats.len() == self.count {
            return true;
        }
        for candidate in self.candidates() {
            self.tries += 1;
            if self.tries > TRIES_MAX {
                return false;
            }
            let fits = self.seats.last().is_none_or(|last| (self.good)((*last, candidate)));
            if fits {
                self.seats.push(candidate);
                if self.fill() {
                    return true;
                }
                self.seats.pop();
            }
        }
        false
    }

    /// Who may sit on the next seat, the best first: who sat there, those who sat nowhere, then the others.
    fn candidates(&self) -> Vec<WorkerId> {
        let seat = self.seats.len();
        let free = |id: &WorkerId| !self.seats.contains(id);
        let holder = self.kept.get(seat).filter(|id| self.here.contains(id) && free(id));
        // Who has a seat further on is not taken from it while there are others.
        let later: BTreeSet<&WorkerId> = self
            .kept
            .iter()
            .take(self.count)
            .skip(seat)
            .filter(|id| self.here.contains(id))
            .collect();
        let (waiting, seated): (Vec<WorkerId>, Vec<WorkerId>) =
            self.available.iter().filter(|id| free(id)).partition(|id| !later.contains(id));
        let others = waiting.into_iter().chain(seated).filter(|id| Some(id) != holder);
        holder.copied().into_iter().chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u128]) -> Vec<WorkerId> {
        numbers.iter().map(|number| WorkerId((*number).try_into().unwrap())).collect()
    }

    fn arranged(
        kept: &[u128],
        available: &[u128],
        count: usize,
        broken: &[(u128, u128)],
    ) -> Option<Vec<WorkerId>> {
        let bad = |(a, b): (WorkerId, WorkerId)| {
            broken.iter().any(|(from, to)| ids(&[*from, *to]) == [a, b])
        };
        arrange(&ids(kept), &ids(available), count, |pair| !bad(pair))
    }

    #[test]
    fn who_had_a_seat_keeps_it_and_others_come_in_order() {
        assert_eq!(arranged(&[], &[4, 2, 7], 2, &[]), Some(ids(&[4, 2])));
        assert_eq!(arranged(&[7, 4], &[4, 2, 7], 2, &[]), Some(ids(&[7, 4])));
        assert_eq!(arranged(&[7, 9, 4], &[4, 2, 7], 3, &[]), Some(ids(&[7, 2, 4])));
        assert_eq!(arranged(&[9, 7], &[4, 7], 2, &[]), Some(ids(&[4, 7])));
        assert_eq!(arranged(&[7, 9, 4], &[4, 7], 2, &[]), Some(ids(&[7, 4])), "with fewer seats");
        assert_eq!(arranged(&[], &[1], 2, &[]), None);
    }

    #[test]
    fn who_cannot_talk_does_not_sit_side_by_side() {
        assert_eq!(arranged(&[1, 2], &[1, 2, 3], 2, &[(1, 2)]), Some(ids(&[1, 3])));
        assert_eq!(arranged(&[1, 2], &[1, 2], 2, &[(1, 2)]), Some(ids(&[2, 1])), "nobody dials 2");
        assert_eq!(arranged(&[1, 2], &[1, 2], 2, &[(1, 2), (2, 1)]), None);
        let both = [(2, 3), (3, 2)];
        assert_eq!(arranged(&[1, 2, 3], &[1, 2, 3], 3, &both), Some(ids(&[2, 1, 3])));
    }

    #[test]
    fn a_search_that_would_be_long_ends() {
        let all: Vec<u128> = (0..200).collect();
        let found = arrange(&[], &ids(&all), 64, |(a, b)| a == b);
        assert_eq!(found, None);
        let found = arrange(&ids(&all[..64]), &ids(&all), 64, |_| true).unwrap();
        assert_eq!(found, ids(&all[..64]));
    }
}
