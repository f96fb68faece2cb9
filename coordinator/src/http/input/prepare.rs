//! From a body's bytes to choices that are ready to start: everything that can be wrong with a
//! request is found here, before the first byte of an answer.
//!
//! This is work for a blocking thread: parsing, rendering and tokenising of up to 8 MiB.

use super::fields::Fields;
use super::json;
use super::known;
use super::known::Place;
use super::messages;
use super::messages::Messages;
use super::prompts;
use super::prompts::Prompt;
use super::sampling::{self, TOP_LOGPROBS_MAX};
use super::stopping::{self, MaxTokens, StopConditions};
use super::template_options::{self, TemplateOptions};
use crate::generation::{GenerationRequest, KeyId, SamplingOptions};
use crate::http::error::{ApiError, Problem};
use crate::http::gateway::Gateway;
use crate::http::ids::{random, unix_seconds};
use crate::http::output::choice::ChoicePlan;
use crate::http::output::response::{Answer, Shape, UsageMode};
use crate::http::output::text::CompletionText;
use crate::http::server::request_log::RequestLog;
use crate::template::Template;
use std::sync::Arc;
use woolly_engine::chat_template::{ChatTemplateError, NO_TEMPLATE, RenderOptions};
use woolly_engine::tokenizer::{Detokenizer, EncodeOptions, TokenizerError};

/// Tokens of a legacy completion if the client does not say: OpenAI's default.
const COMPLETION_TOKENS_DEFAULT: u32 = 16;
/// Characters of a model's name in a request.
const MODEL_CHARS_MAX: usize = 1 << 20;

/// A checked request.
#[derive(Debug)]
pub struct Prepared {
    /// What all parts of the answer have in common.
    pub answer: Answer,
    /// One per choice.
    pub choices: Vec<ChoicePlan>,
    /// Stream the answer.
    pub stream: bool,
    /// What random choices follow from: the client's seed, or the one that was drawn for it.
    pub seed: u64,
}

/// A prompt in tokens, with what has to be given back of it.
struct Encoded {
    tokens: Vec<u32>,
    echo: Option<String>,
    detokenizer: Detokenizer,
}

/// What a request wants reported.
#[derive(Clone, Copy)]
struct Report {
    top_logprobs: Option<u8>,
    score_prompt: bool,
}

/// Who asks, and the request's line of the log.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key that the guard has found.
    pub key: KeyId,
    /// Learns the model that is asked for.
    pub log: RequestLog,
}

