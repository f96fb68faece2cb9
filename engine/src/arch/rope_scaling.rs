//! How a model's rotary positions are stretched beyond the context that it was trained on at first: the
//! keys under `rope.scaling`. Knows no tensor and no frequency.

use super::families::Family;
use super::keys::Keys;
use crate::gguf::{GgufError, Shown};

/// Positions that a model can be trained on.
pub const CTX_TRAIN_MAX: u32 = 1 << 30;

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
    /// Each frequency divided by a factor of its own in the file, one for contexts up to `orig_ctx` and
    /// another for longer ones.
    OfContext {
        /// Positions trained on before stretching; 1 or more.
        orig_ctx: u32,
        /// Factor of the rotated values; `None` is 1.
        attn_factor: Option<f32>,
    },
}

/// What the metadata say of it.
///
/// # Errors
/// A kind that is not known, or numbers that contradict it.
pub(super) fn rope_scaling(
    keys: &Keys<'_>,
    family: &Family,
    ctx_train: u32,
) -> Result<RopeScaling, GgufError> {
    let kind = keys.metadata.opt_str(&keys.name("rope.scaling.type"))?.unwrap_or("linear");
    let factor = match keys.positive("rope.scaling.factor", 1e6)? {
        Some(factor) => Some(factor),
        None => keys.positive("rope.scale_linear", 1e6)?,
    };
    let attn_factor = keys.positive("rope.scaling.attn_factor", 1e6)?;
    let is_plain = kind == "longrope" || (kind == "linear" && factor.is_none_or(|x| x == 1.0));
    if family.may_have_context_factors && is_plain {
        return Ok(RopeScaling::OfContext { orig_ctx: orig_ctx(keys, ctx_train)?, attn_factor });
    }
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
    let orig_ctx = orig_ctx(keys, ctx_train)?;
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

/// Positions that the model was trained on before its context was stretched.
fn orig_ctx(keys: &Keys<'_>, ctx_train: u32) -> Result<u32, GgufError> {
    let said = keys.opt_number("rope.scaling.original_context_length", 1..=CTX_TRAIN_MAX)?;
    Ok(said.unwrap_or(ctx_train))
}
