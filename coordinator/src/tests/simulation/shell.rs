//! The coordinator of the simulation: what the driver does, without tasks and sockets.

use super::network::ConnectionId;
use super::{BEAT, COORDINATOR, Event, Message, SECOND, Scale, Time, World};
use crate::cluster::tests::{hello, placement};
use crate::cluster::{Action, Cluster, ClusterConfig, StageInfo, Timeouts};
use crate::ids::LaneId;
use crate::scheduler::{PlanLimits, PrefixCache, Scheduler, SchedulerConfig, StageTiming, Step};
use crate::status::Status;
use std::collections::BTreeMap;
use std::time::Duration;
use woolly_protocol::control::{Drain, Heartbeat, Hello};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::ids::{PlanEpoch, WorkerId};
use woolly_protocol::sampling::Sampled;

const LANE: LaneId = LaneId(0);
/// A worker that was silent for three heartbeats gives way to one with the same id.
const GIVES_WAY: Time = 3 * BEAT;

/// The plan that is served.
struct Pipeline {
    epoch: PlanEpoch,
    workers: Vec<WorkerId>,
}

/// A worker's connection.
struct Member {
    connection: ConnectionId,
    heard_at: Time,
    /// Our heartbeats.
    beats: u64,
}

/// Both state machines, and what the driver has beside them.
pub(super) struct Shell {
    pub(super) scheduler: Scheduler,
    pub(super) cluster: Cluster,
    pipeline: Option<Pipeline>,
    next: Option<(PlanLimits, Vec<StageInfo>)>,
    members: BTreeMap<WorkerId, Member>,
    timer: Option<Time>,
    /// Workers that the first plan waits for.
    wanted: usize,
    pub(super) scale: Scale,
    /// Plans that were served, to know that their number stays within reason.
    pub(super) plans: u64,
    /// Time in the scheduler, if it is measured.
    pub(super) spent: Option<Duration>,
}

impl Shell {
    pub(super) fn new(scale: Scale) -> Shell {
        let config = SchedulerConfig {
            running_max: scale.running_max,
            waiting_max: 200_000,
            prefix_cache: PrefixCache::Shared,
            ..SchedulerConfig::default()
        };
        let mut cluster = Cluster::new(ClusterConfig {
            machine: [9; 16],
            numerics: 3,
            timeouts: Timeouts::default(),
            epochs: 1..u32::MAX,
        });
        let placement =
            crate::cluster::PlacementConfig { ctx_size: scale.ctx_size, ..placement(scale.wanted) };
        cluster.handle_lane(Duration::ZERO, LANE, placement, [7; 32], Vec::new());
        Shell {
            scheduler: Scheduler::new(config),
            cluster,
            pipeline: None,
            next: None,
            members: BTreeMap::new(),
            timer: None,
            wanted: scale.wanted as usize,
            scale,
            plans: 0,
            spent: None,
        }
    }

    pub(super) fn status(&self) -> Status {
        self.cluster.status(LANE)
    }

    /// The plan that is served.
    pub(super) fn served(&self) -> Option<PlanEpoch> {
        self.pipeline.as_ref().map(|pipeline| pipeline.epoch)
    }

    /// The stages' workers, in order.
    pub(super) fn stages(&self) -> &[WorkerId] {
        self.pipeline.as_ref().map_or(&[], |pipeline| &pipeline.workers)
    }

    /// Calls the scheduler, and notes how long it took if that is asked for.
    fn schedule<T>(&mut self, call: impl FnOnce(&mut Scheduler) -> T) -> T {
        let begun = self.spent.is_some().then(std::time::Instant::now);
        let found = call(&mut self.scheduler);
        if let (Some(spent), Some(begun)) = (&mut self.spent, begun) {
            *spent += begun.elapsed();
        }
        found
    }
}

