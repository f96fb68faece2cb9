//! Buffers in memory of their own: zeroed, aligned, and in huge pages where the system gives them.
//!
//! A thread that streams through gigabytes spends a noticeable part of its time on finding pages;
//! pages of 2 MiB make that part small.

use bytemuck::Pod;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// Bytes of a huge page; a system with others gives none of these, and ordinary ones instead.
pub const HUGE_PAGE: usize = 2 << 20;
/// Bytes at whose multiples every buffer begins: a cache line, which is the widest vector, too.
pub const ALIGNMENT: usize = 64;

/// Bytes of a page where the system does not say how many it has: the most in use on Linux.
const PAGE_MAX: usize = 64 << 10;
/// Bytes that whole pages take beyond the buffers and mappings that lie on them, with room to spare:
/// a limit that is raised to what an error names must be high enough.
const LOCK_ROUNDING: u64 = 16 << 20;

/// A fixed number of values in memory of their own, all zero at first.
///
/// It begins at a multiple of [`ALIGNMENT`], and of [`HUGE_PAGE`] if it has at least as many bytes.
/// The system zeroes a page when it is first touched: until then the page takes no memory.
pub struct Buffer<T: Pod> {
    start: NonNull<T>,
    len: usize,
    values: PhantomData<T>,
}

// SAFETY: the buffer owns its memory alone, as a `Vec` does, and plain values may go anywhere.
unsafe impl<T: Pod + Send> Send for Buffer<T> {}
// SAFETY: as above; shared references only read.
unsafe impl<T: Pod + Sync> Sync for Buffer<T> {}

impl<T: Pod> Buffer<T> {
    /// A buffer of `len` zeroed values.
    ///
    /// # Panics
    ///
    /// If the system does not give that much memory.
    pub fn new(len: usize) -> Self {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        let bytes = len.checked_mul(size_of::<T>()).expect("a buffer fits the address space");
        if bytes == 0 {
            return Self { start: NonNull::dangling(), len, values: PhantomData };
        }
        let start = map_zeroed(bytes)
            .unwrap_or_else(|error| panic!("no memory for a buffer of {bytes} bytes: {error}"));
        Self { start: start.cast(), len, values: PhantomData }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of its values.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Brings all of it into memory and keeps it there, whatever else the machine needs memory for.
    ///
    /// # Errors
    ///
    /// The system's, most often because the process may not lock that much.
    pub fn lock(&self) -> io::Result<()> {
        if self.bytes() == 0 {
            return Ok(());
        }
        // SAFETY: the range is mapped and ours; its contents do not change.
        match unsafe { libc::mlock(self.start.as_ptr().cast(), self.bytes()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values lie there, aligned, zeroed by the system or written since, or there
        // are none; every bit pattern is a value, and the borrow is the buffer's.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the buffer is borrowed for writing, so nobody else looks.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Pod> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.bytes() > 0 {
            unmap(self.start.cast(), self.bytes());
        }
    }
}

impl<T: Pod> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish()
    }
}

/// Why memory cannot be locked, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{needed_kib} KiB cannot be locked in memory: {source}; {}", self.advice())]
pub struct LockError {
    needed_kib: u64,
    limit_kib: Option<u64>,
    source: io::Error,
}

impl LockError {
    /// What the system said when `needed` bytes in all were to be locked.
    pub fn new(needed: u64, source: io::Error) -> Self {
        let needed_kib = needed.saturating_add(LOCK_ROUNDING) / 1024;
        Self { needed_kib, limit_kib: lock_limit_kib(), source }
    }

    fn advice(&self) -> String {
        let needed = self.needed_kib;
        match self.limit_kib {
            Some(limit) if limit < needed => format!(
                "the limit RLIMIT_MEMLOCK is {limit} KiB: raise it with `ulimit -l {needed}` as \
                 root, in /etc/security/limits.conf, or as LimitMEMLOCK={needed}K of a systemd unit"
            ),
            Some(limit) => format!(
                "the limit RLIMIT_MEMLOCK is {limit} KiB, and something else was locked before, or \
                 the machine has too little memory"
            ),
            None => "RLIMIT_MEMLOCK sets no limit: the machine has too little memory".to_owned(),
        }
    }
}

/// What this process may lock, in KiB; `None` if there is no limit.
fn lock_limit_kib() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    // SAFETY: the system writes one structure, which is ours; if it fails, nothing is written.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur / 1024)
}

