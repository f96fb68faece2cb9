//! A file on its way in: `NAME.part`, locked by the process that fills it, and beside it a record of what is whole.
//!
//! The record says no more than what is on the disk: bytes are synced before it is written. Both survive every
//! end of the process. A file gets its name when it is complete and right, by rename.

use super::answer::show_hex;
use super::spans::Spans;
use super::trouble::FetchError;
use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes that are read at a time.
const BLOCK: usize = 1 << 20;
/// What a GGUF file begins with.
const MAGIC: &[u8] = b"GGUF";
/// Bytes of a record at most.
const RECORD_MAX: u64 = 1 << 20;

/// Which file it is; another one with the same name is not gone on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Bytes.
    pub size: u64,
    /// SHA-256 in small hexadecimal digits.
    pub sha256: Option<String>,
    /// `ETag` or `Last-Modified`; counts where there is no digest.
    pub validator: Option<String>,
}

impl Identity {
    /// Whether bytes of the one are bytes of the other.
    fn is_same(&self, other: &Identity) -> bool {
        let named = match (&self.sha256, &other.sha256) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.validator.is_some() && self.validator == other.validator,
        };
        self.size == other.size && named
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    identity: Identity,
    whole: Spans,
}

/// What came of opening a part.
pub enum Opened {
    /// It is ours until it is finished or dropped.
    Mine(Part),
    /// Another process fills it.
    Busy(File),
}

/// A `.part` with its lock.
pub struct Part {
    file: File,
    target: PathBuf,
    #[cfg(test)]
    pub(super) room: Option<u64>,
}

impl Part {
    /// Opens and locks the part of `target`.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn open(target: &Path) -> Result<Opened, FetchError> {
        let path = part_path(target);
        let fail = |error: io::Error| failed("open", &path, &error);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|error| failed("make", folder, &error))?;
        }
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            // A link that somebody put there does not lead us elsewhere.
            options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
            let file = options.open(&path).map_err(fail)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Opened::Busy(file)),
                Err(TryLockError::Error(error)) => return Err(failed("lock", &path, &error)),
            }
            // Whoever held the lock before may have renamed or removed what was opened here.
            let ours = file.metadata().map_err(fail)?;
            let there = fs::symlink_metadata(&path);
            if there.is_ok_and(|there| (there.ino(), there.dev()) == (ours.ino(), ours.dev())) {
                return Ok(Opened::Mine(Part {
                    file,
                    target: target.to_owned(),
                    #[cfg(test)]
                    room: None,
                }));
            }
        }
    }

    /// What an earlier process left of this file; of another file nothing is kept.
    ///
    /// # Errors
    ///
    /// The part cannot be emptied.
    pub fn resume(&self, identity: &Identity) -> Result<Spans, FetchError> {
        let there = self.file.metadata().map_or(0, |data| data.len());
        let record = read_record(&record_path(&self.target)).filter(|record| {
            record.identity.is_same(identity) && record.whole.is_sound(identity.size.min(there))
        });
        if let Some(record) = record {
            return Ok(record.whole);
        }
        self.file.set_len(0).map_err(|error| failed("empty", &part_path(&self.target), &error))?;
        let _ = fs::remove_file(record_path(&self.target));
        Ok(Spans::default())
    }

    /// Writes bytes in their place.
    ///
    /// # Errors
    ///
    /// The disk is full, or broken.
    pub fn write(&self, bytes: &[u8], at: u64) -> Result<(), FetchError> {
        #[cfg(test)]
        if self.room.is_some_and(|room| at + bytes.len() as u64 > room) {
            return Err(self.unwritten("write", &ErrorKind::StorageFull.into(), bytes.len()));
        }
        let written = self.file.write_all_at(bytes, at);
        written.map_err(|error| self.unwritten("write", &error, bytes.len()))
    }

    /// Makes what is whole known to those who go on.
    ///
    /// # Errors
    ///
    /// The disk is full, or broken.
    pub fn note(&self, identity: &Identity, whole: &Spans) -> Result<(), FetchError> {
        let fail = |error: io::Error| self.unwritten("sync", &error, 0);
        self.file.sync_data().map_err(fail)?;
        let record = Record { identity: identity.clone(), whole: whole.clone() };
        let text =
            serde_json::to_vec(&record).map_err(|error| FetchError::Failed(error.to_string()))?;
        let path = record_path(&self.target);
        write_whole(&path, &beside(&path, ".new"), &text).map_err(fail)
    }

    /// Compares the complete file with its digest and gives it its name. `tell` hears how many bytes were read.
    ///
    /// # Errors
    ///
    /// It is not what it should be; then nothing of it is kept.
    pub fn finish(self, identity: &Identity, tell: &mut dyn FnMut(u64)) -> Result<(), FetchError> {
        let path = part_path(&self.target);
        let checked = self.check(identity, tell);
        if let Err(Unfit::Wrong(wrong)) = checked {
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(record_path(&self.target));
            return Err(FetchError::Failed(format!(
                "{}: {wrong}. Nothing of it is kept; pull it again, and if that comes to the same, tell whoever keeps it",
                self.target.display()
            )));
        }
        checked.map_err(|unfit| match unfit {
            Unfit::Io(error) => failed("read", &path, &error),
            Unfit::Wrong(wrong) => FetchError::Failed(wrong),
        })?;
        self.file.sync_all().map_err(|error| self.unwritten("sync", &error, 0))?;
        fs::rename(&path, &self.target).map_err(|error| failed("rename", &path, &error))?;
        let _ = fs::remove_file(record_path(&self.target));
        let folder = self.target.parent().unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed("sync", folder, &error))
    }

    /// Removes the part: the file is there already.
    pub fn discard(self) {
        let record = record_path(&self.target);
        for path in [part_path(&self.target), beside(&record, ".new"), record] {
            let _ = fs::remove_file(path);
        }
    }

    fn check(&self, identity: &Identity, tell: &mut dyn FnMut(u64)) -> Result<(), Unfit> {
        let size = self.file.metadata().map_err(Unfit::Io)?.len();
        if size != identity.size {
            return Err(Unfit::Wrong(format!(
                "{size} bytes came and {} were expected",
                identity.size
            )));
        }
        if size < MAGIC.len() as u64 {
            return Err(Unfit::Wrong("it is no GGUF file but has hardly a byte".to_owned()));
        }
        let mut block = vec![0; BLOCK];
        let (mut digest, mut at) = (Sha256::new(), 0_u64);
        while at < size {
            let len = usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK);
            let bytes = &mut block[..len];
            self.file.read_exact_at(bytes, at).map_err(Unfit::Io)?;
            if at == 0 && !bytes.starts_with(MAGIC) {
                let begin = String::from_utf8_lossy(&bytes[..len.min(16)]).into_owned();
                return Err(Unfit::Wrong(format!("it is no GGUF file but begins with {begin:?}")));
            }
            if identity.sha256.is_none() {
                return Ok(());
            }
            digest.update(&*bytes);
            at += len as u64;
            tell(at);
        }
        let found = show_hex(&digest.finalize());
        match &identity.sha256 {
            Some(expected) if *expected != found => {
                Err(Unfit::Wrong(format!("its SHA-256 is {found}, and the server says {expected}")))
            }
            _ => Ok(()),
        }
    }

    fn unwritten(&self, action: &str, error: &io::Error, len: usize) -> FetchError {
        let path = part_path(&self.target);
        if !matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
        ) {
            return failed(action, &path, error);
        }
        let folder = self.target.parent().unwrap_or(Path::new(".")).to_owned();
        let free = free(&folder).unwrap_or(0);
        FetchError::NoRoom { folder, needed: len as u64, free }
    }
}

