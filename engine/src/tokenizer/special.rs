//! Special tokens: a text is split at them before anything else happens.

use aho_corasick::{AhoCorasick, MatchKind};

use super::error::TokenizerError;
use super::kinds::TokenKind;
use super::vocab::Vocab;

/// Finds special tokens in a text, leftmost first and the longest of those.
#[derive(Debug)]
pub(super) struct Specials {
    all: Set,
    user_defined: Set,
}

#[derive(Debug)]
struct Set {
    automaton: AhoCorasick,
    /// Token of each pattern, and whether white space after it belongs to it.
    tokens: Vec<(u32, bool)>,
}

/// A part of a text: a special token, or what stands between two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    Text(&'a str),
    Special(u32),
}

impl Specials {
    /// Builds the automata of `vocab`. `strip_after` says for which tokens the white space that
    /// follows them is swallowed.
    pub fn new(
        vocab: &Vocab,
        strip_after: &dyn Fn(u32) -> bool,
    ) -> Result<Specials, TokenizerError> {
        let all = Set::new(vocab, strip_after, |kind| {
            matches!(kind, TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined)
        })?;
        let user_defined =
            Set::new(vocab, strip_after, |kind| matches!(kind, TokenKind::UserDefined))?;
        Ok(Specials { all, user_defined })
    }

    /// Calls `visit` with the fragments of `text` in order; empty texts are left out.
    ///
    /// User-defined tokens are always found, control and unknown tokens only with `parse_special`.
    pub fn split<'a>(
        &self,
        text: &'a str,
        parse_special: bool,
        mut visit: impl FnMut(Fragment<'a>) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let set = if parse_special { &self.all } else { &self.user_defined };
        let mut start = 0;
        for found in set.automaton.find_iter(text) {
            let (token, strip) = set.tokens[found.pattern().as_usize()];
            if found.start() > start {
                visit(Fragment::Text(&text[start..found.start()]))?;
            }
            visit(Fragment::Special(token))?;
            start = start.max(found.end());
            if strip {
                let rest = &text[start..];
                start += rest.len() - rest.trim_start_matches(is_c_space).len();
            }
        }
        if start < text.len() {
            visit(Fragment::Text(&text[start..]))?;
        }
        Ok(())
    }
}

impl Set {
    fn new(
        vocab: &Vocab,
        strip_after: &dyn Fn(u32) -> bool,
        wanted: impl Fn(TokenKind) -> bool,
    ) -> Result<Set, TokenizerError> {
        let tokens: Vec<(u32, bool)> = vocab
            .ids()
            .filter(|&id| wanted(vocab.kind(id)) && !vocab.bytes(id).is_empty())
            .map(|id| (id, strip_after(id)))
            .collect();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|&(id, _)| vocab.bytes(id)))
            .map_err(|e| TokenizerError::Automaton {
                part: "search for special tokens",
                reason: e.to_string(),
            })?;
        Ok(Set { automaton, tokens })
    }
}

/// C's `isspace`, which llama.cpp uses here.
fn is_c_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}
