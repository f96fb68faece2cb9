//! What a request asks for, in no API's words: choices that are ready to start.
//!
//! Everything that can be wrong with a request is found here or before, so before the first byte of an
//! answer.

use super::fields::Fields;
use super::stopping::{MaxTokens, StopConditions};
use super::tokens::Encoded;
use crate::generation::{GenerationRequest, KeyId, Refusal};
use crate::guides::Guided;
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::output::choice::ChoicePlan;
use crate::http::output::text::CompletionText;
use crate::http::server::request_log::RequestLog;
use crate::models::ServedModel;
use std::sync::Arc;
use woolly_protocol::sampling::SamplingOptions;

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
}

impl Wanted {
    /// Choice `index`, which continues a prompt in a context of `ctx` tokens.
    ///
    /// # Errors
    ///
    /// 400 if prompt and completion do not fit.
    pub fn choice(
        &self,
        gateway: &Gateway,
        model: &ServedModel,
        index: u32,
        prompt: Encoded,
        ctx: u32,
    ) -> Result<ChoicePlan, ApiError> {
        let max_tokens = self.completion_tokens(prompt.tokens.len(), ctx)?;
        let end_tokens = Arc::clone(&model.end_tokens);
        let stop_tokens = if self.stopping.ignore_eos { Arc::default() } else { end_tokens };
        let offset = prompt.echo.as_ref().map_or(0, |text| text.chars().count());
        let stops = Arc::clone(&self.stopping.stops);
        let text = CompletionText::new(prompt.detokenizer, stops, offset);
        let parser = prompt.reading.as_ref().and_then(|reading| model.format.parser(reading));
        let text = text.with_parser(parser);
        let request = GenerationRequest {
            model: model.id,
            prompt: prompt.tokens,
            score_prompt: self.score_prompt,
            max_tokens,
            top_logprobs: self.top_logprobs,
            sampling: SamplingOptions { choice: index, ..self.sampling.clone() },
            guided: self.guided.as_ref().filter(|_| max_tokens > 0).map(Guided::again),
            stop_tokens,
            key: self.key,
            time_limit: gateway.config.request_timeout,
        };
        Ok(ChoicePlan { request, echo: prompt.echo, text })
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
        Ok(wanted.min(room))
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
