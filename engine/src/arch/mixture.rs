//! What the metadata say of a mixture's experts. Knows no tensor.

use super::families::{ExpertWidth, Family, Mixture, SharedExpert};
use super::keys::Keys;
use crate::gguf::GgufError;
use crate::kernels::routing::{GROUPS_MAX, Gating, Router};

/// Width of a feed-forward network, in values.
pub const FFN_MAX: u32 = 1 << 20;
/// Experts of a layer.
pub const EXPERTS_MAX: u32 = 1024;
/// The numbers of `expert_gating_func`, as llama.cpp gives them.
const GATINGS: [(u32, Gating, &str); 3] = [
    (1, Gating::Softmax, "softmax"),
    (2, Gating::Sigmoid, "sigmoid"),
    (3, Gating::SoftmaxOfChosen, "softmax of the chosen"),
];

/// The experts of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertNumbers {
    /// In a layer, 1 to 1,024.
    pub count: u32,
    /// Chosen for a row, 1 to `count`.
    pub used: u32,
    /// Values between the matrices of one.
    pub width: u32,
    /// Layers before the first that has experts.
    pub dense_layers: u32,
    /// How they are chosen and weighted.
    pub router: Router,
    /// Values between the matrices of the one that all rows go to; 0 if there is none.
    pub shared_width: u32,
}

/// The experts, if the model has some; `ffn` is its `feed_forward_length`.
///
/// # Errors
/// A key that is absent, out of its range, or contradicts another one or the architecture.
pub(super) fn experts(
    keys: &Keys<'_>,
    family: &Family,
    layers: u32,
    ffn: u32,
) -> Result<Option<ExpertNumbers>, GgufError> {
    let Some(mixture) = family.experts else { return Ok(None) };
    let count = if mixture.is_optional {
        keys.opt_number("expert_count", 0..=EXPERTS_MAX)?.unwrap_or(0)
    } else {
        keys.number("expert_count", 1..=EXPERTS_MAX)?
    };
    if count == 0 {
        return no_experts(keys).map(|()| None);
    }
    let used = keys.number("expert_used_count", 1..=count)?;
    let width = width(keys, &mixture, ffn, used)?;
    // Of ERNIE: experts on every so many layers. llama.cpp's files have them on all.
    keys.opt_number("interleave_moe_layer_step", 1..=1)?;
    Ok(Some(ExpertNumbers {
        count,
        used,
        width,
        dense_layers: keys.opt_number("leading_dense_block_count", 0..=layers)?.unwrap_or(0),
        router: router(keys, &mixture, count, used)?,
        shared_width: shared_width(keys, &mixture, ffn, width)?,
    }))
}

/// Without experts none can be chosen.
fn no_experts(keys: &Keys<'_>) -> Result<(), GgufError> {
    match keys.opt_number("expert_used_count", 0..=EXPERTS_MAX)? {
        None | Some(0) => Ok(()),
        Some(found) => {
            let expected = format!("0, as {} is 0", keys.name("expert_count"));
            Err(keys.refuse("expert_used_count", expected, found))
        }
    }
}

fn width(keys: &Keys<'_>, mixture: &Mixture, ffn: u32, used: u32) -> Result<u32, GgufError> {
    const OWN: &str = "expert_feed_forward_length";
    match (mixture.width, keys.opt_number(OWN, 0..=FFN_MAX)?.filter(|&own| own != 0)) {
        (ExpertWidth::Own, Some(own)) => Ok(own),
        (ExpertWidth::Own, None) if ffn.is_multiple_of(used) => Ok(ffn / used),
        (ExpertWidth::Own, None) => Err(keys.missing(OWN)),
        (ExpertWidth::FeedForward, Some(own)) if own != ffn => {
            let expected = format!("{ffn}, as {}", keys.name("feed_forward_length"));
            Err(keys.refuse(OWN, expected, own))
        }
        (ExpertWidth::FeedForward, _) => Ok(ffn),
    }
}

