//! Decides who computes which layers, and nothing else.
//!
//! The cluster core is a state machine without clock, threads or I/O. What workers say and what
//! happens to them is told to it by `handle_*` methods; what should be done is asked with
//! [`poll_action`](Cluster::poll_action) after each of them. [`poll_timeout`](Cluster::poll_timeout)
//! says when [`handle_timeout`](Cluster::handle_timeout) is due at the latest. Time is the
//! [`Duration`] since the start of the program.
//!
//! # Life of a worker and of a plan
//!
//! ```text
//! worker:  Hello ─► joined ─► assigned ─► loading ─► ready ─► (plan ends) joined ─► …
//!                      └──────────┴── lost: link gone, silent, no progress ──┘
//! plan:    enough joined ─► Assign to each ─► all ready: Serving ─► one lost or faulty: Stopped
//! ```
//!
//! The first plan takes the workers in order of joining; who joins later is a spare. When a plan
//! ends, those who are left are released and wait, and with a replacement a new plan begins under
//! the next epoch: survivors keep their place and the replacement takes the lost one's, so that
//! little is loaded anew.
//!
//! # No hot loop
//!
//! A worker that could not load or compute its stage rests, from 5 s doubling to 60 s, before it is
//! placed again; a spare takes its place at once. A cut that is not possible is tried again when
//! somebody joins or leaves, and announced once.
//!
//! # Slow is not dead
//!
//! A worker is lost when its link says so, when no heartbeat comes for `timeouts.heartbeat`, or when
//! its heartbeats say that it is at work and its progress stands still for `timeouts.loading` or
//! `timeouts.computing`. As long as the counter moves it may take as long as it needs.

mod plan;
mod status;
#[cfg(test)]
mod tests;
mod watch;
mod worker;

pub use plan::StageInfo;

use crate::scheduler::PlanLimits;
use plan::Plan;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use woolly_engine::plan::{KvType, ModelLayout};
use woolly_protocol::control::{Assign, Drain, Heartbeat, Hello, ModelPart, Ready, Release};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::ids::{PlanEpoch, WorkerId};
use worker::{Worker, WorkerState, one_line};

/// Workers that may be joined at a time, spares included.
pub const WORKERS_MAX: usize = 256;

/// What does not change while the coordinator runs.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The model.
    pub layout: Arc<ModelLayout>,
    /// Its files.
    pub parts: Vec<ModelPart>,
    /// BLAKE3 root over its 1 MiB chunks.
    pub fingerprint: [u8; 32],
    /// The coordinator's machine.
    pub machine: [u8; 16],
    /// The order of operations that every worker must have.
    pub numerics: u32,
    /// Workers to wait for before layers are placed; at least the stages of `cut`, at least 1.
    pub workers_wanted: u32,
    /// Layers of each stage; `None` lets the planner choose.
    pub cut: Option<Vec<u32>>,
    /// Positions of a sequence.
    pub ctx_size: u32,
    /// Rows of a microbatch at most; fewer if the model is so wide that they would not fit a frame.
    pub rows_max: u32,
    /// How the KV cache holds its values.
    pub kv_type: KvType,
    /// Positions of the KV cache that are given out together, a multiple of 32.
    pub block_len: u32,
    /// The workers of the last plan of this model with their numbers of layers, in order of stage:
    /// they keep their places. Empty if there was none. With a `cut` of other layers they do not count.
    pub seats: Vec<(WorkerId, u32)>,
    /// When a worker counts as lost.
    pub timeouts: Timeouts,
}

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

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a worker its stage.
    Assign {
        /// To whom.
        worker: WorkerId,
        /// What.
        assign: Box<Assign>,
    },
    /// Take a worker's stage back.
    Release {
        /// From whom.
        worker: WorkerId,
        /// What.
        release: Release,
    },
    /// All stages are ready: open the streams and tell the scheduler.
    Serving {
        /// For the scheduler.
        limits: PlanLimits,
        /// The stages in order; the first takes the forwards, the last the samplings.
        stages: Vec<StageInfo>,
    },
    /// A plan that was served has ended: close its streams and tell the scheduler.
    Stopped {
        /// The plan.
        epoch: PlanEpoch,
        /// Why, for people.
        reason: String,
    },
    /// Close the connection of a worker; it is known no more.
    Evict {
        /// Whose.
        worker: WorkerId,
        /// What to tell it.
        text: String,
    },
    /// Have the model's files looked at, and say what they hold
    /// ([`Cluster::handle_model_verified`]): a worker saw that they were written to.
    LookAtModel,
    /// Tell people.
    Announce(String),
}

