//! What a store holds: for `woolly-worker slices list|verify|prune`.

use super::error::StoreError;
use super::files::{self, Manifest};
use super::{SliceStore, part};
use crate::counters::Counters;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use woolly_protocol::slices::SliceKey;

/// Names in a folder that are looked at most; a store of that many slices holds thousands of models.
const ENTRIES_MAX: usize = 1 << 20;

/// One slice of one model that the store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The model's fingerprint.
    pub fingerprint: [u8; 32],
    /// Which slice of it.
    pub slice: SliceKey,
    /// Bytes of the slice.
    pub length: u64,
    /// What of it is there.
    pub state: SliceState,
}

/// What of a slice is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceState {
    /// All, and it was compared with its hashes since the file last changed.
    Verified,
    /// A file of the right length, not compared since it last changed.
    Unverified,
    /// All its chunks were read just now and are right.
    Good,
    /// Some chunks, their number given, are not what they should be.
    Damaged(usize),
    /// A download was begun.
    Partial,
    /// Only the manifest is there.
    Missing,
}

impl SliceStore {
    /// Everything the store knows, by model and slice. With `read` every byte is compared.
    ///
    /// # Errors
    ///
    /// If the folder or a file in it cannot be read.
    pub fn inventory(&self, read: bool) -> Result<Vec<Inventory>, StoreError> {
        let mut found = BTreeMap::new();
        for path in entries(&self.dir)? {
            if path.extension() != Some(OsStr::new("manifest")) {
                continue;
            }
            let Some(key) = path.file_stem().and_then(OsStr::to_str) else { continue };
            let Some(manifest) = Manifest::load(&self.dir, key) else { continue };
            let state = state_of(&self.dir, &manifest, read)?;
            let Manifest { fingerprint, slice, length, .. } = manifest;
            found.insert((fingerprint, slice), Inventory { fingerprint, slice, length, state });
        }
        Ok(found.into_values().collect())
    }

    /// Removes what no running worker uses; returns the number of files and their bytes.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read or a file cannot be removed.
    pub fn prune(&self) -> Result<(u64, u64), StoreError> {
        let (mut count, mut bytes) = (0, 0);
        let mut kept = HashSet::new();
        let (contents, others): (Vec<_>, Vec<_>) = entries(&self.dir)?
            .into_iter()
            .partition(|path| has_extension(path, &["slice", "part"]));
        let mut remove = |path: &Path| -> Result<(), StoreError> {
            let len = fs::symlink_metadata(path).map_or(0, |data| data.len());
            fs::remove_file(path).map_err(|error| StoreError::io("remove", path, 0, error))?;
            (count, bytes) = (count + 1, bytes + len);
            Ok(())
        };
        for path in contents {
            let file = files::open_existing(&path)?;
            // Held shared by whoever maps the slice, exclusively by whoever fetches it.
            let free = file.as_ref().is_none_or(|file| file.try_lock().is_ok());
            if free {
                remove(&path)?;
            } else {
                kept.insert(path.file_stem().map(OsStr::to_owned));
            }
        }
        for path in others {
            let root = match path.file_stem().and_then(OsStr::to_str) {
                Some(key) if has_extension(&path, &["manifest"]) => {
                    Manifest::load(&self.dir, key).map(|manifest| manifest.root_name().into())
                }
                _ => path.file_stem().map(OsStr::to_owned),
            };
            if !kept.contains(&root) {
                remove(&path)?;
            }
        }
        Ok((count, bytes))
    }
}

fn state_of(dir: &Path, manifest: &Manifest, read: bool) -> Result<SliceState, StoreError> {
    let path = manifest.slice_path(dir);
    let Some(file) = files::open_existing(&path)? else {
        let begun = files::open_existing(&manifest.part_path(dir))?.is_some();
        return Ok(if begun { SliceState::Partial } else { SliceState::Missing });
    };
    if read {
        let missing = part::missing_chunks(&file, &path, manifest, &Counters::default())?;
        if !missing.is_empty() {
            return Ok(SliceState::Damaged(missing.len()));
        }
        files::mark_verified(dir, manifest, &file)?;
        return Ok(SliceState::Good);
    }
    let verified = files::is_verified(dir, manifest, &file);
    Ok(if verified { SliceState::Verified } else { SliceState::Unverified })
}

/// The store's own files: 64 hexadecimal digits and one of its extensions. Others are not touched.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let fail = |error| StoreError::io("read", dir, 0, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)?.take(ENTRIES_MAX) {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let stem = name.split('.').next().unwrap_or_default();
        let ours = stem.len() == 64 && stem.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if ours && has_extension(&path, &["manifest", "slice", "part", "verified", "tmp"]) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(|found| extensions.contains(&found))
}
