//! Log-probabilities as OpenAI's two endpoints write them.
//!
//! There is one entry per generated token, the token that ended the completion included, so their
//! number is that of `usage.completion_tokens`. Values are natural logarithms of the unmodified
//! distribution, printed with every bit of the `f32`. A token that spells only a part of a
//! character is written as OpenAI writes it, `bytes:\xe2\x82`.

use serde_json::{Map, Value, json};
use std::fmt::Write;
use woolly_engine::tokenizer::Tokenizer;

/// What stands for a log-probability of minus infinity, which JSON has not: OpenAI's value.
const IMPOSSIBLE: f64 = -9999.0;

/// One token of an answer with its log-probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLine {
    /// The token.
    pub token: u32,
    /// Its log-probability; `None` for the first token of a prompt, before which nothing stands.
    pub logprob: Option<f32>,
    /// The most likely tokens in its place, best first.
    pub top: Vec<(u32, f32)>,
    /// Characters of the answer's text before it.
    pub offset: usize,
}

/// `logprobs` of a chat answer: an entry per token in `content`.
pub fn chat(lines: &[TokenLine], tokenizer: &Tokenizer) -> Value {
    let entry = |token: u32, logprob: f32| {
        json!({
            "token": token_string(tokenizer, token),
            "logprob": printed(logprob),
            "bytes": tokenizer.token_bytes(token),
        })
    };
    let content: Vec<Value> = lines
        .iter()
        .map(|line| {
            let mut value = entry(line.token, line.logprob.unwrap_or(0.0));
            value["top_logprobs"] =
                line.top.iter().map(|(token, logprob)| entry(*token, *logprob)).collect();
            value
        })
        .collect();
    json!({ "content": content, "refusal": null })
}

/// `logprobs` of a completion: four arrays of one length. A map of `top_logprobs` always holds the
/// actual token; where two tokens are written alike, the actual one, or else the better, counts.
pub fn completion(lines: &[TokenLine], tokenizer: &Tokenizer) -> Value {
    let tokens: Vec<String> =
        lines.iter().map(|line| token_string(tokenizer, line.token)).collect();
    let top: Vec<Value> = lines
        .iter()
        .zip(&tokens)
        .map(|(line, actual)| match line.logprob {
            None => Value::Null,
            Some(logprob) => top_map(line, actual, logprob, tokenizer).into(),
        })
        .collect();
    json!({
        "text_offset": lines.iter().map(|line| line.offset).collect::<Vec<_>>(),
        "token_logprobs": lines.iter().map(|line| line.logprob.map(printed)).collect::<Vec<_>>(),
        "tokens": tokens,
        "top_logprobs": top,
    })
}

fn top_map(
    line: &TokenLine,
    actual: &str,
    logprob: f32,
    tokenizer: &Tokenizer,
) -> Map<String, Value> {
    let mut map = Map::new();
    for (token, logprob) in &line.top {
        map.entry(token_string(tokenizer, *token)).or_insert_with(|| printed(*logprob).into());
    }
    map.insert(actual.to_owned(), printed(logprob).into());
    map
}

/// A token as text: what it spells, or `bytes:\x..` if that is not UTF-8.
pub fn token_string(tokenizer: &Tokenizer, token: u32) -> String {
    let bytes = tokenizer.token_bytes(token);
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |mut text, byte| {
            write!(text, "\\x{byte:02x}").expect("a String takes everything");
            text
        }),
    }
}

fn printed(logprob: f32) -> f64 {
    if logprob.is_finite() { f64::from(logprob) } else { IMPOSSIBLE }
}
