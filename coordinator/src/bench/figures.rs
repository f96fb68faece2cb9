//! From requests and counters to figures: arithmetic only.

use super::config::Load;
use super::load::Seen;
use super::scrape::StageCounters;
use serde_json::{Value, json};
use std::time::Duration;

/// What one load showed.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was asked for.
    pub load: Load,
    /// Requests that were answered.
    pub answered: usize,
    /// The errors of those that were not.
    pub errors: Vec<String>,
    /// From the start to the last end.
    pub wall: Duration,
    /// Tokens generated, and of prompts.
    pub completion_tokens: u64,
    /// See `completion_tokens`.
    pub prompt_tokens: u64,
    /// Tokens of prompts that a cache held.
    pub cached_tokens: u64,
    /// All prompts of the first requests of the streams; `None` if requests come at their own times.
    pub prefill: Option<Rate>,
    /// While all streams decode: from the last first token to the first end; `None` if they never all
    /// did.
    pub decode: Option<Rate>,
    /// From a request's arrival to its first token.
    pub first_token: Spread,
    /// Between two tokens of a request.
    pub between_tokens: Spread,
    /// By stage, while the load ran; empty if the gateway tells nothing of stages.
    pub stages: Vec<StageCounters>,
}

/// Tokens in a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// How many.
    pub tokens: u64,
    /// In which time.
    pub time: Duration,
}

impl Rate {
    /// Tokens per second.
    pub fn per_s(&self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64()
    }
}

/// How times are spread; zeros without any.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// Half of them are at most so long.
    pub p50: Duration,
    /// 99 of 100 are at most so long.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Spread {
    /// The spread of `times`, by nearest rank: a value that occurred, no mean of two.
    pub fn of(mut times: Vec<Duration>) -> Spread {
        times.sort_unstable();
        let count = times.len();
        let rank = |percent: usize| {
            let rank = (count * percent).div_ceil(100).max(1);
            times.get(rank - 1).copied().unwrap_or_default()
        };
        Spread { count, p50: rank(50), p99: rank(99), max: rank(100) }
    }
}

impl Figure {
    /// The figure of a load whose requests ended so.
    pub fn of(load: &Load, seen: &[Seen], stages: Vec<StageCounters>) -> Figure {
        let (good, bad): (Vec<&Seen>, Vec<&Seen>) =
            seen.iter().partition(|seen| seen.error.is_none() && !seen.tokens.is_empty());
        let silent = || "the answer had no tokens".to_owned();
        let first_token = good.iter().map(|seen| seen.tokens[0].0.saturating_sub(seen.arrived));
        Figure {
            load: load.clone(),
            answered: good.len(),
            errors: bad.iter().map(|seen| seen.error.clone().unwrap_or_else(silent)).collect(),
            wall: seen.iter().map(|seen| seen.ended).max().unwrap_or_default(),
            completion_tokens: good.iter().map(|seen| last(seen)).sum(),
            prompt_tokens: good.len() as u64 * u64::from(load.prompt_tokens),
            cached_tokens: good.iter().map(|seen| seen.cached_tokens).sum(),
            prefill: prefill(load, &good),
            decode: decode(load, &good),
            first_token: Spread::of(first_token.collect()),
            between_tokens: Spread::of(good.iter().flat_map(|seen| gaps(seen)).collect()),
            stages,
        }
    }

    /// Generated tokens over the whole time, prefills included.
    pub fn overall(&self) -> Rate {
        Rate { tokens: self.completion_tokens, time: self.wall }
    }

