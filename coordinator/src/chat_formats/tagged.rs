//! Answers in which thinking and calls stand between marks, and everything else is text.
//!
//! Thinking is at the beginning, or after a call; a mark of it elsewhere is text. What only began like a call is
//! given back as text, white space and all. White space between thinking, calls and text belongs to none.

use super::form::Form;
use super::marks::Symbol;
use super::reader::{CallReader, Input, Parts, Place, Verdict, is_space};
use super::thinking::{Reasoning, Thinking};
use super::tools::Tools;
use std::sync::Arc;

/// Bytes that may be a call and are held back until it is known.
const DOUBT_BYTES_MAX: usize = 64 << 10;
/// Bytes of white space that are held back, in case a call follows.
const SPACE_BYTES_MAX: usize = 256;

/// The calls that a request allows, as its family writes them.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub form: &'static Form,
    pub tools: Arc<Tools>,
}

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Tagged {
    thinking: Option<Thinking>,
    reasoning: Reasoning,
    calls: Option<Calls>,
    state: State,
    /// Nothing but white space since the beginning, the thinking or a call.
    fresh: bool,
    /// After thinking or a call: the white space here belongs to nothing.
    drops_space: bool,
    /// The thinking is over.
    thought: bool,
    /// A call was told.
    called: bool,
    /// White space of which it is not known what it belongs to.
    space: String,
    /// What the reader has read since the last word of a call.
    raw: String,
}

#[derive(Debug)]
enum State {
    Text,
    Thinking,
    Call(Box<dyn CallReader>),
}

impl Tagged {
    /// Before the first symbol; the prompt may have begun the thinking.
    pub fn new(
        thinking: Option<Thinking>,
        reasoning: Reasoning,
        calls: Option<Calls>,
        thinks_at_start: bool,
    ) -> Tagged {
        Tagged {
            state: if thinks_at_start { State::Thinking } else { State::Text },
            thinking,
            reasoning,
            calls,
            fresh: true,
            drops_space: false,
            thought: false,
            called: false,
            space: String::new(),
            raw: String::new(),
        }
    }

    /// Takes the next symbol.
    pub fn push(&mut self, symbol: Symbol<'_>, parts: &mut Parts) {
        match (&self.state, symbol) {
            (State::Text, Symbol::Text(text)) => self.text(text, parts),
            (State::Text, Symbol::Mark(mark)) => self.mark(mark, parts),
            (State::Thinking, Symbol::Text(text)) => self.thought(text, parts),
            (State::Thinking, Symbol::Mark(mark)) => self.mark_in_thinking(mark, parts),
            (State::Call(_), Symbol::Text(text)) => {
                for (at, c) in text.char_indices() {
                    let end = at + c.len_utf8();
                    if !self.call(Input::Char(c), &text[at..end], parts) {
                        return self.push(Symbol::Text(&text[at..]), parts);
                    }
                    if !matches!(self.state, State::Call(_)) && end < text.len() {
                        return self.push(Symbol::Text(&text[end..]), parts);
                    }
                }
            }
            (State::Call(_), Symbol::Mark(mark)) => {
                if !self.call(Input::Mark(mark), mark, parts) {
                    self.mark(mark, parts);
                }
            }
        }
    }

    /// The end of the answer.
    pub fn finish(&mut self, parts: &mut Parts) {
        match &self.state {
            State::Call(reader) if reader.is_in_doubt() => {
                let raw = std::mem::take(&mut self.raw);
                self.plain(&raw, parts);
                parts.text(&std::mem::take(&mut self.space));
            }
            State::Text if !(self.fresh && self.drops_space) => {
                parts.text(&std::mem::take(&mut self.space));
            }
            _ => {}
        }
    }

    /// What the next token is part of, as far as it is known.
    pub fn place(&self) -> Place {
        match &self.state {
            State::Thinking if self.reasoning == Reasoning::InText => Place::Text,
            State::Thinking => Place::Reasoning,
            State::Call(reader) if reader.is_in_doubt() => Place::InDoubt,
            State::Call(_) => Place::Call,
            State::Text if self.fresh && self.drops_space => Place::Frame,
            State::Text if !self.space.is_empty() => Place::InDoubt,
            State::Text => Place::Text,
        }
    }

    /// Whether the model thinks.
    pub fn thinks(&self) -> bool {
        matches!(self.state, State::Thinking)
    }

    fn text(&mut self, text: &str, parts: &mut Parts) {
        let mut text = text;
        if self.fresh {
            let between =
                self.calls.as_ref().filter(|_| self.called).map_or("", |c| c.form.between);
            let rest = text.trim_start_matches(|c| is_space(c) || between.contains(c));
            self.space.push_str(&text[..text.len() - rest.len()]);
            if rest.is_empty() {
                return;
            }
            if rest.starts_with('{') && self.opens_bare() {
                return self.push(Symbol::Text(rest), parts);
            }
            text = rest;
        }
        self.plain(text, parts);
    }

