//! Connections that this worker opens: to the coordinator, and to the worker of the next stage.

use crate::config::IDLE_TIMEOUT_MAX;
use crate::convert::preamble;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use woolly_protocol::clock::{show_utc, unix_seconds};
use woolly_protocol::control::Neighbour;
use woolly_protocol::endpoint::{
    DialError, DialProblem, bind, dial_coordinator, dial_worker, link_client, slices_client,
};
use woolly_protocol::frame::FrameError;
use woolly_protocol::identity::{Identity, IdentityError};
use woolly_protocol::joining::JoinError;
use woolly_protocol::peer::explain;
use woolly_protocol::preamble::greet;
use woolly_protocol::refusal::{Refusal, RefusalCode};

/// Addresses of one name that are tried at most.
const ADDRESSES_MAX: usize = 8;
/// QUIC's code for a TLS alert is the alert plus this.
const CRYPTO_ERROR: u64 = 0x100;
/// Alerts that no second attempt changes: a certificate that is broken, not accepted, of another CA, of another
/// cluster or role, or missing. One that is not valid at this time is not among them: clocks are set, often soon
/// after a machine has started.
const TRUST_ALERTS: [u64; 5] = [42, 46, 48, 49, 116];

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum DialFailure {
    /// The other side, or this one, refuses; trying again does not help unless something changes.
    #[error("{0}")]
    Refused(Refusal),
    /// The certificates do not fit each other.
    #[error("{0}")]
    Untrusted(String),
    /// Not reached, this time.
    #[error("{0}")]
    Unreachable(String),
}

impl From<DialError> for DialFailure {
    fn from(error: DialError) -> DialFailure {
        match &error.problem {
            DialProblem::Connection(lost) => {
                DialFailure::lost(lost, &format!("cannot connect to {}: ", error.address))
            }
            _ => DialFailure::Unreachable(error.to_string()),
        }
    }
}

impl From<FrameError> for DialFailure {
    fn from(error: FrameError) -> DialFailure {
        match error {
            FrameError::Refused(refusal) => DialFailure::Refused(refusal),
            FrameError::Connection(lost) => DialFailure::lost(&lost, ""),
            error => DialFailure::Unreachable(error.to_string()),
        }
    }
}

impl From<JoinError> for DialFailure {
    fn from(error: JoinError) -> DialFailure {
        match error {
            JoinError::Dial(error) => error.into(),
            JoinError::Frame(error) => error.into(),
            // A clock may be set while this worker tries again.
            JoinError::Identity(error @ IdentityError::NotValidNow { .. }) => {
                DialFailure::Unreachable(error.to_string())
            }
            JoinError::Identity(error) => DialFailure::Untrusted(error.to_string()),
            error => DialFailure::Unreachable(error.to_string()),
        }
    }
}

impl DialFailure {
    fn lost(error: &ConnectionError, before: &str) -> DialFailure {
        if let Some(refusal) = Refusal::from_connection(error) {
            return DialFailure::Refused(with_own_clock(refusal));
        }
        let code = match error {
            ConnectionError::TransportError(error) => u64::from(error.code),
            ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
            _ => 0,
        };
        let text = format!("{before}{}", explain(error));
        if TRUST_ALERTS.iter().any(|alert| CRYPTO_ERROR + alert == code) {
            DialFailure::Untrusted(text)
        } else {
            DialFailure::Unreachable(text)
        }
    }
}

/// Dials with this worker's certificate.
#[derive(Debug)]
pub struct Dialer {
    identity: RwLock<Arc<Identity>>,
    /// Silence after which a link to another worker is broken.
    idle_timeout: Duration,
    warned: AtomicBool,
}

/// A connection on which both sides have said who they are. Its first stream stays open with it.
#[derive(Debug)]
pub struct Greeted {
    /// The connection.
    pub connection: Connection,
    /// This side of the first stream.
    pub send: SendStream,
    /// The other side's.
    pub recv: RecvStream,
}

impl Dialer {
    /// Dials as `identity`; `idle_timeout` is for links to other workers.
    pub fn new(identity: Identity, idle_timeout: Duration) -> Dialer {
        let identity = RwLock::new(Arc::new(identity));
        Dialer { identity, idle_timeout, warned: AtomicBool::new(false) }
    }

    /// Who this worker is.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Dials as this one from now on.
    pub fn replace(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
    }