    /// One JSON object. Times of requests are in milliseconds; every ratio stands beside what it was
    /// made of.
    pub fn json(&self, model: &str) -> Value {
        let Load { streams, requests, prompt_tokens, gen_tokens, shared_prefix, arrival, seed } =
            &self.load;
        let wall = self.wall.as_secs_f64();
        let stages = self.stages.iter().enumerate().map(|(stage, counters)| {
            let StageCounters { forwards, compute_s, cpu_s } = counters;
            json!({
                "stage": stage, "forwards": forwards, "compute_s": compute_s, "cpu_s": cpu_s,
                "wall_s": wall, "utilisation": cpu_s / wall,
            })
        });
        json!({
            "model": model, "streams": streams, "requests": requests,
            "prompt_tokens": prompt_tokens, "gen_tokens": gen_tokens,
            "shared_prefix": shared_prefix, "arrival": arrival.to_string(), "seed": seed,
            "answered": self.answered, "errors": self.errors.len(),
            "cached_tokens": self.cached_tokens,
            "prefill": rate_json(self.prefill), "decode": rate_json(self.decode),
            "overall": rate_json(Some(self.overall())),
            "ttft_ms": spread_json(&self.first_token),
            "itl_ms": spread_json(&self.between_tokens),
            "stages": stages.collect::<Vec<_>>(),
        })
    }
}

fn last(seen: &Seen) -> u64 {
    seen.tokens.last().map_or(0, |(_, tokens)| *tokens)
}

/// The times between a request's tokens. Tokens that came together share the time since the one
/// before them.
fn gaps(seen: &Seen) -> Vec<Duration> {
    let mut gaps = Vec::new();
    for pair in seen.tokens.windows(2) {
        let [(before, had), (now, has)] = pair else { continue };
        let count = u32::try_from(has - had).unwrap_or(u32::MAX).max(1);
        gaps.extend((0..count).map(|_| (*now - *before) / count));
    }
    gaps
}

/// The first request of every stream, if all of them were answered.
fn first_round<'a>(load: &Load, good: &[&'a Seen]) -> Option<Vec<&'a Seen>> {
    let first: Vec<&Seen> =
        good.iter().copied().filter(|seen| seen.request < load.streams).collect();
    let closed = load.arrival == super::config::Arrival::Closed;
    (closed && first.len() == load.streams as usize).then_some(first)
}

fn prefill(load: &Load, good: &[&Seen]) -> Option<Rate> {
    let first = first_round(load, good)?;
    let time = first.iter().map(|seen| seen.tokens[0].0).max()?;
    let tokens = u64::from(load.streams) * u64::from(load.prompt_tokens);
    Some(Rate { tokens, time })
}

fn decode(load: &Load, good: &[&Seen]) -> Option<Rate> {
    let first = first_round(load, good)?;
    let from = first.iter().map(|seen| seen.tokens[0].0).max()?;
    let to = first.iter().filter_map(|seen| seen.tokens.last()).map(|(at, _)| *at).min()?;
    if to <= from {
        return None;
    }
    let by = |seen: &Seen, at: Duration| {
        let index = seen.tokens.partition_point(|(when, _)| *when <= at);
        index.checked_sub(1).map_or(0, |index| seen.tokens[index].1)
    };
    let tokens = first.iter().map(|seen| by(seen, to) - by(seen, from)).sum();
    Some(Rate { tokens, time: to - from })
}

fn rate_json(rate: Option<Rate>) -> Value {
    let Some(rate) = rate else { return Value::Null };
    json!({ "tok_s": rate.per_s(), "tokens": rate.tokens, "seconds": rate.time.as_secs_f64() })
}

fn spread_json(spread: &Spread) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    json!({
        "p50": ms(spread.p50), "p99": ms(spread.p99), "max": ms(spread.max), "count": spread.count,
    })
}

#[cfg(test)]
mod tests {
    use super::super::config::Arrival;
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn load(streams: u32, arrival: Arrival) -> Load {
        Load {
            streams,
            requests: streams,
            prompt_tokens: 100,
            gen_tokens: 3,
            shared_prefix: 0,
            arrival,
            seed: 1,
        }
    }

    fn seen(request: u32, arrived: u64, tokens: &[(u64, u64)]) -> Seen {
        let tokens: Vec<_> = tokens.iter().map(|(at, count)| (ms(*at), *count)).collect();
        let ended = tokens.last().map_or(Duration::ZERO, |(at, _)| *at);
        Seen { request, arrived: ms(arrived), tokens, ended, ..Seen::default() }
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(Spread::of(Vec::new()), Spread::default());
        let one = Spread { count: 1, p50: ms(7), p99: ms(7), max: ms(7) };
        assert_eq!(Spread::of(vec![ms(7)]), one);
        let hundred = Spread::of((1..=100).rev().map(ms).collect());
        assert_eq!(hundred, Spread { count: 100, p50: ms(50), p99: ms(99), max: ms(100) });
        let four = Spread::of([4, 1, 3, 2].map(ms).to_vec());
        assert_eq!((four.p50, four.p99), (ms(2), ms(4)));
    }

