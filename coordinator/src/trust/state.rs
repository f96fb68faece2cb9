//! The state directory: keys, tokens, members, fingerprints; one coordinator at a time.

use anyhow::{Context, bail};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a state file at most; more is damage.
const STATE_FILE_MAX: u64 = 16 << 20;

/// How long a lock that is held is tried for: a probe that looks whether it is holds it for a moment.
const LOCK_TRIES: u32 = 10;
/// Between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Files with last plans of models that were loaded while the server ran.
const LAST_PLANS: u8 = 64;

/// A coordinator's folder.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

/// Held by `serve` while it runs; ends with the process, however that ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateDir {
    /// Makes the folder, for its owner only, if it is not there.
    ///
    /// # Errors
    ///
    /// Names the folder and what the system said.
    pub fn open(root: PathBuf) -> anyhow::Result<StateDir> {
        let root = std::path::absolute(&root)
            .with_context(|| format!("cannot use the state directory {}", root.display()))?;
        make_private_dir(&root)
            .with_context(|| format!("cannot make the state directory {}", root.display()))?;
        Ok(StateDir { root })
    }

    /// The folder as it is, if it is there at all: for who only looks.
    pub fn at(root: PathBuf) -> StateDir {
        StateDir { root }
    }

    /// Whether a coordinator runs with this folder.
    pub fn is_taken(&self) -> bool {
        let Ok(file) = File::open(self.root.join("lock")) else { return false };
        // Shared, so that two who look do not see each other.
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Where the cluster CA and the coordinator's own key are.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// `HOST:PORT` that workers dial, as the last `serve` announced it.
    pub fn join_address(&self) -> PathBuf {
        self.root.join("join-address")
    }

    /// The counter of plan numbers.
    pub fn epochs(&self) -> PathBuf {
        self.root.join("epochs")
    }

    /// The last plan that was served.
    pub fn last_plan(&self) -> PathBuf {
        self.root.join("last-plan")
    }

    /// The last plan of a model that was loaded while the server ran. Few files: models may share one, which
    /// costs the later one its last plan and nothing else.
    pub fn last_plan_of(&self, model: &Path) -> PathBuf {
        let hash = blake3::hash(model.as_os_str().as_encoded_bytes());
        self.root.join(format!("last-plan-{}", hash.as_bytes()[0] % LAST_PLANS))
    }

    /// Who was removed, who is banned, and who was here.
    pub fn members(&self) -> PathBuf {
        self.root.join("members")
    }

    /// The socket of the admin API.
    pub fn admin_socket(&self) -> PathBuf {
        self.root.join("admin.sock")
    }

    /// The state directory of a local worker, counted from 1.
    pub fn local_worker(&self, number: u32) -> PathBuf {
        self.root.join(format!("local-{number}"))
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the folder for this process.
    ///
    /// # Errors
    ///
    /// When another coordinator has it: names its process and what to do.
    pub fn lock(&self) -> anyhow::Result<StateLock> {
        let path = self.root.join("lock");
        let mut file = open_lock(&path)?;
        match try_lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The number is a convenience: an empty or unreadable one changes nothing.
                let _ = (&mut file).take(16).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => String::new(),
                    number => format!(" (process {number})"),
                };
                bail!(
                    "another coordinator{holder} uses the state directory {}: stop it, or give \
                     this one its own with --state-dir",
                    self.root.display()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(StateLock { _file: file })
    }
}

fn try_lock(file: &File) -> Result<(), TryLockError> {
    for _ in 1..LOCK_TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            done => return done,
        }
    }
    file.try_lock()
}

fn open_lock(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Makes a folder and what is missing above it; the new ones are for their owner only.
///
/// # Errors
///
/// What the system said.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a file at once, readable by its owner only: after a crash there is the old one or the
/// new one.
///
/// # Errors
///
/// What the system said.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = write_new(&temporary, bytes).and_then(|()| {
        fs::rename(&temporary, path)?;
        // The name is on the disk as well.
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    });
    if written.is_err() {
        // Best effort: what counts is the error of the write.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads a state file; `None` if it is not there.
///
/// # Errors
///
/// What the system said; a file of more than 16 MiB is an error.
pub fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(STATE_FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > STATE_FILE_MAX {
        return Err(io::Error::other(format!("expected at most {STATE_FILE_MAX} bytes")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_coordinator_is_refused_until_the_first_ends() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path().join("a/b")).unwrap();
        let lock = state.lock().unwrap();
        let error = state.lock().unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains("--state-dir"), "{error}");
        drop(lock);
        state.lock().unwrap();
    }

    #[test]
    fn folder_and_files_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path().join("state")).unwrap();
        write_private(&state.join_address(), b"one").unwrap();
        write_private(&state.join_address(), b"two").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.root()), 0o700);
        assert_eq!(mode(&state.join_address()), 0o600);
        assert_eq!(read_bounded(&state.join_address()).unwrap().unwrap(), b"two");
        assert_eq!(fs::read_dir(state.root()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn a_missing_file_is_none_and_a_folder_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_bounded(&dir.path().join("none")).unwrap().is_none());
        assert!(read_bounded(dir.path()).is_err());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = StateDir::open(file.join("state")).unwrap_err();
        assert!(error.to_string().contains("file/state"), "{error}");
    }
}
