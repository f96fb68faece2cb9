//! What a request has used, in tokens and time. It knows how parts are added up, and not how an answer shows it.

use std::time::Duration;

/// Tokens of a request, as clients are billed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompts.
    pub prompt_tokens: u64,
    /// Tokens generated, end-of-text tokens and the tokens of stop strings included.
    pub completion_tokens: u64,
    /// Those of them with which the model thought.
    pub reasoning_tokens: u64,
    /// Tokens of the prompts that a cache already held; `None` if nobody said (a stop string ended
    /// the generation before the engine did).
    pub cached_tokens: Option<u64>,
    /// From the request's arrival to the first token, waiting included; of several choices the longest.
    pub prompt_time: Duration,
    /// From the first token to the newest; of several choices the longest.
    pub completion_time: Duration,
}

impl Usage {
    /// The usage of a request whose choices have these.
    pub fn sum(parts: impl IntoIterator<Item = Usage>) -> Usage {
        let none = Usage { cached_tokens: Some(0), ..Usage::default() };
        parts.into_iter().fold(none, |sum, part| Usage {
            prompt_tokens: sum.prompt_tokens + part.prompt_tokens,
            completion_tokens: sum.completion_tokens + part.completion_tokens,
            reasoning_tokens: sum.reasoning_tokens + part.reasoning_tokens,
            cached_tokens: sum.cached_tokens.zip(part.cached_tokens).map(|(a, b)| a + b),
            prompt_time: sum.prompt_time.max(part.prompt_time),
            completion_time: sum.completion_time.max(part.completion_time),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_adds_up_and_says_when_the_cache_is_not_known() {
        let time = Duration::from_secs;
        let part = |cached| Usage {
            prompt_tokens: 2,
            completion_tokens: 3,
            reasoning_tokens: 1,
            cached_tokens: cached,
            prompt_time: time(1),
            completion_time: time(2),
        };
        let sum = Usage::sum([part(Some(1)), part(Some(1))]);
        let expected = Usage {
            prompt_tokens: 4,
            completion_tokens: 6,
            reasoning_tokens: 2,
            cached_tokens: Some(2),
            prompt_time: time(1),
            completion_time: time(2),
        };
        assert_eq!(sum, expected);
        assert_eq!(Usage::sum([part(Some(1)), part(None)]).cached_tokens, None);
    }
}
