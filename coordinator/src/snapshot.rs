//! All that is known of the cluster at one moment: what `GET /admin/v1/cluster` answers and `status` shows.
//!
//! Plain values, made by those who know them: the cluster core its workers and plans, each lane its sequences
//! and stages' times, the links their round trips. What is not known is left out. `docs/operating.md` has every
//! field. Times are milliseconds, sizes bytes, but where the name says otherwise.

use crate::status::Holding;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// Workers that were lost and are still shown; those that were lost longest ago go first.
pub const LOST_MAX: usize = 64;
/// Events that are shown.
pub const EVENTS_SHOWN: usize = 32;

/// A cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The coordinator's version.
    pub version: String,
    /// The order of operations of the cluster.
    pub numerics: u32,
    /// How long the coordinator has been running.
    pub up_ms: u64,
    /// Those that are here, in order of joining, then those that were lost, the last one first.
    pub workers: Vec<WorkerSnapshot>,
    /// Workers whose certificates were taken back, the last one first; at most [`LOST_MAX`].
    #[serde(default)]
    pub removed: Vec<RemovedSnapshot>,
    /// Names and machines that are banned.
    #[serde(default)]
    pub bans: Vec<BanSnapshot>,
    /// In the order of loading.
    pub models: Vec<ModelSnapshot>,
    /// The last events as `/admin/v1/events` tells them, the oldest first; at most [`EVENTS_SHOWN`].
    pub events: Vec<Value>,
}

/// A worker whose certificate was taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemovedSnapshot {
    /// Its name; empty if that was not known.
    pub worker: String,
    /// Its id in hex.
    pub worker_id: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A name and a machine that are banned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BanSnapshot {
    /// The name.
    pub name: String,
    /// Names the machine in hex, also after it was booted again; `None` if the name alone is banned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The ids of workers of that name or machine which were known then.
    pub worker_ids: Vec<String>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What a worker does. The first that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It is known no more.
    Lost,
    /// It has said that it leaves, and keeps its stages until others have them.
    Leaving,
    /// It is not heard, or does not hear the coordinator, and will soon count as lost.
    Unreachable,
    /// It holds a stage of a plan that is served.
    Serving,
    /// It loads a stage, or waits for the others of its plan.
    Loading,
    /// It failed, and is not placed for a while.
    BackingOff,
    /// It has no stage, and may be given one.
    Spare,
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            WorkerState::Lost => "lost",
            WorkerState::Leaving => "leaving",
            WorkerState::Unreachable => "unreachable",
            WorkerState::Serving => "serving",
            WorkerState::Loading => "loading",
            WorkerState::BackingOff => "backing off",
            WorkerState::Spare => "spare",
        })
    }
}

/// A worker, here or lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerSnapshot {
    /// Its name.
    pub worker: String,
    /// Its id in hex.
    pub worker_id: String,
    /// Names its machine, in hex: those of one machine have the same.
    pub machine: String,
    /// Where its neighbours dial it.
    pub address: String,
    /// What it does.
    pub state: WorkerState,
    /// Why it leaves or was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it is still not placed, if it backs off; it may serve another model meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_ms: Option<u64>,
    /// Its program's version.
    pub version: String,
    /// The instructions that it computes with.
    pub isa: String,
    /// Whether `serve` started it.
    pub local: bool,
    /// Compute threads.
    pub threads: u32,
    /// Read bandwidth that it measured when it joined.
    pub read_bytes_per_s: u64,
    /// Multiply-adds that it measured when it joined.
    pub macs_per_s: u64,
    /// What it has of memory; `None` of one that was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySnapshot>,
    /// How it is heard; `None` of one that was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<HeardSnapshot>,
    /// How long ago it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_ms_ago: Option<u64>,
    /// How far its clock was ahead of the coordinator's when it joined, if that was more than five minutes; less
    /// than 0 if it was behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
}

/// The memory of a worker that is here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemorySnapshot {
    /// Bytes that it may use in all; of its machine's memory if that is not its own.
    pub allowance: u64,
    /// What is left of them.
    pub free: u64,
    /// Whether no other worker of its machine takes of it.
    pub is_own: bool,
    /// What caches may take of it, if it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_memory: Option<u64>,
    /// What plans count on, by model.
    pub models: Vec<Holding>,
}

