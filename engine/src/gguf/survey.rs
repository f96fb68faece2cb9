//! What can be read of a model's files, whether Woolly computes with it or not: for people who ask why a
//! file is refused. What is served is read by [`Gguf::open`] alone.

use std::collections::{HashMap, HashSet};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::error::{GgufError, Problem};
use super::file::{FileIdentity, SplitName, open_regular};
use super::limits::{FILE_BYTES_MAX, TENSORS_MAX};
use super::parse::{self, Entry};
use super::source::Source;
use super::{Gguf, Metadata, Part, READ_BYTES, TensorInfo, foreign, part_count};
use crate::quant::TensorType;

/// Problems of the tensors of one file that are told.
const PROBLEMS_MAX: usize = 32;

/// What was read of a model, up to the first thing of each file that cannot be read.
#[derive(Debug, Default)]
pub struct Survey {
    /// That of the first file; of a file that is cut off, the pairs before the cut.
    metadata: Metadata,
    tensors: Vec<SurveyTensor>,
    parts: Vec<Part>,
    problems: Vec<GgufError>,
    names: HashSet<String>,
    /// Whether the tables of all files were read to their ends.
    is_whole: bool,
}

/// An entry of a tensor table, of any type.
#[derive(Clone, Debug)]
pub struct SurveyTensor {
    /// Its name.
    pub name: String,
    /// One to four dimensions in GGUF's order.
    pub shape: Vec<u64>,
    /// GGUF's number of its type.
    type_id: u32,
    /// Bytes; 0 if those of the type are not known.
    pub bytes: u64,
    part: usize,
    /// From the start of its file.
    offset: u64,
}

impl SurveyTensor {
    /// ggml's name of its type.
    pub fn format(&self) -> String {
        match TensorType::from_id(self.type_id) {
            Some(ty) => ty.name().to_owned(),
            None => foreign::type_name(self.type_id),
        }
    }

    /// Whether Woolly computes with its type.
    pub fn is_computed(&self) -> bool {
        TensorType::from_id(self.type_id).is_some()
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |all, dim| all.saturating_mul(*dim))
    }
}

impl Survey {
    /// Reads what can be read of the model at `path`: a file, or any part of a split one. Never waits.
    pub fn read(path: &Path) -> Survey {
        let mut survey = Survey { is_whole: true, ..Survey::default() };
        survey.add(path, 0, 0);
        let split = match part_count(&survey.metadata) {
            Ok(1) => return survey,
            Ok(count) => match SplitName::of(path) {
                Some(split) => split,
                None => {
                    let problem = Problem::PartName { count: count as u64 };
                    survey.found(path, problem.into());
                    return survey;
                }
            },
            Err(error) => {
                survey.found(path, error);
                return survey;
            }
        };
        survey = Survey { is_whole: true, ..Survey::default() };
        let mut used = 0;
        for index in 0..split.count {
            used += survey.add(&split.part(index), index, used);
        }
        survey
    }

    /// The metadata; of a split model, that of the first part.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Every tensor of the tables, as far as they could be read.
    pub fn tensors(&self) -> &[SurveyTensor] {
        &self.tensors
    }

    /// The files that could be opened: where each lies and its bytes.
    pub fn files(&self) -> impl Iterator<Item = (PathBuf, u64)> {
        self.parts.iter().map(|part| (part.path.clone().unwrap_or_default(), part.size))
    }

    /// Why the files cannot be read, types of tensors apart.
    pub fn problems(&self) -> &[GgufError] {
        &self.problems
    }

    /// Whether the tables of all files were read to their ends.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The model as if every type were computed with: tensors of other types stand as F16, with the bytes
    /// that they have. For arithmetic; never for computing. `None` if no file could be opened.
    pub fn as_if_computed(&self) -> Option<Gguf> {
        let tensor = |found: &SurveyTensor| TensorInfo {
            name: found.name.clone(),
            ty: TensorType::from_id(found.type_id).unwrap_or(TensorType::F16),
            shape: found.shape.clone(),
            part: found.part,
            offset: found.offset,
            len: found.bytes,
        };
        let tensors: Vec<TensorInfo> = self.tensors.iter().map(tensor).collect();
        let names = tensors.iter().enumerate();
        let index: HashMap<String, usize> =
            names.map(|(at, tensor)| (tensor.name.clone(), at)).collect();
        let (metadata, parts) = (self.metadata.clone(), self.parts.clone());
        (!parts.is_empty()).then_some(Gguf { metadata, tensors, index, parts })
    }

    fn found(&mut self, path: &Path, problem: GgufError) {
        self.problems.push(problem.at_path(path));
    }

