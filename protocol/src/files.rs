//! Small files with secrets: private, written whole or not at all, locked between processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a key, certificate or token file at most.
const FILE_MAX: u64 = 4 << 20;

/// What went wrong with which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FileError {
    fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }
}

/// Makes a folder that only its owner can enter; one that exists is left as it is.
pub(crate) fn create_private_dir(dir: &Path) -> Result<(), FileError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| FileError::new("create the folder", dir, e))
}

/// Reads a whole file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>, FileError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| FileError::new("open", path, e))?,
    };
    let mut text = String::new();
    let read = file.take(FILE_MAX + 1).read_to_string(&mut text);
    let len = read.map_err(|e| FileError::new("read", path, e))?;
    if len as u64 > FILE_MAX {
        let source = io::Error::other(format!("more than {FILE_MAX} bytes"));
        return Err(FileError::new("read", path, source));
    }
    Ok(Some(text))
}

/// Replaces a file: readers see the old content or the new, whatever happens in between. Only the
/// owner can read it.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).expect("the system's random generator works");
    let mut name = path.file_name().expect("callers name a file").to_owned();
    name.push(format!(".{:016x}.tmp", u64::from_le_bytes(random)));
    let temporary = path.with_file_name(name);
    let written = write_new(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(FileError::new("write", path, error));
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|e| FileError::new("write the folder", dir, e))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Holds a lock between processes until it is dropped. Blocks while another has it.
pub(crate) fn lock(path: &Path) -> Result<File, FileError> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let locked = file.and_then(|file| file.lock().map(|()| file));
    locked.map_err(|e| FileError::new("lock", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_replaced_file_is_private_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert_eq!(read(&path).unwrap(), None);
        for text in ["one", "two"] {
            replace(&path, text).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(text));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = replace(Path::new("/nonexistent/woolly/x"), "").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/woolly/x"), "{error}");
    }
}
