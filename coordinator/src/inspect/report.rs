//! What `inspect` says of a model, as the JSON object that it prints: names are stable, and what cannot be
//! told of a file is `null`. docs/models.md explains it.

use serde::Serialize;

/// Version of the object: a field that means something else gets another number, a new field does not.
pub const FORMAT: u32 = 1;

/// All that is said of a model.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Whether `serve` takes it.
    pub is_supported: bool,
    /// Why it does not, a sentence each.
    pub not_supported: Vec<String>,
    /// What works less well than it could, a sentence each.
    pub warnings: Vec<String>,
    /// By its metadata, else its first file's.
    pub name: String,
    /// The files, in order.
    pub files: Vec<File>,
    /// Of all files.
    pub bytes: u64,
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// The file's word for how it is quantised, if it is one that is known.
    pub quantisation: Option<String>,
    /// Elements of all tensors.
    pub parameters: Parameters,
    /// Layers and their kinds.
    pub layers: Layers,
    /// Widths and heads.
    pub shape: Shape,
    /// Rotary positions.
    pub rotary: Rotary,
    /// Positions of a sequence.
    pub context: Context,
    /// The vocabulary.
    pub tokenizer: Tokens,
    /// How conversations are written.
    pub chat_template: Template,
    /// Bytes of tensors by their type, most first.
    pub formats: Vec<Format>,
    /// Bytes of tensors by what they are for.
    pub roles: Roles,
    /// Tensors that are in the file and not used.
    pub unused: Unused,
    /// What a stage with all layers takes; only of a model whose tensors fit its metadata.
    pub memory: Option<Memory>,
}

/// One file.
#[derive(Debug, Serialize)]
pub struct File {
    /// Where it lies.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

/// Elements of tensors.
#[derive(Debug, Default, Serialize)]
pub struct Parameters {
    /// Of all.
    pub total: u64,
    /// Of all but the experts that a token does not go to; as `total` without experts.
    pub of_a_token: u64,
}

/// Layers by kind.
#[derive(Debug, Default, Serialize)]
pub struct Layers {
    /// `block_count`, of all kinds.
    pub count: Option<u64>,
    /// Those that predict further tokens (`nextn_predict_layers`), counted in `count`.
    pub nextn: u64,
    /// What they are, in the order of the first of each kind; empty if it cannot be told.
    pub kinds: Vec<Kind>,
}

/// Layers that are alike.
#[derive(Debug, Serialize)]
pub struct Kind {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub first: usize,
    /// Positions that they attend to; `null` is all.
    pub window: Option<u32>,
    /// Experts; 0 if the feed-forward network is one.
    pub experts: usize,
    /// Experts that a token goes to.
    pub experts_used: usize,
    /// Values between the matrices of the network, or of one expert.
    pub width: usize,
    /// The same of the expert that all tokens go to; 0 if there is none.
    pub shared_width: usize,
}

/// Widths and heads, as the metadata say them.
#[derive(Debug, Default, Serialize)]
pub struct Shape {
    /// Values of the hidden states.
    pub hidden: Option<u64>,
    /// Query heads.
    pub heads: Option<u64>,
    /// Key and value heads.
    pub kv_heads: Option<u64>,
    /// Values of a key head.
    pub head_dim: Option<u64>,
    /// Values between the matrices of a feed-forward network that is one.
    pub feed_forward: Option<u64>,
}

/// Rotary positions, as the metadata say them.
#[derive(Debug, Default, Serialize)]
pub struct Rotary {
    /// Base of the frequencies.
    pub base: Option<f32>,
    /// That of layers with a window, if they have another.
    pub base_of_windows: Option<f32>,
    /// Values of a head that are rotated.
    pub dims: Option<u64>,
    /// `linear`, `yarn` and so on; `null` if positions are not stretched.
    pub scaling: Option<String>,
    /// By how much.
    pub factor: Option<f32>,
    /// Positions before stretching.
    pub original_context: Option<u64>,
    /// The file has divisors of the frequencies (`rope_freqs.weight`), as llama3's scaling has.
    pub has_divisors: bool,
}

/// Positions of a sequence.
#[derive(Debug, Default, Serialize)]
pub struct Context {
    /// Trained on.
    pub trained: Option<u64>,
    /// That the cache below is reckoned for.
    pub reckoned: Option<u32>,
}

/// The vocabulary.
#[derive(Debug, Default, Serialize)]
pub struct Tokens {
    /// `tokenizer.ggml.model`.
    pub model: Option<String>,
    /// `tokenizer.ggml.pre`.
    pub pre: Option<String>,
    /// Tokens.
    pub count: Option<u64>,
    /// Whether texts are turned into tokens.
    pub is_supported: bool,
    /// The token that a text begins with.
    pub bos: Option<u32>,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
}

/// How conversations are written.
#[derive(Debug, Serialize)]
pub struct Template {
    /// `chatml`, `llama3`, `harmony` and so on; `unknown`; `none` without a template.
    pub family: String,
    /// Bytes of the file's template; 0 without one.
    pub bytes: usize,
    /// Whether conversations can be had.
    pub is_supported: bool,
    /// Whether the file has another one for tools.
    pub has_tool_template: bool,
}

/// Tensors of one type.
#[derive(Debug, Serialize)]
pub struct Format {
    /// ggml's name of it.
    pub format: String,
    /// How many.
    pub tensors: u64,
    /// Their bytes; 0 if those of the type are not known.
    pub bytes: u64,
    /// Of the bytes of all tensors.
    pub share: f64,
    /// Whether Woolly computes with it.
    pub is_supported: bool,
}

/// Bytes of tensors by what they are for.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Roles {
    /// The token embedding; the head too, where there is no other matrix for it.
    pub embedding: u64,
    /// Layers without their experts.
    pub layers: u64,
    /// Experts of all layers, one that all tokens go to apart.
    pub experts: u64,
    /// The last norm and the output matrix.
    pub head: u64,
    /// What is none of these, rotary divisors for one.
    pub other: u64,
}

/// Tensors that are in the file and not used.
#[derive(Debug, Default, Serialize)]
pub struct Unused {
    /// How many.
    pub tensors: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What one stage with all layers takes.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// Weights, each tensor once.
    pub weights: u64,
    /// Buffers to compute in.
    pub scratch: u64,
    /// Weights that are read to decode one token of one sequence.
    pub read_for_a_token: u64,
    /// The cache of each type (`--cache-type`).
    pub cache: Vec<Cache>,
}

/// The cache with one type of values.
#[derive(Debug, Serialize)]
pub struct Cache {
    /// `f16` or `q8_0`.
    pub cache_type: &'static str,
    /// For each position, while no layer forgets.
    pub bytes_per_token: u64,
    /// For one sequence of `context.reckoned` positions.
    pub bytes_per_sequence: u64,
    /// Weights, buffers and this: what one sequence takes.
    pub bytes_in_all: u64,
    /// The same by rule of forgetting.
    pub groups: Vec<Group>,
}

/// Layers that forget alike.
#[derive(Debug, Serialize)]
pub struct Group {
    /// How many.
    pub layers: usize,
    /// Positions that they attend to; `null` is all.
    pub window: Option<u32>,
    /// Positions of a sequence that they keep, in whole blocks.
    pub positions: u32,
    /// For each position.
    pub bytes_per_token: u64,
}
