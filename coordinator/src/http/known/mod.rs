//! Fields that other servers know and this one does not act on: which values are accepted, and why.
//!
//! The rule is *honour or refuse*. A field in this table is accepted only with values that ask for
//! what happens anyway (`Accept::Same`) or that change no answer by their nature (client
//! metadata); every other value is a 400 that names the field. `null` is always accepted.

use super::error::ApiError;
use super::fields::{Fields, expected};
use serde_json::Value;

/// Characters of a metadata string (`user`, `safety_identifier`, …): OpenAI's limit.
pub const METADATA_CHARS_MAX: usize = 512;
/// Pairs of `metadata`: OpenAI's limit.
const METADATA_PAIRS_MAX: usize = 16;

/// The values of a field that are accepted without acting on them.
#[derive(Clone, Copy, Debug)]
enum Accept {
    /// None: the feature does not exist here, and there is no value that asks for its absence.
    Nothing,
    /// These JSON values: they ask for what happens anyway.
    Same(&'static [&'static str]),
    /// Any short string: a label for the operator's records or a hint about caching; this server
    /// keeps no records of users and finds shared prefixes by itself.
    Label,
    /// OpenAI's metadata: at most 16 pairs of short strings, stored by nobody here.
    Pairs,
    /// `true` or `false`: it chooses between two ways of a thing that is refused already.
    Either,
}

/// Name and accepted values, for `/v1/chat/completions` and `/v1/completions` alike.
const KNOWN: &[(&str, Accept)] = &[
    // Client metadata: no answer depends on it.
    ("user", Accept::Label),
    ("safety_identifier", Accept::Label),
    ("prompt_cache_key", Accept::Label),
    ("metadata", Accept::Pairs),
    ("store", Accept::Same(&["false"])),
    ("service_tier", Accept::Same(&["\"auto\"", "\"default\""])),
    ("verbosity", Accept::Same(&["\"medium\""])),
    ("prompt_cache_retention", Accept::Nothing),
    // Choices: one per prompt.
    ("n", Accept::Same(&["1"])),
    ("best_of", Accept::Same(&["1"])),
    ("use_beam_search", Accept::Same(&["false"])),
    ("length_penalty", Accept::Same(&["1", "1.0"])),
    // Tools.
    ("tools", Accept::Same(&["[]"])),
    ("tool_choice", Accept::Same(&["\"none\""])),
    ("parallel_tool_calls", Accept::Either),
    ("functions", Accept::Same(&["[]"])),
    ("function_call", Accept::Same(&["\"none\""])),
    ("web_search_options", Accept::Nothing),
    // Structured output.
    ("response_format", Accept::Same(&["{\"type\":\"text\"}"])),
    ("grammar", Accept::Same(&["\"\""])),
    ("json_schema", Accept::Nothing),
    ("structured_outputs", Accept::Nothing),
    ("guided_json", Accept::Nothing),
    ("guided_regex", Accept::Nothing),
    ("guided_choice", Accept::Nothing),
    ("guided_grammar", Accept::Nothing),
    ("guided_decoding_backend", Accept::Nothing),
    ("guided_whitespace_pattern", Accept::Nothing),
    // Other media, other modes.
    ("modalities", Accept::Same(&["[\"text\"]"])),
    ("audio", Accept::Nothing),
    ("prediction", Accept::Nothing),
    ("suffix", Accept::Same(&["\"\""])),
    ("reasoning_effort", Accept::Nothing),
    ("reasoning_format", Accept::Same(&["\"none\""])),
    ("reasoning", Accept::Nothing),
    ("think", Accept::Nothing),
    // Templates.
    ("chat_template", Accept::Nothing),
    ("chat_template_kwargs", Accept::Same(&["{}"])),
    ("add_generation_prompt", Accept::Same(&["true"])),
    ("continue_final_message", Accept::Same(&["false"])),
    ("documents", Accept::Same(&["[]"])),
    ("truncate_prompt_tokens", Accept::Nothing),
    // Ends.
    ("min_tokens", Accept::Same(&["0"])),
    ("stop_token_ids", Accept::Same(&["[]"])),
    ("include_stop_str_in_output", Accept::Same(&["false"])),
    ("n_predict", Accept::Nothing),
    ("n_keep", Accept::Same(&["0"])),
    ("n_discard", Accept::Same(&["0"])),
    ("t_max_predict_ms", Accept::Same(&["0"])),
    // Samplers that do not exist here, at the value that turns them off.
    ("typical_p", Accept::Same(&["1", "1.0"])),
    ("typ_p", Accept::Same(&["1", "1.0"])),
    ("tfs_z", Accept::Same(&["1", "1.0"])),
    ("top_a", Accept::Same(&["0", "0.0"])),
    ("mirostat", Accept::Same(&["0"])),
    ("mirostat_tau", Accept::Nothing),
    ("mirostat_eta", Accept::Nothing),
    ("xtc_probability", Accept::Same(&["0", "0.0"])),
    ("xtc_threshold", Accept::Nothing),
    ("dry_multiplier", Accept::Same(&["0", "0.0"])),
    ("dry_base", Accept::Nothing),
    ("dry_allowed_length", Accept::Nothing),
    ("dry_penalty_last_n", Accept::Nothing),
    ("dry_sequence_breakers", Accept::Nothing),
    ("dynatemp_range", Accept::Same(&["0", "0.0"])),
    ("dynatemp_exponent", Accept::Nothing),
    ("repeat_last_n", Accept::Nothing),
    ("samplers", Accept::Nothing),
    ("bad_words", Accept::Same(&["[]"])),
    ("allowed_token_ids", Accept::Nothing),
    // What is reported.
    ("prompt_logprobs", Accept::Nothing),
    ("n_probs", Accept::Same(&["0"])),
    ("post_sampling_probs", Accept::Same(&["false"])),
    ("return_tokens", Accept::Same(&["false"])),
    ("return_token_ids", Accept::Same(&["false"])),
    ("return_progress", Accept::Same(&["false"])),
    ("timings_per_token", Accept::Same(&["false"])),
    ("skip_special_tokens", Accept::Same(&["true"])),
    ("spaces_between_special_tokens", Accept::Same(&["true"])),
    // Scheduling and caches.
    ("priority", Accept::Same(&["0"])),
    ("cache_prompt", Accept::Same(&["true"])),
    ("cache_salt", Accept::Nothing),
    ("id_slot", Accept::Same(&["-1"])),
    ("lora", Accept::Same(&["[]"])),
    ("keep_alive", Accept::Nothing),
    ("options", Accept::Nothing),
];

