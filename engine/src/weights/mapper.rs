//! Maps what a stage needs and nobody has: each tensor once, ranges that touch as one mapping. Knows
//! no slice.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::error::MapError;
use super::mapping::{MappedTensor, Mapping, OpenFile, is_same};
use super::pages::merged;
use super::resident::Resident;
use crate::gguf::{Part, open_regular};
use crate::memory::page_size;

/// Alignment of a tensor without which its values cannot be read in place.
const TENSOR_ALIGNMENT: u64 = 4;

/// A tensor and its place in a file that is about to be mapped.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// What is mapped for a stage while the stage is put together.
pub(super) struct Mapper<'a> {
    /// By name, those of slices that are held too.
    pub(super) tensors: HashMap<&'a str, Arc<MappedTensor>>,
    pub(super) mappings_made: u64,
}

impl<'a> Mapper<'a> {
    /// The tensors of the slices that are held.
    pub(super) fn of(held: &'a Resident) -> Self {
        let tensors = held.slices().flat_map(|slice| &slice.tensors);
        let tensors = tensors.map(|tensor| (tensor.name.as_str(), Arc::clone(tensor))).collect();
        Self { tensors, mappings_made: 0 }
    }

    /// Those of `wanted` that are not mapped, in the order of the file, each once.
    pub(super) fn missing(&self, wanted: impl Iterator<Item = Wanted<'a>>) -> Vec<Wanted<'a>> {
        let mut missing: Vec<Wanted<'a>> =
            wanted.filter(|tensor| !self.tensors.contains_key(tensor.name)).collect();
        missing.sort_by_key(|tensor| tensor.offset);
        missing.dedup_by_key(|tensor| tensor.offset);
        missing
    }

    /// Maps what is wanted of one file.
    pub(super) fn map(&mut self, file: OpenFile, wanted: Vec<Wanted<'a>>) -> Result<(), MapError> {
        let file = Arc::new(file);
        let spans = wanted.iter().map(|tensor| tensor.offset..tensor.offset + tensor.len);
        let ranges = merged(spans, page_size() as u64);
        let map = |range| {
            let path = &file.path;
            let mapping = Mapping::new(&file, range);
            mapping.map(Arc::new).map_err(|source| MapError::Map { path: path.clone(), source })
        };
        let mappings = ranges.iter().map(map).collect::<Result<Vec<_>, _>>()?;
        self.mappings_made += mappings.len() as u64;
        for Wanted { name, offset, len } in wanted {
            if offset % TENSOR_ALIGNMENT != 0 {
                let (name, path) = (name.to_owned(), file.path.clone());
                return Err(MapError::Misaligned { name, path, offset });
            }
            let number = ranges.partition_point(|range| range.end <= offset);
            let start = (offset - ranges[number].start) as usize;
            let range = start..start + len as usize;
            let tensor = MappedTensor::new(name, &mappings[number], range);
            self.tensors.insert(name, Arc::new(tensor));
        }
        Ok(())
    }
}

/// Opens a part of a model, which must be what it was when its header was read.
pub(super) fn open_part(part: &Part, index: usize) -> Result<OpenFile, MapError> {
    let path = part.path.as_ref().ok_or(MapError::NoFile { part: index })?;
    let opened = open_of_size(path, part.size)?;
    if part.identity.is_some_and(|before| !is_same(&before, &opened.identity)) {
        return Err(MapError::Changed { path: path.clone() });
    }
    Ok(opened)
}

/// Opens a file that has so many bytes.
pub(super) fn open_of_size(path: &Path, expected: u64) -> Result<OpenFile, MapError> {
    let (file, identity) = open_regular(path)?;
    if identity.size != expected {
        return Err(MapError::Size { path: path.to_owned(), expected, found: identity.size });
    }
    Ok(OpenFile { path: path.to_owned(), file, identity })
}
