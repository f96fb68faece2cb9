//! Where a stage's weights come from: the coordinator's own file, the same file in a local folder,
//! or slices.
//!
//! 1. On the coordinator's machine its path is used if it can be read and is the same file by
//!    device, inode, size and times: nothing is hashed.
//! 2. In `--model-dir`, files of the same names and sizes whose fingerprint is equal. The
//!    fingerprint is computed once and remembered by stat.
//! 3. Otherwise, or with `--no-local-files`, exactly the slices of the stage are fetched into the
//!    store.

use crate::blocking::blocking;
use crate::convert::slice_key;
use crate::counters::Counters;
use crate::weights::model_files::{ModelFiles, PartFile};
use crate::weights::slice_store::{ChunkSource, Length, SliceStore, StoreError, Stored, Wanted};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use woolly_engine::gguf::limits::{ALIGNMENT_MAX, HEADER_BYTES_MAX};
use woolly_engine::gguf::{FileIdentity, Gguf, HeaderPart};
use woolly_engine::plan::{FingerprintMemory, ModelLayout, SliceId};
use woolly_engine::weights::{Resident, Weights};

/// The places on this machine where weights may be.
#[derive(Clone, Debug)]
pub struct Places {
    /// `--model-dir`.
    pub model_dir: Option<PathBuf>,
    /// `--no-local-files`: no file of this machine is looked at.
    pub no_local_files: bool,
    /// Where fingerprints are remembered.
    pub memory_dir: PathBuf,
    /// Names this machine until it boots again; what was remembered before is forgotten then.
    pub boot: [u8; 16],
    /// `--verify`: files of a local folder are read whatever is remembered of them.
    pub verify: bool,
    /// Slices that were fetched before.
    pub store: SliceStore,
}

/// Header and mapped weights of one stage.
#[derive(Debug)]
pub struct Model {
    /// The model's header.
    pub gguf: Gguf,
    /// What is where in the model.
    pub layout: ModelLayout,
    /// The stage's tensors.
    pub weights: Weights,
    /// Bytes fetched for them now.
    pub fetched_bytes: u64,
    /// The files of its slices and headers, if they are in the store. They stay there while these live.
    pub files: Vec<(SliceId, Stored)>,
}

impl Model {
    /// Leaves on the disk what may be, if `from_disk` says so; otherwise all is to be read in.
    pub fn leave_on_disk(&mut self, from_disk: bool) {
        let Model { layout, weights, .. } = self;
        let slices: Vec<SliceId> = weights.slices().iter().map(|slice| slice.id()).collect();
        let tensors = slices.iter().flat_map(|slice| layout.slice_tensors(*slice));
        let on_disk = tensors.filter(|tensor| layout.may_be_on_disk(tensor.is_of_experts));
        let on_disk: BTreeSet<&str> = on_disk.map(|tensor| tensor.name.as_str()).collect();
        weights.leave_on_disk(|name| from_disk && on_disk.contains(name));
    }
}

/// Why there are no weights.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The model cannot be used.
    #[error("{0}")]
    Model(String),
    /// A slice cannot be fetched or stored.
    #[error(transparent)]
    Slice(#[from] StoreError),
}

fn refused(error: impl Display) -> SourceError {
    SourceError::Model(error.to_string())
}

/// Finds the weights of `layers`, fetching them if they are nowhere here. Slices that are `held` are taken
/// as they are; where their files were changed since, nothing that is held is. What is hashed, verified
/// or fetched advances `counters`; what is to be read in then is not counted yet.
///
/// # Errors
///
/// See [`SourceError`].
pub async fn open<S: ChunkSource>(
    files: &ModelFiles,
    layers: Range<u32>,
    places: &Places,
    slices: &Arc<S>,
    counters: &Arc<Counters>,
    held: &Resident,
) -> Result<Model, SourceError> {
    let model = match local_paths(files, places, counters).await {
        Some(paths) => {
            let (files, held) = (files.clone(), held.clone());
            let layers = layers.clone();
            blocking(move || map_model(&files, &paths, layers, &held)).await?
        }
        None => {
            let layers = layers.clone();
            fetch_model(files, layers, &places.store, slices, counters, held).await?
        }
    };
    if !held.is_empty() && model.weights.check_unchanged().is_err() {
        // What is held is of a file that is another one now.
        return Box::pin(open(files, layers, places, slices, counters, &Resident::new())).await;
    }
    counters.mappings.fetch_add(model.weights.mappings_made(), Relaxed);
    Ok(model)
}