fn router(keys: &Keys<'_>, mixture: &Mixture, count: u32, used: u32) -> Result<Router, GgufError> {
    let scale = keys.float("expert_weights_scale")?.filter(|&scale| scale != 0.0);
    if let Some(found) = scale.filter(|&scale| scale != 1.0 && !mixture.may_scale) {
        let expected = "1 in models of this architecture".to_owned();
        return Err(keys.refuse("expert_weights_scale", expected, found));
    }
    Ok(Router {
        gating: gating(keys, mixture)?,
        groups: groups(keys, count, used)?,
        is_normalised: is_normalised(keys, mixture)?,
        scale: scale.unwrap_or(1.0),
    })
}

fn gating(keys: &Keys<'_>, mixture: &Mixture) -> Result<Gating, GgufError> {
    let number = keys.opt_number("expert_gating_func", 0..=u32::MAX)?.filter(|&n| n != 0);
    let Some(number) = number else { return Ok(mixture.gating) };
    let allowed = |&&(_, gating, _): &&(u32, Gating, &str)| {
        mixture.may_say_gating || gating == mixture.gating
    };
    let known: Vec<_> = GATINGS.iter().filter(allowed).collect();
    match known.iter().find(|known| known.0 == number) {
        Some((_, gating, _)) => Ok(*gating),
        None => {
            let names: Vec<_> = known.iter().map(|(n, _, name)| format!("{n} ({name})")).collect();
            Err(keys.refuse("expert_gating_func", names.join(", "), number))
        }
    }
}

fn is_normalised(keys: &Keys<'_>, mixture: &Mixture) -> Result<bool, GgufError> {
    let said = keys.metadata.opt_bool(&keys.name("expert_weights_norm"))?;
    match said {
        Some(said) if said != mixture.is_normalised && !mixture.may_say_normalised => {
            let expected = format!("{} in models of this architecture", mixture.is_normalised);
            Err(keys.refuse("expert_weights_norm", expected, said))
        }
        said => Ok(said.unwrap_or(mixture.is_normalised)),
    }
}

/// Groups that are used, of how many; `None` if there is one group.
fn groups(keys: &Keys<'_>, count: u32, used: u32) -> Result<Option<(usize, usize)>, GgufError> {
    let groups = keys.opt_number("expert_group_count", 0..=GROUPS_MAX as u32)?.unwrap_or(0);
    if groups <= 1 {
        return Ok(None);
    }
    if !count.is_multiple_of(groups) {
        let expected = format!("a divisor of {}, which is {count}", keys.name("expert_count"));
        return Err(keys.refuse("expert_group_count", expected, groups));
    }
    let used_groups = keys.number("expert_group_used_count", 1..=groups)?;
    if used_groups * (count / groups) < used {
        let expected = format!(
            "as many as have {used} experts ({}), with {} in each",
            keys.name("expert_used_count"),
            count / groups
        );
        return Err(keys.refuse("expert_group_used_count", expected, used_groups));
    }
    Ok(Some((used_groups as usize, groups as usize)))
}

fn shared_width(
    keys: &Keys<'_>,
    mixture: &Mixture,
    ffn: u32,
    width: u32,
) -> Result<u32, GgufError> {
    const KEY: &str = "expert_shared_feed_forward_length";
    let said = keys.opt_number(KEY, 0..=FFN_MAX)?.filter(|&width| width != 0);
    let one = match mixture.shared {
        SharedExpert::Counted => Some(width),
        SharedExpert::CountedOfOwn => Some(said.unwrap_or(width)),
        _ => None,
    };
    if let Some(one) = one {
        return Ok(one * keys.number("expert_shared_count", 0..=FFN_MAX / one)?);
    }
    match (mixture.shared, said) {
        (SharedExpert::None, Some(found)) => {
            let expected = "0 in models of this architecture".to_owned();
            Err(keys.refuse(KEY, expected, found))
        }
        (SharedExpert::Gated | SharedExpert::Always, None) => Ok(ffn),
        (_, None) => Ok(0),
        (_, Some(width)) => Ok(width),
    }
}