/// Checks a request to `/v1/chat/completions`.
///
/// # Errors
///
/// 400 naming the field, 404 for another model, 503 while there is no plan.
pub fn chat(gateway: &Gateway, body: &[u8], caller: &Caller) -> Result<Prepared, ApiError> {
    let mut fields = fields_of(body)?;
    let model = take_model(&mut fields, gateway, Some(&caller.log))?;
    known::settle(&mut fields, &[Place::Body, Place::Chat])?;
    let messages = messages::take(&mut fields)?;
    let options = template_options::take(&mut fields, &messages, gateway.template.get())?;
    let sampling = sampling::take(&mut fields, gateway.tokenizer.vocab_size(), random()?)?;
    let stopping = stopping::take(&mut fields)?;
    let wanted = fields.bool("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=TOP_LOGPROBS_MAX)?;
    if !wanted && top.is_some_and(|top| top > 0) {
        let text = "'top_logprobs' needs 'logprobs': true.";
        return Err(ApiError::invalid("top_logprobs", text));
    }
    let (stream, usage_mode) = take_stream(&mut fields)?;
    fields.finish()?;
    if let MaxTokens::Some(name, 0) = stopping.max_tokens {
        return Err(no_tokens_wanted(name));
    }
    let ctx = context(gateway)?;
    let tokens = chat_tokens(gateway, &messages, options, ctx)?;
    if tokens.is_empty() {
        let text = "The model's chat template makes no tokens of these messages: there is nothing to \
                    answer. Send a message whose content is not empty.";
        return Err(ApiError::invalid("messages", text));
    }
    let max_tokens = completion_tokens(tokens.len(), &stopping, ctx, ctx)?;
    let report =
        Report { top_logprobs: wanted.then(|| small(top.unwrap_or(0))), score_prompt: false };
    let detokenizer = Detokenizer::new(&gateway.tokenizer);
    let encoded = Encoded { tokens, echo: None, detokenizer };
    let mut choice = plan(gateway, encoded, &sampling, &stopping, max_tokens, report);
    choice.request.key = caller.key;
    let choices = vec![choice];
    let seed = sampling.seed;
    let answer = answer(gateway, Shape::Chat, model, wanted, usage_mode)?;
    Ok(Prepared { answer, choices, stream, seed })
}

/// Checks a request to `/v1/completions`.
///
/// # Errors
///
/// As [`chat`].
pub fn completion(gateway: &Gateway, body: &[u8], caller: &Caller) -> Result<Prepared, ApiError> {
    let vocab = gateway.tokenizer.vocab_size();
    let mut fields = fields_of(body)?;
    let model = take_model(&mut fields, gateway, Some(&caller.log))?;
    known::settle(&mut fields, &[Place::Body, Place::Completions])?;
    let prompts = prompts::take(&mut fields, vocab)?;
    check_count(gateway, prompts.len())?;
    let sampling = sampling::take(&mut fields, vocab, random()?)?;
    let stopping = stopping::take(&mut fields)?;
    let top = fields.integer("logprobs", 0..=TOP_LOGPROBS_MAX)?;
    let echo = fields.bool("echo")?.unwrap_or(false);
    let (stream, usage_mode) = take_stream(&mut fields)?;
    fields.finish()?;
    if let (false, MaxTokens::Some(name, 0)) = (echo, stopping.max_tokens) {
        return Err(no_tokens_wanted(name));
    }
    let ctx = context(gateway)?;
    let report = Report { top_logprobs: top.map(small), score_prompt: echo && top.is_some() };
    let mut choices = Vec::with_capacity(prompts.len());
    for (index, prompt) in (0..).zip(prompts) {
        let encoded = encode(gateway, prompt, echo, ctx)?;
        let length = encoded.tokens.len();
        let max_tokens = completion_tokens(length, &stopping, COMPLETION_TOKENS_DEFAULT, ctx)?;
        let mut choice = plan(gateway, encoded, &sampling, &stopping, max_tokens, report);
        choice.request.sampling.choice = index;
        choice.request.key = caller.key;
        choices.push(choice);
    }
    let seed = sampling.seed;
    let answer = answer(gateway, Shape::Completion, model, top.is_some(), usage_mode)?;
    Ok(Prepared { answer, choices, stream, seed })
}

/// More prompts than a key may have at a time would never all have a place.
fn check_count(gateway: &Gateway, prompts: usize) -> Result<(), ApiError> {
    match gateway.config.key_concurrency.filter(|limit| prompts > *limit) {
        None => Ok(()),
        Some(limit) => {
            let text = format!(
                "'prompt' has {prompts} prompts; an API key may have {limit} waiting and running at \
                 a time here (--key-concurrency)."
            );
            Err(ApiError::invalid("prompt", text))
        }
    }
}

/// A body's fields.
///
/// # Errors
///
/// 400 if it is not one JSON object.
pub fn fields_of(body: &[u8]) -> Result<Fields, ApiError> {
    let value = json::parse(body).map_err(|reason| {
        ApiError::new(Problem::Invalid, format!("The body is not valid JSON: {reason}."))
    })?;
    Fields::of_body(value)
}

/// Takes the model's name, and puts it into the request's line of the log; without one it is the model
/// that is served.
///
/// # Errors
///
/// 404 if it is neither the id nor an alias of the model that is served.
pub fn take_model(
    fields: &mut Fields,
    gateway: &Gateway,
    log: Option<&RequestLog>,
) -> Result<String, ApiError> {
    let id = &gateway.config.model_id;
    let name = fields.string("model", MODEL_CHARS_MAX)?;
    if let Some(log) = log {
        log.model(name.as_ref().unwrap_or(id));
    }
    match name {
        Some(name) if gateway.config.serves(&name) => Ok(name),
        Some(name) => Err(ApiError::model_not_found(&name, id)),
        None => Ok(id.clone()),
    }
}

/// The tokens of a conversation as the model's template writes it.
///
/// # Errors
///
/// 400 if there is no template, it refuses the messages, or they do not fit `ctx`.
pub fn chat_tokens(
    gateway: &Gateway,
    messages: &Messages,
    options: TemplateOptions,
    ctx: u32,
) -> Result<Vec<u32>, ApiError> {
    let template = match &gateway.template {
        Template::Ready(template) => template,
        Template::Missing => return Err(ApiError::unsupported("messages", NO_TEMPLATE)),
        Template::Broken { cause } => {
            let text = format!(
                "This model's chat template cannot be used: {cause}. Use /v1/completions, or start the \
                 coordinator with --chat-template-file."
            );
            return Err(ApiError::unsupported("messages", text));
        }
    };
    let options = RenderOptions {
        add_generation_prompt: options.add_generation_prompt,
        continue_final: options.continue_final,
        variables: Some(&options.variables),
        unix_seconds: i64::try_from(unix_seconds()).unwrap_or(i64::MAX),
        ..RenderOptions::default()
    };
    let prompt = template.prompt(&messages.list, &options).map_err(|error| match error {
        ChatTemplateError::Thread(_) => ApiError::new(Problem::Internal, error.to_string()),
        _ => ApiError::invalid("messages", format!("{error}.")),
    })?;
    check_bytes(gateway, prompt.text().len(), ctx)?;
    gateway.tokenizer.encode_chat(&prompt).map_err(|error| refused_text("messages", &error))
}

fn encode(gateway: &Gateway, prompt: Prompt, echo: bool, ctx: u32) -> Result<Encoded, ApiError> {
    let tokenizer = &gateway.tokenizer;
    let encoded = match prompt {
        Prompt::Tokens(tokens) if echo => {
            // One text with the completion: a character may begin here and end there.
            let mut detokenizer = Detokenizer::new(tokenizer);
            let echo = tokens.iter().map(|token| detokenizer.push(tokenizer, *token)).collect();
            Encoded { tokens, echo: Some(echo), detokenizer }
        }
        Prompt::Tokens(tokens) => {
            Encoded { tokens, echo: None, detokenizer: Detokenizer::continuing() }
        }
        Prompt::Text(text) => {
            check_bytes(gateway, text.len(), ctx)?;
            let options = EncodeOptions { add_special: true, parse_special: true };
            let tokens = tokenizer.encode(&text, options);
            let tokens = tokens.map_err(|error| refused_text("prompt", &error))?;
            let echo = echo.then_some(text);
            Encoded { tokens, echo, detokenizer: Detokenizer::continuing() }
        }
    };
    if encoded.tokens.is_empty() {
        let text = "'prompt' is empty, and this model has no token that begins a text.";
        return Err(ApiError::invalid("prompt", text));
    }
    Ok(encoded)
}

/// A text that is longer than a whole context of the longest token is not tokenised at all.
fn check_bytes(gateway: &Gateway, bytes: usize, ctx: u32) -> Result<(), ApiError> {
    let at_least = bytes.div_ceil(gateway.tokenizer.longest_token().max(1));
    if at_least > ctx as usize {
        Err(ApiError::context_length(at_least, 1, ctx as usize))
    } else {
        Ok(())
    }
}

/// The error for a text that the tokenizer refuses.
pub fn refused_text(param: &str, error: &TokenizerError) -> ApiError {
    ApiError::invalid(param, format!("The text cannot be tokenised: {error}."))
}

/// Tokens to generate at most: what was asked for, but not past the end of the context, where the
/// answer ends with `length`.
fn completion_tokens(
    prompt_tokens: usize,
    stopping: &StopConditions,
    default: u32,
    ctx: u32,
) -> Result<u32, ApiError> {
    let room = u32::try_from(prompt_tokens).ok().and_then(|tokens| ctx.checked_sub(tokens));
    let too_long = |wanted| ApiError::context_length(prompt_tokens, wanted, ctx as usize);
    let wanted = match stopping.max_tokens {
        MaxTokens::Some(_, 0) => return room.map(|_| 0).ok_or_else(|| too_long(0)),
        MaxTokens::Some(_, wanted) => wanted,
        MaxTokens::ToTheEnd => ctx,
        MaxTokens::Default => default,
    };
    let room = room.filter(|room| *room > 0).ok_or_else(|| too_long(1))?;
    Ok(wanted.min(room))
}

fn no_tokens_wanted(name: &str) -> ApiError {
    let text =
        format!("'{name}' must be at least 1; 0 is for /v1/completions with 'echo': true only.");
    ApiError::invalid(name, text)
}

fn plan(
    gateway: &Gateway,
    encoded: Encoded,
    sampling: &SamplingOptions,
    stopping: &StopConditions,
    max_tokens: u32,
    report: Report,
) -> ChoicePlan {
    let stop_tokens =
        if stopping.ignore_eos { Vec::new() } else { gateway.tokenizer.end_tokens().to_vec() };
    let offset = encoded.echo.as_ref().map_or(0, |text| text.chars().count());
    let text = CompletionText::new(encoded.detokenizer, Arc::clone(&stopping.stops), offset);
    let request = GenerationRequest {
        prompt: encoded.tokens,
        score_prompt: report.score_prompt,
        max_tokens,
        top_logprobs: report.top_logprobs,
        sampling: sampling.clone(),
        stop_tokens,
        key: KeyId::default(),
        time_limit: gateway.config.request_timeout,
    };
    ChoicePlan { request, echo: encoded.echo, text }
}

/// Takes `stream` and `stream_options`, which mean nothing without a stream.
fn take_stream(fields: &mut Fields) -> Result<(bool, UsageMode), ApiError> {
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

/// The context length of the present plan, in tokens.
///
/// # Errors
///
/// 503 while there is no plan.
pub fn context(gateway: &Gateway) -> Result<u32, ApiError> {
    let status = gateway.engine.status();
    match status.ctx_size {
        0 => Err(crate::generation::Refusal::NotReady { detail: status.detail }.into()),
        ctx => Ok(ctx),
    }
}

fn answer(
    gateway: &Gateway,
    shape: Shape,
    model: String,
    logprobs: bool,
    usage_mode: UsageMode,
) -> Result<Answer, ApiError> {
    let prefix = match shape {
        Shape::Chat => "chatcmpl",
        Shape::Completion => "cmpl",
    };
    let id = format!("{prefix}-{:016x}", random()?);
    let tokenizer = gateway.tokenizer.clone();
    Ok(Answer { shape, id, created: unix_seconds(), model, logprobs, usage_mode, tokenizer })
}

fn small(value: u64) -> u8 {
    u8::try_from(value).expect("the range of the field fits u8")
}
