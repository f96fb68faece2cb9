//! The fields that say how many choices of an answer there are, and what holds for each beside how its tokens
//! are drawn and when it ends.

use super::fields::Fields;
use super::sampling::TOP_LOGPROBS_MAX;
use super::{dry, limits};
use crate::guides::Dry;
use crate::http::error::ApiError;
use std::sync::Arc;
use woolly_engine::tokenizer::Tokenizer;

/// Choices of one prompt.
pub const CHOICES_MAX: u64 = 8;

/// What an answer says beside its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// The tokens of prompts and completions.
    pub token_ids: bool,
    /// The log-probabilities of the prompt's tokens, each with so many alternatives.
    pub prompt_logprobs: Option<u8>,
    /// How long it took, in llama-server's words.
    pub timings: bool,
}

/// What a request wants of its choices, beside how their tokens are chosen and when they end.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceOptions {
    /// Choices of each prompt, 1 to [`CHOICES_MAX`].
    pub count: u32,
    /// The only tokens that may come; ascending, at least one. `None` allows all.
    pub only: Option<Arc<[u32]>>,
    /// Sequences of tokens that must not come.
    pub bad_words: Arc<[Vec<u32>]>,
    /// What makes repetitions less likely.
    pub dry: Option<Arc<Dry>>,
    /// What is said beside the text.
    pub reports: Reports,
}

impl Default for ChoiceOptions {
    fn default() -> Self {
        Self {
            count: 1,
            only: None,
            bad_words: Arc::default(),
            dry: None,
            reports: Reports::default(),
        }
    }
}

/// Takes the fields that say what is wanted of the choices of a model with this tokenizer; those of samplers
/// were taken before.
///
/// # Errors
///
/// 400 naming the field.
pub fn take(fields: &mut Fields, tokenizer: &Tokenizer) -> Result<ChoiceOptions, ApiError> {
    Ok(ChoiceOptions {
        count: count(fields)?,
        only: limits::take_allowed(fields, tokenizer.vocab_size())?,
        bad_words: limits::take_bad_words(fields, tokenizer)?,
        dry: dry::take(fields, tokenizer)?.map(Arc::new),
        reports: reports(fields)?,
    })
}

fn reports(fields: &mut Fields) -> Result<Reports, ApiError> {
    let prompt_logprobs = fields.integer("prompt_logprobs", 0..=TOP_LOGPROBS_MAX)?;
    Ok(Reports {
        token_ids: fields.bool("return_token_ids")?.unwrap_or(false),
        prompt_logprobs: prompt_logprobs.and_then(|top| u8::try_from(top).ok()),
        timings: fields.bool("timings_per_token")?.unwrap_or(false),
    })
}

