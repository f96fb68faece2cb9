//! `POST /infill`: a text between two others, in llama-server's words.

use super::answer::{Api, Caller, answer};
use super::openai;
use super::timings::Timings;
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::input::fields::{Fields, array_of};
use crate::http::input::fill_in::{self, Around, TEXT_CHARS_MAX};
use crate::http::input::job::{self, Job, Wanted};
use crate::http::input::known::{self, Place};
use crate::http::input::{choices, sampling, stopping};
use crate::http::output::delta::{Delta, End, WholeChoice};
use crate::http::output::encoder::Encoder;
use crate::http::output::sse::Events;
use crate::http::usage::Usage;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// Other files of a request.
const FILES_MAX: usize = 256;
/// Characters of a file's name.
const FILE_NAME_CHARS_MAX: usize = 1024;

/// Fills a text in.
///
/// # Errors
///
/// 400 naming the field, also if the model cannot; 404 for another model, 503 while there is no plan; a
/// refusal of the engine, or its failure.
pub async fn infill(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&gateway, request, Some(Api::Infill), parse).await
}

/// What a request asks for.
pub(super) fn parse(
    gateway: &Gateway,
    mut fields: Fields,
    caller: Caller,
) -> Result<(Job, InfillEncoder), ApiError> {
    known::take(&mut fields, &[Place::Body])?;
    let before = required(&mut fields, "input_prefix")?;
    let after = required(&mut fields, "input_suffix")?;
    let prompt = fields.string("prompt", TEXT_CHARS_MAX)?.unwrap_or_default();
    let files = files(&mut fields)?;
    let vocab = caller.model.tokenizer.vocab_size();
    let sampling = sampling::take(&mut fields, vocab, caller.identity.seed)?;
    let stopping = stopping::take(&mut fields, vocab)?;
    let options = choices::take(&mut fields, &caller.model.tokenizer)?;
    if options.count > 1 || options.reports.prompt_logprobs.is_some() {
        let name = if options.count > 1 { "n" } else { "prompt_logprobs" };
        let text = format!(
            "/infill gives one text: leave '{name}' out, or use 'suffix' of /v1/completions."
        );
        return Err(ApiError::unsupported(name, text));
    }
    let (stream, _) = openai::take_stream(&mut fields)?;
    fields.finish()?;
    stopping.check_not_zero()?;
    let ctx = job::context(gateway, &caller.model)?;
    let mut tokens = fill_in::plain(&caller.model, &before, "input_prefix", ctx)?;
    tokens.extend(fill_in::plain(&caller.model, &prompt, "prompt", ctx)?);
    let around = Around { before: tokens, after: &after, files: &files, field: "input_suffix" };
    let encoded = fill_in::of_around(&caller.model, around, ctx)?;
    let (seed, ids) = (sampling.seed, options.reports.token_ids);
    let wanted = Wanted {
        sampling,
        stopping,
        choices: options,
        max_tokens_default: ctx,
        top_logprobs: None,
        score_prompt: false,
        guided: None,
        key: caller.key,
        identity: caller.identity,
    };
    let choices = wanted.choices(gateway, &caller.model, 0, encoded, ctx)?;
    Ok((
        Job { model: caller.model, choices, stream, seed },
        InfillEncoder { model: caller.named, ids },
    ))
}

fn required(fields: &mut Fields, name: &str) -> Result<String, ApiError> {
    let missing = || ApiError::invalid(name, format!("'{name}' is missing."));
    fields.string(name, TEXT_CHARS_MAX)?.ok_or_else(missing)
}

/// Other files with their names.
fn files(fields: &mut Fields) -> Result<Vec<(String, String)>, ApiError> {
    let Some(value) = fields.take("input_extra") else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for (index, item) in array_of(value, "input_extra", FILES_MAX)?.into_iter().enumerate() {
        let at = format!("input_extra[{index}]");
        let mut file = Fields::of_value(item, &at)?;
        let name = file.string("filename", FILE_NAME_CHARS_MAX)?;
        let missing = || ApiError::invalid(&at, format!("'{at}.text' is missing."));
        let text = file.string("text", TEXT_CHARS_MAX)?.ok_or_else(missing)?;
        file.finish()?;
        files.push((name.unwrap_or_else(|| "tmp".to_owned()), text));
    }
    Ok(files)
}

/// Writes the text that was filled in.
#[derive(Debug)]
pub(super) struct InfillEncoder {
    /// The model's name as the client wrote it.
    model: String,
    /// Whether the text's tokens were asked for.
    ids: bool,
}

impl InfillEncoder {
    /// What the last message of an answer says.
    fn end(&self, text: &str, ids: &[u32], end: &End, usage: Usage) -> Value {
        let (kind, word) = match end {
            End::Stop | End::StopToken(_) | End::ToolCalls => ("eos", ""),
            End::StopString(word) => ("word", word.as_str()),
            End::Length => ("limit", ""),
        };
        json!({
            "index": 0,
            "content": text,
            "tokens": if self.ids { ids } else { &[] },
            "stop": true,
            "model": self.model,
            "tokens_predicted": usage.completion_tokens,
            "tokens_evaluated": usage.prompt_tokens,
            "tokens_cached": usage.prompt_tokens + usage.completion_tokens,
            "truncated": false,
            "stop_type": kind,
            "stopping_word": word,
            "timings": Timings::of(&usage),
        })
    }
}

impl Encoder for InfillEncoder {
    fn delta(&mut self, _: usize, delta: &Delta, usage: Usage, events: &mut Events) {
        match delta {
            Delta::Text { text, logprobs } => events.message(&json!({
                "index": 0,
                "content": text,
                "tokens": if self.ids { &logprobs.ids[..] } else { &[] },
                "stop": false,
                "tokens_predicted": usage.completion_tokens,
                "tokens_evaluated": usage.prompt_tokens,
            })),
            Delta::End { end } => events.message(&self.end("", &[], end, usage)),
            Delta::Start
            | Delta::Reasoning { .. }
            | Delta::ToolCall { .. }
            | Delta::Arguments { .. } => {}
        }
    }

    /// llama-server's own streams have no other end than their last message.
    fn finish(&mut self, _: Usage, _: &mut Events) {}

    fn error(&mut self, error: &ApiError, events: &mut Events) {
        events.message(&error.body());
    }

    fn whole(&self, choices: &[WholeChoice], usage: Usage) -> String {
        let choice = &choices[0];
        let end = choice.end.as_ref().unwrap_or(&End::Length);
        self.end(&choice.text, &choice.logprobs.ids, end, usage).to_string()
    }
}
