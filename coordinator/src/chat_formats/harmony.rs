//! Answers of the harmony format (gpt-oss), which are messages themselves.
//!
//! ```text
//! <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>
//! <|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>
//! ```
//!
//! An answer begins where the prompt ends, in the head of its first message. The channel `final` is the
//! answer's text, and so is a message without a channel; `analysis` is what the model thinks. A message
//! to a function is a call of it, whatever its channel, and may name it before or after the channel.
//! `commentary` to nobody is said to the user before calls. A message to somebody who is no tool of the
//! request is text, head and all, if there are tools; otherwise it is nobody's, and left out.
//!
//! Source: OpenAI's harmony response format.

use super::lark::{Lark, literal};
use super::marks::Symbol;
use super::reader::{Parts, Place};
use super::thinking::Reasoning;
use super::tools::{Tool, Tools};
use std::sync::Arc;

pub(super) const START: &str = "<|start|>";
pub(super) const CHANNEL: &str = "<|channel|>";
pub(super) const MESSAGE: &str = "<|message|>";
pub(super) const END: &str = "<|end|>";
const CONSTRAIN: &str = "<|constrain|>";
const CALL: &str = "<|call|>";
/// Who the functions of a request are.
const FUNCTIONS: &str = "functions.";

/// All marks of the format.
pub(super) const MARKS: [&str; 6] = [START, CHANNEL, MESSAGE, END, CONSTRAIN, CALL];

/// Bytes of a head that are looked at; the rest says nothing about its message.
const HEAD_MAX: usize = 256;

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Harmony {
    reasoning: Reasoning,
    tools: Option<Arc<Tools>>,
    state: State,
    /// The head of the message so far, as the model wrote it.
    head: String,
    /// Where in it the channel's name begins.
    channel: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Message(Kind),
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Call,
    /// To somebody who is no tool: text, with its marks.
    Stray,
    /// To nobody who could hear it.
    Unheard,
}

impl Harmony {
    /// Before the first symbol.
    pub fn new(reasoning: Reasoning, tools: Option<Arc<Tools>>) -> Harmony {
        let (head, channel) = (String::new(), None);
        Harmony { reasoning, tools, state: State::Head, head, channel }
    }

    /// Takes the next symbol.
    pub fn push(&mut self, symbol: Symbol<'_>, parts: &mut Parts) {
        match (self.state, symbol) {
            (_, Symbol::Mark(mark @ (START | END | CALL))) => {
                self.message_ends(mark, parts);
                self.begin_head();
            }
            (_, Symbol::Mark(CHANNEL)) => {
                if self.state != State::Head {
                    self.message_ends("", parts);
                    self.begin_head();
                }
                self.head.push_str(CHANNEL);
                self.channel = Some(self.head.len());
            }
            (State::Head, Symbol::Mark(MESSAGE)) => self.message_begins(parts),
            (State::Head, Symbol::Mark(text) | Symbol::Text(text)) => {
                if self.head.len() < HEAD_MAX {
                    self.head.push_str(text);
                }
            }
            (State::Message(_), Symbol::Mark(MESSAGE)) => {}
            (State::Message(kind), Symbol::Mark(text) | Symbol::Text(text)) => match kind {
                Kind::Text | Kind::Stray => parts.text(text),
                Kind::Thinking => self.think(text, parts),
                Kind::Call => parts.arguments(text),
                Kind::Unheard => {}
            },
        }
    }

    /// What the next token is part of.
    pub fn place(&self) -> Place {
        match self.state {
            State::Message(Kind::Thinking) if self.reasoning == Reasoning::InText => Place::Text,
            State::Message(Kind::Thinking) => Place::Reasoning,
            State::Message(Kind::Text | Kind::Stray) => Place::Text,
            State::Message(Kind::Call) => Place::Call,
            State::Head | State::Message(Kind::Unheard) => Place::Frame,
        }
    }

    /// Whether the model thinks.
    pub fn thinks(&self) -> bool {
        self.state == State::Message(Kind::Thinking)
    }

    fn begin_head(&mut self) {
        self.state = State::Head;
        self.head.clear();
        self.channel = None;
    }

