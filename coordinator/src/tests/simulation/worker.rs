//! A worker of the simulation: joins, loads, links, computes the toy model in the order of arrival, and says
//! how it is.

use super::network::ConnectionId;
use super::{BEAT, COORDINATOR, Event, MS, Message, SECOND, World};
use crate::scheduler::tests::toy::{self, ToyStage};
use std::collections::{BTreeMap, VecDeque};
use woolly_protocol::control::{Assign, ForwardTiming, Heartbeat, PlanReport, StageSpec};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::forward::{CacheLimits, Forward};
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, WorkerId};
use woolly_protocol::sampling::Sampling;

/// A plan on a worker.
pub(super) struct Plan {
    pub(super) assign: Assign,
    pub(super) stage: Option<u64>,
    /// The connection to the next stage.
    pub(super) next: Option<ConnectionId>,
    /// Where its forwards come from, if that is another worker.
    pub(super) previous: Option<ConnectionId>,
    pub(super) arrived: VecDeque<(Forward, Vec<u64>)>,
    pub(super) samplings: BTreeMap<MicrobatchId, Sampling>,
    /// False once the plan that replaces it has had a forward.
    pub(super) is_live: bool,
}

/// A forward on its way through the compute thread.
struct Work {
    forward: Forward,
    rows: Vec<u64>,
    sampling: Option<Sampling>,
}

/// See the [module](self).
pub(super) struct Worker {
    /// Counts its processes: what was meant for an earlier one is passed over.
    pub(super) life: u64,
    pub(super) is_alive: bool,
    pub(super) is_frozen: bool,
    /// It beats, and computes nothing.
    pub(super) is_locked: bool,
    /// How many times as long it takes.
    pub(super) slow: u64,
    pub(super) is_leaving: bool,
    connection: Option<ConnectionId>,
    pub(super) plans: BTreeMap<PlanEpoch, Plan>,
    /// Its stages with what they were made for; those of no plan are kept.
    stages: BTreeMap<u64, (StageSpec, ToyStage)>,
    made: u64,
    queue: VecDeque<Work>,
    busy: Option<Work>,
    /// What came while it was frozen.
    inbox: Vec<Event>,
    beats: u64,
    heard: u64,
    pub(super) progress: u64,
    timings: Vec<(PlanEpoch, ForwardTiming)>,
}

impl Worker {
    /// A process of a worker.
    pub(super) fn of_life(life: u64, is_alive: bool) -> Worker {
        Worker {
            life,
            is_alive,
            is_frozen: false,
            is_locked: false,
            slow: 1,
            is_leaving: false,
            connection: None,
            plans: BTreeMap::new(),
            stages: BTreeMap::new(),
            made: 0,
            queue: VecDeque::new(),
            busy: None,
            inbox: Vec::new(),
            beats: 0,
            heard: 0,
            progress: 0,
            timings: Vec::new(),
        }
    }

    /// Whether it would serve well, as far as it is concerned.
    pub(super) fn is_good(&self) -> bool {
        self.is_alive && !self.is_frozen && !self.is_locked && !self.is_leaving && self.slow == 1
    }

    /// A stage of a plan: that of the plan which it replaces, one that is kept, or a new one.
    pub(super) fn stage_for(&mut self, epoch: PlanEpoch) -> u64 {
        let assign = &self.plans[&epoch].assign;
        let spec = assign.stage.clone();
        let same = |key: &u64| self.stages.get(key).is_some_and(|stage| stage.0 == spec);
        let shared = assign.links.replaces.and_then(|old| self.plans.get(&old)?.stage);
        if let Some(shared) = shared.filter(same) {
            return shared;
        }
        let used: Vec<u64> = self.plans.values().filter_map(|plan| plan.stage).collect();
        let kept = self.stages.keys().rev().find(|key| !used.contains(key) && same(key)).copied();
        if let Some(kept) = kept {
            return kept;
        }
        self.made += 1;
        let [CacheLimits::Blocks(blocks)] = spec.caches[..] else { panic!("{spec:?}") };
        let layers = spec.layer_first as usize..spec.layer_end as usize;
        self.stages.insert(self.made, (spec, ToyStage::new(layers, blocks.count)));
        self.made
    }

    fn heartbeat(&mut self) -> Heartbeat {
        self.beats += 1;
        let timings = std::mem::take(&mut self.timings);
        let report = |epoch: &PlanEpoch| PlanReport {
            epoch: *epoch,
            timings: timings
                .iter()
                .filter(|(of, _)| of == epoch)
                .map(|(_, timing)| *timing)
                .collect(),
        };
        Heartbeat {
            number: self.beats,
            echo: self.heard,
            microbatch: self.busy.as_ref().map_or(MicrobatchId(0), |work| work.forward.microbatch),
            progress: self.progress,
            plans: self.plans.keys().map(report).collect(),
            ..Heartbeat::default()
        }
    }
}

