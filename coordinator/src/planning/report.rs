//! What `plan` says, as the JSON object that it prints: names are stable, and what there is not is `null`.
//! `docs/planning.md` explains it.

use serde::Serialize;

/// Version of the object: a field that means something else gets another number, a new field does not.
pub const FORMAT: u32 = 1;

/// All that is said.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The model.
    pub model: Model,
    /// Positions of the longest sequence.
    pub ctx_size: u32,
    /// How the KV cache holds its values.
    pub cache_type: &'static str,
    /// What layers are cut for.
    pub objective: &'static str,
    /// The machines, in the order in which their workers join.
    pub machines: Vec<MachineSaid>,
    /// The plan; `null` if none is possible.
    pub plan: Option<PlanSaid>,
    /// Why none is.
    pub refused: Option<Refused>,
    /// Machines without a stage.
    pub spares: Vec<Spare>,
    /// What follows when one machine of the plan goes, in the order of stages. When a spare goes nothing changes.
    pub losses: Vec<Loss>,
    /// What fewer machines are better at.
    pub fewer: Vec<Fewer>,
}

/// The model that is planned.
#[derive(Debug, Serialize)]
pub struct Model {
    /// By its metadata, else its file's.
    pub name: String,
    /// Its layers.
    pub layers: u32,
    /// Bytes of all its weights.
    pub weights_bytes: u64,
    /// Bytes that decoding one token reads of them.
    pub read_for_a_token_bytes: u64,
}

/// A machine.
#[derive(Debug, Serialize)]
pub struct MachineSaid {
    /// Its name.
    pub name: String,
    /// Bytes of memory that it has.
    pub memory_bytes: u64,
    /// Bytes that its worker may use.
    pub allowance_bytes: u64,
    /// Compute threads.
    pub threads: u32,
    /// Bytes that they read in a second.
    pub read_bytes_per_s: u64,
    /// Multiply-adds of them in a second.
    pub macs_per_s: u64,
}

/// A plan, and how fast it would be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanSaid {
    /// Its stages, in order.
    pub stages: Vec<StageSaid>,
    /// Positions that the KV cache holds.
    pub kv_tokens: u64,
    /// Whether memory decided that number; else it is the default of 16 sequences of full length.
    pub is_kv_limited_by_memory: bool,
    /// The machine whose memory did, or would be the first to.
    pub kv_limit_machine: String,
    /// How fast.
    pub prediction: Prediction,
}

/// A stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageSaid {
    /// Its machine.
    pub machine: String,
    /// Its first layer, from 0.
    pub layer_first: u32,
    /// Its last layer.
    pub layer_last: u32,
    /// Bytes of its weights.
    pub weights_bytes: u64,
    /// Bytes of its KV cache.
    pub kv_bytes: u64,
    /// Bytes of buffers to compute in.
    pub buffer_bytes: u64,
    /// Bytes that its worker may use beside that.
    pub left_bytes: u64,
}

/// How fast a plan would be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Positions that each decoding sequence has behind it.
    pub positions: u32,
    /// For 1, 8 and 64 streams.
    pub decode: Vec<DecodeSaid>,
    /// For prompts of 512 and 4,096 tokens, as far as the context goes.
    pub prompts: Vec<PromptSaid>,
}

/// Decoding with so many streams.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DecodeSaid {
    /// Streams that want tokens.
    pub streams: u32,
    /// As many of them as the KV cache holds at a time.
    pub running: u32,
    /// Tokens per second of all together.
    pub tokens_per_s: f64,
    /// Seconds from one token of a stream to its next.
    pub gap_s: f64,
    /// Groups in which they travel.
    pub groups: u32,
    /// What holds it up: `stage`, `link`, or `round` if none of them is busy all the time.
    pub limit: &'static str,
    /// The part of a round that is spent on links, from 0 to 1.
    pub part_on_links: f64,
    /// The slowest stage's machine.
    pub slowest_stage: String,
    /// The slowest link.
    pub slowest_link: LinkSaid,
}

/// A prompt that comes alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptSaid {
    /// Its tokens.
    pub tokens: u32,
    /// Seconds until the first token of the answer.
    pub seconds: f64,
    /// Rows that travel together.
    pub chunk: u32,
    /// What holds it up, as of decoding.
    pub limit: &'static str,
    /// The slowest stage's machine.
    pub slowest_stage: String,
    /// The slowest link.
    pub slowest_link: LinkSaid,
}

/// A link of the pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkSaid {
    /// Where it begins: a machine, or `coordinator`.
    pub from: String,
    /// Where it ends.
    pub to: String,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refused {
    /// The sentence that `serve` would print.
    pub text: String,
    /// If it is for memory: bytes that the stage that misses most misses.
    pub missing_bytes: Option<u64>,
    /// Bytes that the model needs in all.
    pub needed_bytes: Option<u64>,
    /// Bytes that all workers together may use.
    pub usable_bytes: Option<u64>,
}

/// A machine without a stage.
#[derive(Debug, PartialEq, Serialize)]
pub struct Spare {
    /// Its name.
    pub machine: String,
    /// Why it has none.
    pub why: String,
}

/// What follows when one machine of the plan goes.
#[derive(Debug, Serialize)]
pub struct Loss {
    /// The machine.
    pub machine: String,
    /// Machines of the plan that this is said of: of plans with many stages one stands for all that are like it.
    pub stands_for: usize,
    /// The plan that follows; `null` if none is possible.
    pub plan: Option<PlanSaid>,
    /// Why none is.
    pub refused: Option<Refused>,
}

/// A figure at which the first few machines are better than all.
#[derive(Debug, PartialEq, Serialize)]
pub struct Fewer {
    /// As many of the machines, from the first on: what `serve --workers` would say.
    pub machines: u32,
    /// `decode` or `prompt`.
    pub what: &'static str,
    /// Streams, or tokens of the prompt.
    pub of: u32,
    /// Tokens per second, or seconds to the first token, with these machines.
    pub value: f64,
    /// The same with the plan above.
    pub instead_of: f64,
}
