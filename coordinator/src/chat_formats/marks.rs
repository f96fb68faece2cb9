//! Marks in an answer: which tokens, or which pieces of its text, are structure.
//!
//! A mark that the vocabulary has as one special token is that token and nothing else: the same letters
//! spelled by other tokens are text. A mark that it does not have is found in the text, wherever tokens
//! begin and end. What follows sees a row of symbols that does not depend on how the text was cut into
//! tokens.
//!
//! Limits: text is held back as far as a mark could begin in it, so never more than the longest mark.

use std::sync::Arc;
use woolly_engine::tokenizer::{Detokenizer, Tokenizer};

/// What an answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol<'a> {
    /// Whole characters, at least one.
    Text(&'a str),
    /// A mark, by its letters.
    Mark(&'static str),
}

/// The marks of a format in the tokens of a vocabulary.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    tokens: Arc<[(u32, &'static str)]>,
    /// Those that the vocabulary does not have. None begins with another.
    texts: Arc<[&'static str]>,
}

impl Marks {
    /// These marks in this vocabulary; none of them is empty or begins with another.
    pub fn new(marks: impl IntoIterator<Item = &'static str>, tokenizer: &Tokenizer) -> Marks {
        let (mut tokens, mut texts) = (Vec::new(), Vec::new());
        for mark in marks {
            match tokenizer.special_token(mark) {
                _ if texts.contains(&mark) => {}
                Some(token) => tokens.push((token, mark)),
                None => texts.push(mark),
            }
        }
        Marks { tokens: tokens.into(), texts: texts.into() }
    }

    /// Only those of these marks that `wanted` says.
    pub fn only(&self, wanted: impl Fn(&'static str) -> bool) -> Marks {
        Marks {
            tokens: self.tokens.iter().filter(|(_, mark)| wanted(mark)).copied().collect(),
            texts: self.texts.iter().filter(|mark| wanted(mark)).copied().collect(),
        }
    }

    /// The token of a mark, if it is one.
    pub fn token(&self, mark: &str) -> Option<u32> {
        self.tokens.iter().find(|(_, text)| *text == mark).map(|(token, _)| *token)
    }

    /// All marks that are tokens.
    pub fn tokens(&self) -> Vec<u32> {
        self.tokens.iter().map(|(token, _)| *token).collect()
    }

    fn of_token(&self, token: u32) -> Option<&'static str> {
        self.tokens.iter().find(|(id, _)| *id == token).map(|(_, mark)| *mark)
    }

    /// Where in `text` the first mark begins or could begin, and the mark if all of it is there.
    fn first_in(&self, text: &str) -> Option<(usize, Option<&'static str>)> {
        let may_begin = |c: char| self.texts.iter().any(|mark| mark.starts_with(c));
        text.char_indices().filter(|(_, c)| may_begin(*c)).find_map(|(at, _)| {
            let rest = &text[at..];
            let whole = self.texts.iter().find(|mark| rest.starts_with(**mark));
            let part = || self.texts.iter().any(|mark| mark.starts_with(rest));
            (whole.is_some() || part()).then_some((at, whole.copied()))
        })
    }
}

/// Finds the marks in the tokens of one answer.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    marks: Marks,
    /// The end of the text so far, in which a mark could begin.
    held: String,
}

impl Scanner {
    /// Before the first token.
    pub fn new(marks: Marks) -> Scanner {
        Scanner { marks, held: String::new() }
    }

    /// Whether text is held back.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The symbols that the next token makes whole.
    pub fn push(
        &mut self,
        detokenizer: &mut Detokenizer,
        tokenizer: &Tokenizer,
        token: u32,
        visit: &mut dyn FnMut(Symbol<'_>),
    ) {
        match self.marks.of_token(token) {
            Some(mark) => {
                self.finish(detokenizer, visit);
                visit(Symbol::Mark(mark));
            }
            None => self.text(&detokenizer.push(tokenizer, token), visit),
        }
    }

    /// The end of a run of text: what is held back is no mark.
    pub fn finish(&mut self, detokenizer: &mut Detokenizer, visit: &mut dyn FnMut(Symbol<'_>)) {
        self.text(&detokenizer.finish(), visit);
        if !self.held.is_empty() {
            visit(Symbol::Text(&std::mem::take(&mut self.held)));
        }
    }

    /// The symbols that a piece of text makes whole.
    pub fn text(&mut self, piece: &str, visit: &mut dyn FnMut(Symbol<'_>)) {
        if piece.is_empty() {
            return;
        }
        if self.marks.texts.is_empty() {
            return visit(Symbol::Text(piece));
        }
        self.held.push_str(piece);
        let text = std::mem::take(&mut self.held);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (at, mark) = self.marks.first_in(rest).unwrap_or((rest.len(), None));
            if at > 0 {
                visit(Symbol::Text(&rest[..at]));
            }
            rest = &rest[at..];
            let Some(mark) = mark else { break };
            visit(Symbol::Mark(mark));
            rest = &rest[mark.len()..];
        }
        rest.clone_into(&mut self.held);
    }
}