    #[test]
    fn decode_counts_while_all_streams_have_a_token_and_none_has_ended() {
        let seen = [
            seen(0, 0, &[(100, 1), (200, 2), (300, 3), (400, 4)]),
            seen(1, 0, &[(250, 1), (350, 3), (500, 4)]),
        ];
        let figure = Figure::of(&load(2, Arrival::Closed), &seen, Vec::new());
        // From 250 ms, when both have one, to 400 ms: two of the first, two of the second.
        assert_eq!(figure.decode, Some(Rate { tokens: 4, time: ms(150) }));
        assert_eq!(figure.prefill, Some(Rate { tokens: 200, time: ms(250) }));
        assert_eq!(figure.overall(), Rate { tokens: 8, time: ms(500) });
        assert_eq!((figure.overall().per_s(), figure.prompt_tokens), (16.0, 200));
        assert_eq!((figure.first_token.p50, figure.first_token.max), (ms(100), ms(250)));
        // 100, 100, 100; 50 and 50 for the two that came together, 150.
        let gaps = Spread { count: 6, p50: ms(100), p99: ms(150), max: ms(150) };
        assert_eq!(figure.between_tokens, gaps);
    }

    #[test]
    fn streams_that_never_all_decode_have_no_decode_rate() {
        let apart = [seen(0, 0, &[(100, 1), (200, 2)]), seen(1, 0, &[(200, 1), (300, 2)])];
        assert_eq!(Figure::of(&load(2, Arrival::Closed), &apart, Vec::new()).decode, None);
        let poisson = load(2, Arrival::Poisson(1.0));
        let figure = Figure::of(&poisson, &[seen(0, 40, &[(100, 1), (200, 2)])], Vec::new());
        assert_eq!((figure.decode, figure.prefill), (None, None));
        assert_eq!(figure.first_token.p50, ms(60));
    }

    #[test]
    fn requests_that_failed_are_counted_and_nothing_else() {
        let failed = Seen { error: Some("429".to_owned()), ended: ms(900), ..seen(1, 0, &[]) };
        let seen = [seen(0, 0, &[(100, 1), (200, 2)]), failed];
        let figure = Figure::of(&load(2, Arrival::Closed), &seen, Vec::new());
        assert_eq!((figure.answered, &figure.errors[..]), (1, &["429".to_owned()][..]));
        assert_eq!((figure.decode, figure.completion_tokens), (None, 2));
        assert_eq!(figure.wall, ms(900));
    }

    #[test]
    fn json_has_each_ratio_beside_its_parts() {
        let seen = [seen(0, 0, &[(500, 1), (1000, 2), (2000, 3)])];
        let stage = StageCounters { forwards: 3.0, compute_s: 1.75, cpu_s: 1.5 };
        let figure = Figure::of(&load(1, Arrival::Closed), &seen, vec![stage]);
        let expected = json!({
            "model": "m", "streams": 1, "requests": 1, "prompt_tokens": 100, "gen_tokens": 3,
            "shared_prefix": 0, "arrival": "closed", "seed": 1, "answered": 1, "errors": 0,
            "cached_tokens": 0,
            "prefill": {"tok_s": 200.0, "tokens": 100, "seconds": 0.5},
            "decode": {"tok_s": 2.0 / 1.5, "tokens": 2, "seconds": 1.5},
            "overall": {"tok_s": 1.5, "tokens": 3, "seconds": 2.0},
            "ttft_ms": {"p50": 500.0, "p99": 500.0, "max": 500.0, "count": 1},
            "itl_ms": {"p50": 500.0, "p99": 1000.0, "max": 1000.0, "count": 2},
            "stages": [{
                "stage": 0, "forwards": 3.0, "compute_s": 1.75, "cpu_s": 1.5, "wall_s": 2.0,
                "utilisation": 0.75,
            }],
        });
        assert_eq!(figure.json("m"), expected);
    }
}
