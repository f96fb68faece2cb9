//! The admin API's socket in the state directory: who may open it is what the file system says.

use super::connection::Connection;
use super::places::{Limits, Places};
use crate::http::gateway::Gateway;
use axum::Router;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use woolly_protocol::private_socket::PrivateSocket;

/// Connections of the owner's own programs: apart from those of clients, so that a server that is full can still
/// be told what to do.
const LIMITS: Limits = Limits { connections: 80, probes: 0 };
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause while all connections are at work.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// The admin API's socket; its file goes with it.
#[derive(Debug)]
pub struct LocalSocket(PrivateSocket);

impl LocalSocket {
    /// Listens at `path`, instead of a socket that an earlier process has left there.
    ///
    /// # Errors
    ///
    /// What the system says; a path that is too long for a socket, for one.
    pub fn bind(path: &Path) -> io::Result<LocalSocket> {
        Ok(LocalSocket(PrivateSocket::bind(path)?))
    }

    /// Serves `router` until the gateway drains.
    pub async fn serve(self, router: Router, gateway: Arc<Gateway>) {
        let (places, mut connections) = (Places::default(), JoinSet::new());
        loop {
            let accepted = tokio::select! {
                () = gateway.draining.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.0.accept() => accepted,
            };
            let stream = match accepted {
                Ok(stream) => stream,
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
