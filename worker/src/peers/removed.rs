//! Workers whose certificates were taken back, as the coordinator said last: they are no neighbours any more.

use std::collections::BTreeSet;
use tokio::sync::watch;
use woolly_protocol::ids::WorkerId;
use woolly_protocol::limits::REMOVED_MAX;
use woolly_protocol::refusal::{Refusal, RefusalCode};

/// Who was removed: [`REMOVED_MAX`] workers at most, as the message about them has no more.
#[derive(Debug, Default)]
pub struct RemovedWorkers(watch::Sender<BTreeSet<WorkerId>>);

impl RemovedWorkers {
    /// These are all.
    pub fn set(&self, workers: Vec<WorkerId>) {
        self.0.send_replace(workers.into_iter().take(REMOVED_MAX).collect());
    }

    /// Whether a worker is among them.
    pub fn contains(&self, worker: WorkerId) -> bool {
        self.0.borrow().contains(&worker)
    }

    /// Waits until a worker is among them.
    pub async fn until(&self, worker: WorkerId) {
        // The sender is `self`: it is there for as long as anyone waits.
        let _ = self.0.subscribe().wait_for(|removed| removed.contains(&worker)).await;
    }

    /// What one of them is told.
    pub fn refusal() -> Refusal {
        let text = "this worker was removed from the cluster: its neighbours take nothing from it";
        Refusal::new(RefusalCode::Removed, text)
    }
}
