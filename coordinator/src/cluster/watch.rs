//! Time: who is silent, who stands still, and when to look again.
//!
//! # An answer that is overdue
//!
//! A pipeline is stuck when the oldest answer in flight is overdue: no counter of its workers has moved for
//! `still`, or for eight times the time that such answers usually take if that is longer. Before any answer
//! came, the planner's prediction stands for what is usual. If counters move, only a much longer time
//! counts: it is slow, and slow is not dead.

use super::placement::Placement;
use super::worker::Worker;
use super::{Action, Cluster, WorkerId};
use std::time::Duration;

/// When a worker counts as lost, and a pipeline as stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Without any heartbeat.
    pub heartbeat: Duration,
    /// With heartbeats that show that it does not hear ours.
    pub unheard: Duration,
    /// Without progress while it loads its stage.
    pub loading: Duration,
    /// An answer is overdue and no counter moves: at least so long.
    pub still: Duration,
    /// An answer is overdue although counters move: at least so long.
    pub moving: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            unheard: Duration::from_secs(3),
            loading: Duration::from_secs(30),
            still: Duration::from_secs(2),
            moving: Duration::from_secs(30),
        }
    }
}

/// How many times as long as usual an answer may take when no counter moves.
const STILL_TIMES: u32 = 8;
/// The same when counters move.
const MOVING_TIMES: u32 = 30;
/// Called so much later than was asked for, this process was asleep itself (stopped, or in a virtual machine
/// that was moved). It may then take this long until what came meanwhile is read.
const ASLEEP: Duration = Duration::from_secs(1);

/// What a worker was silent about for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Heartbeat,
    Unheard,
    Loading,
}

impl Cluster {
    /// When [`handle_timeout`](Self::handle_timeout) is due at the latest; `None` without workers.
    pub fn poll_timeout(&mut self) -> Option<Duration> {
        let timeouts = self.config.timeouts;
        let lost = self.members.first_due(|worker| deadline(&timeouts, worker).0);
        let stuck = self.placements.values().filter_map(|p| self.stuck_deadline(p));
        stuck.chain(lost).chain(self.next_placing()).min()
    }

    /// When a worker or a pair that backs off may be placed again. With plans in force nobody is placed, so
    /// that it changes nothing.
    fn next_placing(&self) -> Option<Duration> {
        let planless = || self.placements.values().filter(|placement| placement.plan.is_none());
        planless().next()?;
        let backoffs = self.members.iter().map(|(_, worker)| worker.backoff_until);
        let links = self.members.links.next_try(self.timed_at);
        let suspects = planless().filter_map(Placement::suspects_until);
        let all = backoffs.chain(links).chain(suspects);
        all.filter(|until| *until > self.timed_at).min()
    }

    /// Time has passed: silent workers are lost, those whose back-off is over are placed again.
    pub fn handle_timeout(&mut self, now: Duration) {
        let asleep = self.poll_timeout().map_or(Duration::ZERO, |due| now.saturating_sub(due));
        if asleep > ASLEEP {
            // What came meanwhile is still to be read.
            self.members.pardon(asleep + ASLEEP);
            self.awake_since = now;
        }
        self.timed_at = now;
        let lost: Vec<(WorkerId, String)> = self
            .members
            .iter()
            .map(|(id, worker)| (id, deadline(&self.config.timeouts, worker)))
            .filter(|(_, (deadline, _))| *deadline <= now)
            .map(|(id, (_, silence))| (id, self.why(silence)))
            .collect();
        for (id, why) in lost {
            self.actions.push_back(Action::Evict { worker: id, text: why.clone() });
            self.lose(now, id, &why);
        }
        let stuck = self.placements.iter().filter(|(_, placement)| {
            self.stuck_deadline(placement).is_some_and(|deadline| deadline <= now)
        });
        for lane in stuck.map(|(lane, _)| *lane).collect::<Vec<_>>() {
            if let Some(placement) = self.placements.get_mut(&lane) {
                placement.handle_stuck(now, &mut self.members, &mut self.actions);
            }
        }
        self.try_plans(now);
    }

    fn why(&self, silence: Silence) -> String {
        let timeouts = &self.config.timeouts;
        match silence {
            Silence::Heartbeat => format!("no heartbeat for {} s", timeouts.heartbeat.as_secs()),
            Silence::Unheard => {
                format!("it has not heard us for {} s", timeouts.unheard.as_secs())
            }
            Silence::Loading => {
                format!("no progress for {} s while loading its stage", timeouts.loading.as_secs())
            }
        }
    }

    /// When a pipeline with work in flight counts as stuck.
    fn stuck_deadline(&self, placement: &Placement) -> Option<Duration> {
        let awaited = placement.awaited?;
        let plan = placement.plan.as_ref()?;
        let timeouts = &self.config.timeouts;
        let predicted = || {
            let one: u64 = plan.cut.predicted_ns.iter().sum();
            Duration::from_nanos(one.saturating_mul(awaited.rows.into()))
        };
        let usual = awaited.usual.unwrap_or_else(predicted);
        let since = awaited.since.max(plan.serving_since?).max(self.awake_since);
        let moved = plan.stages.iter().map(|stage| self.members.of_plan(stage.worker).progress_at);
        let stood_still = timeouts.still.max(usual.saturating_mul(STILL_TIMES));
        let never = timeouts.moving.max(usual.saturating_mul(MOVING_TIMES));
        let still = since.max(moved.max()?).saturating_add(stood_still);
        Some(still.min(since.saturating_add(never)))
    }
}

/// When a worker counts as lost unless something is heard, and which limit that is.
fn deadline(timeouts: &Timeouts, worker: &Worker) -> (Duration, Silence) {
    let silent = (worker.heard_at + timeouts.heartbeat, Silence::Heartbeat);
    let unheard = (worker.echoed_at() + timeouts.unheard, Silence::Unheard);
    let still = (worker.progress_at + timeouts.loading, Silence::Loading);
    let all = [Some(silent), Some(unheard), Some(still).filter(|_| worker.loads())];
    let first = all.into_iter().flatten().min_by_key(|(deadline, _)| *deadline);
    first.unwrap_or(silent)
}
