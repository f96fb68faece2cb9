//! GGUF files: metadata and tensor table of a model, checked before anything is believed.
//!
//! ```text
//! magic "GGUF" · version · tensor count · pair count      24 bytes
//! pairs: key, type, value                                 parse.rs, value.rs
//! tensor table: name, dimensions, type, offset            parse.rs
//! padding to the alignment                                data_start
//! tensor data, one tensor after another                   crate::weights maps it
//! ```
//!
//! A model is one file, or the parts `NAME-00001-of-0000N.gguf` of a split one. The header is read
//! with ordinary bounded reads; only tensor data is ever mapped. Everything that a file claims is
//! held against [`limits`] and against the bytes that the file has before memory is taken for it.
//! What llama.cpp refuses is refused here too: holes between tensors, duplicate keys, nested arrays.

mod error;
mod file;
mod foreign;
pub mod limits;
mod parse;
mod scales;
mod source;
pub mod survey;
mod value;
pub mod write;

use std::collections::{HashMap, HashSet};
use std::io::BufReader;
use std::path::{Path, PathBuf};

pub use error::{GgufError, Problem, Shown};
pub use file::FileIdentity;
pub use scales::WrongScale;
pub use value::{Array, Metadata, Value};

pub(crate) use file::open_regular;
pub(crate) use scales::wrong_block;

use crate::quant::TensorType;
use file::SplitName;
use limits::{PARTS_MAX, TENSORS_MAX};
use parse::Header;

/// The key that holds the alignment of tensor data.
const ALIGNMENT_KEY: &str = "general.alignment";
/// The key that says how many parts a split model has.
const SPLIT_COUNT_KEY: &str = "split.count";
/// The key that says which part this is, from 0.
const SPLIT_NUMBER_KEY: &str = "split.no";
/// The key that says how many tensors all parts hold together.
const SPLIT_TENSORS_KEY: &str = "split.tensors.count";
/// Bytes read from a file at once.
const READ_BYTES: usize = 256 << 10;

/// The header of a model: metadata and tensor table, of all its parts.
#[derive(Clone, Debug)]
pub struct Gguf {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    parts: Vec<Part>,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Name without directory.
    pub file_name: String,
    /// Where the file was opened; `None` if only its header came.
    pub path: Option<PathBuf>,
    /// Bytes of the file.
    pub size: u64,
    /// Where tensor data begins: the header with its padding is `0..data_start`.
    pub data_start: u64,
    /// What the file system said when the header was read; `None` if only the header came.
    pub identity: Option<FileIdentity>,
}

/// The header of one part without the file, as a worker gets it.
#[derive(Clone, Debug)]
pub struct HeaderPart {
    /// Name without directory.
    pub file_name: String,
    /// The first bytes of the file, at least `Part::data_start` of them.
    pub bytes: Vec<u8>,
    /// Bytes of the whole file.
    pub file_size: u64,
}

