//! The workers as the driver sees them: each one's link, and the cluster core that decides.

use super::pipeline::{Broken, Pipeline};
use crate::cluster::{Action, Cluster, ClusterConfig};
use crate::last_plan::Seats;
use crate::links::{HEARTBEAT_MS, Link, LinkEvent, News, SendError};
use crate::status::Status;
use std::collections::BTreeMap;
use std::time::Duration;
use woolly_protocol::certificate::ClusterId;
use woolly_protocol::control::{ForwardTiming, Hello, ModelPart, Welcome};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::frame::Message;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, WorkerId};
use woolly_protocol::refusal::{Refusal, RefusalCode};
use woolly_protocol::sampling::Sampled;

/// Workers that may wait for the model's fingerprint.
const EARLY_MAX: usize = crate::cluster::WORKERS_MAX;

/// A worker that was silent for three heartbeats gives way to one with the same certificate: it was
/// restarted, and its old connection has not timed out yet.
const GIVES_WAY_AFTER: Duration = Duration::from_millis(3 * HEARTBEAT_MS as u64);

/// Links and the cluster core.
#[derive(Debug)]
pub struct Members {
    id: ClusterId,
    links: BTreeMap<WorkerId, Member>,
    stage: Stage,
}

/// A worker's link, and when something was last heard on it.
#[derive(Debug)]
struct Member {
    link: Link,
    heard_at: Duration,
}

/// What a worker says to the scheduler.
#[derive(Debug)]
pub enum Report {
    /// The answer of the last stage.
    Sampled(WorkerId, Sampled),
    /// How long forwards of a plan took.
    Timings {
        /// On which worker.
        worker: WorkerId,
        /// Of which plan.
        epoch: PlanEpoch,
        /// Oldest first.
        timings: Vec<ForwardTiming>,
    },
}

/// Whether the model's fingerprint is known: no plan can be made before.
#[derive(Debug)]
enum Stage {
    /// It is not; workers wait in the order of joining.
    Early { config: Box<ClusterConfig>, waiting: Vec<(WorkerId, Hello)> },
    /// It is.
    Begun(Box<Cluster>),
}

impl Members {
    /// No workers yet. The fingerprint in `config` is filled in by [`begin`](Self::begin).
    pub fn new(config: ClusterConfig, id: ClusterId) -> Members {
        let stage = Stage::Early { config: Box::new(config), waiting: Vec::new() };
        Members { id, links: BTreeMap::new(), stage }
    }

    /// The fingerprint is known: plans can be made, the first one after `seats`, the last of this model.
    pub fn begin(&mut self, now: Duration, fingerprint: [u8; 32], seats: Seats) {
        let Stage::Early { config, waiting } = &mut self.stage else { return };
        (config.fingerprint, config.seats) = (fingerprint, seats);
        let (config, waiting) = (config.as_ref().clone(), std::mem::take(waiting));
        self.stage = Stage::Begun(Box::new(Cluster::new(config)));
        for (worker, hello) in waiting {
            if let Err(refusal) = self.introduce(now, worker, hello) {
                self.refuse(worker, &refusal);
            }
        }
    }

    /// The model's files were written to, and are being read.
    pub fn handle_model_unsure(&mut self) {
        if let Stage::Begun(cluster) = &mut self.stage {
            cluster.handle_model_unsure();
        }
    }

    /// The model's files hold the model.
    pub fn handle_model_verified(&mut self, now: Duration, parts: Vec<ModelPart>) {
        match &mut self.stage {
            Stage::Begun(cluster) => cluster.handle_model_verified(now, parts),
            Stage::Early { config, .. } => config.parts = parts,
        }
    }

    /// Takes in what a link tells. What is for the scheduler is given back.
    pub fn handle_event(&mut self, now: Duration, event: LinkEvent) -> Option<Report> {
        let LinkEvent { link, worker, news } = event;
        if let News::Hello { hello, link } = news {
            self.handle_hello(now, *hello, link);
            return None;
        }
        let member = self.links.get_mut(&worker).filter(|known| known.link.id() == link);
        // Nothing counts that comes from a connection that was refused or closed before.
        member?.heard_at = now;
        if let News::Lost(why) = &news {
            self.lose(now, worker, why);
            return None;
        }
        let Stage::Begun(cluster) = &mut self.stage else { return None };
        match news {
            News::Ready(ready) => cluster.handle_ready(now, worker, &ready),
            News::Heartbeat(mut heartbeat) => {
                let (epoch, timings) = (heartbeat.epoch, std::mem::take(&mut heartbeat.timings));
                cluster.handle_heartbeat(now, worker, &heartbeat);
                return Some(Report::Timings { worker, epoch, timings });
            }
            News::Fault(fault) => cluster.handle_fault(now, worker, &fault),
            News::Drain(drain) => cluster.handle_drain(now, worker, &drain),
            News::Sampled(sampled) => return Some(Report::Sampled(worker, sampled)),
            News::Hello { .. } | News::Lost(_) => {}
        }
        None
    }

