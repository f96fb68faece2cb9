//! The counter of plan numbers in the state directory: no plan of this cluster ever has a number again.
//!
//! A text file with the first number that is not reserved. Numbers are reserved many at a time, and
//! the file is on the disk before one of them is used; what a process did not use is left out. The
//! order of numbers means nothing.

use crate::trust::state::{read_bounded, write_private};
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Numbers that are reserved at a time.
const RESERVED: u32 = 1 << 12;

/// Where the counter is kept.
#[derive(Clone, Debug)]
pub struct EpochCounter {
    path: PathBuf,
}

impl EpochCounter {
    /// Kept in the file `path`, which one process uses at a time.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reserves the next numbers. Blocks. After 2^32 numbers it begins again.
    ///
    /// # Errors
    ///
    /// When the counter cannot be read or written; nothing is reserved then.
    pub fn reserve(&self) -> io::Result<Range<u32>> {
        let first = match read_bounded(&self.path)? {
            None => 1,
            Some(bytes) => match parse(&bytes) {
                Some(first) => first,
                None => {
                    tracing::warn!(
                        "{} is damaged: plans are numbered from a number drawn at random",
                        self.path.display()
                    );
                    getrandom::u32().map_err(io::Error::other)?
                }
            },
        };
        let end = first.checked_add(RESERVED);
        write_private(&self.path, format!("{}\n", end.unwrap_or(1)).as_bytes())?;
        Ok(first..end.unwrap_or(u32::MAX))
    }
}

fn parse(bytes: &[u8]) -> Option<u32> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_reserved_twice_over_starts() {
        let dir = tempfile::tempdir().unwrap();
        let counter = || EpochCounter::new(dir.path().join("epochs"));
        assert_eq!(counter().reserve().unwrap(), 1..1 + RESERVED);
        assert_eq!(counter().reserve().unwrap(), 1 + RESERVED..1 + 2 * RESERVED);
        std::fs::write(dir.path().join("epochs"), "4294967290\n").unwrap();
        assert_eq!(counter().reserve().unwrap(), 4_294_967_290..u32::MAX);
        assert_eq!(counter().reserve().unwrap(), 1..1 + RESERVED);
    }

    #[test]
    fn a_damaged_counter_begins_anywhere_and_counts_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("epochs");
        std::fs::write(&path, "twelve\n").unwrap();
        let first = EpochCounter::new(path.clone()).reserve().unwrap();
        let second = EpochCounter::new(path).reserve().unwrap();
        assert!(second.start == first.end || second.start == 1, "{first:?}, then {second:?}");
    }
}