/// Maps `bytes` zeroed bytes, more than none, at a multiple of [`HUGE_PAGE`] if they are as many.
fn map_zeroed(bytes: usize) -> io::Result<NonNull<u8>> {
    if bytes < HUGE_PAGE {
        return map_anywhere(bytes);
    }
    let too_many = || io::Error::from(io::ErrorKind::OutOfMemory);
    let reserved = bytes.checked_add(HUGE_PAGE).ok_or_else(too_many)?;
    let found = map_anywhere(reserved)?;
    let address = found.as_ptr().addr();
    let skipped = address.next_multiple_of(HUGE_PAGE) - address;
    // SAFETY: less than a huge page is skipped, and that much more than `bytes` is mapped.
    let start = unsafe { found.add(skipped) };
    // What is left over at the end begins with the first page that the buffer has no part of.
    let used = bytes.next_multiple_of(page_size());
    // SAFETY: both are within what was reserved.
    let end = unsafe { start.add(used) };
    let left = reserved.next_multiple_of(page_size()) - skipped - used;
    unmap(found, skipped);
    unmap(end, left);
    // SAFETY: the range is mapped and ours. Advice changes no contents; a system that does not take
    // it gives ordinary pages.
    unsafe { libc::madvise(start.as_ptr().cast(), used, libc::MADV_HUGEPAGE) };
    Ok(start)
}

fn map_anywhere(bytes: usize) -> io::Result<NonNull<u8>> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: a new mapping where the system likes touches nothing that exists.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

/// Gives `bytes` bytes, whole pages but for the last one, back to the system.
fn unmap(start: NonNull<u8>, bytes: usize) {
    if bytes == 0 {
        return;
    }
    // SAFETY: the range is a part of one of our mappings that nothing refers to any longer.
    let result = unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
    debug_assert_eq!(result, 0, "the range was mapped");
}

/// Bytes of the pages that hold `bytes` bytes.
pub(crate) fn whole_pages(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(page_size() as u64)
}

/// Bytes of this machine's pages.
pub(crate) fn page_size() -> usize {
    // SAFETY: asks for a number of the system and touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(PAGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zeroed() {
        for len in [1, 63, 4096, HUGE_PAGE - 1, HUGE_PAGE, HUGE_PAGE + 1, 5 * HUGE_PAGE + 4097] {
            let mut buffer = Buffer::<u8>::new(len);
            let alignment = if len < HUGE_PAGE { ALIGNMENT } else { HUGE_PAGE };
            assert_eq!(buffer.as_ptr().addr() % alignment, 0, "{len}");
            assert_eq!((buffer.len(), buffer.bytes()), (len, len));
            assert!(buffer.iter().all(|&byte| byte == 0), "{len}");
            buffer.fill(0xa5);
            assert!(buffer.iter().all(|&byte| byte == 0xa5), "{len}");
        }
    }

    #[test]
    fn buffers_side_by_side_share_nothing() {
        let mut buffers: Vec<Buffer<u32>> =
            [0, 1, 1 << 20, 3, (1 << 20) + 1, 7].into_iter().map(Buffer::new).collect();
        for (value, buffer) in (1..).zip(&mut buffers) {
            buffer.fill(value);
        }
        // One in the middle goes, its neighbours stay.
        drop(buffers.remove(2));
        for (value, buffer) in [1, 2, 4, 5, 6].into_iter().zip(&buffers) {
            assert!(buffer.iter().all(|&found| found == value), "{buffer:?}");
        }
    }

    #[test]
    fn an_empty_buffer_is_one_too() {
        let mut buffer = Buffer::<f32>::new(0);
        assert!(buffer.is_empty() && buffer.iter().next().is_none());
        buffer.fill(1.0);
        buffer.lock().unwrap();
        assert_eq!(format!("{buffer:?}"), "Buffer { len: 0 }");
    }

    #[test]
    fn a_locked_buffer_is_still_zeroed_and_writable() {
        // One page: less than any system's limit.
        let mut buffer = Buffer::<u8>::new(4096);
        buffer.lock().unwrap();
        assert!(buffer.iter().all(|&byte| byte == 0));
        buffer.fill(7);
        assert!(buffer.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn a_refusal_to_lock_names_the_limit_and_the_remedy() {
        let source = || io::Error::from_raw_os_error(libc::ENOMEM);
        let refused = LockError { limit_kib: Some(64), ..LockError::new(5 << 20, source()) };
        let text = refused.to_string();
        for part in ["21504 KiB", "RLIMIT_MEMLOCK is 64 KiB", "ulimit -l 21504", "LimitMEMLOCK"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        let unlimited = LockError { limit_kib: None, ..LockError::new(5 << 20, source()) };
        assert!(unlimited.to_string().contains("too little memory"), "{unlimited}");
    }

    #[test]
    #[should_panic(expected = "no memory for a buffer")]
    fn a_buffer_that_no_machine_has_room_for_is_refused() {
        let _ = Buffer::<u8>::new(usize::MAX / 2);
    }
}
