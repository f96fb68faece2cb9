//! The fields of an Anthropic request, put into the form of what all APIs of conversations have in common.

use super::encoder::MessageEncoder;
use super::{tools, turns};
use crate::http::api::answer::Caller;
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::ids::Identity;
use crate::http::input::conversation::Conversation;
use crate::http::input::fields::{Fields, expected};
use crate::http::input::job::Job;
use crate::http::input::known::Place;
use crate::models::ServedModel;
use serde_json::{Value, json};

/// The fewest tokens of a thinking budget that Anthropic takes.
const BUDGET_MIN: u64 = 1024;
/// Characters of a word such as `enabled`.
const WORD_CHARS_MAX: usize = 32;

/// What this API calls the fields of [`Conversation::take`].
pub const NAMES: &[(&str, &str)] = &[
    ("stop", "stop_sequences"),
    ("think", "thinking"),
    ("reasoning_effort", "output_config.effort"),
    ("response_format.json_schema", "output_config.format"),
    ("response_format", "output_config.format"),
    ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
];

/// What a request asks for besides its length.
pub struct Request {
    /// What all conversations have.
    pub asked: Conversation,
    /// What the model thinks is left out of the answer.
    pub hides_thinking: bool,
}

/// What a request to generate asks for.
pub fn parse(
    gateway: &Gateway,
    mut fields: Fields,
    caller: Caller,
) -> Result<(Job, MessageEncoder), ApiError> {
    let parse = || {
        match fields.peek("max_tokens") {
            None => {
                let text = "'max_tokens' is missing: Anthropic's API asks for it.";
                return Err(ApiError::invalid("max_tokens", text));
            }
            Some(value) if value.as_i64().is_some_and(|tokens| tokens < 0) => {
                return Err(expected("max_tokens", "an integer of at least 1", value));
            }
            Some(_) => {}
        }
        let Request { mut asked, hides_thinking } =
            conversation(&mut fields, &caller.model, caller.identity)?;
        asked.stream = fields.bool("stream")?.unwrap_or(false);
        fields.finish()?;
        let encoder = MessageEncoder::new(&caller.identity, caller.named, hides_thinking);
        Ok((asked.job(gateway, caller.model, caller.key)?, encoder))
    };
    parse().map_err(|error: ApiError| error.renamed(NAMES))
}

/// What a request says of its conversation; `stream` is left.
///
/// # Errors
///
/// 400 naming the field.
pub fn conversation(
    fields: &mut Fields,
    model: &ServedModel,
    identity: Identity,
) -> Result<Request, ApiError> {
    let said = turns::take(fields)?;
    fields.put("messages", said)?;
    if let Some(stops) = fields.take("stop_sequences") {
        fields.put("stop", stops)?;
    }
    if let Some(warm) = fields.peek("temperature").filter(|warm| warm.as_f64() > Some(1.0)) {
        return Err(expected("temperature", "a number from 0 to 1", warm));
    }
    tools::translate(fields)?;
    let hides_thinking = take_thinking(fields)?;
    take_output_config(fields, model)?;
    let asked = Conversation::take(fields, Place::Anthropic, model, identity)?;
    Ok(Request { asked, hides_thinking })
}

/// `thinking`: whether the model thinks is handed on, whether that is shown is given back. A budget is a
/// target for models that were trained to keep to one; here it is checked and changes nothing, as the whole
/// answer is bounded by `max_tokens`.
fn take_thinking(fields: &mut Fields) -> Result<bool, ApiError> {
    let Some(value) = fields.take("thinking") else { return Ok(false) };
    let limit = fields.peek("max_tokens").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let mut thinking = Fields::of_value(value, "thinking")?;
    let kind = thinking.string("type", WORD_CHARS_MAX)?.unwrap_or_default();
    let think = match kind.as_str() {
        "enabled" => {
            let budget = thinking.integer("budget_tokens", BUDGET_MIN..=u64::MAX)?;
            if budget.is_some_and(|budget| budget >= limit) {
                let text = "'thinking.budget_tokens' must be less than 'max_tokens'.";
                return Err(ApiError::invalid("thinking.budget_tokens", text));
            }
            Some(true)
        }
        "disabled" => Some(false),
        // The model decides, as it does without a word.
        "adaptive" => None,
        _ => {
            let text = "'thinking.type' must be enabled, disabled or adaptive.";
            return Err(ApiError::unsupported("thinking.type", text));
        }
    };
    let display = thinking.string("display", WORD_CHARS_MAX)?;
    thinking.finish()?;
    if let Some(think) = think {
        fields.put("think", think)?;
    }
    match display.as_deref() {
        // Nobody here shortens what the model thinks: it is shown as it is.
        None | Some("summarized") => Ok(false),
        Some("omitted") => Ok(true),
        Some(_) => {
            let text = "'thinking.display' must be summarized or omitted.";
            Err(ApiError::invalid("thinking.display", text))
        }
    }
}

/// `output_config`: how much effort, and the form of the answer. High effort is Anthropic's default, so it
/// asks for nothing of a model whose template knows no effort.
fn take_output_config(fields: &mut Fields, model: &ServedModel) -> Result<(), ApiError> {
    let Some(value) = fields.take("output_config") else { return Ok(()) };
    let mut config = Fields::of_value(value, "output_config")?;
    let knows_effort = model
        .template
        .get()
        .is_some_and(|template| template.variables().any(|name| name == "reasoning_effort"));
    match config.string("effort", WORD_CHARS_MAX)? {
        Some(effort) if effort != "high" || knows_effort => {
            fields.put("reasoning_effort", effort)?
        }
        _ => {}
    }
    if let Some(format) = config.take("format") {
        let mut format = Fields::of_value(format, "output_config.format")?;
        if format.string("type", WORD_CHARS_MAX)?.as_deref() != Some("json_schema") {
            let text = "'output_config.format.type' must be json_schema.";
            return Err(ApiError::invalid("output_config.format.type", text));
        }
        let Some(schema) = format.take("schema") else {
            let text = "'output_config.format.schema' is missing.";
            return Err(ApiError::invalid("output_config.format.schema", text));
        };
        format.finish()?;
        let schema = json!({ "name": "answer", "schema": schema, "strict": true });
        fields.put("response_format", json!({ "type": "json_schema", "json_schema": schema }))?;
    }
    config.finish()
}
