//! `POST /v1/chat/completions`: a conversation to be continued.

use super::answer::{Api, Caller, answer};
use super::logprobs;
use super::openai::{self, Envelope, Extras, Names, StopReason};
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::input::choices::Reports;
use crate::http::input::conversation::Conversation;
use crate::http::input::fields::Fields;
use crate::http::input::job::Job;
use crate::http::input::known::Place;
use crate::http::output::delta::{Delta, Logprobs, ToolCall, WholeChoice};
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
    answer(&gateway, request, Some(Api::Chat), parse).await
}

/// What a chat request asks for.
pub(super) fn parse(
    gateway: &Gateway,
    mut fields: Fields,
    caller: Caller,
) -> Result<(Job, ChatEncoder), ApiError> {
    let mut asked = Conversation::take(&mut fields, Place::Chat, &caller.model, caller.identity)?;
    let logprobs = fields.bool("logprobs")?.unwrap_or(false);
    let top = openai::take_top_logprobs(&mut fields, "top_logprobs")?;
    if !logprobs && top.is_some_and(|top| top > 0) {
        let text = "'top_logprobs' needs 'logprobs': true.";
        return Err(ApiError::invalid("top_logprobs", text));
    }
    let (stream, usage_mode) = openai::take_stream(&mut fields)?;
    let reports = asked.choices.reports;
    openai::check_prompt_logprobs(reports, stream)?;
    fields.finish()?;
    asked.top_logprobs = logprobs.then_some(top.unwrap_or(0));
    asked.stream = stream;
    let tokenizer = Arc::clone(&caller.model.tokenizer);
    let job = asked.job(gateway, caller.model, caller.key)?;
    let envelope =
        Envelope::new(NAMES, &caller.identity, caller.named, usage_mode).reporting(reports);
    let prompt = if reports.token_ids { openai::prompt_ids(&job.choices).pop() } else { None };
    Ok((job, ChatEncoder { envelope, logprobs, prompt, is_begun: false, reports, tokenizer }))
}

/// Writes the answer to a conversation.
#[derive(Debug)]
pub(super) struct ChatEncoder {
    envelope: Envelope,
    /// Whether log-probabilities were asked for.
    logprobs: bool,
    /// The prompt's tokens, if they were asked for.
    prompt: Option<Vec<u32>>,
    /// The first chunk of a stream was written.
    is_begun: bool,
    /// What else was asked for.
    reports: Reports,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

#[derive(Default, Serialize)]
struct ChunkDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ChunkCall<'a>; 1]>,
}

/// A piece of a call: its beginning has an id and a name, what follows has arguments only.
#[derive(Serialize)]
struct ChunkCall<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: ChunkFunction<'a>,
}

#[derive(Serialize)]
struct ChunkFunction<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

/// A choice of a whole answer.
#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<Value>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    /// `null` beside calls, if the model says nothing.
    content: Option<&'a str>,
    /// Always `null`: a model that refuses says so in its text.
    refusal: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl<'a> Message<'a> {
    fn of(choice: &'a WholeChoice) -> Message<'a> {
        let call = |call: &'a ToolCall| Call {
            id: &call.id,
            kind: FUNCTION,
            function: Function { name: &call.name, arguments: &call.arguments },
        };
        let is_silent = choice.text.is_empty() && !choice.tool_calls.is_empty();
        Message {
            role: ASSISTANT,
            content: (!is_silent).then_some(choice.text.as_str()),
            refusal: (),
            reasoning_content: Some(choice.reasoning.as_str()).filter(|text| !text.is_empty()),
            tool_calls: choice.tool_calls.iter().map(call).collect(),
        }
    }
}

/// The one type of calls.
const FUNCTION: &str = "function";
const ASSISTANT: &str = "assistant";

impl ChatEncoder {
    fn logprobs(&self, logprobs: &Logprobs) -> Option<Value> {
        self.logprobs.then(|| logprobs::chat(logprobs, &self.tokenizer))
    }
}

impl Encoder for ChatEncoder {
    fn delta(&mut self, index: usize, delta: &Delta, usage: Usage, events: &mut Events) {
        let mut choice = ChunkChoice {
            index,
            delta: ChunkDelta::default(),
            logprobs: None,
            finish_reason: None,
            stop_reason: None,
            token_ids: None,
        };
        match delta {
            Delta::Start => {
                choice.delta.role = Some(ASSISTANT);
                choice.delta.content = Some("");
            }
            Delta::Text { text, logprobs } => {
                choice.delta.content = Some(text);
                choice.logprobs = self.logprobs(logprobs);
                choice.token_ids = self.reports.token_ids.then_some(&logprobs.ids[..]);
            }
            Delta::End { end } => {
                choice.finish_reason = Some(openai::finish_reason(end));
                choice.stop_reason = openai::stop_reason(end);
            }
            Delta::Reasoning { text } => choice.delta.reasoning_content = Some(text),
            Delta::ToolCall { call, id, name } => {
                let function = ChunkFunction { name: Some(name), arguments: "" };
                let (index, id, kind) = (*call, Some(id.as_str()), Some(FUNCTION));
                choice.delta.tool_calls = Some([ChunkCall { index, id, kind, function }]);
            }
            Delta::Arguments { call, text } => {
                let function = ChunkFunction { name: None, arguments: text };
                let (index, id, kind) = (*call, None, None);
                choice.delta.tool_calls = Some([ChunkCall { index, id, kind, function }]);
            }
        }
        let begins = !std::mem::replace(&mut self.is_begun, true);
        let prompt_token_ids = self.prompt.as_deref().filter(|_| begins);
        let extras = Extras { prompt_token_ids, prompt_logprobs: None };
        self.envelope.chunk_with(choice, usage, extras, events);
    }

    fn finish(&mut self, usage: Usage, events: &mut Events) {
        self.envelope.finish(usage, events);
    }

    fn error(&mut self, error: &ApiError, events: &mut Events) {
        openai::error(error, events);
    }

    fn whole(&self, choices: &[WholeChoice], usage: Usage) -> String {
        let scores = choices.first().filter(|_| self.reports.prompt_logprobs.is_some());
        let prompt_logprobs =
            scores.map(|choice| logprobs::prompt(&choice.logprobs.prompt, &self.tokenizer));
        let extras = Extras { prompt_token_ids: self.prompt.as_deref(), prompt_logprobs };
        let choices: Vec<Choice<'_>> = (0..)
            .zip(choices)
            .map(|(index, choice)| Choice {
                index,
                message: Message::of(choice),
                logprobs: self.logprobs(&choice.logprobs),
                finish_reason: choice.end.as_ref().map(openai::finish_reason),
                stop_reason: choice.end.as_ref().and_then(openai::stop_reason),
                token_ids: self.reports.token_ids.then_some(&choice.logprobs.ids[..]),
            })
            .collect();
        self.envelope.whole_with(&choices, usage, extras)
    }
}
