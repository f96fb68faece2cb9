//! Why weights cannot be mapped, with the file and what to do.

use std::io;
use std::path::PathBuf;

use crate::gguf::GgufError;
use crate::plan::{PlanError, SliceId};

/// Why weights cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's sentence says what its fields are")]
pub enum MapError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the model has no slice {slice:?}")]
    NoSlice { slice: SliceId },
    #[error("part {part} of the model is known by its header only; map slice files instead")]
    NoFile { part: usize },
    #[error("{}: cannot be mapped: {source}", path.display())]
    Map { path: PathBuf, source: io::Error },
    #[error("{}: has {found} bytes, expected {expected}: it is not the file that was announced", path.display())]
    Size { path: PathBuf, expected: u64, found: u64 },
    #[error("{}: changed since its header was read: start again", path.display())]
    Changed { path: PathBuf },
    #[error(
        "tensor \"{name}\" starts at byte {offset} of {}, expected a multiple of 4: write the file \
         again with an alignment of 32", path.display()
    )]
    Misaligned { name: String, path: PathBuf, offset: u64 },
}
