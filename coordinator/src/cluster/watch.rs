//! Time: who is silent, who stands still, and when to look again.

use super::worker::Worker;
use super::{Action, Cluster, WorkerId};
use std::time::Duration;

impl Cluster {
    /// When [`handle_timeout`](Self::handle_timeout) is due at the latest; `None` without workers.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let workers = self.workers.values().map(|worker| self.deadline(worker).0);
        // With a plan in force nobody is placed, so that the end of a rest changes nothing.
        let rests = self.workers.values().map(|worker| worker.rest_until);
        let rests = rests.chain([self.placing_from]);
        let rests = rests.filter(|until| self.plan.is_none() && *until > self.timed_at);
        workers.chain(rests).chain(self.stall_deadline()).min()
    }

    /// Time has passed: silent workers are lost, rested ones are placed again.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.timed_at = now;
        let lost: Vec<(WorkerId, String)> = self
            .workers
            .iter()
            .map(|(id, worker)| (*id, self.deadline(worker)))
            .filter(|(_, (deadline, _))| *deadline <= now)
            .map(|(id, (_, why))| (id, why))
            .collect();
        for (id, why) in lost {
            self.actions.push_back(Action::Evict { worker: id, text: why.clone() });
            self.lose(id, &why);
        }
        if self.stall_deadline().is_some_and(|deadline| deadline <= now) {
            let reason = format!(
                "microbatches are in flight and no worker has computed anything for {} s",
                self.config.timeouts.computing.as_secs()
            );
            self.announce(reason.clone());
            self.end_plan(&reason);
        }
        self.try_plan(now);
    }

    /// When a worker counts as lost unless something is heard, and why.
    fn deadline(&self, worker: &Worker) -> (Duration, String) {
        let timeouts = &self.config.timeouts;
        let silent = worker.heard_at + timeouts.heartbeat;
        let still = if worker.loads() {
            Some((timeouts.loading, "while loading its stage"))
        } else if worker.computes() {
            Some((timeouts.computing, "while computing a microbatch"))
        } else {
            None
        };
        match still.map(|(limit, what)| (worker.progress_at + limit, limit, what)) {
            Some((deadline, limit, what)) if deadline < silent => {
                (deadline, format!("no progress for {} s {what}", limit.as_secs()))
            }
            _ => (silent, format!("no heartbeat for {} s", timeouts.heartbeat.as_secs())),
        }
    }

    /// When a pipeline with work in flight counts as stuck: no worker has moved.
    fn stall_deadline(&self) -> Option<Duration> {
        let since = self.in_flight_since?;
        let moved = self.planned().into_iter().map(|id| self.worker(id).progress_at).max()?;
        Some(since.max(moved) + self.config.timeouts.computing)
    }
}