    fn message_begins(&mut self, parts: &mut Parts) {
        let channel = self.channel.and_then(|at| self.head[at..].split_whitespace().next());
        let words = self.head.split(|c: char| c.is_whitespace() || c == '<');
        let recipient = words.filter_map(|word| word.strip_prefix("to=")).next();
        let kind = match (recipient, channel) {
            (Some(recipient), _) => self.kind_for(recipient),
            (None, Some("analysis")) => Kind::Thinking,
            (None, Some("commentary")) if self.tools.is_none() => Kind::Unheard,
            (None, Some("final" | "commentary") | None) => Kind::Text,
            (None, Some(_)) => Kind::Unheard,
        };
        match kind {
            Kind::Call => {
                let name = recipient.and_then(|recipient| recipient.strip_prefix(FUNCTIONS));
                parts.call(name.unwrap_or_default());
            }
            Kind::Stray => {
                parts.text(&self.head);
                parts.text(MESSAGE);
            }
            Kind::Thinking if self.reasoning == Reasoning::InText => {
                parts.text(&self.head);
                parts.text(MESSAGE);
            }
            Kind::Text | Kind::Thinking | Kind::Unheard => {}
        }
        self.state = State::Message(kind);
    }

    fn kind_for(&self, recipient: &str) -> Kind {
        let Some(tools) = &self.tools else { return Kind::Unheard };
        let name = recipient.strip_prefix(FUNCTIONS);
        let is_tool = name.is_some_and(|name| tools.find(name).is_some());
        if is_tool { Kind::Call } else { Kind::Stray }
    }

    fn message_ends(&mut self, mark: &str, parts: &mut Parts) {
        match self.state {
            State::Message(Kind::Call) => parts.complete(),
            State::Message(Kind::Stray) => parts.text(mark),
            State::Message(Kind::Thinking) if self.reasoning == Reasoning::InText => {
                parts.text(mark);
            }
            State::Head | State::Message(_) => {}
        }
    }

    fn think(&self, text: &str, parts: &mut Parts) {
        match self.reasoning {
            Reasoning::Split => parts.reasoning(text),
            Reasoning::InText => parts.text(text),
            Reasoning::Hidden => {}
        }
    }
}

/// Adds the rules of an answer that calls one tool, after thinking or at once. The format has one call in
/// an answer.
pub(super) fn grammar(lark: &mut Lark<'_>, tools: &[&Tool]) {
    calls(lark, tools);
    thinking(lark);
    lark.rule("start", "thinking? calls");
}

/// Adds the rules of an answer whose text is the rule `body`, after thinking or at once.
pub(super) fn answer_grammar(lark: &mut Lark<'_>) {
    last(lark);
    thinking(lark);
    lark.rule("start", "thinking? last");
}

/// Adds the rules of an answer that calls a tool or whose text is the rule `body`. Before a call the user may be told
/// something.
pub(super) fn free_grammar(lark: &mut Lark<'_>, tools: &[&Tool]) {
    calls(lark, tools);
    last(lark);
    thinking(lark);
    message(lark, "before", "commentary");
    lark.rule("start", "thinking? before? calls | thinking? last");
}

fn calls(lark: &mut Lark<'_>, tools: &[&Tool]) {
    let [channel, message, constrain] = [CHANNEL, MESSAGE, CONSTRAIN].map(|mark| lark.mark(mark));
    for (index, tool) in tools.iter().enumerate() {
        let arguments = lark.arguments(index, tool);
        let head = literal(&format!("commentary to={FUNCTIONS}{} ", tool.name));
        let call = format!("{channel} {head} {constrain} \"json\" {message} {arguments}");
        lark.rule(&format!("call_{index}"), &call);
    }
    lark.calls(tools.len(), false, "");
}

/// The message that is the answer's text.
fn last(lark: &mut Lark<'_>) {
    let [channel, message] = [CHANNEL, MESSAGE].map(|mark| lark.mark(mark));
    lark.rule("last", &format!("{channel} \"final\" {message} body"));
}

fn thinking(lark: &mut Lark<'_>) {
    message(lark, "thinking", "analysis");
}

/// A message of any text in a channel, up to the head of the next.
fn message(lark: &mut Lark<'_>, rule: &str, name: &str) {
    let [start, channel, message, end] = [START, CHANNEL, MESSAGE, END].map(|mark| lark.mark(mark));
    let name = literal(name);
    let body = format!("{channel} {name} {message} /(?s:.*)/ {end} {start} \"assistant\"");
    lark.rule(rule, &body);
}
