//! A whole cluster in virtual time: scheduler, cluster core, workers and links, with faults drawn from a seed.
//!
//! Both state machines are the real ones, driven as the driver does it (`shell.rs`). Workers compute the toy
//! model (`scheduler/tests/toy.rs`): a token is a hash of everything that its sequence has computed so far, so
//! that a step that is lost, doubled, stale or misplaced changes the tokens after it. Links keep their order,
//! hold what is sent while they are cut, and end after two seconds of silence, as QUIC does.
//!
//! ```text
//! clients ─► shell: Scheduler, Cluster ─► network ─► worker 1 ─► network ─► worker 2 ─► …
//!              ▲                                                                │
//!              └──────────────────────────── network ◄──────────────────────────┘
//! ```
//!
//! What is promised (`docs/failure.md`) is asserted of every history: each request ends with what it would
//! have got alone; nobody is lost while there are workers; a plan whose worker is gone ends in time; nothing
//! is held at the end. One number reproduces a history.

mod clients;
mod faults;
mod loading;
mod network;
mod shell;
mod tests;
mod worker;

use crate::scheduler::tests::rng::{Rng, mix};
use clients::Clients;
use faults::Fault;
use network::{ConnectionId, Network, Node};
use shell::Shell;
use std::collections::BTreeMap;
use std::time::Duration;
use woolly_protocol::control::{Assign, Heartbeat, Ready};
use woolly_protocol::fault::FaultMessage;
use woolly_protocol::forward::Forward;
use woolly_protocol::ids::{PlanEpoch, WorkerId};
use woolly_protocol::sampling::{Sampled, Sampling};
use worker::Worker;

/// Microseconds.
type Time = u64;

/// The coordinator's place in the network; workers have their ids.
const COORDINATOR: Node = 0;
const MS: Time = 1_000;
const SECOND: Time = 1_000_000;
/// Both sides send one so often.
const BEAT: Time = 500 * MS;
/// A history that takes more events is stuck: so many, and so many for each request.
const EVENTS_MAX: usize = 4_000_000;
const EVENTS_PER_REQUEST_MAX: usize = 2_000;

/// What is said on a connection.
#[derive(Debug)]
enum Message {
    Hello,
    Refused,
    Assign(Box<Assign>),
    Release(PlanEpoch),
    Ready(Ready),
    Heartbeat(Box<Heartbeat>),
    /// The coordinator's number; what it saw of the worker's is of no use to it.
    Beat(u64),
    Fault(FaultMessage),
    Drain,
    Forward(Forward, Vec<u64>),
    Sampling(Sampling),
    Sampled(Sampled),
    /// The other side closed the connection.
    Closed,
}

/// What happens at a moment.
#[derive(Debug)]
enum Event {
    Arrival(usize),
    Cancel(usize),
    Deliver(ConnectionId, Node, Message),
    /// An end of a connection has heard nothing for the idle time-out, if that is still so.
    Idle(ConnectionId, Node, Time),
    /// The coordinator's probe of a process's port was refused twice.
    Gone(ConnectionId),
    Connect(WorkerId, u64),
    Dial(WorkerId, u64, PlanEpoch, Time),
    Loaded(WorkerId, u64, PlanEpoch),
    Computed(WorkerId, u64),
    WorkerBeat(WorkerId, u64),
    CoordinatorBeat,
    Fault(Fault),
    Restart(WorkerId),
    /// The state machines wanted to be called.
    Timer,
    /// By now a plan of this number must have ended.
    MustBeOver(PlanEpoch, &'static str),
}

/// What a history is made of.
#[derive(Clone, Copy, Debug)]
struct Scale {
    workers: u64,
    /// Workers that the first plan waits for.
    wanted: u32,
    requests: u64,
    /// In which they arrive.
    arrivals: Time,
    faults: u64,
    /// In which those happen; after each of them, if it is large.
    faulty: Time,
    running_max: usize,
    /// Positions of a sequence.
    ctx_size: u32,
    /// Bytes for caches that each worker gives; 0 leaves it to the planner.
    kv_memory: u64,
    /// Many short requests, and nothing goes wrong but that a stage's worker is killed now and then.
    is_large: bool,
}

/// What histories have met, to know that they meet everything.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    faults: u64,
    failovers: u64,
    recomputed: u64,
    hand_overs: u64,
    tokens: u64,
    cancelled: u64,
    lost: u64,
    stale: u64,
    shrunk: u64,
}