    /// Opens the connection for control and forwards to the coordinator. The shorter of both sides'
    /// idle time-outs holds, so the coordinator's own decides.
    ///
    /// # Errors
    ///
    /// See [`DialFailure`].
    pub async fn coordinator(&self, address: SocketAddr) -> Result<Greeted, DialFailure> {
        let config = link_client(&self.identity(), IDLE_TIMEOUT_MAX).map_err(tls)?;
        let endpoint = self.endpoint(address)?;
        let connection = dial_coordinator(&endpoint, config, address).await?;
        greeted(connection).await
    }

    /// Opens the connection for slices to the coordinator.
    ///
    /// # Errors
    ///
    /// See [`DialFailure`].
    pub async fn slices(&self, address: SocketAddr) -> Result<Greeted, DialFailure> {
        let config = slices_client(&self.identity(), IDLE_TIMEOUT_MAX).map_err(tls)?;
        let endpoint = self.endpoint(address)?;
        let connection = dial_coordinator(&endpoint, config, address).await?;
        let mut greeted = greeted(connection).await?;
        // Nothing but the preambles passes on this stream; it was open until now.
        let _ = greeted.send.finish();
        Ok(greeted)
    }

    /// Opens the connection for forwards to the next stage.
    ///
    /// # Errors
    ///
    /// See [`DialFailure`].
    pub async fn next_stage(&self, next: &Neighbour) -> Result<Greeted, DialFailure> {
        let address: SocketAddr = next
            .address
            .parse()
            .map_err(|_| DialFailure::Unreachable(format!("{:?} is not IP:port", next.address)))?;
        let config = link_client(&self.identity(), self.idle_timeout).map_err(tls)?;
        let endpoint = self.endpoint(address)?;
        let connection = dial_worker(&endpoint, config, address, next.worker).await?;
        greeted(connection).await
    }

    fn endpoint(&self, peer: SocketAddr) -> Result<Endpoint, DialFailure> {
        let (endpoint, warning) = dialling_endpoint(peer)?;
        if let Some(warning) = warning
            && !self.warned.swap(true, Relaxed)
        {
            tracing::warn!("{warning}");
        }
        Ok(endpoint)
    }
}

/// A refusal because of a clock, with what this machine's says: the other side does not know that.
fn with_own_clock(mut refusal: Refusal) -> Refusal {
    if refusal.code == RefusalCode::ClockWrong {
        let own = show_utc(unix_seconds(SystemTime::now()));
        refusal.text = format!("{}; this machine's clock says {own}", refusal.text);
    }
    refusal
}

/// A socket that reaches `peer` and nothing it need not reach: loopback stays on loopback.
///
/// # Errors
///
/// If the system gives none.
pub fn dialling_endpoint(peer: SocketAddr) -> Result<(Endpoint, Option<String>), DialFailure> {
    let ip: IpAddr = match (peer.ip(), peer.ip().is_loopback()) {
        (IpAddr::V4(_), true) => Ipv4Addr::LOCALHOST.into(),
        (IpAddr::V4(_), false) => Ipv4Addr::UNSPECIFIED.into(),
        (IpAddr::V6(_), true) => Ipv6Addr::LOCALHOST.into(),
        (IpAddr::V6(_), false) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let bound = bind((ip, 0).into(), None)
        .map_err(|error| DialFailure::Unreachable(format!("cannot open a UDP socket: {error}")))?;
    Ok((bound.endpoint, bound.warning))
}

fn tls(error: rustls::Error) -> DialFailure {
    DialFailure::Untrusted(format!("this worker's certificate cannot be used: {error}"))
}

async fn greeted(connection: Connection) -> Result<Greeted, DialFailure> {
    let (send, recv) = greet(&connection, &preamble()).await?;
    Ok(Greeted { connection, send, recv })
}

/// The addresses of a host, IPv4 first as the system orders them.
///
/// # Errors
///
/// If the name has none.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialFailure> {
    let failed = |why: String| DialFailure::Unreachable(format!("cannot resolve {host}: {why}"));
    let found = tokio::net::lookup_host((host, port)).await;
    let mut addresses: Vec<SocketAddr> =
        found.map_err(|error| failed(error.to_string()))?.take(ADDRESSES_MAX).collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    if addresses.is_empty() {
        return Err(failed("the name has no address".to_owned()));
    }
    Ok(addresses)
}