impl World {
    pub(super) fn worker(&mut self, id: WorkerId) -> &mut Worker {
        self.workers.get_mut(&id).expect("nobody else is spoken of")
    }

    /// Whether a worker's process takes this in now; if it is frozen, later.
    pub(super) fn takes(&mut self, id: WorkerId, life: u64, event: impl FnOnce() -> Event) -> bool {
        let worker = self.worker(id);
        if !worker.is_alive || worker.life != life {
            return false;
        }
        if worker.is_frozen {
            worker.inbox.push(event());
        }
        !worker.is_frozen
    }

    /// What came while it was frozen is taken in.
    pub(super) fn catch_up(&mut self, id: WorkerId) {
        for event in std::mem::take(&mut self.worker(id).inbox) {
            self.happen(event);
        }
    }

    pub(super) fn connect(&mut self, id: WorkerId, life: u64) {
        if !self.takes(id, life, || Event::Connect(id, life))
            || self.worker(id).connection.is_some()
        {
            return;
        }
        if !self.network.reaches(id.0, COORDINATOR) {
            let pause = self.rng.range(300 * MS, 900 * MS);
            return self.at(self.now + pause, Event::Connect(id, life));
        }
        let connection = self.network.open(id.0, COORDINATOR);
        let worker = self.worker(id);
        (worker.connection, worker.beats, worker.heard) = (Some(connection), 0, 0);
        self.send(connection, id.0, Message::Hello);
        self.at(self.now + BEAT, Event::WorkerBeat(id, life));
    }

    pub(super) fn worker_beats(&mut self, id: WorkerId, life: u64) {
        if !self.takes(id, life, || Event::WorkerBeat(id, life)) {
            return;
        }
        let worker = self.worker(id);
        let Some(connection) = worker.connection else { return };
        let heartbeat = Box::new(worker.heartbeat());
        self.send(connection, id.0, Message::Heartbeat(heartbeat));
        self.at(self.now + BEAT, Event::WorkerBeat(id, life));
    }

    pub(super) fn worker_hears(&mut self, id: WorkerId, from: ConnectionId, message: Message) {
        let life = self.worker(id).life;
        if self.worker(id).is_frozen {
            self.worker(id).inbox.push(Event::Deliver(from, id.0, message));
            return;
        }
        if !self.worker(id).is_alive {
            return;
        }
        match message {
            Message::Closed | Message::Refused => {
                self.close(from, id.0);
                self.worker_loses(id, from);
            }
            Message::Assign(assign) => self.assigned(id, life, *assign),
            Message::Release(epoch) => self.end_plan(id, epoch),
            Message::Beat(number) => self.worker(id).heard = number,
            Message::Forward(forward, rows) => self.forwarded(id, from, forward, rows),
            Message::Sampling(sampling) => {
                let epoch = sampling.epoch;
                if let Some(plan) = self.worker(id).plans.get_mut(&epoch) {
                    plan.samplings.insert(sampling.microbatch, sampling);
                }
                self.advance(id, epoch);
            }
            other => panic!("a worker is told {other:?}"),
        }
    }

    /// One of its connections is gone.
    pub(super) fn worker_loses(&mut self, id: WorkerId, connection: ConnectionId) {
        let worker = self.worker(id);
        if !worker.is_alive {
            return;
        }
        if worker.connection == Some(connection) {
            worker.connection = None;
            if worker.is_leaving {
                return self.leave(id);
            }
            let life = worker.life;
            let plans: Vec<PlanEpoch> = worker.plans.keys().copied().collect();
            plans.into_iter().for_each(|epoch| self.end_plan(id, epoch));
            let pause = self.rng.range(250 * MS, 900 * MS);
            return self.at(self.now + pause, Event::Connect(id, life));
        }
        let of = |plan: &Plan| plan.next == Some(connection) || plan.previous == Some(connection);
        let found = worker.plans.iter().find(|(_, plan)| of(plan));
        let Some((epoch, plan)) = found.map(|(epoch, plan)| (*epoch, plan)) else { return };
        let links = &plan.assign.links;
        let next = links.next.as_ref().map(|next| next.worker);
        let about = if plan.next == Some(connection) { next } else { links.previous };
        self.fail(id, epoch, FaultCode::LinkFailed, about);
    }

    /// A plan has failed, and the coordinator is told.
    pub(super) fn fail(
        &mut self,
        id: WorkerId,
        epoch: PlanEpoch,
        code: FaultCode,
        about: Option<WorkerId>,
    ) {
        self.end_plan(id, epoch);
        let fault =
            FaultMessage { about, ..FaultMessage::new(code, epoch, MicrobatchId(0), "failed") };
        self.say(id, Message::Fault(fault));
    }

