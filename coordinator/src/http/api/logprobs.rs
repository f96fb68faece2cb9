//! Log-probabilities as OpenAI's two endpoints write them.
//!
//! There is one entry per generated token, the token that ended the completion included, so their
//! number is that of `usage.completion_tokens`. Values are natural logarithms of the unmodified
//! distribution, printed with every bit of the `f32`. A token that spells only a part of a
//! character is written as OpenAI writes it, `bytes:\xe2\x82`.

use crate::generation::TokenEvent;
use crate::http::output::delta::Logprobs;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use woolly_engine::tokenizer::Tokenizer;

/// What stands for a log-probability of minus infinity, which JSON has not: OpenAI's value.
const IMPOSSIBLE: f64 = -9999.0;

/// `logprobs` of a chat answer: an entry per token in `content`.
pub fn chat(logprobs: &Logprobs, tokenizer: &Tokenizer) -> Value {
    let entry = |token: u32, logprob: f32| {
        json!({
            "token": token_string(tokenizer, token),
            "logprob": printed(logprob),
            "bytes": tokenizer.token_bytes(token),
        })
    };
    let with_top = |event: &TokenEvent| {
        let mut value = entry(event.token, event.logprob);
        value["top_logprobs"] =
            event.top.iter().map(|(token, logprob)| entry(*token, *logprob)).collect();
        value
    };
    let content: Vec<Value> = logprobs.tokens.iter().map(with_top).collect();
    json!({ "content": content, "refusal": null })
}

/// `logprobs` of a completion: four arrays of one length. A map of `top_logprobs` always holds the
/// actual token; where two tokens are written alike, the actual one, or else the better, counts.
pub fn completion(logprobs: &Logprobs, tokenizer: &Tokenizer) -> Value {
    let (mut tokens, mut values, mut top) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(first) = logprobs.first {
        tokens.push(token_string(tokenizer, first));
        values.push(Value::Null);
        top.push(Value::Null);
    }
    for event in &logprobs.tokens {
        let actual = token_string(tokenizer, event.token);
        values.push(printed(event.logprob).into());
        top.push(top_map(event, &actual, tokenizer).into());
        tokens.push(actual);
    }
    json!({
        "text_offset": logprobs.offsets,
        "token_logprobs": values,
        "tokens": tokens,
        "top_logprobs": top,
    })
}

fn top_map(event: &TokenEvent, actual: &str, tokenizer: &Tokenizer) -> Map<String, Value> {
    let mut map = Map::new();
    for (token, logprob) in &event.top {
        map.entry(token_string(tokenizer, *token)).or_insert_with(|| printed(*logprob).into());
    }
    map.insert(actual.to_owned(), printed(event.logprob).into());
    map
}

/// `prompt_logprobs` as vLLM writes them: a map for each token of the prompt but the first, which has `null`.
/// A map holds the actual token and the most likely ones. The rank of an actual token that is not among them
/// is not known.
pub fn prompt(events: &[TokenEvent], tokenizer: &Tokenizer) -> Value {
    let of = |event: &TokenEvent| {
        let entry = |token: u32, logprob: f32, rank: Option<usize>| {
            let text = String::from_utf8_lossy(tokenizer.token_bytes(token));
            let entry = json!({ "logprob": printed(logprob), "rank": rank, "decoded_token": text });
            (token.to_string(), entry)
        };
        let rank = event.top.iter().position(|(token, _)| *token == event.token);
        let actual = entry(event.token, event.logprob, rank.map(|rank| rank + 1));
        let top = (1..)
            .zip(&event.top)
            .map(|(rank, (token, logprob))| entry(*token, *logprob, Some(rank)));
        Value::Object(std::iter::once(actual).chain(top).collect())
    };
    std::iter::once(Value::Null).chain(events.iter().map(of)).collect()
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
