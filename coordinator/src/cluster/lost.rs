//! Workers that are gone: the last of them, for who asks why.

use super::worker::Worker;
use crate::snapshot::LOST_MAX;
use std::collections::VecDeque;
use std::time::Duration;
use woolly_protocol::ids::WorkerId;

/// A worker that is gone.
#[derive(Debug)]
pub(super) struct LostWorker {
    pub(super) id: WorkerId,
    pub(super) worker: Worker,
    pub(super) at: Duration,
    pub(super) reason: String,
}

/// The last [`LOST_MAX`] workers that were lost, the last one first.
#[derive(Debug, Default)]
pub(super) struct LostWorkers(VecDeque<LostWorker>);

impl LostWorkers {
    /// A worker is gone. Each stands here once.
    pub(super) fn add(&mut self, lost: LostWorker) {
        self.forget(lost.id);
        self.0.truncate(LOST_MAX - 1);
        self.0.push_front(lost);
    }

    /// A worker is back.
    pub(super) fn forget(&mut self, id: WorkerId) {
        self.0.retain(|lost| lost.id != id);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &LostWorker> {
        self.0.iter()
    }
}
