//! Names and formats of the store's files, opened so that no planted link is followed.

use super::error::StoreError;
use super::wanted::{Length, Wanted};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use woolly_protocol::limits::{SLICE_CHUNK, SLICE_CHUNKS_MAX};
use woolly_protocol::machine::machine_id;
use woolly_protocol::slices::{SliceKey, SliceManifest};

/// First bytes of a manifest file; the digit is its version.
const MANIFEST_MAGIC: &[u8; 8] = b"WOOLLYM1";
/// Bytes before the chunk hashes: magic, fingerprint, kind, index, length.
const MANIFEST_HEAD: usize = 8 + 32 + 4 + 4 + 8;
/// Bytes of a manifest file at most.
const MANIFEST_MAX: u64 = (MANIFEST_HEAD + 32 * SLICE_CHUNKS_MAX) as u64;

/// Bytes per chunk as a length.
pub(super) const CHUNK_LEN: u64 = SLICE_CHUNK as u64;

/// What a slice consists of, and of which model it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The model's fingerprint.
    pub fingerprint: [u8; 32],
    /// Which slice of it.
    pub slice: SliceKey,
    /// Bytes of the slice.
    pub length: u64,
    /// BLAKE3 of each `SLICE_CHUNK` bytes, the last of what is left.
    pub chunks: Vec<[u8; 32]>,
}

impl Manifest {
    /// Takes what a peer sent, if it fits what is wanted.
    ///
    /// # Errors
    ///
    /// What does not fit, in words.
    pub(super) fn from_wire(wanted: &Wanted, wire: SliceManifest) -> Result<Manifest, String> {
        let manifest = Manifest {
            fingerprint: wanted.fingerprint,
            slice: wanted.slice,
            length: wire.length,
            chunks: wire.chunks,
        };
        manifest.check(wanted).map(|()| manifest)
    }

    /// Whether length and number of chunks are what the assignment allows.
    pub(super) fn check(&self, wanted: &Wanted) -> Result<(), String> {
        match wanted.length {
            Length::Exactly(length) if self.length != length => {
                return Err(format!(
                    "it has {} bytes, the model's header says {length}",
                    self.length
                ));
            }
            Length::AtMost(limit) if self.length > limit => {
                return Err(format!("it has {} bytes, at most {limit} are allowed", self.length));
            }
            _ => {}
        }
        if self.length == 0 {
            return Err("it is empty".to_owned());
        }
        let expected = self.length.div_ceil(CHUNK_LEN);
        if expected > SLICE_CHUNKS_MAX as u64 || self.chunks.len() as u64 != expected {
            return Err(format!(
                "it lists {} chunks, expected {expected} (at most {SLICE_CHUNKS_MAX})",
                self.chunks.len()
            ));
        }
        Ok(())
    }

    /// Bytes of one chunk; `None` if there is no such chunk.
    pub(super) fn chunk_len(&self, chunk: u32) -> Option<usize> {
        let start = u64::from(chunk) * CHUNK_LEN;
        let left = self.length.checked_sub(start)?.min(CHUNK_LEN);
        usize::try_from(left).ok().filter(|len| *len > 0)
    }

    /// Names the content: 64 hexadecimal digits over the length and the chunks' hashes.
    pub(super) fn root_name(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("woolly slice content 1");
        hasher.update(&self.length.to_le_bytes());
        for hash in &self.chunks {
            hasher.update(hash);
        }
        hasher.finalize().to_hex().to_string()
    }

    pub(super) fn slice_path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.slice", self.root_name()))
    }

    pub(super) fn part_path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.part", self.root_name()))
    }

    pub(super) fn verified_path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.verified", self.root_name()))
    }

    /// Writes `<key>.manifest`.
    pub(super) fn save(&self, dir: &Path, key: &str) -> Result<(), StoreError> {
        let mut bytes = Vec::with_capacity(MANIFEST_HEAD + 32 * self.chunks.len());
        let (kind, index) = slice_code(self.slice);
        bytes.extend_from_slice(MANIFEST_MAGIC);
        bytes.extend_from_slice(&self.fingerprint);
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        for hash in &self.chunks {
            bytes.extend_from_slice(hash);
        }
        replace_file(&dir.join(format!("{key}.manifest")), &bytes)
    }

    /// Reads `<key>.manifest`; `None` if it is missing, damaged or of another version: then it is
    /// fetched again.
    pub(super) fn load(dir: &Path, key: &str) -> Option<Manifest> {
        let file = open_existing(&dir.join(format!("{key}.manifest"))).ok()??;
        let mut bytes = Vec::new();
        file.take(MANIFEST_MAX + 1).read_to_end(&mut bytes).ok()?;
        let manifest = Manifest::from_bytes(&bytes)?;
        (key_name(&manifest.fingerprint, manifest.slice) == key).then_some(manifest)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Manifest> {
        let rest = bytes.strip_prefix(MANIFEST_MAGIC)?;
        let (fingerprint, rest) = rest.split_first_chunk::<32>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let (chunks, rest) = rest.as_chunks::<32>();
        let manifest = Manifest {
            fingerprint: *fingerprint,
            slice: slice_from_code(u32::from_le_bytes(*kind), u32::from_le_bytes(*index))?,
            length: u64::from_le_bytes(*length),
            chunks: chunks.to_vec(),
        };
        rest.is_empty().then_some(manifest)
    }
}

