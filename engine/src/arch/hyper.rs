//! Hyper-parameters of a model, read from metadata and checked before anything is computed from
//! them.
//!
//! Keys and defaults are llama.cpp's. Where llama.cpp asserts, divides by zero or quietly takes
//! another value, this refuses with the key's name. Two things that a reader may wonder about:
//! `attention.sliding_window` is read where the family has windows only, because llama.cpp does not
//! read it for the others either (their models attend to everything); and of Granite's scales, 0
//! means "not scaled", as there. Which keys a family has says its row of the table.

use super::families::{Family, Windows};
use super::keys::Keys;
use super::mixture;
pub use super::mixture::{ExpertNumbers, FFN_MAX};
use crate::gguf::{Gguf, GgufError, Metadata, Problem, Shown, TensorInfo};

/// Layers of a model.
pub const LAYERS_MAX: u32 = 1024;
/// Width of the hidden states, in values.
pub const HIDDEN_MAX: u32 = 65_536;
/// Attention heads of a layer.
pub const HEADS_MAX: u32 = 4096;
/// Values of one attention head.
pub const HEAD_DIM_MAX: u32 = 1024;
/// Tokens of a vocabulary.
pub const VOCAB_MAX: u32 = 1 << 20;
/// Positions that a model can be trained on.
pub const CTX_TRAIN_MAX: u32 = 1 << 30;

const ARCHITECTURE_KEY: &str = "general.architecture";
const TOKENS_KEY: &str = "tokenizer.ggml.tokens";
const EMBEDDING_TENSOR: &str = "token_embd.weight";

/// What a model's metadata says about its computation. Every number is within its limit, every
/// float finite.
#[derive(Clone, Debug, PartialEq)]
pub struct HyperParameters {
    /// GGUF's name of the architecture.
    pub architecture: String,
    /// Layers, 1 to [`LAYERS_MAX`].
    pub layers: u32,
    /// Width of the hidden states, in values.
    pub hidden: u32,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Values of one query or key head; even.
    pub head_dim_k: u32,
    /// Values of one value head; equals `head_dim_k`.
    pub head_dim_v: u32,
    /// Width of the feed-forward network, in values.
    pub ffn: u32,
    /// Rows of the embedding; equals the number of the tokenizer's tokens.
    pub vocab: u32,
    /// Positions that the model was trained on.
    pub ctx_train: u32,
    /// Added to the mean of squares in a norm; above 0.
    pub rms_eps: f32,
    /// Values of a head that are rotated; equals `head_dim_k`.
    pub rope_dim: u32,
    /// Base of the rotation's frequencies; above 0.
    pub rope_base: f32,
    /// How positions are stretched.
    pub rope_scaling: RopeScaling,
    /// The windows, in families that have some.
    pub window: Option<Window>,
    /// The experts, in families that have them.
    pub experts: Option<ExpertNumbers>,
    /// Granite: factor of the embedding; `None` is 1.
    pub embedding_scale: Option<f32>,
    /// Granite: factor of what a block adds to the hidden states; `None` is 1.
    pub residual_scale: Option<f32>,
    /// Granite: factor of attention scores; `None` is 1 / sqrt(head_dim_k).
    pub attention_scale: Option<f32>,
    /// Granite: divisor of the logits; `None` is 1.
    pub logit_scale: Option<f32>,
}

/// Which layers attend to a window, and to how many positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// The present one included.
    pub positions: u32,
    /// All layers have it but the last of each so many.
    pub period: u32,
    /// Base of their rotary frequencies, if the file says one.
    pub rope_base: Option<f32>,
}

/// How rotary positions are stretched beyond the trained context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions divided by `factor`, above 0.
    Linear {
        /// Above 0.
        factor: f32,
    },
    /// YaRN: low frequencies divided by `factor`, high ones kept.
    Yarn {
        /// Above 0.
        factor: f32,
        /// Positions trained on before stretching; 1 or more.
        orig_ctx: u32,
        /// Share of the extrapolated frequencies; `None` is 1.
        ext_factor: Option<f32>,
        /// Factor of the rotated values on top of YaRN's own; `None` is 1.
        attn_factor: Option<f32>,
        /// Rotations above which a frequency is kept; 32 by default.
        beta_fast: f32,
        /// Rotations below which a frequency is divided in full; 1 by default.
        beta_slow: f32,
    },
}

