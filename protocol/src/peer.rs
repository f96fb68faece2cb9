//! Who is at the other end of a connection, from its certificate and ALPN; and why not.

use crate::certificate::{Role, Validity, subject, validity};
use crate::clock::{show_utc, unix_seconds};
use crate::ids::WorkerId;
use crate::places::{Place, Places, network};
use crate::refusal::{Refusal, RefusalCode};
use crate::tls::{ALPN, ALPN_JOIN, ALPN_RENEW, ALPN_SLICES};
use crate::windows::{LINK_WINDOW, SLICES_WINDOW, set_window};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Incoming, VarInt};
use rustls::pki_types::CertificateDer;
use std::time::{Duration, SystemTime};
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
    /// A worker that wants a new certificate, ALPN `woolly-renew`. The one that it has shown is of the cluster,
    /// and may have expired.
    Renewing(WorkerId),
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

/// Accepts a connection and finds out who it is; a peer that may not be here is refused. `now` is the time of
/// day by which its certificate is judged.
///
/// # Errors
///
/// If the handshake fails or takes longer than [`HANDSHAKE_TIME`], or [`accepted`] refuses.
pub async fn accept(
    incoming: Incoming,
    now: SystemTime,
) -> Result<(Connection, Peer), AcceptError> {
    let connecting = incoming.accept().map_err(AcceptError::Connection)?;
    let connection = timeout(HANDSHAKE_TIME, connecting)
        .await
        .map_err(|_| AcceptError::Timeout)?
        .map_err(AcceptError::Connection)?;
    match accepted(&connection, now) {
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
/// All but joining need a certificate ([`RefusalCode::NotAuthenticated`]), slices and renewals one of a worker
/// ([`RefusalCode::WrongRole`]). It must be valid at `now` ([`RefusalCode::ClockWrong`],
/// [`RefusalCode::CertificateExpired`]); for a renewal it may have expired.
pub fn accepted(connection: &Connection, now: SystemTime) -> Result<Peer, Refusal> {
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
    let Some((role, validity)) = peer_certificate(connection) else {
        let text = "this connection needs a certificate of the cluster: join with a token first";
        return Err(Refusal::new(RefusalCode::NotAuthenticated, text));
    };
    check_time(validity, now, alpn == ALPN_RENEW)?;
    match (&alpn[..], role) {
        (ALPN_RENEW, Role::Worker(worker)) => {
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(1));
            connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
            Ok(Peer::Renewing(worker))
        }
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
    match peer_certificate(connection) {
        Some((Role::Worker(worker), _)) => Some(worker),
        _ => None,
    }
}

/// The role in the peer's certificate, which TLS has verified, and when that is valid.
fn peer_certificate(connection: &Connection) -> Option<(Role, Validity)> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let certificate = chain.first()?;
    Some((subject(certificate).ok()?.role, validity(certificate).ok()?))
}

/// Whether a peer's certificate is valid at `now`, or may be renewed then.
fn check_time(validity: Validity, now: SystemTime, renews: bool) -> Result<(), Refusal> {
    let clock = show_utc(unix_seconds(now));
    if validity.is_to_come(now) {
        let text = format!(
            "the certificate shown is valid from {} on, and the clock of the side that refuses it says {clock}: set \
             the clock of the machine that is wrong",
            show_utc(validity.from)
        );
        return Err(Refusal::new(RefusalCode::ClockWrong, &text));
    }
    if validity.is_over(now) && !renews {
        let text = format!(
            "the certificate shown was valid until {}, and the clock of the side that refuses it says {clock}: it must \
             be renewed first, or a clock is wrong",
            show_utc(validity.until)
        );
        return Err(Refusal::new(RefusalCode::CertificateExpired, &text));
    }
    Ok(())
}

/// The alert for a certificate that has expired or is not valid yet.
const CERTIFICATE_EXPIRED: u8 = 45;

/// TLS alerts that tell something; see RFC 8446, section 6.
const ALERTS: [(u8, &str); 7] = [
    (42, "broken certificate"),
    (CERTIFICATE_EXPIRED, "certificate not valid at this time: compare both machines' clocks"),
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
    if let ConnectionError::TransportError(error) = error
        && code == u64::from(CERTIFICATE_EXPIRED) | 0x100
        && let Some(text) = explain_clock(&error.reason)
    {
        return format!("{who}: {text}");
    }
    let alert = ALERTS.iter().find(|(alert, _)| u64::from(*alert) | 0x100 == code);
    alert.map_or_else(|| error.to_string(), |(_, why)| format!("{who}: {why}"))
}

/// What TLS says of a certificate that is not valid at this time, in dates: it names the time of this machine's
/// clock and the certificate's end or beginning, in seconds since 1970, and then how far they are apart. `None`
/// if it says something else.
fn explain_clock(reason: &str) -> Option<String> {
    let is_early = reason.contains("not valid before");
    if !is_early && !reason.contains("not valid after") {
        return None;
    }
    let mut numbers = reason.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    let mut number = || numbers.next()?.parse::<i64>().ok();
    let (now, bound) = (show_utc(number()?), show_utc(number()?));
    let what = if is_early { "is valid from" } else { "was valid until" };
    Some(format!(
        "its certificate {what} {bound}, and this machine's clock says {now}: set the clock of the machine that is \
         wrong"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::CertificateError;
    use rustls::pki_types::UnixTime;

    #[test]
    fn what_tls_says_of_clocks_is_told_in_dates() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let (time, not_before) = (at(86_400), at(951_782_400));
        let early = CertificateError::NotValidYetContext { time, not_before };
        let late = CertificateError::ExpiredContext { time: not_before, not_after: time };
        let told = |error| explain_clock(&rustls::Error::InvalidCertificate(error).to_string());
        let (early, late) = (told(early).unwrap(), told(late).unwrap());
        let start = "its certificate is valid from 2000-02-29 00:00:00 UTC, and this machine's clock says \
                     1970-01-02 00:00:00 UTC";
        assert!(early.starts_with(start), "{early}");
        let start = "its certificate was valid until 1970-01-02 00:00:00 UTC, and this machine's clock says \
                     2000-02-29 00:00:00 UTC";
        assert!(late.starts_with(start), "{late}");
        assert_eq!(told(CertificateError::Revoked), None);
    }
}
