//! Why a stage cannot be loaded, and why a forward cannot be computed.

use crate::arch::error::ArchError;
use crate::arch::layer::LayerShape;
use crate::gguf::WrongScale;
use crate::quant::TensorType;
use std::ops::Range;

/// Why a stage cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum LoadError {
    #[error(transparent)]
    Arch(#[from] ArchError),
    #[error("the model has no tensor {name}, or it is not part of this stage's weights")]
    Missing { name: String },
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape { name: String, expected: Vec<u64>, found: Vec<u64> },
    #[error("tensor {name} is {found}, expected F32 (norms and biases are not quantised)")]
    VectorType { name: String, found: TensorType },
    #[error(transparent)]
    Scale(#[from] WrongScale),
    #[error("attention with {0} is not supported")]
    Attention(String),
    #[error("layers {}..{} are not part of a model with {layers}", range.start, range.end)]
    Layers { range: Range<u32>, layers: u32 },
    #[error(
        "the layers of the model remember {expected}; the plan has blocks for {found}: coordinator and worker \
         must be of one version and serve one model"
    )]
    CacheGroups { expected: String, found: String },
    #[error("a stage needs at least one position, block, row and chunk")]
    Empty,
}

impl LoadError {
    /// The refusal of a layer that is declared and not computed.
    pub(super) fn not_computed(layer: u32, shape: &LayerShape) -> Self {
        let what = shape.not_computed().unwrap_or_default();
        ArchError::NotComputed { layer, what }.into()
    }
}

/// Why a forward cannot be computed. The caller is faulty; nothing was computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum ForwardError {
    #[error("the first stage takes token ids, the others hidden states")]
    Input,
    #[error("the input has {found} values, expected {expected}")]
    InputLen { expected: usize, found: usize },
    #[error("token id {token} is not below the vocabulary of {vocab}")]
    Token { token: u32, vocab: usize },
    #[error("only the last stage samples")]
    NotLast,
    #[error("{found} rows are to be sampled, the batch has {expected}")]
    Rows { expected: usize, found: usize },
}
