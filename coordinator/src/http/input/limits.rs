//! vLLM's fields that say which tokens may come at all: `allowed_token_ids` and `bad_words`.

use super::fields::{Fields, array_of, string_of};
use super::prompts::token_ids;
use super::tokens::refused_text;
use crate::http::error::ApiError;
use std::sync::Arc;
use woolly_engine::tokenizer::{EncodeOptions, Tokenizer};

/// Words that must not come.
pub const BAD_WORDS_MAX: usize = 128;
/// Characters of one of them.
pub const BAD_WORD_CHARS_MAX: usize = 256;

/// Takes the only tokens that may come: ascending, at least one.
///
/// # Errors
///
/// 400 naming the field.
pub fn take_allowed(fields: &mut Fields, vocab: u32) -> Result<Option<Arc<[u32]>>, ApiError> {
    const NAME: &str = "allowed_token_ids";
    let Some(value) = fields.take(NAME) else { return Ok(None) };
    let mut ids = token_ids(&array_of(value, NAME, vocab as usize)?, NAME, vocab)?;
    if ids.is_empty() {
        let text = "'allowed_token_ids' must not be empty: no token could come. Leave it out to allow all.";
        return Err(ApiError::invalid(NAME, text));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(Some(ids.into()))
}

/// Takes the words that must not come, in tokens: as they are, and with a space before them where that makes
/// as many tokens of which the first is another one.
///
/// # Errors
///
/// 400 naming the field.
pub fn take_bad_words(
    fields: &mut Fields,
    tokenizer: &Tokenizer,
) -> Result<Arc<[Vec<u32>]>, ApiError> {
    const NAME: &str = "bad_words";
    let Some(value) = fields.take(NAME) else { return Ok(Arc::default()) };
    let mut words: Vec<Vec<u32>> = Vec::new();
    for item in array_of(value, NAME, BAD_WORDS_MAX)? {
        let text = string_of(item, NAME, BAD_WORD_CHARS_MAX)?;
        let text = text.trim_start();
        if text.is_empty() {
            let text = "'bad_words' must not hold a word that is empty or only spaces.";
            return Err(ApiError::invalid(NAME, text));
        }
        let plain = tokens(tokenizer, text)?;
        let spaced = tokens(tokenizer, &format!(" {text}"))?;
        if spaced.first() != plain.first() && spaced.len() == plain.len() {
            words.push(spaced);
        }
        words.push(plain);
    }
    Ok(words.into())
}

fn tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, ApiError> {
    let options = EncodeOptions { add_special: false, parse_special: false };
    tokenizer.encode(text, options).map_err(|error| refused_text("bad_words", &error))
}
