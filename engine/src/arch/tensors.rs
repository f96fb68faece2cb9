//! The tensors that a model's layers must and may have, their shapes, and the slice that each
//! belongs to.

use super::Arch;
use super::error::ArchError;
use super::families::{ChoiceBias, QkNorm};
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
/// The same for contexts beyond the one trained on at first, in families that may have them.
pub(crate) const ROPE_LONG: &str = "rope_factors_long.weight";
/// The same for contexts up to it.
pub(crate) const ROPE_SHORT: &str = "rope_factors_short.weight";

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
    /// Of queries, keys and values.
    Fused,
    /// Of what attention gives.
    Attended,
    /// Of the feed-forward network, or of one expert.
    Ffn,
    /// Of gate and up.
    GateAndUp,
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
    Attended, Experts, Ffn, Fused, GateAndUp, Head, Heads, Hidden, Keys, Pairs, Queries, Shared,
    Values, Vocab,
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
const CONTEXT_FACTORS: [Named; 2] = [(ROPE_LONG, &[Pairs]), (ROPE_SHORT, &[Pairs])];
// What layers have behind `blk.N.`.
const NORM_BEFORE_ATTENTION: [Named; 1] = [("attn_norm.weight", &[Hidden])];
const QKV: [Named; 3] = [
    ("attn_q.weight", &[Hidden, Queries]),
    ("attn_k.weight", &[Hidden, Keys]),
    ("attn_v.weight", &[Hidden, Values]),
];
const QKV_BIASES: [Named; 3] =
    [("attn_q.bias", &[Queries]), ("attn_k.bias", &[Keys]), ("attn_v.bias", &[Values])];
const FUSED_QKV: [Named; 1] = [("attn_qkv.weight", &[Hidden, Fused])];
const FUSED_QKV_BIAS: [Named; 1] = [("attn_qkv.bias", &[Fused])];
const ATTENTION_OUTPUT: [Named; 1] = [("attn_output.weight", &[Attended, Hidden])];
const ATTENTION_OUTPUT_BIAS: [Named; 1] = [("attn_output.bias", &[Hidden])];
const HEAD_NORMS: [Named; 2] = [("attn_q_norm.weight", &[Head]), ("attn_k_norm.weight", &[Head])];
const ROW_NORMS: [Named; 2] = [("attn_q_norm.weight", &[Queries]), ("attn_k_norm.weight", &[Keys])];
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
const DENSE_FUSED: [Named; 2] =
    [("ffn_up.weight", &[Hidden, GateAndUp]), ("ffn_down.weight", &[Ffn, Hidden])];
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
        let ffn = match layer.feed_forward {
            FeedForwardKind::Dense { width } | FeedForwardKind::Experts { width, .. } => width,
        };
        let len = match self {
            Hidden => layer.hidden,
            Queries => layer.heads * layer.key_dim,
            Keys => layer.kv_heads * layer.key_dim,
            Values => layer.kv_heads * layer.value_dim,
            Attended => layer.heads * layer.value_dim,
            Fused => layer.q_width() + layer.kv_heads * (layer.key_dim + layer.value_dim),
            Ffn => ffn,
            GateAndUp => 2 * ffn,
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
    let (before, is_renamed) = (layer.norms.before, layer.norms.is_ffn_named_after_attention);
    some(layer.norms.before, &NORM_BEFORE_ATTENTION, true)
        .chain(of_attention(layer))
        .chain(some(before && !is_renamed, &NORM_BEFORE_FFN, true))
        .chain(some(before && is_renamed, &NORM_AFTER_ATTENTION, true))
        .chain(of_feed_forward(layer))
        .chain(some(layer.norms.after, &NORMS_AFTER, true))
}

fn some(is_there: bool, names: &'static [Named], is_required: bool) -> impl Iterator<Item = Part> {
    let names = if is_there { names } else { &[] };
    names.iter().map(move |&(name, dims)| Part { name, dims, is_required })
}

fn of_attention(layer: &LayerShape) -> impl Iterator<Item = Part> {
    let is_fused = layer.is_qkv_fused;
    let (has_head_norms, are_required) = match layer.qk_norm {
        QkNorm::None | QkNorm::Row => (false, false),
        QkNorm::Head { is_optional } => (true, !is_optional),
        QkNorm::RotatedHead => (true, true),
    };
    some(!is_fused, &QKV, true)
        .chain(some(is_fused, &FUSED_QKV, true))
        .chain(some(true, &ATTENTION_OUTPUT, true))
        .chain(some(layer.has_sinks, &SINKS, true))
        .chain(some(has_head_norms, &HEAD_NORMS, are_required))
        .chain(some(layer.qk_norm == QkNorm::Row, &ROW_NORMS, true))
        .chain(some(!is_fused, &QKV_BIASES, false))
        .chain(some(is_fused, &FUSED_QKV_BIAS, false))
        .chain(some(true, &ATTENTION_OUTPUT_BIAS, false))
}

fn of_feed_forward(layer: &LayerShape) -> impl Iterator<Item = Part> {
    let is_dense = matches!(layer.feed_forward, FeedForwardKind::Dense { .. });
    let (has_shared, has_gate, bias, has_biases) = match layer.feed_forward {
        FeedForwardKind::Dense { .. } => (false, false, ChoiceBias::None, false),
        FeedForwardKind::Experts {
            shared_width, is_shared_gated, choice_bias, has_biases, ..
        } => {
            let is_there = shared_width > 0;
            (is_there, is_there && is_shared_gated, choice_bias, has_biases)
        }
    };
    let is_fused = layer.is_gate_fused;
    some(is_dense && !is_fused, &DENSE, true)
        .chain(some(is_dense && is_fused, &DENSE_FUSED, true))
        .chain(some(!is_dense, &EXPERTS, true))
        .chain(some(has_biases, &EXPERT_BIASES, true))
        .chain(some(bias != ChoiceBias::None, &CHOICE_BIAS, bias == ChoiceBias::Required))
        .chain(some(has_shared, &SHARED, true))
        .chain(some(has_gate, &SHARED_GATE, true))
        .chain(some(is_dense && layer.may_have_mlp_biases, &MLP_BIASES, false))
}

/// Where a tensor belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Embedding,
    RopeFreqs,
    Head,
    /// Of a layer that predicts tokens further ahead, which is not computed.
    Skipped,
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
    let factors: &[Named] =
        if arch.family.may_have_context_factors { &CONTEXT_FACTORS } else { &[] };
    if let Some((_, dims)) = OUTER.iter().chain(factors).find(|outer| outer.0 == name) {
        check(tensor, dims, arch, &arch.layers[0])?;
        return Ok(match name {
            EMBEDDING => Role::Embedding,
            ROPE_FREQS | ROPE_LONG | ROPE_SHORT => Role::RopeFreqs,
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
    if (arch.hyper.layers..arch.hyper.layers + arch.hyper.skipped_layers).contains(&index) {
        return Ok(Role::Skipped);
    }
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
