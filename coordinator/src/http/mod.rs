//! The gateway: an OpenAI-compatible HTTP server in front of the cluster.
//!
//! A request is read ([`server`]), checked field by field and tokenised on a blocking thread
//! ([`input`]), submitted through [`crate::generation`], and answered whole or as a stream
//! ([`output`]). Fields are obeyed or refused by name, never ignored: what is accepted without acting on
//! it stands in one table ([`input::known`]). Every error has OpenAI's shape ([`error`]).
//!
//! | place | holds |
//! | --- | --- |
//! | `routes.rs` | which function answers which path |
//! | `api/` | the endpoints, a file for each family |
//! | `input/` | bytes → fields → token ids → what is to be generated |
//! | `output/` | events of generations → text → bytes of an answer |
//! | `server/` | connections, and what holds for every request |
//! | `gateway.rs`, `error.rs`, `ids.rs`, `usage.rs` | what all of them share |
//!
//! Folders name those below them only, in the order of the table. Scheduling, workers and plans are
//! unknown here, but for the status that `/health` shows.
//!
//! # Limits
//!
//! Header, body, time and connection limits are constants in `server/`; those of single fields stand with
//! the field. Plain HTTP/1.1; web pages of other origins cannot read answers unless
//! [`GatewayConfig::cors_origins`] names them.

pub mod api;
pub mod error;
pub mod gateway;
pub mod ids;
pub mod input;
pub mod output;
pub mod routes;
pub mod server;
pub mod usage;

#[cfg(test)]
pub(crate) mod tests;

pub use gateway::{Gateway, GatewayConfig};
pub use routes::router;

use server::local_socket::LocalSocket;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Serves on `listeners`, and the admin API on the `socket` until `shutdown` is done and running requests have
/// ended, at the latest [`GatewayConfig::drain`] and a second later.
///
/// # Errors
///
/// A listener has no address.
pub async fn serve(
    listeners: Vec<TcpListener>,
    socket: Option<LocalSocket>,
    gateway: Arc<Gateway>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut served = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let routes = router(Arc::clone(&gateway), listener.local_addr()?.ip());
        served.push((listener, routes));
    }
    let local = socket.map(|socket| {
        let routes = routes::admin_router(Arc::clone(&gateway));
        tokio::spawn(socket.serve(routes, Arc::clone(&gateway)))
    });
    let history = tokio::spawn(keep_history(Arc::clone(&gateway)));
    let looking = gateway.streams.is_some().then(|| {
        api::streams::restore(&gateway);
        let (gateway, until) = (Arc::clone(&gateway), gateway.closing.clone());
        tokio::spawn(async move {
            if let Some(streams) = &gateway.streams {
                streams.look_after(until).await;
            }
        })
    });
    server::listener::run(served, &gateway, shutdown).await;
    history.abort();
    if let Some(looking) = looking {
        looking.abort();
    }
    if let Some(local) = local {
        // It ends when the gateway drains; what it panicked with was said.
        let _ = local.await;
    }
    Ok(())
}

/// Takes a sample for the history now and then.
async fn keep_history(gateway: Arc<Gateway>) {
    let mut due = tokio::time::interval(crate::metrics::INTERVAL);
    loop {
        due.tick().await;
        gateway.engine.metrics().sample(crate::events::unix_ms());
    }
}
