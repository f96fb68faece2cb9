//! What may come next in a guided generation, for those who schedule: they know no grammar.

use std::sync::Arc;
use woolly_protocol::sampling::TokenMask;

/// What may come next: a function of the generation's tokens so far.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The generation goes on.
    Goes {
        /// Tokens that follow in any case. They need not be sampled.
        forced: Vec<u32>,
        /// Which tokens may follow then; `None` allows all.
        mask: Option<Arc<TokenMask>>,
    },
    /// These tokens follow and nothing after them: the answer is what the grammar wants.
    Ends {
        /// Tokens that follow in any case.
        forced: Vec<u32>,
    },
    /// The grammar cannot be followed any further; why, without the end of a sentence.
    Fails(String),
}
