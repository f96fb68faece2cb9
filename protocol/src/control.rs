//! Messages of the control stream between the coordinator and one worker.

use crate::check::{Check, MessageError};
use crate::forward::CacheLimits;
use crate::frame::Message;
use crate::ids::{MicrobatchId, PlanEpoch, WorkerId};
use crate::kind::Kind;
use crate::limits::{
    CACHE_GROUPS_MAX, CAPACITY_MAX, CTX_MAX, FORWARD_PAYLOAD_MAX, HEARTBEAT_MS_MAX,
    HEARTBEAT_TIMINGS_MAX, HIDDEN_MAX, IN_FLIGHT_MAX, LAYERS_MAX, LIVE_PLANS_MAX, NAME_MAX,
    PARTS_MAX, PATH_MAX, ROWS_PER_MICROBATCH_MAX, STAGES_MAX, THREADS_MAX,
};
use rkyv::{Archive, Deserialize, Serialize};

/// The worker's first message: what it is and what it measured. Its id is in its certificate.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Hello {
    /// A name for people: the host name, `[A-Za-z0-9._-]`, at most 64 bytes.
    pub name: String,
    /// The same for all workers of one machine (hash of the system's machine id and boot id).
    pub machine: [u8; 16],
    /// `IP:port` where the previous stage reaches this worker.
    pub advertise: String,
    /// Version of the order of operations; equal throughout a plan.
    pub numerics: u32,
    /// Compute threads.
    pub threads: u32,
    /// Bytes that this worker may use in all (80 % of the machine's, or `--memory`). Workers of
    /// one machine without `--memory` share the machine's allowance.
    pub memory_bytes: u64,
    /// Whether `memory_bytes` was given by `--memory` and so is this worker's alone.
    pub memory_is_own: bool,
    /// `--kv-memory` in bytes; 0 if not given.
    pub kv_memory_bytes: u64,
    /// Measured read bandwidth, bytes per second.
    pub read_bytes_per_s: u64,
    /// Measured multiply-adds per second of the matmul kernel.
    pub macs_per_s: u64,
    /// The instruction set level in use, for people.
    pub isa: String,
    /// The program's version, for people.
    pub version: String,
    /// Started by `serve` as its child (counts in the order of joining all the same).
    pub local: bool,
    /// Whether its weights need not fit `memory_bytes`: what does not is read from its disk when it is needed.
    pub weights_from_disk: bool,
    /// As in `JoinRequest::host`.
    pub host: [u8; 16],
    /// Its time of day, in milliseconds since 1970.
    pub time_ms: u64,
}

/// The coordinator's answer to `Hello`.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Welcome {
    /// Names the cluster; equal to the one in the certificates.
    pub cluster: [u8; 16],
    /// How often each side sends a heartbeat.
    pub heartbeat_ms: u32,
}

/// One file of the model, as the coordinator sees it.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct ModelPart {
    /// File name without folders.
    pub file_name: String,
    /// Its absolute path on the coordinator's machine: a hint for workers of the same machine.
    pub path: String,
    /// Bytes of the file.
    pub size: u64,
    /// Device, inode, mtime (ns) and ctime (ns) on the coordinator's machine: equal means same
    /// file.
    pub stat: [u64; 4],
}

/// The coordinator gives a worker a stage of a plan, beside those that it has. Answered by `Ready` or a
/// `FaultMessage`.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Assign {
    /// Where the model's files are.
    pub source: ModelSource,
    /// What to hold. A worker that holds it already loads nothing.
    pub stage: StageSpec,
    /// Under which plan, and who the neighbours are.
    pub links: PlanLinks,
}

/// The files of a model, as the coordinator sees them.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct ModelSource {
    /// The coordinator's machine id, as in `Hello::machine`.
    pub machine: [u8; 16],
    /// The files, in order.
    pub parts: Vec<ModelPart>,
}

