//! The last quarter of an hour in samples, for whoever looks at plots: `GET /admin/v1/history`.
//!
//! It knows no clock: who takes a sample says when. Rates are those since the sample before; times to the first token are of the last
//! [`WINDOW`] samples, as most intervals have few. Bounded: [`SAMPLES_MAX`] samples, the oldest go first.

use super::histogram::{BOUNDS_US, BUCKETS};
use serde::Serialize;
use std::collections::VecDeque;
use std::time::Duration;

/// Between two samples.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Samples that are kept: fifteen minutes.
pub const SAMPLES_MAX: usize = 180;
/// Samples over which times to the first token are counted: a minute.
const WINDOW: usize = 12;

/// What counters say at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Tokens that were generated since the start.
    pub tokens: u64,
    /// Tokens of prompts since the start.
    pub prompt_tokens: u64,
    /// Times to the first token since the start, by bucket.
    pub first_token: [u64; BUCKETS],
    /// Sequences that run.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// KV blocks that somebody holds, and all; all is 0 without a plan.
    pub kv_blocks: (u32, u32),
}

/// A moment of the history.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Tokens generated per second since the sample before.
    pub tokens_per_s: f64,
    /// Tokens of prompts per second since the sample before: counted when a request is taken.
    pub prompt_tokens_per_s: f64,
    /// Half of the choices of the last minute had their first token after so many milliseconds; left out without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_p50_ms: Option<f64>,
    /// 19 of 20 had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_p95_ms: Option<f64>,
    /// Sequences that run.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// KV blocks in use, of all; left out without a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_used_percent: Option<f64>,
}

/// The samples.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    /// The latest readings with their times, as many as the window is long.
    readings: VecDeque<(u64, Reading)>,
}

impl History {
    /// One more sample. A clock that was set back begins anew.
    pub fn take(&mut self, at_ms: u64, reading: Reading) {
        let Some((before_ms, before)) = self.readings.back().copied() else {
            self.readings.push_back((at_ms, reading));
            return;
        };
        if at_ms <= before_ms {
            *self = History::default();
            self.readings.push_back((at_ms, reading));
            return;
        }
        let seconds = Duration::from_millis(at_ms - before_ms).as_secs_f64();
        let rate = |now: u64, before: u64| figure(now.saturating_sub(before)) / seconds;
        let (_, first) = self.readings.front().copied().unwrap_or_default();
        let times = difference(&reading.first_token, &first.first_token);
        let (used, all) = reading.kv_blocks;
        self.samples.push_back(Sample {
            at_ms,
            tokens_per_s: rate(reading.tokens, before.tokens),
            prompt_tokens_per_s: rate(reading.prompt_tokens, before.prompt_tokens),
            first_token_p50_ms: quantile(&times, 0.5),
            first_token_p95_ms: quantile(&times, 0.95),
            running: reading.running,
            waiting: reading.waiting,
            kv_used_percent: (all > 0).then(|| 100.0 * f64::from(used) / f64::from(all)),
        });
        self.readings.push_back((at_ms, reading));
        trim(&mut self.samples, SAMPLES_MAX);
        trim(&mut self.readings, WINDOW);
    }

    /// All of them, the oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.iter().copied().collect()
    }
}

fn trim<T>(queue: &mut VecDeque<T>, most: usize) {
    while queue.len() > most {
        queue.pop_front();
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures for plots")]
fn figure(count: u64) -> f64 {
    count as f64
}

fn difference(now: &[u64; BUCKETS], before: &[u64; BUCKETS]) -> [u64; BUCKETS] {
    std::array::from_fn(|at| now[at].saturating_sub(before[at]))
}

/// The time below which this part of the times lies, in milliseconds, as if they were spread evenly in each bucket; what lies in the last
/// bucket, which has no bound, counts as its beginning.
fn quantile(counts: &[u64; BUCKETS], part: f64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    if all == 0 {
        return None;
    }
    let wanted = part * figure(all);
    let mut below = 0.0;
    for (at, count) in counts.iter().enumerate() {
        let count = figure(*count);
        if below + count >= wanted && count > 0.0 {
            let low = at.checked_sub(1).map_or(0, |at| BOUNDS_US[at]);
            let high = BOUNDS_US.get(at).copied().unwrap_or(low);
            return Some((figure(low) + figure(high - low) * (wanted - below) / count) / 1000.0);
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(tokens: u64, slow: u64) -> Reading {
        let mut first_token = [0; BUCKETS];
        // Between 100 and 200 ms.
        first_token[11] = slow;
        let kv_blocks = (25, 100);
        Reading { tokens, first_token, running: 2, waiting: 1, kv_blocks, ..Reading::default() }
    }

    #[test]
    fn rates_are_those_since_the_sample_before() {
        let mut history = History::default();
        history.take(1_000, reading(100, 0));
        assert!(history.samples().is_empty(), "one reading is no rate");
        history.take(6_000, reading(350, 4));
        let sample = history.samples()[0];
        assert!((sample.tokens_per_s - 50.0).abs() < 1e-9, "{sample:?}");
        assert_eq!((sample.running, sample.waiting), (2, 1));
        assert_eq!(sample.kv_used_percent, Some(25.0));
        assert_eq!(sample.first_token_p50_ms, Some(150.0));
        assert_eq!(sample.first_token_p95_ms, Some(195.0));
    }

    #[test]
    fn first_tokens_of_more_than_a_minute_ago_do_not_count() {
        let mut history = History::default();
        history.take(0, reading(0, 0));
        for at in 1..=13 {
            history.take(at * 5_000, reading(0, 4));
        }
        let counted: Vec<bool> =
            history.samples().iter().map(|sample| sample.first_token_p50_ms.is_some()).collect();
        assert_eq!(counted.iter().filter(|counted| **counted).count(), WINDOW);
        assert!(!counted[12], "all came more than a minute before");
    }

    #[test]
    fn a_quarter_of_an_hour_is_kept() {
        let mut history = History::default();
        for at in 0..=200 {
            history.take(at * 5_000, Reading::default());
        }
        let samples = history.samples();
        assert_eq!((samples.len(), samples[0].at_ms), (SAMPLES_MAX, 21 * 5_000));
        assert_eq!(samples[0].kv_used_percent, None, "there is no plan");
        history.take(7, Reading::default());
        assert!(history.samples().is_empty(), "the clock was set back");
    }
}
