//! SentencePiece's BPE ("llama" vocabularies): the pair whose token scores highest first, then
//! bytes for what has no token.

use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::error::TokenizerError;
use super::kinds::TokenKind;
use super::limits::NONE;
use super::vocab::{Vocab, id_of, texts};
use crate::gguf::Metadata;

/// Tokens by their text, with what a pair is chosen by.
#[derive(Debug)]
pub(super) struct Spm {
    /// Text → (order of its score, token); only tokens that plain text may become.
    tokens: FxHashMap<Box<[u8]>, (u32, u32)>,
    /// Bytes of the longest text.
    longest: usize,
    byte_tokens: [Option<u32>; 256],
}

/// A run of characters of the text at work, in a list that is linked by positions.
#[derive(Debug, Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    start: u32,
    /// Bytes of the run; 0 once it is merged into its left neighbour.
    len: u32,
}

/// A merge that may happen: `order << 32 | (u32::MAX - left)`, so that the highest score and then
/// the leftmost is on top, and the length of both runs; if that has changed, it is out of date.
type Candidate = (u64, u32);

/// Buffers kept between the fragments of one text.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    escaped: String,
    links: Vec<Link>,
    queue: BinaryHeap<Candidate>,
}

impl Spm {
    /// Reads `tokenizer.ggml.scores`.
    pub fn load(metadata: &Metadata, vocab: &Vocab) -> Result<Spm, TokenizerError> {
        let texts = texts(metadata)?;
        let scores = scores(metadata, texts.len())?;
        let mut tokens = FxHashMap::with_capacity_and_hasher(texts.len(), Default::default());
        let mut byte_tokens = [None; 256];
        let mut longest = 0;
        for (id, text) in vocab.ids().zip(texts) {
            if vocab.kind(id) == TokenKind::Byte {
                byte_tokens[usize::from(vocab.bytes(id)[0])] = Some(id);
            } else if vocab.is_plain(id) && !text.is_empty() {
                let order = order_of(scores.get(id as usize).copied().unwrap_or(0.0));
                tokens.insert(text.as_bytes().into(), (order, id));
                longest = longest.max(text.len());
            }
        }
        Ok(Spm { tokens, longest, byte_tokens })
    }

    /// Appends the tokens of `text`, which has no special tokens in it; `prefix` puts a space
    /// before it.
    pub fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        prefix: bool,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let Scratch { escaped, links, queue } = scratch;
        escaped.clear();
        if prefix {
            escaped.push('\u{2581}');
        }
        escaped.extend(text.chars().map(|c| if c == ' ' { '\u{2581}' } else { c }));
        self.merge_all(escaped, links, queue);
        let mut at = if links.is_empty() { NONE } else { 0 };
        while at != NONE {
            let link = links[at as usize];
            let run = &escaped.as_bytes()[link.start as usize..(link.start + link.len) as usize];
            match self.tokens.get(run) {
                Some(&(_, token)) => out.push(token),
                None => self.encode_bytes(vocab, run, out)?,
            }
            at = link.next;
        }
        Ok(())
    }

    /// A character without a token: its bytes, or the unknown token if one of them has none.
    fn encode_bytes(
        &self,
        vocab: &Vocab,
        run: &[u8],
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        for &byte in run {
            let token = self.byte_tokens[usize::from(byte)].or(vocab.special.unknown);
            out.push(token.ok_or(TokenizerError::NoToken(byte))?);
        }
        Ok(())
    }

    /// O(n log n) in the number of characters: every merge removes one and adds at most two
    /// candidates, and no run is longer than the longest token.
    fn merge_all(&self, text: &str, links: &mut Vec<Link>, queue: &mut BinaryHeap<Candidate>) {
        links.clear();
        links.extend(text.char_indices().enumerate().map(|(i, (start, character))| Link {
            prev: if i == 0 { NONE } else { id_of(i - 1) },
            next: if start + character.len_utf8() == text.len() { NONE } else { id_of(i + 1) },
            start: id_of(start),
            len: id_of(character.len_utf8()),
        }));
        let mut candidates = std::mem::take(queue).into_vec();
        candidates.clear();
        candidates.extend((0..links.len()).filter_map(|i| self.candidate(text, links, id_of(i))));
        *queue = BinaryHeap::from(candidates);
        while let Some((key, len)) = queue.pop() {
            let at = u32::MAX - (key & u64::from(u32::MAX)) as u32;
            let link = links[at as usize];
            if link.len == 0 || link.next == NONE {
                continue;
            }
            let next = links[link.next as usize];
            if link.len + next.len != len {
                continue;
            }
            links[at as usize] = Link { next: next.next, len, ..link };
            links[link.next as usize].len = 0;
            if next.next != NONE {
                links[next.next as usize].prev = at;
            }
            if link.prev != NONE {
                queue.extend(self.candidate(text, links, link.prev));
            }
            queue.extend(self.candidate(text, links, at));
        }
    }

    /// The merge of the run at `at` with the one after it, if there is a token for both.
    fn candidate(&self, text: &str, links: &[Link], at: u32) -> Option<Candidate> {
        let left = links[at as usize];
        let len = left.len + links.get(left.next as usize)?.len;
        if len as usize > self.longest {
            return None;
        }
        let both = &text.as_bytes()[left.start as usize..(left.start + len) as usize];
        let &(order, _) = self.tokens.get(both)?;
        Some((u64::from(order) << 32 | u64::from(u32::MAX - at), len))
    }
}

/// The scores, or none if the file has none. Some files hold them as integers.
fn scores(metadata: &Metadata, tokens: usize) -> Result<Vec<f32>, TokenizerError> {
    const KEY: &str = "tokenizer.ggml.scores";
    let Some(scores) = metadata.opt_f32s(KEY)? else {
        return Err(TokenizerError::Missing(KEY));
    };
    if scores.len() != tokens {
        return Err(TokenizerError::Length { key: KEY, found: scores.len(), expected: tokens });
    }
    match scores.iter().enumerate().find(|(_, score)| !score.is_finite()) {
        Some((id, &found)) => Err(TokenizerError::Score { id, found }),
        None => Ok(scores.to_vec()),
    }
}

/// A number whose order is that of the scores; both zeros are equal.
fn order_of(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_keep_their_order() {
        let scores = [-1e9f32, -31_999.0, -2.0, -1.0, -1e-9, 0.0, 1e-9, 3.0];
        let orders: Vec<u32> = scores.iter().map(|&s| order_of(s)).collect();
        assert!(orders.is_sorted_by(|a, b| a < b));
        assert_eq!(order_of(-0.0), order_of(0.0));
    }
}
