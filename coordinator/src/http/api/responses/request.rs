//! The fields of a Responses request, put into the form of what all APIs of conversations have in common,
//! and what the answer says again of them.

use super::encoder::ResponseEncoder;
use super::output::Shown;
use super::{items, tools};
use crate::http::api::answer::Caller;
use crate::http::api::openai;
use crate::http::error::{ApiError, quote};
use crate::http::gateway::Gateway;
use crate::http::ids::Identity;
use crate::http::input::conversation::Conversation;
use crate::http::input::fields::{Fields, array_of, expected, string_of};
use crate::http::input::job::Job;
use crate::http::input::known::Place;
use crate::models::ServedModel;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Characters of a word such as `high`.
const WORD_CHARS_MAX: usize = 64;

/// What this API calls the fields of [`Conversation::take`].
const NAMES: &[(&str, &str)] = &[
    ("messages", "input"),
    ("max_completion_tokens", "max_output_tokens"),
    ("think", "reasoning.effort"),
    ("reasoning_effort", "reasoning.effort"),
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("verbosity", "text.verbosity"),
];

/// What `include` may name. All but one are of tools and media that no answer here can have, or ask for what
/// is there in plain text (`reasoning.encrypted_content`).
const INCLUDE: [&str; 8] = [
    LOGPROBS,
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];
const LOGPROBS: &str = "message.output_text.logprobs";

/// Fields that an answer says again as the client wrote them.
const REPEATED: [&str; 15] = [
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "truncation",
    "user",
];

/// What a request asks for.
pub struct Request {
    /// What all conversations have.
    pub asked: Conversation,
    shown: Shown,
}

/// What a request to generate asks for.
pub fn parse(
    gateway: &Gateway,
    fields: Fields,
    caller: Caller,
) -> Result<(Job, ResponseEncoder), ApiError> {
    let mut repeated = repeated(&fields);
    let Request { asked, shown } = conversation(fields, &caller.model, caller.identity)?;
    repeated.insert("temperature".into(), asked.sampling.temperature.into());
    repeated.insert("top_p".into(), asked.sampling.top_p.into());
    let tokenizer = asked.top_logprobs.map(|_| Arc::clone(&caller.model.tokenizer));
    let encoder = ResponseEncoder::new(caller.identity, caller.named, repeated, shown, tokenizer);
    let job = asked.job(gateway, caller.model, caller.key);
    Ok((job.map_err(|error| error.renamed(NAMES))?, encoder))
}

/// What a request says, all of it.
///
/// # Errors
///
/// 400 naming the field.
pub fn conversation(
    mut fields: Fields,
    model: &ServedModel,
    identity: Identity,
) -> Result<Request, ApiError> {
    let take = || {
        let said = items::take(&mut fields)?;
        fields.put("messages", said)?;
        if let Some(limit) = fields.integer("max_output_tokens", 1..=u64::MAX)? {
            fields.put("max_completion_tokens", limit)?;
        }
        let shown = take_reasoning(&mut fields)?;
        take_text(&mut fields)?;
        tools::translate(&mut fields)?;
        take_truncation(&mut fields)?;
        let top = openai::take_top_logprobs(&mut fields, "top_logprobs")?;
        let logprobs = take_include(&mut fields)? || top.is_some_and(|top| top > 0);
        let mut asked = Conversation::take(&mut fields, Place::Responses, model, identity)?;
        (asked.stream, _) = openai::take_stream(&mut fields)?;
        asked.top_logprobs = logprobs.then_some(top.unwrap_or(0));
        fields.finish()?;
        Ok(Request { asked, shown })
    };
    take().map_err(|error: ApiError| error.renamed(NAMES))
}

/// What an answer says of its request. Clients need some of it even if nothing was said.
fn repeated(fields: &Fields) -> Map<String, Value> {
    let defaults = json!({
        "metadata": {}, "parallel_tool_calls": true, "reasoning": { "effort": null, "summary": null },
        "text": { "format": { "type": "text" } }, "tool_choice": "auto", "tools": [], "truncation": "disabled",
    });
    let value = |name: &&str| fields.peek(name).cloned().unwrap_or_else(|| defaults[*name].clone());
    let mut map: Map<String, Value> =
        REPEATED.iter().map(|name| ((*name).to_owned(), value(name))).collect();
    // What this server does, whatever was asked for.
    let here = json!({
        "background": false, "store": false, "previous_response_id": null, "service_tier": "default",
    });
    if let Value::Object(here) = here {
        map.extend(here);
    }
    map
}

