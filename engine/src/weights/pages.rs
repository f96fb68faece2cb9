//! What is asked of the system about the pages of mappings: to read them in, to forget them, and how
//! large they are. Knows no tensor.
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use memmap2::{Advice, Mmap};

/// Bytes from one touched byte to the next: the smallest page.
const TOUCH_BYTES: usize = 4096;

/// Reads in a part of a mapping that begins on a page.
pub(super) fn read_in(mapping: &Mmap, piece: &Range<usize>) {
    if mapping.advise_range(Advice::PopulateRead, piece.start, piece.len()).is_err() {
        touch(&mapping[piece.clone()]);
    }
}

/// Drops a part of a file from the cache, as far as nobody uses it.
pub(super) fn forget(file: &File, offset: u64, len: usize) {
    let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else { return };
    // SAFETY: advice on an open file; it touches no memory of ours. Where it is not taken, the pages
    // stay as they are.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
}

/// Keeps pages in memory from the moment that they are read in.
///
/// # Errors
/// The system's.
pub(super) fn lock(bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the range is mapped and ours; its contents do not change.
    let result = unsafe { libc::mlock2(bytes.as_ptr().cast(), bytes.len(), libc::MLOCK_ONFAULT) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(super) fn addresses(bytes: &[u8]) -> Range<usize> {
    let range = bytes.as_ptr_range();
    range.start.addr()..range.end.addr()
}

/// Bytes in huge pages of this process's file mappings that overlap `ranges`.
pub(super) fn huge_bytes_of(ranges: &[Range<usize>]) -> Option<u64> {
    Some(huge_bytes_in(&fs::read_to_string("/proc/self/smaps").ok()?, ranges))
}

/// As [`huge_bytes_of`], from the system's list of mappings.
pub(super) fn huge_bytes_in(list: &str, ranges: &[Range<usize>]) -> u64 {
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

/// Ranges that cover those given, which stand in order of their starts: begun on a page of `page`
/// bytes, and one range where two overlap, touch or share a page.
pub(super) fn merged(ranges: impl Iterator<Item = Range<u64>>, page: u64) -> Vec<Range<u64>> {
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
