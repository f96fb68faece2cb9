//! What an answer is made of, in no API's words: one stream of deltas for each choice.
//!
//! Choices make them, the encoder of each API writes them down. A delta that an API has no words for is
//! left out there.

use crate::generation::{FinishReason, TokenEvent};

/// What comes next in one choice of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// The engine's first word on this choice; the others follow.
    Start,
    /// More of its text.
    Text {
        /// Whole characters, none of them part of a stop string.
        text: String,
        /// Tokens up to the end of the text, if log-probabilities were asked for.
        logprobs: Logprobs,
    },
    /// The choice is complete.
    End {
        /// Why.
        reason: FinishReason,
    },
}

/// Tokens of an answer with their log-probabilities, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logprobs {
    /// The first token of a prompt that is given back. Nothing stands before it, so nothing says how
    /// likely it is.
    pub first: Option<u32>,
    /// The tokens after it.
    pub tokens: Vec<TokenEvent>,
    /// Characters of the answer's text before each token, the first one included.
    pub offsets: Vec<usize>,
}

impl Logprobs {
    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Adds the tokens that follow.
    pub fn extend(&mut self, next: Logprobs) {
        self.first = self.first.or(next.first);
        self.tokens.extend(next.tokens);
        self.offsets.extend(next.offsets);
    }
}

/// What one event adds to a choice, in order: a start, a text and an end at most.
pub type Deltas = [Option<Delta>; 3];

/// One choice of an answer that is given whole: all its deltas in one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WholeChoice {
    /// Its text.
    pub text: String,
    /// Its tokens, if log-probabilities were asked for.
    pub logprobs: Logprobs,
    /// Why it ended; `None` before it has.
    pub reason: Option<FinishReason>,
}

impl WholeChoice {
    /// Adds what comes next.
    pub fn add(&mut self, delta: Delta) {
        match delta {
            Delta::Start => {}
            Delta::Text { text, logprobs } => {
                self.text.push_str(&text);
                self.logprobs.extend(logprobs);
            }
            Delta::End { reason } => self.reason = Some(reason),
        }
    }
}
