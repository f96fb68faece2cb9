//! Weights in memory: the byte ranges of a stage's tensors, mapped read-only from a model file or
//! from slice files, and nothing else of them.
//!
//! Model files must not change while they are mapped. One that is truncated ends the process with
//! SIGBUS when a page that is gone is read, and one that is overwritten changes the weights;
//! neither can be prevented from here. [`Weights::check_unchanged`] tells the second, and the first
//! where no page has been read yet.
#![allow(unsafe_code, reason = "a mapping is memory that the compiler cannot reason about")]

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, Mmap, MmapOptions};

use super::{FileIdentity, Gguf, GgufError, open_regular};
use crate::huge::page_size;
use crate::plan::{ModelLayout, PlanError, SliceId};

/// Alignment of a tensor without which its values cannot be read in place.
const TENSOR_ALIGNMENT: u64 = 4;
/// Bytes that are read ahead and touched at once, so that progress shows.
const POPULATE_BYTES: usize = 4 << 20;
/// Bytes from one touched byte to the next: the smallest page.
const TOUCH_BYTES: usize = 4096;

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
    Map { path: PathBuf, source: std::io::Error },
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

/// The tensors of one stage, mapped.
#[derive(Debug)]
pub struct Weights {
    files: Vec<MappedFile>,
    tensors: HashMap<String, Place>,
}

/// One file with its mappings. The file stays open so that changes to it can be seen.
#[derive(Debug)]
struct MappedFile {
    path: PathBuf,
    file: File,
    identity: FileIdentity,
    mappings: Vec<Mmap>,
}

/// Where a tensor lies in memory.
#[derive(Clone, Copy, Debug)]
struct Place {
    file: usize,
    mapping: usize,
    offset: usize,
    len: usize,
}

/// A tensor and its place in a file that is about to be mapped.
struct Wanted<'a> {
    name: &'a str,
    offset: u64,
    len: u64,
}

impl Weights {
    /// Maps the tensors of `slices` from the model's own files. Ranges that touch or share a page
    /// are one mapping.
    ///
    /// # Errors
    /// A model known by its headers only; a file that is not what its header said, or cannot be
    /// mapped; a tensor at an odd offset.
    pub fn from_model(gguf: &Gguf, slices: &[SliceId]) -> Result<Self, MapError> {
        let layout = checked_layout(gguf, slices)?;
        let mut weights = Self { files: Vec::new(), tensors: HashMap::new() };
        for (index, part) in gguf.parts().iter().enumerate() {
            let tensors = slices.iter().flat_map(|&slice| layout.slice_tensors(slice));
            let wanted: Vec<Wanted<'_>> = tensors
                .filter(|tensor| tensor.source.part as usize == index)
                .map(|t| Wanted { name: &t.name, offset: t.source.offset, len: t.source.len })
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let path = part.path.as_ref().ok_or(MapError::NoFile { part: index })?;
            let (file, identity) = open_of_size(path, part.size)?;
            if part.identity.is_some_and(|before| !is_same(&before, &identity)) {
                return Err(MapError::Changed { path: path.clone() });
            }
            weights.map(path, file, identity, wanted)?;
        }
        Ok(weights)
    }

    /// Maps the tensors of `slices` from slice files; `path_of` says where each is. Headers among
    /// the slices are passed over. A tensor that two slices hold is mapped once.
    ///
    /// # Errors
    /// A file that has not the slice's bytes, or cannot be mapped.
    pub fn from_slices(
        gguf: &Gguf,
        slices: &[SliceId],
        path_of: &dyn Fn(SliceId) -> PathBuf,
    ) -> Result<Self, MapError> {
        let layout = checked_layout(gguf, slices)?;
        let mut weights = Self { files: Vec::new(), tensors: HashMap::new() };
        for &slice in slices {
            let wanted: Vec<Wanted<'_>> = layout
                .slice_tensors(slice)
                .iter()
                .filter(|tensor| !weights.tensors.contains_key(&tensor.name))
                .map(|tensor| Wanted {
                    name: &tensor.name,
                    offset: tensor.at,
                    len: tensor.source.len,
                })
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let path = path_of(slice);
            let (file, identity) = open_of_size(&path, layout.slice_len(slice))?;
            weights.map(&path, file, identity, wanted)?;
        }
        Ok(weights)
    }

    /// Maps what is wanted of one file.
    fn map(
        &mut self,
        path: &Path,
        file: File,
        identity: FileIdentity,
        mut wanted: Vec<Wanted<'_>>,
    ) -> Result<(), MapError> {
        wanted.sort_by_key(|tensor| tensor.offset);
        let spans = wanted.iter().map(|tensor| tensor.offset..tensor.offset + tensor.len);
        let ranges = merged(spans, page_size() as u64);
        let mut mappings = Vec::with_capacity(ranges.len());
        for range in &ranges {
            let source = |source| MapError::Map { path: path.to_owned(), source };
            let len = usize::try_from(range.end - range.start)
                .map_err(|error| source(std::io::Error::other(error)))?;
            // SAFETY: the mapping is read-only and lies inside a regular file of the size that was
            // just checked. That nobody writes to the file is the documented duty of its owner; no
            // reference into the mapping outlives it, as `bytes` borrows from `self`.
            let mapping = unsafe { MmapOptions::new().offset(range.start).len(len).map(&file) }
                .map_err(source)?;
            mappings.push(mapping);
        }
        for Wanted { name, offset, len } in wanted {
            if offset % TENSOR_ALIGNMENT != 0 {
                let (name, path) = (name.to_owned(), path.to_owned());
                return Err(MapError::Misaligned { name, path, offset });
            }
            let mapping = ranges.partition_point(|range| range.end <= offset);
            let place = Place {
                file: self.files.len(),
                mapping,
                offset: (offset - ranges[mapping].start) as usize,
                len: len as usize,
            };
            self.tensors.insert(name.to_owned(), place);
        }
        self.files.push(MappedFile { path: path.to_owned(), file, identity, mappings });
        Ok(())
    }

