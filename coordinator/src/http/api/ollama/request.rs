//! The fields of `/api/chat` and `/api/generate`, put into the form of what all APIs have in common.
//!
//! A request without messages, or without a prompt, asks for the model to be loaded: it is, so it is answered
//! at once, with nothing generated.

use super::encoder::{OllamaEncoder, Words};
use super::{options, turns};
use crate::http::api::answer::Caller;
use crate::http::api::openai;
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::input::conversation::Conversation;
use crate::http::input::fields::Fields;
use crate::http::input::job::{self, Job, Wanted};
use crate::http::input::known::{self, Place};
use crate::http::input::prompts::Prompt;
use crate::http::input::{choices, constraint, sampling, stopping, tokens};
use serde_json::{Value, json};
use std::sync::Arc;

/// Characters of a text: more than a body can hold.
const TEXT_CHARS_MAX: usize = usize::MAX;

/// What a request to `/api/chat` asks for.
pub fn chat(
    gateway: &Gateway,
    mut fields: Fields,
    caller: Caller,
) -> Result<(Job, OllamaEncoder), ApiError> {
    let parse = || {
        let said = fields.take("messages").unwrap_or_else(|| json!([]));
        let said = turns::translate(said)?;
        conversation(gateway, fields, caller, Words::Chat, said)
    };
    parse().map_err(|error: ApiError| error.renamed(options::NAMES))
}

/// What a request to `/api/generate` asks for.
pub fn generate(
    gateway: &Gateway,
    mut fields: Fields,
    caller: Caller,
) -> Result<(Job, OllamaEncoder), ApiError> {
    let parse = || {
        let prompt = fields.string("prompt", TEXT_CHARS_MAX)?.unwrap_or_default();
        if fields.bool("raw")?.unwrap_or(false) && !prompt.is_empty() {
            return text(gateway, fields, caller, prompt);
        }
        let system = fields.string("system", TEXT_CHARS_MAX)?.filter(|text| !text.is_empty());
        let said = |role: &str, text: String| json!({ "role": role, "content": text });
        let system = system.filter(|_| !prompt.is_empty()).map(|text| said("system", text));
        let prompt = Some(prompt).filter(|text| !text.is_empty()).map(|text| said("user", text));
        let said: Value = system.into_iter().chain(prompt).collect();
        conversation(gateway, fields, caller, Words::Generate, said)
    };
    parse()
        .map_err(|error: ApiError| error.renamed(options::NAMES).renamed(&[("messages", "prompt")]))
}

/// What all requests say of how they are answered.
struct Answered {
    stream: bool,
    top_logprobs: Option<u8>,
}

fn take_answered(fields: &mut Fields) -> Result<Answered, ApiError> {
    let logprobs = fields.bool("logprobs")?.unwrap_or(false);
    let top = openai::take_top_logprobs(fields, "top_logprobs")?;
    if !logprobs && top.is_some_and(|top| top > 0) {
        let text = "'top_logprobs' needs 'logprobs': true.";
        return Err(ApiError::invalid("top_logprobs", text));
    }
    let top_logprobs = logprobs.then_some(top.unwrap_or(0));
    Ok(Answered { stream: fields.bool("stream")?.unwrap_or(true), top_logprobs })
}

fn conversation(
    gateway: &Gateway,
    mut fields: Fields,
    caller: Caller,
    words: Words,
    said: Value,
) -> Result<(Job, OllamaEncoder), ApiError> {
    let ctx = job::context(gateway, &caller.model)?;
    let only_load = said.as_array().is_some_and(Vec::is_empty);
    // What else it says is checked all the same.
    let said = if only_load { json!([{ "role": "user", "content": "" }]) } else { said };
    fields.put("messages", said)?;
    options::translate(&mut fields, ctx)?;
    let Answered { stream, top_logprobs } = take_answered(&mut fields)?;
    let mut asked = Conversation::take(&mut fields, Place::Ollama, &caller.model, caller.identity)?;
    fields.finish()?;
    (asked.stream, asked.top_logprobs) = (stream, top_logprobs);
    let tokenizer = top_logprobs.map(|_| Arc::clone(&caller.model.tokenizer));
    let encoder = OllamaEncoder::new(caller.named, words, tokenizer);
    let job = if only_load {
        let seed = asked.sampling.seed;
        Job { model: caller.model, choices: Vec::new(), stream, seed }
    } else {
        asked.job(gateway, caller.model, caller.key)?
    };
    Ok((job, encoder))
}

/// A text that is continued as it stands, without the model's template.
fn text(
    gateway: &Gateway,
    mut fields: Fields,
    caller: Caller,
    prompt: String,
) -> Result<(Job, OllamaEncoder), ApiError> {
    for name in ["system", "template", "context"] {
        if fields
            .peek(name)
            .is_some_and(|value| !["", "[]"].contains(&value.to_string().trim_matches('"')))
        {
            let text = format!("'{name}' means nothing with 'raw': write it into 'prompt'.");
            return Err(ApiError::invalid(name, text));
        }
        fields.take(name);
    }
    let ctx = job::context(gateway, &caller.model)?;
    options::translate(&mut fields, ctx)?;
    let Answered { stream, top_logprobs } = take_answered(&mut fields)?;
    known::take(&mut fields, &[Place::Body, Place::Completions, Place::Ollama])?;
    let vocab = caller.model.tokenizer.vocab_size();
    let sampling = sampling::take(&mut fields, vocab, caller.identity.seed)?;
    let stopping = stopping::take(&mut fields, vocab)?;
    let choices = choices::take(&mut fields, &caller.model.tokenizer)?;
    let constraint = constraint::take(&mut fields)?;
    fields.finish()?;
    let guided = constraint.map(|asked| asked.compile(&caller.model, None)).transpose()?;
    stopping.check_not_zero()?;
    let seed = sampling.seed;
    let wanted = Wanted {
        sampling,
        stopping,
        choices,
        max_tokens_default: ctx,
        top_logprobs,
        score_prompt: false,
        guided,
        key: caller.key,
        identity: caller.identity,
    };
    let encoded = tokens::of_prompt(&caller.model, Prompt::Text(prompt), false, ctx)?;
    let choices = wanted.choices(gateway, &caller.model, 0, encoded, ctx)?;
    let tokenizer = top_logprobs.map(|_| Arc::clone(&caller.model.tokenizer));
    let encoder = OllamaEncoder::new(caller.named, Words::Generate, tokenizer);
    Ok((Job { model: caller.model, choices, stream, seed }, encoder))
}
