//! Hyper-parameters of a model, read from metadata and checked before anything is computed from
//! them.
//!
//! Keys and defaults are llama.cpp's. Where llama.cpp asserts, divides by zero or quietly takes
//! another value, this refuses with the key's name. Two things that a reader may wonder about:
//! `attention.sliding_window` is read where the family has windows only, because llama.cpp does not
//! read it for the others either (their models attend to everything); and of Granite's scales, 0
//! means "not scaled", as there. Which keys a family has says its row of the table.

use super::families::{Family, Scales, Windows};
use super::keys::Keys;
use super::mixture;
pub use super::mixture::{ExpertNumbers, FFN_MAX};
use super::rope_scaling::rope_scaling;
pub use super::rope_scaling::{CTX_TRAIN_MAX, RopeScaling};
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

const ARCHITECTURE_KEY: &str = "general.architecture";
const TOKENS_KEY: &str = "tokenizer.ggml.tokens";
const EMBEDDING_TENSOR: &str = "token_embd.weight";

/// What a model's metadata says about its computation. Every number is within its limit, every
/// float finite.
#[derive(Clone, Debug, PartialEq)]
pub struct HyperParameters {
    /// GGUF's name of the architecture.
    pub architecture: String,
    /// Layers that are computed, 1 to [`LAYERS_MAX`].
    pub layers: u32,
    /// Layers after them that predict tokens further ahead, which are not computed.
    pub skipped_layers: u32,
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
    /// Values of a head that are rotated, its first; even, at most `head_dim_k`, and less than it only in
    /// families that may rotate a part.
    pub rope_dim: u32,
    /// Base of the rotation's frequencies; above 0.
    pub rope_base: f32,
    /// How positions are stretched.
    pub rope_scaling: RopeScaling,
    /// The windows, in families that have some.
    pub window: Option<Window>,
    /// The experts, in families that have them.
    pub experts: Option<ExpertNumbers>,
    /// Factor of the embedding; `None` is 1.
    pub embedding_scale: Option<f32>,
    /// Granite: factor of what a block adds to the hidden states; `None` is 1.
    pub residual_scale: Option<f32>,
    /// Granite: factor of attention scores; `None` is 1 / sqrt(head_dim_k).
    pub attention_scale: Option<f32>,
    /// Granite: divisor of the logits; `None` is 1.
    pub logit_scale: Option<f32>,
    /// Gemma: logits are `cap · tanh(logit / cap)`; above 0, `None` leaves them.
    pub logit_cap: Option<f32>,
}

/// Which layers attend to a window, and to how many positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// The present one included.
    pub positions: u32,
    /// All layers have it but the last of each so many.
    pub period: u32,
    /// Base of their rotary frequencies, if it is not that of the other layers.
    pub rope_base: Option<f32>,
    /// Whether those frequencies are stretched like the others.
    pub is_stretched: bool,
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
        let (layers, skipped_layers) = layer_counts(&keys, &family)?;
        let all = layers + skipped_layers;
        let hidden = keys.number("embedding_length", 1..=HIDDEN_MAX)?;
        let heads = keys.per_layer("attention.head_count", all, 1..=HEADS_MAX)?;
        let kv_heads = if keys.has("attention.head_count_kv") {
            keys.per_layer("attention.head_count_kv", all, 1..=heads)?
        } else {
            heads
        };
        if heads % kv_heads != 0 {
            let expected =
                format!("a divisor of {}, which is {heads}", keys.name("attention.head_count"));
            return Err(keys.refuse("attention.head_count_kv", expected, kv_heads));
        }
        let (head_dim, rope_dim) = head_dims(&keys, &family, (hidden, heads))?;
        let ctx_train = keys.number("context_length", 1..=CTX_TRAIN_MAX)?;
        let ffn = keys.per_layer("feed_forward_length", all, 1..=FFN_MAX)?;
        let mut parameters = Self {
            architecture: architecture.to_owned(),
            layers,
            skipped_layers,
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
            rope_scaling: rope_scaling(&keys, &family, ctx_train)?,
            window: window(&keys, &family)?,
            experts: mixture::experts(&keys, &family, layers, ffn)?,
            embedding_scale: None,
            residual_scale: None,
            attention_scale: None,
            logit_scale: None,
            logit_cap: None,
        };
        parameters.read_scales(&keys, family.scales)?;
        Ok((family, parameters))
    }

    /// The factors of families that have some. Elsewhere they would have to be obeyed too, so they
    /// are refused there.
    fn read_scales(&mut self, keys: &Keys<'_>, scales: Scales) -> Result<(), GgufError> {
        let has_keys = scales == Scales::Keys;
        let factors = [
            ("embedding_scale", &mut self.embedding_scale),
            ("residual_scale", &mut self.residual_scale),
            ("attention.scale", &mut self.attention_scale),
            ("logit_scale", &mut self.logit_scale),
        ];
        for (key, scale) in factors {
            *scale = keys.float(key)?.filter(|&x| x != 0.0);
            if let Some(found) = *scale
                && !has_keys
            {
                let expected = "no such key in models of this architecture".to_owned();
                return Err(keys.refuse(key, expected, found));
            }
        }
        if has_keys && !keys.has("logit_scale") {
            return Err(keys.missing("logit_scale"));
        }
        if matches!(scales, Scales::Gemma { .. }) {
            self.embedding_scale = Some((self.hidden as f32).sqrt());
            let cap = keys.float("final_logit_softcapping")?.filter(|&cap| cap != 0.0);
            if let Some(found) = cap.filter(|&cap| cap < 0.0) {
                let expected = "a number above 0, or 0 for none".to_owned();
                return Err(keys.refuse("final_logit_softcapping", expected, found));
            }
            self.logit_cap = cap;
        }
        Ok(())
    }
}

