//! The tensor names of the architectures, their shapes, and the slice that each belongs to.

use super::error::TensorError;
use super::hyper::HyperParameters;
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
#[derive(Clone, Copy, Debug)]
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
    /// Of the feed-forward network.
    Ffn,
    /// Of one head.
    Head,
    /// Pairs of a head that are rotated.
    Pairs,
    /// Tokens.
    Vocab,
}
use Dim::{Attended, Ffn, Head, Hidden, Keys, Pairs, Queries, Values, Vocab};

/// A tensor's name and its shape in GGUF's order: the length of a row first.
type Named = (&'static str, &'static [Dim]);

/// What stands outside the layers.
const OUTER: [Named; 4] = [
    (EMBEDDING, &[Hidden, Vocab]),
    (OUTPUT_NORM, &[Hidden]),
    (OUTPUT, &[Hidden, Vocab]),
    (ROPE_FREQS, &[Pairs]),
];
/// What every layer has, behind `blk.N.`.
const LAYER: [Named; 9] = [
    ("attn_norm.weight", &[Hidden]),
    ("attn_q.weight", &[Hidden, Queries]),
    ("attn_k.weight", &[Hidden, Keys]),
    ("attn_v.weight", &[Hidden, Values]),
    ("attn_output.weight", &[Attended, Hidden]),
    ("ffn_norm.weight", &[Hidden]),
    ("ffn_gate.weight", &[Hidden, Ffn]),
    ("ffn_up.weight", &[Hidden, Ffn]),
    ("ffn_down.weight", &[Ffn, Hidden]),
];
/// What a layer may have.
const ATTENTION_BIASES: [Named; 4] = [
    ("attn_q.bias", &[Queries]),
    ("attn_k.bias", &[Keys]),
    ("attn_v.bias", &[Values]),
    ("attn_output.bias", &[Hidden]),
];
/// What a layer of a llama (Granite-Code and Bielik are among them) or a granite may have.
const MLP_BIASES: [Named; 3] =
    [("ffn_gate.bias", &[Ffn]), ("ffn_up.bias", &[Ffn]), ("ffn_down.bias", &[Hidden])];
/// What a Qwen3 layer has as well.
const QWEN3_LAYER: [Named; 2] = [("attn_q_norm.weight", &[Head]), ("attn_k_norm.weight", &[Head])];

impl Dim {
    fn of(self, hyper: &HyperParameters) -> u64 {
        let times = |heads: u32, width: u32| u64::from(heads) * u64::from(width);
        match self {
            Hidden => hyper.hidden.into(),
            Queries => times(hyper.heads, hyper.head_dim_k),
            Keys => times(hyper.kv_heads, hyper.head_dim_k),
            Values => times(hyper.kv_heads, hyper.head_dim_v),
            Attended => times(hyper.heads, hyper.head_dim_v),
            Ffn => hyper.ffn.into(),
            Head => hyper.head_dim_k.into(),
            Pairs => (hyper.rope_dim / 2).into(),
            Vocab => hyper.vocab.into(),
        }
    }
}

/// The parts of a layer that models of `architecture` may have.
fn parts(architecture: &str) -> impl Iterator<Item = &'static Named> {
    let biased = matches!(architecture, "llama" | "granite");
    let mlp: &[Named] = if biased { &MLP_BIASES } else { &[] };
    let more: &[Named] = if architecture == "qwen3" { &QWEN3_LAYER } else { &[] };
    LAYER.iter().chain(&ATTENTION_BIASES).chain(mlp).chain(more)
}

/// Checks that a tensor has the shape that the metadata says, and that what is no matrix is F32:
/// norms and biases are not quantised.
///
/// # Errors
/// Names the tensor, what it is and what was expected. Names that are not known are
/// [`role`]'s to refuse.
pub(crate) fn check(tensor: &TensorInfo, hyper: &HyperParameters) -> Result<(), TensorError> {
    let name = tensor.name.as_str();
    let rest = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let mut known = OUTER.iter().filter(|row| row.0 == name).chain(
        parts(&hyper.architecture).filter(|row| rest.is_some_and(|(_, rest)| row.0 == rest)),
    );
    let Some((_, dims)) = known.next() else { return Ok(()) };
    let expected: Vec<u64> = dims.iter().map(|dim| dim.of(hyper)).collect();
    // Further dimensions of one element say nothing.
    let given = tensor.shape.iter().rposition(|len| *len != 1).map_or(1, |last| last + 1);
    if tensor.shape[..given.max(expected.len()).min(tensor.shape.len())] != expected {
        let (name, found) = (name.to_owned(), tensor.shape.clone());
        return Err(TensorError::Shape { name, found, expected });
    }
    if expected.len() == 1 && tensor.ty != TensorType::F32 {
        return Err(TensorError::NotF32 { name: name.to_owned(), found: tensor.ty.name() });
    }
    Ok(())
}

/// Where a tensor belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Embedding,
    RopeFreqs,
    Head,
    Layer(u32),
}

/// The role of the tensor `name` in a model of `architecture` with `layers` layers.
pub(crate) fn role(name: &str, architecture: &str, layers: u32) -> Result<Role, TensorError> {
    match name {
        EMBEDDING => return Ok(Role::Embedding),
        ROPE_FREQS => return Ok(Role::RopeFreqs),
        OUTPUT_NORM | OUTPUT => return Ok(Role::Head),
        _ => {}
    }
    let unknown = || TensorError::UnknownTensor {
        name: name.to_owned(),
        architecture: architecture.to_owned(),
    };
    let (number, rest) =
        name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).ok_or_else(unknown)?;
    let known = parts(architecture).any(|(part, _)| *part == rest);
    // Digits as a writer writes them: "blk.03." would name layer 3 a second time.
    let layer = number.parse::<u32>().ok().filter(|layer| layer.to_string() == number);
    match layer {
        Some(layer) if known && layer < layers => Ok(Role::Layer(layer)),
        Some(_) if known => Err(TensorError::ExtraLayer { name: name.to_owned(), layers }),
        _ => Err(unknown()),
    }
}

/// The names that layer `layer` must have.
pub(crate) fn required(architecture: &str, layer: u32) -> impl Iterator<Item = String> {
    let more: &[Named] = if architecture == "qwen3" { &QWEN3_LAYER } else { &[] };
    LAYER.iter().chain(more).map(move |(rest, _)| format!("blk.{layer}.{rest}"))
}
