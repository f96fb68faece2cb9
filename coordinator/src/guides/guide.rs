//! One generation under a grammar: its tokens in, what may come next out.
//!
//! A guide is a function of the completion's tokens alone. It is asked once after each of them, in order, so
//! that its counted limits are met at the same token whatever else happens: a preempted generation, or one
//! whose pipeline was lost, goes on with the answer that was there.

use super::digits::Digits;
use super::error::shortened;
use super::mask;
use super::next::Next;
use llguidance::Matcher;
use llguidance::api::StopReason;
use llguidance::toktrie::SimpleVob;
use std::fmt;
use std::sync::Arc;

/// Tokens that are appended at a time without being sampled. The rest of a longer text is a mask of one token.
const FORCED_MAX: usize = 256;

/// What stands before the part of an answer that a grammar is for: the model's thinking, which is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thinking {
    /// The token that begins it; `None` if the model cannot begin it by itself.
    pub open: Option<u32>,
    /// The token that ends it.
    pub close: u32,
    /// The prompt has begun it.
    pub is_open: bool,
}

/// A generation's place in its grammar.
pub struct Guide {
    matcher: Matcher,
    vocab: usize,
    /// Before the grammar begins.
    thinking: Option<Thinking>,
    /// Of a grammar with JSON in it.
    digits: Option<Digits>,
}

impl Guide {
    pub(super) fn new(
        matcher: Matcher,
        vocab: usize,
        thinking: Option<Thinking>,
        digits: Option<Digits>,
    ) -> Guide {
        Guide { matcher, vocab, thinking, digits }
    }

    /// The same at this place, with nothing in common.
    pub(super) fn again(&self) -> Guide {
        Guide { matcher: self.matcher.deep_clone(), ..*self }
    }

    /// What may come first.
    pub(super) fn first(&mut self) -> Next {
        match self.thinking {
            None => self.grammar(),
            Some(thinking) if thinking.is_open => Next::Goes { forced: Vec::new(), mask: None },
            Some(thinking) => self.with_open(thinking),
        }
    }

    /// What may come after this token, the next of the completion.
    pub fn next(&mut self, token: u32) -> Next {
        if let Some(thinking) = self.thinking {
            if thinking.is_open && token == thinking.close {
                self.thinking = None;
                return self.grammar();
            }
            if thinking.is_open || Some(token) == thinking.open {
                self.thinking = Some(Thinking { is_open: true, ..thinking });
                return Next::Goes { forced: Vec::new(), mask: None };
            }
            self.thinking = None;
        }
        match self.consume(&[token]) {
            Ok(()) => self.grammar(),
            Err(error) => fails(&error),
        }
    }

    /// The grammar's beginning, or that the model begins to think.
    fn with_open(&mut self, thinking: Thinking) -> Next {
        let set = self.matcher.compute_mask_or_eos();
        match (set, thinking.open) {
            (Ok(mut set), Some(open)) => {
                set.allow_token(open);
                let mask = mask::of_set(&set, self.vocab).map(Arc::new);
                Next::Goes { forced: Vec::new(), mask }
            }
            (Ok(_), None) => {
                self.thinking = None;
                self.grammar()
            }
            (Err(error), _) => fails(&error),
        }
    }

    fn grammar(&mut self) -> Next {
        let mut forced = Vec::new();
        while forced.len() < FORCED_MAX {
            let mut more = self.matcher.compute_ff_tokens();
            more.truncate(FORCED_MAX - forced.len());
            if more.is_empty() {
                break;
            }
            if let Err(error) = self.consume(&more) {
                return fails(&error);
            }
            forced.extend(more);
        }
        match self.matcher.stop_reason() {
            StopReason::NotStopped => match self.mask() {
                Ok(set) => match mask::of_set(&set, self.vocab) {
                    Some(mask) => Next::Goes { forced, mask: Some(Arc::new(mask)) },
                    None => fails(&"no token of the model's vocabulary can follow"),
                },
                Err(error) => fails(&error),
            },
            StopReason::NoExtension | StopReason::EndOfSentence => Next::Ends { forced },
            _ => fails(&self.matcher.get_error().unwrap_or_default()),
        }
    }

    fn consume(&mut self, tokens: &[u32]) -> anyhow::Result<()> {
        self.matcher.consume_tokens(tokens)?;
        if let Some(digits) = &mut self.digits {
            let vocabulary = self.matcher.tok_env()?;
            tokens.iter().for_each(|token| digits.take(vocabulary.tok_trie().token(*token)));
        }
        Ok(())
    }

    fn mask(&mut self) -> anyhow::Result<SimpleVob> {
        let mut set = self.matcher.compute_mask()?;
        if let Some(digits) = &self.digits {
            digits.limit(&mut set, self.matcher.tok_env()?.tok_trie());
        }
        Ok(set)
    }
}

fn fails(error: &dyn fmt::Display) -> Next {
    Next::Fails(shortened(&error.to_string()))
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guide").field("thinking", &self.thinking).finish_non_exhaustive()
    }
}
