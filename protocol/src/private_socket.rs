//! A Unix socket that only its owner can open, in place of one that an earlier process left. Knows nothing of what is said on it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// A listening socket; its file goes with it.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        // Best effort: the next start replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

impl PrivateSocket {
    /// Listens at `path`, instead of a socket that an earlier process has left there. At no moment can anyone
    /// else open it: it is made in a folder that is closed to them, and then put in its place.
    ///
    /// # Errors
    ///
    /// What the system says; a path that is too long for a socket, for one.
    pub fn bind(path: &Path) -> io::Result<PrivateSocket> {
        let folder = path.with_extension(format!("{}.tmp", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        DirBuilder::new().mode(0o700).create(&folder)?;
        let made = folder.join("s");
        let bound = UnixListener::bind(&made).and_then(|listener| {
            fs::set_permissions(&made, Permissions::from_mode(0o600))?;
            fs::rename(&made, path)?;
            Ok(listener)
        });
        let _ = fs::remove_dir_all(&folder);
        Ok(PrivateSocket { listener: bound?, path: path.to_owned() })
    }

    /// The next connection.
    ///
    /// # Errors
    ///
    /// What the system says: too many open files, for one.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_owners_and_goes_with_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        // One that a process left that was killed.
        std::mem::forget(PrivateSocket::bind(&path).unwrap());
        let socket = PrivateSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(socket);
        assert!(!path.exists());
        assert!(PrivateSocket::bind(&folder.path().join("x".repeat(200))).is_err());
    }
}