/// The model's files on this machine, if they are surely the same.
async fn local_paths(
    files: &ModelFiles,
    places: &Places,
    counters: &Arc<Counters>,
) -> Option<Vec<PathBuf>> {
    if places.no_local_files {
        return None;
    }
    let hinted: Vec<PathBuf> = files.parts.iter().map(|part| part.path.clone()).collect();
    if are_the_same(files, &hinted) && hinted.iter().all(|path| fs::File::open(path).is_ok()) {
        tracing::info!("mapping the coordinator's own file {}", hinted[0].display());
        return Some(hinted);
    }
    let dir = places.model_dir.as_ref()?;
    let paths: Vec<PathBuf> = files.parts.iter().map(|part| dir.join(&part.file_name)).collect();
    for (path, part) in paths.iter().zip(&files.parts) {
        let found = fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|data| data.len());
        if found != Some(part.size) {
            let what = found.map_or("is not there".to_owned(), |len| format!("has {len} bytes"));
            tracing::info!("{} {what}; the slices are fetched", path.display());
            return None;
        }
    }
    if are_the_same(files, &paths) {
        return Some(paths);
    }
    match fingerprint(&paths, places, counters).await {
        Ok(found) if found == files.fingerprint => {
            tracing::info!("mapping {}", paths[0].display());
            Some(paths)
        }
        Ok(_) => {
            let path = paths[0].display();
            tracing::warn!("{path} is another file of the same size; the slices are fetched");
            None
        }
        Err(error) => {
            tracing::warn!("{} cannot be used: {error}; the slices are fetched", dir.display());
            None
        }
    }
}

/// Whether these paths are the coordinator's own files by their stat.
fn are_the_same(files: &ModelFiles, paths: &[PathBuf]) -> bool {
    let low = |ns: i128| u64::try_from(ns).ok();
    let same = |(path, part): (&PathBuf, &PartFile)| {
        let Ok(data) = fs::metadata(path) else { return false };
        let id = FileIdentity::of(&data);
        let (Some(mtime), Some(ctime)) = (low(id.modified_ns), low(id.changed_ns)) else {
            return false;
        };
        data.is_file() && id.size == part.size && [id.device, id.inode, mtime, ctime] == part.stat
    };
    files.same_machine && paths.iter().zip(&files.parts).all(same)
}

async fn fingerprint(
    paths: &[PathBuf],
    places: &Places,
    counters: &Arc<Counters>,
) -> std::io::Result<[u8; 32]> {
    let bytes =
        paths.iter().filter_map(|path| fs::metadata(path).ok()).map(|data| data.len()).sum();
    counters.extend_load(bytes);
    let before = counters.loaded.load(Relaxed);
    let memory = FingerprintMemory::new(&places.memory_dir, places.boot);
    let (paths, hashing, verify) = (paths.to_vec(), Arc::clone(counters), places.verify);
    let found = blocking(move || memory.fingerprint(&paths, verify, &hashing.loaded)).await;
    // What was remembered is done, too.
    let done = counters.loaded.load(Relaxed) - before;
    counters.loaded.fetch_add(bytes.saturating_sub(done), Relaxed);
    found
}

