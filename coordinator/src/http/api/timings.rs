//! How long an answer took, in llama-server's words.
//!
//! Times are the gateway's: a prompt's is that from the request's arrival to the first token, waiting included,
//! a completion's that from the first token to the newest.

use crate::http::usage::Usage;
use serde::Serialize;
use std::time::Duration;

/// llama-server's `timings`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timings {
    cache_n: u64,
    prompt_n: u64,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: u64,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
}

impl Timings {
    /// Of an answer that has used so much so far.
    pub fn of(usage: &Usage) -> Timings {
        let cached = usage.cached_tokens.unwrap_or(0);
        let computed = usage.prompt_tokens.saturating_sub(cached);
        let ms = |time: Duration| 1000.0 * time.as_secs_f64();
        let (prompt, predicted) = (ms(usage.prompt_time), ms(usage.completion_time));
        Timings {
            cache_n: cached,
            prompt_n: computed,
            prompt_ms: prompt,
            prompt_per_token_ms: part(prompt, computed as f64),
            prompt_per_second: 1000.0 * part(computed as f64, prompt),
            predicted_n: usage.completion_tokens,
            predicted_ms: predicted,
            predicted_per_token_ms: part(predicted, usage.completion_tokens as f64),
            predicted_per_second: 1000.0 * part(usage.completion_tokens as f64, predicted),
        }
    }
}

/// A part; 0 of nothing.
fn part(sum: f64, of: f64) -> f64 {
    if of > 0.0 { sum / of } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_what_was_computed() {
        let usage = Usage {
            reasoning_tokens: 0,
            prompt_tokens: 30,
            completion_tokens: 8,
            cached_tokens: Some(10),
            prompt_time: Duration::from_millis(100),
            completion_time: Duration::from_millis(400),
        };
        let timings = Timings::of(&usage);
        assert_eq!((timings.cache_n, timings.prompt_n, timings.predicted_n), (10, 20, 8));
        assert_eq!((timings.prompt_ms, timings.prompt_per_token_ms), (100.0, 5.0));
        assert_eq!((timings.prompt_per_second, timings.predicted_per_second), (200.0, 20.0));
        assert_eq!(timings.predicted_per_token_ms, 50.0);
        let none = Timings::of(&Usage::default());
        assert_eq!((none.prompt_per_second, none.predicted_per_second), (0.0, 0.0));
    }
}
