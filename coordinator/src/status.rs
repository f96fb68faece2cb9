//! What is known of the server at one moment, for people, probes and metrics.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use woolly_protocol::ids::PlanEpoch;

/// What is left to do, of all models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// The server is going down: no new generations.
    pub stopping: bool,
    /// Generations that wait or run.
    pub generations: usize,
}

/// How a model stands: what `/readyz`, `/health` and the terminal show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// All stages are ready.
    pub ready: bool,
    /// The server is going down.
    pub stopping: bool,
    /// One line for people: what is being waited for, or what is served.
    pub detail: String,
    /// The stages of the plan.
    pub stages: Vec<StageStatus>,
    /// KV capacity in tokens; 0 without a plan.
    pub kv_tokens: u64,
    /// The longest sequence; 0 without a plan.
    pub ctx_size: u32,
    /// Sequences waiting and running.
    pub waiting: usize,
    /// See `waiting`.
    pub running: usize,
    /// KV blocks free and in all, of all cache groups.
    pub kv_blocks_free: u32,
    /// See `kv_blocks_free`.
    pub kv_blocks: u32,
    /// Sequences that gave their blocks to older ones, since the start.
    pub preemptions: u64,
    /// How the KV cache holds its values, `f16` or `q8_0`; empty without a plan.
    pub kv_type: &'static str,
    /// How far the stages of the plan are loaded, 0 to 100; 0 without a plan.
    pub loaded_percent: u8,
}

impl Status {
    /// Brings what the scheduler knows up to date; whether any of it had changed.
    pub fn update_counts(&mut self, counts: &Counts) -> bool {
        let Counts { waiting, running, kv_blocks_free, preemptions, .. } = *counts;
        let before = (self.waiting, self.running, self.kv_blocks_free, self.preemptions);
        let now = (waiting, running, kv_blocks_free, preemptions);
        (self.waiting, self.running, self.kv_blocks_free, self.preemptions) = now;
        before != now
    }

    /// Takes over what the scheduler knew before.
    pub fn take_counts(&mut self, before: &Status) {
        self.waiting = before.waiting;
        self.running = before.running;
        self.kv_blocks_free = before.kv_blocks_free;
        self.preemptions = before.preemptions;
    }
}

impl Status {
    /// What is said of all models together: the one there is, as it is; of several, that one is ready, and
    /// what they hold in all. What belongs to a plan is then left out: each model has its own.
    pub fn of_all<'a>(models: impl IntoIterator<Item = &'a Status>, stopping: bool) -> Status {
        let all: Vec<&Status> = models.into_iter().collect();
        let mut status = match all[..] {
            [] => Status { detail: "no model is loaded".to_owned(), ..Status::default() },
            [one] => one.clone(),
            _ => {
                let ready = all.iter().filter(|status| status.ready).count();
                let detail = format!("{ready} of {} models are ready", all.len());
                let mut sum = Status { ready: ready > 0, detail, ..Status::default() };
                for status in &all {
                    sum.waiting += status.waiting;
                    sum.running += status.running;
                    sum.preemptions += status.preemptions;
                }
                sum
            }
        };
        if stopping || all.iter().any(|status| status.stopping) {
            status.ready = false;
            status.stopping = true;
            status.detail = "shutting down".to_owned();
        }
        status
    }
}

/// One stage of the plan, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct StageStatus {
    /// Its worker's name.
    pub worker: String,
    /// Its worker's id in hex.
    pub worker_id: String,
    /// First layer.
    pub layer_first: u32,
    /// One past the last layer.
    pub layer_end: u32,
    /// Bytes of the model mapped.
    pub mapped_bytes: u64,
    /// KV blocks, of all cache groups.
    pub kv_blocks: u32,
    /// Loaded and linked.
    pub ready: bool,
}

/// What the plans of all models take of a worker's memory, as they count on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerMemory {
    /// The worker's name.
    pub worker: String,
    /// Its id in hex.
    pub worker_id: String,
    /// Bytes that it may use in all; of its machine's memory if it shares that with other workers.
    pub allowance: u64,
    /// What is left of them, for whatever comes next.
    pub free: u64,
    /// What each model holds, in the order of loading. Several workers of one machine show each what it holds
    /// itself.
    pub models: Vec<Holding>,
}

/// What a model's plans take of a worker's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The model's name.
    pub model: String,
    /// Bytes of weights in memory.
    pub weights: u64,
    /// Bytes of its KV cache.
    pub kv: u64,
    /// Bytes of buffers to compute in.
    pub scratch: u64,
}

/// Something that a failover took, for metrics and for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// From the end of a plan to the next that was served.
    Plan(Duration),
    /// The first of those that had been computing has gone on; or there is none that had to.
    Failover(Failover),
    /// From the start of a plan until all that had been computing had gone on, and how long their logs were in
    /// tokens.
    Replay {
        /// The plan.
        epoch: PlanEpoch,
        /// The time.
        took: Duration,
        /// The tokens.
        tokens: u64,
    },
    /// From a stream's last token before to its first after.
    Stream(Duration),
}

