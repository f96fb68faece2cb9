//! A model's vocabulary as grammars see it: what every token spells, and which tokens spell a text.
//!
//! Control tokens, and the marks of a model's calls and thinking, spell no text: a grammar can name them by
//! number only, so that no string of an answer holds one. What is built here takes some tenths of a second and a few megabytes for a large one.

use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use std::sync::Arc;
use woolly_engine::tokenizer::Tokenizer;

/// Bytes of all tokens of a vocabulary: the library's trie has a node for each byte at most, and 22 bits for
/// the number of nodes.
const BYTES_MAX: usize = (1 << 22) - 1;
/// Bytes of one token: the library counts them in 10 bits. A longer one is never allowed by a grammar.
const TOKEN_BYTES_MAX: usize = 1000;

/// A vocabulary with its trie.
pub(super) struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

impl Vocabulary {
    /// The vocabulary of a model in whose answers these tokens are marks. `None` if it is too large for the
    /// library.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, marks: &[u32]) -> Option<Vocabulary> {
        let size = tokenizer.vocab_size();
        let spelled = |token| spelling(&tokenizer, token, marks.contains(&token));
        let words: Vec<Vec<u8>> = (0..size).map(spelled).collect();
        if words.iter().map(Vec::len).sum::<usize>() > BYTES_MAX {
            return None;
        }
        let ends = tokenizer.end_tokens();
        let first_end = ends.first().copied().unwrap_or(llguidance::toktrie::INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(size, first_end), &words);
        if !ends.is_empty() {
            trie = trie.with_eos_tokens(ends);
        }
        Some(Vocabulary { tokenizer, trie })
    }
}

/// What a token spells in a grammar.
fn spelling(tokenizer: &Tokenizer, token: u32, is_mark: bool) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(token);
    if bytes.len() > TOKEN_BYTES_MAX {
        return Vec::new();
    }
    if !is_mark && !tokenizer.is_control(token) {
        return bytes.to_vec();
    }
    [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat()
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// The tokens that the model's own tokenizer gives for a text that goes on; for bytes that are no text,
    /// or that it has no tokens for, the longest tokens that fit.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            let tokens = self.tokenizer.encode_continuation(text);
            tokens.unwrap_or_else(|_| self.trie.greedy_tokenize(text.as_bytes()))
        })
    }
}
