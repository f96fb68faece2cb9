//! The tensors that a model's layers must and may have, their shapes, and the slice that each
//! belongs to.

use super::Arch;
use super::error::ArchError;
use super::layer::{FeedForwardKind, LayerShape};
use crate::gguf::TensorInfo;
use crate::quant::TensorType;

/// The token embedding; without an output matrix, the head's too.
pub(crate) const EMBEDDING: &str = "token_embd.weight";
/// The norm before the head.
pub(crate) const OUTPUT_NORM: &str = "output_norm.weight";
/// The output matrix; absent when the embedding serves as it.
pub(crate) const OUTPUT: &str = "output.weight";
/// Divisors of the rotary frequencies, the same for every layer.
pub(crate) const ROPE_FREQS: &str = "rope_freqs.weight";

/// A width that the metadata says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dim {
    /// Of the hidden states.
    Hidden,
    /// Of all query heads.
    Queries,
    /// Of all key heads.
    Keys,
    /// Of all value heads.
    Values,
    /// Of what attention gives.
    Attended,
    /// Of the feed-forward network, or of one expert.
    Ffn,
    /// Of one head.
    Head,
    /// Query heads.
    Heads,
    /// Pairs of a head that are rotated.
    Pairs,
    /// Tokens.
    Vocab,
    /// Experts.
    Experts,
    /// Of the shared expert.
    Shared,
}
use Dim::{
    Attended, Experts, Ffn, Head, Heads, Hidden, Keys, Pairs, Queries, Shared, Values, Vocab,
};

/// A tensor's name and its shape in GGUF's order: the length of a row first.
type Named = (&'static str, &'static [Dim]);

/// What stands outside the layers.
const OUTER: [Named; 4] = [
    (EMBEDDING, &[Hidden, Vocab]),
    (OUTPUT_NORM, &[Hidden]),
    (OUTPUT, &[Hidden, Vocab]),
    (ROPE_FREQS, &[Pairs]),
];
// What layers have behind `blk.N.`.
const NORM_BEFORE_ATTENTION: [Named; 1] = [("attn_norm.weight", &[Hidden])];
const ATTENTION: [Named; 4] = [
    ("attn_q.weight", &[Hidden, Queries]),
    ("attn_k.weight", &[Hidden, Keys]),
    ("attn_v.weight", &[Hidden, Values]),
    ("attn_output.weight", &[Attended, Hidden]),
];
const ATTENTION_BIASES: [Named; 4] = [
    ("attn_q.bias", &[Queries]),
    ("attn_k.bias", &[Keys]),
    ("attn_v.bias", &[Values]),
    ("attn_output.bias", &[Hidden]),
];
const HEAD_NORMS: [Named; 2] = [("attn_q_norm.weight", &[Head]), ("attn_k_norm.weight", &[Head])];
const NORM_BEFORE_FFN: [Named; 1] = [("ffn_norm.weight", &[Hidden])];
const NORM_AFTER_ATTENTION: [Named; 1] = [("post_attention_norm.weight", &[Hidden])];
const SINKS: [Named; 1] = [("attn_sinks.weight", &[Heads])];
const NORMS_AFTER: [Named; 2] =
    [("post_attention_norm.weight", &[Hidden]), ("post_ffw_norm.weight", &[Hidden])];
const DENSE: [Named; 3] = [
    ("ffn_gate.weight", &[Hidden, Ffn]),
    ("ffn_up.weight", &[Hidden, Ffn]),
    ("ffn_down.weight", &[Ffn, Hidden]),
];
const MLP_BIASES: [Named; 3] =
    [("ffn_gate.bias", &[Ffn]), ("ffn_up.bias", &[Ffn]), ("ffn_down.bias", &[Hidden])];
const EXPERTS: [Named; 4] = [
    ("ffn_gate_inp.weight", &[Hidden, Experts]),
    ("ffn_gate_exps.weight", &[Hidden, Ffn, Experts]),
    ("ffn_up_exps.weight", &[Hidden, Ffn, Experts]),
    ("ffn_down_exps.weight", &[Ffn, Hidden, Experts]),
];
const EXPERT_BIASES: [Named; 4] = [
    ("ffn_gate_inp.bias", &[Experts]),
    ("ffn_gate_exps.bias", &[Ffn, Experts]),
    ("ffn_up_exps.bias", &[Ffn, Experts]),
    ("ffn_down_exps.bias", &[Hidden, Experts]),
];
const CHOICE_BIAS: [Named; 1] = [("exp_probs_b.bias", &[Experts])];
const SHARED: [Named; 3] = [
    ("ffn_gate_shexp.weight", &[Hidden, Shared]),
    ("ffn_up_shexp.weight", &[Hidden, Shared]),
    ("ffn_down_shexp.weight", &[Shared, Hidden]),
];
const SHARED_GATE: [Named; 1] = [("ffn_gate_inp_shexp.weight", &[Hidden])];

/// A tensor of a layer.
#[derive(Clone, Copy)]
struct Part {
    /// Behind `blk.N.`.
    name: &'static str,
    dims: &'static [Dim],
    is_required: bool,
}

impl Dim {
    /// Its length in a layer of this shape.
    fn of(self, arch: &Arch, layer: &LayerShape) -> u64 {
        let len = match self {
            Hidden => layer.hidden,
            Queries => layer.heads * layer.key_dim,
            Keys => layer.kv_heads * layer.key_dim,
            Values => layer.kv_heads * layer.value_dim,
            Attended => layer.heads * layer.value_dim,
            Ffn => match layer.feed_forward {
                FeedForwardKind::Dense { width } | FeedForwardKind::Experts { width, .. } => width,
            },
            Head => layer.key_dim,
            Heads => layer.heads,
            Pairs => layer.rope_dim / 2,
            Vocab => arch.hyper.vocab as usize,
            Experts => layer.experts().0,
            Shared => match layer.feed_forward {
                FeedForwardKind::Dense { .. } => 0,
                FeedForwardKind::Experts { shared_width, .. } => shared_width,
            },
        };
        len as u64
    }
}