impl World {
    pub(super) fn coordinator_hears(&mut self, connection: ConnectionId, message: Message) {
        let now = self.clock();
        let Some(peer) = self.network.peer(connection, COORDINATOR) else { return };
        let id = WorkerId(peer);
        if matches!(message, Message::Hello) {
            return self.greet(id, connection);
        }
        let known = self.shell.members.get_mut(&id).filter(|known| known.connection == connection);
        let Some(member) = known else { return };
        member.heard_at = self.now;
        let cluster = &mut self.shell.cluster;
        match message {
            Message::Closed => self.coordinator_loses(connection, "the worker has left"),
            Message::Ready(ready) => cluster.handle_ready(now, id, &ready),
            Message::Fault(fault) => cluster.handle_fault(now, id, &fault),
            Message::Drain => {
                let drain = Drain { reason: "told to end".to_owned() };
                cluster.handle_drain(now, id, &drain);
            }
            Message::Heartbeat(heartbeat) => {
                cluster.handle_heartbeat(now, id, &heartbeat);
                self.take_timings(id, &heartbeat);
            }
            Message::Sampled(sampled) => self.sampled(id, sampled),
            other => panic!("a worker says {other:?}"),
        }
    }

    fn greet(&mut self, id: WorkerId, connection: ConnectionId) {
        if let Some(known) = self.shell.members.get(&id) {
            if self.now - known.heard_at < GIVES_WAY {
                self.send(connection, COORDINATOR, Message::Refused);
                return;
            }
            let old = known.connection;
            self.close(old, COORDINATOR);
            self.coordinator_loses(old, "it has connected anew");
        }
        let member = Member { connection, heard_at: self.now, beats: 0 };
        self.shell.members.insert(id, member);
        let now = self.clock();
        let kv_memory_bytes = self.shell.scale.kv_memory;
        let hello = Hello { kv_memory_bytes, ..hello(id) };
        self.shell.cluster.handle_hello(now, id, &hello).expect("it is welcome");
    }

    /// A connection is gone, seen from the coordinator.
    pub(super) fn coordinator_loses(&mut self, connection: ConnectionId, why: &str) {
        let found = self.shell.members.iter().find(|(_, member)| member.connection == connection);
        let Some(id) = found.map(|(id, _)| *id) else { return };
        self.shell.members.remove(&id);
        let now = self.clock();
        self.shell.cluster.handle_lost(now, id, why);
    }

    fn take_timings(&mut self, id: WorkerId, heartbeat: &Heartbeat) {
        let now = self.clock();
        let Some(pipeline) = &self.shell.pipeline else { return };
        let Some(stage) = pipeline.workers.iter().position(|worker| *worker == id) else { return };
        for report in &heartbeat.plans {
            for timing in &report.timings {
                let time = |us: u32| Duration::from_micros(us.into());
                let (compute, wait) = (time(timing.compute_us), time(timing.wait_us));
                let timing = StageTiming { microbatch: timing.microbatch, compute, wait };
                let epoch = report.epoch;
                self.shell.schedule(|s| s.handle_timing(now, epoch, stage, &timing));
            }
        }
    }

    fn sampled(&mut self, id: WorkerId, sampled: Sampled) {
        let now = self.clock();
        let of_us = self.shell.served() == Some(sampled.epoch);
        let (epoch, microbatch) = (sampled.epoch, sampled.microbatch);
        let is_last = self.shell.stages().last() == Some(&id);
        let taken = if of_us && !is_last {
            Err("not the last stage".to_owned())
        } else {
            self.shell.schedule(|s| s.handle_sampled(now, sampled)).map_err(|e| e.to_string())
        };
        if let Err(text) = taken {
            let fault = FaultMessage::new(FaultCode::BadMessage, epoch, microbatch, &text);
            self.shell.cluster.handle_fault(now, id, &fault);
        }
    }

    pub(super) fn coordinator_beats(&mut self) {
        let ids: Vec<_> = self.shell.members.keys().copied().collect();
        for id in ids {
            let Some(member) = self.shell.members.get_mut(&id) else { continue };
            member.beats += 1;
            let (connection, beat) = (member.connection, Message::Beat(member.beats));
            self.send(connection, COORDINATOR, beat);
        }
        self.at(self.now + BEAT, Event::CoordinatorBeat);
    }

