//! Slices of models on this machine's disk: content-addressed, verified, shared by its workers.
//!
//! ```text
//! <key>.manifest    which chunks a slice of a model consists of; key = hash(fingerprint, slice)
//! <root>.slice      the slice itself, complete and read-only; root = hash(length, chunk hashes)
//! <root>.verified   the slice file's stat, and the boot, when all its chunks were last compared
//! <root>.part       a download: chunks that are right are kept, whatever stopped it
//! ```
//!
//! `key` and `root` are 64 hexadecimal digits that this program computed; nothing a peer sends ever
//! becomes a name. A `.part` is locked by the worker that fills it, and a `.slice` is locked
//! (shared) by every worker that uses it. A slice is complete or not there: the last steps are
//! fsync and rename.

mod download;
mod error;
mod files;
mod inventory;
mod part;
mod scrub;
#[cfg(test)]
mod tests;
mod wanted;

pub use download::ChunkSource;
pub use error::{FetchError, StoreError};
pub use inventory::{Inventory, SliceState};
pub use wanted::{Length, Wanted};

use crate::blocking::blocking;
use crate::counters::Counters;
use crate::weights::verify::Verify;
use files::Manifest;
use part::{Opened, Part};
use scrub::{InUse, Used};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// Slices that are fetched at a time: one is on its way while another is hashed or made durable.
const SLICES_AT_ONCE: usize = 2;
/// How often a worker looks whether another one has finished the download that it waits for.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// A folder of slices.
#[derive(Clone, Debug)]
pub struct SliceStore {
    dir: Arc<Path>,
    in_use: Arc<InUse>,
    /// Names of contents that this process has compared, if it compares all.
    compared: Option<Arc<Mutex<BTreeSet<String>>>>,
}

/// A complete, verified slice. It stays in the store while this value lives.
#[derive(Debug)]
pub struct Stored {
    /// Its file.
    pub path: PathBuf,
    /// Bytes of the slice.
    pub length: u64,
    /// Bytes that came over the network for it now.
    pub fetched_bytes: u64,
    /// Holds a shared lock, so that `slices prune` leaves the file alone.
    _lock: File,
    _used: Used,
}

impl SliceStore {
    /// Opens the store in `dir`, which is made (mode 0700) if it is not there.
    ///
    /// # Errors
    ///
    /// If the folder is a symbolic link, no folder, or cannot be made.
    pub fn open(dir: &Path) -> Result<SliceStore, StoreError> {
        files::prepare_dir(dir)?;
        Ok(SliceStore { dir: dir.into(), in_use: Arc::default(), compared: None })
    }

    /// The same store; slices are looked at again as `verify` says.
    pub fn verifying(self, verify: Verify, counters: &Arc<Counters>) -> SliceStore {
        let interval = verify.verify_interval;
        scrub::start(Arc::clone(&self.dir), &self.in_use, interval, Arc::clone(counters));
        SliceStore { compared: verify.verify.then(Arc::default), ..self }
    }

    /// Makes sure that a slice is on disk and whole: looks for it, verifies it, fetches what is
    /// missing. Every byte of it advances `counters.loaded` once.
    ///
    /// Cancel-safe: what was fetched stays in the `.part`.
    ///
    /// # Errors
    ///
    /// See [`StoreError`]; the store is left as it was, or with a `.part` to go on from.
    pub async fn ensure<S: ChunkSource>(
        &self,
        source: &Arc<S>,
        wanted: Wanted,
        counters: &Arc<Counters>,
    ) -> Result<Stored, StoreError> {
        if let Some(stored) = self.look_up(wanted, counters).await? {
            return Ok(stored);
        }
        let manifest = Arc::new(download::manifest(source, wanted, counters).await?);
        let key = files::key_name(&wanted.fingerprint, wanted.slice);
        let (dir, saved) = (self.dir.clone(), manifest.clone());
        blocking(move || saved.save(&dir, &key)).await?;
        let Some(part) = self.open_part(&manifest, counters).await? else {
            // Another worker finished it while this one waited.
            let found = self.look_up(wanted, counters).await?;
            return found.ok_or_else(|| StoreError::Manifest {
                slice: wanted.slice,
                reason: "the slice vanished from the store while it was opened".to_owned(),
            });
        };
        let (part, missing) = self.verify_part(part, counters).await?;
        let part = Arc::new(part);
        let fetched_bytes =
            download::chunks(source, wanted.slice, &part, missing, counters).await?;
        let part = Arc::into_inner(part).expect("all fetches have ended");
        let (path, lock) = blocking(move || part.finish()).await?;
        let used = self.in_use.add(&manifest);
        self.has_compared(&manifest);
        Ok(Stored { path, length: manifest.length, fetched_bytes, _lock: lock, _used: used })
    }

