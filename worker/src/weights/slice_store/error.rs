//! Why a slice is not there.

use crate::units::show_size;
use std::io;
use std::path::Path;
use woolly_protocol::slices::SliceKey;

/// Why a slice is not there.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be used.
    #[error("the slice folder {path} {reason}")]
    Folder {
        /// The folder.
        path: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The disk, or the user's quota, is full.
    #[error(
        "no space left for {path}: {needed} more needed; free some or run `woolly-worker slices prune`"
    )]
    NoSpace {
        /// The file that was being written.
        path: String,
        /// What was still to be written.
        needed: String,
    },
    /// Another error of the file system.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The coordinator's list of chunks does not fit the assignment.
    #[error("the manifest of {slice:?} is refused: {reason}")]
    Manifest {
        /// The slice.
        slice: SliceKey,
        /// What does not fit.
        reason: String,
    },
    /// The other side refused, or could not be reached.
    #[error("cannot fetch {slice:?}: {source}")]
    Fetch {
        /// The slice.
        slice: SliceKey,
        /// Why not.
        source: FetchError,
    },
    /// A chunk came damaged every time.
    #[error("chunk {chunk} of {slice:?} came damaged {times} times: {last}")]
    Corrupt {
        /// The slice.
        slice: SliceKey,
        /// The chunk.
        chunk: u32,
        /// How often it was fetched.
        times: u32,
        /// What was wrong the last time.
        last: String,
    },
}

impl StoreError {
    /// Names the action and the file; a full disk becomes [`StoreError::NoSpace`].
    pub(super) fn io(
        action: &'static str,
        path: &Path,
        needed: u64,
        source: io::Error,
    ) -> StoreError {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let path = path.display().to_string();
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => {
                StoreError::NoSpace { path, needed: show_size(needed) }
            }
            _ => StoreError::Io { action, path, source },
        }
    }
}

/// Why nothing came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The source has no such slice; asking again does not help.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// The connection failed or the answer could not be read.
    #[error("{0}")]
    Lost(String),
    /// Nothing, or too little, came in time.
    #[error("no answer within {0} s")]
    TimedOut(u64),
}
