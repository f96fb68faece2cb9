//! The fields that say how tokens are chosen and when a completion ends.

use super::error::ApiError;
use super::fields::{Fields, array_of, expected, string_of};
use crate::generation::SamplingOptions;
use serde_json::Value;

/// Positions that any plan can hold: no `max_tokens` is larger.
const MAX_TOKENS_MAX: u64 = woolly_protocol::limits::CTX_MAX as u64;
/// Alternatives per token that a client can ask for.
pub const TOP_LOGPROBS_MAX: u64 = woolly_protocol::limits::TOP_LOGPROBS_MAX as u64;
/// Stop strings of a request.
pub const STOPS_MAX: usize = 16;
/// Characters of a stop string.
pub const STOP_CHARS_MAX: usize = 256;
/// Entries of `logit_bias`.
pub const LOGIT_BIAS_MAX: usize = woolly_protocol::limits::LOGIT_BIAS_MAX;
/// The smallest and the largest repetition penalty.
const REPETITION_PENALTY: std::ops::RangeInclusive<f64> = 0.01..=10.0;

/// How tokens are chosen and when a completion ends, as far as the request alone says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// How tokens are chosen; `choice` is still 0.
    pub options: SamplingOptions,
    /// `max_completion_tokens`, or else `max_tokens`, with the field's name.
    pub max_tokens: Option<(&'static str, u32)>,
    /// Go on past the end-of-text tokens.
    pub ignore_eos: bool,
    /// Strings that end the completion, none of them empty.
    pub stops: Vec<String>,
}

impl Sampling {
    /// Takes the sampling fields of a request for a model of `vocab` tokens; `seed` is drawn by the
    /// caller and used if the client gives none.
    ///
    /// # Errors
    ///
    /// 400 naming the field.
    pub fn take(fields: &mut Fields, vocab: u32, seed: u64) -> Result<Sampling, ApiError> {
        let options = SamplingOptions {
            temperature: positive_zero(fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0)),
            top_k: narrow(fields.integer("top_k", 0..=i32::MAX as u64)?.unwrap_or(0)),
            top_p: top_p(fields)?,
            min_p: positive_zero(fields.number("min_p", 0.0..=1.0)?.unwrap_or(0.0)),
            repetition_penalty: repetition_penalty(fields)?,
            frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0)
                as f32,
            presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0) as f32,
            seed: fields.integer("seed", 0..=i64::MAX as u64)?.unwrap_or(seed),
            choice: 0,
            logit_bias: logit_bias(fields, vocab)?,
        };
        Ok(Sampling {
            options,
            max_tokens: max_tokens(fields)?,
            ignore_eos: fields.bool("ignore_eos")?.unwrap_or(false),
            stops: stops(fields)?,
        })
    }
}

/// `max_completion_tokens` wins over `max_tokens`, whatever either says; both are checked.
fn max_tokens(fields: &mut Fields) -> Result<Option<(&'static str, u32)>, ApiError> {
    let old = fields.integer("max_tokens", 0..=MAX_TOKENS_MAX)?;
    let new = fields.integer("max_completion_tokens", 0..=MAX_TOKENS_MAX)?;
    let named = new
        .map(|tokens| ("max_completion_tokens", tokens))
        .or(old.map(|tokens| ("max_tokens", tokens)));
    Ok(named.map(|(name, tokens)| (name, narrow(tokens))))
}

/// In (0, 1]; a value too small for `f32` keeps the most likely token, as it would in `f64`.
fn top_p(fields: &mut Fields) -> Result<f32, ApiError> {
    match fields.number("top_p", 0.0..=1.0)? {
        None => Ok(1.0),
        Some(0.0) => Err(ApiError::invalid(
            "top_p",
            "'top_p' must be above 0 and at most 1; got 0. For the most likely token use \
             'temperature': 0.",
        )),
        Some(top_p) => Ok((top_p as f32).max(f32::MIN_POSITIVE)),
    }
}

/// vLLM's name and llama.cpp's name of the same thing.
fn repetition_penalty(fields: &mut Fields) -> Result<f32, ApiError> {
    let ours = fields.number("repetition_penalty", REPETITION_PENALTY)?;
    let alias = fields.number("repeat_penalty", REPETITION_PENALTY)?;
    match (ours, alias) {
        (Some(ours), Some(alias)) if ours != alias => Err(ApiError::invalid(
            "repeat_penalty",
            "'repetition_penalty' and 'repeat_penalty' are one thing and differ: give one.",
        )),
        (ours, alias) => Ok(ours.or(alias).unwrap_or(1.0) as f32),
    }
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let items = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(text @ Value::String(_)) => vec![text],
        Some(Value::Array(items)) => array_of(Value::Array(items), "stop", STOPS_MAX)?,
        Some(other) => return Err(expected("stop", "a string or an array of strings", &other)),
    };
    let stop = |item| match string_of(item, "stop", STOP_CHARS_MAX)? {
        empty if empty.is_empty() => {
            Err(ApiError::invalid("stop", "'stop' must not hold an empty string."))
        }
        text => Ok(text),
    };
    items.into_iter().map(stop).collect()
}

fn logit_bias(fields: &mut Fields, vocab: u32) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(value) = fields.take("logit_bias") else { return Ok(Vec::new()) };
    let wanted = "an object from token ids to numbers from -100 to 100";
    let Value::Object(entries) = value else {
        return Err(expected("logit_bias", wanted, &value));
    };
    if entries.len() > LOGIT_BIAS_MAX {
        let text = format!("'logit_bias' has {} entries; at most {LOGIT_BIAS_MAX}.", entries.len());
        return Err(ApiError::invalid("logit_bias", text));
    }
    let mut biases = Vec::with_capacity(entries.len());
    for (key, value) in &entries {
        let Some(token) = token_key(key).filter(|token| *token < vocab) else {
            let text = format!(
                "'logit_bias' must have token ids below {vocab} as keys; got {:?}.",
                super::error::quote(key)
            );
            return Err(ApiError::invalid("logit_bias", text));
        };
        let bias = value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        let bias = bias.ok_or_else(|| expected("logit_bias", wanted, value))?;
        biases.push((token, bias as f32));
    }
    biases.sort_unstable_by_key(|(token, _)| *token);
    Ok(biases)
}

