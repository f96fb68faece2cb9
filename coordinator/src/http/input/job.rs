//! What a request asks for, in no API's words: choices that are ready to start.
//!
//! Everything that can be wrong with a request is found here or before, so before the first byte of an
//! answer.

use super::choices::ChoiceOptions;
use super::fields::Fields;
use super::stopping::{MaxTokens, StopConditions};
use super::tokens::Encoded;
use crate::generation::{GenerationRequest, KeyId, Refusal};
use crate::guides::Guided;
use crate::guides::limits::{Limits, only};
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::ids::Identity;
use crate::http::output::choice::{ChoicePlan, ChoiceReports};
use crate::http::output::text::CompletionText;
use crate::http::server::request_log::RequestLog;
use crate::models::ServedModel;
use std::num::NonZeroU64;
use std::sync::Arc;
use woolly_protocol::sampling::SamplingOptions;

/// Log-probabilities of a prompt in one answer, alternatives included: some 20 MB of JSON.
const PROMPT_LOGPROBS_MAX: usize = 1 << 18;

/// Characters of a model's name in a request.
const MODEL_CHARS_MAX: usize = 1 << 20;

/// A checked request.
#[derive(Debug)]
pub struct Job {
    /// The model that is asked.
    pub model: Arc<ServedModel>,
    /// What is generated: one or more.
    pub choices: Vec<ChoicePlan>,
    /// Stream the answer.
    pub stream: bool,
    /// What random choices follow from: the client's seed, or the one that was drawn for it.
    pub seed: u64,
}

/// What a request wants of each of its choices.
#[derive(Debug)]
pub struct Wanted {
    /// How tokens are chosen; `choice` is still 0.
    pub sampling: SamplingOptions,
    /// When a completion ends.
    pub stopping: StopConditions,
    /// How many there are of each prompt.
    pub choices: ChoiceOptions,
    /// Tokens to generate at most if the client does not say.
    pub max_tokens_default: u32,
    /// Alternatives to report per token; `None` reports no log-probability.
    pub top_logprobs: Option<u8>,
    /// Report the log-probabilities of the prompt too.
    pub score_prompt: bool,
    /// What the completion has to be.
    pub guided: Option<Guided>,
    /// Who asks.
    pub key: KeyId,
    /// What names its calls.
    pub identity: Identity,
}

impl Wanted {
    /// The choices of prompt number `index`, which continue it in a context of `ctx` tokens.
    ///
    /// # Errors
    ///
    /// 400 if prompt and completion do not fit.
    pub fn choices(
        &self,
        gateway: &Gateway,
        model: &ServedModel,
        index: u32,
        prompt: Encoded,
        ctx: u32,
    ) -> Result<Vec<ChoicePlan>, ApiError> {
        self.check_prompt_logprobs(prompt.tokens.len())?;
        let max_tokens = self.completion_tokens(prompt.tokens.len(), ctx)?;
        let (stop_tokens, own_stops) = self.stop_tokens(model);
        let limits = self.limits(&stop_tokens, model)?;
        let (count, first) = (self.choices.count, index * self.choices.count);
        let siblings = NonZeroU64::new(gateway.next_siblings()).filter(|_| count > 1);
        let offset = prompt.echo.as_ref().map_or(0, |text| text.chars().count());
        let choice = |index| {
            let Encoded { tokens, echo, detokenizer, reading } = prompt.clone();
            let parser = reading.as_ref().and_then(|reading| model.format.parser(reading));
            let stops = Arc::clone(&self.stopping.stops);
            let text = CompletionText::new(detokenizer, stops, offset)
                .with_parser(parser)
                .showing_stops(self.stopping.show_stop)
                .stopping_after(self.stopping.min_tokens);
            let is_first = index == first;
            let reports = ChoiceReports {
                top: self.top_logprobs,
                echoes_scores: self.score_prompt,
                // The others of a prompt have the same ones.
                prompt: self.choices.reports.prompt_logprobs.filter(|_| is_first),
                ids: self.choices.reports.token_ids,
            };
            let request = GenerationRequest {
                model: model.id,
                prompt: tokens,
                score_prompt: self.score_prompt || reports.prompt.is_some(),
                max_tokens,
                top_logprobs: self.top_logprobs.max(reports.prompt),
                sampling: SamplingOptions { choice: index, ..self.sampling.clone() },
                guided: self.guided.as_ref().filter(|_| max_tokens > 0).map(Guided::again),
                stop_tokens: Arc::clone(&stop_tokens),
                key: self.key,
                time_limit: gateway.config.request_timeout,
                siblings,
                limits: limits.clone(),
                dry: self.choices.dry.clone(),
            };
            let own_stops = Arc::clone(&own_stops);
            let identity = self.identity;
            ChoicePlan { request, echo, text, own_stops, is_first, reports, identity }
        };
        Ok((first..first + count).map(choice).collect())
    }

