//! The coordinator's QUIC endpoint: who dials is told apart by ALPN and certificate.

use crate::join_server::JoinServer;
use crate::links::{self, LinkId};
use crate::shutdown::Shutdown;
use crate::slice_server::SliceServer;
use quinn::Endpoint;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use woolly_protocol::peer::{HALF_OPEN_MAX, Peer, accept, screen};
use woolly_protocol::preamble::{Refusal, RefusalCode};

/// Connections of all kinds at a time: 64 stages and as many spares, each with a link and slices,
/// and as many that join.
const CONNECTIONS_MAX: usize = 512;

/// What connections are handed to.
pub struct Listener {
    /// The bound endpoint.
    pub endpoint: Endpoint,
    /// ALPN `woolly-join`.
    pub join: Arc<JoinServer>,
    /// ALPN `woolly`.
    pub links: links::Shared,
    /// ALPN `woolly-slices`.
    pub slices: Arc<SliceServer>,
}

impl Listener {
    /// Accepts connections until `stop`, then closes all and waits until peers could hear of it.
    pub async fn run(self: Arc<Self>, mut stop: Shutdown) {
        let half_open = Arc::new(Semaphore::new(HALF_OPEN_MAX));
        let mut connections = JoinSet::new();
        let mut next_link = LinkId(1);
        loop {
            let incoming = tokio::select! {
                () = stop.asked() => break,
                Some(_) = connections.join_next() => continue,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            let under_way = HALF_OPEN_MAX - half_open.available_permits();
            let Some(incoming) = screen(incoming, under_way) else { continue };
            let Ok(place) = Arc::clone(&half_open).try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            if connections.len() >= CONNECTIONS_MAX {
                incoming.refuse();
                continue;
            }
            let (listener, link) = (Arc::clone(&self), next_link);
            next_link.0 += 1;
            connections.spawn(async move {
                let remote = incoming.remote_address();
                let accepted = accept(incoming).await;
                drop(place);
                match accepted {
                    Ok((connection, peer)) => listener.serve(connection, peer, link).await,
                    Err(error) => tracing::warn!("refused a connection from {remote}: {error}"),
                }
            });
        }
        let refusal = Refusal::new(RefusalCode::ShuttingDown, "the coordinator is shutting down");
        self.endpoint.close(refusal.code.number().into(), refusal.text.as_bytes());
        connections.shutdown().await;
        self.endpoint.wait_idle().await;
    }

    async fn serve(&self, connection: quinn::Connection, peer: Peer, link: LinkId) {
        let remote = connection.remote_address();
        match peer {
            Peer::Joining => self.join.serve(connection).await,
            Peer::Worker(worker) => {
                if let Err(error) = links::run(connection, worker, link, self.links.clone()).await {
                    tracing::warn!("worker {} ({remote}) was refused: {error}", worker.hex());
                }
            }
            Peer::Slices(worker) => self.slices.serve(connection, worker).await,
            Peer::Coordinator => {
                let text = "another coordinator of this cluster dialled: workers dial here";
                Refusal::new(RefusalCode::WrongRole, text).close(&connection);
                tracing::warn!("refused a connection from {remote}: {text}");
            }
        }
    }
}
