//! What reads one block of calls: symbol by symbol, until it knows what it has before it.

use std::fmt::Debug;

/// What a part of an answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The answer's text.
    Text(String),
    /// What the model thinks before it answers.
    Reasoning(String),
    /// A call of the tool with this name begins.
    Call(String),
    /// JSON text: more of the arguments of the call that began last.
    Arguments(String),
}

/// What a token is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The answer's text.
    Text,
    /// What the model thinks.
    Reasoning,
    /// A call.
    Call,
    /// The frame around messages inside the answer.
    Frame,
    /// Text or a call: what follows tells.
    InDoubt,
}

/// The parts that one token adds, in order. Neighbours of one kind are one part.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub list: Vec<Part>,
    /// Calls whose arguments are complete, so far.
    pub complete: usize,
    /// Something was said of a call since this was last reset.
    pub said: bool,
}

impl Parts {
    /// More text.
    pub fn text(&mut self, more: &str) {
        match self.list.last_mut() {
            _ if more.is_empty() => {}
            Some(Part::Text(text)) => text.push_str(more),
            _ => self.list.push(Part::Text(more.to_owned())),
        }
    }

    /// More reasoning.
    pub fn reasoning(&mut self, more: &str) {
        match self.list.last_mut() {
            _ if more.is_empty() => {}
            Some(Part::Reasoning(text)) => text.push_str(more),
            _ => self.list.push(Part::Reasoning(more.to_owned())),
        }
    }

    /// A call begins.
    pub fn call(&mut self, name: &str) {
        self.said = true;
        self.list.push(Part::Call(name.to_owned()));
    }

    /// More of its arguments.
    pub fn arguments(&mut self, more: &str) {
        self.said = true;
        match self.list.last_mut() {
            _ if more.is_empty() => {}
            Some(Part::Arguments(text)) => text.push_str(more),
            _ => self.list.push(Part::Arguments(more.to_owned())),
        }
    }

    /// Its arguments are complete.
    pub fn complete(&mut self) {
        self.said = true;
        self.complete += 1;
    }
}

/// One symbol, the smallest unit that does not depend on where tokens begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Char(char),
    Mark(&'static str),
}

/// What a reader makes of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It belongs to the block, as far as can be seen.
    Goes,
    /// The block ends with it.
    Ends,
    /// The block ended before it.
    EndsBefore,
    /// What was read since the last word of a call is no call.
    Fails,
}

/// Reads one block of calls from the mark that opens it (or the first character, where there is no mark)
/// to its end.
pub(super) trait CallReader: Debug + Send + Sync {
    /// Takes the next symbol.
    fn take(&mut self, input: Input, parts: &mut Parts) -> Verdict;

    /// Whether what was read since the last word of a call may still be no call.
    fn is_in_doubt(&self) -> bool;
}

/// White space as JSON has it.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\n' | '\r' | '\t')
}
