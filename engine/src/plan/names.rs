//! The tensor names of the architectures, and the slice that each belongs to.

use super::error::PlanError;

/// The token embedding; without an output matrix, the head's too.
pub(super) const EMBEDDING: &str = "token_embd.weight";
/// The norm before the head.
pub(super) const OUTPUT_NORM: &str = "output_norm.weight";
/// The output matrix; absent when the embedding serves as it.
pub(super) const OUTPUT: &str = "output.weight";
/// Divisors of the rotary frequencies, the same for every layer.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

/// What every layer has, behind `blk.N.`.
const LAYER: [&str; 9] = [
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
];
/// What a layer may have.
const LAYER_BIASES: [&str; 4] = ["attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias"];
/// What a Qwen3 layer has as well.
const QWEN3_LAYER: [&str; 2] = ["attn_q_norm.weight", "attn_k_norm.weight"];

/// Where a tensor belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Embedding,
    RopeFreqs,
    Head,
    Layer(u32),
}

/// The role of the tensor `name` in a model of `architecture` with `layers` layers.
pub(super) fn role(name: &str, architecture: &str, layers: u32) -> Result<Role, PlanError> {
    match name {
        EMBEDDING => return Ok(Role::Embedding),
        ROPE_FREQS => return Ok(Role::RopeFreqs),
        OUTPUT_NORM | OUTPUT => return Ok(Role::Head),
        _ => {}
    }
    let unknown = || PlanError::UnknownTensor {
        name: name.to_owned(),
        architecture: architecture.to_owned(),
    };
    let (number, rest) =
        name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).ok_or_else(unknown)?;
    let known = LAYER.contains(&rest)
        || LAYER_BIASES.contains(&rest)
        || (architecture == "qwen3" && QWEN3_LAYER.contains(&rest));
    // Digits as a writer writes them: "blk.03." would name layer 3 a second time.
    let layer = number.parse::<u32>().ok().filter(|layer| layer.to_string() == number);
    match layer {
        Some(layer) if known && layer < layers => Ok(Role::Layer(layer)),
        Some(_) if known => Err(PlanError::ExtraLayer { name: name.to_owned(), layers }),
        _ => Err(unknown()),
    }
}

/// The names that layer `layer` must have.
pub(super) fn required(architecture: &str, layer: u32) -> impl Iterator<Item = String> {
    let more: &[&str] = if architecture == "qwen3" { &QWEN3_LAYER } else { &[] };
    LAYER.iter().chain(more).map(move |rest| format!("blk.{layer}.{rest}"))
}
