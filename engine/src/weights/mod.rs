//! Weights in memory: the byte ranges of a stage's tensors, mapped read-only from a model file or
//! from slice files, and nothing else of them. Knows no stage and no forward.
//!
//! ```text
//! Weights ─► slices, shared with other stages of the model ─► tensors ─► mappings of files
//! ```
//!
//! What is mapped already ([`Resident`]) is shared and neither mapped, advised nor populated again.
//! What is new and touches in the file is one mapping, whichever slices it belongs to: huge pages do
//! not end where a layer does.
//!
//! Model files must not change while they are mapped. One that is truncated ends the process when a
//! page that is gone is read ([`end_on_lost_pages`] has it say so), and one that is overwritten changes
//! the weights; neither can be prevented from here. [`Weights::check_unchanged`] tells the second, and the first
//! where no page has been read yet.
//!
//! Huge pages: a page of a file is as large as the system made it when it came into the cache, and
//! stays so. Mappings ask for huge ones, which counts for what is not in the cache yet;
//! [`Weights::read_again`] has the rest forgotten first. The system places a mapping so that huge
//! pages of the file are huge pages of memory, wherever in the file it begins.

mod disk;
mod error;
#[allow(unsafe_code, reason = "a signal's handler is given and called by the system")]
mod lost_pages;
mod mapper;
#[allow(unsafe_code, reason = "a mapping is memory that the compiler cannot reason about")]
mod mapping;
#[allow(unsafe_code, reason = "advice is a call of the system")]
mod pages;
mod resident;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Advice;

pub use disk::OnDisk;
pub use error::MapError;
pub use lost_pages::end_on_lost_pages;
pub use resident::{MappedSlice, Resident};

use crate::gguf::Gguf;
use crate::memory::{HUGE_PAGE, page_size, whole_pages};
use crate::plan::{ModelLayout, SliceId};
use mapper::{Mapper, Wanted, open_of_size, open_part};
use mapping::{MappedTensor, Mapping};
use pages::{addresses, forget, huge_bytes_of, merged, read_in};

/// Bytes that are read in at once: many huge pages, and progress still shows on a slow disk.
const POPULATE_BYTES: usize = 16 << 20;

/// The tensors of one stage, mapped.
#[derive(Debug)]
pub struct Weights {
    slices: Vec<Arc<MappedSlice>>,
    /// Each once, in the order of their bytes.
    mappings: Vec<Arc<Mapping>>,
    places: HashMap<String, Place>,
    mappings_made: u64,
    /// Whether some tensors are read from the disk as they are needed.
    is_on_disk: bool,
}

/// Where a tensor of a stage lies in memory: found once by name, good for the same [`Weights`] only.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    mapping: usize,
    offset: usize,
    len: usize,
}

impl Place {
    /// The bytes `range` of it.
    ///
    /// # Panics
    ///
    /// If it has not so many.
    pub fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "a part lies inside");
        Self { offset: self.offset + range.start, len: range.len(), ..self }
    }
}

/// A part of a mapping that begins on a page and that tensors lie in.
struct Span<'a> {
    mapping: &'a Mapping,
    range: Range<usize>,
}

impl Weights {
    /// Maps the tensors of `slices` from the model's own files, those of slices that are `held`
    /// excepted. Ranges that touch or share a page are one mapping.
    ///
    /// # Errors
    /// A model known by its headers only; a file that is not what its header said, or cannot be
    /// mapped; a tensor at an odd offset.
    pub fn from_model(gguf: &Gguf, slices: &[SliceId], held: &Resident) -> Result<Self, MapError> {
        let layout = checked_layout(gguf, slices)?;
        let mut mapper = Mapper::of(held);
        for (index, part) in gguf.parts().iter().enumerate() {
            let tensors = new_slices(slices, held).flat_map(|slice| layout.slice_tensors(slice));
            let of_part = tensors.filter(|tensor| tensor.source.part as usize == index);
            let wanted = mapper.missing(of_part.map(|tensor| Wanted {
                name: &tensor.name,
                offset: tensor.source.offset,
                len: tensor.source.len,
            }));
            if !wanted.is_empty() {
                mapper.map(open_part(part, index)?, wanted)?;
            }
        }
        Ok(Self::new(&layout, slices, held, &mapper))
    }

    /// Maps the tensors of `slices` from slice files, those of slices that are `held` excepted;
    /// `path_of` says where each is. Headers among the slices are passed over. A tensor that two
    /// slices hold is mapped once.
    ///
    /// # Errors
    /// A file that has not the slice's bytes, or cannot be mapped.
    pub fn from_slices(
        gguf: &Gguf,
        slices: &[SliceId],
        path_of: &dyn Fn(SliceId) -> PathBuf,
        held: &Resident,
    ) -> Result<Self, MapError> {
        let layout = checked_layout(gguf, slices)?;
        let mut mapper = Mapper::of(held);
        for slice in new_slices(slices, held) {
            let tensors = layout.slice_tensors(slice).iter();
            let wanted = mapper.missing(tensors.map(|tensor| Wanted {
                name: &tensor.name,
                offset: tensor.at,
                len: tensor.source.len,
            }));
            if !wanted.is_empty() {
                let path = path_of(slice);
                mapper.map(open_of_size(&path, layout.slice_len(slice))?, wanted)?;
            }
        }
        Ok(Self::new(&layout, slices, held, &mapper))
    }

