//! Byte-level BPE: the merge of lowest rank first, by a priority queue.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::bytes::char_of;
use super::error::TokenizerError;
use super::limits::{MERGES_MAX, NONE};
use super::pretokenize::Pretokenizer;
use super::vocab::{Vocab, id_of, texts, unique};
use crate::gguf::Metadata;

/// Merges between symbols. A symbol below the vocabulary's length is that token; those above are
/// texts that only merges know.
#[derive(Debug)]
pub(super) struct Bpe {
    pretokenizer: Pretokenizer,
    /// `left << 32 | right` → (rank, symbol of both together).
    merges: FxHashMap<u64, (u32, u32)>,
    /// Symbol of each byte.
    byte_symbols: [u32; 256],
    /// Tokens by what they spell, for families that ignore merges.
    whole: FxHashMap<Box<[u8]>, u32>,
}

/// A symbol of the piece at work, in a list that is linked by positions.
#[derive(Debug, Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    symbol: u32,
    /// Bytes it stands for; 0 once it is merged into its left neighbour.
    len: u32,
}

/// A merge that may happen: rank and left position (lowest first), and the two symbols it was
/// found for; if they have changed since, it is out of date.
type Candidate = Reverse<(u32, u32, u32, u32)>;

/// Buffers kept between the pieces of one text.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    links: Vec<Link>,
    queue: BinaryHeap<Candidate>,
}

impl Bpe {
    /// Reads `tokenizer.ggml.merges`. Linear in their number.
    pub fn load(
        metadata: &Metadata,
        vocab: &Vocab,
        pretokenizer: Pretokenizer,
    ) -> Result<Bpe, TokenizerError> {
        const KEY: &str = "tokenizer.ggml.merges";
        let lines = metadata.opt_strings(KEY)?.ok_or(TokenizerError::Missing(KEY))?;
        if lines.len() > MERGES_MAX {
            return Err(TokenizerError::TooManyMerges { found: lines.len(), max: MERGES_MAX });
        }
        let mut symbols = Symbols { ids: unique(texts(metadata)?)?, more: FxHashMap::default() };
        symbols.more.reserve(256);
        let first_more = vocab.len();
        let mut byte_symbols = [0; 256];
        for (byte, symbol) in (0..=255).zip(&mut byte_symbols) {
            *symbol = symbols.id(char_of(byte).encode_utf8(&mut [0; 4]), first_more);
        }
        let mut merges = FxHashMap::with_capacity_and_hasher(lines.len(), Default::default());
        let mut both = String::new();
        for (index, line) in lines.iter().enumerate() {
            let (left, right) =
                parts(line).ok_or_else(|| TokenizerError::Merge { index, text: line.clone() })?;
            both.clear();
            both.push_str(left);
            both.push_str(right);
            let key = pair(symbols.id(left, first_more), symbols.id(right, first_more));
            let product = symbols.id(&both, first_more);
            // The first of two equal merges counts, as it has the lower rank.
            merges.entry(key).or_insert((id_of(index), product));
        }
        let whole = if pretokenizer.ignore_merges { whole_tokens(vocab) } else { <_>::default() };
        Ok(Bpe { pretokenizer, merges, byte_symbols, whole })
    }

