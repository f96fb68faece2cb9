//! Why a model is refused by its architecture: its metadata, its layers or its tensors.

use crate::gguf::GgufError;

/// Metadata, a layer or a tensor that Woolly cannot use.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's sentence says what its fields are")]
pub enum ArchError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("layer {layer} {what}, which this version does not compute")]
    NotComputed { layer: u32, what: String },
    #[error(
        "tensor \"{name}\" is not one that Woolly knows in a model of the architecture \
         {architecture}"
    )]
    UnknownTensor { name: String, architecture: String },
    #[error("tensor \"{name}\" belongs to a layer beyond the {layers} that block_count says")]
    ExtraLayer { name: String, layers: u32 },
    #[error("the model lacks the tensor \"{name}\"")]
    MissingTensor { name: String },
    #[error(
        "tensor \"{name}\" has the shape {found:?}, but {expected:?} follows from the file's metadata: \
         the file is damaged or was converted wrongly"
    )]
    Shape { name: String, found: Vec<u64>, expected: Vec<u64> },
    #[error("tensor \"{name}\" is {found}, expected F32 (norms and biases are not quantised)")]
    NotF32 { name: String, found: &'static str },
}
