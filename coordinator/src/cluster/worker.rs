//! One joined worker: what it said of itself, where it is in its life, and when it was last heard.

use crate::units::show_size;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use woolly_engine::plan::Member;
use woolly_protocol::control::{Heartbeat, Hello};
use woolly_protocol::ids::PlanEpoch;

/// The first back-off after a failure; each further one is twice as long.
const BACKOFF_MIN: Duration = Duration::from_secs(5);
/// The longest back-off. A worker that served for longer than this starts again with the first.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Doublings that reach `BACKOFF_MAX`.
const BACKOFF_DOUBLINGS_MAX: u32 = 4;

/// Measured speeds outside these bounds are a worker's mistake: they are taken for the bound, so
/// that one wrong figure cannot give a worker all layers or none.
const BYTES_PER_S: (u64, u64) = (1 << 20, 1 << 42);
const MACS_PER_S: (u64, u64) = (1 << 20, 1 << 46);

/// How far a worker is with a stage that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StageState {
    /// It has not yet said that it knows.
    Assigned,
    /// It loads it.
    Loading,
    /// It has loaded it.
    Ready,
}

/// A stage that a worker was given.
#[derive(Clone, Copy, Debug)]
struct Held {
    state: StageState,
    /// Bytes that the plan counts on: weights, caches and buffers.
    bytes: u64,
}

/// A joined worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: String,
    /// Where the previous stage dials it.
    pub(super) address: String,
    /// Place in the order of joining.
    pub(super) joined: u64,
    pub(super) joined_at: Duration,
    pub(super) member: Member,
    pub(super) isa: String,
    pub(super) version: String,
    /// Started by `serve`.
    pub(super) is_local: bool,
    /// Its stages, by plan.
    stages: BTreeMap<PlanEpoch, Held>,
    /// Last heartbeat.
    pub(super) heard_at: Duration,
    /// When its progress last moved, or it was last given something to do.
    pub(super) progress_at: Duration,
    /// Its last heartbeat since it was given a stage.
    pub(super) heartbeat: Heartbeat,
    /// The last of our heartbeats that it has seen, and when it first said so.
    echo: (u64, Duration),
    failures: u32,
    /// When it was last placed again at once after a failure.
    forgiven_at: Option<Duration>,
    /// Not placed before this moment.
    pub(super) backoff_until: Duration,
    /// Why it is about to leave, if it is: nothing is placed on it any more.
    pub(super) leaving: Option<String>,
}

impl Worker {
    pub(super) fn new(hello: &Hello, joined: u64, now: Duration) -> Self {
        let clamp = |value: u64, (low, high): (u64, u64)| value.clamp(low, high);
        Self {
            name: hello.name.clone(),
            address: hello.advertise.clone(),
            joined,
            joined_at: now,
            member: Member {
                memory_bytes: hello.memory_bytes,
                memory_is_own: hello.memory_is_own,
                machine: hello.machine,
                kv_memory_bytes: hello.kv_memory_bytes.min(hello.memory_bytes),
                read_bytes_per_s: clamp(hello.read_bytes_per_s, BYTES_PER_S),
                macs_per_s: clamp(hello.macs_per_s, MACS_PER_S),
                threads: hello.threads.max(1),
                weights_from_disk: hello.weights_from_disk,
            },
            isa: hello.isa.clone(),
            version: hello.version.clone(),
            is_local: hello.local,
            stages: BTreeMap::new(),
            heard_at: now,
            progress_at: now,
            heartbeat: Heartbeat::default(),
            echo: (0, now),
            failures: 0,
            forgiven_at: None,
            backoff_until: Duration::ZERO,
            leaving: None,
        }
    }

    /// It was given a stage on which its plan counts so many bytes.
    pub(super) fn assign(&mut self, now: Duration, epoch: PlanEpoch, bytes: u64) {
        self.stages.insert(epoch, Held { state: StageState::Assigned, bytes });
        self.progress_at = now;
        self.heartbeat = Heartbeat::default();
    }

    /// It has loaded a stage.
    pub(super) fn ready(&mut self, now: Duration, epoch: PlanEpoch) {
        if let Some(held) = self.stages.get_mut(&epoch) {
            held.state = StageState::Ready;
        }
        self.progress_at = now;
    }

    /// A plan has ended.
    pub(super) fn release(&mut self, epoch: PlanEpoch) {
        self.stages.remove(&epoch);
    }

    /// Bytes that plans other than `but` count on here.
    pub(super) fn held_bytes(&self, but: Option<PlanEpoch>) -> u64 {
        let others = self.stages.iter().filter(|(epoch, _)| Some(**epoch) != but);
        others.map(|(_, held)| held.bytes).sum()
    }

    /// Whether a plan may count on it.
    pub(super) fn may_be_placed(&self, now: Duration) -> bool {
        self.backoff_until <= now && self.leaving.is_none()
    }

    /// How far it is with the stage of a plan.
    pub(super) fn state(&self, epoch: PlanEpoch) -> Option<StageState> {
        self.stages.get(&epoch).map(|held| held.state)
    }

    /// It says that it lives.
    pub(super) fn hear(&mut self, now: Duration, heartbeat: &Heartbeat) {
        self.heard_at = now;
        if heartbeat.echo > self.echo.0 {
            self.echo = (heartbeat.echo, now);
        }
        let mut planned = false;
        for report in &heartbeat.plans {
            let Some(held) = self.stages.get_mut(&report.epoch) else { continue };
            planned = true;
            if held.state == StageState::Assigned {
                held.state = StageState::Loading;
            }
        }
        if !planned {
            return;
        }
        let signs = |beat: &Heartbeat| {
            (beat.progress, beat.load_done, beat.load_total, beat.forwards, beat.microbatch)
        };
        if signs(heartbeat) != signs(&self.heartbeat) {
            self.progress_at = now;
        }
        self.heartbeat = heartbeat.clone();
    }

    /// We were asleep for so long, and could hear nobody.
    pub(super) fn pardon(&mut self, asleep: Duration) {
        self.heard_at += asleep;
        self.progress_at += asleep;
        self.echo.1 += asleep;
    }

    /// Since when it has not shown that it hears us.
    pub(super) fn echoed_at(&self) -> Duration {
        self.echo.1
    }

    /// It failed: it is not placed for a while. Returns for how long. `served` is how long the plan
    /// had been served.
    pub(super) fn back_off(&mut self, now: Duration, served: Option<Duration>) -> Duration {
        if served.is_some_and(|served| served >= BACKOFF_MAX) {
            self.failures = 0;
        }
        let backoff =
            (BACKOFF_MIN * (1 << self.failures.min(BACKOFF_DOUBLINGS_MAX))).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.backoff_until = now + backoff;
        backoff
    }

    /// Whether it may be placed again at once although it failed: not twice in a short time.
    pub(super) fn forgive(&mut self, now: Duration) -> bool {
        let again = self.forgiven_at.is_some_and(|at| now.saturating_sub(at) < BACKOFF_MAX);
        self.forgiven_at = Some(now);
        !again
    }

    /// Whether it loads a stage.
    pub(super) fn loads(&self) -> bool {
        self.is(&[StageState::Assigned, StageState::Loading])
    }

    /// Whether it was given any stage.
    pub(super) fn has_stage(&self) -> bool {
        !self.stages.is_empty()
    }

    /// Whether one of its stages is in one of these states.
    fn is(&self, states: &[StageState]) -> bool {
        self.stages.values().any(|held| states.contains(&held.state))
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
pub(super) fn check_address(address: &str) -> Result<(), String> {
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
