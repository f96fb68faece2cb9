//! Ranges of files in memory, and the tensors that lie in them. Knows no model and no slice.
//!
//! A mapping is shared by the tensors in it and goes with the last of them; a tensor that goes
//! before gives back the pages that are its alone.
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};

use super::lost_pages::Known;
use crate::gguf::FileIdentity;
use crate::memory::page_size;

/// A file that stays open so that changes to it can be seen.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// What it was when it was opened.
    pub(super) identity: FileIdentity,
}

impl OpenFile {
    /// Whether it has the bytes that it had when it was opened, as far as size and time tell.
    pub(super) fn is_unchanged(&self) -> bool {
        let now = self.file.metadata().map(|metadata| FileIdentity::of(&metadata));
        now.is_ok_and(|now| is_same(&now, &self.identity))
    }
}

/// A part of a file in memory.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) file: Arc<OpenFile>,
    /// Where in the file it begins; a multiple of the page.
    pub(super) offset: u64,
    /// Goes before the bytes do: an address is never taken for one of a mapping that is no more.
    _known: Known,
    pub(super) bytes: Mmap,
}

/// A tensor in memory.
#[derive(Debug)]
pub(super) struct MappedTensor {
    pub(super) name: String,
    pub(super) mapping: Arc<Mapping>,
    /// Where in the mapping it lies.
    pub(super) range: Range<usize>,
    is_populated: AtomicBool,
    /// It need not be in memory as a whole.
    is_on_disk: AtomicBool,
}

impl Mapping {
    /// Maps `range` of `file`, which begins on a page.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(file: &Arc<OpenFile>, range: &Range<u64>) -> io::Result<Self> {
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        // SAFETY: the mapping is read-only and lies inside a regular file whose size was checked.
        // That nobody writes to the file is the documented duty of its owner; no reference into
        // the mapping outlives it, as all of them borrow from `bytes`.
        let bytes = unsafe { MmapOptions::new().offset(range.start).len(len).map(&file.file) }?;
        // Where the system gives none, it gives small ones.
        let _ = bytes.advise(Advice::HugePage);
        Ok(Self { file: Arc::clone(file), offset: range.start, _known: Known::new(&bytes), bytes })
    }
}

impl MappedTensor {
    /// The tensor `name` in `range` of `mapping`; not populated yet.
    pub(super) fn new(name: &str, mapping: &Arc<Mapping>, range: Range<usize>) -> Self {
        Self {
            name: name.to_owned(),
            mapping: Arc::clone(mapping),
            range,
            is_populated: AtomicBool::new(false),
            is_on_disk: AtomicBool::new(false),
        }
    }

    /// Whether its pages were read in once.
    pub(super) fn is_populated(&self) -> bool {
        self.is_populated.load(Ordering::Acquire)
    }

    /// Notes that its pages were read in.
    pub(super) fn set_populated(&self) {
        self.is_populated.store(true, Ordering::Release);
    }

    /// Whether it is read from the disk as it is needed.
    pub(super) fn is_on_disk(&self) -> bool {
        self.is_on_disk.load(Ordering::Acquire)
    }

    /// Says whether it is.
    pub(super) fn set_on_disk(&self, is_on_disk: bool) {
        self.is_on_disk.store(is_on_disk, Ordering::Release);
    }
}

impl Drop for MappedTensor {
    /// Unlocks the tensor's pages and takes them off this process, those that it shares with a
    /// neighbour excepted. The system keeps them in its cache as long as it likes.
    fn drop(&mut self) {
        // The last one unmaps everything.
        if Arc::strong_count(&self.mapping) == 1 {
            return;
        }
        let page = page_size();
        let (start, end) = (self.range.start.next_multiple_of(page), self.range.end / page * page);
        if start >= end {
            return;
        }
        let pages = &self.mapping.bytes[start..end];
        // SAFETY: the range is mapped and ours; unlocking changes no byte.
        unsafe { libc::munlock(pages.as_ptr().cast(), pages.len()) };
        // SAFETY: the mapping is shared and read-only: a page that is read again comes from the
        // file with the same bytes. Where the advice is not taken, the pages stay.
        let _ = unsafe {
            self.mapping.bytes.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
        };
    }
}

/// Whether two identities are of the same bytes. The time of the last change of attributes is left
/// out: a new name or owner does not touch the contents.
pub(super) fn is_same(a: &FileIdentity, b: &FileIdentity) -> bool {
    let contents = |i: &FileIdentity| (i.device, i.inode, i.size, i.modified_ns);
    contents(a) == contents(b)
}