    /// Reads one file; headers of others took `used` bytes of the limit. Returns the bytes of this one's.
    fn add(&mut self, path: &Path, index: usize, used: u64) -> u64 {
        let (file, identity) = match open_regular(path) {
            Ok(opened) => opened,
            Err(error) => {
                self.is_whole = false;
                self.found(path, error);
                return 0;
            }
        };
        let mut reader = BufReader::with_capacity(READ_BYTES, file);
        let mut source = Source::new(&mut reader, identity.size.min(FILE_BYTES_MAX), used);
        let (mut metadata, mut entries) = (Metadata::default(), Vec::new());
        if let Err(error) = header(&mut source, &mut metadata, &mut entries) {
            self.is_whole = false;
            self.found(path, error);
        }
        let header_len = source.position();
        self.place(path, index, (&metadata, entries), (header_len, identity));
        if index == 0 {
            self.metadata = metadata;
        }
        header_len
    }

    /// Puts the tensors of a file where they lie, and notes what of it cannot be.
    fn place(
        &mut self,
        path: &Path,
        part: usize,
        (metadata, entries): (&Metadata, Vec<Entry>),
        (header_len, identity): (u64, FileIdentity),
    ) {
        let alignment = parse::alignment(metadata).unwrap_or(1);
        let size = identity.size;
        let data_start = header_len.next_multiple_of(alignment).min(size);
        let mut table = Table { data_start, alignment, size, next: Some(0), problems: Vec::new() };
        for entry in entries {
            let name = entry.name.clone();
            if self.tensors.len() as u64 >= TENSORS_MAX || !self.names.insert(name.clone()) {
                table.problems.push(Problem::DuplicateTensor { name });
            } else {
                self.tensors.extend(table.tensor(entry, part));
            }
        }
        // Of a table that is cut off, what lies behind the end says nothing new.
        for problem in table.problems.into_iter().filter(|_| self.is_whole).take(PROBLEMS_MAX) {
            self.problems.push(GgufError::from(problem).at_path(path));
        }
        self.parts.push(Part {
            file_name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            path: Some(path.to_owned()),
            size,
            data_start,
            identity: Some(identity),
        });
    }
}

/// Where the tensors of a file lie.
struct Table {
    data_start: u64,
    alignment: u64,
    /// Of the file.
    size: u64,
    /// Where the next tensor must begin, from the start of tensor data; `None` behind one of unknown length.
    next: Option<u64>,
    problems: Vec<Problem>,
}

impl Table {
    /// The tensor of an entry; `None` for one that is larger than any file.
    fn tensor(&mut self, entry: Entry, part: usize) -> Option<SurveyTensor> {
        let Entry { name, shape, type_id, offset } = entry;
        let block = match TensorType::from_id(type_id) {
            Some(ty) => Some((ty.block_len(), ty.block_bytes())),
            None => foreign::block(type_id),
        };
        let (block_len, block_bytes) = block.unwrap_or((1, 0));
        let bytes = parse::bytes(&shape, block_len, block_bytes);
        // Elements can be counted, too.
        let Some(bytes) = bytes.filter(|_| parse::bytes(&shape, 1, 1).is_some()) else {
            self.problems.push(Problem::TensorSize { name, shape });
            return None;
        };
        if let Some(ty) = TensorType::from_id(type_id)
            && !shape[0].is_multiple_of(block_len as u64)
        {
            let (name, row_len) = (name.clone(), shape[0]);
            self.problems.push(Problem::RowLength { name, ty, row_len, block_len });
        }
        let is_first = |problem: &Problem| matches!(problem, Problem::TensorPastEnd { .. });
        let at = offset.saturating_add(self.data_start);
        let end = at.saturating_add(bytes);
        if let Some(expected) = self.next.filter(|next| *next != offset) {
            let name = name.clone();
            self.problems.push(Problem::TensorOffset { name, found: offset, expected });
        } else if end > self.size && !self.problems.iter().any(is_first) {
            self.problems.push(Problem::TensorPastEnd { name: name.clone(), end, size: self.size });
        }
        let end =
            offset.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(self.alignment));
        self.next = end.filter(|_| block.is_some());
        Some(SurveyTensor { name, shape, type_id, bytes, part, offset: at })
    }
}

/// Reads a header as far as it goes.
fn header(
    source: &mut Source<'_>,
    metadata: &mut Metadata,
    entries: &mut Vec<Entry>,
) -> Result<(), GgufError> {
    let (tensor_count, pair_count) = parse::counts(source)?;
    parse::pairs(source, pair_count, metadata)?;
    parse::alignment(metadata)?;
    for index in 0..tensor_count {
        entries.push(parse::entry(source, index)?);
    }
    Ok(())
}