/// A failover, as far as it is known when the first stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// The plan that is served now.
    pub epoch: PlanEpoch,
    /// Sequences whose logs are computed again before they go on.
    pub sequences: usize,
    /// The tokens of these logs.
    pub tokens: u64,
    /// From the end of the plan that was lost last to this one.
    pub search: Duration,
    /// From the first loss to the first token of a stream after it; `None` if none had to go on, or none did.
    pub first_token: Option<Duration>,
}

/// What the scheduler holds at one moment, for the status and for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequences that wait, preempted ones included.
    pub waiting: usize,
    /// Those among them that were preempted.
    pub waiting_preempted: usize,
    /// Sequences that run.
    pub running: usize,
    /// Those among them that compute a prompt, or a log again.
    pub prefilling: usize,
    /// Sequences that have ended or are to wait, and have something in flight.
    pub leaving: usize,
    /// Microbatches in flight.
    pub in_flight: usize,
    /// When the oldest microbatch in flight was sent.
    pub in_flight_since: Option<Duration>,
    /// When the sequence that waits longest arrived.
    pub waiting_since: Option<Duration>,
    /// KV blocks of all cache groups that nobody holds; 0 without a plan.
    pub kv_blocks_free: u32,
    /// Those among them that the prefix cache keeps until they are needed.
    pub kv_blocks_cached: u32,
    /// KV blocks of all cache groups in all; 0 without a plan.
    pub kv_blocks: u32,
    /// Sequences preempted since the start.
    pub preemptions: u64,
    /// Extents that the prefix cache gave up for others since the plan began.
    pub evictions: u64,
    /// Positions that were found in the prefix cache since the start.
    pub prefix_hit_tokens: u64,
    /// Prompt tokens of all requests since the start.
    pub prompt_tokens: u64,
    /// Requests that ran out of time since the start.
    pub expired: u64,
    /// Plans that were lost since the start.
    pub failovers: u64,
    /// Positions that had been computed under plans that ended, since the start.
    pub recomputed_tokens: u64,
    /// Answers to an earlier plan that were dropped since the start.
    pub stale_answers: u64,
    /// Faults that workers said of a plan that was over, since the start.
    pub stale_faults: u64,
    /// Reports of stages that belong to nothing that is remembered, since the start.
    pub unknown_timings: u64,
    /// Groups in which the decoding sequences travelled last; 0 before any did.
    pub decode_groups: usize,
    /// Rows that a microbatch with prefill could have beside decodes last; 0 before any had.
    pub rows_beside_decode: usize,
    /// Rows sent since the start.
    pub rows: u64,
    /// Bytes of the token masks that went with them, since the start.
    pub mask_bytes: u64,
}

impl Counts {
    /// What stays true when its lane is gone: what was counted since the start.
    pub fn since_the_start(self) -> Counts {
        Counts {
            preemptions: self.preemptions,
            prefix_hit_tokens: self.prefix_hit_tokens,
            prompt_tokens: self.prompt_tokens,
            expired: self.expired,
            failovers: self.failovers,
            recomputed_tokens: self.recomputed_tokens,
            stale_answers: self.stale_answers,
            unknown_timings: self.unknown_timings,
            rows: self.rows,
            mask_bytes: self.mask_bytes,
            ..Counts::default()
        }
    }

    /// What two schedulers hold together; of two times the earlier one.
    pub fn plus(self, other: Counts) -> Counts {
        let earlier = |a: Option<Duration>, b: Option<Duration>| a.into_iter().chain(b).min();
        Counts {
            waiting: self.waiting + other.waiting,
            waiting_preempted: self.waiting_preempted + other.waiting_preempted,
            running: self.running + other.running,
            prefilling: self.prefilling + other.prefilling,
            leaving: self.leaving + other.leaving,
            in_flight: self.in_flight + other.in_flight,
            in_flight_since: earlier(self.in_flight_since, other.in_flight_since),
            waiting_since: earlier(self.waiting_since, other.waiting_since),
            kv_blocks_free: self.kv_blocks_free + other.kv_blocks_free,
            kv_blocks_cached: self.kv_blocks_cached + other.kv_blocks_cached,
            kv_blocks: self.kv_blocks + other.kv_blocks,
            preemptions: self.preemptions + other.preemptions,
            evictions: self.evictions + other.evictions,
            prefix_hit_tokens: self.prefix_hit_tokens + other.prefix_hit_tokens,
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            expired: self.expired + other.expired,
            failovers: self.failovers + other.failovers,
            recomputed_tokens: self.recomputed_tokens + other.recomputed_tokens,
            stale_answers: self.stale_answers + other.stale_answers,
            stale_faults: self.stale_faults + other.stale_faults,
            unknown_timings: self.unknown_timings + other.unknown_timings,
            decode_groups: self.decode_groups + other.decode_groups,
            rows_beside_decode: self.rows_beside_decode + other.rows_beside_decode,
            rows: self.rows + other.rows,
            mask_bytes: self.mask_bytes + other.mask_bytes,
        }
    }
}
