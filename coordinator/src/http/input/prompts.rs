//! The `prompt` of a completions request: a text, token ids, or several of either.

use super::fields::{Fields, array_of, expected, integer_of};
use crate::http::error::ApiError;
use serde_json::Value;

/// Prompts of one request, OpenAI's limit; each is a choice, and takes a place of the queue when one
/// of the request's own is free.
pub const PROMPTS_MAX: usize = 2048;

/// One prompt as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// To be tokenised; special tokens in it count as such, as in llama.cpp and vLLM.
    Text(String),
    /// As it is: nothing is put before it.
    Tokens(Vec<u32>),
}

/// Takes the prompts for a model of `vocab` tokens: one or more, token lists not empty.
///
/// # Errors
///
/// 400 naming `prompt`.
pub fn take(fields: &mut Fields, vocab: u32) -> Result<Vec<Prompt>, ApiError> {
    match fields.take("prompt") {
        None => Err(ApiError::invalid("prompt", "'prompt' is missing.")),
        Some(Value::String(text)) => Ok(vec![Prompt::Text(text)]),
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => {
            Ok(vec![Prompt::Tokens(tokens(&items, vocab)?)])
        }
        Some(Value::Array(items)) if items.is_empty() => {
            Err(ApiError::invalid("prompt", "'prompt' must not be an empty array."))
        }
        Some(Value::Array(items)) => {
            let items = array_of(Value::Array(items), "prompt", PROMPTS_MAX)?;
            several(items, vocab)
        }
        Some(other) => Err(expected("prompt", WANTED, &other)),
    }
}

const WANTED: &str = "a string, an array of strings, an array of token ids or an array of arrays \
                      of token ids";

fn several(items: Vec<Value>, vocab: u32) -> Result<Vec<Prompt>, ApiError> {
    let texts = items.first().is_some_and(Value::is_string);
    let mut prompts = Vec::with_capacity(items.len());
    for item in items {
        prompts.push(match item {
            Value::String(text) if texts => Prompt::Text(text),
            Value::Array(ids) if !texts => Prompt::Tokens(tokens(&ids, vocab)?),
            other => return Err(expected("prompt", WANTED, &other)),
        });
    }
    Ok(prompts)
}

/// Token ids from JSON, all below `vocab`.
///
/// # Errors
///
/// 400 naming `prompt` if there is none or one is no token id.
fn tokens(items: &[Value], vocab: u32) -> Result<Vec<u32>, ApiError> {
    if items.is_empty() {
        return Err(ApiError::invalid("prompt", "'prompt' must not hold an empty list of tokens."));
    }
    token_ids(items, "prompt", vocab)
}

/// Token ids from JSON, all below `vocab`.
///
/// # Errors
///
/// 400 naming `at` and the first value that is no token id.
pub fn token_ids(items: &[Value], at: &str, vocab: u32) -> Result<Vec<u32>, ApiError> {
    let id = |item: &Value| {
        let id = integer_of(item).and_then(|id| u32::try_from(id).ok()).filter(|id| *id < vocab);
        id.ok_or_else(|| expected(at, &format!("made of token ids from 0 to {}", vocab - 1), item))
    };
    items.iter().map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn prompts(value: Value) -> Result<Vec<Prompt>, ApiError> {
        take(&mut Fields::of_body(json!({ "prompt": value }))?, 100)
    }

    #[test]
    fn the_four_shapes() {
        let text = |text: &str| Prompt::Text(text.into());
        assert_eq!(prompts(json!("a")).unwrap(), [text("a")]);
        assert_eq!(prompts(json!(["a", ""])).unwrap(), [text("a"), text("")]);
        assert_eq!(prompts(json!([1, 99])).unwrap(), [Prompt::Tokens(vec![1, 99])]);
        assert_eq!(prompts(json!([1.0, 9e0])).unwrap(), [Prompt::Tokens(vec![1, 9])]);
        let two = [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])];
        assert_eq!(prompts(json!([[1], [2, 3]])).unwrap(), two);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for bad in [
            json!(null),
            json!([]),
            json!([[]]),
            json!([[1], []]),
            json!(1),
            json!({}),
            json!(true),
            json!([-1]),
            json!([[-1]]),
            json!([100]),
            json!([2_147_483_648_u64]),
            json!([999_999]),
            json!([1.5]),
            json!(["a", 1]),
            json!([1, "a"]),
            json!([[1], "a"]),
            json!(["a", [1]]),
            json!([[[1]]]),
            json!([null]),
            json!(vec!["a"; PROMPTS_MAX + 1]),
        ] {
            let error = prompts(bad.clone()).unwrap_err();
            assert_eq!(error.body()["error"]["param"], json!("prompt"), "{bad}");
        }
    }
}