    /// Every token of a prompt is reported with its alternatives, in one piece.
    fn check_prompt_logprobs(&self, tokens: usize) -> Result<(), ApiError> {
        let Some(top) = self.choices.reports.prompt_logprobs else { return Ok(()) };
        let entries = tokens * (usize::from(top) + 1);
        if entries <= PROMPT_LOGPROBS_MAX {
            return Ok(());
        }
        let text = format!(
            "'prompt_logprobs': {top} asks for {entries} log-probabilities of a prompt of {tokens} tokens; at \
             most {PROMPT_LOGPROBS_MAX} are reported. Ask for fewer alternatives, or a part of the prompt."
        );
        Err(ApiError::invalid("prompt_logprobs", text))
    }

    /// Tokens that end a completion, and those among them that do so for this request only.
    fn stop_tokens(&self, model: &ServedModel) -> (Arc<[u32]>, Arc<[u32]>) {
        let own = &self.stopping.stop_tokens;
        let ends =
            if self.stopping.ignore_eos { Arc::default() } else { Arc::clone(&model.end_tokens) };
        if own.is_empty() {
            return (ends, Arc::default());
        }
        let own: Arc<[u32]> = own.iter().copied().filter(|token| !ends.contains(token)).collect();
        (ends.iter().chain(&own[..]).copied().collect(), own)
    }

    /// Which tokens may come, of which these end a completion.
    fn limits(
        &self,
        ends: &Arc<[u32]>,
        model: &ServedModel,
    ) -> Result<Option<Arc<Limits>>, ApiError> {
        let ChoiceOptions { only: ids, bad_words, .. } = &self.choices;
        let vocab = model.tokenizer.vocab_size();
        let limits = Limits {
            min_tokens: self.stopping.min_tokens,
            ends: Arc::clone(ends),
            only: ids.as_ref().map(|ids| Arc::new(only(ids, vocab))),
            bad_words: Arc::clone(bad_words),
        };
        if limits.of(&[], None).is_err() {
            let text =
                "'allowed_token_ids' holds only tokens that 'min_tokens' or 'bad_words' forbid.";
            return Err(ApiError::invalid("allowed_token_ids", text));
        }
        Ok((!limits.is_none()).then(|| Arc::new(limits)))
    }

    /// Tokens to generate at most: what was asked for, but not past the end of the context, where the
    /// answer ends with `length`.
    fn completion_tokens(&self, prompt_tokens: usize, ctx: u32) -> Result<u32, ApiError> {
        let room = u32::try_from(prompt_tokens).ok().and_then(|tokens| ctx.checked_sub(tokens));
        let too_long = |wanted| ApiError::context_length(prompt_tokens, wanted, ctx as usize);
        let wanted = match self.stopping.max_tokens {
            MaxTokens::Some(_, 0) => return room.map(|_| 0).ok_or_else(|| too_long(0)),
            MaxTokens::Some(_, wanted) => wanted,
            MaxTokens::ToTheEnd => ctx,
            MaxTokens::Default => self.max_tokens_default,
        };
        let room = room.filter(|room| *room > 0).ok_or_else(|| too_long(1))?;
        let (most, least) = (wanted.min(room), self.stopping.min_tokens);
        if least > most {
            let text =
                format!("'min_tokens' is {least}, and at most {most} tokens are generated here.");
            return Err(ApiError::invalid("min_tokens", text));
        }
        Ok(most)
    }
}

/// Takes the model's name, and puts it into the request's line of the log; without one it is the first
/// that is loaded. Gives the name back as the client wrote it.
///
/// # Errors
///
/// 404 if it is neither the name nor an alias of a model that is loaded; 503 if there is neither a name nor a
/// model.
pub fn take_model(
    fields: &mut Fields,
    gateway: &Gateway,
    log: Option<&RequestLog>,
) -> Result<(String, Arc<ServedModel>), ApiError> {
    let name = fields.string("model", MODEL_CHARS_MAX)?;
    let found = gateway.model(name.as_deref());
    if let Some(log) = log {
        let unnamed = found.as_ref().map_or("", |model| &model.name);
        log.model(name.as_deref().unwrap_or(unnamed));
    }
    let model = found?;
    Ok((name.unwrap_or_else(|| model.name.clone()), model))
}

/// More choices than a key may have at a time would never all have a place.
///
/// # Errors
///
/// 400 naming the field that makes so many.
pub fn check_places(gateway: &Gateway, name: &str, choices: usize) -> Result<(), ApiError> {
    match gateway.config.key_concurrency.filter(|limit| choices > *limit) {
        None => Ok(()),
        Some(limit) => {
            let text = format!(
                "'{name}' asks for {choices} completions; an API key may have {limit} waiting and running at a \
                 time here (--key-concurrency)."
            );
            Err(ApiError::invalid(name, text))
        }
    }
}

/// The context length of a model's present plan, in tokens.
///
/// # Errors
///
/// 503 while there is no plan.
pub fn context(gateway: &Gateway, model: &ServedModel) -> Result<u32, ApiError> {
    let status = gateway.engine.status(model.id);
    match status.ctx_size {
        0 => Err(Refusal::NotReady { detail: status.detail }.into()),
        ctx => Ok(ctx),
    }
}