    /// Appends the tokens of `text`, which has no special tokens in it.
    pub fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        self.pretokenizer.split(text, &mut |piece| match self.whole.get(piece.as_bytes()) {
            Some(&token) => {
                out.push(token);
                Ok(())
            }
            None => self.encode_piece(vocab, piece.as_bytes(), scratch, out),
        })
    }

    fn encode_piece(
        &self,
        vocab: &Vocab,
        piece: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        self.merge_all(piece, scratch);
        let mut start = 0;
        let mut at = 0;
        while at != NONE {
            let link = scratch.links[at as usize];
            let end = start + link.len as usize;
            if link.symbol < vocab.len() && vocab.is_plain(link.symbol) {
                out.push(link.symbol);
            } else {
                for &byte in &piece[start..end] {
                    out.push(self.byte_token(vocab, byte)?);
                }
            }
            start = end;
            at = link.next;
        }
        Ok(())
    }

    fn byte_token(&self, vocab: &Vocab, byte: u8) -> Result<u32, TokenizerError> {
        let symbol = self.byte_symbols[usize::from(byte)];
        let known = symbol < vocab.len() && vocab.is_plain(symbol);
        if known { Ok(symbol) } else { Err(TokenizerError::NoToken(byte)) }
    }

    /// Leaves in `scratch.links` the symbols of `piece`, which is not empty, with nothing left to
    /// merge. O(n log n): every merge removes a symbol and adds at most two candidates.
    fn merge_all(&self, piece: &[u8], scratch: &mut Scratch) {
        let Scratch { links, queue } = scratch;
        links.clear();
        links.extend(piece.iter().enumerate().map(|(i, &byte)| Link {
            prev: if i == 0 { NONE } else { id_of(i - 1) },
            next: if i + 1 == piece.len() { NONE } else { id_of(i + 1) },
            symbol: self.byte_symbols[usize::from(byte)],
            len: 1,
        }));
        let mut candidates = std::mem::take(queue).into_vec();
        candidates.clear();
        candidates.extend((0..links.len()).filter_map(|i| self.candidate(links, id_of(i))));
        *queue = BinaryHeap::from(candidates);
        while let Some(Reverse((_, at, left, right))) = queue.pop() {
            let link = links[at as usize];
            if link.len == 0 || link.symbol != left || link.next == NONE {
                continue;
            }
            let next = links[link.next as usize];
            if next.symbol != right {
                continue;
            }
            let (_, product) = self.merges[&pair(left, right)];
            links[at as usize] = Link {
                prev: link.prev,
                next: next.next,
                symbol: product,
                len: link.len + next.len,
            };
            links[link.next as usize].len = 0;
            if next.next != NONE {
                links[next.next as usize].prev = at;
            }
            if link.prev != NONE {
                queue.extend(self.candidate(links, link.prev));
            }
            queue.extend(self.candidate(links, at));
        }
    }

    /// The merge of the symbol at `at` with the one after it, if there is one.
    fn candidate(&self, links: &[Link], at: u32) -> Option<Candidate> {
        let left = links[at as usize];
        let right = links.get(left.next as usize)?.symbol;
        let &(rank, _) = self.merges.get(&pair(left.symbol, right))?;
        Some(Reverse((rank, at, left.symbol, right)))
    }
}

/// Symbols by their text while the merges are read.
struct Symbols<'a> {
    ids: FxHashMap<&'a str, u32>,
    more: FxHashMap<Box<str>, u32>,
}

impl Symbols<'_> {
    fn id(&mut self, text: &str, first_more: u32) -> u32 {
        if let Some(&id) = self.ids.get(text).or_else(|| self.more.get(text)) {
            return id;
        }
        let id = first_more + id_of(self.more.len());
        self.more.insert(text.into(), id);
        id
    }
}

/// The two parts of a merge. A part may itself begin with a space, so the space looked for is not
/// the first character.
fn parts(line: &str) -> Option<(&str, &str)> {
    let first = line.chars().next()?.len_utf8();
    let space = first + line[first..].find(' ')?;
    let (left, right) = (&line[..space], &line[space + 1..]);
    (!right.is_empty()).then_some((left, right))
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn whole_tokens(vocab: &Vocab) -> FxHashMap<Box<[u8]>, u32> {
    let plain = vocab.ids().filter(|&id| vocab.is_plain(id) && !vocab.bytes(id).is_empty());
    plain.map(|id| (vocab.bytes(id).into(), id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_split_at_the_first_space_that_is_not_the_first_character() {
        assert_eq!(parts("a b"), Some(("a", "b")));
        assert_eq!(parts("  b"), Some((" ", "b")));
        assert_eq!(parts("é b c"), Some(("é", "b c")));
        assert_eq!(parts("ab"), None);
        assert_eq!(parts("ab "), None);
        assert_eq!(parts(""), None);
        assert_eq!(parts(" "), None);
    }
}
