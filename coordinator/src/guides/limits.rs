//! Which tokens may come next by a request's own plain words: a least length, a list of tokens, words that
//! must not come.
//!
//! All of it is a function of the tokens that were generated so far, and of nothing else: whoever computes a
//! sequence again, after a preemption or on another pipeline, finds the same.

use std::sync::Arc;
use woolly_protocol::sampling::TokenMask;

/// What a request limits its tokens to. Without words of its own it allows all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Before so many tokens none of `ends` may come.
    pub min_tokens: u32,
    /// Tokens that end the completion.
    pub ends: Arc<[u32]>,
    /// Only these may come; `None` allows all.
    pub only: Option<Arc<TokenMask>>,
    /// Sequences of tokens that must not come; none is empty.
    pub bad_words: Arc<[Vec<u32>]>,
}

/// No token is left that may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NothingLeft;

impl Limits {
    /// Whether it allows all tokens at any time.
    pub fn is_none(&self) -> bool {
        self.min_tokens == 0 && self.only.is_none() && self.bad_words.is_empty()
    }

    /// The tokens that may come after those that were generated so far: of those that a grammar allows, `None`
    /// being all, those within the limits.
    ///
    /// # Errors
    ///
    /// There are none.
    pub fn of(
        &self,
        output: &[u32],
        grammar: Option<Arc<TokenMask>>,
    ) -> Result<Option<Arc<TokenMask>>, NothingLeft> {
        let banned = self.banned(output);
        let mask = match (grammar, &self.only) {
            (Some(grammar), Some(only)) => Some(Arc::new(both(&grammar, only))),
            (Some(mask), None) => Some(mask),
            (None, only) => only.clone(),
        };
        let mask = match mask {
            mask if banned.is_empty() => mask,
            None => Some(Arc::new(TokenMask::AllBut(banned))),
            Some(mask) => Some(Arc::new(both(&mask, &TokenMask::AllBut(banned)))),
        };
        if mask.as_ref().is_some_and(|mask| is_empty(mask)) { Err(NothingLeft) } else { Ok(mask) }
    }

    /// Tokens that may not come next, ascending.
    fn banned(&self, output: &[u32]) -> Vec<u32> {
        let words = self.bad_words.iter().filter_map(|word| next(word, output));
        let early = output.len() < self.min_tokens as usize;
        let ends = self.ends.iter().copied().filter(|_| early);
        let mut banned: Vec<u32> = words.chain(ends).collect();
        banned.sort_unstable();
        banned.dedup();
        banned
    }
}

/// A list of ids of a vocabulary of `vocab` tokens as a mask in its shortest form; the ids ascend.
pub fn only(ids: &[u32], vocab: u32) -> TokenMask {
    let words = (vocab as usize).div_ceil(64);
    // An id takes four bytes, a word of bits eight.
    if ids.len() <= 2 * words {
        return TokenMask::Only(ids.to_vec());
    }
    let mut bits = vec![0_u64; words];
    ids.iter().for_each(|id| bits[*id as usize / 64] |= 1 << (id % 64));
    TokenMask::Bits(bits)
}

/// What both allow.
fn both(a: &TokenMask, b: &TokenMask) -> TokenMask {
    use TokenMask::{AllBut, Bits, Only};
    match (a, b) {
        (Only(ids), other) | (other, Only(ids)) => {
            Only(ids.iter().copied().filter(|id| allows(other, *id)).collect())
        }
        (Bits(bits), AllBut(banned)) | (AllBut(banned), Bits(bits)) => {
            let mut bits = bits.clone();
            for id in banned {
                if let Some(word) = bits.get_mut(*id as usize / 64) {
                    *word &= !(1 << (id % 64));
                }
            }
            Bits(bits)
        }
        (Bits(a), Bits(b)) => Bits(a.iter().zip(b).map(|(a, b)| a & b).collect()),
        (AllBut(a), AllBut(b)) => {
            let mut banned = [&a[..], b].concat();
            banned.sort_unstable();
            banned.dedup();
            AllBut(banned)
        }
    }
}

fn allows(mask: &TokenMask, id: u32) -> bool {
    match mask {
        TokenMask::Only(ids) => ids.binary_search(&id).is_ok(),
        TokenMask::AllBut(ids) => ids.binary_search(&id).is_err(),
        TokenMask::Bits(bits) => {
            bits.get(id as usize / 64).is_some_and(|word| (word >> (id % 64)) & 1 == 1)
        }
    }
}

/// Whether it allows no token: one that leaves out some never does that.
fn is_empty(mask: &TokenMask) -> bool {
    match mask {
        TokenMask::Only(ids) => ids.is_empty(),
        TokenMask::Bits(bits) => bits.iter().all(|word| *word == 0),
        TokenMask::AllBut(_) => false,
    }
}

