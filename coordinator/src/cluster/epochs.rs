//! The numbers of plans: unique over lanes and over starts of the coordinator, in no order that means
//! anything.
//!
//! The shell reserves ranges of them ahead and says so here; a number is given out once.

use std::collections::VecDeque;
use std::ops::Range;
use woolly_protocol::ids::PlanEpoch;

/// More are asked for when fewer than this are left.
pub const EPOCHS_LOW: usize = 256;

/// Numbers that no plan has had.
#[derive(Debug)]
pub(super) struct Epochs {
    reserved: VecDeque<Range<u32>>,
    asked: bool,
}

impl Epochs {
    pub(super) fn new(range: Range<u32>) -> Self {
        Self { reserved: VecDeque::from([range]), asked: false }
    }

    /// More numbers.
    pub(super) fn add(&mut self, range: Range<u32>) {
        self.reserved.push_back(range);
        self.asked = false;
    }

    /// The next number; `None` until more are reserved. 0 is "no plan" and never given out.
    pub(super) fn take(&mut self) -> Option<PlanEpoch> {
        loop {
            let range = self.reserved.front_mut()?;
            match range.next() {
                Some(0) => {}
                Some(epoch) => return Some(PlanEpoch(epoch)),
                None => {
                    self.reserved.pop_front();
                }
            }
        }
    }

    /// The number that was given out last, of a range that begins with 1.
    #[cfg(test)]
    pub(super) fn latest(&self) -> PlanEpoch {
        PlanEpoch(self.reserved.front().map_or(0, |range| range.start - 1))
    }

    /// Whether more are to be reserved; says so once.
    pub(super) fn ask_for_more(&mut self) -> bool {
        let left: usize = self.reserved.iter().map(ExactSizeIterator::len).sum();
        let low = left < EPOCHS_LOW && !self.asked;
        self.asked |= low;
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_out_once_and_more_are_asked_for_in_time() {
        let mut epochs = Epochs::new(0..EPOCHS_LOW as u32 + 1);
        assert_eq!(epochs.take(), Some(PlanEpoch(1)), "0 is no plan");
        assert!(epochs.ask_for_more() && !epochs.ask_for_more());
        epochs.add(7000..7001);
        let rest: Vec<_> = std::iter::from_fn(|| epochs.take()).map(|epoch| epoch.0).collect();
        assert_eq!((rest[0], rest.last()), (2, Some(&7000)));
        assert_eq!(epochs.take(), None);
        assert!(epochs.ask_for_more());
    }
}
