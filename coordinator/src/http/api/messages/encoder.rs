//! An answer as Anthropic's message: named events of a stream, or the whole.
//!
//! A message is a list of blocks (thinking, text, tool_use), one after the other. In a stream a block begins,
//! grows and ends before the next one begins.

use super::error;
use crate::http::error::ApiError;
use crate::http::ids::Identity;
use crate::http::output::delta::{Delta, End, WholeChoice};
use crate::http::output::encoder::Encoder;
use crate::http::output::framing::Framing;
use crate::http::output::sse::Events;
use crate::http::output::tape::Interruption;
use crate::http::usage::Usage;
use serde_json::{Value, json};

/// Sent after a silence, as Anthropic does.
const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// Writes one message.
#[derive(Debug)]
pub struct MessageEncoder {
    id: String,
    /// The model's name as the client wrote it.
    model: String,
    /// What the model thinks is left out; that it thought is not.
    hides_thinking: bool,
    /// The number of the block that is open or comes next.
    index: usize,
    open: Option<Block>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    ToolUse,
}

impl MessageEncoder {
    /// A message of a model, as the client named it.
    pub fn new(identity: &Identity, model: String, hides_thinking: bool) -> MessageEncoder {
        let id = identity.named("msg_");
        MessageEncoder { id, model, hides_thinking, index: 0, open: None, end: None }
    }

    /// The message with these blocks.
    fn message(&self, content: &[Value], end: Option<&End>, usage: Usage) -> Value {
        let (reason, sequence) = stop(end);
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": counted(usage),
        })
    }

    /// Opens a block, unless one of this kind is open already; a call is a block of its own.
    fn open(&mut self, block: Block, content: &Value, events: &mut Events) {
        if self.open == Some(block) && block != Block::ToolUse {
            return;
        }
        self.close(events);
        self.open = Some(block);
        let start = json!({
            "type": "content_block_start", "index": self.index, "content_block": content,
        });
        events.named(None, "content_block_start", &start);
    }

    fn grow(&self, delta: &Value, events: &mut Events) {
        let grown = json!({ "type": "content_block_delta", "index": self.index, "delta": delta });
        events.named(None, "content_block_delta", &grown);
    }

    fn close(&mut self, events: &mut Events) {
        if self.open.take().is_some() {
            let stop = json!({ "type": "content_block_stop", "index": self.index });
            events.named(None, "content_block_stop", &stop);
            self.index += 1;
        }
    }
}

impl Encoder for MessageEncoder {
    fn framing(&self) -> Framing {
        Framing::Events { ping: PING }
    }

    fn delta(&mut self, _index: usize, delta: &Delta, usage: Usage, events: &mut Events) {
        match delta {
            Delta::Start => {
                let message = self.message(&[], None, usage);
                events.named(
                    None,
                    "message_start",
                    &json!({ "type": "message_start", "message": message }),
                );
            }
            Delta::Text { text, .. } if text.is_empty() => {}
            Delta::Text { text, .. } => {
                self.open(Block::Text, &json!({ "type": "text", "text": "" }), events);
                self.grow(&json!({ "type": "text_delta", "text": text }), events);
            }
            Delta::Reasoning { text } => {
                self.open(Block::Thinking, &thinking(""), events);
                if !self.hides_thinking {
                    self.grow(&json!({ "type": "thinking_delta", "thinking": text }), events);
                }
            }
            Delta::ToolCall { id, name, .. } => {
                self.open(Block::ToolUse, &tool_use(id, name, &json!({})), events);
            }
            Delta::Arguments { text, .. } => {
                self.grow(&json!({ "type": "input_json_delta", "partial_json": text }), events);
            }
            Delta::End { end } => {
                self.close(events);
                self.end = Some(end.clone());
            }
        }
    }

    fn finish(&mut self, usage: Usage, events: &mut Events) {
        let (reason, sequence) = stop(self.end.as_ref());
        let delta = json!({ "stop_reason": reason, "stop_sequence": sequence });
        let message = json!({ "type": "message_delta", "delta": delta, "usage": counted(usage) });
        events.named(None, "message_delta", &message);
        events.named(None, "message_stop", &json!({ "type": "message_stop" }));
    }

    fn error(&mut self, error: &ApiError, events: &mut Events) {
        events.named(None, "error", &error::body(error, None));
    }

    fn interruption(&self) -> Interruption {
        |error, events| events.named(None, "error", &error::body(error, None))
    }

    fn whole(&self, choices: &[WholeChoice], usage: Usage) -> String {
        let choice = choices.first().cloned().unwrap_or_default();
        let mut content = Vec::new();
        if !choice.reasoning.is_empty() {
            content.push(thinking(if self.hides_thinking { "" } else { &choice.reasoning }));
        }
        if !choice.text.is_empty() {
            content.push(json!({ "type": "text", "text": choice.text }));
        }
        for call in &choice.tool_calls {
            content.push(tool_use(&call.id, &call.name, &call.input()));
        }
        self.message(&content, choice.end.as_ref(), usage).to_string()
    }
}

/// Nothing is signed here: thoughts are read again as they were sent.
fn thinking(text: &str) -> Value {
    json!({ "type": "thinking", "thinking": text, "signature": "" })
}

fn tool_use(id: &str, name: &str, input: &Value) -> Value {
    json!({ "type": "tool_use", "id": id, "name": name, "input": input })
}

/// Why the message ended, and the stop string that was complete.
fn stop(end: Option<&End>) -> (Option<&'static str>, Option<&str>) {
    match end {
        None => (None, None),
        Some(End::Stop | End::StopToken(_)) => (Some("end_turn"), None),
        Some(End::StopString(text)) => (Some("stop_sequence"), Some(text)),
        Some(End::Length) => (Some("max_tokens"), None),
        Some(End::ToolCalls) => (Some("tool_use"), None),
    }
}

/// Anthropic counts the prompt's tokens in parts: those that a cache held, and the others.
fn counted(usage: Usage) -> Value {
    let cached = usage.cached_tokens.unwrap_or(0);
    let mut counted = json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
    });
    if usage.reasoning_tokens > 0 {
        counted["output_tokens_details"] = json!({ "thinking_tokens": usage.reasoning_tokens });
    }
    counted
}