/// See the [module](self).
struct World {
    rng: Rng,
    now: Time,
    order: u64,
    agenda: BTreeMap<(Time, u64), Event>,
    network: Network,
    shell: Shell,
    workers: BTreeMap<WorkerId, Worker>,
    clients: Clients,
    met: Met,
}

impl World {
    fn new(seed: u64, scale: Scale) -> World {
        let mut rng = Rng(mix(seed));
        let clients = Clients::draw(&mut rng, scale);
        let mut world = World {
            now: 0,
            order: 0,
            agenda: BTreeMap::new(),
            network: Network::new(rng.next()),
            shell: Shell::new(scale),
            workers: BTreeMap::new(),
            clients,
            met: Met::default(),
            rng,
        };
        for id in 1..=scale.workers {
            world.workers.insert(WorkerId(id), Worker::of_life(0, true));
            let at = world.rng.range(0, 100 * MS);
            world.at(at, Event::Connect(WorkerId(id), 0));
        }
        world.at(BEAT, Event::CoordinatorBeat);
        for index in 0..world.clients.len() {
            let (at, leaves) = world.clients.times(index);
            world.at(at, Event::Arrival(index));
            if let Some(at) = leaves {
                world.at(at, Event::Cancel(index));
            }
        }
        for (at, fault) in Fault::draw(&mut world.rng, scale) {
            world.at(at, Event::Fault(fault));
        }
        world
    }

    fn at(&mut self, time: Time, event: Event) {
        self.order += 1;
        self.agenda.insert((time, self.order), event);
    }

    fn clock(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    /// Runs until every client has its end; panics if that does not come.
    fn run(&mut self) {
        let most = EVENTS_MAX + EVENTS_PER_REQUEST_MAX * self.clients.len();
        for _ in 0..most {
            let Some(((time, _), event)) = self.agenda.pop_first() else {
                panic!("nothing more happens: {}", self.state());
            };
            self.now = time;
            self.happen(event);
            self.settle();
            if self.clients.are_done() && self.faults_are_over() {
                return;
            }
        }
        panic!("still busy after {most} events, at {:?}: {}", self.clock(), self.state());
    }

    fn faults_are_over(&self) -> bool {
        !self.agenda.values().any(|event| matches!(event, Event::Fault(_) | Event::Restart(_)))
    }

    fn state(&self) -> String {
        format!("{:?}\n{:?}", self.shell.status(), self.shell.scheduler.counts())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival(index) => self.arrive(index),
            Event::Cancel(index) => self.cancel(index),
            Event::Deliver(connection, to, message) => self.deliver(connection, to, message),
            Event::Idle(connection, end, since) => self.idle(connection, end, since),
            Event::Gone(connection) => self.gone(connection),
            Event::Connect(id, life) => self.connect(id, life),
            Event::Dial(id, life, epoch, until) => self.dial(id, life, epoch, until),
            Event::Loaded(id, life, epoch) => self.loaded(id, life, epoch),
            Event::Computed(id, life) => self.computed(id, life),
            Event::WorkerBeat(id, life) => self.worker_beats(id, life),
            Event::CoordinatorBeat => self.coordinator_beats(),
            Event::Fault(fault) => self.fault(fault),
            Event::Restart(id) => self.restart(id),
            Event::Timer => self.timer(),
            Event::MustBeOver(epoch, why) => {
                assert_ne!(self.shell.served(), Some(epoch), "{why}: plan {epoch} is still served");
            }
        }
    }

    fn deliver(&mut self, connection: ConnectionId, to: Node, message: Message) {
        let Some(from) = self.network.peer(connection, to) else { return };
        if self.network.is_cut(from, to) {
            // It is sent again when the way is free.
            self.network.hold(connection, from, to, message);
        } else if to == COORDINATOR {
            self.coordinator_hears(connection, message);
        } else {
            self.worker_hears(WorkerId(to), connection, message);
        }
    }

    /// Says something on a connection, if this end of it is open.
    fn send(&mut self, connection: ConnectionId, from: Node, message: Message) {
        if let Some((at, to)) = self.network.send(self.now, connection, from) {
            self.at(at, Event::Deliver(connection, to, message));
        }
    }
}

/// A history to its end, and all that is promised of it.
fn history(seed: u64, scale: Scale) -> Met {
    let mut world = World::new(seed, scale);
    world.run();
    world.judge();
    world.met
}
