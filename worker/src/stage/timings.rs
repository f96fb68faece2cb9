//! How long each forward took, until the next heartbeat takes it to the coordinator.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;
use woolly_protocol::control::ForwardTiming;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch};
use woolly_protocol::limits::HEARTBEAT_TIMINGS_MAX;

/// So many are worth a heartbeat of their own: at a forward per millisecond one every 64 ms, and no
/// more than the coordinator can use to adapt.
const EARLY: usize = 64;

/// The timings of all plans that the coordinator does not have yet, oldest first.
#[derive(Debug, Default)]
pub struct Timings {
    waiting: Mutex<VecDeque<(PlanEpoch, ForwardTiming)>>,
    enough: Notify,
}

/// What the compute thread measures of one forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From its start to its result, with the head and the sampling at the last stage.
    pub compute: Duration,
    /// CPU time of the compute thread in it.
    pub cpu: Duration,
    /// How long the compute thread had waited for it.
    pub wait: Duration,
    /// How long it had waited for the compute thread.
    pub queue: Duration,
}

impl Times {
    /// As it is reported, with the time that its result took to be written.
    pub fn timing(&self, microbatch: MicrobatchId, wire: Duration) -> ForwardTiming {
        ForwardTiming {
            microbatch,
            compute_us: micros(self.compute),
            cpu_us: micros(self.cpu),
            wait_us: micros(self.wait),
            queue_us: micros(self.queue),
            wire_us: micros(wire),
        }
    }
}

impl Timings {
    /// Keeps a timing of a plan. When heartbeats do not get through, the oldest gives way.
    pub fn push(&self, epoch: PlanEpoch, timing: ForwardTiming) {
        let mut waiting = self.lock();
        if waiting.len() == HEARTBEAT_TIMINGS_MAX {
            waiting.pop_front();
        }
        waiting.push_back((epoch, timing));
        if waiting.len() >= EARLY {
            self.enough.notify_one();
        }
    }

    /// Takes all that wait.
    pub fn take(&self) -> Vec<(PlanEpoch, ForwardTiming)> {
        self.lock().drain(..).collect()
    }

    /// Waits until so many wait that they are worth a heartbeat of their own.
    pub async fn enough(&self) {
        loop {
            self.enough.notified().await;
            // What is said may be old: a heartbeat may have taken them since.
            if self.lock().len() >= EARLY {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(PlanEpoch, ForwardTiming)>> {
        self.waiting.lock().expect("no one panics with the lock held")
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    fn timing(microbatch: u64) -> ForwardTiming {
        let ms = Duration::from_millis;
        let times = Times { compute: ms(5), cpu: ms(4), wait: ms(3), queue: ms(1) };
        times.timing(MicrobatchId(microbatch), ms(2))
    }

    #[test]
    fn a_timing_is_in_microseconds_and_does_not_wrap() {
        let expected = ForwardTiming {
            microbatch: MicrobatchId(7),
            compute_us: 5_000,
            cpu_us: 4_000,
            wait_us: 3_000,
            queue_us: 1_000,
            wire_us: 2_000,
        };
        assert_eq!(timing(7), expected);
        let long = Times { wait: Duration::from_secs(86_400), ..Times::default() };
        assert_eq!(long.timing(MicrobatchId(7), Duration::ZERO).wait_us, u32::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn many_are_told_early_and_once() {
        let timings = Timings::default();
        let told = || timeout(Duration::from_secs(9), timings.enough());
        (0..EARLY as u64 - 1).for_each(|microbatch| timings.push(PlanEpoch(1), timing(microbatch)));
        assert!(told().await.is_err());
        timings.push(PlanEpoch(1), timing(99));
        assert!(told().await.is_ok());
        // The next round of the loop that was told; a heartbeat on its own time took them meanwhile.
        timings.push(PlanEpoch(1), timing(100));
        assert_eq!(timings.take().len(), EARLY + 1);
        assert!(told().await.is_err());
    }

    #[test]
    fn the_newest_are_kept_in_order() {
        let timings = Timings::default();
        let last = HEARTBEAT_TIMINGS_MAX as u64 + 2;
        (1..=last).for_each(|microbatch| timings.push(PlanEpoch(1), timing(microbatch)));
        let kept: Vec<u64> = timings.take().iter().map(|(_, timing)| timing.microbatch.0).collect();
        assert_eq!(kept, (3..=last).collect::<Vec<_>>());
        assert!(timings.take().is_empty());
    }
}