/// How a worker that is here is heard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeardSnapshot {
    /// Since it joined.
    pub joined_ms_ago: u64,
    /// Since its last heartbeat.
    pub heartbeat_ms_ago: u64,
    /// Since it last showed that it hears the coordinator.
    pub hears_ms_ago: u64,
    /// The round trip to it and back, in microseconds, as its connection measures it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
}

/// A model that is loaded or being loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelSnapshot {
    /// The name that lists show.
    pub model: String,
    /// `loading`, `ready`, `waiting` or `unloading`, as in `/admin/v1/models`.
    pub state: String,
    /// What is waited for, or served.
    pub detail: String,
    /// What its layers are cut for; `None` where the cut was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// Positions of a sequence.
    pub ctx_size: u32,
    /// How the KV cache holds its values.
    pub kv_type: String,
    /// Sequences that run.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// Microbatches sent and not yet answered.
    pub in_flight: usize,
    /// Sequences that gave their blocks to older ones, since the model was loaded.
    pub preemptions: u64,
    /// Plans that were lost, since the model was loaded.
    pub failovers: u64,
    /// KV blocks of the plan that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_blocks: Option<u32>,
    /// Those that nobody holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_blocks_free: Option<u32>,
    /// Those among the free ones that hold beginnings which may be shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_blocks_cached: Option<u32>,
    /// The plan in force, loading or served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanSnapshot>,
    /// The one that is to take over from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<PlanSnapshot>,
}

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanSnapshot {
    /// Its number.
    pub plan: u32,
    /// Why it was made.
    pub reason: String,
    /// For how long it has been served; `None` before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_ms: Option<u64>,
    /// By stage.
    pub stages: Vec<StageSnapshot>,
}

/// A stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageSnapshot {
    /// Its worker's name.
    pub worker: String,
    /// Its worker's id in hex.
    pub worker_id: String,
    /// First layer.
    pub layer_first: u32,
    /// One past the last layer.
    pub layer_end: u32,
    /// Bytes of weights in memory.
    pub weights: u64,
    /// Bytes of weights that stay on the disk.
    pub disk: u64,
    /// Bytes of its KV cache.
    pub kv: u64,
    /// Bytes of buffers to compute in.
    pub scratch: u64,
    /// How far it is loaded; 100 if it is ready.
    pub loaded_percent: u8,
    /// Bytes of the model that its worker says it has mapped, once it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<u64>,
    /// What the planner expects one token of one stream to take, in microseconds.
    pub predicted_us: u64,
    /// What it did lately, if its plan is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent: Option<RecentSnapshot>,
}

/// What a stage did lately, as its worker said with its heartbeats.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecentSnapshot {
    /// For how long back.
    pub window_ms: u64,
    /// Forwards that it computed.
    pub forwards: u64,
    /// The part of that time in which it computed.
    pub busy_percent: u8,
    /// The means of a forward; `None` without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<MeanSnapshot>,
}

/// What a forward took in the mean, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeanSnapshot {
    /// Computing, with the head and the sampling at the last stage.
    pub compute_us: u64,
    /// CPU time of the compute thread in that.
    pub cpu_us: u64,
    /// Waiting for its input.
    pub wait_us: u64,
    /// Until its result was handed to the connection.
    pub wire_us: u64,
}

#[cfg(test)]
impl WorkerSnapshot {
    /// One of which nothing else is known.
    pub(crate) fn named(name: &str, worker_id: String, state: WorkerState) -> Self {
        Self {
            worker: name.to_owned(),
            worker_id,
            machine: String::new(),
            address: String::new(),
            state,
            reason: None,
            backoff_ms: None,
            version: String::new(),
            isa: String::new(),
            local: false,
            threads: 1,
            read_bytes_per_s: 1,
            macs_per_s: 1,
            memory: None,
            heard: None,
            lost_ms_ago: None,
            clock_ahead_ms: None,
        }
    }
}
