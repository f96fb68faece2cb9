//! The fields that say when a completion ends.

use super::fields::{Fields, array_of, expected, string_of};
use crate::http::error::ApiError;
use serde_json::Value;
use std::sync::Arc;

/// Stop strings of a request.
pub const STOPS_MAX: usize = 16;
/// Characters of a stop string.
pub const STOP_CHARS_MAX: usize = 256;

/// When a completion ends, as far as the request alone says it.
#[derive(Clone, Debug, PartialEq)]
pub struct StopConditions {
    /// Tokens to generate at most.
    pub max_tokens: MaxTokens,
    /// Go on past the end-of-text tokens.
    pub ignore_eos: bool,
    /// Strings that end the completion, none of them empty.
    pub stops: Arc<[String]>,
}

/// Tokens to generate at most, as the client said it. Whatever it is, an answer ends where the
/// context does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxTokens {
    /// Nothing was said: the endpoint's default.
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

/// Takes the fields that say when a completion ends.
///
/// # Errors
///
/// 400 naming the field.
pub fn take(fields: &mut Fields) -> Result<StopConditions, ApiError> {
    Ok(StopConditions {
        max_tokens: max_tokens(fields)?,
        ignore_eos: fields.bool("ignore_eos")?.unwrap_or(false),
        stops: stops(fields)?.into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn conditions(body: Value) -> Result<StopConditions, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let conditions = take(&mut fields)?;
        fields.finish()?;
        Ok(conditions)
    }

    #[test]
    fn every_field_arrives() {
        let StopConditions { max_tokens, ignore_eos, stops } = conditions(json!({
            "max_tokens": 3, "max_completion_tokens": 4, "ignore_eos": true, "stop": ["a", "b"],
        }))
        .unwrap();
        assert_eq!(max_tokens, MaxTokens::Some("max_completion_tokens", 4));
        assert_eq!(stops[..], ["a", "b"]);
        assert!(ignore_eos);
        let StopConditions { max_tokens, ignore_eos, stops } = conditions(json!({})).unwrap();
        assert_eq!(max_tokens, MaxTokens::Default);
        assert!(!ignore_eos && stops.is_empty());
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
