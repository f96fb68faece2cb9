//! DRY ("don't repeat yourself"), as llama.cpp has it: a token that would make a repetition longer becomes
//! less likely, the more the longer the repetition is.
//!
//! It is a function of the token log, prompt included, so that a sequence that is computed again finds the
//! same. It takes time and memory in proportion to the window: about a nanosecond per token of it.

use std::collections::{BTreeMap, HashMap};

/// No penalty is larger: enough to leave a token no chance, and far from the end of `f32`.
const PENALTY_MAX: f64 = 1e30;

/// What a request asks of DRY.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// The penalty of a repetition that is as long as it may be; above 0.
    pub multiplier: f32,
    /// By how much the penalty grows with each token more; at least 1.
    pub base: f32,
    /// Repetitions of fewer tokens are free.
    pub allowed_length: usize,
    /// Tokens at the end of the log that are looked at.
    pub last: usize,
    /// What ends a repetition.
    pub breakers: Breakers,
}

/// Sequences of tokens over which no repetition is followed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Breakers {
    /// One bit for each token that is or holds a breaker.
    whole: Vec<u64>,
    /// The tokens that follow one with which a breaker begins.
    tails: HashMap<u32, Vec<Vec<u32>>>,
}

impl Breakers {
    /// A token, and the tokens after it that complete the breaker: none if it holds all of it.
    pub fn add(&mut self, token: u32, tail: Vec<u32>) {
        if tail.is_empty() {
            let word = token as usize / 64;
            self.whole.resize(self.whole.len().max(word + 1), 0);
            self.whole[word] |= 1 << (token % 64);
            return;
        }
        let tails = self.tails.entry(token).or_default();
        if !tails.contains(&tail) {
            tails.push(tail);
        }
    }

    /// Whether the token alone is one.
    fn is_whole(&self, token: u32) -> bool {
        self.whole.get(token as usize / 64).is_some_and(|word| (word >> (token % 64)) & 1 == 1)
    }

    /// How many tokens of `rest` belong to the longest breaker that begins with `token` before them; `None`
    /// if none does.
    fn matched(&self, token: u32, rest: &[u32]) -> Option<usize> {
        let tails = self.tails.get(&token).into_iter().flatten();
        let longest = tails.filter(|tail| rest.starts_with(tail)).map(Vec::len).max();
        longest.or(self.is_whole(token).then_some(0))
    }
}

impl Dry {
    /// The tokens whose logits become less, and by how much: ascending ids.
    pub fn penalties(&self, log: &[u32]) -> Vec<(u32, f32)> {
        let window = &log[log.len().saturating_sub(self.last)..];
        if window.len() <= self.allowed_length {
            return Vec::new();
        }
        let limit = self.limit(window);
        if limit < self.allowed_length {
            return Vec::new();
        }
        let mut longest: BTreeMap<u32, usize> = BTreeMap::new();
        for (back, repeat) in repeats(window).into_iter().enumerate().skip(1) {
            let repeat = repeat.min(limit);
            if repeat >= self.allowed_length {
                // The token after the earlier occurrence would make it longer.
                let next = window[window.len() - back];
                let most = longest.entry(next).or_default();
                *most = repeat.max(*most);
            }
        }
        let free = |(token, repeat): (u32, usize)| {
            (!self.breakers.is_whole(token)).then_some((token, repeat))
        };
        let penalty = |(token, repeat)| (token, self.penalty(repeat - self.allowed_length));
        longest.into_iter().filter_map(free).map(penalty).collect()
    }

    /// Tokens at the end of the window before which a breaker ends.
    fn limit(&self, window: &[u32]) -> usize {
        for back in 0..window.len() {
            let at = window.len() - 1 - back;
            if let Some(tail) = self.breakers.matched(window[at], &window[at + 1..]) {
                return back - tail;
            }
        }
        window.len()
    }

    /// Multiplied step by step, so that it is the same number on every machine.
    fn penalty(&self, beyond: usize) -> f32 {
        let (mut power, mut factor, mut left) = (1.0_f64, f64::from(self.base), beyond);
        while left > 0 {
            if left % 2 == 1 {
                power = (power * factor).min(PENALTY_MAX);
            }
            factor = (factor * factor).min(PENALTY_MAX);
            left /= 2;
        }
        (f64::from(self.multiplier) * power).min(PENALTY_MAX) as f32
    }
}