/// The cluster core. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Cluster {
    config: ClusterConfig,
    workers: BTreeMap<WorkerId, Worker>,
    /// Workers that ever joined: the order of joining.
    joins: u64,
    /// The plan in force, loading or served.
    plan: Option<Plan>,
    /// The latest plan; 0 before the first.
    epoch: PlanEpoch,
    /// Workers and layers of the latest plan, by stage: the next one keeps what it can.
    seats: Vec<(WorkerId, u32)>,
    /// Why there is no plan although there are workers enough.
    trouble: Option<String>,
    /// The model's files were written to: nobody is placed before it is known what they hold.
    unsure: bool,
    /// Nobody is placed before: a link broke, and whose fault it is will show.
    placing_from: Duration,
    /// Since when the pipeline has had work, if it has.
    in_flight_since: Option<Duration>,
    /// The latest `handle_timeout`: rests that had ended by then are not awaited again.
    timed_at: Duration,
    actions: VecDeque<Action>,
    stale_faults: u64,
}

/// After a link of a served plan broke: longer than a dead worker's connection takes to be noticed
/// here as well (3 s by default), so that the next plan is made without it.
const LINK_PAUSE: Duration = Duration::from_secs(5);

impl Cluster {
    /// A cluster without workers.
    pub fn new(mut config: ClusterConfig) -> Self {
        let mut seats = std::mem::take(&mut config.seats);
        let counts: Vec<u32> = seats.iter().map(|(_, layers)| *layers).collect();
        if config.cut.as_ref().is_some_and(|cut| *cut != counts) {
            seats.clear();
        }
        Self {
            config,
            workers: BTreeMap::new(),
            joins: 0,
            plan: None,
            epoch: PlanEpoch(0),
            seats,
            trouble: None,
            unsure: false,
            placing_from: Duration::ZERO,
            in_flight_since: None,
            timed_at: Duration::ZERO,
            actions: VecDeque::new(),
            stale_faults: 0,
        }
    }

    /// The latest plan's number, for heartbeats; 0 before the first.
    pub fn epoch(&self) -> PlanEpoch {
        self.epoch
    }

    /// Faults that belonged to no plan in force, since the start.
    pub fn stale_faults(&self) -> u64 {
        self.stale_faults
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
        self.vet(id, hello)?;
        let worker = Worker::new(hello, self.joins, now);
        self.joins += 1;
        self.announce(format!("Worker {worker} joined"));
        self.workers.insert(id, worker);
        self.try_plan(now);
        Ok(())
    }

    fn vet(&self, id: WorkerId, hello: &Hello) -> Result<(), String> {
        if hello.numerics != self.config.numerics {
            return Err(format!(
                "this worker computes in order of operations {}, the cluster in {}: their results \
                 would differ; install the same version of Woolly on all machines",
                hello.numerics, self.config.numerics
            ));
        }
        if let Some(known) = self.workers.get(&id) {
            return Err(format!(
                "a worker with the id {} is connected already (as {known}): give each worker a \
                 --state-dir of its own; if this one was restarted, it can join again when the old \
                 connection has timed out",
                id.hex()
            ));
        }
        if self.workers.len() >= WORKERS_MAX {
            return Err(format!("{WORKERS_MAX} workers have joined; more are not possible"));
        }
        worker::vet_address(&hello.advertise)
    }

    /// A stage is loaded and linked. Answers to another plan are ignored.
    pub fn handle_ready(&mut self, now: Duration, id: WorkerId, ready: &Ready) {
        let Some(stage) = self.plan.as_mut().and_then(|plan| plan.stage_mut(id, ready.epoch))
        else {
            return;
        };
        if stage.ready.replace(ready.clone()).is_some() {
            return;
        }
        let worker = self.workers.get_mut(&id).expect("a plan holds live workers only");
        worker.state = WorkerState::Ready;
        worker.progress_at = now;
        self.start_serving(now);
    }

