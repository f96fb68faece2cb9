//! What OpenAI's two ways to generate have in common: some fields, the envelope of an answer, usage, and
//! how a stream ends.

use super::timings::Timings;
use crate::http::error::ApiError;
use crate::http::ids::Identity;
use crate::http::input::choices::Reports;
use crate::http::input::fields::Fields;
use crate::http::input::sampling::TOP_LOGPROBS_MAX;
use crate::http::output::choice::ChoicePlan;
use crate::http::output::delta::End;
use crate::http::output::sse::Events;
use crate::http::usage::Usage;
use serde::Serialize;
use serde_json::Value;

/// Names what computed an answer: with equal seeds, equal fingerprints give equal text.
const FINGERPRINT: &str = concat!("woolly-", env!("CARGO_PKG_VERSION"));

/// When a stream reports usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageMode {
    /// In a chunk of its own at the end (`stream_options.include_usage`).
    pub at_end: bool,
    /// In every chunk, as far as it has come (`stream_options.continuous_usage_stats`).
    pub in_each: bool,
}

/// Takes `stream` and `stream_options`, which mean nothing without a stream.
///
/// # Errors
///
/// 400 naming the field.
pub fn take_stream(fields: &mut Fields) -> Result<(bool, UsageMode), ApiError> {
    let stream = fields.bool("stream")?.unwrap_or(false);
    let Some(options) = fields.take("stream_options") else {
        return Ok((stream, UsageMode::default()));
    };
    let mut options = Fields::of_value(options, "stream_options")?;
    let mode = UsageMode {
        at_end: options.bool("include_usage")?.unwrap_or(false),
        in_each: options.bool("continuous_usage_stats")?.unwrap_or(false),
    };
    if options.bool("include_obfuscation")?.unwrap_or(false) {
        let name = "stream_options.include_obfuscation";
        return Err(ApiError::unsupported(name, format!("'{name}' is not supported.")));
    }
    options.finish()?;
    Ok((stream, mode))
}

/// Takes the number of alternatives to report per token.
///
/// # Errors
///
/// 400 naming the field.
pub fn take_top_logprobs(fields: &mut Fields, name: &str) -> Result<Option<u8>, ApiError> {
    let top = fields.integer(name, 0..=TOP_LOGPROBS_MAX)?;
    Ok(top.map(|top| u8::try_from(top).expect("the range of the field fits u8")))
}

/// OpenAI's word for why a choice ended.
pub fn finish_reason(end: &End) -> &'static str {
    match end {
        End::Stop | End::StopString(_) | End::StopToken(_) => "stop",
        End::Length => "length",
        End::ToolCalls => "tool_calls",
    }
}

/// What ended a choice if the request had named it: vLLM's `stop_reason`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum StopReason<'a> {
    /// A stop string.
    String(&'a str),
    /// A token.
    Token(u32),
}

/// The string or token of the request that ended a choice; `None` if the model did, or its length.
pub fn stop_reason(end: &End) -> Option<StopReason<'_>> {
    match end {
        End::StopString(text) => Some(StopReason::String(text)),
        End::StopToken(token) => Some(StopReason::Token(*token)),
        End::Stop | End::Length | End::ToolCalls => None,
    }
}

/// What the answers of one API call themselves.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// How their ids begin.
    pub id: &'static str,
    /// `object` of a whole answer.
    pub whole: &'static str,
    /// `object` of a part of a stream.
    pub chunk: &'static str,
}

/// What all parts of one answer have in common.
#[derive(Clone, Debug)]
pub struct Envelope {
    names: Names,
    id: String,
    /// Unix seconds.
    created: u64,
    /// The model's name as the client wrote it.
    model: String,
    usage_mode: UsageMode,
    /// Say how long it took.
    timings: bool,
}

/// What an answer to a conversation says beside its choices, in vLLM's words.
#[derive(Debug, Default)]
pub struct Extras<'a> {
    /// The prompt's tokens, if they were asked for.
    pub prompt_token_ids: Option<&'a [u32]>,
    /// Their log-probabilities, if they were.
    pub prompt_logprobs: Option<Value>,
}

/// An answer, or a chunk of a stream, with choices of the API's own.
#[derive(Serialize)]
struct Answer<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: &'a [C],
    #[serde(skip_serializing_if = "UsageField::is_absent")]
    usage: UsageField,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

/// `usage` as a client has asked for it.
#[derive(Serialize)]
#[serde(untagged)]
enum UsageField {
    Absent,
    /// It comes in a later chunk.
    Null,
    Counted(Counts),
}

