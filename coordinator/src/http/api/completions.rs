//! `POST /v1/completions`: one or more texts to be continued.

use super::answer::{Api, Caller, answer};
use super::logprobs;
use super::openai::{self, Envelope, Names, StopReason};
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::input::choices::Reports;
use crate::http::input::fields::Fields;
use crate::http::input::fill_in::{self, TEXT_CHARS_MAX};
use crate::http::input::job::{self, Job, Wanted};
use crate::http::input::known::{self, Place};
use crate::http::input::prompts::PROMPTS_MAX;
use crate::http::input::{choices, constraint, prompts, sampling, stopping, tokens};
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

/// Tokens of a completion if the client does not say: OpenAI's default.
const MAX_TOKENS_DEFAULT: u32 = 16;

const NAMES: Names = Names { id: "cmpl", whole: "text_completion", chunk: "text_completion" };

/// Continues one or more texts.
///
/// # Errors
///
/// 400 naming the field, 404 for another model, 503 while there is no plan; a refusal of the engine, or
/// its failure.
pub async fn completions(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&gateway, request, Some(Api::Completions), parse).await
}

/// What a completions request asks for.
pub(super) fn parse(
    gateway: &Gateway,
    mut fields: Fields,
    caller: Caller,
) -> Result<(Job, CompletionsEncoder), ApiError> {
    let vocab = caller.model.tokenizer.vocab_size();
    known::take(&mut fields, &[Place::Body, Place::Completions])?;
    let prompts = prompts::take(&mut fields, vocab)?;
    let sampling = sampling::take(&mut fields, vocab, caller.identity.seed)?;
    let stopping = stopping::take(&mut fields, vocab)?;
    let options = choices::take(&mut fields, &caller.model.tokenizer)?;
    let each = options.count as usize;
    check_count(gateway, prompts.len(), each)?;
    let constraint = constraint::take(&mut fields)?;
    let top_logprobs = openai::take_top_logprobs(&mut fields, "logprobs")?;
    let echo = fields.bool("echo")?.unwrap_or(false);
    let (stream, usage_mode) = openai::take_stream(&mut fields)?;
    let reports = options.reports;
    openai::check_prompt_logprobs(reports, stream)?;
    let suffix = fields.string("suffix", TEXT_CHARS_MAX)?.filter(|suffix| !suffix.is_empty());
    fields.finish()?;
    if !echo {
        stopping.check_not_zero()?;
    }
    let ctx = job::context(gateway, &caller.model)?;
    let guided = constraint.map(|asked| asked.compile(&caller.model, None)).transpose()?;
    let seed = sampling.seed;
    let wanted = Wanted {
        sampling,
        stopping,
        choices: options,
        max_tokens_default: MAX_TOKENS_DEFAULT,
        top_logprobs,
        score_prompt: echo && top_logprobs.is_some(),
        guided,
        key: caller.key,
        identity: caller.identity,
    };
    let mut choices = Vec::new();
    for (index, prompt) in (0..).zip(prompts) {
        let encoded = match &suffix {
            Some(suffix) => fill_in::of_suffix(&caller.model, prompt, suffix, echo, ctx)?,
            None => tokens::of_prompt(&caller.model, prompt, echo, ctx)?,
        };
        choices.extend(wanted.choices(gateway, &caller.model, index, encoded, ctx)?);
    }
    let envelope =
        Envelope::new(NAMES, &caller.identity, caller.named, usage_mode).reporting(reports);
    let (logprobs, tokenizer) = (top_logprobs.is_some(), Arc::clone(&caller.model.tokenizer));
    let prompts = if reports.token_ids { openai::prompt_ids(&choices) } else { Vec::new() };
    let encoder = CompletionsEncoder { envelope, logprobs, prompts, each, reports, tokenizer };
    Ok((Job { model: caller.model, choices, stream, seed }, encoder))
}

/// A request makes as many choices as it may have prompts.
fn check_count(gateway: &Gateway, prompts: usize, each: usize) -> Result<(), ApiError> {
    let choices = prompts * each;
    if choices > PROMPTS_MAX {
        let text = format!(
            "{prompts} prompts with 'n': {each} ask for {choices} completions; at most {PROMPTS_MAX} are made."
        );
        return Err(ApiError::invalid("n", text));
    }
    job::check_places(gateway, if each > 1 { "n" } else { "prompt" }, choices)
}

/// Writes completions.
#[derive(Debug)]
pub(super) struct CompletionsEncoder {
    envelope: Envelope,
    /// Whether log-probabilities were asked for.
    logprobs: bool,
    /// The tokens of each prompt, if they were asked for.
    prompts: Vec<Vec<u32>>,
    /// Choices of each prompt.
    each: usize,
    /// What else was asked for.
    reports: Reports,
    /// Spells tokens.
    tokenizer: Arc<Tokenizer>,
}

/// A choice, of a whole answer or in a chunk of a stream.
#[derive(Default, Serialize)]
struct Choice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<Value>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<Value>,
}

impl CompletionsEncoder {
    fn logprobs(&self, logprobs: &Logprobs) -> Option<Value> {
        self.logprobs.then(|| logprobs::completion(logprobs, &self.tokenizer))
    }

    /// The tokens of the prompt of a choice, if they were asked for.
    fn prompt_ids(&self, index: usize) -> Option<&[u32]> {
        self.prompts.get(index / self.each).map(Vec::as_slice)
    }

    /// The log-probabilities of the prompt of a choice, if they were: the first of a prompt has them.
    fn prompt_logprobs(&self, index: usize, choices: &[WholeChoice]) -> Option<Value> {
        let first = choices.get(index - index % self.each)?;
        let wanted = self.reports.prompt_logprobs.is_some();
        wanted.then(|| logprobs::prompt(&first.logprobs.prompt, &self.tokenizer))
    }
}

impl Encoder for CompletionsEncoder {
    fn delta(&mut self, index: usize, delta: &Delta, usage: Usage, events: &mut Events) {
        let mut choice = Choice { index, ..Choice::default() };
        match delta {
            // Nothing is to be said yet but of the prompt.
            Delta::Start if self.prompts.is_empty() => return,
            Delta::Start => choice.prompt_token_ids = self.prompt_ids(index),
            Delta::Text { text, logprobs } => {
                choice.text = text;
                choice.logprobs = self.logprobs(logprobs);
                choice.token_ids = self.reports.token_ids.then_some(&logprobs.ids[..]);
            }
            Delta::End { end } => {
                choice.finish_reason = Some(openai::finish_reason(end));
                choice.stop_reason = openai::stop_reason(end);
            }
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
                text: &choice.text,
                logprobs: self.logprobs(&choice.logprobs),
                finish_reason: choice.end.as_ref().map(openai::finish_reason),
                stop_reason: choice.end.as_ref().and_then(openai::stop_reason),
                token_ids: self.reports.token_ids.then_some(&choice.logprobs.ids[..]),
                prompt_token_ids: self.prompt_ids(index),
                prompt_logprobs: self.prompt_logprobs(index, choices),
            })
            .collect();
        self.envelope.whole(&choices, usage)
    }
}
