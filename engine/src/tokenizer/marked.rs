//! Conversations whose message contents cannot become special tokens.
//!
//! A template writes control tokens as text, so the rendered text must be parsed for them; a message
//! that contains `<|im_end|>` would then end its own turn and could take another role. So before
//! rendering a *mark*, a private-use character that occurs nowhere in the input, is put inside every
//! special token's text that occurs in a value the user sent, after its first character. The
//! tokenizer finds no special token across a mark, and drops the marks before it encodes the text in
//! between. A value without such texts (nearly every one) is not changed at all, so that whatever a
//! template does with contents (trim them, ask for their beginning, split them) works as it always
//! does.
//!
//! A value that ends with the beginning of a special token is marked there as well: joined with the
//! next one it could complete it. Case is ignored. What remains is a template that deletes or
//! replaces characters *inside* contents and so composes a control token; no known template does.
//!
//! User-defined tokens count only if they look like part of a frame (`<|…|>`, `[INST]`, …): others,
//! such as `<think>` or Gemma's runs of spaces, are found in any plain text and so here too. Marks of
//! thinking are never broken, whatever kind they have: templates look for them in what the assistant
//! said before, to cut its old thoughts out, and nobody takes a role with them.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};

use super::kinds::TokenKind;
use super::{Tokenizer, TokenizerError};

/// The first mark tried: the beginning of Unicode's supplementary private use area A.
const FIRST_MARK: u32 = 0xF_0000;
/// Marks tried before giving up.
const MARKS_TRIED: u32 = 256;
/// User-defined tokens without `<|…|>` that are part of a frame.
const FRAME_TEXTS: [&str; 12] = [
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<extra_id_0>",
    "<extra_id_1>",
];

/// What stands around thoughts, where the vocabulary has it as a control token.
const THINKING_TEXTS: [&str; 14] = [
    "<think>",
    "</think>",
    "[THINK]",
    "[/THINK]",
    "<seed:think>",
    "</seed:think>",
    "<mm:think>",
    "</mm:think>",
    "<longcat_think>",
    "</longcat_think>",
    "<|START_THINKING|>",
    "<|END_THINKING|>",
    "◁think▷",
    "◁/think▷",
];

/// A rendered conversation, to be given to [`Tokenizer::encode_chat`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatPrompt {
    marked: String,
    mark: Option<char>,
}

impl ChatPrompt {
    pub(crate) fn new(marked: String, mark: Option<char>) -> ChatPrompt {
        ChatPrompt { marked, mark }
    }

    /// The rendered text as the template's author meant it.
    pub fn text(&self) -> Cow<'_, str> {
        without(&self.marked, self.mark)
    }

    pub(super) fn marked_text(&self) -> &str {
        &self.marked
    }

    pub(super) fn mark(&self) -> Option<char> {
        self.mark
    }
}

/// Finds special tokens in values that a user sent, and breaks them. Made once per model.
#[derive(Debug)]
pub struct Marker {
    automaton: AhoCorasick,
    /// The same texts in lower case, sorted, for the ends of values.
    texts: Vec<Vec<u8>>,
    longest: usize,
}

impl Marker {
    /// The marker of a model's vocabulary.
    ///
    /// # Errors
    /// The automaton cannot be built.
    pub fn new(tokenizer: &Tokenizer) -> Result<Marker, TokenizerError> {
        let vocab = &tokenizer.vocab;
        let mut texts: Vec<Vec<u8>> = vocab
            .ids()
            .filter(|&id| is_frame(vocab.kind(id), vocab.bytes(id)))
            .map(|id| vocab.bytes(id).to_ascii_lowercase())
            .filter(|text| !text.is_empty())
            .collect();
        texts.sort_unstable();
        texts.dedup();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .build(&texts)
            .map_err(|e| TokenizerError::Automaton {
                part: "search for special tokens in contents",
                reason: e.to_string(),
            })?;
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Marker { automaton, texts, longest })
    }

    /// A character that does not occur in any of `texts`; `None` if all that are tried do, which
    /// only an input made for it has.
    pub fn free_mark<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Option<char> {
        let mut used = vec![false; MARKS_TRIED as usize];
        for character in texts.flat_map(str::chars) {
            if let Some(slot) = u32::from(character)
                .checked_sub(FIRST_MARK)
                .and_then(|index| used.get_mut(index as usize))
            {
                *slot = true;
            }
        }
        let free = (0..MARKS_TRIED).zip(&used).find(|(_, used)| !**used)?.0;
        char::from_u32(FIRST_MARK + free)
    }

    /// Whether `text` has something to mark.
    pub fn needs_mark(&self, text: &str) -> bool {
        self.automaton.is_match(text) || self.open_end(text).is_some()
    }

    /// `text` with `mark` inside every special token's text. Removing the marks gives `text` back.
    pub fn mark<'t>(&self, text: &'t str, mark: char) -> Cow<'t, str> {
        if !self.needs_mark(text) {
            return Cow::Borrowed(text);
        }
        let mut places: Vec<usize> = self
            .automaton
            .find_overlapping_iter(text)
            .map(|found| after_first(text, found.start()))
            .chain(self.open_end(text))
            .collect();
        places.sort_unstable();
        places.dedup();
        let mut out = String::with_capacity(text.len() + places.len() * mark.len_utf8());
        let mut start = 0;
        for place in places {
            out.push_str(&text[start..place]);
            out.push(mark);
            start = place;
        }
        out.push_str(&text[start..]);
        Cow::Owned(out)
    }

    /// Where to mark a text whose end, white space apart, is the beginning of a special token.
    fn open_end(&self, text: &str) -> Option<usize> {
        let trimmed = text.trim_end();
        let bytes = trimmed.as_bytes().to_ascii_lowercase();
        let first = bytes.len().saturating_sub(self.longest);
        (first..bytes.len()).any(|at| self.begins_token(&bytes[at..])).then_some(trimmed.len())
    }

    fn begins_token(&self, end: &[u8]) -> bool {
        let at = self.texts.partition_point(|text| text.as_slice() < end);
        self.texts.get(at).is_some_and(|text| text.starts_with(end) && text.len() > end.len())
    }
}

/// `text` without any `mark`.
pub(super) fn without(text: &str, mark: Option<char>) -> Cow<'_, str> {
    match mark {
        Some(mark) if text.contains(mark) => Cow::Owned(text.replace(mark, "")),
        _ => Cow::Borrowed(text),
    }
}

fn is_frame(kind: TokenKind, text: &[u8]) -> bool {
    let is_thinking = std::str::from_utf8(text).is_ok_and(|text| THINKING_TEXTS.contains(&text));
    match kind {
        _ if is_thinking => false,
        TokenKind::Control | TokenKind::Unknown => true,
        TokenKind::UserDefined => std::str::from_utf8(text).is_ok_and(|text| {
            let bars = text.starts_with("<|") && text.ends_with("|>");
            let wide_bars = text.starts_with("<｜") && text.ends_with("｜>");
            bars || wide_bars || FRAME_TEXTS.contains(&text)
        }),
        _ => false,
    }
}

/// The place after the first character of what stands at `start`.
fn after_first(text: &str, start: usize) -> usize {
    start + text[start..].chars().next().map_or(0, char::len_utf8)
}