impl HyperParameters {
    /// Reads and checks the hyper-parameters of `gguf`, and finds its row in `families`.
    ///
    /// # Errors
    /// A key that is absent, of another type or out of its range; an architecture or a feature
    /// that Woolly does not compute; an embedding whose rows are not the vocabulary.
    pub(crate) fn new(gguf: &Gguf, families: &[Family]) -> Result<(Family, Self), GgufError> {
        Self::read(gguf, families).map_err(|error| {
            let file = &gguf.parts()[0].file_name;
            error.in_file(Shown(file.as_bytes()).to_string())
        })
    }

    fn read(gguf: &Gguf, families: &[Family]) -> Result<(Family, Self), GgufError> {
        let metadata = gguf.metadata();
        let family = family(metadata, families)?;
        let architecture = family.architecture;
        let keys = Keys { metadata, architecture };
        refuse_features(&keys, &family)?;
        let layers = keys.number("block_count", 1..=LAYERS_MAX)?;
        let hidden = keys.number("embedding_length", 1..=HIDDEN_MAX)?;
        let heads = keys.per_layer("attention.head_count", layers, 1..=HEADS_MAX)?;
        let kv_heads = if keys.has("attention.head_count_kv") {
            keys.per_layer("attention.head_count_kv", layers, 1..=heads)?
        } else {
            heads
        };
        if heads % kv_heads != 0 {
            let expected =
                format!("a divisor of {}, which is {heads}", keys.name("attention.head_count"));
            return Err(keys.refuse("attention.head_count_kv", expected, kv_heads));
        }
        let (head_dim, rope_dim) = head_dims(&keys, hidden, heads)?;
        let ctx_train = keys.number("context_length", 1..=CTX_TRAIN_MAX)?;
        let ffn = keys.per_layer("feed_forward_length", layers, 1..=FFN_MAX)?;
        let mut parameters = Self {
            architecture: architecture.to_owned(),
            layers,
            hidden,
            heads,
            kv_heads,
            head_dim_k: head_dim,
            head_dim_v: head_dim,
            ffn,
            vocab: vocab(gguf, &keys)?,
            ctx_train,
            rms_eps: keys
                .positive("attention.layer_norm_rms_epsilon", 1.0)?
                .ok_or_else(|| keys.missing("attention.layer_norm_rms_epsilon"))?,
            rope_dim,
            rope_base: keys.positive("rope.freq_base", 1e15)?.unwrap_or(10_000.0),
            rope_scaling: rope_scaling(&keys, ctx_train)?,
            window: window(&keys, &family)?,
            experts: mixture::experts(&keys, &family, layers, ffn)?,
            embedding_scale: None,
            residual_scale: None,
            attention_scale: None,
            logit_scale: None,
        };
        parameters.read_scales(&keys, family.has_scales)?;
        Ok((family, parameters))
    }

    /// The factors of families that have some. Elsewhere they would have to be obeyed too, so they
    /// are refused there.
    fn read_scales(&mut self, keys: &Keys<'_>, has_scales: bool) -> Result<(), GgufError> {
        let scales = [
            ("embedding_scale", &mut self.embedding_scale),
            ("residual_scale", &mut self.residual_scale),
            ("attention.scale", &mut self.attention_scale),
            ("logit_scale", &mut self.logit_scale),
        ];
        for (key, scale) in scales {
            *scale = keys.float(key)?.filter(|&x| x != 0.0);
            if let Some(found) = *scale
                && !has_scales
            {
                let expected = "no such key in models of this architecture".to_owned();
                return Err(keys.refuse(key, expected, found));
            }
        }
        if has_scales && !keys.has("logit_scale") {
            return Err(keys.missing("logit_scale"));
        }
        Ok(())
    }
}

/// The model's row of the table.
fn family(metadata: &Metadata, families: &[Family]) -> Result<Family, GgufError> {
    let found = metadata.str(ARCHITECTURE_KEY)?;
    families.iter().find(|family| family.architecture == found).copied().ok_or_else(|| {
        let names: Vec<&str> = families.iter().map(|family| family.architecture).collect();
        let found = Shown(found.as_bytes()).to_string();
        Problem::Architecture { found, expected: names.join(", ") }.into()
    })
}

