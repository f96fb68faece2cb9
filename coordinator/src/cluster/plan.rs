//! A plan in force: its cut, its stages, and how far each of them is.

use std::ops::Range;
use std::time::Duration;
use woolly_engine::plan::Cut;
use woolly_protocol::control::Ready;
use woolly_protocol::ids::{PlanEpoch, WorkerId};

/// A plan in force.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) epoch: PlanEpoch,
    pub(super) cut: Cut,
    pub(super) stages: Vec<Stage>,
    pub(super) serving_since: Option<Duration>,
}

/// A stage of a plan.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) worker: WorkerId,
    pub(super) layers: Range<u32>,
    /// What its worker said when it was ready.
    pub(super) ready: Option<Ready>,
}

/// A stage that is served.
#[derive(Clone, Debug, PartialEq)]
pub struct StageInfo {
    /// Its worker.
    pub worker: WorkerId,
    /// Its worker's name.
    pub name: String,
    /// Its layers.
    pub layers: Range<u32>,
    /// What its worker has loaded.
    pub ready: Ready,
}

impl Plan {
    /// The stage of a worker, if the plan is of that epoch and has one for it.
    pub(super) fn position(&self, worker: WorkerId, epoch: PlanEpoch) -> Option<usize> {
        let stage = self.stages.iter().position(|stage| stage.worker == worker);
        stage.filter(|_| self.epoch == epoch)
    }

    /// Whether a worker holds one of its stages.
    pub(super) fn holds(&self, worker: WorkerId) -> bool {
        self.position(worker, self.epoch).is_some()
    }

    /// How long it has been served, if it is.
    pub(super) fn served_for(&self, now: Duration) -> Option<Duration> {
        self.serving_since.map(|since| now.saturating_sub(since))
    }
}
