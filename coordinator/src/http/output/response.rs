//! Answers as JSON: chat and legacy completions, whole and in chunks.

use super::choice::Piece;
use super::logprobs;
use crate::http::usage::Usage;
use serde_json::{Value, json};
use std::sync::Arc;
use woolly_engine::tokenizer::Tokenizer;

/// Which endpoint's shape an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
}

/// When a stream reports usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageMode {
    /// In a chunk of its own at the end (`stream_options.include_usage`).
    pub at_end: bool,
    /// In every chunk, as far as it has come (`stream_options.continuous_usage_stats`).
    pub in_each: bool,
}

/// What all parts of one answer have in common.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its endpoint.
    pub shape: Shape,
    /// `chatcmpl-…` or `cmpl-…`.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The model's name as the client wrote it.
    pub model: String,
    /// Whether log-probabilities were asked for.
    pub logprobs: bool,
    /// When a stream reports usage.
    pub usage_mode: UsageMode,
    /// Spells tokens.
    pub tokenizer: Arc<Tokenizer>,
}

/// Names what computed an answer: with equal seeds, equal fingerprints give equal text.
pub fn fingerprint() -> String {
    format!("woolly-{}", env!("CARGO_PKG_VERSION"))
}

impl Answer {
    /// The whole answer; `pieces[i]` is choice `i`, complete.
    pub fn whole(&self, pieces: &[Piece], usage: Usage) -> Value {
        let choices: Vec<Value> = pieces
            .iter()
            .enumerate()
            .map(|(index, piece)| match self.shape {
                Shape::Chat => json!({
                    "index": index,
                    "message": { "role": "assistant", "content": piece.text, "refusal": null },
                    "logprobs": self.logprobs(piece),
                    "finish_reason": piece.finish,
                }),
                Shape::Completion => self.completion_choice(index, piece, piece.finish),
            })
            .collect();
        let object = match self.shape {
            Shape::Chat => "chat.completion",
            Shape::Completion => "text_completion",
        };
        let mut value = self.envelope(object, choices.into());
        value["usage"] = usage_json(usage);
        value
    }

    /// The chunks of a stream that a piece of choice `index` makes: none if it adds nothing.
    pub fn chunks(&self, index: usize, piece: &Piece, usage: Usage) -> Vec<Value> {
        let mut chunks = Vec::new();
        if self.shape == Shape::Chat && piece.first {
            let delta = json!({ "role": "assistant", "content": "" });
            chunks.push(chat_choice(index, delta, Value::Null, None));
        }
        if !piece.text.is_empty() || !piece.lines.is_empty() {
            chunks.push(match self.shape {
                Shape::Chat => {
                    let delta = json!({ "content": piece.text });
                    chat_choice(index, delta, self.logprobs(piece), None)
                }
                Shape::Completion => self.completion_choice(index, piece, None),
            });
        }
        if piece.finish.is_some() {
            let end = Piece::default();
            chunks.push(match self.shape {
                Shape::Chat => chat_choice(index, json!({}), Value::Null, piece.finish),
                Shape::Completion => json!({
                    "index": index, "text": end.text, "logprobs": null,
                    "finish_reason": piece.finish,
                }),
            });
        }
        chunks.into_iter().map(|choice| self.chunk(json!([choice]), usage)).collect()
    }

    /// The last chunk, with the usage and no choice, if the client asked for it.
    pub fn usage_chunk(&self, usage: Usage) -> Option<Value> {
        self.usage_mode.at_end.then(|| {
            let mut value = self.envelope(self.chunk_object(), json!([]));
            value["usage"] = usage_json(usage);
            value
        })
    }

    fn chunk(&self, choices: Value, usage: Usage) -> Value {
        let mut value = self.envelope(self.chunk_object(), choices);
        match self.usage_mode {
            UsageMode { in_each: true, .. } => value["usage"] = usage_json(usage),
            UsageMode { at_end: true, .. } => value["usage"] = Value::Null,
            _ => {}
        }
        value
    }

    fn chunk_object(&self) -> &'static str {
        match self.shape {
            Shape::Chat => "chat.completion.chunk",
            Shape::Completion => "text_completion",
        }
    }

    fn envelope(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": fingerprint(),
            "choices": choices,
        })
    }

    fn completion_choice(&self, index: usize, piece: &Piece, finish: Option<&str>) -> Value {
        json!({
            "index": index,
            "text": piece.text,
            "logprobs": self.logprobs(piece),
            "finish_reason": finish,
        })
    }

    fn logprobs(&self, piece: &Piece) -> Value {
        match self.shape {
            _ if !self.logprobs => Value::Null,
            Shape::Chat => logprobs::chat(&piece.lines, &self.tokenizer),
            Shape::Completion => logprobs::completion(&piece.lines, &self.tokenizer),
        }
    }
}

fn chat_choice(index: usize, delta: Value, logprobs: Value, finish: Option<&str>) -> Value {
    json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish })
}

fn usage_json(usage: Usage) -> Value {
    let mut value = json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    });
    if let Some(cached) = usage.cached_tokens {
        value["prompt_tokens_details"] = json!({ "cached_tokens": cached });
    }
    value
}
