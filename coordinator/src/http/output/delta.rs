//! What an answer is made of, in no API's words: one stream of deltas for each choice.
//!
//! Choices make them, the encoder of each API writes them down. A delta that an API has no words for is
//! left out there.

use crate::few::Few;
use crate::generation::{FinishReason, TokenEvent};
use serde_json::{Value, json};

/// What comes next in one choice of an answer.
///
/// A choice begins with `Start` and ends with `End`. Between them text, reasoning and tool calls follow each
/// other as the model writes them; the arguments of a tool call come after its beginning, before the next
/// call's.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// The engine's first word on this choice; the others follow.
    Start,
    /// More of its text.
    Text {
        /// Whole characters, none of them part of a stop string unless the request wants to see it.
        text: String,
        /// Tokens up to the end of the text, if log-probabilities were asked for.
        logprobs: Logprobs,
    },
    /// More of what the model thinks before it answers.
    Reasoning {
        /// Whole characters.
        text: String,
    },
    /// The model begins to call a tool.
    ToolCall {
        /// Which call of this choice: 0, 1, …
        call: usize,
        /// Names the call in the messages that follow: 9 letters and digits, as Mistral's templates want it.
        id: String,
        /// The function.
        name: String,
    },
    /// More of the arguments of a call.
    Arguments {
        /// Which call.
        call: usize,
        /// JSON text; all pieces together are one object, unless the answer was cut off.
        text: String,
    },
    /// The choice is complete.
    End {
        /// Why.
        end: End,
    },
}

/// Why a choice is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended it with a token of its own.
    Stop,
    /// A stop string of the request was complete.
    StopString(String),
    /// A token that is an end for this request only.
    StopToken(u32),
    /// `max_tokens` or the context is full.
    Length,
    /// The model waits for what its tool calls give.
    ToolCalls,
}

impl From<FinishReason> for End {
    fn from(reason: FinishReason) -> End {
        match reason {
            FinishReason::Stop => End::Stop,
            FinishReason::Length => End::Length,
        }
    }
}

/// Tokens of an answer with their log-probabilities, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logprobs {
    /// The first token of a prompt that is given back. Nothing stands before it, so nothing says how
    /// likely it is.
    pub first: Option<u32>,
    /// The tokens after it.
    pub tokens: Vec<TokenEvent>,
    /// Characters of the answer's text before each token, the first one included.
    pub offsets: Vec<usize>,
    /// The tokens alone, if they were asked for: all that were generated.
    pub ids: Vec<u32>,
    /// The prompt's tokens from the second on, if their log-probabilities were asked for apart.
    pub prompt: Vec<TokenEvent>,
}

impl Logprobs {
    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.ids.is_empty() && self.prompt.is_empty()
    }

    /// Adds the tokens that follow.
    pub fn extend(&mut self, next: Logprobs) {
        self.first = self.first.or(next.first);
        self.tokens.extend(next.tokens);
        self.offsets.extend(next.offsets);
        self.ids.extend(next.ids);
        self.prompt.extend(next.prompt);
    }
}

/// What one event adds to a choice, in order.
pub type Deltas = Few<Delta>;

/// A tool call of an answer that is given whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// Names it in the messages that follow.
    pub id: String,
    /// The function.
    pub name: String,
    /// JSON text of an object, unless the answer was cut off.
    pub arguments: String,
}

impl ToolCall {
    /// The arguments as an object, for APIs that want one. What there is of those that were cut off is no
    /// object: it stands as a text under a name of ours.
    pub fn input(&self) -> Value {
        match serde_json::from_str(&self.arguments) {
            Ok(Value::Object(input)) => Value::Object(input),
            _ if self.arguments.is_empty() => json!({}),
            _ => json!({ "incomplete": self.arguments }),
        }
    }
}

/// One choice of an answer that is given whole: all its deltas in one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WholeChoice {
    /// Its text.
    pub text: String,
    /// What the model thought.
    pub reasoning: String,
    /// Tools that it calls, in order.
    pub tool_calls: Vec<ToolCall>,
    /// Its tokens, if log-probabilities were asked for.
    pub logprobs: Logprobs,
    /// Why it ended; `None` before it has.
    pub end: Option<End>,
}

impl WholeChoice {
    /// Adds what comes next.
    pub fn add(&mut self, delta: Delta) {
        match delta {
            Delta::Start => {}
            Delta::Text { text, logprobs } => {
                self.text.push_str(&text);
                self.logprobs.extend(logprobs);
            }
            Delta::Reasoning { text } => self.reasoning.push_str(&text),
            Delta::ToolCall { id, name, .. } => {
                self.tool_calls.push(ToolCall { id, name, arguments: String::new() });
            }
            Delta::Arguments { call, text } => {
                if let Some(call) = self.tool_calls.get_mut(call) {
                    call.arguments.push_str(&text);
                }
            }
            Delta::End { end } => self.end = Some(end),
        }
    }
}