/// What a layer of this shape must and may have.
fn parts(layer: &LayerShape) -> impl Iterator<Item = Part> {
    let some = |is_there: bool, names: &'static [Named], is_required: bool| {
        let names = if is_there { names } else { &[] };
        names.iter().map(move |&(name, dims)| Part { name, dims, is_required })
    };
    let is_dense = matches!(layer.feed_forward, FeedForwardKind::Dense { .. });
    let (has_shared, has_gate, may_have_bias, has_biases) = match layer.feed_forward {
        FeedForwardKind::Dense { .. } => (false, false, false, false),
        FeedForwardKind::Experts {
            shared_width,
            is_shared_gated,
            may_have_choice_bias,
            has_biases,
            ..
        } => {
            let is_there = shared_width > 0;
            (is_there, is_there && is_shared_gated, may_have_choice_bias, has_biases)
        }
    };
    let (before, is_renamed) = (layer.norms.before, layer.norms.is_ffn_named_after_attention);
    some(layer.norms.before, &NORM_BEFORE_ATTENTION, true)
        .chain(some(true, &ATTENTION, true))
        .chain(some(before && !is_renamed, &NORM_BEFORE_FFN, true))
        .chain(some(before && is_renamed, &NORM_AFTER_ATTENTION, true))
        .chain(some(layer.has_sinks, &SINKS, true))
        .chain(some(is_dense, &DENSE, true))
        .chain(some(!is_dense, &EXPERTS, true))
        .chain(some(has_biases, &EXPERT_BIASES, true))
        .chain(some(may_have_bias, &CHOICE_BIAS, false))
        .chain(some(has_shared, &SHARED, true))
        .chain(some(has_gate, &SHARED_GATE, true))
        .chain(some(layer.norms.after, &NORMS_AFTER, true))
        .chain(some(layer.has_head_norm, &HEAD_NORMS, true))
        .chain(some(true, &ATTENTION_BIASES, false))
        .chain(some(is_dense && layer.may_have_mlp_biases, &MLP_BIASES, false))
}

/// Where a tensor belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Embedding,
    RopeFreqs,
    Head,
    /// Of this layer; of all its experts, if it is one matrix for each of them.
    Layer {
        index: u32,
        is_of_experts: bool,
    },
}

/// The role of a tensor in a model of `arch`, its shape checked: it is the one that the metadata
/// say, and what is no matrix is F32, as norms and biases are not quantised.
///
/// # Errors
/// A name that is not known, or of a layer that is too many; another shape or type, with what was
/// expected.
pub(crate) fn role(tensor: &TensorInfo, arch: &Arch) -> Result<Role, ArchError> {
    let name = tensor.name.as_str();
    if let Some((_, dims)) = OUTER.iter().find(|outer| outer.0 == name) {
        check(tensor, dims, arch, &arch.layers[0])?;
        return Ok(match name {
            EMBEDDING => Role::Embedding,
            ROPE_FREQS => Role::RopeFreqs,
            _ => Role::Head,
        });
    }
    let unknown = || ArchError::UnknownTensor {
        name: name.to_owned(),
        architecture: arch.family.architecture.to_owned(),
    };
    let (number, rest) =
        name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).ok_or_else(unknown)?;
    // Digits as a writer writes them: "blk.03." would name layer 3 a second time.
    let index = number.parse::<u32>().ok().filter(|index| index.to_string() == number);
    let index = index.ok_or_else(unknown)?;
    let part = |layer: &LayerShape| parts(layer).find(|part| part.name == rest);
    let Some(layer) = arch.layers.get(index as usize) else {
        return Err(if arch.layers.iter().any(|layer| part(layer).is_some()) {
            ArchError::ExtraLayer { name: name.to_owned(), layers: arch.hyper.layers }
        } else {
            unknown()
        });
    };
    let part = part(layer).ok_or_else(unknown)?;
    check(tensor, part.dims, arch, layer)?;
    Ok(Role::Layer { index, is_of_experts: part.dims.len() == 3 })
}

fn check(
    tensor: &TensorInfo,
    dims: &[Dim],
    arch: &Arch,
    layer: &LayerShape,
) -> Result<(), ArchError> {
    let expected: Vec<u64> = dims.iter().map(|dim| dim.of(arch, layer)).collect();
    // Further dimensions of one element say nothing.
    let given = tensor.shape.iter().rposition(|len| *len != 1).map_or(1, |last| last + 1);
    if tensor.shape[..given.max(expected.len()).min(tensor.shape.len())] != expected {
        let (name, found) = (tensor.name.clone(), tensor.shape.clone());
        return Err(ArchError::Shape { name, found, expected });
    }
    let is_matrix = expected.len() > 1 && tensor.name.ends_with(".weight");
    if !is_matrix && tensor.ty != TensorType::F32 {
        return Err(ArchError::NotF32 { name: tensor.name.clone(), found: tensor.ty.name() });
    }
    Ok(())
}

/// The names of the tensors that a model of `arch` must have.
pub(crate) fn required(arch: &Arch) -> impl Iterator<Item = String> {
    let outer = [EMBEDDING, OUTPUT_NORM].map(str::to_owned).into_iter();
    outer.chain((0u32..).zip(&arch.layers).flat_map(|(index, layer)| {
        let required = parts(layer).filter(|part| part.is_required);
        required.map(move |part| format!("blk.{index}.{}", part.name))
    }))
}
