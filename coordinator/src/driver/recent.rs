//! What the stages of a pipeline did lately: sums over the last half minute, second by second.

use crate::snapshot::{MeanSnapshot, RecentSnapshot};
use std::time::Duration;
use woolly_protocol::control::ForwardTiming;

/// Seconds that are remembered, the present one included.
const SECONDS: u64 = 30;

/// The times of a pipeline's stages. Its size is that of its stages.
#[derive(Debug, Default)]
pub struct Recent {
    /// When the pipeline began.
    since: Duration,
    stages: Vec<[Second; SECONDS as usize]>,
}

/// What ended in one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    /// Which, since the start of the process.
    number: u64,
    forwards: u64,
    compute_us: u64,
    cpu_us: u64,
    wait_us: u64,
    wire_us: u64,
}

impl Recent {
    /// A pipeline with so many stages begins.
    pub fn new(now: Duration, stages: usize) -> Recent {
        Recent { since: now, stages: vec![Default::default(); stages] }
    }

    /// A stage tells of a forward. One that the pipeline does not have is not counted.
    pub fn add(&mut self, now: Duration, stage: usize, timing: &ForwardTiming) {
        let number = now.as_secs();
        let Some(seconds) = self.stages.get_mut(stage) else { return };
        let second = &mut seconds[place(number)];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second.forwards += 1;
        second.compute_us += u64::from(timing.compute_us);
        second.cpu_us += u64::from(timing.cpu_us);
        second.wait_us += u64::from(timing.wait_us);
        second.wire_us += u64::from(timing.wire_us);
    }

    /// What a stage did; `None` of one that the pipeline does not have.
    pub fn of(&self, now: Duration, stage: usize) -> Option<RecentSnapshot> {
        let (number, seconds) = (now.as_secs(), self.stages.get(stage)?);
        let mut sum = Second::default();
        for second in seconds.iter().filter(|second| second.number + SECONDS > number) {
            sum.forwards += second.forwards;
            sum.compute_us += second.compute_us;
            sum.cpu_us += second.cpu_us;
            sum.wait_us += second.wait_us;
            sum.wire_us += second.wire_us;
        }
        // The present second has only begun.
        let first = Duration::from_secs((number + 1).saturating_sub(SECONDS)).max(self.since);
        let window = now.saturating_sub(first);
        let window_us = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        // What is told in one heartbeat began before it: of a short time it may be more than all.
        let busy = sum.compute_us.saturating_mul(100) / window_us.max(1);
        let mean = |us: u64| us.checked_div(sum.forwards);
        let means = (mean(sum.compute_us), mean(sum.cpu_us), mean(sum.wait_us), mean(sum.wire_us));
        let mean = match means {
            (Some(compute_us), Some(cpu_us), Some(wait_us), Some(wire_us)) => {
                Some(MeanSnapshot { compute_us, cpu_us, wait_us, wire_us })
            }
            _ => None,
        };
        Some(RecentSnapshot {
            window_ms: window_us / 1000,
            forwards: sum.forwards,
            busy_percent: u8::try_from(busy.min(100)).unwrap_or(100),
            mean,
        })
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number % SECONDS).expect("it is small")
}

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_protocol::ids::MicrobatchId;

    fn timing(compute_us: u32) -> ForwardTiming {
        let microbatch = MicrobatchId(1);
        ForwardTiming {
            microbatch,
            compute_us,
            cpu_us: compute_us / 2,
            wait_us: 300,
            queue_us: 2,
            wire_us: 4,
        }
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn times_are_summed_over_the_life_of_a_young_pipeline() {
        let mut recent = Recent::new(ms(100_500), 2);
        recent.add(ms(101_000), 0, &timing(300_000));
        recent.add(ms(102_400), 0, &timing(500_000));
        recent.add(ms(102_400), 7, &timing(500_000));
        let mean = MeanSnapshot { compute_us: 400_000, cpu_us: 200_000, wait_us: 300, wire_us: 4 };
        let (window_ms, busy_percent, mean) = (2000, 40, Some(mean));
        let busy = RecentSnapshot { window_ms, forwards: 2, busy_percent, mean };
        assert_eq!(recent.of(ms(102_500), 0), Some(busy));
        let idle = RecentSnapshot { window_ms, forwards: 0, busy_percent: 0, mean: None };
        assert_eq!(recent.of(ms(102_500), 1), Some(idle));
        assert_eq!(recent.of(ms(102_500), 7), None);
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut recent = Recent::new(ms(0), 1);
        for second in 0..100 {
            recent.add(ms(1000 * second + 999), 0, &timing(1_000_000));
        }
        let found = recent.of(ms(99_999), 0).unwrap();
        assert_eq!((found.forwards, found.busy_percent, found.window_ms), (30, 100, 29_999));
        let later = recent.of(ms(120_500), 0).unwrap();
        assert_eq!((later.forwards, later.window_ms), (9, 29_500));
        assert_eq!(recent.of(ms(200_000), 0).unwrap().forwards, 0);
    }
}