/// OpenAI's `n`, llama-server's `n_cmpl`. `best_of` is the number of choices that are made, of which the `n`
/// best are given: here all that are made are given.
fn count(fields: &mut Fields) -> Result<u32, ApiError> {
    let n = fields.integer("n", 1..=CHOICES_MAX)?;
    let n_cmpl = fields.integer("n_cmpl", 1..=CHOICES_MAX)?;
    if let (Some(n), Some(n_cmpl)) = (n, n_cmpl)
        && n != n_cmpl
    {
        let text = "'n' and 'n_cmpl' are one thing and differ: give one.";
        return Err(ApiError::invalid("n_cmpl", text));
    }
    let count = n.or(n_cmpl).unwrap_or(1);
    let made = fields.integer("best_of", 1..=CHOICES_MAX)?.unwrap_or(count);
    if made != count {
        let text = format!(
            "Woolly gives every choice that it makes: leave 'best_of' out, or set it to 'n', which is {count}."
        );
        return Err(ApiError::unsupported("best_of", text));
    }
    Ok(u32::try_from(count).expect("the range of the field fits u32"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn options(body: Value) -> Result<ChoiceOptions, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let metadata = crate::http::tests::support::metadata();
        let options = take(&mut fields, &Tokenizer::from_metadata(&metadata).unwrap())?;
        fields.finish()?;
        Ok(options)
    }

    #[test]
    fn one_choice_unless_more_are_asked_for() {
        for (body, count) in [
            (json!({}), 1),
            (json!({"n": null}), 1),
            (json!({"n": 8}), 8),
            (json!({"n_cmpl": 2}), 2),
            (json!({"n": 3, "n_cmpl": 3.0, "best_of": 3}), 3),
            (json!({"best_of": 1}), 1),
        ] {
            assert_eq!(options(body.clone()).unwrap().count, count, "{body}");
        }
    }

    #[test]
    fn words_come_with_and_without_a_space() {
        let body = json!({"bad_words": ["hel", " x", "ab"], "allowed_token_ids": [9, 3, 9]});
        let options = options(body).unwrap();
        // A space is a token of its own in this vocabulary, so that a word with one is longer.
        assert_eq!(options.bad_words[..], [vec![262], vec![120], vec![97, 98]]);
        assert_eq!(options.only.as_deref(), Some(&[3, 9][..]));
    }

    #[test]
    fn breakers_are_found_across_tokens() {
        let body = json!({"dry_multiplier": 0.8, "dry_sequence_breakers": ["hex", "l", ""]});
        let dry = options(body).unwrap().dry.unwrap();
        let mut breakers = crate::guides::Breakers::default();
        // "l" is a byte and the end of "hel"; "hex" begins with "h" or with "he".
        breakers.add(108, vec![]);
        breakers.add(262, vec![]);
        breakers.add(104, vec![101, 120]);
        breakers.add(261, vec![120]);
        let expected =
            Dry { multiplier: 0.8, base: 1.75, allowed_length: 2, last: usize::MAX, breakers };
        assert_eq!(*dry, expected);
        for off in [
            json!({"dry_multiplier": 0, "dry_base": 2}),
            json!({"dry_multiplier": 1, "dry_penalty_last_n": 0}),
            json!({"dry_sequence_breakers": []}),
        ] {
            assert_eq!(options(off).unwrap().dry, None);
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        for (body, param) in [
            (json!({"n": 0}), "n"),
            (json!({"n": -1}), "n"),
            (json!({"n": 9}), "n"),
            (json!({"n": 1_000_000_000}), "n"),
            (json!({"n": 1.5}), "n"),
            (json!({"n_cmpl": 9}), "n_cmpl"),
            (json!({"n": 2, "n_cmpl": 3}), "n_cmpl"),
            (json!({"n": 2, "best_of": 1}), "best_of"),
            (json!({"best_of": 2}), "best_of"),
            (json!({"best_of": 1_000_000}), "best_of"),
            (json!({"allowed_token_ids": []}), "allowed_token_ids"),
            (json!({"allowed_token_ids": [263]}), "allowed_token_ids"),
            (json!({"allowed_token_ids": [-1]}), "allowed_token_ids"),
            (json!({"allowed_token_ids": vec![1; 264]}), "allowed_token_ids"),
            (json!({"bad_words": [""]}), "bad_words"),
            (json!({"bad_words": ["  "]}), "bad_words"),
            (json!({"bad_words": "x"}), "bad_words"),
            (json!({"bad_words": vec!["x"; 129]}), "bad_words"),
            (json!({"bad_words": ["x".repeat(257)]}), "bad_words"),
            (json!({"prompt_logprobs": -1}), "prompt_logprobs"),
            (json!({"prompt_logprobs": 21}), "prompt_logprobs"),
            (json!({"dry_multiplier": -1}), "dry_multiplier"),
            (json!({"dry_base": 0.5}), "dry_base"),
            (json!({"dry_allowed_length": -1}), "dry_allowed_length"),
            (json!({"dry_penalty_last_n": -2}), "dry_penalty_last_n"),
            (json!({"dry_sequence_breakers": "x"}), "dry_sequence_breakers"),
            (json!({"dry_sequence_breakers": ["x".repeat(41)]}), "dry_sequence_breakers"),
        ] {
            let error = options(body.clone()).unwrap_err();
            assert_eq!(error.body()["error"]["param"], json!(param), "{body}");
        }
    }
}