/// What a stage holds, whatever plan it serves: its weights, its caches and its buffers.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct StageSpec {
    /// The model: BLAKE3 root over the 1 MiB chunks of all its files.
    pub fingerprint: [u8; 32],
    /// First layer of the stage.
    pub layer_first: u32,
    /// One past the last layer.
    pub layer_end: u32,
    /// Positions of a sequence at most.
    pub ctx_size: u32,
    /// The model's cache groups, the same on every stage.
    pub caches: Vec<CacheLimits>,
    /// Rows per microbatch at most.
    pub rows_max: u32,
    /// How the KV cache holds its values.
    pub kv_type: KvType,
    /// Width of the hidden states in values.
    pub hidden: u32,
    /// Whether what does not fit of the weights stays on the disk until it is needed; all are in memory before
    /// `Ready` otherwise.
    pub from_disk: bool,
}

/// A plan as one of its stages sees it: the neighbours, and what may be on its way.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct PlanLinks {
    /// The plan. Numbers are never used again, and their order means nothing.
    pub epoch: PlanEpoch,
    /// This stage, counted from 0.
    pub stage: u32,
    /// Stages of the plan.
    pub stage_count: u32,
    /// Microbatches in flight at most: what queues and windows must hold.
    pub in_flight_max: u32,
    /// Where the next stage listens (`IP:port`) and who it is; `None` at the last stage.
    pub next: Option<Neighbour>,
    /// Who may open a forward stream to this stage; `None` at stage 0.
    pub previous: Option<WorkerId>,
    /// The plan that this one takes over from, if it is still served. Nothing is sent for that one any more
    /// when this one's first forward is, so that both may have one stage.
    pub replaces: Option<PlanEpoch>,
}

/// How keys and values are held. An archive with another number is refused before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum KvType {
    /// Halves: 16 bits per value.
    F16,
    /// Signed bytes with a half-precision scale per 32 values.
    Q8_0,
}

/// Another worker of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Neighbour {
    /// The id that its certificate must carry.
    pub worker: WorkerId,
    /// `IP:port`.
    pub address: String,
    /// Its name, for errors.
    pub name: String,
}

/// The stage is loaded, its pages are populated (but for what may stay on the disk) and its link to the next stage is
/// open.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Ready {
    /// The plan that it is ready for.
    pub epoch: PlanEpoch,
    /// Bytes of the model mapped by this worker.
    pub mapped_bytes: u64,
    /// Bytes of its KV cache.
    pub kv_bytes: u64,
    /// Bytes of its scratch buffers.
    pub scratch_bytes: u64,
    /// Bytes fetched from the coordinator for this plan; 0 if all was there.
    pub fetched_bytes: u64,
    /// Milliseconds from `Assign` to `Ready`.
    pub load_ms: u64,
}

/// Sent by both sides every `heartbeat_ms`. Of the coordinator's only the numbers mean something.
///
/// Each side numbers its heartbeats and says which of the other's it saw last: who sees its own numbers
/// stand still while heartbeats come is not heard.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Heartbeat {
    /// Counts the sender's heartbeats on this stream from 1.
    pub number: u64,
    /// The last number that came from the other side; 0 before the first.
    pub echo: u64,
    /// The microbatch in work; 0 if none.
    pub microbatch: MicrobatchId,
    /// Advances with every layer computed, page populated and chunk fetched: moving is not dead.
    pub progress: u64,
    /// Of the loads in work: bytes done and bytes in all; zeros when there is none.
    pub load_done: u64,
    /// See `load_done`.
    pub load_total: u64,
    /// Forwards computed since the start.
    pub forwards: u64,
    /// Mappings of slices made since the start.
    pub mappings: u64,
    /// Bytes of weights read in since the start.
    pub populated_bytes: u64,
    /// The plans that the worker serves or loads for, no one twice.
    pub plans: Vec<PlanReport>,
}