/// For each distance from the end: how many tokens before it are those at the end of the window. The
/// Z-algorithm, from the end backwards (Gusfield 1997).
fn repeats(window: &[u32]) -> Vec<usize> {
    let len = window.len();
    let from_end = |index: usize| window[len - 1 - index];
    let mut repeats = vec![0; len];
    let (mut left, mut right) = (0, 0);
    for at in 1..len {
        let mut same = if at < right { repeats[at - left].min(right - at) } else { 0 };
        while at + same < len && from_end(same) == from_end(at + same) {
            same += 1;
        }
        if at + same > right {
            (left, right) = (at, at + same);
        }
        repeats[at] = same;
    }
    repeats
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dry(allowed_length: usize, breakers: &[&[u32]]) -> Dry {
        let mut found = Breakers::default();
        for breaker in breakers {
            found.add(breaker[0], breaker[1..].to_vec());
        }
        Dry { multiplier: 0.5, base: 2.0, allowed_length, last: usize::MAX, breakers: found }
    }

    #[test]
    fn a_token_that_goes_on_with_a_repetition_pays() {
        // a b c c b c y a b c, as in llama.cpp's example.
        let log = [1, 2, 3, 3, 2, 3, 25, 1, 2, 3];
        // c would continue "a b c", y "b c", b the one c.
        assert_eq!(dry(1, &[]).penalties(&log), [(2, 0.5), (3, 2.0), (25, 1.0)]);
        assert_eq!(dry(2, &[]).penalties(&log), [(3, 1.0), (25, 0.5)]);
        assert_eq!(dry(3, &[]).penalties(&log), [(3, 0.5)]);
        assert_eq!(dry(4, &[]).penalties(&log), []);
        assert_eq!(dry(10, &[]).penalties(&log), []);
    }

    #[test]
    fn a_breaker_ends_a_repetition() {
        let log = [1, 2, 3, 3, 2, 3, 25, 1, 2, 3];
        // Only "b c" is after the breaker, or only "c".
        assert_eq!(dry(2, &[&[1]]).penalties(&log), [(3, 0.5), (25, 0.5)]);
        assert_eq!(dry(1, &[&[1, 2]]).penalties(&log), [(2, 0.5), (3, 0.5), (25, 0.5)]);
        assert_eq!(dry(2, &[&[1, 2]]).penalties(&log), []);
        assert_eq!(dry(1, &[&[3]]).penalties(&log), []);
        // A token that is a breaker itself is free; one with which a breaker begins is not.
        assert_eq!(dry(1, &[&[25]]).penalties(&log), [(2, 0.5), (3, 2.0)]);
        assert_eq!(dry(1, &[&[25, 9]]).penalties(&log), [(2, 0.5), (3, 2.0), (25, 1.0)]);
    }

    #[test]
    fn the_window_ends_what_is_looked_at() {
        let log = [1, 2, 3, 9, 8, 1, 2];
        assert_eq!(dry(2, &[]).penalties(&log), [(3, 0.5)]);
        let short = Dry { last: 6, ..dry(2, &[]) };
        assert_eq!(short.penalties(&log), []);
        assert_eq!(Dry { last: 0, ..short }.penalties(&log), []);
    }

    #[test]
    fn penalties_stay_finite_however_long_the_repetition() {
        let log = vec![5; 20_000];
        let found = dry(1, &[]).penalties(&log);
        assert_eq!(found, [(5, (0.5 * PENALTY_MAX) as f32)]);
        let flat = Dry { base: 1.0, ..dry(1, &[]) };
        assert_eq!(flat.penalties(&log), [(5, 0.5)]);
    }

    proptest! {
        #[test]
        fn repetitions_are_those_that_a_plain_search_finds(
            log in prop::collection::vec(0_u32..3, 0..24),
            allowed_length in 0_usize..4,
            breaker in prop::option::of(prop::collection::vec(0_u32..3, 1..3)),
        ) {
            let breakers: Vec<&[u32]> = breaker.iter().map(Vec::as_slice).collect();
            let dry = dry(allowed_length, &breakers);
            let mut limit = log.len();
            if let Some(breaker) = &breaker {
                let ends = (0..log.len()).filter(|at| log[*at..].starts_with(breaker));
                limit = ends.max().map_or(limit, |at| log.len() - at - breaker.len());
            }
            let mut expected: BTreeMap<u32, usize> = BTreeMap::new();
            for at in 1..log.len() {
                let same = (1..=at).take_while(|n| log[at - n] == log[log.len() - n]).count().min(limit);
                if same >= allowed_length && limit >= allowed_length && log.len() > allowed_length {
                    let most = expected.entry(log[at]).or_default();
                    *most = same.max(*most);
                }
            }
            let whole = |token: &u32| breaker.as_ref().is_some_and(|breaker| *breaker == [*token]);
            expected.retain(|token, _| !whole(token));
            let found: Vec<u32> = dry.penalties(&log).iter().map(|(token, _)| *token).collect();
            prop_assert_eq!(found, expected.keys().copied().collect::<Vec<_>>());
            for (token, penalty) in dry.penalties(&log) {
                let beyond = i32::try_from(expected[&token] - allowed_length).unwrap();
                prop_assert_eq!(penalty, 0.5 * 2.0_f32.powi(beyond));
            }
        }
    }
}
