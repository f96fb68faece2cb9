//! The listeners: connections with limits on everything a stranger can hold open, and an orderly end.

use super::connection::Connection;
use super::handshake;
use super::places::{Place, Places};
use super::socket;
use crate::http::gateway::Gateway;
use axum::Router;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// After the drain time, streams get an error event and this long to read it.
pub const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted: without file descriptors every try would fail.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause while every connection is at work and the places for probes are, too.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Serves each listener's routes on it until `shutdown` is done, then lets running requests end for
/// `gateway.config.drain`.
pub async fn run(
    served: Vec<(TcpListener, Router)>,
    gateway: &Arc<Gateway>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Places::default();
    let mut connections = JoinSet::new();
    let mut asked_first = 0;
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&served, &mut asked_first) => accepted,
        };
        match accepted {
            Ok((index, stream)) => {
                // Tokens are small writes: Nagle's algorithm would hold each back for the answer to
                // the last. A client that is gone already is noticed soon enough.
                let _ = stream.set_nodelay(true);
                let Some(place) = places.take(gateway.config.connections) else {
                    drop(stream);
                    tokio::time::sleep(FULL_PAUSE).await;
                    continue;
                };
                let router = served[index].1.clone();
                connections.spawn(serve(stream, router, Arc::clone(gateway), Arc::new(place)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(served);
    gateway.draining.cancel();
    drain(connections, gateway).await;
}

/// A connection, from its first byte on.
async fn serve(stream: TcpStream, router: Router, gateway: Arc<Gateway>, place: Arc<Place>) {
    let (socket, watched) = match &gateway.config.certificates {
        None => socket::shared(stream),
        Some(certificates) => {
            // A handshake gives way like an idle connection.
            let session = tokio::select! {
                session = handshake::begin(stream, certificates) => session,
                () = place.asked_to_leave() => return,
                () = gateway.draining.cancelled() => return,
            };
            let Some(session) = session else { return };
            socket::shared_session(session)
        }
    };
    Connection { router, gateway, place, watched: Some(watched) }.serve(socket).await;
}

/// The next connection of any listener, each first in turn.
async fn accept(
    served: &[(TcpListener, Router)],
    asked_first: &mut usize,
) -> io::Result<(usize, TcpStream)> {
    poll_fn(|cx| {
        for step in 0..served.len() {
            let index = (*asked_first + step) % served.len();
            while let Poll::Ready(accepted) = served[index].0.poll_accept(cx) {
                match accepted {
                    Ok((stream, _)) => {
                        *asked_first = index + 1;
                        return Poll::Ready(Ok((index, stream)));
                    }
                    // The client's doing: the next one is not to wait for it.
                    Err(error) if is_client_gone(&error) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
        Poll::Pending
    })
    .await
}

fn is_client_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Running requests first may end, then are told that they cannot, then are cut off.
async fn drain(mut connections: JoinSet<()>, gateway: &Gateway) {
    let end =
        async |connections: &mut JoinSet<()>| while connections.join_next().await.is_some() {};
    if timeout(gateway.config.drain, end(&mut connections)).await.is_ok() {
        return;
    }
    gateway.closing.cancel();
    if timeout(CLOSE_GRACE, end(&mut connections)).await.is_err() {
        tracing::warn!(connections = connections.len(), "cutting off connections");
        connections.shutdown().await;
    }
}