    /// Text that is nothing else, with the white space before it if that belongs to it.
    fn plain(&mut self, text: &str, parts: &mut Parts) {
        if std::mem::take(&mut self.fresh) && self.drops_space {
            self.space.clear();
        }
        let held = if self.calls.is_some() { text.trim_end_matches(is_space) } else { text };
        if !held.is_empty() {
            parts.text(&std::mem::take(&mut self.space));
            parts.text(held);
        }
        self.space.push_str(&text[held.len()..]);
        if self.space.len() > SPACE_BYTES_MAX {
            parts.text(&std::mem::take(&mut self.space));
        }
    }

    fn mark(&mut self, mark: &'static str, parts: &mut Parts) {
        let thinking = self.thinking.filter(|_| self.fresh);
        if thinking.is_some_and(|thinking| thinking.open == mark) {
            self.state = State::Thinking;
            if self.reasoning == Reasoning::InText {
                parts.text(&std::mem::take(&mut self.space));
                parts.text(mark);
            }
            self.space.clear();
            return;
        }
        if self.is_frame_of_response(mark) {
            // White space at its ends is the frame's.
            self.space.clear();
            (self.fresh, self.drops_space) = (true, true);
            return;
        }
        let Some(calls) = &self.calls else { return self.plain(mark, parts) };
        if calls.form.open.contains(&mark) {
            self.state = State::Call((calls.form.reader)(&calls.tools));
            // A reader takes the mark that opens its block.
            self.call(Input::Mark(mark), mark, parts);
        } else if !(self.called && self.fresh && calls.form.after.contains(&mark)) {
            self.plain(mark, parts);
        }
    }

    /// Granite's tags around the answer after thinking.
    fn is_frame_of_response(&self, mark: &str) -> bool {
        let response = self.thinking.and_then(|thinking| thinking.response);
        let is_split = self.thought && self.reasoning != Reasoning::InText;
        response.is_some_and(|(open, close)| {
            is_split && (mark == close || (mark == open && self.fresh))
        })
    }

    /// Whether a block of calls may begin without a mark here: then a reader waits for it.
    fn opens_bare(&mut self) -> bool {
        let Some(calls) = self.calls.as_ref().filter(|calls| calls.form.bare) else { return false };
        self.state = State::Call((calls.form.reader)(&calls.tools));
        true
    }

    /// Gives the reader a symbol: whether it has taken it.
    fn call(&mut self, input: Input, letters: &str, parts: &mut Parts) -> bool {
        let State::Call(reader) = &mut self.state else { return false };
        parts.said = false;
        let verdict = reader.take(input, parts);
        if parts.said {
            self.raw.clear();
            self.called = true;
            // White space before a call belongs to nothing.
            self.space.clear();
        }
        match verdict {
            Verdict::Goes => {
                if !parts.said {
                    self.raw.push_str(letters);
                }
                let is_long = self.raw.len() > DOUBT_BYTES_MAX;
                if is_long && matches!(&self.state, State::Call(reader) if reader.is_in_doubt()) {
                    self.fails(parts);
                }
                true
            }
            Verdict::Ends | Verdict::EndsBefore => {
                self.raw.clear();
                self.state = State::Text;
                (self.fresh, self.drops_space) = (true, true);
                verdict == Verdict::Ends
            }
            Verdict::Fails => {
                self.fails(parts);
                false
            }
        }
    }

    /// What was read is text after all.
    fn fails(&mut self, parts: &mut Parts) {
        self.state = State::Text;
        let raw = std::mem::take(&mut self.raw);
        self.plain(&raw, parts);
    }

    fn thought(&mut self, text: &str, parts: &mut Parts) {
        match self.reasoning {
            Reasoning::InText => return parts.text(text),
            Reasoning::Hidden => return,
            Reasoning::Split => {}
        }
        let rest = if self.fresh { text.trim_start_matches(is_space) } else { text };
        let held = rest.trim_end_matches(is_space);
        if !held.is_empty() {
            self.fresh = false;
            parts.reasoning(&std::mem::take(&mut self.space));
            parts.reasoning(held);
        }
        if !self.fresh {
            self.space.push_str(&rest[held.len()..]);
        }
    }

    fn mark_in_thinking(&mut self, mark: &'static str, parts: &mut Parts) {
        if self.thinking.is_none_or(|thinking| thinking.close != mark) {
            return self.thought(mark, parts);
        }
        if self.reasoning == Reasoning::InText {
            parts.text(mark);
        }
        self.state = State::Text;
        self.space.clear();
        (self.fresh, self.thought) = (true, true);
        self.drops_space = self.reasoning != Reasoning::InText;
    }
}