/// Why a complete file cannot be used.
enum Unfit {
    Io(io::Error),
    Wrong(String),
}

/// The path of a file on its way in.
pub fn part_path(target: &Path) -> PathBuf {
    beside(target, ".part")
}

/// The path of its record.
pub fn record_path(target: &Path) -> PathBuf {
    beside(target, ".part.json")
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Bytes that a part takes on the disk already.
pub fn taken(target: &Path) -> u64 {
    fs::metadata(part_path(target)).map_or(0, |data| data.blocks() * 512)
}

/// Bytes that may be written to a folder's disk.
///
/// # Errors
///
/// The folder cannot be looked at.
pub fn free(folder: &Path) -> Result<u64, FetchError> {
    let told = statvfs(folder).map_err(|error| failed("look at", folder, &error.into()))?;
    Ok(told.f_bavail.saturating_mul(told.f_frsize))
}

/// Writes a small file by way of `new`, so that it is there whole or not at all.
///
/// # Errors
///
/// The folder cannot be written.
pub fn write_whole(path: &Path, new: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(new, bytes)?;
    File::open(new)?.sync_data()?;
    fs::rename(new, path)
}

fn read_record(path: &Path) -> Option<Record> {
    let small = fs::metadata(path).is_ok_and(|data| data.len() <= RECORD_MAX);
    let text = small.then(|| fs::read(path).ok())??;
    serde_json::from_slice(&text).ok()
}

fn failed(action: &str, path: &Path, error: &io::Error) -> FetchError {
    FetchError::Failed(format!("cannot {action} {}: {error}", path.display()))
}
