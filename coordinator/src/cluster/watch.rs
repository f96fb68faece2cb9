//! Time: who is silent, who stands still, and when to look again.

use super::placement::Placement;
use super::worker::Worker;
use super::{Action, Cluster, WorkerId};
use std::time::Duration;

/// When a worker counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Without any heartbeat.
    pub heartbeat: Duration,
    /// Without progress while it loads its stage.
    pub loading: Duration,
    /// Without progress while it computes a microbatch.
    pub computing: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            loading: Duration::from_secs(30),
            computing: Duration::from_secs(60),
        }
    }
}

/// What a worker was silent about for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Heartbeat,
    Loading,
    Computing,
}

impl Cluster {
    /// When [`handle_timeout`](Self::handle_timeout) is due at the latest; `None` without workers.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let workers = self.members.iter().map(|(_, worker)| self.deadline(worker).0);
        // With plans in force nobody is placed, so that the end of a back-off changes nothing.
        let waits = self.placements.values().any(|placement| placement.plan.is_none());
        let backoffs = self.members.iter().map(|(_, worker)| worker.backoff_until);
        let backoffs = backoffs.filter(|_| waits);
        let planless = self.placements.values().filter(|placement| placement.plan.is_none());
        let holds = planless.map(|placement| placement.hold_until);
        let later = backoffs.chain(holds).filter(|until| *until > self.timed_at);
        let stalls = self.placements.values().filter_map(|p| self.stall_deadline(p));
        workers.chain(later).chain(stalls).min()
    }

    /// Time has passed: silent workers are lost, those whose back-off is over are placed again.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.timed_at = now;
        let lost: Vec<(WorkerId, String)> = self
            .members
            .iter()
            .map(|(id, worker)| (id, self.deadline(worker)))
            .filter(|(_, (deadline, _))| *deadline <= now)
            .map(|(id, (_, silence))| (id, self.why(silence)))
            .collect();
        for (id, why) in lost {
            self.actions.push_back(Action::Evict { worker: id, text: why.clone() });
            self.lose(id, &why);
        }
        let stalled = self.placements.iter().filter(|(_, placement)| {
            self.stall_deadline(placement).is_some_and(|deadline| deadline <= now)
        });
        for lane in stalled.map(|(lane, _)| *lane).collect::<Vec<_>>() {
            let reason = format!(
                "microbatches are in flight and no worker has computed anything for {} s",
                self.config.timeouts.computing.as_secs()
            );
            self.announce(reason.clone());
            if let Some(placement) = self.placements.get_mut(&lane) {
                placement.end_plan(&reason, &mut self.members, &mut self.actions);
            }
        }
        self.try_plans(now);
    }

    /// When a worker counts as lost unless something is heard, and which limit that is.
    fn deadline(&self, worker: &Worker) -> (Duration, Silence) {
        let timeouts = &self.config.timeouts;
        let silent = (worker.heard_at + timeouts.heartbeat, Silence::Heartbeat);
        let still = if worker.loads() {
            (worker.progress_at + timeouts.loading, Silence::Loading)
        } else if worker.computes() {
            (worker.progress_at + timeouts.computing, Silence::Computing)
        } else {
            return silent;
        };
        if still.0 < silent.0 { still } else { silent }
    }

    fn why(&self, silence: Silence) -> String {
        let timeouts = &self.config.timeouts;
        match silence {
            Silence::Heartbeat => format!("no heartbeat for {} s", timeouts.heartbeat.as_secs()),
            Silence::Loading => {
                format!("no progress for {} s while loading its stage", timeouts.loading.as_secs())
            }
            Silence::Computing => format!(
                "no progress for {} s while computing a microbatch",
                timeouts.computing.as_secs()
            ),
        }
    }

    /// When a pipeline with work in flight counts as stuck: no worker of it has moved.
    fn stall_deadline(&self, placement: &Placement) -> Option<Duration> {
        let since = placement.in_flight_since?;
        let stages = &placement.plan.as_ref()?.stages;
        let moved = stages.iter().map(|stage| self.members.of_plan(stage.worker).progress_at);
        Some(since.max(moved.max()?) + self.config.timeouts.computing)
    }
}
