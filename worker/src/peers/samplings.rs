//! `Sampling`s that came before their `Forward`, which has the longer way.

use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::sync::Notify;
use woolly_protocol::ids::MicrobatchId;
use woolly_protocol::sampling::Sampling;

/// The samplings of one plan that wait for their forward.
#[derive(Debug)]
pub struct Samplings {
    waiting: Mutex<BTreeMap<MicrobatchId, Sampling>>,
    changed: Notify,
    waiting_max: usize,
}

/// More samplings wait than forwards can be in flight: the coordinator is faulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} samplings wait for their forwards")]
pub struct TooMany(usize);

impl Samplings {
    /// For a plan with so many microbatches in flight at most.
    pub fn new(in_flight_max: u32) -> Samplings {
        // A microbatch that failed on an earlier stage leaves its sampling here until the next one
        // passes, so there may be twice as many.
        let waiting_max = usize::try_from(in_flight_max).unwrap_or(usize::MAX).saturating_mul(2);
        Samplings { waiting: Mutex::default(), changed: Notify::new(), waiting_max }
    }

    /// Keeps a sampling until its forward asks for it.
    ///
    /// # Errors
    ///
    /// If too many wait.
    pub fn offer(&self, sampling: Sampling) -> Result<(), TooMany> {
        let mut waiting = self.waiting.lock().expect("no one panics with the lock held");
        waiting.insert(sampling.microbatch, sampling);
        if waiting.len() > self.waiting_max {
            return Err(TooMany(self.waiting_max));
        }
        drop(waiting);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Waits for the sampling of a microbatch. Forwards come in order, so those of earlier ones are
    /// not needed any more.
    pub async fn take(&self, microbatch: MicrobatchId) -> Sampling {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no offer falls between.
            changed.as_mut().enable();
            if let Some(sampling) = self.find(microbatch) {
                return sampling;
            }
            changed.await;
        }
    }

    fn find(&self, microbatch: MicrobatchId) -> Option<Sampling> {
        let mut waiting = self.waiting.lock().expect("no one panics with the lock held");
        while waiting.first_key_value().is_some_and(|(earlier, _)| *earlier < microbatch) {
            waiting.pop_first();
        }
        waiting.remove(&microbatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use woolly_protocol::ids::PlanEpoch;

    fn sampling(microbatch: u64) -> Sampling {
        let (epoch, microbatch) = (PlanEpoch(1), MicrobatchId(microbatch));
        Sampling { epoch, microbatch, params: vec![], masks: vec![], rows: vec![] }
    }

    #[tokio::test]
    async fn a_forward_finds_its_sampling_whichever_comes_first() {
        let samplings = Arc::new(Samplings::new(2));
        samplings.offer(sampling(1)).unwrap();
        samplings.offer(sampling(3)).unwrap();
        assert_eq!(samplings.take(MicrobatchId(1)).await, sampling(1));
        let waiting = samplings.clone();
        let late = tokio::spawn(async move { waiting.take(MicrobatchId(2)).await });
        tokio::task::yield_now().await;
        samplings.offer(sampling(2)).unwrap();
        assert_eq!(late.await.unwrap(), sampling(2));
        assert_eq!(samplings.take(MicrobatchId(3)).await, sampling(3));
    }

    #[tokio::test]
    async fn a_skipped_microbatch_leaves_nothing_and_a_flood_is_a_fault() {
        let samplings = Samplings::new(2);
        for microbatch in 1..=4 {
            samplings.offer(sampling(microbatch)).unwrap();
        }
        assert_eq!(samplings.take(MicrobatchId(4)).await, sampling(4));
        for microbatch in 5..=8 {
            samplings.offer(sampling(microbatch)).unwrap();
        }
        assert_eq!(samplings.offer(sampling(9)), Err(TooMany(4)));
    }
}