    /// Says something to the coordinator.
    pub(super) fn say(&mut self, id: WorkerId, message: Message) {
        if let Some(connection) = self.worker(id).connection {
            self.send(connection, id.0, message);
        }
    }

    /// It was told to end, and says so.
    pub(super) fn terminate(&mut self, id: WorkerId) {
        let worker = self.worker(id);
        worker.is_leaving = true;
        if worker.connection.is_none() || worker.plans.is_empty() {
            return self.leave(id);
        }
        self.say(id, Message::Drain);
    }

    /// It ends in good order, and another process of it comes later.
    pub(super) fn leave(&mut self, id: WorkerId) {
        if let Some(connection) = self.worker(id).connection {
            self.close(connection, id.0);
        }
        let pause = self.rng.range(200 * MS, 4 * SECOND);
        self.end_process(id, pause);
    }

    fn forwarded(&mut self, id: WorkerId, from: ConnectionId, forward: Forward, rows: Vec<u64>) {
        let epoch = forward.epoch;
        let is_own = self.worker(id).connection == Some(from);
        let Some(plan) = self.worker(id).plans.get_mut(&epoch) else {
            let code = FaultCode::WrongEpoch;
            let fault = FaultMessage::new(code, epoch, forward.microbatch, "not live");
            return self.say(id, Message::Fault(fault));
        };
        if !is_own {
            plan.previous = Some(from);
        }
        plan.arrived.push_back((forward, rows));
        self.advance(id, epoch);
    }

    /// Queues what has arrived, at the last stage together with its samplings.
    fn advance(&mut self, id: WorkerId, epoch: PlanEpoch) {
        let worker = self.worker(id);
        let Some(plan) = worker.plans.get_mut(&epoch) else { return };
        while let Some((forward, _)) = plan.arrived.front() {
            let asks = plan.assign.links.is_last() && forward.sample_rows() > 0;
            let sampling = if asks { plan.samplings.remove(&forward.microbatch) } else { None };
            if asks && sampling.is_none() {
                break;
            }
            let (forward, rows) = plan.arrived.pop_front().expect("it is there");
            worker.queue.push_back(Work { forward, rows, sampling });
        }
        self.start(id);
    }

    /// Begins with the next forward, if there is one of a live plan.
    pub(super) fn start(&mut self, id: WorkerId) {
        let took = self.rng.range(500, 6 * MS);
        let worker = self.worker(id);
        if worker.busy.is_some() || worker.is_locked {
            return;
        }
        while let Some(work) = worker.queue.pop_front() {
            let epoch = work.forward.epoch;
            let Some(plan) = worker.plans.get(&epoch).filter(|plan| plan.is_live) else { continue };
            let (stage, replaces) = (plan.stage, plan.assign.links.replaces);
            let old = replaces.and_then(|old| worker.plans.get_mut(&old));
            if let Some(old) = old.filter(|old| old.stage == stage) {
                old.is_live = false;
            }
            let rows = work.rows.len() as u64;
            let at = (took + 20 * rows) * worker.slow;
            worker.busy = Some(work);
            worker.progress += 1;
            let life = worker.life;
            return self.at(self.now + at, Event::Computed(id, life));
        }
    }

    pub(super) fn computed(&mut self, id: WorkerId, life: u64) {
        if !self.takes(id, life, || Event::Computed(id, life)) {
            return;
        }
        let worker = self.worker(id);
        if worker.is_locked {
            // It stays where it is for as long as it is locked.
            return self.at(self.now + 50 * MS, Event::Computed(id, life));
        }
        let Some(work) = worker.busy.take() else { return };
        worker.progress += 1;
        let (epoch, microbatch) = (work.forward.epoch, work.forward.microbatch);
        if let Some(plan) = worker.plans.get(&epoch).filter(|plan| plan.is_live) {
            let stage = plan.stage.expect("it is ready");
            let next = plan.next;
            let (_, toy) = worker.stages.get_mut(&stage).expect("it has it");
            let hidden = toy.forward(&work.forward, &work.rows);
            let timing = ForwardTiming { microbatch, compute_us: 1000, ..ForwardTiming::default() };
            worker.timings.push((epoch, timing));
            match next {
                Some(next) => self.send(next, id.0, Message::Forward(work.forward, hidden)),
                None => {
                    let sampled = toy::sampled(&work.forward, work.sampling.as_ref(), &hidden);
                    self.say(id, Message::Sampled(sampled));
                }
            }
        }
        self.start(id);
    }
}
