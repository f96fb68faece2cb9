//! Tensors that need not be in memory: their pages come from the disk when they are needed, and the system
//! forgets them when it needs the memory. No byte of them is another for it.

use std::ops::Range;
use std::path::PathBuf;

use memmap2::Advice;

use super::mapping::MappedTensor;
use super::{Place, Weights};

/// Bytes that are asked for at once: the system reads no more than its read-ahead of what one call asks for, which
/// is 128 KiB unless it was told otherwise.
const ASKED_BYTES: usize = 128 << 10;

/// Some bytes of a file on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDisk {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub range: Range<u64>,
}

impl Weights {
    /// Leaves the tensors on the disk that `wanted` takes by name, those excepted that were read in before; the
    /// others are to be in memory, whatever was said of them before. Of those on the disk only what is
    /// needed is read, so they are in small pages.
    pub fn leave_on_disk(&mut self, wanted: impl Fn(&str) -> bool) {
        for tensor in self.slices.iter().flat_map(|slice| &slice.tensors) {
            tensor.set_on_disk(wanted(&tensor.name) && !tensor.is_populated());
        }
        let spans = self.spans(MappedTensor::is_on_disk);
        for span in &spans {
            // A system that does not know this advice has no huge pages.
            let _ = span.mapping.bytes.advise_range(
                Advice::NoHugePage,
                span.range.start,
                span.range.len(),
            );
        }
        self.is_on_disk = !spans.is_empty();
    }

    /// Whether some tensors were left on the disk.
    pub fn is_on_disk(&self) -> bool {
        self.is_on_disk
    }

    /// Asks the system to read a part of what lies at `place`, without waiting for it. Allocates nothing.
    pub fn will_need(&self, place: Place, part: Range<usize>) {
        let mapping = &self.mappings[place.mapping];
        let end = (place.offset + part.end).min(place.offset + place.len);
        for start in (place.offset + part.start..end).step_by(ASKED_BYTES) {
            let len = ASKED_BYTES.min(end - start);
            // What is not read now is read when it is touched.
            let _ = mapping.bytes.advise_range(Advice::WillNeed, start, len);
        }
    }

    /// Where the longest run of bytes lies that was left on the disk, to measure the disk with.
    pub fn on_disk(&self) -> Option<OnDisk> {
        let spans = self.spans(MappedTensor::is_on_disk);
        let longest = spans.iter().max_by_key(|span| span.range.len())?;
        let at = |offset: usize| longest.mapping.offset + offset as u64;
        Some(OnDisk {
            path: longest.mapping.file.path.clone(),
            range: at(longest.range.start)..at(longest.range.end),
        })
    }
}
