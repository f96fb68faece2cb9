//! Opening model files: regular files only, never waiting for one, and the names of split models.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::{GgufError, Problem};
use super::limits::PARTS_MAX;

/// What tells that a file is the one it was: equal identity, equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// Number of the file system.
    pub device: u64,
    /// Number of the file in it.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the contents, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// Last change of contents or attributes, in nanoseconds since 1970.
    pub changed_ns: i128,
}

impl FileIdentity {
    /// The identity that the file system reports.
    pub fn of(metadata: &Metadata) -> Self {
        let nanoseconds =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Opens a regular file for reading. Never waits: a pipe without a writer is refused at once.
pub(crate) fn open_regular(path: &Path) -> Result<(File, FileIdentity), GgufError> {
    let io = |error| GgufError::from(Problem::Io(error)).at_path(path);
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        let found = kind(metadata.file_type());
        return Err(GgufError::from(Problem::NotRegularFile { found }).at_path(path));
    }
    Ok((file, FileIdentity::of(&metadata)))
}

fn kind(ty: FileType) -> &'static str {
    if ty.is_dir() {
        "a directory"
    } else if ty.is_fifo() {
        "a pipe"
    } else if ty.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// The place of a file in a split model, read from its name: `PREFIX-00002-of-00003.gguf`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SplitName {
    prefix: String,
    pub(super) count: usize,
    directory: PathBuf,
}

impl SplitName {
    /// The split that `path` names, if it names one.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let (number, count) = (digits(number)?, digits(count)?);
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        (1..=count).contains(&number).then(|| Self { prefix: prefix.to_owned(), count, directory })
    }

    /// Path of the part with this index, from 0.
    pub(super) fn part(&self, index: usize) -> PathBuf {
        let name = format!("{}-{:05}-of-{:05}.gguf", self.prefix, index + 1, self.count);
        self.directory.join(name)
    }
}

/// Five decimal digits that number a part.
fn digits(text: &str) -> Option<usize> {
    let number = (text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)?;
    number.parse().ok().filter(|&n: &usize| n <= PARTS_MAX)
}