impl UsageField {
    fn is_absent(&self) -> bool {
        matches!(self, UsageField::Absent)
    }
}

#[derive(Serialize)]
struct Counts {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<PromptDetails>,
    /// Only if the model thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u64,
}

#[derive(Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
}

impl Envelope {
    /// The envelope of an answer to a request for `model`.
    pub fn new(
        names: Names,
        identity: &Identity,
        model: String,
        usage_mode: UsageMode,
    ) -> Envelope {
        let id = identity.named(&format!("{}-", names.id));
        Envelope { names, id, created: identity.created, model, usage_mode, timings: false }
    }

    /// With what else was asked for.
    pub fn reporting(self, reports: Reports) -> Envelope {
        Envelope { timings: reports.timings, ..self }
    }

    /// Writes a chunk of a stream with one choice.
    pub fn chunk(&self, choice: impl Serialize, usage: Usage, events: &mut Events) {
        self.chunk_with(choice, usage, Extras::default(), events);
    }

    /// The same with more beside the choice.
    pub fn chunk_with(
        &self,
        choice: impl Serialize,
        used: Usage,
        extras: Extras<'_>,
        events: &mut Events,
    ) {
        let usage = match self.usage_mode {
            UsageMode { in_each: true, .. } => counted(used),
            UsageMode { at_end: true, .. } => UsageField::Null,
            UsageMode { .. } => UsageField::Absent,
        };
        let choice = [choice];
        let mut chunk = self.answer(self.names.chunk, &choice, usage, extras);
        chunk.timings = self.timings.then(|| Timings::of(&used));
        events.message(&chunk);
    }

    /// Writes the end of a stream: a chunk with the usage and no choice, if the client asked for it.
    pub fn finish(&self, usage: Usage, events: &mut Events) {
        if self.usage_mode.at_end {
            let none: [(); 0] = [];
            let extras = Extras::default();
            let mut chunk = self.answer(self.names.chunk, &none, counted(usage), extras);
            chunk.timings = self.timings.then(|| Timings::of(&usage));
            events.message(&chunk);
        }
        events.done();
    }

    /// A whole answer, as JSON text.
    pub fn whole(&self, choices: &[impl Serialize], usage: Usage) -> String {
        self.whole_with(choices, usage, Extras::default())
    }

    /// The same with more beside the choices.
    pub fn whole_with(
        &self,
        choices: &[impl Serialize],
        usage: Usage,
        extras: Extras<'_>,
    ) -> String {
        let mut answer = self.answer(self.names.whole, choices, counted(usage), extras);
        answer.timings = self.timings.then(|| Timings::of(&usage));
        serde_json::to_string(&answer).expect("memory takes everything, and all keys are strings")
    }

    fn answer<'a, C>(
        &'a self,
        object: &'static str,
        choices: &'a [C],
        usage: UsageField,
        extras: Extras<'a>,
    ) -> Answer<'a, C> {
        Answer {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            system_fingerprint: FINGERPRINT,
            choices,
            usage,
            prompt_token_ids: extras.prompt_token_ids,
            prompt_logprobs: extras.prompt_logprobs,
            timings: None,
        }
    }
}

/// The tokens of each prompt of a request.
pub fn prompt_ids(choices: &[ChoicePlan]) -> Vec<Vec<u32>> {
    choices
        .iter()
        .filter(|choice| choice.is_first)
        .map(|choice| choice.request.prompt.clone())
        .collect()
}

/// Log-probabilities of a prompt come in one piece.
///
/// # Errors
///
/// 400 if they are wanted in a stream.
pub fn check_prompt_logprobs(reports: Reports, stream: bool) -> Result<(), ApiError> {
    if stream && reports.prompt_logprobs.is_some() {
        let text = "'prompt_logprobs' are not streamed: leave 'stream' out.";
        return Err(ApiError::invalid("prompt_logprobs", text));
    }
    Ok(())
}

/// Writes the error that ends a stream. The end is written all the same, as OpenAI's clients wait for it.
pub fn error(error: &ApiError, events: &mut Events) {
    events.message(&error.body());
    events.done();
}

fn counted(usage: Usage) -> UsageField {
    UsageField::Counted(Counts {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        total_tokens: usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details: usage
            .cached_tokens
            .map(|cached_tokens| PromptDetails { cached_tokens }),
        completion_tokens_details: Some(usage.reasoning_tokens)
            .filter(|tokens| *tokens > 0)
            .map(|reasoning_tokens| CompletionDetails { reasoning_tokens }),
    })
}
