//! What is counted while the coordinator runs, and its text for Prometheus: `GET /metrics`.
//!
//! The driver counts what stages report and the scheduler holds, the gateway what clients see. All of
//! it is bounded: one series per stage index, whoever computes it.

mod cluster;
mod failovers;
mod histogram;
mod history;
mod journal;
mod meter;
mod text;
mod ways;

pub use cluster::{Departure, render_snapshot};
pub use histogram::{BOUNDS_US, Histogram};
pub use history::{INTERVAL, Sample};
pub use journal::JournalCounts;
pub use meter::{Meter, Outcome};
pub use ways::{Way, WayStage};

use crate::ids::LaneId;
use crate::status::Counts;
use failovers::Failovers;
use history::{History, Reading};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use woolly_protocol::control::{ForwardTiming, Heartbeat};
use woolly_protocol::limits::STAGES_MAX;

/// Workers whose figures are kept.
const WORKERS_MAX: usize = 1024;

/// All counters of a coordinator, shared by the driver and the gateway.
#[derive(Debug, Default)]
pub struct Metrics {
    driver: Mutex<Driver>,
    /// Completion requests by what became of them, in the order of [`Outcome::ALL`].
    requests: [AtomicU64; Outcome::ALL.len()],
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    /// From a request's arrival to each choice's first token.
    first_token: Histogram,
    /// Between two tokens of a choice.
    between_tokens: Histogram,
    /// Until a grammar says what may come next.
    masks: Histogram,
    failovers: Failovers,
    /// Workers that went, in the order of [`Departure::ALL`].
    departures: [AtomicU64; Departure::ALL.len()],
    /// Until when certificates are valid, in seconds since 1970.
    certificates: Mutex<BTreeMap<&'static str, i64>>,
    history: Mutex<History>,
    /// Of requests that ended.
    ways: ways::Ways,
    /// Of streams that can be continued.
    pub journal: JournalCounts,
}

/// What the driver tells.
#[derive(Debug, Default)]
struct Driver {
    /// By stage, of all plans; at most [`STAGES_MAX`].
    stages: Vec<Stage>,
    /// The stages of each lane's plan by their workers' names and layers.
    present: BTreeMap<LaneId, Vec<(String, Range<u32>)>>,
    /// The models that are loaded, by lane: few, as `MODELS_MAX` of the keeper says.
    lanes: BTreeMap<LaneId, (String, Counts)>,
    /// What workers said last, by name; at most [`WORKERS_MAX`].
    workers: BTreeMap<String, Worker>,
    counts: Counts,
}

/// What a worker has loaded since its start, and whether it hears us.
#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    mappings: u64,
    populated_bytes: u64,
    /// At its last heartbeat.
    unheard: Duration,
}

/// What one stage reported since the coordinator's start.
#[derive(Debug, Default)]
struct Stage {
    cpu_us: u64,
    compute: Histogram,
    wait: Histogram,
    wire: Histogram,
}

impl Metrics {
    /// A forward of a stage. A stage that no plan can have is not counted.
    pub fn forward(&self, stage: usize, timing: &ForwardTiming) {
        if stage >= STAGES_MAX {
            return;
        }
        let mut driver = self.lock();
        while driver.stages.len() <= stage {
            driver.stages.push(Stage::default());
        }
        let stage = &mut driver.stages[stage];
        let time = |us: u32| Duration::from_micros(us.into());
        stage.cpu_us += u64::from(timing.cpu_us);
        stage.compute.observe(time(timing.compute_us));
        stage.wait.observe(time(timing.wait_us));
        stage.wire.observe(time(timing.wire_us));
    }

    /// The stages of the plan that a lane serves from now on, as worker and layers; none if there is
    /// none.
    pub fn plan(&self, lane: LaneId, stages: Vec<(String, Range<u32>)>) {
        self.lock().present.insert(lane, stages);
    }

    /// What a worker says of what it has loaded, and how long it has not shown that it hears us. One
    /// too many takes the place of the first by name.
    pub fn worker(&self, name: &str, heartbeat: &Heartbeat, unheard: Duration) {
        let Heartbeat { mappings, populated_bytes, .. } = *heartbeat;
        let worker = Worker { mappings, populated_bytes, unheard };
        let mut driver = self.lock();
        if let Some(known) = driver.workers.get_mut(name) {
            *known = worker;
            return;
        }
        if driver.workers.len() >= WORKERS_MAX {
            driver.workers.pop_first();
        }
        driver.workers.insert(name.to_owned(), worker);
    }

    /// A lane of this model is there from now on.
    pub fn loaded(&self, lane: LaneId, model: &str) {
        self.lock().lanes.insert(lane, (model.to_owned(), Counts::default()));
    }

    /// What the scheduler of a lane holds.
    pub fn lane(&self, lane: LaneId, counts: Counts) {
        if let Some((_, known)) = self.lock().lanes.get_mut(&lane) {
            *known = counts;
        }
    }

    /// A lane is gone, and its plan with it.
    pub fn unloaded(&self, lane: LaneId) {
        let mut driver = self.lock();
        driver.lanes.remove(&lane);
        driver.present.remove(&lane);
    }

    /// What all schedulers hold.
    pub fn scheduler(&self, counts: Counts) {
        self.lock().counts = counts;
    }

    /// A grammar has said what may come next.
    pub fn mask(&self, took: Duration) {
        self.masks.observe(took);
    }

    /// Completion requests that came to this end.
    pub fn requests(&self, outcome: Outcome) -> u64 {
        self.requests[outcome as usize].load(Relaxed)
    }

    /// Takes a sample of what is counted, for the history; `at_ms` is the time of day.
    pub fn sample(&self, at_ms: u64) {
        let Counts { running, waiting, kv_blocks, kv_blocks_free, .. } = self.lock().counts;
        let reading = Reading {
            tokens: self.completion_tokens.load(Relaxed),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            first_token: self.first_token.counts(),
            running,
            waiting,
            kv_blocks: (kv_blocks.saturating_sub(kv_blocks_free), kv_blocks),
        };
        self.history.lock().expect("no one panics with the lock held").take(at_ms, reading);
    }

    /// The samples of the last quarter of an hour, the oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.history.lock().expect("no one panics with the lock held").samples()
    }

    fn lock(&self) -> MutexGuard<'_, Driver> {
        self.driver.lock().expect("no one panics with the lock held")
    }
}