/// The windows, if the family has some.
fn window(keys: &Keys<'_>, family: &Family) -> Result<Option<Window>, GgufError> {
    match family.windows {
        Windows::None => Ok(None),
        Windows::AllButLastOf { period, .. } => {
            let said = keys.opt_number("attention.sliding_window_pattern", 1..=LAYERS_MAX)?;
            Ok(Some(Window {
                positions: keys.number("attention.sliding_window", 1..=CTX_TRAIN_MAX)?,
                period: said.unwrap_or(period),
                rope_base: keys.positive("rope.freq_base_swa", 1e15)?,
            }))
        }
    }
}

/// Refuses what these architectures can also say in their metadata and Woolly does not compute.
fn refuse_features(keys: &Keys<'_>, family: &Family) -> Result<(), GgufError> {
    let zero_or_absent = [
        ("expert_count", "0: Woolly knows no experts in models of this architecture"),
        ("nextn_predict_layers", "0: Woolly does not compute layers that predict further tokens"),
    ];
    for (key, expected) in zero_or_absent {
        if key == "expert_count" && family.experts.is_some() {
            continue;
        }
        if let Some(found) = keys.metadata.opt_u64(&keys.name(key))?
            && found != 0
        {
            return Err(keys.refuse(key, expected.to_owned(), found));
        }
    }
    if keys.metadata.opt_bool(&keys.name("attention.causal"))? == Some(false) {
        let expected = "true: Woolly computes causal attention only".to_owned();
        return Err(keys.refuse("attention.causal", expected, false));
    }
    // In Granite models this switches rotary positions off.
    let rotated = keys.metadata.opt_bool(&keys.name("rope.scaling.finetuned"))?;
    if family.may_be_unrotated && rotated == Some(false) {
        let expected = "true: Woolly does not compute Granite without rotary positions".to_owned();
        return Err(keys.refuse("rope.scaling.finetuned", expected, false));
    }
    if keys.has("deepstack_mapping") {
        let expected = "no such key: Woolly does not compute vision models".to_owned();
        return Err(keys.refuse("deepstack_mapping", expected, "present"));
    }
    Ok(())
}

/// Values of a head, and how many of them are rotated.
fn head_dims(keys: &Keys<'_>, hidden: u32, heads: u32) -> Result<(u32, u32), GgufError> {
    let dim = |key: &str| -> Result<u32, GgufError> {
        if keys.has(key) {
            return keys.number(key, 1..=HEAD_DIM_MAX);
        }
        if !hidden.is_multiple_of(heads) || hidden / heads > HEAD_DIM_MAX {
            let expected = format!(
                "{} times a number up to {HEAD_DIM_MAX} (or a key {})",
                keys.name("attention.head_count"),
                keys.name(key)
            );
            return Err(keys.refuse("embedding_length", expected, hidden));
        }
        Ok(hidden / heads)
    };
    let (key_dim, value_dim) = (dim("attention.key_length")?, dim("attention.value_length")?);
    if key_dim != value_dim {
        let expected = format!("{key_dim}, the length of a key");
        return Err(keys.refuse("attention.value_length", expected, value_dim));
    }
    if key_dim % 2 != 0 {
        let expected = "an even number: rotary positions turn pairs of values".to_owned();
        return Err(keys.refuse("attention.key_length", expected, key_dim));
    }
    let rope_dim = keys.opt_number("rope.dimension_count", 1..=HEAD_DIM_MAX)?.unwrap_or(key_dim);
    if rope_dim != key_dim {
        let expected = format!("{key_dim}, the length of a key");
        return Err(keys.refuse("rope.dimension_count", expected, rope_dim));
    }
    Ok((key_dim, rope_dim))
}