/// Layers that are computed, and those behind them that are not.
fn layer_counts(keys: &Keys<'_>, family: &Family) -> Result<(u32, u32), GgufError> {
    let all = keys.number("block_count", 1..=LAYERS_MAX)?;
    if !family.may_predict_further {
        return Ok((all, 0));
    }
    let skipped = keys.opt_number("nextn_predict_layers", 0..=all - 1)?.unwrap_or(0);
    Ok((all - skipped, skipped))
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

/// The windows, if the model has some.
fn window(keys: &Keys<'_>, family: &Family) -> Result<Option<Window>, GgufError> {
    const POSITIONS: &str = "attention.sliding_window";
    let Windows::AllButLastOf { period, is_optional, rope_base, is_stretched } = family.windows
    else {
        return Ok(None);
    };
    let positions = if is_optional {
        keys.opt_number(POSITIONS, 0..=CTX_TRAIN_MAX)?.unwrap_or(0)
    } else {
        keys.number(POSITIONS, 1..=CTX_TRAIN_MAX)?
    };
    let said = keys.opt_number("attention.sliding_window_pattern", 1..=LAYERS_MAX)?;
    let rope_base = keys.positive("rope.freq_base_swa", 1e15)?.or(rope_base);
    let period = said.unwrap_or(period);
    Ok((positions > 0).then_some(Window { positions, period, rope_base, is_stretched }))
}

/// Refuses what these architectures can also say in their metadata and Woolly does not compute.
fn refuse_features(keys: &Keys<'_>, family: &Family) -> Result<(), GgufError> {
    let zero_or_absent = [
        ("expert_count", "0: Woolly knows no experts in models of this architecture"),
        ("nextn_predict_layers", "0: Woolly does not compute layers that predict further tokens"),
    ];
    for (key, expected) in zero_or_absent {
        let is_known = match key {
            "expert_count" => family.experts.is_some(),
            _ => family.may_predict_further,
        };
        if is_known {
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
    for key in ["deepstack_mapping", "rope.dimension_sections"] {
        if keys.has(key) {
            let expected = "no such key: Woolly does not compute vision models".to_owned();
            return Err(keys.refuse(key, expected, "present"));
        }
    }
    Ok(())
}

/// Values of a head, and how many of them are rotated.
fn head_dims(
    keys: &Keys<'_>,
    family: &Family,
    (hidden, heads): (u32, u32),
) -> Result<(u32, u32), GgufError> {
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
    let (is_right, expected) = if family.may_rotate_part {
        let is_right = rope_dim <= key_dim && rope_dim % 2 == 0;
        (is_right, format!("an even number up to {key_dim}, the length of a key"))
    } else {
        (rope_dim == key_dim, format!("{key_dim}, the length of a key"))
    };
    if !is_right {
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