    fn new(layout: &ModelLayout, slices: &[SliceId], held: &Resident, mapper: &Mapper<'_>) -> Self {
        let found = |&id: &SliceId| match held.get(id) {
            Some(slice) => Arc::clone(slice),
            None => {
                let names = layout.slice_tensors(id).iter().map(|tensor| tensor.name.as_str());
                let tensors = names.map(|name| Arc::clone(&mapper.tensors[name])).collect();
                Arc::new(MappedSlice { id, tensors })
            }
        };
        let slices: Vec<Arc<MappedSlice>> = slices.iter().map(found).collect();
        let tensors = || slices.iter().flat_map(|slice| &slice.tensors);
        let mappings = distinct(tensors().map(|tensor| &tensor.mapping));
        let place = |tensor: &Arc<MappedTensor>| {
            let mapping = mappings.iter().position(|m| Arc::ptr_eq(m, &tensor.mapping));
            let place = Place {
                mapping: mapping.expect("taken from the tensors"),
                offset: tensor.range.start,
                len: tensor.range.len(),
            };
            (tensor.name.clone(), place)
        };
        let places = tensors().map(place).collect();
        let mappings_made = mapper.mappings_made;
        Self { slices, mappings, places, mappings_made, is_on_disk: false }
    }

    /// Its slices, in the order in which they were asked for.
    pub fn slices(&self) -> &[Arc<MappedSlice>] {
        &self.slices
    }

    /// Mappings that were made for it; 0 where all its slices were held.
    pub fn mappings_made(&self) -> u64 {
        self.mappings_made
    }

    /// Where a tensor lies; `None` if no slice that was mapped has it.
    pub fn place(&self, tensor: &str) -> Option<Place> {
        self.places.get(tensor).copied()
    }

    /// The bytes at a place of this stage. At a multiple of 32 bytes in memory unless the model
    /// file's own alignment is smaller; at a multiple of 4 always.
    pub fn at(&self, place: Place) -> &[u8] {
        &self.mappings[place.mapping].bytes[place.offset..place.offset + place.len]
    }

    /// The bytes of a tensor; `None` if no slice that was mapped has it.
    pub fn bytes(&self, tensor: &str) -> Option<&[u8]> {
        self.place(tensor).map(|place| self.at(place))
    }

    /// Bytes of address space that its tensors take, with what lies between them on a page.
    pub fn mapped_bytes(&self) -> u64 {
        self.spans(|_| true).iter().map(|span| span.range.len() as u64).sum()
    }

    /// Those of [`mapped_bytes`](Self::mapped_bytes) that are to be read in and were not yet.
    pub fn bytes_to_populate(&self) -> u64 {
        self.new_spans().iter().map(|span| span.range.len() as u64).sum()
    }