    /// A worker cannot do what it was asked, or the shell found that it does it wrongly. Ends the
    /// plan; the worker rests. A fault of another plan is counted only, as is
    /// [`FaultCode::WrongEpoch`]: it says that a late message was dropped.
    pub fn handle_fault(&mut self, now: Duration, id: WorkerId, fault: &FaultMessage) {
        let stage = self.plan.as_ref().and_then(|plan| plan.position(id, fault.epoch));
        let (Some(stage), false) = (stage, fault.code == FaultCode::WrongEpoch) else {
            self.stale_faults += 1;
            return;
        };
        let served = self.plan.as_ref().and_then(|plan| plan.served_for(now));
        let did = match fault.code {
            FaultCode::LoadFailed => "could not load its stage",
            FaultCode::SliceFailed => "could not get the weights of its stage",
            FaultCode::LinkFailed => "has no link to the next stage",
            FaultCode::ComputeFailed => "failed while computing",
            FaultCode::BadMessage | FaultCode::WrongEpoch => "met a message without meaning",
        };
        let worker = self.workers.get_mut(&id).expect("a plan holds live workers only");
        let reason =
            format!("worker {} (stage {stage}) {did}: {}", worker.name, one_line(&fault.text));
        if fault.code == FaultCode::LinkFailed && served.is_some() {
            // Most likely the neighbour died, and this worker saw it first.
            self.placing_from = now + LINK_PAUSE;
            self.announce(reason.clone());
            self.trouble = Some(reason.clone());
            self.end_plan(&reason);
            return;
        }
        if fault.code == FaultCode::LoadFailed && served.is_some() && worker.forgive(now) {
            // It had loaded the stage: its file was written to since.
            self.unsure = true;
            self.announce(reason.clone());
            self.trouble = Some(reason.clone());
            self.end_plan(&reason);
            self.actions.push_back(Action::LookAtModel);
            return;
        }
        let rest = worker.rest(now, served);
        self.announce(format!("{reason}. It is tried again in {} s", rest.as_secs()));
        self.trouble = Some(reason.clone());
        self.end_plan(&reason);
        self.try_plan(now);
    }

    /// The model's files were written to, and are being read: a plan in force goes on, and none is made.
    pub fn handle_model_unsure(&mut self) {
        self.unsure = true;
    }

    /// The model's files hold the model, and this is how they are told to workers from now on. Who
    /// failed because of them failed for nothing.
    pub fn handle_model_verified(&mut self, now: Duration, parts: Vec<ModelPart>) {
        let were_unsure = std::mem::replace(&mut self.unsure, false);
        self.config.parts = parts;
        if were_unsure {
            self.workers.values_mut().for_each(|worker| worker.rest_until = now);
            self.try_plan(now);
        }
    }

    /// A worker lives, and says how far it is.
    pub fn handle_heartbeat(&mut self, now: Duration, id: WorkerId, heartbeat: &Heartbeat) {
        let planned =
            self.plan.as_ref().is_some_and(|plan| plan.position(id, heartbeat.epoch).is_some());
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.hear(now, heartbeat, planned);
        }
    }

    /// Whether microbatches are in flight. Told after every change, it lets the core see a pipeline
    /// in which nobody is at work and yet no answer comes.
    pub fn handle_in_flight(&mut self, now: Duration, in_flight: bool) {
        match (in_flight, self.in_flight_since) {
            (true, None) => self.in_flight_since = Some(now),
            (false, _) => self.in_flight_since = None,
            (true, Some(_)) => {}
        }
    }

    /// A worker leaves politely: its connection is closed, and it counts as lost.
    pub fn handle_drain(&mut self, now: Duration, id: WorkerId, drain: &Drain) {
        if self.workers.contains_key(&id) {
            let text = "goodbye".to_owned();
            self.actions.push_back(Action::Evict { worker: id, text });
            self.handle_lost(now, id, &format!("it leaves: {}", one_line(&drain.reason)));
        }
    }

    /// The connection of a worker is gone. A worker that is not known any more is ignored.
    pub fn handle_lost(&mut self, now: Duration, id: WorkerId, reason: &str) {
        self.lose(id, reason);
        self.try_plan(now);
    }

    fn lose(&mut self, id: WorkerId, reason: &str) {
        let Some(worker) = self.workers.remove(&id) else { return };
        let reason = format!("worker {} is lost: {}", worker.name, one_line(reason));
        self.announce(reason.clone());
        self.placing_from = Duration::ZERO;
        if self.plan.as_ref().is_some_and(|plan| plan.holds(id)) {
            self.end_plan(&reason);
            self.trouble = Some(reason);
        }
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn announce(&mut self, text: String) {
        self.actions.push_back(Action::Announce(text));
    }

    /// Ends the plan in force: those who are left give their stages back and wait.
    fn end_plan(&mut self, reason: &str) {
        let Some(plan) = self.plan.take() else { return };
        self.in_flight_since = None;
        let epoch = plan.epoch;
        if plan.serving_since.is_some() {
            self.actions.push_back(Action::Stopped { epoch, reason: reason.to_owned() });
        }
        for stage in &plan.stages {
            if let Some(worker) = self.workers.get_mut(&stage.worker) {
                worker.state = WorkerState::Joined;
                let release = Release { epoch };
                self.actions.push_back(Action::Release { worker: stage.worker, release });
            }
        }
    }
}