/// Names a slice of a model: 64 hexadecimal digits.
pub(super) fn key_name(fingerprint: &[u8; 32], slice: SliceKey) -> String {
    let (kind, index) = slice_code(slice);
    let mut hasher = blake3::Hasher::new_derive_key("woolly slice key 1");
    hasher.update(fingerprint);
    hasher.update(&kind.to_le_bytes());
    hasher.update(&index.to_le_bytes());
    hasher.finalize().to_hex().to_string()
}

fn slice_code(slice: SliceKey) -> (u32, u32) {
    match slice {
        SliceKey::Header(part) => (0, part),
        SliceKey::Embedding => (1, 0),
        SliceKey::Layer(layer) => (2, layer),
        SliceKey::Head => (3, 0),
    }
}

fn slice_from_code(kind: u32, index: u32) -> Option<SliceKey> {
    match (kind, index) {
        (0, part) => Some(SliceKey::Header(part)),
        (1, 0) => Some(SliceKey::Embedding),
        (2, layer) => Some(SliceKey::Layer(layer)),
        (3, 0) => Some(SliceKey::Head),
        _ => None,
    }
}

/// Makes the folder, mode 0700; refuses a symbolic link in its place.
pub(super) fn prepare_dir(dir: &Path) -> Result<(), StoreError> {
    let folder = |reason: String| StoreError::Folder { path: dir.display().to_string(), reason };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| folder(format!("cannot be made: {error}")))?;
    let data =
        fs::symlink_metadata(dir).map_err(|error| folder(format!("cannot be read: {error}")))?;
    if data.is_dir() {
        Ok(())
    } else {
        Err(folder("is a symbolic link; name the folder that it points to".to_owned()))
    }
}

/// Options that never follow a link in the last place of a path.
pub(super) fn no_follow() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options
}

/// Opens a regular file for reading; `None` if there is none.
pub(super) fn open_existing(path: &Path) -> Result<Option<File>, StoreError> {
    let refuse = |error| Err(StoreError::io("open", path, 0, error));
    match no_follow().read(true).open(path) {
        Ok(file) => match file.metadata() {
            Ok(data) if data.is_file() => Ok(Some(file)),
            Ok(_) => refuse(io::Error::other("it is not a regular file")),
            Err(error) => refuse(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => refuse(error),
    }
}

/// Writes a small file whole or not at all.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    static TEMPS: AtomicU64 = AtomicU64::new(0);
    let number = TEMPS.fetch_add(1, Relaxed);
    let temp = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let write = || -> io::Result<()> {
        match fs::remove_file(&temp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = no_follow().write(true).create_new(true).open(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temp, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temp);
        StoreError::io("write", path, bytes.len() as u64, error)
    })
}

/// Whether the open file is still the one that has this name.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Whether all chunks were compared when the file had the stat that it has now, since the machine
/// booted: a disk can change without a word while it is off.
pub(super) fn is_verified(dir: &Path, manifest: &Manifest, file: &File) -> bool {
    let Ok(Some(marker)) = open_existing(&manifest.verified_path(dir)) else { return false };
    let mut bytes = Vec::new();
    let read = marker.take(MARKER_LEN as u64 + 1).read_to_end(&mut bytes);
    read.is_ok() && marker_of(file).is_some_and(|marker| bytes == marker)
}

/// Remembers that all chunks of the file, as it is now, are right.
pub(super) fn mark_verified(
    dir: &Path,
    manifest: &Manifest,
    file: &File,
) -> Result<(), StoreError> {
    match marker_of(file) {
        Some(marker) => replace_file(&manifest.verified_path(dir), &marker),
        None => Ok(()),
    }
}

/// Device, inode, size, mtime, ctime, and the machine as it is until it boots again.
fn marker_of(file: &File) -> Option<[u8; MARKER_LEN]> {
    let data = file.metadata().ok()?;
    let mut marker = [0; MARKER_LEN];
    let fields = [
        data.dev().to_le_bytes(),
        data.ino().to_le_bytes(),
        data.size().to_le_bytes(),
        data.mtime().to_le_bytes(),
        data.mtime_nsec().to_le_bytes(),
        data.ctime().to_le_bytes(),
        data.ctime_nsec().to_le_bytes(),
    ];
    for (place, field) in marker.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field);
    }
    marker[STAT_LEN..].copy_from_slice(&machine_id());
    Some(marker)
}

/// Bytes of the stat in a marker.
const STAT_LEN: usize = 7 * 8;
const MARKER_LEN: usize = STAT_LEN + 16;
