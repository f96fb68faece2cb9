//! The name of a model by its bytes, and the memory of names already computed.
//!
//! ```text
//! fingerprint = BLAKE3( for each part: length as 8 bytes LE · BLAKE3 of each 1 MiB chunk )
//! ```
//!
//! Chunks are hashed by several threads. A remembered fingerprint is believed while device, inode,
//! size and both times of every part are what they were: equal stat, equal file, until the machine
//! boots again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::gguf::{FileIdentity, open_regular};

/// Bytes of a chunk.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// Threads that hash; more wait for memory, not for each other.
const THREADS_MAX: usize = 16;
/// Models that are remembered; the oldest is forgotten.
const REMEMBERED_MAX: usize = 64;
/// Bytes of the memory's file that are read: 64 models of 1,024 parts each would be more, and then
/// the fingerprint is computed again.
const MEMORY_BYTES_MAX: u64 = 1 << 20;
/// A file changed less than this before it was read could change again without a new time.
const SETTLED_NS: i128 = 100_000_000;
/// Name of the memory's file.
const MEMORY_FILE: &str = "fingerprints";
/// First word of every line of it.
const MEMORY_TAG: &str = "woolly1";

/// The fingerprint of the model in the part files at `paths`, in order. Adds bytes to `progress` as
/// they are hashed.
///
/// # Errors
/// A file that cannot be read, is not a regular one, or becomes shorter meanwhile.
pub fn fingerprint(paths: &[PathBuf], progress: &AtomicU64) -> io::Result<[u8; 32]> {
    hash(&open(paths)?, progress)
}

/// The same of files that are open already.
///
/// # Errors
/// As [`fingerprint`].
pub fn fingerprint_of(files: &[File], progress: &AtomicU64) -> io::Result<[u8; 32]> {
    let mut root = blake3::Hasher::new();
    for file in files {
        add(&mut root, file, file.metadata()?.len(), progress)?;
    }
    Ok(*root.finalize().as_bytes())
}

fn open(paths: &[PathBuf]) -> io::Result<Vec<(File, FileIdentity)>> {
    paths.iter().map(|path| open_regular(path).map_err(io::Error::other)).collect()
}

fn hash(files: &[(File, FileIdentity)], progress: &AtomicU64) -> io::Result<[u8; 32]> {
    let mut root = blake3::Hasher::new();
    for (file, identity) in files {
        add(&mut root, file, identity.size, progress)?;
    }
    Ok(*root.finalize().as_bytes())
}

/// Adds a part to the hash of the model.
fn add(root: &mut blake3::Hasher, file: &File, size: u64, progress: &AtomicU64) -> io::Result<()> {
    root.update(&size.to_le_bytes());
    for chunk in chunk_hashes(file, size, progress)? {
        root.update(&chunk);
    }
    Ok(())
}

/// The hash of each chunk of `file`, which has `size` bytes.
fn chunk_hashes(file: &File, size: u64, progress: &AtomicU64) -> io::Result<Vec<[u8; 32]>> {
    let chunks = usize::try_from(size.div_ceil(CHUNK_BYTES)).map_err(io::Error::other)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(THREADS_MAX).min(chunks.max(1));
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let work = || -> io::Result<Vec<(usize, [u8; 32])>> {
        let mut buffer = vec![0; CHUNK_BYTES as usize];
        let mut hashes = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed) * CHUNK_BYTES;
            if at >= size {
                break;
            }
            let len = CHUNK_BYTES.min(size - at);
            let bytes = &mut buffer[..len as usize];
            file.read_exact_at(bytes, at).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            hashes.push(((at / CHUNK_BYTES) as usize, *blake3::hash(bytes).as_bytes()));
            progress.fetch_add(len, Ordering::Relaxed);
        }
        Ok(hashes)
    };
    let mut all = vec![[0; 32]; chunks];
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let hashes = worker.join().expect("hashing does not panic")?;
            hashes.into_iter().for_each(|(index, hash)| all[index] = hash);
        }
        Ok(all)
    })
}

/// Numbers the temporary files of this process.
static TEMPORARIES: AtomicU64 = AtomicU64::new(0);

/// Fingerprints remembered in a directory.
///
/// The memory is a text file that is replaced as a whole. What cannot be read of it is forgotten:
/// the worst that a damaged memory costs is a computation.
#[derive(Clone, Debug)]
pub struct FingerprintMemory {
    path: PathBuf,
    boot: [u8; 16],
}

