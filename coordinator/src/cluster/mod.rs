//! Decides who computes which layers, and nothing else.
//!
//! The cluster core is a state machine without clock, threads or I/O. What workers say and what
//! happens to them is told to it by `handle_*` methods; what should be done is asked with
//! [`poll_action`](Cluster::poll_action) after each of them. [`poll_timeout`](Cluster::poll_timeout)
//! says when [`handle_timeout`](Cluster::handle_timeout) is due at the latest. Time is the
//! [`Duration`] since the start of the program.
//!
//! It has two halves. The *membership* is who is here, what was measured, who is silent and who backs
//! off; it knows no model and is there from the start. A *placement* belongs to one lane: it cuts that
//! lane's model over the members, and begins when the model's fingerprint is known
//! ([`handle_lane`](Cluster::handle_lane)).
//!
//! # Life of a worker and of a plan
//!
//! ```text
//! worker:  Hello ─► joined ─► assigned ─► loading ─► ready ─► (plan ends) joined ─► …
//!                      └──────────┴── lost: link gone, silent, no progress ──┘
//! plan:    enough joined ─► Assign to each ─► all ready: Serving ─► one lost or faulty: Stopped
//!          one about to leave ─► the next: Assign to each ─► all ready: TakeOver ─► the old one: Release
//! ```
//!
//! The first plan of a lane takes the workers in order of joining; who joins later is a spare. When a
//! plan ends, those who are left are released, and a new plan begins under an epoch of its own: survivors
//! keep their place and a spare takes the lost one's, so that little is loaded anew; without a spare the
//! layers are cut over those who remain. A worker may hold stages of several lanes: what one has placed
//! on it is taken off the memory that the others may use (`holdings.rs`). A lane that is gone
//! ([`handle_lane_gone`](Cluster::handle_lane_gone)) gives it back.
//!
//! A worker that says that it leaves keeps its stage until the next plan, without it, is ready. Both stand
//! beside each other then; the shell lets what is in flight come in and switches
//! ([`handle_taken_over`](Cluster::handle_taken_over)).
//!
//! # No hot loop
//!
//! A worker that could not load or compute its stage backs off, from 5 s doubling to 60 s, before it is
//! placed again; a spare takes its place at once. A cut that is not possible is tried again when
//! somebody joins or leaves, and announced once.
//!
//! # Whom to believe
//!
//! A broken link has two ends, and one of them reports it. Neither is believed: the pair is remembered
//! and not planned as neighbours while there is another way, and the end that fails with several
//! partners backs off (`broken_links.rs`).
//!
//! # Slow is not dead
//!
//! A worker is lost when its link says so, when no heartbeat comes for `timeouts.heartbeat`, when its
//! heartbeats show for `timeouts.unheard` that it does not hear ours, or when it loads and its progress
//! stands still for `timeouts.loading`. A pipeline is stuck when an answer is overdue and no counter of
//! its workers moves: then the first stage that did not compute the microbatch backs off. As long as
//! counters move, it takes far longer to be believed (`watch.rs`).

mod action;
mod assign;
mod broken_links;
mod choose;
mod draft;
mod epochs;
mod holdings;
mod lost;
mod made;
mod membership;
mod placement;
mod placement_config;
mod plan;
mod seats;
mod snapshot;
mod status;
mod taken;
#[cfg(test)]
pub(crate) mod tests;
mod watch;
mod worker;

pub use action::Action;
pub use draft::{Draft, Drafts, Imagined};
pub use epochs::EPOCHS_LOW;
pub use membership::WORKERS_MAX;
pub use placement_config::PlacementConfig;
pub use plan::{Placed, PlanMade, StageInfo};
pub use watch::Timeouts;
pub use woolly_protocol::limits::STAGES_MAX;

use crate::ids::LaneId;
use crate::scheduler::Awaited;
use action::Actions;
use choose::Means;
use epochs::Epochs;
use lost::LostWorker;
use membership::Membership;
use placement::Placement;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;
use woolly_protocol::control::{Drain, Heartbeat, Hello, ModelPart, Ready};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::ids::{PlanEpoch, WorkerId};
use worker::one_line;

/// What does not change while the coordinator runs, whatever models it serves.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The coordinator's machine.
    pub machine: [u8; 16],
    /// The order of operations that every worker must have.
    pub numerics: u32,
    /// When a worker counts as lost.
    pub timeouts: Timeouts,
    /// Numbers for plans: no plan of this cluster ever had one of them.
    pub epochs: Range<u32>,
}