    /// The same for several, some at a time: while one is being hashed by the coordinator or made durable here,
    /// another is on its way. In any order; `name` is handed back with each.
    ///
    /// # Errors
    ///
    /// The first that is met; what was fetched of the others stays.
    pub async fn ensure_all<S: ChunkSource, N: Send + 'static>(
        &self,
        source: &Arc<S>,
        wanted: impl IntoIterator<Item = (N, Wanted)>,
        counters: &Arc<Counters>,
    ) -> Result<Vec<(N, Stored)>, StoreError> {
        let (mut wanted, mut stored) = (wanted.into_iter(), Vec::new());
        let mut fetches = JoinSet::new();
        loop {
            while fetches.len() < SLICES_AT_ONCE
                && let Some((name, wanted)) = wanted.next()
            {
                let (store, source) = (self.clone(), Arc::clone(source));
                let counters = Arc::clone(counters);
                fetches.spawn(async move {
                    Ok::<_, StoreError>((name, store.ensure(&source, wanted, &counters).await?))
                });
            }
            match fetches.join_next().await {
                None => return Ok(stored),
                Some(Ok(fetched)) => stored.push(fetched?),
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }

    async fn look_up(
        &self,
        wanted: Wanted,
        counters: &Arc<Counters>,
    ) -> Result<Option<Stored>, StoreError> {
        let (store, counters) = (self.clone(), counters.clone());
        blocking(move || look_up(&store, wanted, &counters)).await
    }

    /// Whether a slice has to be compared although it was once: it was not by this process, which
    /// compares all.
    fn must_compare(&self, manifest: &Manifest) -> bool {
        self.compared.as_ref().is_some_and(|compared| {
            let compared = compared.lock().unwrap_or_else(PoisonError::into_inner);
            !compared.contains(&manifest.root_name())
        })
    }

    fn has_compared(&self, manifest: &Manifest) {
        if let Some(compared) = &self.compared {
            let mut compared = compared.lock().unwrap_or_else(PoisonError::into_inner);
            compared.insert(manifest.root_name());
        }
    }

    /// Waits for the lock of the slice's `.part`. `None` if another worker has finished it.
    async fn open_part(
        &self,
        manifest: &Arc<Manifest>,
        counters: &Arc<Counters>,
    ) -> Result<Option<Part>, StoreError> {
        let mut seen = None;
        loop {
            let (dir, manifest) = (self.dir.clone(), manifest.clone());
            match blocking(move || Part::open(&dir, manifest)).await? {
                Opened::Mine(part) => return Ok(Some(part)),
                Opened::Finished => return Ok(None),
                Opened::Busy { mark } => {
                    // The other worker's download is this one's progress, too.
                    if seen.replace(mark) != Some(mark) {
                        counters.progress.fetch_add(1, Relaxed);
                    }
                    tokio::time::sleep(LOCK_POLL).await;
                }
            }
        }
    }

    async fn verify_part(
        &self,
        part: Part,
        counters: &Arc<Counters>,
    ) -> Result<(Part, Vec<u32>), StoreError> {
        let counters = counters.clone();
        blocking(move || {
            let missing = part.missing_chunks(&counters)?;
            Ok((part, missing))
        })
        .await
    }
}

/// Finds a complete slice and verifies it unless its stat says that it was verified since the machine
/// booted. What is read for that is in the page cache when the slice is mapped.
fn look_up(
    store: &SliceStore,
    wanted: Wanted,
    counters: &Counters,
) -> Result<Option<Stored>, StoreError> {
    let dir: &Path = &store.dir;
    let key = files::key_name(&wanted.fingerprint, wanted.slice);
    let Some(manifest) = Manifest::load(dir, &key) else { return Ok(None) };
    if manifest.check(&wanted).is_err() {
        return Ok(None);
    }
    let path = manifest.slice_path(dir);
    let Some(file) = files::open_existing(&path)? else { return Ok(None) };
    file.lock_shared().map_err(|error| StoreError::io("lock", &path, 0, error))?;
    if !files::is_at(&file, &path) {
        // Pruned, or set aside as damaged by another worker, while the lock was waited for.
        return Ok(None);
    }
    if store.must_compare(&manifest) || !files::is_verified(dir, &manifest, &file) {
        let missing = part::missing_chunks(&file, &path, &manifest, &Counters::default())?;
        let same_length = file.metadata().is_ok_and(|data| data.len() == manifest.length);
        if !missing.is_empty() || !same_length {
            let damaged = missing.len() as u64;
            let in_all = counters.damaged_chunks.fetch_add(damaged, Relaxed) + damaged;
            tracing::warn!(damaged, in_all, "a stored slice is not what it was");
            set_aside(dir, &manifest, &file, missing.len())?;
            return Ok(None);
        }
        files::mark_verified(dir, &manifest, &file)?;
        store.has_compared(&manifest);
    }
    counters.loaded.fetch_add(manifest.length, Relaxed);
    let (length, used) = (manifest.length, store.in_use.add(&Arc::new(manifest)));
    Ok(Some(Stored { path, length, fetched_bytes: 0, _lock: file, _used: used }))
}

/// A damaged slice becomes a `.part` again, so that only its damaged chunks are fetched; if another
/// worker has it open, it only loses its name, so that nobody's mapping changes.
fn set_aside(
    dir: &Path,
    manifest: &Manifest,
    file: &File,
    damaged: usize,
) -> Result<(), StoreError> {
    let path = manifest.slice_path(dir);
    tracing::warn!("{} is damaged in {damaged} chunks; fetching them again", path.display());
    if file.try_lock().is_ok() {
        let part_path = manifest.part_path(dir);
        std::fs::rename(&path, &part_path)
            .map_err(|error| StoreError::io("rename", &path, 0, error))
    } else {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path, 0, error))
            }
            _ => Ok(()),
        }
    }
}