/// `reasoning`: how much effort, and whether a summary is asked for.
fn take_reasoning(fields: &mut Fields) -> Result<Shown, ApiError> {
    let Some(value) = fields.take("reasoning") else { return Ok(Shown::Content) };
    let mut reasoning = Fields::of_value(value, "reasoning")?;
    if let Some(effort) = reasoning.string("effort", WORD_CHARS_MAX)? {
        fields.put("reasoning_effort", effort)?;
    }
    let older = reasoning.string("generate_summary", WORD_CHARS_MAX)?;
    let summary = reasoning.string("summary", WORD_CHARS_MAX)?.or(older);
    for (name, only) in [("context", "auto"), ("mode", "standard")] {
        let path = reasoning.path(name);
        if reasoning.string(name, WORD_CHARS_MAX)?.is_some_and(|word| word != only) {
            let text = format!("'{path}' is only supported as {only}: leave it out.");
            return Err(ApiError::unsupported(&path, text));
        }
    }
    reasoning.finish()?;
    match summary.as_deref() {
        None => Ok(Shown::Content),
        Some("auto" | "detailed") => Ok(Shown::Summary),
        Some(_) => {
            let text = "Woolly does not shorten what the model thinks: leave 'reasoning.summary' out or \
                        set it to auto or detailed, which gives all of it.";
            Err(ApiError::unsupported("reasoning.summary", text))
        }
    }
}

/// `text`: the form of the answer, and how long-winded it is.
fn take_text(fields: &mut Fields) -> Result<(), ApiError> {
    let Some(value) = fields.take("text") else { return Ok(()) };
    let mut text = Fields::of_value(value, "text")?;
    if let Some(verbosity) = text.string("verbosity", WORD_CHARS_MAX)? {
        fields.put("verbosity", verbosity)?;
    }
    if let Some(value) = text.take("format") {
        let mut format = Fields::of_value(value, "text.format")?;
        match format.string("type", WORD_CHARS_MAX)?.as_deref() {
            Some("text") => {}
            Some("json_object") => {
                fields.put("response_format", json!({ "type": "json_object" }))?
            }
            Some("json_schema") => {
                let mut schema = Map::new();
                for name in ["name", "description", "schema", "strict"] {
                    if let Some(value) = format.take(name) {
                        schema.insert(name.to_owned(), value);
                    }
                }
                fields.put(
                    "response_format",
                    json!({ "type": "json_schema", "json_schema": schema }),
                )?;
            }
            _ => {
                let text = "'text.format.type' must be text, json_object or json_schema.";
                return Err(ApiError::invalid("text.format.type", text));
            }
        }
        format.finish()?;
    }
    text.finish()
}

/// Whether an input that is too long may be cut makes no difference: it is refused, which says so.
fn take_truncation(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.string("truncation", WORD_CHARS_MAX)?.as_deref() {
        None | Some("auto" | "disabled") => Ok(()),
        Some(other) => Err(expected("truncation", "auto or disabled", &other.into())),
    }
}

/// `include`: whether log-probabilities are asked for.
fn take_include(fields: &mut Fields) -> Result<bool, ApiError> {
    let Some(list) = fields.take("include") else { return Ok(false) };
    let mut logprobs = false;
    for (index, item) in array_of(list, "include", INCLUDE.len())?.into_iter().enumerate() {
        let path = format!("include[{index}]");
        let name = string_of(item, &path, WORD_CHARS_MAX)?;
        if !INCLUDE.contains(&name.as_str()) {
            let text =
                format!("'{path}' must be one of {}; got '{}'.", INCLUDE.join(", "), quote(&name));
            return Err(ApiError::invalid(&path, text));
        }
        logprobs |= name == LOGPROBS;
    }
    Ok(logprobs)
}