/// The cluster core. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Cluster {
    config: ClusterConfig,
    members: Membership,
    placements: BTreeMap<LaneId, Placement>,
    epochs: Epochs,
    /// When back-offs were last looked at: those that had ended by then are not awaited again.
    timed_at: Duration,
    /// When this process last woke from a sleep of its own.
    awake_since: Duration,
    actions: Actions,
    stale_faults: u64,
    /// Rises with every change of what [`status`](Self::status) says.
    revision: u64,
}

impl Cluster {
    /// A cluster without workers and lanes.
    pub fn new(config: ClusterConfig) -> Self {
        Self {
            epochs: Epochs::new(config.epochs.clone()),
            config,
            members: Membership::default(),
            placements: BTreeMap::new(),
            timed_at: Duration::ZERO,
            awake_since: Duration::ZERO,
            actions: VecDeque::new(),
            stale_faults: 0,
            revision: 0,
        }
    }

    /// A lane's model is known: it is placed from now on, where it can be on the workers of its last
    /// plan (`seats`: workers and numbers of layers, in order of stage).
    pub fn handle_lane(
        &mut self,
        now: Duration,
        lane: LaneId,
        config: PlacementConfig,
        fingerprint: [u8; 32],
        seats: Vec<(WorkerId, u32)>,
    ) {
        self.placements.insert(lane, Placement::new(lane, config, fingerprint, seats));
        self.note_others();
        self.try_plans(now);
    }

    /// A lane is gone: its plans end, and what they held is for the others. Nobody is told that they ended.
    pub fn handle_lane_gone(&mut self, now: Duration, lane: LaneId) {
        let Some(placement) = self.placements.remove(&lane) else { return };
        placement.close(&mut self.members, &mut self.actions);
        self.note_others();
        self.try_plans(now);
    }

    /// Lanes have come or gone: each knows whether it is one of several.
    fn note_others(&mut self) {
        let several = self.placements.len() > 1;
        self.placements.values_mut().for_each(|placement| placement.is_one_of_several = several);
    }

    /// More numbers for plans.
    pub fn handle_epochs(&mut self, now: Duration, epochs: Range<u32>) {
        self.epochs.add(epochs);
        self.try_plans(now);
    }

    /// Faults that belonged to no plan in force, since the start.
    pub fn stale_faults(&self) -> u64 {
        self.stale_faults
    }

    /// The order of operations that every worker has.
    pub fn numerics(&self) -> u32 {
        self.config.numerics
    }

    /// How long a worker has not shown that it hears us; `None` if it is not known.
    pub fn unheard_for(&self, now: Duration, id: WorkerId) -> Option<Duration> {
        Some(now.saturating_sub(self.members.get(id)?.echoed_at()))
    }

    /// A number that rises with every change of what [`status`](Self::status) says.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A worker has said what it is.
    ///
    /// # Errors
    ///
    /// What to refuse it with: another order of operations, an id that is connected already, an
    /// address that nobody can dial, or too many workers.
    pub fn handle_hello(
        &mut self,
        now: Duration,
        id: WorkerId,
        hello: &Hello,
    ) -> Result<(), String> {
        let worker = self.members.join(now, id, hello, self.config.numerics)?;
        let text = format!("Worker {worker} joined");
        self.announce(text);
        self.try_plans(now);
        Ok(())
    }

    /// A stage is loaded and linked. Answers to another plan are ignored.
    pub fn handle_ready(&mut self, now: Duration, id: WorkerId, ready: &Ready) {
        let of = self.placements.values_mut().find(|p| p.holds(id, ready.epoch));
        let Some(placement) = of else { return };
        placement.handle_ready(now, id, ready, &mut self.members, &mut self.actions);
        self.revision += 1;
    }

    /// A worker cannot do what it was asked, or the shell found that it does it wrongly. Ends the
    /// plan; the worker backs off. A fault of another plan is counted only, as is
    /// [`FaultCode::WrongEpoch`]: it says that a late message was dropped.
    pub fn handle_fault(&mut self, now: Duration, id: WorkerId, fault: &FaultMessage) {
        let of = self.placements.values_mut().find(|p| p.holds(id, fault.epoch));
        let (Some(placement), false) = (of, fault.code == FaultCode::WrongEpoch) else {
            self.stale_faults += 1;
            return;
        };
        placement.handle_fault(now, id, fault, &mut self.members, &mut self.actions);
        self.try_plans(now);
    }

    /// The files of a lane's model were written to, and are being read: a plan in force goes on, and
    /// none is made.
    pub fn handle_model_unsure(&mut self, lane: LaneId) {
        if let Some(placement) = self.placements.get_mut(&lane) {
            placement.handle_model_unsure();
        }
    }

    /// The files of a lane's model hold it, and this is how they are told to workers from now on. Who
    /// failed because of them failed for nothing.
    pub fn handle_model_verified(&mut self, now: Duration, lane: LaneId, parts: Vec<ModelPart>) {
        let Some(placement) = self.placements.get_mut(&lane) else { return };
        if placement.handle_model_verified(parts) {
            self.members.forgive_all(now);
            self.try_plans(now);
        }
    }