/// Rows of the embedding, which must be the tokens of the vocabulary.
fn vocab(gguf: &Gguf, keys: &Keys<'_>) -> Result<u32, GgufError> {
    let rows = gguf
        .tensor(EMBEDDING_TENSOR)
        .ok_or_else(|| Problem::MissingTensor { name: EMBEDDING_TENSOR.into() })
        .map(TensorInfo::rows)?;
    let tokens = keys.metadata.opt_strings(TOKENS_KEY)?.map(|tokens| tokens.len() as u64);
    let (key, found) = match tokens {
        Some(tokens) => (TOKENS_KEY.to_owned(), Some(tokens)),
        None => {
            let key = keys.name("vocab_size");
            let found = keys.metadata.opt_u64(&key)?;
            (key, found)
        }
    };
    match u32::try_from(rows).ok().filter(|rows| (1..=VOCAB_MAX).contains(rows)) {
        None => {
            let what = format!("the number of rows of {EMBEDDING_TENSOR}");
            Err(Problem::Limit { what, found: rows, limit: VOCAB_MAX.into() }.into())
        }
        Some(_) if found.is_some_and(|found| found != rows) => {
            let expected = format!("{rows} tokens, the rows of {EMBEDDING_TENSOR}");
            let found = format!("{} tokens", found.expect("compared above"));
            Err(Problem::KeyValue { key, expected, found }.into())
        }
        Some(rows) => Ok(rows),
    }
}

fn rope_scaling(keys: &Keys<'_>, ctx_train: u32) -> Result<RopeScaling, GgufError> {
    let kind = keys.metadata.opt_str(&keys.name("rope.scaling.type"))?.unwrap_or("linear");
    let factor = match keys.positive("rope.scaling.factor", 1e6)? {
        Some(factor) => Some(factor),
        None => keys.positive("rope.scale_linear", 1e6)?,
    };
    let attn_factor = keys.positive("rope.scaling.attn_factor", 1e6)?;
    if kind != "yarn"
        && let Some(found) = attn_factor.filter(|&x| x != 1.0)
    {
        let expected = "1, or a rope.scaling.type of yarn".to_owned();
        return Err(keys.refuse("rope.scaling.attn_factor", expected, found));
    }
    if let Some(found) = keys.float("rope.scaling.yarn_log_multiplier")?.filter(|&x| x != 0.0) {
        let expected = "0 in models of this architecture".to_owned();
        return Err(keys.refuse("rope.scaling.yarn_log_multiplier", expected, found));
    }
    match kind {
        "none" => Ok(RopeScaling::None),
        "linear" => Ok(match factor {
            Some(factor) if factor != 1.0 => RopeScaling::Linear { factor },
            _ => RopeScaling::None,
        }),
        "yarn" => yarn(keys, factor.unwrap_or(1.0), attn_factor, ctx_train),
        _ => {
            let found = format!("\"{}\"", Shown(kind.as_bytes()));
            Err(keys.refuse("rope.scaling.type", "none, linear or yarn".to_owned(), found))
        }
    }
}

fn yarn(
    keys: &Keys<'_>,
    factor: f32,
    attn_factor: Option<f32>,
    ctx_train: u32,
) -> Result<RopeScaling, GgufError> {
    let orig_ctx = keys
        .opt_number("rope.scaling.original_context_length", 1..=CTX_TRAIN_MAX)?
        .unwrap_or(ctx_train);
    // A second factor under YaRN's own name multiplies the first; files carry one of them.
    let own_factor = keys.positive("rope.scaling.yarn_attn_factor", 1e6)?;
    let attn_factor = match (attn_factor, own_factor) {
        (Some(a), Some(b)) => Some(a * b),
        (a, b) => a.or(b),
    };
    let beta_fast = keys.positive("rope.scaling.yarn_beta_fast", 1e6)?.unwrap_or(32.0);
    let beta_slow = keys.positive("rope.scaling.yarn_beta_slow", 1e6)?.unwrap_or(1.0);
    if beta_fast < beta_slow {
        let expected = format!("{beta_slow} or more, the value of yarn_beta_slow");
        return Err(keys.refuse("rope.scaling.yarn_beta_fast", expected, beta_fast));
    }
    // llama.cpp writes -1 for "not set".
    let ext_factor = keys.float("rope.scaling.yarn_ext_factor")?.filter(|&x| x >= 0.0);
    Ok(RopeScaling::Yarn { factor, orig_ctx, ext_factor, attn_factor, beta_fast, beta_slow })
}