/// A token id as its own decimal text, so that no two keys are one token.
fn token_key(key: &str) -> Option<u32> {
    key.parse().ok().filter(|token: &u32| token.to_string() == key)
}

/// `f32` of a value that is not negative; −0 becomes 0.
fn positive_zero(value: f64) -> f32 {
    (value as f32).abs()
}

/// `u32` of an integer whose range was checked.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).expect("the range of the field fits u32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn take(body: Value) -> Result<Sampling, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let sampling = Sampling::take(&mut fields, 1000, 77)?;
        fields.finish()?;
        Ok(sampling)
    }

    #[test]
    fn defaults_are_openais() {
        let sampling = take(json!({})).unwrap();
        let options = SamplingOptions {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 77,
            choice: 0,
            logit_bias: Vec::new(),
        };
        let stops = Vec::new();
        assert_eq!(sampling, Sampling { options, max_tokens: None, ignore_eos: false, stops });
    }

    #[test]
    fn every_field_arrives() {
        let sampling = take(json!({
            "temperature": 0.5, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repeat_penalty": 1.1,
            "frequency_penalty": -2, "presence_penalty": 2.0, "seed": 9, "ignore_eos": true,
            "logit_bias": {"999": -100, "5": 0.5}, "max_tokens": 3, "max_completion_tokens": 4,
            "stop": ["a", "b"],
        }))
        .unwrap();
        assert_eq!(sampling.options.temperature, 0.5);
        assert_eq!(sampling.options.top_k, 40);
        assert_eq!(sampling.options.top_p, 0.9);
        assert_eq!(sampling.options.min_p, 0.05);
        assert_eq!(sampling.options.repetition_penalty, 1.1);
        assert_eq!(sampling.options.frequency_penalty, -2.0);
        assert_eq!(sampling.options.presence_penalty, 2.0);
        assert_eq!(sampling.options.seed, 9);
        assert_eq!(sampling.options.logit_bias, [(5, 0.5), (999, -100.0)]);
        assert_eq!(sampling.max_tokens, Some(("max_completion_tokens", 4)));
        assert_eq!(sampling.stops, ["a", "b"]);
        assert!(sampling.ignore_eos);
    }

    #[test]
    fn edges_of_the_numbers() {
        assert_eq!(take(json!({"temperature": -0.0})).unwrap().options.temperature.to_bits(), 0);
        assert_eq!(take(json!({"temperature": 1e-60})).unwrap().options.temperature, 0.0);
        assert!(take(json!({"top_p": 1e-60})).unwrap().options.top_p > 0.0);
        assert_eq!(take(json!({"top_k": 1_000_000_000})).unwrap().options.top_k, 1_000_000_000);
        for bad in [
            json!({"temperature": 2.01}),
            json!({"temperature": -0.1}),
            json!({"top_p": 0}),
            json!({"top_p": 1.000_000_1}),
            json!({"min_p": 2}),
            json!({"presence_penalty": 2.1}),
            json!({"repetition_penalty": 0}),
            json!({"repetition_penalty": 1.1, "repeat_penalty": 1.2}),
            json!({"max_tokens": 1.0}),
            json!({"max_tokens": "10"}),
            json!({"max_tokens": 2_147_483_648_u64}),
        ] {
            assert!(take(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn stop_strings_are_bounded() {
        assert_eq!(take(json!({"stop": " "})).unwrap().stops, [" "]);
        assert!(take(json!({"stop": vec!["x"; STOPS_MAX]})).is_ok());
        assert!(take(json!({"stop": "ü".repeat(STOP_CHARS_MAX)})).is_ok());
        let long = "x".repeat(STOP_CHARS_MAX + 1);
        for bad in [
            json!(""),
            json!([""]),
            json!([[]]),
            json!([1]),
            json!(1),
            json!({}),
            json!(true),
            json!(vec!["x"; STOPS_MAX + 1]),
            json!(long),
            json!([null]),
        ] {
            let error = take(json!({ "stop": bad })).unwrap_err();
            assert_eq!(error.body()["error"]["param"], json!("stop"));
        }
    }

    #[test]
    fn logit_bias_takes_real_tokens_only() {
        for bad in [
            json!({"abc": 1}),
            json!({"-1": 1}),
            json!({"1000": 1}),
            json!({"05": 1}),
            json!({"+5": 1}),
            json!({"9223372036854775808": 1}),
            json!({"5": 101}),
            json!({"5": "NaN"}),
            json!({"5": null}),
            json!([[5, 1]]),
            json!("5"),
        ] {
            let error = take(json!({ "logit_bias": bad })).unwrap_err();
            assert_eq!(error.body()["error"]["param"], json!("logit_bias"));
        }
        let many = |count: u32| -> Value {
            (0..count)
                .map(|token| (token.to_string(), json!(-100)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let mut fields = Fields::of_body(json!({"logit_bias": many(1024)})).unwrap();
        assert_eq!(logit_bias(&mut fields, 5000).unwrap().len(), 1024);
        let mut fields = Fields::of_body(json!({"logit_bias": many(1025)})).unwrap();
        assert!(logit_bias(&mut fields, 5000).is_err());
    }
}