/// Fields that mean something on `/v1/completions` only.
const KNOWN_CHAT: &[(&str, Accept)] = &[
    ("echo", Accept::Same(&["false"])),
    ("add_special_tokens", Accept::Same(&["false"])),
    ("prompt", Accept::Nothing),
];

/// Fields that mean something on `/v1/chat/completions` only.
const KNOWN_COMPLETIONS: &[(&str, Accept)] = &[
    ("add_special_tokens", Accept::Same(&["true"])),
    ("top_logprobs", Accept::Nothing),
    ("messages", Accept::Nothing),
];

/// Takes the fields of the tables for `/v1/chat/completions`.
///
/// # Errors
///
/// 400 naming the first field whose value is not accepted.
pub fn settle_chat(fields: &mut Fields) -> Result<(), ApiError> {
    settle(fields, KNOWN)?;
    settle(fields, KNOWN_CHAT)
}

/// Takes the fields of the tables for `/v1/completions`.
///
/// # Errors
///
/// 400 naming the first field whose value is not accepted.
pub fn settle_completions(fields: &mut Fields) -> Result<(), ApiError> {
    settle(fields, KNOWN)?;
    settle(fields, KNOWN_COMPLETIONS)
}

fn settle(fields: &mut Fields, table: &[(&str, Accept)]) -> Result<(), ApiError> {
    for name in fields.names() {
        let Some((_, accept)) = table.iter().find(|(known, _)| *known == name) else { continue };
        if let Accept::Label = accept {
            fields.string(&name, METADATA_CHARS_MAX)?;
        } else if let Some(value) = fields.take(&name) {
            check(&name, *accept, &value)?;
        }
    }
    Ok(())
}

fn check(name: &str, accept: Accept, value: &Value) -> Result<(), ApiError> {
    match accept {
        Accept::Nothing => {
            Err(ApiError::unsupported(name, format!("'{name}' is not supported: leave it out.")))
        }
        Accept::Same(values) => {
            let text = value.to_string();
            if values.contains(&text.as_str()) {
                return Ok(());
            }
            let text = format!("'{name}' is only supported as {}.", values.join(" or "));
            Err(ApiError::unsupported(name, text))
        }
        Accept::Label => Ok(()),
        Accept::Either if value.is_boolean() => Ok(()),
        Accept::Either => Err(expected(name, "true or false", value)),
        Accept::Pairs => check_pairs(name, value),
    }
}

fn check_pairs(name: &str, value: &Value) -> Result<(), ApiError> {
    let wanted = || {
        format!(
            "an object of at most {METADATA_PAIRS_MAX} strings of at most {METADATA_CHARS_MAX} \
             characters"
        )
    };
    let short = |value: &Value| {
        value.as_str().is_some_and(|text| text.chars().count() <= METADATA_CHARS_MAX)
    };
    match value.as_object() {
        Some(pairs) if pairs.len() <= METADATA_PAIRS_MAX && pairs.values().all(short) => Ok(()),
        _ => Err(expected(name, &wanted(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chat(body: Value) -> Result<(), ApiError> {
        let mut fields = Fields::of_body(body)?;
        settle_chat(&mut fields)?;
        fields.finish()
    }

    #[test]
    fn every_known_field_accepts_null_and_its_listed_values_and_refuses_the_rest() {
        for (name, accept) in KNOWN.iter().chain(KNOWN_CHAT) {
            chat(json!({ *name: null })).unwrap();
            if let Accept::Same(values) = accept {
                for value in *values {
                    let value: Value = serde_json::from_str(value).unwrap();
                    assert_eq!(chat(json!({ *name: value })), Ok(()), "{name}");
                }
            }
            let odd = json!({ *name: { "no": ["such", 7] } });
            let body = chat(odd).unwrap_err().body();
            assert_eq!(body["error"]["param"], json!(name), "{body}");
        }
    }

    #[test]
    fn labels_and_metadata_are_bounded() {
        assert!(chat(json!({"user": "ü".repeat(METADATA_CHARS_MAX)})).is_ok());
        assert!(chat(json!({"user": "x".repeat(METADATA_CHARS_MAX + 1)})).is_err());
        assert!(chat(json!({"metadata": {"a": "b"}})).is_ok());
        assert!(chat(json!({"metadata": {"a": 1}})).is_err());
        let many: serde_json::Map<String, Value> =
            (0..17).map(|key| (key.to_string(), json!(""))).collect();
        assert!(chat(json!({ "metadata": many })).is_err());
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = chat(json!({"user": "me", "n_discrad": -1})).unwrap_err();
        assert_eq!(error.body()["error"]["param"], json!("n_discrad"));
        assert_eq!(error.body()["error"]["code"], json!("unknown_field"));
    }
}