    /// Where its tensors lie that `wanted` takes; what touches or shares a page is one span.
    fn spans(&self, wanted: impl Fn(&MappedTensor) -> bool) -> Vec<Span<'_>> {
        let mut ranges: BTreeMap<usize, Vec<Range<u64>>> = BTreeMap::new();
        for tensor in self.slices.iter().flat_map(|slice| &slice.tensors) {
            if wanted(tensor) {
                let range = tensor.range.start as u64..tensor.range.end as u64;
                let number = self.places[&tensor.name].mapping;
                ranges.entry(number).or_default().push(range);
            }
        }
        let mut spans = Vec::new();
        for (number, mut ranges) in ranges {
            ranges.sort_by_key(|range| (range.start, range.end));
            let merged = merged(ranges.into_iter(), page_size() as u64);
            spans.extend(merged.into_iter().map(|range| Span {
                mapping: &self.mappings[number],
                range: range.start as usize..range.end as usize,
            }));
        }
        spans
    }

    fn new_spans(&self) -> Vec<Span<'_>> {
        self.spans(|tensor| !tensor.is_populated() && !tensor.is_on_disk())
    }

    /// Reads every page in that was not before and is to be in memory, in the order of the file, so that no forward waits
    /// for the disk. Adds bytes to `progress` as they come; returns all of them, which are
    /// [`bytes_to_populate`](Self::bytes_to_populate).
    ///
    /// By one thread, and best before anything else is read: what is read beside it disturbs the
    /// system's read-ahead, so that it is no faster and some pages are small.
    pub fn populate(&self, progress: &AtomicU64) -> u64 {
        let mut populated = 0;
        for Span { mapping, range } in self.new_spans() {
            for start in range.clone().step_by(POPULATE_BYTES) {
                let piece = start..range.end.min(start + POPULATE_BYTES);
                read_in(&mapping.bytes, &piece);
                progress.fetch_add(piece.len() as u64, Ordering::Relaxed);
                populated += piece.len() as u64;
            }
        }
        let tensors = self.slices.iter().flat_map(|slice| &slice.tensors);
        tensors.filter(|tensor| !tensor.is_on_disk()).for_each(|tensor| tensor.set_populated());
        populated
    }

    /// Has the pages that are not populated yet in the small ones that every system has.
    pub fn use_small_pages(&self) {
        for Span { mapping, range } in self.new_spans() {
            // A system that does not know this advice has no huge pages.
            let _ = mapping.bytes.advise_range(Advice::NoHugePage, range.start, range.len());
        }
    }

    /// Has the system forget what it keeps of the ranges that are not populated yet, so that they
    /// are read from the disk again, now into huge pages. Call it before any page is read; what
    /// another process has mapped, or what is not on the disk yet, is kept as it is.
    ///
    /// One huge page is tried first: `false` if the system gave none for these files, or if they
    /// have no room for one. Then the rest was not forgotten.
    pub fn read_again(&self) -> bool {
        let spans = self.new_spans();
        let sample = spans.iter().find_map(|span| Some((span.mapping, span.first_huge_page()?)));
        let Some((mapping, page)) = sample else { return false };
        forget(&mapping.file.file, mapping.offset + page.start as u64, HUGE_PAGE);
        read_in(&mapping.bytes, &page);
        let found = huge_bytes_of(std::slice::from_ref(&addresses(&mapping.bytes[page])));
        if found.is_none_or(|bytes| bytes == 0) {
            return false;
        }
        for Span { mapping, range } in spans {
            forget(&mapping.file.file, mapping.offset + range.start as u64, range.len());
        }
        true
    }

    /// Bytes that are in huge pages at present; `None` if the system does not say.
    pub fn huge_bytes(&self) -> Option<u64> {
        let spans = self.spans(|_| true);
        let ranges = spans.iter().map(|span| addresses(&span.mapping.bytes[span.range.clone()]));
        huge_bytes_of(&ranges.collect::<Vec<_>>())
    }

    /// Bytes of the pages that its tensors lie on.
    pub fn page_bytes(&self) -> u64 {
        self.spans(|_| true).iter().map(|span| whole_pages(span.range.len())).sum()
    }

    /// Keeps every page in memory from the moment that it is read in, which
    /// [`populate`](Self::populate) does.
    ///
    /// # Errors
    ///
    /// The system's, most often because the process may not lock that much.
    pub fn lock(&self) -> io::Result<()> {
        for Span { mapping, range } in self.spans(|_| true) {
            pages::lock(&mapping.bytes[range])?;
        }
        Ok(())
    }

    /// Checks that the files are what they were when they were mapped.
    ///
    /// # Errors
    /// [`MapError::Changed`] naming the first file of another size or time.
    pub fn check_unchanged(&self) -> Result<(), MapError> {
        let mut last = None;
        for mapping in &self.mappings {
            // Mappings of one file stand together.
            if last.replace(Arc::as_ptr(&mapping.file)) == Some(Arc::as_ptr(&mapping.file)) {
                continue;
            }
            if !mapping.file.is_unchanged() {
                return Err(MapError::Changed { path: mapping.file.path.clone() });
            }
        }
        Ok(())
    }
}

impl Span<'_> {
    /// The first range of its mapping's bytes that could be one huge page.
    fn first_huge_page(&self) -> Option<Range<usize>> {
        let begin = self.mapping.offset + self.range.start as u64;
        let skipped = begin.next_multiple_of(HUGE_PAGE as u64) - begin;
        let start = self.range.start + usize::try_from(skipped).ok()?;
        (start + HUGE_PAGE <= self.range.end).then_some(start..start + HUGE_PAGE)
    }
}

/// Each of `mappings` once, those of one file together and in the order of its bytes.
fn distinct<'a>(mappings: impl Iterator<Item = &'a Arc<Mapping>>) -> Vec<Arc<Mapping>> {
    let mut found: Vec<Arc<Mapping>> = Vec::new();
    for mapping in mappings {
        if !found.iter().any(|other| Arc::ptr_eq(other, mapping)) {
            found.push(Arc::clone(mapping));
        }
    }
    found.sort_by(|a, b| (&a.file.path, a.offset).cmp(&(&b.file.path, b.offset)));
    found
}

/// The slices that are not held.
fn new_slices(slices: &[SliceId], held: &Resident) -> impl Iterator<Item = SliceId> {
    slices.iter().copied().filter(|&slice| held.get(slice).is_none())
}

/// The layout of `gguf`, which has all of `slices`.
fn checked_layout(gguf: &Gguf, slices: &[SliceId]) -> Result<ModelLayout, MapError> {
    let layout = ModelLayout::new(gguf)?;
    match slices.iter().find(|&&slice| !layout.has_slice(slice)) {
        Some(&slice) => Err(MapError::NoSlice { slice }),
        None => Ok(layout),
    }
}

#[cfg(test)]
mod tests;
