//! The admin API's socket in the state directory: who may open it is what the file system says.

use super::connection::Connection;
use super::places::{Limits, Places};
use crate::http::gateway::Gateway;
use axum::Router;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

/// Connections of the owner's own programs: apart from those of clients, so that a server that is full can still
/// be told what to do.
const LIMITS: Limits = Limits { connections: 80, probes: 0 };
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause while all connections are at work.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// A socket for its owner alone; its file goes with it.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // Best effort: the next start replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

impl LocalSocket {
    /// Listens at `path`, instead of a socket that an earlier process has left there. At no moment can anyone
    /// else open it: it is made in a folder that is closed to them, and then put in its place.
    ///
    /// # Errors
    ///
    /// What the system says; a path that is too long for a socket, for one.
    pub fn bind(path: &Path) -> io::Result<LocalSocket> {
        let folder = path.with_extension(format!("{}.tmp", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let made = folder.join("s");
        let bound = UnixListener::bind(&made).and_then(|listener| {
            fs::set_permissions(&made, Permissions::from_mode(0o600))?;
            fs::rename(&made, path)?;
            Ok(listener)
        });
        let _ = fs::remove_dir_all(&folder);
        Ok(LocalSocket { listener: bound?, path: path.to_owned() })
    }

    /// Serves `router` until the gateway drains.
    pub async fn serve(self, router: Router, gateway: Arc<Gateway>) {
        let (places, mut connections) = (Places::default(), JoinSet::new());
        loop {
            let accepted = tokio::select! {
                () = gateway.draining.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on the admin socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = places.take(LIMITS) else {
                drop(stream);
                tokio::time::sleep(FULL_PAUSE).await;
                continue;
            };
            let (router, gateway, place) = (router.clone(), Arc::clone(&gateway), Arc::new(place));
            let connection = Connection { router, gateway, place, watched: None };
            connections.spawn(connection.serve(stream));
        }
        drop(self);
        let end = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(gateway.config.drain, end).await.is_err() {
            connections.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_owners_and_goes_with_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        // One that a process left that was killed.
        std::mem::forget(LocalSocket::bind(&path).unwrap());
        let socket = LocalSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(socket);
        assert!(!path.exists());
        assert!(LocalSocket::bind(&folder.path().join("x".repeat(200))).is_err());
    }
}