    pub(super) fn timer(&mut self) {
        let now = self.clock();
        self.shell.timer = None;
        self.shell.cluster.handle_timeout(now);
        self.shell.schedule(|s| s.handle_timeout(now));
    }

    /// Does what the state machines ask for until they ask for nothing more.
    pub(super) fn settle(&mut self) {
        let now = self.clock();
        loop {
            let mut settled = true;
            while let Some(action) = self.shell.cluster.poll_action() {
                settled = false;
                self.act(action);
            }
            while let Some((id, event)) = self.shell.schedule(Scheduler::poll_event) {
                settled = false;
                self.clients.tell(id, event);
            }
            while let Some(step) = self.shell.schedule(|s| s.poll_step(now)) {
                settled = false;
                self.send_step(step);
            }
            let drained = self.shell.scheduler.is_drained();
            if let Some((limits, stages)) = self.shell.next.take_if(|_| drained) {
                settled = false;
                self.serve(limits, &stages);
                self.met.hand_overs += 1;
                self.shell.cluster.handle_taken_over(now, LANE, limits.epoch);
            }
            let awaited = self.shell.scheduler.awaited();
            self.shell.cluster.handle_awaited(LANE, awaited);
            if settled {
                break;
            }
        }
        let timeouts = [self.shell.cluster.poll_timeout(), self.shell.scheduler.poll_timeout()];
        let due = timeouts.into_iter().flatten().min();
        let due =
            due.map(|due| Time::try_from(due.as_nanos().div_ceil(1000)).unwrap().max(self.now));
        if let Some(due) = due.filter(|due| self.shell.timer.is_none_or(|set| *due < set)) {
            self.shell.timer = Some(due);
            self.at(due, Event::Timer);
        }
    }

    fn act(&mut self, action: Action) {
        let now = self.clock();
        match action {
            Action::Assign { worker, assign } => self.tell(worker, Message::Assign(assign)),
            Action::Release { worker, release } => {
                self.tell(worker, Message::Release(release.epoch));
            }
            Action::Evict { worker, .. } => {
                if let Some(member) = self.shell.members.remove(&worker) {
                    self.close(member.connection, COORDINATOR);
                }
            }
            Action::Serving { limits, stages, .. } => self.serve(limits, &stages),
            Action::TakeOver { limits, stages, .. } => {
                self.shell.next = Some((limits, stages));
                self.shell.scheduler.handle_hand_over();
            }
            Action::Withdrawn { .. } => {
                self.shell.next = None;
                self.shell.scheduler.handle_withdrawn(now);
            }
            Action::Stopped { silent, .. } => {
                assert!(silent < Duration::from_micros(31 * SECOND), "{silent:?}");
                self.shell.pipeline = None;
                self.shell.next = None;
                self.shell.scheduler.handle_pipeline_lost(now);
            }
            Action::NoRoom { .. }
            | Action::LookAtModel(_)
            | Action::ReserveEpochs
            | Action::Made { .. }
            | Action::Announce(_) => {}
        }
    }

    fn tell(&mut self, worker: WorkerId, message: Message) {
        if let Some(member) = self.shell.members.get(&worker) {
            self.send(member.connection, COORDINATOR, message);
        }
    }

    fn serve(&mut self, limits: PlanLimits, stages: &[StageInfo]) {
        let now = self.clock();
        let workers: Vec<_> = stages.iter().map(|stage| stage.worker).collect();
        self.shell.plans += 1;
        self.met.shrunk += u64::from(workers.len() < self.shell.wanted);
        self.shell.pipeline = Some(Pipeline { epoch: limits.epoch, workers });
        self.shell.schedule(|s| s.handle_plan(now, limits));
    }

    fn send_step(&mut self, step: Step) {
        let stages = self.shell.stages();
        let (Some(first), Some(last)) = (stages.first().copied(), stages.last().copied()) else {
            return;
        };
        if let Some(sampling) = step.sampling {
            self.tell(last, Message::Sampling(sampling));
        }
        let rows = step.tokens.iter().map(|token| u64::from(*token)).collect();
        self.tell(first, Message::Forward(step.forward, rows));
    }
}