impl FingerprintMemory {
    /// The memory in `directory`, which must exist before something can be remembered. `boot` names the
    /// machine until it boots again: what was remembered before is forgotten then, as a disk can change
    /// without a word while it is off.
    pub fn new(directory: &Path, boot: [u8; 16]) -> Self {
        Self { path: directory.join(MEMORY_FILE), boot }
    }

    /// As [`fingerprint`], from memory if the files are what they were. With `verify` the files are
    /// read whatever the memory says.
    ///
    /// # Errors
    /// As `fingerprint`; also if a file changes while it is read. That the memory cannot be written
    /// is no error.
    pub fn fingerprint(
        &self,
        paths: &[PathBuf],
        verify: bool,
        progress: &AtomicU64,
    ) -> io::Result<[u8; 32]> {
        let files = open(paths)?;
        let key = key(files.iter().map(|(_, identity)| identity), &self.boot);
        if !verify && let Some(known) = self.recall(&key) {
            return Ok(known);
        }
        let found = hash(&files, progress)?;
        for ((file, before), path) in files.iter().zip(paths) {
            if FileIdentity::of(&file.metadata()?) != *before {
                let text = format!("{} changed while it was read", path.display());
                return Err(io::Error::other(text));
            }
        }
        if files.iter().all(|(_, identity)| settled(identity)) {
            // A full or read-only disk costs the next start its time, nothing else.
            let _ = self.remember(&key, &found);
        }
        Ok(found)
    }

    fn recall(&self, key: &str) -> Option<[u8; 32]> {
        let text = self.read()?;
        let found = text.lines().rev().find_map(|line| parse_line(line).filter(|l| l.0 == key))?;
        Some(found.1)
    }

    fn read(&self) -> Option<String> {
        let (file, identity) = open_regular(&self.path).ok()?;
        if identity.size > MEMORY_BYTES_MAX {
            return None;
        }
        let mut text = String::new();
        let mut bounded = io::Read::take(file, MEMORY_BYTES_MAX);
        io::Read::read_to_string(&mut bounded, &mut text).ok()?;
        Some(text)
    }

    fn remember(&self, key: &str, fingerprint: &[u8; 32]) -> io::Result<()> {
        let text = self.read().unwrap_or_default();
        let kept: Vec<&str> = text
            .lines()
            .filter(|line| parse_line(line).is_some_and(|(other, _)| other != key))
            .collect();
        let kept = &kept[kept.len().saturating_sub(REMEMBERED_MAX - 1)..];
        let body = format!("{key} {}", blake3::Hash::from_bytes(*fingerprint).to_hex());
        let line = format!("{MEMORY_TAG} {body} {}", check(&body));
        let text: String = kept.iter().chain([&line.as_str()]).map(|l| format!("{l}\n")).collect();
        let turn = TEMPORARIES.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.with_extension(format!("{}.{turn}.tmp", std::process::id()));
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, &self.path)
            .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
    }
}

/// Names the files as they are now, in one word.
fn key<'a>(identities: impl Iterator<Item = &'a FileIdentity>, boot: &[u8; 16]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(boot);
    for identity in identities {
        hasher.update(&identity.device.to_le_bytes());
        hasher.update(&identity.inode.to_le_bytes());
        hasher.update(&identity.size.to_le_bytes());
        hasher.update(&identity.modified_ns.to_le_bytes());
        hasher.update(&identity.changed_ns.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Key and fingerprint of a line of the memory: tag, key, fingerprint, check.
fn parse_line(line: &str) -> Option<(&str, [u8; 32])> {
    let body = line.strip_prefix(MEMORY_TAG)?.strip_prefix(' ')?;
    let (body, found) = body.rsplit_once(' ')?;
    let (key, fingerprint) = body.split_once(' ').filter(|_| found == check(body))?;
    Some((key, *blake3::Hash::from_hex(fingerprint).ok()?.as_bytes()))
}

/// Tells a damaged line from a whole one.
fn check(body: &str) -> String {
    blake3::hash(body.as_bytes()).to_hex()[..16].to_owned()
}

/// Whether a change after this one would show in the times.
fn settled(identity: &FileIdentity) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i128);
    now - identity.changed_ns.max(identity.modified_ns) > SETTLED_NS
}
