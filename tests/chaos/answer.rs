//! What came for a request: the text, the tokens as they were printed, the end, and when each event came.

use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// An answer as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status; 0 if no head came.
    pub status: u16,
    /// All pieces of text together.
    pub text: String,
    /// An entry for each token with a log-probability, in the order in which they came.
    pub tokens: Vec<Value>,
    /// Why it ended.
    pub finish: Option<String>,
    /// Tokens of the prompt and of the completion.
    pub usage: Option<(u64, u64)>,
    /// What went wrong, in words.
    pub error: Option<String>,
    /// When the request was sent and when each event with something new came.
    pub times: Vec<Instant>,
    /// Whether the client left by itself.
    pub left: bool,
    /// Events after the one that said why the answer ended, other than usage.
    pub after_end: usize,
}

impl Answer {
    /// A request that is sent now.
    pub fn begun() -> Answer {
        Answer { times: vec![Instant::now()], ..Answer::default() }
    }

    /// The longest time without anything new.
    pub fn stall(&self) -> Duration {
        let gaps = self.times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// Adds an event of a stream or a whole answer.
    pub fn add(&mut self, event: &Value) {
        if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
            self.error = Some(format!("{}: {}", error["code"], error["message"]));
            self.times.push(Instant::now());
        }
        if let Some(usage) = event.get("usage").filter(|usage| !usage.is_null()) {
            let count = |name: &str| usage[name].as_u64().unwrap_or(u64::MAX);
            self.usage = Some((count("prompt_tokens"), count("completion_tokens")));
        }
        let Some(choice) = event["choices"].get(0) else { return };
        let had = (self.text.len(), self.tokens.len(), self.finish.is_some());
        let message = choice.get("delta").or(choice.get("message")).unwrap_or(&Value::Null);
        for text in [&message["content"], &choice["text"]] {
            self.text += text.as_str().unwrap_or_default();
        }
        self.add_tokens(&choice["logprobs"]);
        let has = (self.text.len(), self.tokens.len());
        if had.2 && has != (had.0, had.1) {
            self.after_end += 1;
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish = Some(finish.to_owned());
        }
        if has != (had.0, had.1) || self.finish.is_some() != had.2 {
            self.times.push(Instant::now());
        }
    }

    /// Log-probabilities of a chat, or the lists of a completion made into an entry for each token.
    fn add_tokens(&mut self, logprobs: &Value) {
        if let Some(content) = logprobs["content"].as_array() {
            self.tokens.extend(content.iter().cloned());
        }
        for (at, token) in logprobs["tokens"].as_array().into_iter().flatten().enumerate() {
            let of = |name: &str| logprobs[name].get(at).cloned().unwrap_or_default();
            self.tokens.push(json!([
                token,
                of("token_logprobs"),
                of("top_logprobs"),
                of("text_offset")
            ]));
        }
    }
}
