//! One completion request as the gateway sees it: its tokens in time, and what becomes of it.

use super::Metrics;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::time::Instant;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every choice is complete.
    Answered,
    /// An error before the first byte of the answer: the request's fault, a full queue, no pipeline.
    Refused,
    /// The engine could not go on, or the server ended.
    Failed,
    /// The client went away.
    Abandoned,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Outcome; 4] =
        [Outcome::Answered, Outcome::Refused, Outcome::Failed, Outcome::Abandoned];

    /// The value of the label.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Abandoned => "abandoned",
        }
    }
}

/// Measures one request. Dropped without a word it was abandoned.
#[derive(Debug)]
pub struct Meter {
    metrics: Arc<Metrics>,
    arrived: Instant,
    outcome: Outcome,
}

impl Meter {
    /// A request has arrived.
    pub fn start(metrics: Arc<Metrics>) -> Meter {
        Meter { metrics, arrived: Instant::now(), outcome: Outcome::Abandoned }
    }

    /// A choice begins with a prompt of so many tokens.
    pub fn prompt(&self, tokens: u64) {
        self.metrics.prompt_tokens.fetch_add(tokens, Relaxed);
    }

    /// A token of a choice; `last` is when the one before it came, and becomes now.
    pub fn token(&self, last: &mut Option<Instant>) {
        let now = Instant::now();
        match last.replace(now) {
            None => self.metrics.first_token.observe(now - self.arrived),
            Some(before) => self.metrics.between_tokens.observe(now - before),
        }
        self.metrics.completion_tokens.fetch_add(1, Relaxed);
    }

    /// What became of it; said when it is dropped.
    pub fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.metrics.requests[self.outcome as usize].fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_first_token_counts_from_the_arrival_and_the_others_from_the_one_before() {
        let metrics = Arc::new(Metrics::default());
        let meter = Meter::start(metrics.clone());
        meter.prompt(7);
        let mut last = None;
        for ms in [300, 20, 30] {
            tokio::time::advance(Duration::from_millis(ms)).await;
            meter.token(&mut last);
        }
        assert_eq!(metrics.first_token.sum(), Duration::from_millis(300));
        assert_eq!(metrics.between_tokens.sum(), Duration::from_millis(50));
        assert_eq!(metrics.between_tokens.count(), 2);
        assert_eq!(metrics.prompt_tokens.load(Relaxed), 7);
        assert_eq!(metrics.completion_tokens.load(Relaxed), 3);
    }

    #[test]
    fn every_request_has_one_outcome() {
        let metrics = Arc::new(Metrics::default());
        for (number, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, number);
            let mut meter = Meter::start(metrics.clone());
            meter.ended(Outcome::Refused);
            meter.ended(outcome);
            assert_eq!(metrics.requests(outcome), 0);
            drop(meter);
            assert_eq!(metrics.requests(outcome), 1);
        }
        drop(Meter::start(metrics.clone()));
        assert_eq!(metrics.requests(Outcome::Abandoned), 2);
    }
}
