//! Who is at the other end of a connection, from its certificate and ALPN; and why not.

use crate::certificate::{Role, subject};
use crate::ids::WorkerId;
use crate::places::{Place, Places, network};
use crate::refusal::{Refusal, RefusalCode};
use crate::tls::{ALPN, ALPN_JOIN, ALPN_SLICES};
use crate::windows::{LINK_WINDOW, SLICES_WINDOW, set_window};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Incoming, VarInt};
use rustls::pki_types::CertificateDer;
use std::time::Duration;
use tokio::time::timeout;

/// Time that a handshake may take.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Handshakes under way from which on a peer must first prove that its address is its own.
pub const HALF_OPEN_VALIDATE: usize = 32;

/// Who dialled, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Anyone with a token; ALPN `woolly-join`. It has shown no certificate, or one that does not
    /// matter here.
    Joining,
    /// A worker with a certificate of the cluster, ALPN `woolly`.
    Worker(WorkerId),
    /// The same, for slices; ALPN `woolly-slices`.
    Slices(WorkerId),
    /// The coordinator, ALPN `woolly`. Nobody expects it: it dials nobody.
    Coordinator,
}

/// Why an incoming connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The handshake failed.
    #[error("{}", explain(.0))]
    Connection(ConnectionError),
    /// The handshake began and did not end.
    #[error("the handshake took longer than {} s", HANDSHAKE_TIME.as_secs())]
    Timeout,
    /// The peer was refused, and told so.
    #[error("refused: {0}")]
    Refused(Refusal),
}

/// Takes one of the places of handshakes for an incoming connection, which goes on only while the
/// place is held; `None` if it was answered already, with a request to prove its address or a refusal.
pub fn screen(incoming: Incoming, half_open: &Places) -> Option<(Incoming, Place)> {
    if half_open.taken() >= HALF_OPEN_VALIDATE && incoming.may_retry() {
        // `may_retry` was asked: it cannot fail.
        let _ = incoming.retry();
        return None;
    }
    match half_open.take(network(incoming.remote_address().ip())) {
        Some(place) => Some((incoming, place)),
        None => {
            incoming.refuse();
            None
        }
    }
}

/// Accepts a connection and finds out who it is; a peer that may not be here is refused.
///
/// # Errors
///
/// If the handshake fails or takes longer than [`HANDSHAKE_TIME`], or [`accepted`] refuses.
pub async fn accept(incoming: Incoming) -> Result<(Connection, Peer), AcceptError> {
    let connecting = incoming.accept().map_err(AcceptError::Connection)?;
    let connection = timeout(HANDSHAKE_TIME, connecting)
        .await
        .map_err(|_| AcceptError::Timeout)?
        .map_err(AcceptError::Connection)?;
    match accepted(&connection) {
        Ok(peer) => Ok((connection, peer)),
        Err(refusal) => {
            refusal.close(&connection);
            Err(AcceptError::Refused(refusal))
        }
    }
}

/// Who dialled this connection; gives it the windows and streams of what it is for. The accepting
/// side must call it before it reads anything.
///
/// # Errors
///
/// ALPN `woolly` and `woolly-slices` need a certificate ([`RefusalCode::NotAuthenticated`]), slices
/// one of a worker ([`RefusalCode::WrongRole`]).
pub fn accepted(connection: &Connection) -> Result<Peer, Refusal> {
    let alpn = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol)
        .unwrap_or_default();
    if alpn == ALPN_JOIN {
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(1));
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
        return Ok(Peer::Joining);
    }
    let Some(role) = peer_role(connection) else {
        let text = "this connection needs a certificate of the cluster: join with a token first";
        return Err(Refusal::new(RefusalCode::NotAuthenticated, text));
    };
    match (&alpn[..], role) {
        (ALPN, Role::Worker(worker)) => {
            set_window(connection, LINK_WINDOW);
            Ok(Peer::Worker(worker))
        }
        (ALPN, Role::Coordinator) => Ok(Peer::Coordinator),
        (ALPN_SLICES, Role::Worker(worker)) => {
            connection.set_send_window(SLICES_WINDOW.into());
            connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
            Ok(Peer::Slices(worker))
        }
        _ => {
            let text = "the certificate shown is for another role than this connection needs";
            Err(Refusal::new(RefusalCode::WrongRole, text))
        }
    }
}

/// The worker whose certificate the peer has shown; `None` for the coordinator and for peers
/// without a certificate. Works on both ends of a connection.
pub fn peer_worker_id(connection: &Connection) -> Option<WorkerId> {
    match peer_role(connection) {
        Some(Role::Worker(worker)) => Some(worker),
        _ => None,
    }
}

/// The role in the peer's certificate, which TLS has verified.
fn peer_role(connection: &Connection) -> Option<Role> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    subject(chain.first()?).ok().map(|subject| subject.role)
}

/// TLS alerts that tell something; see RFC 8446, section 6.
const ALERTS: [(u8, &str); 7] = [
    (42, "broken certificate"),
    (45, "certificate not valid at this time: check both machines' clocks"),
    (46, "certificate not accepted"),
    (48, "certificate of another cluster's CA"),
    (49, "certificate of another cluster or role"),
    (116, "no certificate, but one is needed: join with a token first"),
    (120, "the port does not speak Woolly's protocol for this"),
];

/// A lost or refused connection as a sentence that says who refused whom and why.
pub fn explain(error: &ConnectionError) -> String {
    if let Some(refusal) = Refusal::from_connection(error) {
        return refusal.text;
    }
    let (who, code) = match error {
        ConnectionError::TransportError(error) => ("this side refuses the peer", error.code),
        ConnectionError::ConnectionClosed(close) => {
            ("the peer refuses this side", close.error_code)
        }
        ConnectionError::TimedOut => return "no answer in the idle time-out".to_owned(),
        ConnectionError::ApplicationClosed(_) => {
            return "the peer closed the connection".to_owned();
        }
        ConnectionError::LocallyClosed => return "this side closed the connection".to_owned(),
        error => return error.to_string(),
    };
    let code = u64::from(code);
    let alert = ALERTS.iter().find(|(alert, _)| u64::from(*alert) | 0x100 == code);
    alert.map_or_else(|| error.to_string(), |(_, why)| format!("{who}: {why}"))
}
