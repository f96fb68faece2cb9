//! One joined worker: what it said of itself, where it is in its life, and when it was last heard.

use crate::units::show_size;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use woolly_engine::plan::Member;
use woolly_protocol::control::{Heartbeat, Hello};

/// The first rest after a failure; each further one is twice as long.
const REST_MIN: Duration = Duration::from_secs(5);
/// The longest rest. A worker that served for longer than this starts again with the first.
const REST_MAX: Duration = Duration::from_secs(60);
/// Rest doublings that reach `REST_MAX`.
const REST_DOUBLINGS_MAX: u32 = 4;

/// Measured speeds outside these bounds are a worker's mistake: they are taken for the bound, so
/// that one wrong figure cannot give a worker all layers or none.
const BYTES_PER_S: (u64, u64) = (1 << 20, 1 << 42);
const MACS_PER_S: (u64, u64) = (1 << 20, 1 << 46);

/// Where a worker is in its life. A lost one is not known any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerState {
    /// Waits for a stage.
    Joined,
    /// Was given a stage and has not yet said that it knows.
    Assigned,
    /// Loads it.
    Loading,
    /// Has loaded it.
    Ready,
}

/// A joined worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: String,
    /// Where the previous stage dials it.
    pub(super) address: String,
    /// Place in the order of joining.
    pub(super) joined: u64,
    pub(super) member: Member,
    pub(super) state: WorkerState,
    isa: String,
    /// Last heartbeat.
    pub(super) heard_at: Duration,
    /// When its progress last moved, or it was last given something to do.
    pub(super) progress_at: Duration,
    /// Its last heartbeat in the present plan.
    pub(super) heartbeat: Heartbeat,
    failures: u32,
    /// When it was last placed again at once after a failure.
    forgiven_at: Option<Duration>,
    /// Not placed before this moment.
    pub(super) rest_until: Duration,
}

impl Worker {
    pub(super) fn new(hello: &Hello, joined: u64, now: Duration) -> Self {
        let clamp = |value: u64, (low, high): (u64, u64)| value.clamp(low, high);
        Self {
            name: hello.name.clone(),
            address: hello.advertise.clone(),
            joined,
            member: Member {
                memory_bytes: hello.memory_bytes,
                memory_is_own: hello.memory_is_own,
                machine: hello.machine,
                kv_memory_bytes: hello.kv_memory_bytes.min(hello.memory_bytes),
                read_bytes_per_s: clamp(hello.read_bytes_per_s, BYTES_PER_S),
                macs_per_s: clamp(hello.macs_per_s, MACS_PER_S),
                threads: hello.threads.max(1),
            },
            state: WorkerState::Joined,
            isa: hello.isa.clone(),
            heard_at: now,
            progress_at: now,
            heartbeat: Heartbeat::default(),
            failures: 0,
            forgiven_at: None,
            rest_until: Duration::ZERO,
        }
    }

    /// It was given a stage.
    pub(super) fn assign(&mut self, now: Duration) {
        self.state = WorkerState::Assigned;
        self.progress_at = now;
        self.heartbeat = Heartbeat::default();
    }

    /// It says that it lives; `planned` if it speaks of the plan in force.
    pub(super) fn hear(&mut self, now: Duration, heartbeat: &Heartbeat, planned: bool) {
        self.heard_at = now;
        if !planned {
            return;
        }
        if self.state == WorkerState::Assigned {
            self.state = WorkerState::Loading;
        }
        let signs = |beat: &Heartbeat| {
            (beat.progress, beat.load_done, beat.load_total, beat.forwards, beat.microbatch)
        };
        if signs(heartbeat) != signs(&self.heartbeat) {
            self.progress_at = now;
        }
        self.heartbeat = heartbeat.clone();
    }

    /// It failed: it is not placed for a while. Returns for how long. `served` is how long the plan
    /// had been served.
    pub(super) fn rest(&mut self, now: Duration, served: Option<Duration>) -> Duration {
        if served.is_some_and(|served| served >= REST_MAX) {
            self.failures = 0;
        }
        let rest = (REST_MIN * (1 << self.failures.min(REST_DOUBLINGS_MAX))).min(REST_MAX);
        self.failures = self.failures.saturating_add(1);
        self.rest_until = now + rest;
        rest
    }

    /// Whether it may be placed again at once although it failed: not twice in a short time.
    pub(super) fn forgive(&mut self, now: Duration) -> bool {
        let again = self.forgiven_at.is_some_and(|at| now.saturating_sub(at) < REST_MAX);
        self.forgiven_at = Some(now);
        !again
    }

    /// Whether it computes a microbatch.
    pub(super) fn computes(&self) -> bool {
        self.state == WorkerState::Ready && self.heartbeat.microbatch.0 != 0
    }

    /// Whether it loads its stage.
    pub(super) fn loads(&self) -> bool {
        matches!(self.state, WorkerState::Assigned | WorkerState::Loading)
    }
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, address, member, isa, .. } = self;
        let memory = show_size(member.memory_bytes);
        write!(f, "{name} ({address}, {} threads, {isa}, {memory})", member.threads)
    }
}

/// Whether neighbours can dial this address.
pub(super) fn vet_address(address: &str) -> Result<(), String> {
    let dialable = address
        .parse::<SocketAddr>()
        .is_ok_and(|address| !address.ip().is_unspecified() && address.port() != 0);
    if dialable {
        return Ok(());
    }
    Err(format!(
        "the address {address:?} cannot be dialled by other workers: expected IP:PORT of one \
         interface; give it with --advertise"
    ))
}

/// What a peer wrote, fit for one line of a terminal.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
