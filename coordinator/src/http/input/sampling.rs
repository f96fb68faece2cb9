//! The fields that say how tokens are chosen.

use super::fields::{Fields, expected};
use super::samplers;
use crate::http::error::ApiError;
use serde_json::Value;
use woolly_protocol::sampling::SamplingOptions;

/// Entries of `logit_bias`.
pub const LOGIT_BIAS_MAX: usize = woolly_protocol::limits::LOGIT_BIAS_MAX;
/// Alternatives per token that a client can ask for.
pub const TOP_LOGPROBS_MAX: u64 = woolly_protocol::limits::TOP_LOGPROBS_MAX as u64;
/// The smallest and the largest repetition penalty.
const REPETITION_PENALTY: std::ops::RangeInclusive<f64> = 0.01..=10.0;

/// Takes the fields that say how tokens are chosen, for a model of `vocab` tokens; `seed` is drawn by the
/// caller and used if the client gives none. The `choice` is still 0.
///
/// # Errors
///
/// 400 naming the field.
pub fn take(fields: &mut Fields, vocab: u32, seed: u64) -> Result<SamplingOptions, ApiError> {
    let mut options = SamplingOptions {
        temperature: positive_zero(fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0)),
        top_k: top_k(fields)?,
        top_p: top_p(fields)?,
        min_p: positive_zero(fields.number("min_p", 0.0..=1.0)?.unwrap_or(0.0)),
        xtc_probability: positive_zero(fields.number("xtc_probability", 0.0..=1.0)?.unwrap_or(0.0)),
        xtc_threshold: positive_zero(fields.number("xtc_threshold", 0.0..=1.0)?.unwrap_or(0.1)),
        repetition_penalty: repetition_penalty(fields)?,
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0) as f32,
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0) as f32,
        seed: chosen_seed(fields)?.unwrap_or(seed),
        choice: 0,
        logit_bias: logit_bias(fields, vocab)?,
    };
    samplers::take(fields, &mut options)?;
    if options.temperature == 0.0 && options.xtc_probability > 0.0 {
        let text = "'xtc_probability' leaves out likely tokens by chance, and at a 'temperature' of 0 there is \
                    none: set one of them.";
        return Err(ApiError::invalid("xtc_probability", text));
    }
    Ok(options)
}

/// 0 and −1 keep all tokens, as llama.cpp and vLLM write it.
fn top_k(fields: &mut Fields) -> Result<u32, ApiError> {
    let top_k = fields.signed("top_k", -1..=i128::from(i32::MAX))?.unwrap_or(0);
    Ok(u32::try_from(top_k).unwrap_or(0))
}

/// The client's seed in 64 bits, a negative one in two's complement; `None` for −1, which asks for
/// a drawn one.
fn chosen_seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let seed = fields.signed("seed", i128::from(i64::MIN)..=i128::from(u64::MAX))?;
    let bits = |seed: i128| match u64::try_from(seed) {
        Ok(seed) => seed,
        Err(_) => i64::try_from(seed).unwrap_or(0).cast_unsigned(),
    };
    Ok(seed.filter(|seed| *seed != -1).map(bits))
}

/// In [0, 1]; 0, as a value too small for `f32`, keeps the most likely token.
fn top_p(fields: &mut Fields) -> Result<f32, ApiError> {
    let top_p = fields.number("top_p", 0.0..=1.0)?.unwrap_or(1.0);
    Ok((top_p as f32).max(f32::MIN_POSITIVE))
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
                crate::http::error::quote(key)
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options(body: Value) -> Result<SamplingOptions, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let options = take(&mut fields, 1000, 77)?;
        fields.finish()?;
        Ok(options)
    }

    #[test]
    fn defaults_are_openais() {
        let expected = SamplingOptions {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 77,
            choice: 0,
            logit_bias: Vec::new(),
        };
        assert_eq!(options(json!({})), Ok(expected));
    }

    #[test]
    fn every_field_arrives() {
        let options = options(json!({
            "temperature": 0.5, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repeat_penalty": 1.1,
            "frequency_penalty": -2, "presence_penalty": 2.0, "seed": 9, "xtc_probability": 0.5,
            "xtc_threshold": 0.2,
            "logit_bias": {"999": -100, "5": 0.5},
        }))
        .unwrap();
        assert_eq!(options.temperature, 0.5);
        assert_eq!(options.top_k, 40);
        assert_eq!(options.top_p, 0.9);
        assert_eq!(options.min_p, 0.05);
        assert_eq!((options.xtc_probability, options.xtc_threshold), (0.5, 0.2));
        assert_eq!(options.repetition_penalty, 1.1);
        assert_eq!(options.frequency_penalty, -2.0);
        assert_eq!(options.presence_penalty, 2.0);
        assert_eq!(options.seed, 9);
        assert_eq!(options.logit_bias, [(5, 0.5), (999, -100.0)]);
    }

    #[test]
    fn edges_of_the_numbers() {
        assert_eq!(options(json!({"temperature": -0.0})).unwrap().temperature.to_bits(), 0);
        assert_eq!(options(json!({"temperature": 1e-60})).unwrap().temperature, 0.0);
        assert!(options(json!({"top_p": 1e-60})).unwrap().top_p > 0.0);
        assert_eq!(options(json!({"top_k": 1_000_000_000})).unwrap().top_k, 1_000_000_000);
        for bad in [
            json!({"temperature": 2.01}),
            json!({"temperature": -0.1}),
            json!({"temperature": 0, "xtc_probability": 0.5}),
            json!({"xtc_probability": 1.1}),
            json!({"xtc_threshold": -0.1}),
            json!({"top_p": -0.1}),
            json!({"top_k": -2}),
            json!({"seed": -1e19}),
            json!({"top_p": 1.000_000_1}),
            json!({"min_p": 2}),
            json!({"presence_penalty": 2.1}),
            json!({"repetition_penalty": 0}),
            json!({"repetition_penalty": 1.1, "repeat_penalty": 1.2}),
        ] {
            assert!(options(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_for_off() {
        let off = options(json!({"top_k": -1, "top_p": 0, "min_p": 0})).unwrap();
        assert_eq!((off.top_k, off.top_p), (0, f32::MIN_POSITIVE));
    }

    #[test]
    fn a_seed_has_64_bits() {
        let seed = |value: Value| options(json!({ "seed": value })).unwrap().seed;
        assert_eq!(seed(json!(-1)), 77, "drawn");
        assert_eq!(seed(json!(null)), 77);
        assert_eq!(seed(json!(-2)), u64::MAX - 1);
        assert_eq!(seed(json!(i64::MIN)), 1 << 63);
        assert_eq!(seed(json!(u64::MAX)), u64::MAX);
        assert_eq!(seed(json!(5.0)), 5);
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
            let error = options(json!({ "logit_bias": bad })).unwrap_err();
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
