//! The fields that say when a completion ends.

use super::fields::{Fields, array_of, expected, string_of};
use super::prompts::token_ids;
use crate::http::error::ApiError;
use serde_json::Value;
use std::sync::Arc;

/// Stop strings of a request.
pub const STOPS_MAX: usize = 16;
/// Characters of a stop string.
pub const STOP_CHARS_MAX: usize = 256;
/// Tokens that a request has as its own ends.
pub const STOP_TOKENS_MAX: usize = 256;

/// When a completion ends, as far as the request alone says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StopConditions {
    /// Tokens to generate at most.
    pub max_tokens: MaxTokens,
    /// Go on past the end-of-text tokens.
    pub ignore_eos: bool,
    /// Tokens to generate before anything but `max_tokens` ends the completion.
    pub min_tokens: u32,
    /// Strings that end the completion, none of them empty.
    pub stops: Arc<[String]>,
    /// Tokens that end the completion beside the model's own, ascending.
    pub stop_tokens: Arc<[u32]>,
    /// What ended the completion is part of its text: the stop string, or what one of `stop_tokens` spells.
    pub show_stop: bool,
}

/// Tokens to generate at most, as the client said it. Whatever it is, an answer ends where the
/// context does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxTokens {
    /// Nothing was said: the endpoint's default.
    #[default]
    Default,
    /// −1, or `null`: to the end of the context.
    ToTheEnd,
    /// So many, by the field of this name.
    Some(&'static str, u32),
}

impl StopConditions {
    /// Checks that at least one token is wanted.
    ///
    /// # Errors
    ///
    /// 400 naming the field that says 0.
    pub fn check_not_zero(&self) -> Result<(), ApiError> {
        let MaxTokens::Some(name, 0) = self.max_tokens else { return Ok(()) };
        let text = format!(
            "'{name}' must be at least 1; 0 is for /v1/completions with 'echo': true only."
        );
        Err(ApiError::invalid(name, text))
    }
}

/// Takes the fields that say when a completion ends, of a model of `vocab` tokens.
///
/// # Errors
///
/// 400 naming the field.
pub fn take(fields: &mut Fields, vocab: u32) -> Result<StopConditions, ApiError> {
    Ok(StopConditions {
        max_tokens: max_tokens(fields)?,
        ignore_eos: fields.bool("ignore_eos")?.unwrap_or(false),
        min_tokens: fields.integer("min_tokens", 0..=u64::from(u32::MAX))?.map_or(0, to_u32),
        stops: stops(fields)?.into(),
        stop_tokens: stop_tokens(fields, vocab)?.into(),
        show_stop: fields.bool("include_stop_str_in_output")?.unwrap_or(false),
    })
}

/// `max_completion_tokens` wins over `max_tokens`, and that over llama-server's `n_predict`; all are
/// checked. A number beyond the context is cut to it later.
fn max_tokens(fields: &mut Fields) -> Result<MaxTokens, ApiError> {
    let (mut null, mut chosen) = (false, None);
    for name in ["max_completion_tokens", "max_tokens", "n_predict"] {
        null |= fields.is_null(name);
        let found = fields.signed(name, -1..=i128::from(u64::MAX))?.map(|tokens| match tokens {
            -1 => MaxTokens::ToTheEnd,
            tokens => MaxTokens::Some(name, u32::try_from(tokens).unwrap_or(u32::MAX)),
        });
        chosen = chosen.or(found);
    }
    Ok(chosen.unwrap_or(if null { MaxTokens::ToTheEnd } else { MaxTokens::Default }))
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let items = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(text @ Value::String(_)) => vec![text],
        Some(Value::Array(items)) => array_of(Value::Array(items), "stop", STOPS_MAX)?,
        Some(other) => return Err(expected("stop", "a string or an array of strings", &other)),
    };
    let stop = |item| string_of(item, "stop", STOP_CHARS_MAX);
    let stops: Vec<String> = items.into_iter().map(stop).collect::<Result<_, _>>()?;
    // An empty string asks for no stop.
    Ok(stops.into_iter().filter(|stop| !stop.is_empty()).collect())
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).expect("the range of the field fits u32")
}

fn stop_tokens(fields: &mut Fields, vocab: u32) -> Result<Vec<u32>, ApiError> {
    const NAME: &str = "stop_token_ids";
    let Some(value) = fields.take(NAME) else { return Ok(Vec::new()) };
    let mut tokens = token_ids(&array_of(value, NAME, STOP_TOKENS_MAX)?, NAME, vocab)?;
    tokens.sort_unstable();
    tokens.dedup();
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn conditions(body: Value) -> Result<StopConditions, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let conditions = take(&mut fields, 100)?;
        fields.finish()?;
        Ok(conditions)
    }

    #[test]
    fn every_field_arrives() {
        let expected = StopConditions {
            max_tokens: MaxTokens::Some("max_completion_tokens", 4),
            ignore_eos: true,
            stops: ["a".to_owned(), "b".to_owned()].into(),
            min_tokens: 2,
            stop_tokens: [0, 7, 99].into(),
            show_stop: true,
        };
        let found = conditions(json!({
            "max_tokens": 3, "max_completion_tokens": 4, "ignore_eos": true, "stop": ["a", "b"],
            "stop_token_ids": [99, 7, 0, 7], "include_stop_str_in_output": true,
            "min_tokens": 2,
        }));
        assert_eq!(found, Ok(expected));
        assert_eq!(conditions(json!({})), Ok(StopConditions::default()));
    }

    #[test]
    fn words_for_unlimited() {
        let limit = |body| conditions(body).unwrap().max_tokens;
        assert_eq!(limit(json!({"max_tokens": -1})), MaxTokens::ToTheEnd);
        assert_eq!(limit(json!({"max_tokens": null})), MaxTokens::ToTheEnd);
        assert_eq!(limit(json!({"n_predict": -1})), MaxTokens::ToTheEnd);
        let some = MaxTokens::Some("max_tokens", 4);
        assert_eq!(limit(json!({"max_tokens": 4.0, "max_completion_tokens": null})), some);
        assert_eq!(limit(json!({"max_tokens": 4e0, "n_predict": 9})), some);
        let huge = MaxTokens::Some("max_tokens", u32::MAX);
        assert_eq!(limit(json!({"max_tokens": 10_000_000_000_u64})), huge);
        for bad in [json!(1.5), json!(-2), json!("10")] {
            let error = conditions(json!({ "max_tokens": bad })).unwrap_err();
            assert_eq!(error.body()["error"]["param"], json!("max_tokens"));
        }
    }

    #[test]
    fn stop_strings_are_bounded() {
        assert_eq!(conditions(json!({"stop": " "})).unwrap().stops[..], [" "]);
        for nothing in [json!(""), json!([""]), json!([])] {
            assert!(conditions(json!({ "stop": nothing })).unwrap().stops.is_empty());
        }
        assert!(conditions(json!({"stop": vec!["x"; STOPS_MAX]})).is_ok());
        assert!(conditions(json!({"stop": "ü".repeat(STOP_CHARS_MAX)})).is_ok());
        let long = "x".repeat(STOP_CHARS_MAX + 1);
        for bad in [
            json!([[]]),
            json!([1]),
            json!(1),
            json!({}),
            json!(true),
            json!(vec!["x"; STOPS_MAX + 1]),
            json!(long),
            json!([null]),
        ] {
            let error = conditions(json!({ "stop": bad })).unwrap_err();
            assert_eq!(error.body()["error"]["param"], json!("stop"));
        }
    }
}
