//! `POST /v1/chat/completions`: a conversation to be continued.

use super::answer::{Caller, answer};
use super::logprobs;
use super::openai::{self, Envelope, Names};
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::input::conversation::Conversation;
use crate::http::input::fields::Fields;
use crate::http::input::job::Job;
use crate::http::input::known::Place;
use crate::http::output::delta::{Delta, Logprobs, WholeChoice};
use crate::http::output::encoder::Encoder;
use crate::http::output::sse::Events;
use crate::http::usage::Usage;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use woolly_engine::tokenizer::Tokenizer;

const NAMES: Names =
    Names { id: "chatcmpl", whole: "chat.completion", chunk: "chat.completion.chunk" };

/// Answers a conversation.
///
/// # Errors
///
/// 400 naming the field, 404 for another model, 503 while there is no plan; a refusal of the engine, or
/// its failure.
pub async fn chat(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&gateway, request, parse).await
}

/// What a chat request asks for.
fn parse(
    gateway: &Gateway,
    mut fields: Fields,
    caller: Caller,
) -> Result<(Job, ChatEncoder), ApiError> {
    let mut asked = Conversation::take(&mut fields, Place::Chat, &caller.model)?;
    let logprobs = fields.bool("logprobs")?.unwrap_or(false);
    let top = openai::take_top_logprobs(&mut fields, "top_logprobs")?;
    if !logprobs && top.is_some_and(|top| top > 0) {
        let text = "'top_logprobs' needs 'logprobs': true.";
        return Err(ApiError::invalid("top_logprobs", text));
    }
    let (stream, usage_mode) = openai::take_stream(&mut fields)?;
    fields.finish()?;
    asked.top_logprobs = logprobs.then_some(top.unwrap_or(0));
    asked.stream = stream;
    let tokenizer = Arc::clone(&caller.model.tokenizer);
    let job = asked.job(gateway, caller.model, caller.key)?;
    let envelope = Envelope::new(NAMES, caller.named, usage_mode)?;
    Ok((job, ChatEncoder { envelope, logprobs, tokenizer }))
}

/// Writes the answer to a conversation.
#[derive(Debug)]
struct ChatEncoder {
    envelope: Envelope,
    /// Whether log-probabilities were asked for.
    logprobs: bool,
    /// Spells tokens.
    tokenizer: Arc<Tokenizer>,
}

/// A choice in a chunk of a stream.
#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: ChunkDelta<'a>,
    logprobs: Option<Value>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct ChunkDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// A choice of a whole answer.
#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<Value>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    /// Always `null`: a model that refuses says so in its text.
    refusal: (),
}

const ASSISTANT: &str = "assistant";

impl ChatEncoder {
    fn logprobs(&self, logprobs: &Logprobs) -> Option<Value> {
        self.logprobs.then(|| logprobs::chat(logprobs, &self.tokenizer))
    }
}

impl Encoder for ChatEncoder {
    fn delta(&mut self, index: usize, delta: &Delta, usage: Usage, events: &mut Events) {
        let none = ChunkDelta::default();
        let mut choice = ChunkChoice { index, delta: none, logprobs: None, finish_reason: None };
        match delta {
            Delta::Start => {
                choice.delta.role = Some(ASSISTANT);
                choice.delta.content = Some("");
            }
            Delta::Text { text, logprobs } => {
                choice.delta.content = Some(text);
                choice.logprobs = self.logprobs(logprobs);
            }
            Delta::End { end } => choice.finish_reason = Some(openai::finish_reason(end)),
            Delta::Reasoning { .. } | Delta::ToolCall { .. } | Delta::Arguments { .. } => return,
        }
        self.envelope.chunk(choice, usage, events);
    }

    fn finish(&mut self, usage: Usage, events: &mut Events) {
        self.envelope.finish(usage, events);
    }

    fn error(&mut self, error: &ApiError, events: &mut Events) {
        openai::error(error, events);
    }

    fn whole(&self, choices: &[WholeChoice], usage: Usage) -> String {
        let choices: Vec<Choice<'_>> = (0..)
            .zip(choices)
            .map(|(index, choice)| Choice {
                index,
                message: Message { role: ASSISTANT, content: &choice.text, refusal: () },
                logprobs: self.logprobs(&choice.logprobs),
                finish_reason: choice.end.as_ref().map(openai::finish_reason),
            })
            .collect();
        self.envelope.whole(&choices, usage)
    }
}