    /// The bytes of a tensor; `None` if no slice that was mapped has it. At a multiple of 32 bytes
    /// in memory unless the model file's own alignment is smaller; at a multiple of 4 always.
    pub fn bytes(&self, tensor: &str) -> Option<&[u8]> {
        let place = self.tensors.get(tensor)?;
        let mapping = &self.files[place.file].mappings[place.mapping];
        Some(&mapping[place.offset..place.offset + place.len])
    }

    /// Bytes of address space that the mappings take.
    pub fn mapped_bytes(&self) -> u64 {
        self.mappings().map(|mapping| mapping.len() as u64).sum()
    }

    fn mappings(&self) -> impl Iterator<Item = &Mmap> {
        self.files.iter().flat_map(|file| &file.mappings)
    }

    /// Reads every page in, so that no forward waits for the disk. Adds bytes to `progress` as they
    /// come; all of them are [`mapped_bytes`](Self::mapped_bytes).
    pub fn populate(&self, progress: &AtomicU64) {
        for mapping in self.mappings() {
            // Advice: where it cannot be taken, the pages still come when they are touched.
            let _ = mapping.advise(Advice::WillNeed);
            for start in (0..mapping.len()).step_by(POPULATE_BYTES) {
                let chunk = &mapping[start..mapping.len().min(start + POPULATE_BYTES)];
                if mapping.advise_range(Advice::PopulateRead, start, chunk.len()).is_err() {
                    touch(chunk);
                }
                progress.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Checks that the files are what they were when they were mapped.
    ///
    /// # Errors
    /// [`MapError::Changed`] naming the first file of another size or time.
    pub fn check_unchanged(&self) -> Result<(), MapError> {
        for mapped in &self.files {
            let now = mapped.file.metadata().map(|metadata| FileIdentity::of(&metadata));
            if !now.is_ok_and(|now| is_same(&now, &mapped.identity)) {
                return Err(MapError::Changed { path: mapped.path.clone() });
            }
        }
        Ok(())
    }
}

/// Reads one byte of every page.
fn touch(bytes: &[u8]) {
    for page in bytes.chunks(TOUCH_BYTES) {
        std::hint::black_box(page[0]);
    }
}

/// The layout of `gguf`, which has all of `slices`.
fn checked_layout(gguf: &Gguf, slices: &[SliceId]) -> Result<ModelLayout, MapError> {
    let layout = ModelLayout::new(gguf)?;
    match slices.iter().find(|&&slice| !layout.has_slice(slice)) {
        Some(&slice) => Err(MapError::NoSlice { slice }),
        None => Ok(layout),
    }
}

fn open_of_size(path: &Path, expected: u64) -> Result<(File, FileIdentity), MapError> {
    let (file, identity) = open_regular(path)?;
    if identity.size != expected {
        return Err(MapError::Size { path: path.to_owned(), expected, found: identity.size });
    }
    Ok((file, identity))
}

/// Whether two identities are of the same bytes. The time of the last change of attributes is left
/// out: a new name or owner does not touch the contents.
fn is_same(a: &FileIdentity, b: &FileIdentity) -> bool {
    let contents = |i: &FileIdentity| (i.device, i.inode, i.size, i.modified_ns);
    contents(a) == contents(b)
}

/// Ranges that cover those given, which stand in order of their starts: begun on a page of `page`
/// bytes, and one range where two overlap, touch or share a page.
fn merged(ranges: impl Iterator<Item = Range<u64>>, page: u64) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let start = range.start / page * page;
        match merged.last_mut() {
            Some(last) if start <= last.end.next_multiple_of(page) => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(start..range.end),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_or_share_a_page_become_one() {
        const PAGE: u64 = 4096;
        let merged = |ranges: &[Range<u64>]| merged(ranges.iter().cloned(), PAGE);
        let found = merged(&[10..20, 20..PAGE + 1, 2 * PAGE..2 * PAGE + 5]);
        let whole: Vec<Range<u64>> = std::iter::once(0..2 * PAGE + 5).collect();
        assert_eq!(found, whole);
        let found = merged(&[10..20, 3 * PAGE + 7..3 * PAGE + 9]);
        assert_eq!(found, [0..20, 3 * PAGE..3 * PAGE + 9]);
        let found = merged(&[10..5 * PAGE, 20..30]);
        assert_eq!(found, std::iter::once(0..5 * PAGE).collect::<Vec<_>>());
    }
}