/// What a worker says of one plan.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct PlanReport {
    /// The plan.
    pub epoch: PlanEpoch,
    /// Its forwards that were sent on since the last heartbeat, oldest first. At most
    /// `HEARTBEAT_TIMINGS_MAX` over all plans: a worker sends a heartbeat early when many wait.
    pub timings: Vec<ForwardTiming>,
}

/// How long one forward took on one worker, in microseconds; `u32::MAX` is that long or longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct ForwardTiming {
    /// Which.
    pub microbatch: MicrobatchId,
    /// From the start of the forward to its result, with the head and the sampling at the last
    /// stage.
    pub compute_us: u32,
    /// CPU time of the compute thread in it.
    pub cpu_us: u32,
    /// How long the compute thread had waited for its input.
    pub wait_us: u32,
    /// How long its input had waited for the compute thread.
    pub queue_us: u32,
    /// From handing its result to the sender until all of it was written to the stream.
    pub wire_us: u32,
}

/// The coordinator ends one plan: its queues are emptied, its links closed, its stage given back. Other
/// plans go on. What was loaded may stay as long as there is memory for it.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Release {
    /// The plan that ends.
    pub epoch: PlanEpoch,
}

/// A side says that it leaves.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Drain {
    /// Why, for people.
    pub reason: String,
}

/// The first frame of every unidirectional stream: what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct StreamOpen {
    /// The plan of everything on the stream.
    pub epoch: PlanEpoch,
    /// What it carries.
    pub purpose: StreamPurpose,
}

/// What a unidirectional stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum StreamPurpose {
    /// `Forward`s to a stage, from the coordinator or the previous stage.
    Forwards,
    /// `Sampling`s, coordinator → last stage.
    Samplings,
    /// `Sampled`s, last stage → coordinator.
    Results,
}

impl Message for Hello {
    const KIND: Kind = Kind::Hello;

    fn check(&self) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        check.name("name", &self.name)?;
        check.address("advertise", &self.advertise)?;
        check.range("threads", self.threads, 1..=THREADS_MAX)?;
        check.range("memory_bytes", self.memory_bytes, 1..=CAPACITY_MAX)?;
        check.range("kv_memory_bytes", self.kv_memory_bytes, 0..=CAPACITY_MAX)?;
        check.range("read_bytes_per_s", self.read_bytes_per_s, 1..=CAPACITY_MAX)?;
        check.range("macs_per_s", self.macs_per_s, 1..=CAPACITY_MAX)?;
        check.label("isa", &self.isa)?;
        check.label("version", &self.version)
    }
}

impl Message for Welcome {
    const KIND: Kind = Kind::Welcome;

    fn check(&self) -> Result<(), MessageError> {
        Check(Self::KIND).range("heartbeat_ms", self.heartbeat_ms, 1..=HEARTBEAT_MS_MAX)
    }
}

impl ModelPart {
    fn check(&self, check: Check) -> Result<(), MessageError> {
        let name = self.file_name.as_str();
        let ok = (1..=NAME_MAX).contains(&name.len())
            && !matches!(name, "." | "..")
            && !name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'));
        let expected = format_args!("a file name of 1 to {NAME_MAX} bytes without a folder");
        check.that(ok, "parts.file_name", expected, format_args!("{:?}", self.file_name))?;
        let ok = self.path.len() <= PATH_MAX && !self.path.chars().any(char::is_control);
        let expected = format_args!("a path of at most {PATH_MAX} bytes");
        check.that(ok, "parts.path", expected, format_args!("{} bytes", self.path.len()))?;
        check.not_zero("parts.size", self.size)
    }
}

impl Neighbour {
    fn check(&self, check: Check) -> Result<(), MessageError> {
        check.address("next.address", &self.address)?;
        check.name("next.name", &self.name)
    }
}

