//! A slice on its way in: locked, verified chunk by chunk, finished by fsync and rename.

use super::error::StoreError;
use super::files::{self, CHUNK_LEN, Manifest};
use crate::counters::Counters;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use woolly_protocol::failpoint;

/// What opening a `.part` came to.
#[derive(Debug)]
pub(super) enum Opened {
    /// It is ours until it is finished or dropped.
    Mine(Part),
    /// The complete slice is there.
    Finished,
    /// Another worker fills it; `mark` changes when that one gets on.
    Busy {
        /// Modification time of the other worker's `.part`, seconds and nanoseconds.
        mark: (i64, i64),
    },
}

/// A `.part` file with its lock.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    dir: PathBuf,
    manifest: Arc<Manifest>,
}

impl Part {
    /// Opens and locks the `.part` of a slice.
    pub(super) fn open(dir: &Path, manifest: Arc<Manifest>) -> Result<Opened, StoreError> {
        let path = manifest.part_path(dir);
        let fail = |action, error| StoreError::io(action, &path, manifest.length, error);
        let mut options = files::no_follow();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(|error| fail("open", error))?;
        let data = file.metadata().map_err(|error| fail("open", error))?;
        if !data.is_file() {
            return Err(fail("open", io::Error::other("it is not a regular file")));
        }
        let busy = Opened::Busy { mark: (data.mtime(), data.mtime_nsec()) };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(busy),
            Err(TryLockError::Error(error)) => return Err(fail("lock", error)),
        }
        // Whoever held the lock before may have renamed or removed what was opened here.
        if !files::is_at(&file, &path) {
            return Ok(busy);
        }
        let finished = files::open_existing(&manifest.slice_path(dir))?.is_some();
        if finished {
            fs::remove_file(&path).map_err(|error| fail("remove", error))?;
            return Ok(Opened::Finished);
        }
        let len = data.len().min(manifest.length);
        file.set_len(len).map_err(|error| fail("truncate", error))?;
        Ok(Opened::Mine(Part { file, path, dir: dir.to_owned(), manifest }))
    }

    /// What the slice consists of.
    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Compares what is there with the manifest; right chunks advance `counters.loaded`.
    pub(super) fn missing_chunks(&self, counters: &Counters) -> Result<Vec<u32>, StoreError> {
        missing_chunks(&self.file, &self.path, &self.manifest, counters)
    }

    /// Compares a fetched chunk with its hash and writes it in its place. `Ok(Err(…))` says what is
    /// wrong with the bytes.
    pub(super) fn write_chunk(
        &self,
        chunk: u32,
        bytes: &[u8],
    ) -> Result<Result<(), String>, StoreError> {
        let expected = self.manifest.chunk_len(chunk).unwrap_or(0);
        if bytes.len() != expected {
            return Ok(Err(format!("{} bytes came, expected {expected}", bytes.len())));
        }
        let hash = blake3::hash(bytes);
        if !self.manifest.chunks.get(chunk as usize).is_some_and(|right| is_right(&hash, right)) {
            return Ok(Err(format!("its hash is {}", hash.to_hex())));
        }
        let at = u64::from(chunk) * CHUNK_LEN;
        let written = if failpoint::hit("worker.chunk") {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            self.file.write_all_at(bytes, at)
        };
        written.map_err(|error| self.abandon("write", error))?;
        Ok(Ok(()))
    }

    /// Makes the complete file durable under its final name; returns it with a shared lock.
    pub(super) fn finish(self) -> Result<(PathBuf, File), StoreError> {
        let path = self.manifest.slice_path(&self.dir);
        self.file.sync_all().map_err(|error| self.abandon("sync", error))?;
        fs::rename(&self.path, &path).map_err(|error| self.abandon("rename", error))?;
        let sync_dir = File::open(&self.dir).and_then(|dir| dir.sync_all());
        sync_dir.map_err(|error| StoreError::io("sync", &self.dir, 0, error))?;
        self.file.lock_shared().map_err(|error| StoreError::io("lock", &path, 0, error))?;
        files::mark_verified(&self.dir, &self.manifest, &self.file)?;
        Ok((path, self.file))
    }

    /// On a full disk the `.part` is removed: others need the room, and it cannot be finished.
    fn abandon(&self, action: &'static str, error: io::Error) -> StoreError {
        let error = StoreError::io(action, &self.path, self.manifest.length, error);
        if matches!(error, StoreError::NoSpace { .. }) {
            let _ = fs::remove_file(&self.path);
        }
        error
    }
}

/// Whether a chunk that was fetched or kept has the hash that the manifest names.
fn is_right(hash: &blake3::Hash, right: &[u8; 32]) -> bool {
    hash == right || failpoint::planted("accept-wrong-chunk-hash")
}

/// Compares every chunk of `file` with the manifest and lists those that are not right.
pub(super) fn missing_chunks(
    file: &File,
    path: &Path,
    manifest: &Manifest,
    counters: &Counters,
) -> Result<Vec<u32>, StoreError> {
    let mut missing = Vec::new();
    let mut buffer = vec![0; usize::try_from(CHUNK_LEN.min(manifest.length)).unwrap_or(0)];
    let file_len = file.metadata().map_err(|error| StoreError::io("read", path, 0, error))?.len();
    for (chunk, expected) in (0u32..).zip(&manifest.chunks) {
        let at = u64::from(chunk) * CHUNK_LEN;
        let len = manifest.chunk_len(chunk).unwrap_or(0);
        let bytes = &mut buffer[..len];
        if at + len as u64 > file_len {
            missing.push(chunk);
            continue;
        }
        file.read_exact_at(bytes, at).map_err(|error| StoreError::io("read", path, 0, error))?;
        if is_right(&blake3::hash(bytes), expected) {
            counters.loaded.fetch_add(len as u64, Relaxed);
        } else {
            missing.push(chunk);
        }
    }
    Ok(missing)
}

#[cfg(test)]
impl Part {
    /// A part over any open file, to show what errors of the file system come to.
    pub(super) fn over(file: File, path: PathBuf, dir: PathBuf, manifest: Arc<Manifest>) -> Part {
        Part { file, path, dir, manifest }
    }
}