/// The last token of a word whose others stand at the end of the output.
fn next(word: &[u32], output: &[u32]) -> Option<u32> {
    let (last, beginning) = word.split_last()?;
    output.ends_with(beginning).then_some(*last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(words: &[&[u32]]) -> Arc<[Vec<u32>]> {
        words.iter().map(|word| word.to_vec()).collect()
    }

    fn after(limits: &Limits, output: &[u32]) -> Option<TokenMask> {
        limits.of(output, None).unwrap().map(|mask| (*mask).clone())
    }

    fn but(ids: &[u32]) -> Option<TokenMask> {
        Some(TokenMask::AllBut(ids.to_vec()))
    }

    #[test]
    fn without_words_everything_is_allowed() {
        assert!(Limits::default().is_none());
        assert_eq!(after(&Limits::default(), &[1, 2]), None);
        let grammar = Some(Arc::new(TokenMask::Only(vec![5])));
        assert_eq!(Limits::default().of(&[], grammar.clone()), Ok(grammar));
    }

    #[test]
    fn ends_may_not_come_before_so_many_tokens() {
        let limits = Limits { min_tokens: 2, ends: [9, 3].into(), ..Limits::default() };
        assert_eq!(after(&limits, &[]), but(&[3, 9]));
        assert_eq!(after(&limits, &[1]), but(&[3, 9]));
        assert_eq!(after(&limits, &[1, 1]), None);
    }

    #[test]
    fn a_word_may_not_be_completed() {
        let bad_words = words(&[&[5], &[1, 2, 3], &[2, 4], &[1, 2, 3, 6]]);
        let limits = Limits { bad_words, ..Limits::default() };
        assert_eq!(after(&limits, &[]), but(&[5]));
        assert_eq!(after(&limits, &[1]), but(&[5]));
        assert_eq!(after(&limits, &[1, 2]), but(&[3, 4, 5]));
        assert_eq!(after(&limits, &[2, 1]), but(&[5]));
    }

    #[test]
    fn of_a_list_only_what_nothing_else_forbids_is_allowed() {
        let list = |ids: &[u32]| Some(Arc::new(only(ids, 1000)));
        let limits = Limits {
            min_tokens: 1,
            ends: [7].into(),
            only: list(&[3, 4, 7]),
            bad_words: words(&[&[3, 3]]),
        };
        assert_eq!(after(&limits, &[]), Some(TokenMask::Only(vec![3, 4])));
        assert_eq!(after(&limits, &[3]), Some(TokenMask::Only(vec![4, 7])));
        let limits = Limits { only: list(&[3]), ..limits };
        assert_eq!(limits.of(&[3], None), Err(NothingLeft));
    }

    #[test]
    fn a_long_list_is_bits() {
        assert_eq!(only(&[3, 99], 100), TokenMask::Only(vec![3, 99]));
        let ids: Vec<u32> = (0..100).step_by(2).collect();
        let bits = vec![0x5555_5555_5555_5555, 0x5_5555_5555];
        assert_eq!(only(&ids, 100), TokenMask::Bits(bits));
    }

    fn mask() -> impl Strategy<Value = TokenMask> {
        let ids = || prop::collection::btree_set(0_u32..70, 0..9);
        prop_oneof![
            ids().prop_map(|ids| TokenMask::Only(ids.into_iter().collect())),
            ids().prop_map(|ids| TokenMask::AllBut(ids.into_iter().collect())),
            (any::<u64>(), 0_u64..64).prop_map(|(low, high)| TokenMask::Bits(vec![low, high])),
        ]
    }

    proptest! {
        #[test]
        fn two_masks_together_allow_what_both_allow(a in mask(), b in mask()) {
            let together = both(&a, &b);
            for id in 0..70 {
                prop_assert_eq!(allows(&together, id), allows(&a, id) && allows(&b, id));
            }
            let none = (0..70).all(|id| !allows(&together, id));
            prop_assert_eq!(is_empty(&together), none);
        }

        #[test]
        fn what_is_drawn_from_the_allowed_tokens_keeps_every_limit(
            bad in prop::collection::vec(prop::collection::vec(0_u32..5, 1..4), 0..4),
            min_tokens in 0_u32..6,
            draws in prop::collection::vec(0_usize..100, 12),
        ) {
            let ends: Arc<[u32]> = [0].into();
            let limits = Limits { min_tokens, ends, only: None, bad_words: bad.clone().into() };
            let mut output = Vec::new();
            for draw in draws {
                let mask = limits.of(&output, None).unwrap();
                let may = |id: &u32| mask.as_ref().is_none_or(|mask| allows(mask, *id));
                let left: Vec<u32> = (0..5).filter(may).collect();
                if left.is_empty() {
                    break;
                }
                output.push(left[draw % left.len()]);
                prop_assert!(bad.iter().all(|word| !output.ends_with(word)), "{output:?}");
            }
            let early = output.iter().take(min_tokens as usize);
            prop_assert!(early.copied().all(|token| token != 0), "{output:?}");
        }
    }
}