    /// A worker lives, and says how far it is.
    pub fn handle_heartbeat(&mut self, now: Duration, id: WorkerId, heartbeat: &Heartbeat) {
        let loads = self.members.hear(now, id, heartbeat);
        self.revision += u64::from(loads);
        for report in &heartbeat.plans {
            self.placements.values_mut().for_each(|placement| placement.handle_report(id, report));
        }
        if self.placements.values().any(|placement| placement.suspects_until().is_some()) {
            self.try_plans(now);
        }
    }

    /// The answer that a lane waits for. Told after every change, it lets the core see a pipeline in which
    /// nobody is at work and yet no answer comes.
    pub fn handle_awaited(&mut self, lane: LaneId, awaited: Option<Awaited>) {
        if let Some(placement) = self.placements.get_mut(&lane) {
            placement.awaited = awaited.filter(|_| placement.plan.is_some());
        }
    }

    /// A lane's scheduler has switched to the plan that was to take over.
    pub fn handle_taken_over(&mut self, now: Duration, lane: LaneId, epoch: PlanEpoch) {
        if let Some(placement) = self.placements.get_mut(&lane) {
            placement.handle_taken_over(now, epoch, &mut self.members, &mut self.actions);
        }
        self.try_plans(now);
    }

    /// A worker wants to leave: it keeps its stage until the next plan takes over. If there can be none its
    /// connection is closed, and it counts as lost. One that has no stage leaves by itself.
    pub fn handle_drain(&mut self, now: Duration, id: WorkerId, drain: &Drain) {
        let Some(worker) = self.members.get_mut(id) else { return };
        let reason = format!("it leaves: {}", one_line(&drain.reason));
        let text = format!("worker {} leaves: {}", worker.name, one_line(&drain.reason));
        worker.leaving = Some(reason);
        self.announce(text);
        for placement in self.placements.values_mut() {
            if placement.next.as_ref().is_some_and(|next| next.holds(id)) {
                placement.drop_next(&mut self.members, &mut self.actions);
            }
        }
        self.try_plans(now);
    }

    /// The connection of a worker is gone. A worker that is not known any more is ignored.
    pub fn handle_lost(&mut self, now: Duration, id: WorkerId, reason: &str) {
        self.lose(now, id, reason);
        self.try_plans(now);
    }

    fn lose(&mut self, now: Duration, id: WorkerId, why: &str) {
        let Some(worker) = self.members.leave(id) else { return };
        let why = one_line(why);
        let reason = format!("worker {} is lost: {why}", worker.name);
        self.announce(reason.clone());
        let because = (reason.as_str(), now.saturating_sub(worker.heard_at));
        for placement in self.placements.values_mut() {
            placement.handle_lost(now, id, because, &mut self.members, &mut self.actions);
        }
        let reason = worker.leaving.clone().unwrap_or(why);
        self.members.lost.add(LostWorker { id, worker, at: now, reason });
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn announce(&mut self, text: String) {
        self.actions.push_back(Action::Announce(text));
    }

    /// Begins a plan for every lane that has none and finds workers enough, and lets those go who want to
    /// leave and cannot be waited for.
    fn try_plans(&mut self, now: Duration) {
        self.revision += 1;
        // All back-offs are looked at now.
        self.timed_at = self.timed_at.max(now);
        self.members.links.forget_old(now);
        loop {
            let mut means = Means { machine: self.config.machine, epochs: &mut self.epochs };
            for placement in self.placements.values_mut() {
                placement.try_plan(now, &mut means, &mut self.members, &mut self.actions);
            }
            let Some((id, reason)) = self.leaves_at_once() else { break };
            self.actions.push_back(Action::Evict { worker: id, text: "goodbye".to_owned() });
            self.lose(now, id, &reason);
        }
        if self.epochs.ask_for_more() {
            self.actions.push_back(Action::ReserveEpochs);
        }
    }

    /// A worker that wants to leave and has a stage that no next plan will take over.
    fn leaves_at_once(&self) -> Option<(WorkerId, String)> {
        let keeps = |id| {
            let mut plans = self.placements.values().filter_map(|p| Some((p, p.plan.as_ref()?)));
            // What the model's files hold is known soon; then the next plan can be made.
            let waits = |p: &Placement| p.next.is_none() && !p.is_unsure();
            plans.any(|(placement, plan)| plan.holds(id) && waits(placement))
        };
        let mut leaving = self.members.iter().filter_map(|(id, w)| Some((id, w.leaving.clone()?)));
        leaving.find(|(id, _)| keeps(*id))
    }
}