/// One entry of the tensor table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name: 1 to 63 bytes, no control characters.
    pub name: String,
    /// Element type.
    pub ty: TensorType,
    /// One to four dimensions in GGUF's order: `shape[0]` is the length of a row.
    pub shape: Vec<u64>,
    /// Index of the part that holds the tensor.
    pub part: usize,
    /// First byte, counted from the start of the part's file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl TensorInfo {
    /// Number of rows: the product of all dimensions but the first.
    pub fn rows(&self) -> u64 {
        self.shape[1..].iter().product()
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

impl Gguf {
    /// Reads the header of the model at `path`: a single file, or any part of a split one, whose
    /// other parts lie beside it.
    ///
    /// # Errors
    /// Anything but whole, regular GGUF files of version 2 or 3 whose tensors Woolly computes with.
    /// An error names the file. Never waits for a pipe or a device.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let (opened, part) = read_part(path, 0, 0)?;
        let count = part_count(&opened.metadata).map_err(|error| error.at_path(path))?;
        if count == 1 {
            return Self::assemble(vec![(opened, part)]);
        }
        let split = SplitName::of(path).ok_or_else(|| {
            GgufError::from(Problem::PartName { count: count as u64 }).at_path(path)
        })?;
        let mut parts = Vec::new();
        let mut used = 0;
        for index in 0..split.count {
            let (header, part) = read_part(&split.part(index), index, used)?;
            used += header.header_len;
            parts.push((header, part));
        }
        Self::assemble(parts)
    }

    /// The same from the headers alone, in the order of the parts; same checks as [`open`](Self::open).
    ///
    /// # Errors
    /// As `open`, and when a header's bytes end before its padding does.
    pub fn from_headers(parts: Vec<HeaderPart>) -> Result<Self, GgufError> {
        if parts.is_empty() || parts.len() > PARTS_MAX {
            let what = "the number of parts".into();
            let (found, limit) = (parts.len() as u64, PARTS_MAX as u64);
            return Err(Problem::Limit { what, found, limit }.into());
        }
        let mut read = Vec::with_capacity(parts.len());
        let mut used = 0;
        for (index, part) in parts.into_iter().enumerate() {
            let HeaderPart { file_name, bytes, file_size } = part;
            let len = (bytes.len() as u64).min(file_size);
            let header = parse::parse(&mut bytes.as_slice(), len, file_size, index, used)
                .map_err(|error| error.in_file(Shown(file_name.as_bytes()).to_string()))?;
            let data_start = header.data_start;
            used += header.header_len;
            let part = Part { file_name, path: None, size: file_size, data_start, identity: None };
            read.push((header, part));
        }
        Self::assemble(read)
    }

    /// Puts the parts together; checks that they are the parts of one model, in order.
    fn assemble(read: Vec<(Header, Part)>) -> Result<Self, GgufError> {
        let count = read.len();
        let mut model = Self {
            metadata: Metadata::default(),
            tensors: Vec::new(),
            index: HashMap::new(),
            parts: Vec::with_capacity(count),
        };
        let mut names = HashSet::new();
        for (number, (header, part)) in read.into_iter().enumerate() {
            let in_part = |error: GgufError| match &part.path {
                Some(path) => error.at_path(path),
                None => error.in_file(Shown(part.file_name.as_bytes()).to_string()),
            };
            check_part(&header.metadata, number, count).map_err(in_part)?;
            let held = (model.tensors.len() + header.tensors.len()) as u64;
            if held > TENSORS_MAX {
                let what = "the number of tensors of all parts".into();
                let problem = Problem::Limit { what, found: held, limit: TENSORS_MAX };
                return Err(in_part(problem.into()));
            }
            for tensor in header.tensors {
                if !names.insert(tensor.name.clone()) {
                    return Err(in_part(Problem::DuplicateTensor { name: tensor.name }.into()));
                }
                model.index.insert(tensor.name.clone(), model.tensors.len());
                model.tensors.push(tensor);
            }
            if number == 0 {
                model.metadata = header.metadata;
            }
            model.parts.push(part);
        }
        model.check_tensor_count()?;
        Ok(model)
    }

    fn check_tensor_count(&self) -> Result<(), GgufError> {
        let found = self.tensors.len() as u64;
        match self.metadata.opt_u64(SPLIT_TENSORS_KEY)? {
            Some(expected) if self.parts.len() > 1 && expected != found => {
                Err(Problem::PartTensors { found, expected }.into())
            }
            _ => Ok(()),
        }
    }

    /// The metadata; of a split model, that of the first part.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The same tensors under other metadata, to find out what follows from these.
    pub(crate) fn with_metadata(&self, metadata: Metadata) -> Self {
        Self { metadata, ..self.clone() }
    }

    /// Every tensor, ordered by part and offset.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&at| &self.tensors[at])
    }

    /// The files, in order; one or more.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// Reads the header of one file; headers of other parts took `used` bytes of the limit.
fn read_part(path: &Path, index: usize, used: u64) -> Result<(Header, Part), GgufError> {
    let (file, identity) = open_regular(path)?;
    let size = identity.size;
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    let header =
        parse::parse(&mut reader, size, size, index, used).map_err(|error| error.at_path(path))?;
    let part = Part {
        file_name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        path: Some(path.to_owned()),
        size,
        data_start: header.data_start,
        identity: Some(identity),
    };
    Ok((header, part))
}

/// How many parts the model has by its metadata; 1 if it is not split.
fn part_count(metadata: &Metadata) -> Result<usize, GgufError> {
    let count = metadata.opt_u64(SPLIT_COUNT_KEY)?.unwrap_or(1).max(1);
    if count > PARTS_MAX as u64 {
        let what = SPLIT_COUNT_KEY.into();
        return Err(Problem::Limit { what, found: count, limit: PARTS_MAX as u64 }.into());
    }
    Ok(usize::try_from(count).expect("the count was held against its limit"))
}

fn check_part(metadata: &Metadata, number: usize, count: usize) -> Result<(), GgufError> {
    let found = part_count(metadata)?;
    if found != count {
        let (found, expected) = (found as u64, count as u64);
        return Err(Problem::PartCount { found, expected }.into());
    }
    let found = if count == 1 { 0 } else { metadata.u64(SPLIT_NUMBER_KEY)? };
    let expected = number as u64;
    if found != expected {
        return Err(Problem::PartNumber { found, expected }.into());
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
