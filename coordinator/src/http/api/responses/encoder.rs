//! An answer as OpenAI's response: numbered, named events of a stream, or the whole.
//!
//! A response is a list of items, one after the other. In a stream an item is added, its part is added and
//! grows, and both are done before the next item; the last event holds the whole response.

use super::output::{Item, Shown, State};
use crate::http::api::logprobs;
use crate::http::error::ApiError;
use crate::http::ids::{Identity, unix_seconds};
use crate::http::output::delta::{Delta, End, Logprobs, WholeChoice};
use crate::http::output::encoder::Encoder;
use crate::http::output::sse::Events;
use crate::http::output::tape::Interruption;
use crate::http::usage::Usage;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use woolly_engine::tokenizer::Tokenizer;

/// Writes one response.
#[derive(Debug)]
pub struct ResponseEncoder {
    identity: Identity,
    /// The model's name as the client wrote it.
    model: String,
    /// What the answer says again of its request.
    repeated: Map<String, Value>,
    shown: Shown,
    /// Spells tokens, if log-probabilities were asked for.
    tokenizer: Option<Arc<Tokenizer>>,
    /// Events so far.
    sequence: u64,
    begun: bool,
    /// Items that are done.
    done: Vec<Value>,
    open: Option<Item>,
    end: Option<End>,
}

/// How a response stands.
#[derive(Clone, Copy, Debug)]
enum Status<'a> {
    InProgress,
    Ended(Option<&'a End>),
    Failed(&'a ApiError),
}

impl ResponseEncoder {
    /// A response of a model, as the client named it.
    pub fn new(
        identity: Identity,
        model: String,
        repeated: Map<String, Value>,
        shown: Shown,
        tokenizer: Option<Arc<Tokenizer>>,
    ) -> ResponseEncoder {
        ResponseEncoder {
            identity,
            model,
            repeated,
            shown,
            tokenizer,
            sequence: 0,
            begun: false,
            done: Vec::new(),
            open: None,
            end: None,
        }
    }

    /// The response with these items.
    fn response(&self, output: &[Value], status: Status<'_>, usage: Option<Usage>) -> Value {
        let (word, incomplete, error) = match status {
            Status::InProgress => ("in_progress", None, None),
            Status::Ended(Some(End::Length)) => {
                ("incomplete", Some(json!({ "reason": "max_output_tokens" })), None)
            }
            Status::Ended(_) => ("completed", None, None),
            Status::Failed(error) => {
                let error = json!({ "code": "server_error", "message": error.message() });
                ("failed", None, Some(error))
            }
        };
        let completed = matches!(status, Status::Ended(_)).then(unix_seconds);
        let mut response = json!({
            "id": self.identity.named("resp_"),
            "object": "response",
            "created_at": self.identity.created,
            "completed_at": completed,
            "status": word,
            "error": error,
            "incomplete_details": incomplete,
            "model": self.model,
            "output": output,
            "usage": usage.map(counted),
        });
        for (name, value) in &self.repeated {
            response[name] = value.clone();
        }
        response
    }

    fn event(&mut self, name: &'static str, more: Value, events: &mut Events) {
        let mut event = json!({ "type": name, "sequence_number": self.sequence });
        self.sequence += 1;
        if let (Value::Object(event), Value::Object(more)) = (&mut event, more) {
            event.extend(more);
        }
        events.named(None, name, &event);
    }

    /// An event of the part of the open item; `more` is what it says besides its place.
    fn part_event(&mut self, name: &'static str, more: Value, events: &mut Events) {
        let Some(item) = &self.open else { return };
        let index = self.done.len();
        let mut place =
            json!({ "item_id": item.id(self.identity.number, index), "output_index": index });
        match item {
            Item::Reasoning { shown: Shown::Summary, .. } => place["summary_index"] = 0.into(),
            Item::Call { .. } => {}
            _ => place["content_index"] = 0.into(),
        }
        if let (Value::Object(place), Value::Object(more)) = (&mut place, more) {
            place.extend(more);
        }
        self.event(name, place, events);
    }

    fn begin(&mut self, events: &mut Events) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        for name in ["response.created", "response.in_progress"] {
            let response = self.response(&[], Status::InProgress, None);
            self.event(name, json!({ "response": response }), events);
        }
    }

    /// Opens an item.
    fn open(&mut self, item: Item, events: &mut Events) {
        self.close(State::Completed, events);
        let index = self.done.len();
        let written = item.written(&item.id(self.identity.number, index), State::InProgress);
        let part = item.part();
        let name = Names::of(&item).part_added;
        self.open = Some(item);
        let added = json!({ "output_index": index, "item": written });
        self.event("response.output_item.added", added, events);
        if let Some(part) = part {
            self.part_event(name, json!({ "part": part }), events);
        }
    }

    /// Ends the open item, if there is one.
    fn close(&mut self, state: State, events: &mut Events) {
        let Some(item) = &self.open else { return };
        let (names, part) = (Names::of(item), item.part());
        let whole = match item {
            Item::Message { text, logprobs } => json!({ "text": text, "logprobs": logprobs }),
            Item::Reasoning { text, .. } => json!({ "text": text }),
            Item::Call { name, arguments, .. } => json!({ "name": name, "arguments": arguments }),
        };
        self.part_event(names.done, whole, events);
        if let Some(part) = part {
            self.part_event(names.part_done, json!({ "part": part }), events);
        }
        let Some(item) = self.open.take() else { return };
        let index = self.done.len();
        let written = item.written(&item.id(self.identity.number, index), state);
        let done = json!({ "output_index": index, "item": written });
        self.event("response.output_item.done", done, events);
        self.done.push(written);
    }

    fn text(&mut self, text: &str, entries: Vec<Value>, events: &mut Events) {
        if !matches!(self.open, Some(Item::Message { .. })) {
            let item = Item::Message { text: String::new(), logprobs: Vec::new() };
            self.open(item, events);
        }
        if let Some(Item::Message { text: all, logprobs }) = &mut self.open {
            all.push_str(text);
            logprobs.extend(entries.iter().cloned());
        }
        let delta = json!({ "delta": text, "logprobs": entries });
        self.part_event("response.output_text.delta", delta, events);
    }

    fn reasoning(&mut self, text: &str, events: &mut Events) {
        if !matches!(self.open, Some(Item::Reasoning { .. })) {
            let item = Item::Reasoning { text: String::new(), shown: self.shown };
            self.open(item, events);
        }
        if let Some(Item::Reasoning { text: all, .. }) = &mut self.open {
            all.push_str(text);
        }
        self.grow(text, events);
    }

    fn grow(&mut self, text: &str, events: &mut Events) {
        let Some(name) = self.open.as_ref().map(|item| Names::of(item).delta) else { return };
        self.part_event(name, json!({ "delta": text }), events);
    }

    fn entries(&self, logprobs: &Logprobs) -> Vec<Value> {
        let Some(tokenizer) = &self.tokenizer else { return Vec::new() };
        match logprobs::chat(logprobs, tokenizer)["content"].take() {
            Value::Array(entries) => entries,
            _ => Vec::new(),
        }
    }
}

