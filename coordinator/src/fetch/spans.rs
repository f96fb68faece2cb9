//! Which bytes of a file are there: spans that neither touch nor overlap, in order.

use serde::{Deserialize, Serialize};

/// Bytes `start..end` of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first.
    pub start: u64,
    /// One behind the last.
    pub end: u64,
}

impl Span {
    /// Bytes.
    pub fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A set of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// Adds bytes, which may be there already.
    pub fn add(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let first = self.0.partition_point(|one| one.end < span.start);
        let last = self.0.partition_point(|one| one.start <= span.end);
        let mut whole = span;
        for one in &self.0[first..last] {
            whole = Span { start: whole.start.min(one.start), end: whole.end.max(one.end) };
        }
        self.0.splice(first..last, [whole]);
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|span| span.len()).sum()
    }

    /// The bytes of `0..size` that are in neither this set nor among `taken`.
    pub fn missing(&self, size: u64, taken: &[Span]) -> Vec<Span> {
        let mut there = self.clone();
        for span in taken {
            there.add(*span);
        }
        let ends = there.0.iter().map(|span| (span.start, span.end)).chain([(size, size)]);
        let mut from = 0;
        let mut missing = Vec::new();
        for (start, end) in ends {
            if start > from {
                missing.push(Span { start: from, end: start });
            }
            from = from.max(end);
        }
        missing
    }

    /// Whether it can be a set of bytes of a file of this size: in order, apart, within it.
    pub fn is_sound(&self, size: u64) -> bool {
        let apart = self.0.windows(2).all(|pair| pair[0].end < pair[1].start);
        apart && self.0.iter().all(|span| span.start < span.end && span.end <= size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_holds_what_was_added_and_misses_the_rest(
            added in proptest::collection::vec((0_u64..60, 0_u64..12), 0..20),
        ) {
            let mut spans = Spans::default();
            let mut bytes = [false; 72];
            for (start, len) in added {
                spans.add(Span { start, end: start + len });
                bytes[start as usize..(start + len) as usize].fill(true);
            }
            prop_assert!(spans.is_sound(72));
            prop_assert_eq!(spans.total(), bytes.iter().filter(|there| **there).count() as u64);
            let mut missing = [false; 72];
            for span in spans.missing(72, &[]) {
                missing[span.start as usize..span.end as usize].fill(true);
            }
            prop_assert!(bytes.iter().zip(missing).all(|(there, missing)| *there != missing));
        }
    }

    #[test]
    fn a_record_that_cannot_be_right_is_not_sound() {
        let spans = |pairs: &[(u64, u64)]| {
            Spans(pairs.iter().map(|(start, end)| Span { start: *start, end: *end }).collect())
        };
        assert!(spans(&[(0, 4), (6, 8)]).is_sound(8));
        for wrong in [&[(0, 4), (4, 8)][..], &[(6, 8), (0, 4)], &[(0, 9)], &[(3, 3)], &[(4, 2)]] {
            assert!(!spans(wrong).is_sound(8), "{wrong:?}");
        }
    }
}