impl StageSpec {
    fn check(&self, check: Check) -> Result<(), MessageError> {
        check.range("layer_end", self.layer_end, 1..=LAYERS_MAX)?;
        check.range("layer_first", self.layer_first, 0..=self.layer_end - 1)?;
        check.range("ctx_size", self.ctx_size, 1..=CTX_MAX)?;
        check.count("caches", self.caches.len(), 1..=CACHE_GROUPS_MAX)?;
        self.caches.iter().try_for_each(|cache| cache.check(check))?;
        check.range("rows_max", self.rows_max as usize, 1..=ROWS_PER_MICROBATCH_MAX)?;
        check.range("hidden", self.hidden as usize, 1..=HIDDEN_MAX)?;
        let payload = self.rows_max as usize * self.hidden as usize * size_of::<f32>();
        let expected = format_args!("at most {FORWARD_PAYLOAD_MAX} bytes of hidden states");
        check.that(payload <= FORWARD_PAYLOAD_MAX, "rows_max * hidden", expected, payload)
    }
}

impl PlanLinks {
    /// Whether its stage takes token ids.
    pub fn is_first(&self) -> bool {
        self.stage == 0
    }

    /// Whether its stage samples.
    pub fn is_last(&self) -> bool {
        self.stage + 1 == self.stage_count
    }

    fn check(&self, check: Check) -> Result<(), MessageError> {
        check.not_zero("epoch", self.epoch.0.into())?;
        let stages = u32::try_from(STAGES_MAX).expect("stages are few");
        check.range("stage_count", self.stage_count, 1..=stages)?;
        check.range("stage", self.stage, 0..=self.stage_count - 1)?;
        check.range("in_flight_max", self.in_flight_max as usize, 1..=IN_FLIGHT_MAX)?;
        let found = if self.previous.is_some() { "one" } else { "none" };
        let expected = "one before every stage but the first";
        check.that(self.previous.is_none() == self.is_first(), "previous", expected, found)?;
        let found = if self.next.is_some() { "one" } else { "none" };
        let expected = "one after every stage but the last";
        check.that(self.next.is_none() == self.is_last(), "next", expected, found)?;
        self.next.iter().try_for_each(|next| next.check(check))
    }
}

impl Message for Assign {
    const KIND: Kind = Kind::Assign;

    fn check(&self) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        check.count("parts", self.source.parts.len(), 1..=PARTS_MAX)?;
        self.source.parts.iter().try_for_each(|part| part.check(check))?;
        self.stage.check(check)?;
        self.links.check(check)
    }
}

impl Message for Ready {
    const KIND: Kind = Kind::Ready;

    fn check(&self) -> Result<(), MessageError> {
        Check(Self::KIND).not_zero("epoch", self.epoch.0.into())
    }
}

impl Message for Heartbeat {
    const KIND: Kind = Kind::Heartbeat;

    /// Figures are only compared and shown: every value is possible.
    fn check(&self) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        check.not_zero("number", self.number)?;
        check.count("plans", self.plans.len(), 0..=LIVE_PLANS_MAX)?;
        for (index, plan) in self.plans.iter().enumerate() {
            check.not_zero("plans.epoch", plan.epoch.0.into())?;
            let twice = self.plans[..index].iter().any(|other| other.epoch == plan.epoch);
            check.that(!twice, "plans.epoch", "every plan once", plan.epoch)?;
        }
        let timings = self.plans.iter().map(|plan| plan.timings.len()).sum();
        check.count("plans.timings", timings, 0..=HEARTBEAT_TIMINGS_MAX)
    }
}

impl Message for Release {
    const KIND: Kind = Kind::Release;

    fn check(&self) -> Result<(), MessageError> {
        Check(Self::KIND).not_zero("epoch", self.epoch.0.into())
    }
}

impl Message for Drain {
    const KIND: Kind = Kind::Drain;

    fn check(&self) -> Result<(), MessageError> {
        Check(Self::KIND).text("reason", &self.reason)
    }
}

impl Message for StreamOpen {
    const KIND: Kind = Kind::StreamOpen;

    fn check(&self) -> Result<(), MessageError> {
        Check(Self::KIND).not_zero("epoch", self.epoch.0.into())
    }
}