/// What the events of an item are called.
struct Names {
    part_added: &'static str,
    delta: &'static str,
    done: &'static str,
    part_done: &'static str,
}

impl Names {
    fn of(item: &Item) -> Names {
        let (part_added, part_done) = match item {
            Item::Reasoning { shown: Shown::Summary, .. } => {
                ("response.reasoning_summary_part.added", "response.reasoning_summary_part.done")
            }
            _ => ("response.content_part.added", "response.content_part.done"),
        };
        let (delta, done) = match item {
            Item::Message { .. } => ("response.output_text.delta", "response.output_text.done"),
            Item::Reasoning { shown: Shown::Content, .. } => {
                ("response.reasoning_text.delta", "response.reasoning_text.done")
            }
            Item::Reasoning { shown: Shown::Summary, .. } => {
                ("response.reasoning_summary_text.delta", "response.reasoning_summary_text.done")
            }
            Item::Call { .. } => {
                ("response.function_call_arguments.delta", "response.function_call_arguments.done")
            }
        };
        Names { part_added, delta, done, part_done }
    }
}

impl Encoder for ResponseEncoder {
    fn delta(&mut self, _index: usize, delta: &Delta, _usage: Usage, events: &mut Events) {
        match delta {
            Delta::Start => self.begin(events),
            Delta::Text { text, logprobs } => {
                let entries = self.entries(logprobs);
                if !text.is_empty() || !entries.is_empty() {
                    self.text(text, entries, events);
                }
            }
            Delta::Reasoning { text } => self.reasoning(text, events),
            Delta::ToolCall { id, name, .. } => {
                let (call_id, name) = (id.clone(), name.clone());
                self.open(Item::Call { call_id, name, arguments: String::new() }, events);
            }
            Delta::Arguments { text, .. } => {
                if let Some(Item::Call { arguments, .. }) = &mut self.open {
                    arguments.push_str(text);
                }
                self.grow(text, events);
            }
            Delta::End { end } => {
                self.close(state(Some(end)), events);
                self.end = Some(end.clone());
            }
        }
    }

    fn finish(&mut self, usage: Usage, events: &mut Events) {
        let name = match self.end {
            Some(End::Length) => "response.incomplete",
            _ => "response.completed",
        };
        let response = self.response(&self.done, Status::Ended(self.end.as_ref()), Some(usage));
        self.event(name, json!({ "response": response }), events);
    }

    fn error(&mut self, error: &ApiError, events: &mut Events) {
        self.begin(events);
        self.close(State::Incomplete, events);
        let response = self.response(&self.done, Status::Failed(error), None);
        self.event("response.failed", json!({ "response": response }), events);
    }

    fn interruption(&self) -> Interruption {
        |error, events| {
            let (code, message) = (error.code(), error.message());
            let event = json!({ "type": "error", "code": code, "message": message, "param": null });
            events.named(None, "error", &event);
        }
    }

    fn whole(&self, choices: &[WholeChoice], usage: Usage) -> String {
        let choice = choices.first().cloned().unwrap_or_default();
        let logprobs = self.entries(&choice.logprobs);
        let mut items = Vec::new();
        if !choice.reasoning.is_empty() {
            items.push(Item::Reasoning { text: choice.reasoning, shown: self.shown });
        }
        if !choice.text.is_empty() || !logprobs.is_empty() {
            items.push(Item::Message { text: choice.text, logprobs });
        }
        items.extend(choice.tool_calls.into_iter().map(|call| Item::Call {
            call_id: call.id,
            name: call.name,
            arguments: call.arguments,
        }));
        let last = items.len().saturating_sub(1);
        let written = |(index, item): (usize, &Item)| {
            let state = if index == last { state(choice.end.as_ref()) } else { State::Completed };
            item.written(&item.id(self.identity.number, index), state)
        };
        let output: Vec<Value> = items.iter().enumerate().map(written).collect();
        self.response(&output, Status::Ended(choice.end.as_ref()), Some(usage)).to_string()
    }
}

/// How the last item of an answer stands.
fn state(end: Option<&End>) -> State {
    if end == Some(&End::Length) { State::Incomplete } else { State::Completed }
}

fn counted(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens.unwrap_or(0), "cache_write_tokens": 0 },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning_tokens },
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}
