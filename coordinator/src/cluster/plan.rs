//! A plan, in force or about to be: its cut, its stages, and how far each of them is.

use crate::snapshot::PlanSnapshot;
use std::ops::Range;
use std::time::Duration;
use woolly_engine::plan::Cut;
use woolly_protocol::control::Ready;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, WorkerId};

/// A plan.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) epoch: PlanEpoch,
    pub(super) cut: Cut,
    /// The cut for people, with the names of workers that may be gone by then.
    pub(super) text: String,
    /// Why it was made.
    pub(super) reason: String,
    pub(super) stages: Vec<Stage>,
    pub(super) serving_since: Option<Duration>,
    /// Whether the shell was told that it may take over from the one in force.
    pub(super) is_offered: bool,
}

/// A plan is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanMade {
    /// Its number.
    pub epoch: PlanEpoch,
    /// Who computes which layers, such as `a 0-16, b 17-29`.
    pub cut: String,
    /// The plan before it and its cut; `None` of a lane's first.
    pub old: Option<(PlanEpoch, String)>,
    /// Why.
    pub reason: String,
}

/// A plan that has ended without another in its place.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) epoch: PlanEpoch,
    pub(super) cut: String,
    pub(super) reason: String,
}

/// The plans of a lane whose model is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placed {
    /// Whether a plan of it was ever served.
    pub has_served: bool,
    /// The plan in force.
    pub plan: Option<PlanSnapshot>,
    /// The one that is to take over from it.
    pub next: Option<PlanSnapshot>,
}

/// A stage of a plan.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) worker: WorkerId,
    pub(super) layers: Range<u32>,
    /// What its worker said when it was ready.
    pub(super) ready: Option<Ready>,
    /// The last microbatch that its worker said it computed.
    pub(super) computed: MicrobatchId,
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
    /// A cut with the workers of its stages, of which none is ready; in words, and why it was made.
    pub(super) fn new(
        epoch: PlanEpoch,
        (cut, workers): (Cut, Vec<WorkerId>),
        (text, reason): (String, String),
    ) -> Plan {
        let computed = MicrobatchId(0);
        let stage = |(worker, layers): (WorkerId, &Range<u32>)| Stage {
            worker,
            layers: layers.clone(),
            ready: None,
            computed,
        };
        let stages = workers.into_iter().zip(&cut.layers).map(stage).collect();
        Plan { epoch, cut, text, reason, stages, serving_since: None, is_offered: false }
    }

    /// The stage of a worker, if the plan is of that epoch and has one for it.
    pub(super) fn position(&self, worker: WorkerId, epoch: PlanEpoch) -> Option<usize> {
        let stage = self.stages.iter().position(|stage| stage.worker == worker);
        stage.filter(|_| self.epoch == epoch)
    }

    /// Whether a worker holds one of its stages.
    pub(super) fn holds(&self, worker: WorkerId) -> bool {
        self.position(worker, self.epoch).is_some()
    }

    /// Its workers, in order of stage.
    pub(super) fn workers(&self) -> Vec<WorkerId> {
        self.stages.iter().map(|stage| stage.worker).collect()
    }

    /// Its workers with the numbers of their layers.
    pub(super) fn seats(&self) -> Vec<(WorkerId, u32)> {
        self.workers().into_iter().zip(self.cut.counts()).collect()
    }

    /// Each worker with the one that it dials.
    pub(super) fn links(&self) -> Vec<(WorkerId, WorkerId)> {
        self.workers().windows(2).map(|pair| (pair[0], pair[1])).collect()
    }

    /// The first stage that has not said that it computed this microbatch, or else the last one, whose
    /// answer is missing.
    pub(super) fn stuck_at(&self, microbatch: MicrobatchId) -> usize {
        let behind = self.stages.iter().position(|stage| stage.computed < microbatch);
        behind.unwrap_or(self.stages.len() - 1)
    }

    /// How long it has been served, if it is.
    pub(super) fn served_for(&self, now: Duration) -> Option<Duration> {
        self.serving_since.map(|since| now.saturating_sub(since))
    }
}
