//! What a load asks for and when: the same for the same seed.

use super::config::{Arrival, Load};
use std::time::Duration;

/// Steps of SplitMix64 (Steele, Lea and Flood, 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of pseudo-random numbers.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The numbers that belong to these values.
    pub fn of(values: &[u64]) -> Numbers {
        let mix = |state: u64, value: &u64| Numbers(state ^ value).draw();
        Numbers(values.iter().fold(0, mix))
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`. The low bits of a long product: the bias is below 2^-32.
    fn below(&mut self, end: u32) -> u32 {
        let high = self.draw() >> 32;
        u32::try_from((high * u64::from(end)) >> 32).expect("it is below `end`")
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What numbers are drawn for; loads that differ in their streams share nothing.
#[derive(Clone, Copy)]
enum Purpose {
    Prefix = 1,
    Prompt = 2,
    Arrivals = 3,
}

fn numbers(load: &Load, purpose: Purpose, request: u32) -> Numbers {
    Numbers::of(&[load.seed, purpose as u64, u64::from(load.streams), u64::from(request)])
}

/// The prompt of request `request`, in ids below `vocab`.
pub fn prompt(load: &Load, request: u32, vocab: u32) -> Vec<u32> {
    let mut prefix = numbers(load, Purpose::Prefix, 0);
    let mut own = numbers(load, Purpose::Prompt, request);
    let shared = (0..load.shared_prefix).map(|_| prefix.below(vocab));
    let rest = (load.shared_prefix..load.prompt_tokens).map(|_| own.below(vocab));
    // In this order: what is shared comes first.
    shared.collect::<Vec<_>>().into_iter().chain(rest).collect()
}

/// When each request comes, from the start of the load; `None` if each waits for one before it.
pub fn arrivals(load: &Load) -> Option<Vec<Duration>> {
    let Arrival::Poisson(rate) = load.arrival else { return None };
    let mut numbers = numbers(load, Purpose::Arrivals, 0);
    let mut at = 0.0;
    let mut next = || {
        // Times between arrivals of a Poisson process have an exponential distribution.
        at -= (1.0 - numbers.unit()).ln() / rate;
        Duration::from_secs_f64(at)
    };
    Some((0..load.requests).map(|_| next()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load {
            streams: 4,
            requests: 20_000,
            prompt_tokens: 12,
            gen_tokens: 3,
            shared_prefix: 5,
            arrival: Arrival::Poisson(50.0),
            seed: 9,
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_their_process() {
        let at = arrivals(&load()).unwrap();
        assert_eq!(at.len(), 20_000);
        assert!(at.is_sorted());
        let gaps: Vec<f64> = (at.iter().zip([Duration::ZERO].iter().chain(&at)))
            .map(|(later, earlier)| (*later - *earlier).as_secs_f64())
            .collect();
        let count = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        // Mean and standard deviation are 1 ÷ rate; within 3 % of it at 20,000 gaps.
        assert!((mean * 50.0 - 1.0).abs() < 0.03, "{mean}");
        assert!((variance.sqrt() * 50.0 - 1.0).abs() < 0.03, "{variance}");
        let long = gaps.iter().filter(|gap| **gap > 2.0 / 50.0).count() as f64 / count;
        assert!((long - (-2.0_f64).exp()).abs() < 0.01, "{long}");
    }

    #[test]
    fn the_seed_decides_and_closed_loads_have_no_times() {
        assert_eq!(arrivals(&load()), arrivals(&load()));
        assert_ne!(arrivals(&load()), arrivals(&Load { seed: 10, ..load() }));
        assert_eq!(arrivals(&Load { arrival: Arrival::Closed, ..load() }), None);
    }

    #[test]
    fn prompts_share_their_beginning_and_nothing_else() {
        let (first, second) = (prompt(&load(), 0, 1000), prompt(&load(), 1, 1000));
        assert_eq!((first.len(), second.len()), (12, 12));
        assert_eq!(first[..5], second[..5]);
        assert_ne!(first[5..], second[5..]);
        assert_eq!(first, prompt(&load(), 0, 1000));
        // A load with other streams begins with an empty cache.
        assert_ne!(first[..5], prompt(&Load { streams: 8, ..load() }, 0, 1000)[..5]);
        assert!(prompt(&load(), 3, 7).iter().all(|token| *token < 7));
    }

    #[test]
    fn numbers_are_those_of_the_published_generator() {
        // The first outputs of SplitMix64 with the state 1234567.
        let mut numbers = Numbers(1_234_567);
        let found: [u64; 3] = std::array::from_fn(|_| numbers.draw());
        let expected =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(found, expected);
    }
}
