//! What can be wrong with a GGUF file, said so that a person can act on it.

use std::fmt;
use std::path::Path;

use super::limits::SHOWN_BYTES_MAX;

/// A file, or metadata of a file, that Woolly cannot use.
#[derive(Debug)]
pub struct GgufError {
    file: Option<String>,
    problem: Box<Problem>,
}

impl GgufError {
    /// What is wrong, without the name of the file.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The same problem, said to be of `file` unless a file is already named.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file.get_or_insert_with(|| file.into());
        self
    }

    /// The same problem, said to be of the file at `path` unless a file is already named.
    #[must_use]
    pub(crate) fn at_path(self, path: &Path) -> Self {
        let shown = Shown(path.as_os_str().as_encoded_bytes()).to_string();
        self.in_file(shown)
    }
}

impl From<Problem> for GgufError {
    fn from(problem: Problem) -> Self {
        Self { file: None, problem: Box::new(problem) }
    }
}

impl fmt::Display for GgufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{file}: {}", self.problem),
            None => self.problem.fmt(f),
        }
    }
}

impl std::error::Error for GgufError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.problem {
            Problem::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// What is wrong with a GGUF file. Names from the file are already escaped and cut.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's sentence says what its fields are")]
pub enum Problem {
    #[error("cannot be read: {0}")]
    Io(std::io::Error),
    #[error("is {found}, expected a regular file")]
    NotRegularFile { found: &'static str },
    #[error("ends at byte {at}, inside {what}: the file is cut off; copy or download it again")]
    Truncated { at: u64, what: String },
    #[error("is not a GGUF file: it starts with \"{found}\"{hint}, expected \"GGUF\"")]
    NotGguf { found: String, hint: &'static str },
    #[error("has GGUF version {found}, expected 2 or 3{hint}")]
    Version { found: u32, hint: &'static str },
    #[error("{what} is {found}, more than the limit of {limit}")]
    Limit { what: String, found: u64, limit: u64 },
    #[error(
        "{what} claims {needed} bytes, but only {left} bytes are left in the file: it is cut off or \
         damaged; copy or download it again"
    )]
    TooLong { what: String, needed: u64, left: u64 },
    #[error("{what} is not UTF-8: \"{found}\"")]
    NotUtf8 { what: String, found: String },
    #[error("{what} is \"{found}\", expected one character or more and no control characters")]
    Name { what: String, found: String },
    #[error("has the metadata key \"{key}\" twice")]
    DuplicateKey { key: String },
    #[error("{what} has the type number {found}, expected 0 to 12")]
    ValueType { what: String, found: u32 },
    #[error("{what} is an array of arrays, which Woolly does not read")]
    NestedArray { what: String },
    #[error("{what} is a bool of value {found}, expected 0 or 1")]
    Bool { what: String, found: u8 },
    #[error("lacks the metadata key \"{key}\"")]
    MissingKey { key: String },
    #[error("metadata key \"{key}\" is {found}, expected {expected}")]
    KeyType { key: String, expected: &'static str, found: String },
    #[error("metadata key \"{key}\" is {found}, expected {expected}")]
    KeyValue { key: String, expected: String, found: String },
    #[error("is a model of the architecture \"{found}\", expected one of {expected}")]
    Architecture { found: String, expected: String },
    #[error("lacks the tensor \"{name}\"")]
    MissingTensor { name: String },
    #[error("tensor \"{name}\" occurs twice")]
    DuplicateTensor { name: String },
    #[error("tensor \"{name}\" has {found} dimensions, expected 1 to 4")]
    Dimensions { name: String, found: u32 },
    #[error(
        "tensor \"{name}\" has {found} elements along dimension {dimension}, expected 1 to \
         2147483647"
    )]
    Dimension { name: String, dimension: usize, found: u64 },
    #[error("tensor \"{name}\" of shape {shape:?} is larger than any file can be")]
    TensorSize { name: String, shape: Vec<u64> },
    #[error(
        "tensor \"{name}\" has the type {found}, which Woolly does not compute with; expected one \
         of {}",
        supported_types()
    )]
    TensorType { name: String, found: String },
    #[error(
        "tensor \"{name}\" has rows of {row_len} elements, expected a multiple of {block_len} for \
         the type {ty}"
    )]
    RowLength { name: String, ty: crate::quant::TensorType, row_len: u64, block_len: usize },
    #[error(
        "tensor \"{name}\" starts at byte {found} of the tensor data, expected {expected}: tensors \
         lie one after another, each at a multiple of the alignment"
    )]
    TensorOffset { name: String, found: u64, expected: u64 },
    #[error(
        "tensor \"{name}\" ends at byte {end}, but the file has {size} bytes: it is cut off; copy \
         or download it again"
    )]
    TensorPastEnd { name: String, end: u64, size: u64 },
    #[error(
        "has no zeros between its header, which ends at byte {at}, and its tensor data: the number \
         of tensors is wrong, or the file is damaged"
    )]
    Padding { at: u64 },
    #[error("is part {found} of a split model by its metadata, expected part {expected} (from 0)")]
    PartNumber { found: u64, expected: u64 },
    #[error("says that the model has {found} parts, expected {expected}")]
    PartCount { found: u64, expected: u64 },
    #[error("the parts hold {found} tensors together, but split.tensors.count says {expected}")]
    PartTensors { found: u64, expected: u64 },
    #[error(
        "is one part of a model in {count} parts, and its name does not say which; expected a name \
         like \"model-00001-of-{count:05}.gguf\" with the other parts beside it"
    )]
    PartName { count: u64 },
}

/// The tensor types that Woolly computes with, for people.
fn supported_types() -> String {
    crate::quant::TensorType::ALL.map(|ty| ty.name()).join(", ")
}

/// Foreign bytes as they may stand in a log or an error: escaped, and cut to 256 bytes.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.0[..self.0.len().min(SHOWN_BYTES_MAX)];
        for chunk in cut.utf8_chunks() {
            write!(f, "{}", chunk.valid().escape_debug())?;
            // A character that our own cut split is no fault of the text; it is left out.
            if cut.len() == self.0.len() {
                write!(f, "{}", chunk.invalid().escape_ascii())?;
            }
        }
        if cut.len() < self.0.len() { write!(f, "… ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}
