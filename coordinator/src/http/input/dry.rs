//! llama-server's fields of DRY, which makes repetitions less likely: `dry_multiplier` and what belongs to it.

use super::fields::{Fields, array_of, string_of};
use super::samplers::{DRY, DRY_MULTIPLIER_MAX};
use super::tokens::refused_text;
use crate::guides::{Breakers, Dry};
use crate::http::error::ApiError;
use woolly_engine::tokenizer::{EncodeOptions, Tokenizer};

/// Sequence breakers of a request: the whole vocabulary is looked through for each.
pub const BREAKERS_MAX: usize = 16;
/// Characters of one of them: llama.cpp's limit, in bytes there.
pub const BREAKER_CHARS_MAX: usize = 40;
/// Tokens of a breaker that are looked at after its first: llama.cpp's limit.
const TAIL_MAX: usize = 20;
/// llama.cpp's, and those of the method's author.
const BREAKERS_DEFAULT: [&str; 4] = ["\n", ":", "\"", "*"];

/// Takes the fields of DRY; `None` if it is off. What belongs to it is checked all the same.
///
/// # Errors
///
/// 400 naming the field.
pub fn take(fields: &mut Fields, tokenizer: &Tokenizer) -> Result<Option<Dry>, ApiError> {
    let multiplier = fields.number(DRY, 0.0..=DRY_MULTIPLIER_MAX)?.unwrap_or(0.0) as f32;
    let base = fields.number("dry_base", 1.0..=100.0)?.unwrap_or(1.75) as f32;
    let allowed = fields.integer("dry_allowed_length", 0..=i32::MAX as u64)?.unwrap_or(2);
    let last = fields.signed("dry_penalty_last_n", -1..=i128::from(i32::MAX))?.unwrap_or(-1);
    let breakers = breakers(fields)?;
    let last = usize::try_from(last).unwrap_or(usize::MAX);
    if multiplier == 0.0 || last == 0 {
        return Ok(None);
    }
    let mut found = Breakers::default();
    for breaker in &breakers {
        add(&mut found, tokenizer, breaker)?;
    }
    let allowed_length = usize::try_from(allowed).unwrap_or(usize::MAX);
    Ok(Some(Dry { multiplier, base, allowed_length, last, breakers: found }))
}

fn breakers(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    const NAME: &str = "dry_sequence_breakers";
    let Some(value) = fields.take(NAME) else {
        return Ok(BREAKERS_DEFAULT.map(str::to_owned).to_vec());
    };
    let items = array_of(value, NAME, BREAKERS_MAX)?;
    let breaker = |item| string_of(item, NAME, BREAKER_CHARS_MAX);
    let breakers: Vec<String> = items.into_iter().map(breaker).collect::<Result<_, _>>()?;
    Ok(breakers.into_iter().filter(|breaker| !breaker.is_empty()).collect())
}

/// Adds each token that holds the breaker, and each that ends with the beginning of it, with the tokens of
/// the rest.
fn add(found: &mut Breakers, tokenizer: &Tokenizer, breaker: &str) -> Result<(), ApiError> {
    let wanted = breaker.as_bytes();
    for token in 0..tokenizer.vocab_size() {
        let bytes = tokenizer.token_bytes(token);
        if bytes.windows(wanted.len()).any(|part| part == wanted) {
            found.add(token, Vec::new());
            continue;
        }
        let longest = bytes.len().min(wanted.len() - 1);
        for len in (1..=longest).filter(|len| bytes.ends_with(&wanted[..*len])) {
            // Half a character is no text that could follow.
            let Some(rest) = breaker.get(len..) else { continue };
            let options = EncodeOptions { add_special: false, parse_special: false };
            let tail = tokenizer.encode(rest, options);
            let mut tail = tail.map_err(|error| refused_text("dry_sequence_breakers", &error))?;
            tail.truncate(TAIL_MAX);
            if !tail.is_empty() {
                found.add(token, tail);
            }
        }
    }
    Ok(())
}
