//! The coordinator's QUIC endpoint: who dials is told apart by ALPN and certificate.

use crate::links::{self, LinkId};
use crate::metrics::Metrics;
use crate::models::slices::SliceServer;
use crate::shutdown::Shutdown;
use crate::trust::join_server::JoinServer;
use crate::trust::renewals::{OwnCertificate, Renewals};
use quinn::Endpoint;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::interval;
use woolly_protocol::ids::WorkerId;
use woolly_protocol::join::RenewalRequest;
use woolly_protocol::peer::{Peer, accept, screen};
use woolly_protocol::places::Places;
use woolly_protocol::refusal::{Refusal, RefusalCode};
use woolly_protocol::renewing::answer_renewal;

/// Connections with a certificate at a time: 64 stages and as many spares, each with a link and
/// slices, and as many again. Handshakes and connections that join are bounded apart, so nobody
/// without a certificate can take one of these places.
const CERTIFIED_MAX: usize = 512;
/// Of one worker among them: a link and slices, each once more while the end of an older one has not
/// been noticed, and some more.
const PER_WORKER_MAX: usize = 8;
/// How often it is looked whether the coordinator's own certificate is to be renewed.
const OWN_LOOK: Duration = Duration::from_secs(3600);

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
    /// Where it is told until when certificates are valid.
    pub metrics: Arc<Metrics>,
}

impl Listener {
    /// Accepts connections until `stop`, then closes all and waits until peers could hear of it.
    pub async fn run(self: Arc<Self>, mut own: OwnCertificate, mut stop: Shutdown) {
        let half_open = Places::of_handshakes();
        let certified = Places::new(CERTIFIED_MAX, PER_WORKER_MAX);
        let mut connections = JoinSet::new();
        let mut next_link = LinkId(1);
        let mut looks = interval(OWN_LOOK);
        self.metrics.certificate("ca", self.renewals().ca.validity().until);
        self.metrics.certificate("coordinator", own.validity().until);
        loop {
            let incoming = tokio::select! {
                () = stop.asked() => break,
                Some(_) = connections.join_next() => continue,
                _ = looks.tick() => {
                    self.renew_own(&mut own);
                    continue;
                }
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            let Some((incoming, place)) = screen(incoming, &half_open) else { continue };
            let (listener, link) = (Arc::clone(&self), next_link);
            let certified = certified.clone();
            next_link.0 += 1;
            connections.spawn(async move {
                let remote = incoming.remote_address();
                let accepted = accept(incoming, listener.renewals().clock.now()).await;
                drop(place);
                match accepted {
                    Ok((connection, peer)) => {
                        listener.serve(connection, peer, link, &certified).await;
                    }
                    Err(error) => {
                        listener.refused(format_args!("a connection from {remote}: {error}"))
                    }
                }
            });
        }
        let refusal = Refusal::new(RefusalCode::ShuttingDown, "the coordinator is shutting down");
        self.endpoint.close(refusal.code.number().into(), refusal.text.as_bytes());
        connections.shutdown().await;
        self.endpoint.wait_idle().await;
    }

    async fn serve(
        &self,
        connection: quinn::Connection,
        peer: Peer,
        link: LinkId,
        certified: &Places<WorkerId>,
    ) {
        let remote = connection.remote_address();
        let place = match peer {
            Peer::Worker(worker) | Peer::Slices(worker) | Peer::Renewing(worker) => {
                if let Some(refusal) = self.renewals().exclusions.refusal(worker) {
                    refusal.close(&connection);
                    let id = worker.hex();
                    return self.refused(format_args!("worker {id} ({remote}): {refusal}"));
                }
                certified.take(worker)
            }
            Peer::Joining => return self.join.serve(connection).await,
            Peer::Coordinator => {
                let text = "another coordinator of this cluster dialled: workers dial here";
                Refusal::new(RefusalCode::WrongRole, text).close(&connection);
                return self.refused(format_args!("a connection from {remote}: {text}"));
            }
        };
        let Some(_place) = place else {
            let text = format!(
                "too many connections: {CERTIFIED_MAX} in all and {PER_WORKER_MAX} of one worker are taken"
            );
            Refusal::new(RefusalCode::Busy, &text).close(&connection);
            return self.refused(format_args!("a connection from {remote}: {text}"));
        };
        match peer {
            Peer::Slices(worker) => {
                tokio::select! {
                    () = self.slices.serve(connection.clone(), worker) => {}
                    refusal = self.renewals().exclusions.until_refused(worker) => {
                        refusal.close(&connection);
                    }
                }
            }
            Peer::Renewing(worker) => {
                let sign = |request: &RenewalRequest| self.renewals().sign(worker, request);
                let answered = answer_renewal(&connection, &self.links.preamble, sign).await;
                if let Err(error) = answered {
                    let id = worker.hex();
                    self.refused(format_args!("the renewal of worker {id} ({remote}): {error}"));
                }
            }
            Peer::Worker(worker) => {
                if let Err(error) = links::run(connection, worker, link, self.links.clone()).await {
                    self.refused(format_args!("worker {} ({remote}): {error}", worker.hex()));
                }
            }
            Peer::Joining | Peer::Coordinator => {}
        }
    }

    fn renewals(&self) -> &Renewals {
        &self.links.renewals
    }

    /// Connections that are accepted from now on are shown a new certificate, if it is time for one.
    fn renew_own(&self, own: &mut OwnCertificate) {
        match own.renewed() {
            Ok(None) => {}
            Ok(Some(server)) => {
                self.endpoint.set_server_config(Some(server));
                self.metrics.certificate("coordinator", own.validity().until);
                tracing::info!("the coordinator's own certificate is renewed");
            }
            Err(error) => tracing::error!("cannot renew the coordinator's certificate: {error:#}"),
        }
    }

    /// A line about a refused connection, unless there were too many of late.
    fn refused(&self, what: std::fmt::Arguments<'_>) {
        self.join.refused().warn(format_args!("refused {what}"));
    }
}

#[cfg(test)]
mod tests;
