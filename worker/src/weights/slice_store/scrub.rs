//! Reading slices that are in use from the disk again, slowly: a disk that rots is noticed before the
//! next start needs what it holds.
//!
//! A chunk that is wrong on the disk is most often still right in memory, where the pages of a
//! mapped slice stay: then it is written again from there, and the file keeps its time, so nobody is
//! disturbed. One that is wrong in memory too has been computed with: the file gets a new time, by
//! which whoever maps it stops, and the next use compares and fetches it again.

use super::error::StoreError;
use super::files::{self, CHUNK_LEN, Manifest};
use crate::counters::Counters;
use crate::machine::direct::Direct;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

/// Bytes per second that are read at most.
const BYTES_PER_S_MAX: u64 = 50_000_000;
/// The longest sleep: the end of the worker is noticed after it.
const NAP: Duration = Duration::from_secs(1);

/// The slices in use, by the name of their content.
#[derive(Debug, Default)]
pub(super) struct InUse {
    slices: Mutex<BTreeMap<String, (Arc<Manifest>, usize)>>,
}

/// A slice is in use as long as this lives.
#[derive(Debug)]
pub(super) struct Used {
    root: String,
    all: Arc<InUse>,
}

impl InUse {
    /// A slice is used from now on.
    pub(super) fn add(self: &Arc<Self>, manifest: &Arc<Manifest>) -> Used {
        let root = manifest.root_name();
        let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        slices.entry(root.clone()).or_insert_with(|| (Arc::clone(manifest), 0)).1 += 1;
        Used { root, all: Arc::clone(self) }
    }

    fn list(&self) -> Vec<Arc<Manifest>> {
        let slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        slices.values().map(|(manifest, _)| Arc::clone(manifest)).collect()
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut slices = self.all.slices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = slices.get_mut(&self.root) {
            *count -= 1;
            if *count == 0 {
                slices.remove(&self.root);
            }
        }
    }
}

/// Starts the thread that reads the slices in use every `interval`. It ends with the store.
pub(super) fn start(
    dir: Arc<Path>,
    in_use: &Arc<InUse>,
    interval: Duration,
    counters: Arc<Counters>,
) {
    if interval.is_zero() {
        return;
    }
    let in_use = Arc::downgrade(in_use);
    let thread = std::thread::Builder::new().name("verify".to_owned());
    let started = thread.spawn(move || run(&dir, &in_use, interval, &counters));
    if let Err(error) = started {
        tracing::warn!("stored slices are not read again in the background: {error}");
    }
}

fn run(dir: &Path, in_use: &Weak<InUse>, interval: Duration, counters: &Counters) {
    loop {
        let until = Instant::now() + interval;
        while Instant::now() < until {
            if in_use.strong_count() == 0 {
                return;
            }
            std::thread::sleep(NAP.min(until.saturating_duration_since(Instant::now())));
        }
        let Some(slices) = in_use.upgrade().map(|in_use| in_use.list()) else { return };
        for manifest in slices {
            match check_slice(dir, &manifest, counters, &mut Pace::default()) {
                Ok(0) => {}
                Ok(damaged) => tracing::warn!(
                    damaged,
                    in_all = counters.damaged_chunks.load(Relaxed),
                    "{} had damaged chunks",
                    manifest.slice_path(dir).display()
                ),
                Err(error) => tracing::warn!("a stored slice cannot be read again: {error}"),
            }
        }
    }
}

/// Keeps reading below [`BYTES_PER_S_MAX`].
#[derive(Debug, Default)]
struct Pace {
    due: Option<Instant>,
}

impl Pace {
    fn wait_for(&mut self, bytes: usize) {
        let due = self.due.unwrap_or_else(Instant::now).max(Instant::now() - NAP);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        self.due = Some(due + Duration::from_nanos(bytes as u64 * 1_000_000_000 / BYTES_PER_S_MAX));
    }
}

