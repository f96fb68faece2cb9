//! The bytes of slices, read from the model's files.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use tokio::sync::{OnceCell, Semaphore};
use woolly_engine::gguf::FileIdentity;
use woolly_engine::plan::{ModelLayout, SliceId, SlicePiece, fingerprint_of};
use woolly_protocol::limits::SLICE_CHUNK;
use woolly_protocol::slices::{SliceKey, SliceManifest};

/// Chunks that are read, or manifests that are computed, at a time; others wait in turn. Two keep a
/// disk busy; more would take the processor and the page cache from the gateway.
const READS_MAX: usize = 2;

/// Hashes of one slice's chunks; whoever asks first has them computed.
type ManifestCell = Arc<OnceCell<Arc<SliceManifest>>>;

fn identity(file: &File) -> io::Result<FileIdentity> {
    Ok(FileIdentity::of(&file.metadata()?))
}

/// Size and the time of the last write: what another link or another mode changes does not count.
fn written(identity: &FileIdentity) -> (u64, i128) {
    (identity.size, identity.modified_ns)
}

fn are_unchanged(files: &[File], identities: &Mutex<Vec<FileIdentity>>) -> io::Result<bool> {
    let then = identities.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    for (file, then) in files.iter().zip(&then) {
        if written(&identity(file)?) != written(then) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_unchanged(files: &[File], identities: &Mutex<Vec<FileIdentity>>) -> io::Result<()> {
    if are_unchanged(files, identities)? {
        Ok(())
    } else {
        let text = "its file was written to since it was opened, and is being verified";
        Err(io::Error::other(text))
    }
}

/// One model's slices.
#[derive(Debug)]
pub struct SliceSource {
    fingerprint: [u8; 32],
    layout: Arc<ModelLayout>,
    files: Arc<Vec<File>>,
    /// What the files were when they were last known to hold the model.
    identities: Arc<Mutex<Vec<FileIdentity>>>,
    /// One entry per slice at most: only slices of the model get one.
    manifests: Mutex<HashMap<SliceId, ManifestCell>>,
    reads: Arc<Semaphore>,
}

impl SliceSource {
    /// Opens the model's files, which stay open. `paths` are its parts in order.
    ///
    /// # Errors
    ///
    /// If one cannot be opened.
    pub fn open(
        layout: Arc<ModelLayout>,
        paths: &[PathBuf],
        fingerprint: [u8; 32],
    ) -> io::Result<SliceSource> {
        let open = |path: &PathBuf| {
            let name = |error| io::Error::other(format!("cannot read {}: {error}", path.display()));
            File::open(path).map_err(name)
        };
        let files: Vec<File> = paths.iter().map(open).collect::<io::Result<_>>()?;
        let identities = files.iter().map(identity).collect::<io::Result<_>>()?;
        Ok(SliceSource {
            fingerprint,
            layout,
            files: Arc::new(files),
            identities: Arc::new(Mutex::new(identities)),
            manifests: Mutex::default(),
            reads: Arc::new(Semaphore::new(READS_MAX)),
        })
    }

    /// What identifies the model.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The model's files, open.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The fingerprint of what the files hold now. Reads them whole: not for a runtime's thread.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn fingerprint_now(&self) -> io::Result<[u8; 32]> {
        fingerprint_of(&self.files, &AtomicU64::new(0))
    }

    /// Whether nobody has written to the files since they were last known to hold the model.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        are_unchanged(&self.files, &self.identities)
    }

    /// The files as they are now.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn identities_now(&self) -> io::Result<Vec<FileIdentity>> {
        self.files.iter().map(identity).collect()
    }

    /// As they were then, the files hold the model.
    pub fn accept(&self, identities: Vec<FileIdentity>) {
        let mut known = self.identities.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *known = identities;
    }

    /// What a slice consists of; hashed when it is first asked for.
    ///
    /// # Errors
    ///
    /// A sentence for the worker: another model, no such slice, a file that cannot be read.
    pub async fn manifest(
        &self,
        fingerprint: &[u8; 32],
        slice: SliceKey,
    ) -> Result<Arc<SliceManifest>, String> {
        let id = self.slice(fingerprint, slice)?;
        let cell = {
            let mut manifests = self.manifests.lock().expect("no one panics with the lock held");
            Arc::clone(manifests.entry(id).or_default())
        };
        let manifest = cell.get_or_try_init(|| self.hash(id)).await?;
        Ok(Arc::clone(manifest))
    }

    async fn hash(&self, id: SliceId) -> Result<Arc<SliceManifest>, String> {
        let (layout, files) = (Arc::clone(&self.layout), Arc::clone(&self.files));
        self.reading(move |check| {
            let length = layout.slice_len(id);
            let count = length.div_ceil(SLICE_CHUNK as u64);
            let mut chunks = Vec::new();
            for chunk in 0..count {
                let bytes = read_chunk(&layout, &files, id, chunk)?;
                chunks.push(*blake3::hash(&bytes).as_bytes());
            }
            check()?;
            Ok(Arc::new(SliceManifest { length, chunks }))
        })
        .await
    }

    /// The bytes of one chunk.
    ///
    /// # Errors
    ///
    /// As [`manifest`](Self::manifest), and a chunk that the slice does not have.
    pub async fn chunk(
        &self,
        fingerprint: &[u8; 32],
        slice: SliceKey,
        chunk: u32,
    ) -> Result<Vec<u8>, String> {
        let id = self.slice(fingerprint, slice)?;
        let count = self.layout.slice_len(id).div_ceil(SLICE_CHUNK as u64);
        if u64::from(chunk) >= count {
            return Err(format!("{slice:?} has {count} chunks; chunk {chunk} was asked for"));
        }
        let (layout, files) = (Arc::clone(&self.layout), Arc::clone(&self.files));
        self.reading(move |check| {
            let bytes = read_chunk(&layout, &files, id, chunk.into())?;
            check()?;
            Ok(bytes)
        })
        .await
    }

    fn slice(&self, fingerprint: &[u8; 32], slice: SliceKey) -> Result<SliceId, String> {
        if *fingerprint != self.fingerprint {
            return Err("the coordinator serves another model now: wait for a new plan".to_owned());
        }
        let id = match slice {
            SliceKey::Header(part) => SliceId::Header(part),
            SliceKey::Embedding => SliceId::Embedding,
            SliceKey::Layer(layer) => SliceId::Layer(layer),
            SliceKey::Head => SliceId::Head,
        };
        if self.layout.has_slice(id) {
            Ok(id)
        } else {
            Err(format!("the model has no slice {slice:?}"))
        }
    }

    /// Runs `read` on a thread for blocking work when it is its turn. After it has read, `read` calls
    /// what it is given: bytes of a file that was written to meanwhile are another model's.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Fn() -> io::Result<()>) -> io::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let (files, identities) = (Arc::clone(&self.files), Arc::clone(&self.identities));
        let permit = Arc::clone(&self.reads).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            // Held until the read is over, also if nobody waits for it any more.
            let _permit = permit;
            read(&|| check_unchanged(&files, &identities))
        });
        match done.await {
            Ok(result) => result.map_err(|error| format!("cannot read the model: {error}")),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Puts a chunk together from the pieces of its slice.
fn read_chunk(
    layout: &ModelLayout,
    files: &[File],
    id: SliceId,
    chunk: u64,
) -> io::Result<Vec<u8>> {
    let start = chunk * SLICE_CHUNK as u64;
    let end = layout.slice_len(id).min(start + SLICE_CHUNK as u64);
    let len = usize::try_from(end - start).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    // Where in the slice the present piece begins.
    let mut at = 0;
    for piece in layout.slice_ranges(id) {
        let piece_len = match piece {
            SlicePiece::Zeros(len) => len,
            SlicePiece::Source(range) => range.len,
        };
        let (from, to) = (start.max(at), end.min(at + piece_len));
        if let SlicePiece::Source(range) = piece
            && from < to
        {
            let place = |position: u64| usize::try_from(position - start).map_err(io::Error::other);
            let target = &mut bytes[place(from)?..place(to)?];
            files[range.part as usize].read_exact_at(target, range.offset + (from - at))?;
        }
        at += piece_len;
    }
    Ok(bytes)
}
