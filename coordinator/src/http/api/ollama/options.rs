//! `options` of an Ollama request, and its other ways to say what all APIs have: put into the form of what
//! they have in common.

use crate::http::error::ApiError;
use crate::http::input::fields::{Fields, expected};
use crate::http::input::known::{self, Place};
use serde_json::{Value, json};

/// Characters of a word such as `json` or `5m`.
const WORD_CHARS_MAX: usize = 64;

/// Options that are fields of their own elsewhere, under the same name.
const FIELDS: [&str; 19] = [
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "typical_p",
    "tfs_z",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "dry_multiplier",
    "xtc_probability",
    "logit_bias",
    "ignore_eos",
];

/// What this API calls the fields of other APIs.
pub const NAMES: &[(&str, &str)] = &[
    ("seed", "options.seed"),
    ("temperature", "options.temperature"),
    ("top_k", "options.top_k"),
    ("top_p", "options.top_p"),
    ("min_p", "options.min_p"),
    ("repeat_penalty", "options.repeat_penalty"),
    ("repeat_last_n", "options.repeat_last_n"),
    ("presence_penalty", "options.presence_penalty"),
    ("frequency_penalty", "options.frequency_penalty"),
    ("stop", "options.stop"),
    ("typical_p", "options.typical_p"),
    ("tfs_z", "options.tfs_z"),
    ("mirostat", "options.mirostat"),
    ("mirostat_tau", "options.mirostat_tau"),
    ("mirostat_eta", "options.mirostat_eta"),
    ("dry_multiplier", "options.dry_multiplier"),
    ("xtc_probability", "options.xtc_probability"),
    ("logit_bias", "options.logit_bias"),
    ("ignore_eos", "options.ignore_eos"),
    ("max_tokens", "options.num_predict"),
    ("response_format.json_schema.schema", "format"),
    ("response_format", "format"),
    ("reasoning_effort", "think"),
];

/// Puts what `options`, `format`, `think` and `keep_alive` say in the place of the fields that others take;
/// `ctx` is the context in tokens.
///
/// # Errors
///
/// 400 naming the field.
pub fn translate(fields: &mut Fields, ctx: u32) -> Result<(), ApiError> {
    if let Some(options) = fields.take("options") {
        take_options(fields, options, ctx)?;
    }
    take_format(fields)?;
    match fields.take("think") {
        None => {}
        Some(think @ Value::Bool(_)) => fields.put("think", think)?,
        Some(level @ Value::String(_)) => fields.put("reasoning_effort", level)?,
        Some(other) => return Err(expected("think", "true, false or a level", &other)),
    }
    // How long a model stays loaded is the operator's to say.
    match fields.take("keep_alive") {
        None | Some(Value::Number(_)) => Ok(()),
        Some(text @ Value::String(_))
            if text.as_str().is_some_and(|t| t.len() <= WORD_CHARS_MAX) =>
        {
            Ok(())
        }
        Some(other) => Err(expected("keep_alive", "a number of seconds or a duration", &other)),
    }
}

fn take_options(fields: &mut Fields, options: Value, ctx: u32) -> Result<(), ApiError> {
    let mut options = Fields::of_value(options, "options")?;
    if let Some(asked) =
        options.integer("num_ctx", 0..=u64::MAX)?.filter(|asked| *asked > u64::from(ctx))
    {
        let text = format!(
            "'options.num_ctx' is {asked}; the context has {ctx} tokens here, which the operator sets with \
             --ctx-size. Leave it out or set it to at most {ctx}."
        );
        return Err(ApiError::unsupported("options.num_ctx", text));
    }
    // Ollama's words for no limit: −1, and −2 for the rest of the context, which is the limit anyway.
    if let Some(limit) = options.signed("num_predict", -2..=i128::from(u64::MAX))? {
        let limit = u64::try_from(limit).map_or(Value::from(-1), Value::from);
        fields.put("max_tokens", limit)?;
    }
    for name in FIELDS {
        if let Some(value) = options.take(name) {
            fields.put(name, value)?;
        }
    }
    known::take(&mut options, &[Place::OllamaOptions])?;
    options.finish()
}

/// `format`: nothing, `json`, or a schema.
fn take_format(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.take("format") {
        None => Ok(()),
        Some(Value::String(word)) if word.is_empty() => Ok(()),
        Some(Value::String(word)) if word == "json" => {
            fields.put("response_format", json!({ "type": "json_object" }))
        }
        Some(schema @ Value::Object(_)) => {
            let schema = json!({ "name": "answer", "schema": schema, "strict": true });
            fields.put("response_format", json!({ "type": "json_schema", "json_schema": schema }))
        }
        Some(other) => Err(expected("format", "\"json\" or a JSON schema", &other)),
    }
}
