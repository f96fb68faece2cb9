//! Weights in memory: the byte ranges of a stage's tensors, mapped read-only from a model file or
//! from slice files, and nothing else of them.
//!
//! Model files must not change while they are mapped. One that is truncated ends the process with
//! SIGBUS when a page that is gone is read, and one that is overwritten changes the weights;
//! neither can be prevented from here. [`Weights::check_unchanged`] tells the second, and the first
//! where no page has been read yet.
//!
//! Huge pages: a page of a file is as large as the system made it when it came into the cache, and
//! stays so. Mappings ask for huge ones, which counts for what is not in the cache yet;
//! [`Weights::read_again`] has the rest forgotten first. The system places a mapping so that huge
//! pages of the file are huge pages of memory, wherever in the file it begins.
#![allow(unsafe_code, reason = "a mapping is memory that the compiler cannot reason about")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, Mmap, MmapOptions};

use crate::gguf::{FileIdentity, Gguf, GgufError, open_regular};
use crate::huge::{HUGE_PAGE, page_size, whole_pages};
use crate::plan::{ModelLayout, PlanError, SliceId};

/// Alignment of a tensor without which its values cannot be read in place.
const TENSOR_ALIGNMENT: u64 = 4;
/// Bytes that are read in at once: many huge pages, and progress still shows on a slow disk.
const POPULATE_BYTES: usize = 16 << 20;
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
    mappings: Vec<Mapping>,
}

