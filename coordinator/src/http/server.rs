//! The listener: connections with limits on everything a stranger can hold open, and an orderly end.

use super::{Gateway, router, stall::StallGuard};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Open connections; more wait in the system's backlog.
pub const CONNECTIONS_MAX: usize = 1024;
/// A request's headers must be complete in this time; an idle connection is closed after it.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Header lines of a request.
pub const HEADERS_MAX: usize = 64;
/// Bytes of a request's line and headers together.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// A client may take nothing for this long before its connection is closed.
pub const WRITE_STALL: Duration = Duration::from_secs(30);
/// After the drain time, streams get an error event and this long to read it.
pub const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted: without file descriptors every try would fail.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is done, then lets running requests end for `gateway.config.drain`.
///
/// # Errors
///
/// The listener has no address.
pub async fn run(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let service = TowerToHyperService::new(router(gateway.clone()));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                // Tokens are small writes: Nagle's algorithm would hold each back for the answer to
                // the last. A client that is gone already is noticed soon enough.
                let _ = stream.set_nodelay(true);
                let connection = serve_connection(stream, service.clone(), gateway.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    gateway.draining.cancel();
    drain(connections, &gateway).await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Ok((stream, place)),
            // The client's doing: the next one is not to wait for it.
            Err(error) if is_client_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_client_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves one connection until it or the server ends.
pub(super) async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    service: TowerToHyperService<axum::Router>,
    gateway: Arc<Gateway>,
) {
    let io = TokioIo::new(StallGuard::new(stream, WRITE_STALL));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(false)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = gateway.draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
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