    fn handle_hello(&mut self, now: Duration, hello: Hello, link: Link) {
        let worker = link.worker();
        let known = self.links.get(&worker).map(|member| now.saturating_sub(member.heard_at));
        if known.is_some_and(|silent| silent >= GIVES_WAY_AFTER) {
            self.lose(now, worker, "it has connected anew");
        } else if known.is_some() {
            let text = format!(
                "a worker with the id {} is connected already: give each worker a --state-dir of \
                 its own; after a restart it can join again when the old connection is seen to be dead",
                worker.hex()
            );
            tracing::warn!("refused worker {} ({}): {text}", hello.name, link.remote());
            link.close(&Refusal::new(RefusalCode::AlreadyConnected, &text));
            return;
        }
        let welcome = Welcome { cluster: self.id, heartbeat_ms: HEARTBEAT_MS };
        self.links.insert(worker, Member { link, heard_at: now });
        // What the cluster core asks for in return is done later: the welcome is sent first.
        match self.introduce(now, worker, hello) {
            Ok(()) => self.send(now, worker, &welcome),
            Err(refusal) => self.refuse(worker, &refusal),
        }
    }

    /// Tells the cluster core of a worker, or keeps it until there is one.
    fn introduce(&mut self, now: Duration, worker: WorkerId, hello: Hello) -> Result<(), Refusal> {
        match &mut self.stage {
            Stage::Begun(cluster) => cluster
                .handle_hello(now, worker, &hello)
                .map_err(|text| Refusal::new(RefusalCode::Malformed, &text)),
            Stage::Early { waiting, .. } if waiting.len() < EARLY_MAX => {
                waiting.push((worker, hello));
                Ok(())
            }
            Stage::Early { .. } => {
                Err(Refusal::new(RefusalCode::Busy, "too many workers wait for the model"))
            }
        }
    }

    fn refuse(&mut self, worker: WorkerId, refusal: &Refusal) {
        if let Some(Member { link, .. }) = self.links.remove(&worker) {
            tracing::warn!("refused worker {} ({}): {refusal}", worker.hex(), link.remote());
            link.close(refusal);
        }
    }

    /// A worker's link is of no use any more.
    pub fn lose(&mut self, now: Duration, worker: WorkerId, why: &str) {
        if let Some(Member { link, .. }) = self.links.remove(&worker) {
            link.close(&Refusal::new(RefusalCode::Internal, why));
        }
        match &mut self.stage {
            Stage::Begun(cluster) => cluster.handle_lost(now, worker, why),
            Stage::Early { waiting, .. } => waiting.retain(|(id, _)| *id != worker),
        }
    }

    /// The cluster core knows a worker no more.
    pub fn evict(&mut self, worker: WorkerId, text: &str) {
        if let Some(Member { link, .. }) = self.links.remove(&worker) {
            link.close(&Refusal::new(RefusalCode::Internal, text));
        }
    }

    /// A worker answered what was not asked.
    pub fn handle_nonsense(
        &mut self,
        now: Duration,
        worker: WorkerId,
        (epoch, microbatch): (PlanEpoch, MicrobatchId),
        text: &str,
    ) {
        let Stage::Begun(cluster) = &mut self.stage else { return };
        let (code, text) = (FaultCode::BadMessage, text.to_owned());
        let fault = FaultMessage { code, epoch, microbatch, text };
        cluster.handle_fault(now, worker, &fault);
    }

    /// Sends a control message; a worker that takes none is lost.
    pub fn send<M: Message>(&mut self, now: Duration, worker: WorkerId, message: &M) {
        // A worker that was lost since: the core hears of it by itself.
        let Some(Member { link, .. }) = self.links.get(&worker) else { return };
        if let Err(error) = link.send(message) {
            self.lose(now, worker, &error.to_string());
        }
    }

    /// Opens the streams of a plan whose stages these workers hold, in order.
    ///
    /// # Errors
    ///
    /// Which worker cannot be reached, and why.
    pub fn open_pipeline(
        &self,
        epoch: PlanEpoch,
        workers: Vec<WorkerId>,
    ) -> Result<Pipeline, Broken> {
        let link = |worker| {
            self.links
                .get(&worker)
                .map(|member| &member.link)
                .ok_or(Broken { worker, error: SendError::Gone })
        };
        let ends = workers.first().zip(workers.last());
        let (first, last) = ends.expect("a plan has at least one stage");
        let (first, last) = (link(*first)?, link(*last)?);
        Pipeline::open(epoch, workers, first, last)
    }

    /// What the cluster core wants done.
    pub fn poll_action(&mut self) -> Option<Action> {
        match &mut self.stage {
            Stage::Begun(cluster) => cluster.poll_action(),
            Stage::Early { .. } => None,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due at the latest.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match &self.stage {
            Stage::Begun(cluster) => cluster.poll_timeout(),
            Stage::Early { .. } => None,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if let Stage::Begun(cluster) = &mut self.stage {
            cluster.handle_timeout(now);
        }
    }

    /// Whether microbatches are in flight.
    pub fn handle_in_flight(&mut self, now: Duration, in_flight: bool) {
        if let Stage::Begun(cluster) = &mut self.stage {
            cluster.handle_in_flight(now, in_flight);
        }
    }

    /// The latest plan's number.
    pub fn epoch(&self) -> PlanEpoch {
        match &self.stage {
            Stage::Begun(cluster) => cluster.epoch(),
            Stage::Early { .. } => PlanEpoch::default(),
        }
    }

    /// Faults that belonged to no plan in force, since the start.
    pub fn stale_faults(&self) -> u64 {
        match &self.stage {
            Stage::Begun(cluster) => cluster.stale_faults(),
            Stage::Early { .. } => 0,
        }
    }

    /// The cluster for people.
    pub fn status(&self) -> Status {
        match &self.stage {
            Stage::Begun(cluster) => cluster.status(),
            Stage::Early { waiting, .. } => Status {
                detail: format!(
                    "reading the model for its fingerprint; {} workers have joined",
                    waiting.len()
                ),
                ..Status::default()
            },
        }
    }
}