fn map_model(
    files: &ModelFiles,
    paths: &[PathBuf],
    layers: Range<u32>,
    held: &Resident,
) -> Result<Model, SourceError> {
    let gguf = Gguf::open(&paths[0]).map_err(refused)?;
    let sizes = |gguf: &Gguf| gguf.parts().iter().map(|part| part.size).collect::<Vec<_>>();
    let expected: Vec<u64> = files.parts.iter().map(|part| part.size).collect();
    if sizes(&gguf) != expected {
        let (found, wanted) = (gguf.parts().len(), expected.len());
        let path = paths[0].display();
        return Err(refused(format!(
            "{path} is not the file that was announced: it has {found} parts, expected {wanted}, or \
             parts of other sizes"
        )));
    }
    let (layout, slices) = stage_slices(&gguf, layers)?;
    let weights = Weights::from_model(&gguf, &slices, held).map_err(refused)?;
    Ok(Model { gguf, layout, weights, fetched_bytes: 0, files: Vec::new() })
}

fn stage_slices(
    gguf: &Gguf,
    layers: Range<u32>,
) -> Result<(ModelLayout, Vec<SliceId>), SourceError> {
    let layout = ModelLayout::new(gguf).map_err(refused)?;
    if layers.is_empty() || layers.end > layout.layers {
        let Range { start, end } = layers;
        let have = layout.layers;
        return Err(refused(format!(
            "layers {start} to {end} were assigned, the model has {have}"
        )));
    }
    let slices = layout.stage_slices(layers);
    Ok((layout, slices))
}

async fn fetch_model<S: ChunkSource>(
    files: &ModelFiles,
    layers: Range<u32>,
    store: &SliceStore,
    source: &Arc<S>,
    counters: &Arc<Counters>,
    held: &Resident,
) -> Result<Model, SourceError> {
    let mut stored = Vec::new();
    for (index, part) in (0u32..).zip(&files.parts) {
        let length = Length::AtMost(part.size.min(HEADER_BYTES_MAX + ALIGNMENT_MAX));
        let slice = slice_key(SliceId::Header(index));
        let wanted = Wanted { fingerprint: files.fingerprint, slice, length };
        stored.push((SliceId::Header(index), store.ensure(source, wanted, counters).await?));
    }
    let headers: Vec<(PathBuf, String, u64)> = (stored.iter().zip(&files.parts))
        .map(|((_, stored), part)| (stored.path.clone(), part.file_name.clone(), part.size))
        .collect();
    let (gguf, layout, slices) = blocking(move || {
        let gguf = read_headers(headers)?;
        let (layout, slices) = stage_slices(&gguf, layers)?;
        Ok::<_, SourceError>((gguf, layout, slices))
    })
    .await?;
    let missing = slices.iter().copied().filter(|slice| held.get(*slice).is_none());
    let missing: Vec<SliceId> = missing.collect();
    counters.extend_load(missing.iter().map(|slice| layout.slice_len(*slice)).sum());
    let wanted = missing.into_iter().map(|slice| {
        let length = Length::Exactly(layout.slice_len(slice));
        (slice, Wanted { fingerprint: files.fingerprint, slice: slice_key(slice), length })
    });
    stored.extend(store.ensure_all(source, wanted, counters).await?);
    let fetched_bytes = stored.iter().map(|(_, stored)| stored.fetched_bytes).sum();
    let held = held.clone();
    blocking(move || {
        let path_of = |slice: SliceId| -> PathBuf {
            let found = stored.iter().find(|(id, _)| *id == slice);
            found.map(|(_, stored)| stored.path.clone()).expect("what is not held was stored")
        };
        let weights = Weights::from_slices(&gguf, &slices, &path_of, &held).map_err(refused)?;
        Ok(Model { gguf, layout, weights, fetched_bytes, files: stored })
    })
    .await
}

fn read_headers(headers: Vec<(PathBuf, String, u64)>) -> Result<Gguf, SourceError> {
    let mut parts = Vec::with_capacity(headers.len());
    let mut room = HEADER_BYTES_MAX + ALIGNMENT_MAX * headers.len() as u64;
    for (path, file_name, file_size) in headers {
        let bytes = read_up_to(&path, room)
            .map_err(|error| refused(format!("cannot read {}: {error}", path.display())))?;
        room -= bytes.len() as u64;
        parts.push(HeaderPart { file_name, bytes, file_size });
    }
    Gguf::from_headers(parts).map_err(refused)
}

fn read_up_to(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