/// Reads one slice from the disk; says how many chunks were damaged.
fn check_slice(
    dir: &Path,
    manifest: &Manifest,
    counters: &Counters,
    pace: &mut Pace,
) -> Result<usize, StoreError> {
    let path = manifest.slice_path(dir);
    let fail = |error| StoreError::io("read", &path, 0, error);
    let Some(file) = files::open_existing(&path)? else { return Ok(0) };
    let direct = Direct::open(&path);
    let mut damaged = 0;
    for (chunk, expected) in (0u32..).zip(&manifest.chunks) {
        let len = manifest.chunk_len(chunk).unwrap_or(0);
        pace.wait_for(len);
        let at = u64::from(chunk) * CHUNK_LEN;
        let on_disk = direct.read(&file, at, len).map_err(fail)?;
        if blake3::hash(&on_disk) == *expected {
            continue;
        }
        damaged += 1;
        counters.damaged_chunks.fetch_add(1, Relaxed);
        heal(&path, &file, at, len, expected).map_err(fail)?;
    }
    Ok(damaged)
}

/// Writes a chunk again that is right in memory; has the slice given up otherwise.
fn heal(path: &Path, file: &File, at: u64, len: usize, expected: &[u8; 32]) -> io::Result<()> {
    let mut in_memory = vec![0; len];
    let read = file.read_exact_at(&mut in_memory, at);
    let is_right = read.is_ok() && blake3::hash(&in_memory) == *expected;
    let writer = files::no_follow().write(true).open(path)?;
    let (shown, chunk) = (path.display(), at / CHUNK_LEN);
    if !is_right {
        tracing::error!(
            "chunk {chunk} of {shown} is not what was verified once: it is given up and fetched again"
        );
        return writer.set_modified(SystemTime::now());
    }
    let modified = writer.metadata()?.modified()?;
    writer.write_all_at(&in_memory, at)?;
    writer.sync_all()?;
    writer.set_modified(modified)?;
    tracing::warn!(
        "chunk {chunk} of {shown} was damaged on the disk: it is written again from memory"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_protocol::slices::SliceKey;

    /// A stored slice of three chunks, the last of which is short.
    fn stored(dir: &Path) -> (Manifest, Vec<u8>) {
        let bytes: Vec<u8> = (0..(2 << 20) + 777u32).map(|at| (at / 7) as u8).collect();
        let chunks = bytes.chunks(CHUNK_LEN as usize).map(|chunk| *blake3::hash(chunk).as_bytes());
        let (length, slice) = (bytes.len() as u64, SliceKey::Layer(3));
        let manifest = Manifest { fingerprint: [7; 32], slice, length, chunks: chunks.collect() };
        std::fs::write(manifest.slice_path(dir), &bytes).unwrap();
        (manifest, bytes)
    }

    #[test]
    fn a_slice_that_is_right_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (manifest, _) = stored(dir.path());
        let counters = Counters::default();
        let path = manifest.slice_path(dir.path());
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        let found = check_slice(dir.path(), &manifest, &counters, &mut Pace::default()).unwrap();
        assert_eq!((found, counters.damaged_chunks.load(Relaxed)), (0, 0));
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn a_chunk_that_is_wrong_in_memory_too_gives_the_slice_a_new_time() {
        let dir = tempfile::tempdir().unwrap();
        let (manifest, mut bytes) = stored(dir.path());
        let path = manifest.slice_path(dir.path());
        bytes[(1 << 20) + 5] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let old = SystemTime::now() - Duration::from_secs(1000);
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        let counters = Counters::default();
        let found = check_slice(dir.path(), &manifest, &counters, &mut Pace::default()).unwrap();
        assert_eq!((found, counters.damaged_chunks.load(Relaxed)), (1, 1));
        assert!(std::fs::metadata(&path).unwrap().modified().unwrap() > old);
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "nobody knows the right bytes here");
    }

    #[test]
    fn a_chunk_that_is_right_in_memory_is_written_again_and_the_time_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (manifest, bytes) = stored(dir.path());
        let path = manifest.slice_path(dir.path());
        let file = File::open(&path).unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        heal(&path, &file, 1 << 20, 1 << 20, &manifest.chunks[1]).unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), before);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn reading_is_slow() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        (0..5).for_each(|_| pace.wait_for(1 << 20));
        assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
    }

    #[test]
    fn what_is_used_twice_is_in_use_until_both_are_done() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = Arc::new(stored(dir.path()).0);
        let all = Arc::new(InUse::default());
        let (first, second) = (all.add(&manifest), all.add(&manifest));
        drop(first);
        assert_eq!(all.list().len(), 1);
        drop(second);
        assert!(all.list().is_empty());
    }
}