/// A part of a file in memory.
#[derive(Debug)]
struct Mapping {
    /// Where in the file it begins.
    offset: u64,
    bytes: Mmap,
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
                .map_err(|error| source(io::Error::other(error)))?;
            // SAFETY: the mapping is read-only and lies inside a regular file of the size that was
            // just checked. That nobody writes to the file is the documented duty of its owner; no
            // reference into the mapping outlives it, as `bytes` borrows from `self`.
            let mapping = unsafe { MmapOptions::new().offset(range.start).len(len).map(&file) }
                .map_err(source)?;
            // Where the system gives none, it gives small ones.
            let _ = mapping.advise(Advice::HugePage);
            mappings.push(Mapping { offset: range.start, bytes: mapping });
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
        let mapping = &self.files[place.file].mappings[place.mapping].bytes;
        Some(&mapping[place.offset..place.offset + place.len])
    }

    /// Bytes of address space that the mappings take.
    pub fn mapped_bytes(&self) -> u64 {
        self.mappings().map(|mapping| mapping.len() as u64).sum()
    }

    fn mappings(&self) -> impl Iterator<Item = &Mmap> {
        self.files.iter().flat_map(|file| &file.mappings).map(|mapping| &mapping.bytes)
    }

    /// Reads every page in, in the order of the file, so that no forward waits for the disk. Adds
    /// bytes to `progress` as they come; all of them are [`mapped_bytes`](Self::mapped_bytes).
    ///
    /// By one thread, and best before anything else is read: what is read beside it disturbs the
    /// system's read-ahead, so that it is no faster and some pages are small.
    pub fn populate(&self, progress: &AtomicU64) {
        for mapping in self.mappings() {
            for start in (0..mapping.len()).step_by(POPULATE_BYTES) {
                let piece = start..mapping.len().min(start + POPULATE_BYTES);
                read_in(mapping, &piece);
                progress.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Has the pages in the small ones that every system has. Call it before any is read.
    pub fn use_small_pages(&self) {
        for mapping in self.mappings() {
            // A system that does not know this advice has no huge pages.
            let _ = mapping.advise(Advice::NoHugePage);
        }
    }

    /// Has the system forget what it keeps of the mapped ranges, so that they are read from the disk
    /// again, now into huge pages. Call it before any page is read; what another process has mapped,
    /// or what is not on the disk yet, is kept as it is.
    ///
    /// One huge page is tried first: `false` if the system gave none for these files, or if they
    /// have no room for one. Then the rest was not forgotten.
    pub fn read_again(&self) -> bool {
        let sample = self.files.iter().find_map(|mapped| {
            let mapping = mapped.mappings.iter().find_map(|m| Some((m, m.first_huge_page()?)));
            mapping.map(|(mapping, page)| (&mapped.file, mapping, page))
        });
        let Some((file, mapping, page)) = sample else { return false };
        forget(file, mapping.offset + page.start as u64, HUGE_PAGE);
        read_in(&mapping.bytes, &page);
        let found = huge_bytes_of(std::slice::from_ref(&addresses(&mapping.bytes[page])));
        if found.is_none_or(|bytes| bytes == 0) {
            return false;
        }
        for mapped in &self.files {
            for Mapping { offset, bytes } in &mapped.mappings {
                forget(&mapped.file, *offset, bytes.len());
            }
        }
        true
    }

    /// Bytes that are in huge pages at present; `None` if the system does not say.
    pub fn huge_bytes(&self) -> Option<u64> {
        huge_bytes_of(&self.mappings().map(|mapping| addresses(mapping)).collect::<Vec<_>>())
    }

    /// Bytes of the pages that the mappings lie on.
    pub fn page_bytes(&self) -> u64 {
        self.mappings().map(|mapping| whole_pages(mapping.len())).sum()
    }

    /// Keeps every page in memory from the moment that it is read in, which
    /// [`populate`](Self::populate) does.
    ///
    /// # Errors
    ///
    /// The system's, most often because the process may not lock that much.
    pub fn lock(&self) -> io::Result<()> {
        for mapping in self.mappings() {
            let (start, len) = (mapping.as_ptr().cast(), mapping.len());
            // SAFETY: the range is mapped and ours; its contents do not change.
            if unsafe { libc::mlock2(start, len, libc::MLOCK_ONFAULT) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
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

impl Mapping {
    /// The first range of its bytes that could be one huge page.
    fn first_huge_page(&self) -> Option<Range<usize>> {
        let skipped = self.offset.next_multiple_of(HUGE_PAGE as u64) - self.offset;
        let start = usize::try_from(skipped).ok()?;
        (start + HUGE_PAGE <= self.bytes.len()).then_some(start..start + HUGE_PAGE)
    }
}

/// Reads in a part of a mapping that begins on a page.
fn read_in(mapping: &Mmap, piece: &Range<usize>) {
    if mapping.advise_range(Advice::PopulateRead, piece.start, piece.len()).is_err() {
        touch(&mapping[piece.clone()]);
    }
}

/// Drops a part of a file from the cache, as far as nobody uses it.
fn forget(file: &File, offset: u64, len: usize) {
    let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else { return };
    // SAFETY: advice on an open file; it touches no memory of ours. Where it is not taken, the pages
    // stay as they are.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
}

fn addresses(bytes: &[u8]) -> Range<usize> {
    let range = bytes.as_ptr_range();
    range.start.addr()..range.end.addr()
}

/// Bytes in huge pages of this process's file mappings that overlap `ranges`.
fn huge_bytes_of(ranges: &[Range<usize>]) -> Option<u64> {
    Some(huge_bytes_in(&fs::read_to_string("/proc/self/smaps").ok()?, ranges))
}

/// As [`huge_bytes_of`], from the system's list of mappings.
fn huge_bytes_in(list: &str, ranges: &[Range<usize>]) -> u64 {
    let (mut bytes, mut ours) = (0, false);
    for line in list.lines() {
        let mut fields = line.split_ascii_whitespace();
        let first = fields.next().unwrap_or_default();
        match first {
            "FilePmdMapped:" | "ShmemPmdMapped:" if ours => {
                bytes += fields.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10;
            }
            _ if !first.ends_with(':') => {
                let parse = |hex| usize::from_str_radix(hex, 16).ok();
                let span = first.split_once('-').and_then(|(a, b)| Some(parse(a)?..parse(b)?));
                let meets = |s: &Range<usize>, r: &Range<usize>| s.start < r.end && r.start < s.end;
                ours = span.is_some_and(|span| ranges.iter().any(|range| meets(&span, range)));
            }
            _ => {}
        }
    }
    bytes
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
mod tests;
