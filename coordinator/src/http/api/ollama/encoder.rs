//! An answer as Ollama writes it: lines of a stream, or the whole in one. The last line says why it ended and
//! how long it took, in nanoseconds.

use super::error;
use crate::http::api::health::rfc3339;
use crate::http::api::logprobs;
use crate::http::error::ApiError;
use crate::http::ids::unix_seconds;
use crate::http::output::delta::{Delta, End, Logprobs, ToolCall, WholeChoice};
use crate::http::output::encoder::Encoder;
use crate::http::output::framing::Framing;
use crate::http::output::sse::Events;
use crate::http::usage::Usage;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use woolly_engine::tokenizer::Tokenizer;

/// Which of the two endpoints answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// `/api/chat`: a message.
    Chat,
    /// `/api/generate`: a text.
    Generate,
}

/// Writes one answer.
#[derive(Debug)]
pub struct OllamaEncoder {
    /// The model's name as the client wrote it.
    model: String,
    words: Words,
    /// Spells tokens, if log-probabilities were asked for.
    tokenizer: Option<Arc<Tokenizer>>,
    arrived: Instant,
    first_token: Option<Instant>,
    /// A call that is not whole yet: it is told in one line.
    call: Option<ToolCall>,
    end: Option<End>,
}

/// What a line tells.
#[derive(Debug, Default)]
struct Told<'a> {
    text: &'a str,
    thinking: &'a str,
    calls: &'a [ToolCall],
    logprobs: Vec<Value>,
}

impl OllamaEncoder {
    /// An answer of a model, as the client named it; its time begins now.
    pub fn new(model: String, words: Words, tokenizer: Option<Arc<Tokenizer>>) -> OllamaEncoder {
        let (arrived, first_token, call, end) = (Instant::now(), None, None, None);
        OllamaEncoder { model, words, tokenizer, arrived, first_token, call, end }
    }

    fn line(&self, told: &Told<'_>) -> Value {
        let mut line = json!({ "model": self.model, "created_at": rfc3339(unix_seconds()) });
        match self.words {
            Words::Chat => {
                let mut message = json!({ "role": "assistant", "content": told.text });
                if !told.thinking.is_empty() {
                    message["thinking"] = told.thinking.into();
                }
                if !told.calls.is_empty() {
                    message["tool_calls"] = told.calls.iter().enumerate().map(call).collect();
                }
                line["message"] = message;
            }
            Words::Generate => {
                line["response"] = told.text.into();
                if !told.thinking.is_empty() {
                    line["thinking"] = told.thinking.into();
                }
            }
        }
        if !told.logprobs.is_empty() {
            line["logprobs"] = told.logprobs.clone().into();
        }
        line["done"] = false.into();
        line
    }

    /// Ends a line: it is the last one.
    fn finished(&self, mut line: Value, end: Option<&End>, usage: Usage) -> Value {
        let now = Instant::now();
        let first = self.first_token.unwrap_or(now);
        let reason = match end {
            None => "load",
            Some(End::Length) => "length",
            Some(_) => "stop",
        };
        for (name, value) in [
            ("done", true.into()),
            ("done_reason", reason.into()),
            ("total_duration", nanoseconds(now - self.arrived)),
            // The model was loaded before.
            ("load_duration", 0.into()),
            ("prompt_eval_count", usage.prompt_tokens.into()),
            ("prompt_eval_duration", nanoseconds(first - self.arrived)),
            ("eval_count", usage.completion_tokens.into()),
            ("eval_duration", nanoseconds(now - first)),
        ] {
            line[name] = value;
        }
        line
    }

    fn entries(&self, logprobs: &Logprobs) -> Vec<Value> {
        let Some(tokenizer) = &self.tokenizer else { return Vec::new() };
        match logprobs::chat(logprobs, tokenizer)["content"].take() {
            Value::Array(entries) => entries,
            _ => Vec::new(),
        }
    }

    /// Tells the call that is whole now, if there is one.
    fn tell_call(&mut self, events: &mut Events) {
        if let Some(call) = self.call.take() {
            let told = Told { calls: std::slice::from_ref(&call), ..Told::default() };
            events.line(&self.line(&told));
        }
    }
}

impl Encoder for OllamaEncoder {
    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn begins(&mut self) {
        self.first_token.get_or_insert_with(Instant::now);
    }

    fn delta(&mut self, _index: usize, delta: &Delta, _usage: Usage, events: &mut Events) {
        match delta {
            Delta::Start => self.begins(),
            Delta::Text { text, logprobs } => {
                self.tell_call(events);
                let logprobs = self.entries(logprobs);
                if !text.is_empty() || !logprobs.is_empty() {
                    events.line(&self.line(&Told { text, logprobs, ..Told::default() }));
                }
            }
            Delta::Reasoning { text } => {
                events.line(&self.line(&Told { thinking: text, ..Told::default() }));
            }
            Delta::ToolCall { id, name, .. } => {
                self.tell_call(events);
                let (id, name) = (id.clone(), name.clone());
                self.call = Some(ToolCall { id, name, arguments: String::new() });
            }
            Delta::Arguments { text, .. } => {
                if let Some(call) = &mut self.call {
                    call.arguments.push_str(text);
                }
            }
            Delta::End { end } => {
                self.tell_call(events);
                self.end = Some(end.clone());
            }
        }
    }

    fn finish(&mut self, usage: Usage, events: &mut Events) {
        let line = self.line(&Told::default());
        events.line(&self.finished(line, self.end.as_ref(), usage));
    }

    fn error(&mut self, error: &ApiError, events: &mut Events) {
        events.line(&error::body(error));
    }

    fn whole(&self, choices: &[WholeChoice], usage: Usage) -> String {
        let choice = choices.first().cloned().unwrap_or_default();
        let told = Told {
            text: &choice.text,
            thinking: &choice.reasoning,
            calls: &choice.tool_calls,
            logprobs: self.entries(&choice.logprobs),
        };
        self.finished(self.line(&told), choice.end.as_ref(), usage).to_string()
    }
}

fn call((index, call): (usize, &ToolCall)) -> Value {
    let function = json!({ "index": index, "name": call.name, "arguments": call.input() });
    json!({ "id": call.id, "function": function })
}

fn nanoseconds(time: Duration) -> Value {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).into()
}
