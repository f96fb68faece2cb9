//! Files read past the page cache, as the disk has them.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// What direct reads have to be aligned to.
const ALIGNMENT: usize = 4096;
/// Bytes that are read at once to measure a disk.
const PIECE: usize = 1 << 20;
/// Pieces that are read for it at least and at most.
const PIECES: (u64, u64) = (4, 64);
/// Time that it takes at most, once the fewest pieces are read.
const PROBE_TIME: Duration = Duration::from_millis(300);

/// A file opened past the page cache, where the file system can do that.
#[derive(Debug)]
pub struct Direct {
    file: Option<File>,
}

/// Bytes at an aligned address.
struct Room {
    bytes: Vec<u8>,
    skip: usize,
    len: usize,
}

impl Room {
    fn new(len: usize) -> Room {
        let bytes = vec![0; len.next_multiple_of(ALIGNMENT) + ALIGNMENT];
        let skip = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Room { bytes, skip, len }
    }

    /// All of it, which may be more than was asked for.
    fn aligned(&mut self) -> &mut [u8] {
        let len = self.len.next_multiple_of(ALIGNMENT);
        &mut self.bytes[self.skip..self.skip + len]
    }

    fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.drain(..self.skip);
        self.bytes.truncate(self.len);
        self.bytes
    }
}

impl Direct {
    /// Opens a file; a symbolic link is not followed.
    pub fn open(path: &Path) -> Direct {
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_DIRECT;
        Direct { file: OpenOptions::new().read(true).custom_flags(flags).open(path).ok() }
    }

    /// `len` bytes as the disk has them; as the cache has them if the disk cannot be asked.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn read(&self, cached: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut room = Room::new(len);
        let whole = |file: &File| file.read_at(room.aligned(), at).is_ok_and(|count| count >= len);
        if self.file.as_ref().is_some_and(whole) {
            return Ok(room.into_bytes());
        }
        let mut bytes = vec![0; len];
        cached.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

/// Bytes per second that the disk gives of a part of a file, in pieces that are far from each other; `None` if it
/// cannot be read past the page cache. Takes a third of a second; not for an async thread.
pub fn read_bytes_per_s(path: &Path, range: &Range<u64>) -> Option<u64> {
    let file = Direct::open(&path.canonicalize().ok()?).file?;
    let (piece, alignment) = (PIECE as u64, ALIGNMENT as u64);
    let first = range.start.next_multiple_of(alignment);
    let pieces = (range.end.saturating_sub(first) / piece).min(PIECES.1);
    if pieces == 0 {
        return None;
    }
    let step = (range.end - first - piece) / pieces / alignment * alignment;
    let mut room = Room::new(PIECE);
    let (started, mut bytes) = (Instant::now(), 0);
    for number in 0..pieces {
        bytes += file.read_at(room.aligned(), first + number * step).ok()? as u64;
        if number + 1 >= PIECES.0 && started.elapsed() >= PROBE_TIME {
            break;
        }
    }
    let nanoseconds = started.elapsed().as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanoseconds).ok().filter(|speed| *speed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_what_is_too_short_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 5 << 20]).unwrap();
        assert_eq!(read_bytes_per_s(&path, &(100..1 << 20)), None);
        assert_eq!(read_bytes_per_s(&dir.path().join("none"), &(0..5 << 20)), None);
        // Some file systems cannot be read past the cache; then nothing is known.
        let found = read_bytes_per_s(&path, &(100..5 << 20));
        assert!(found.is_none_or(|speed| speed > 1 << 20), "{found:?}");
    }

    #[test]
    fn what_is_read_past_the_cache_are_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..100_000u32).map(|at| at as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let (direct, cached) = (Direct::open(&path), File::open(&path).unwrap());
        assert_eq!(direct.read(&cached, 4096, 70_001).unwrap(), bytes[4096..74_097]);
        assert!(direct.read(&cached, 4096, 100_000).is_err(), "beyond the end");
    }
}
