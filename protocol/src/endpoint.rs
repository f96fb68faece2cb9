//! QUIC endpoints: sockets and transport settings.

use crate::certificate::{COORDINATOR_NAME, worker_name};
use crate::identity::Identity;
use crate::ids::WorkerId;
use crate::limits::LIVE_PLANS_MAX;
use crate::peer::{HANDSHAKE_TIME, explain};
use crate::tls::{self, ALPN, ALPN_JOIN, ALPN_RENEW, ALPN_SLICES, ClientAuth, Trust};
use crate::windows::{LINK_WINDOW, SLICES_WINDOW, UNKNOWN_WINDOW, WINDOW_MAX};
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, Connection, Endpoint, MtuDiscoveryConfig, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of UDP buffer asked from the kernel, each way: with the usual 208 KiB a burst of hidden
/// states loses thousands of packets.
pub const SOCKET_BUFFER: usize = 4 << 20;
/// How often an idle connection shows that it is alive.
pub const KEEP_ALIVE: Duration = Duration::from_millis(400);
/// The idle time-out if nothing else is asked for.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bidirectional streams that a peer may have open.
pub const STREAMS_MAX: u32 = 16;
/// Unidirectional streams that a peer may have open: two of each plan that a worker may serve, and a few
/// that are about to be closed.
pub const PLAN_STREAMS_MAX: u32 = 2 * LIVE_PLANS_MAX as u32 + 4;
/// Connections that wait to be accepted.
pub const INCOMING_MAX: usize = 1024;
/// Bytes buffered for all connections that wait to be accepted.
pub const INCOMING_BUFFER: u64 = 8 << 20;
/// Bytes of a UDP datagram at most. quinn hands ten of them to the system in one call, which refuses
/// more than the 65,507 bytes of one UDP packet: longer ones would be lost in every burst. What the way
/// allows is found out by probes, from [1,200 bytes](quinn::TransportConfig::initial_mtu) up; loopback
/// and networks with jumbo frames allow all of it, and a token's hidden states are then three datagrams
/// and not twelve.
pub const DATAGRAM_MAX: u16 = 65_507 / 10;
/// First congestion window: a prefill's hidden states leave without slow start.
const INITIAL_WINDOW: u64 = 1 << 20;
/// How long a peer may keep an acknowledgement back; quinn's own time. A token's answer mostly comes
/// within it and carries it: with 2 ms a datagram came of its own into most forwards, and took a core
/// from the computing thread on both sides. A packet that is lost last is repeated so much later.
const ACK_DELAY: Duration = Duration::from_millis(25);
/// Datagrams that a peer may take before it acknowledges them at once, and not only after
/// [`ACK_DELAY`]. An acknowledgement is sent before what came is handed on, so with quinn's own number,
/// one, it stood in the way of every token's hidden states.
const UNACKNOWLEDGED: u32 = 15;

/// A bound endpoint.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// What to print if the kernel gave smaller buffers than asked; says what to type.
    pub warning: Option<String>,
}

/// Binds a UDP socket with large buffers. `server` is what it accepts; `None` only dials.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
///
/// What the system says, such as an address in use.
pub fn bind(address: SocketAddr, server: Option<quinn::ServerConfig>) -> io::Result<Bound> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        // `[::]` serves both families, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    // The kernel clamps silently, or refuses on some systems; what counts is what it gave.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    let given = socket.recv_buffer_size()?.min(socket.send_buffer_size()?);
    socket.bind(&address.into())?;
    let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no tokio runtime"))?;
    let mut config = quinn::EndpointConfig::default();
    config.max_udp_payload_size(DATAGRAM_MAX).map_err(io::Error::other)?;
    let endpoint = Endpoint::new(config, server, socket.into(), runtime)?;
    Ok(Bound { endpoint, warning: buffer_warning(given) })
}

fn buffer_warning(given: usize) -> Option<String> {
    // Linux reports twice what can be used.
    let usable = if cfg!(target_os = "linux") { given / 2 } else { given };
    (usable < SOCKET_BUFFER).then(|| {
        format!(
            "the system gives UDP sockets buffers of {} KiB instead of {} KiB, packets will be \
             lost under load; as root: sysctl -w net.core.rmem_max={SOCKET_BUFFER} \
             net.core.wmem_max={SOCKET_BUFFER}",
            usable >> 10,
            SOCKET_BUFFER >> 10
        )
    })
}

/// What the coordinator accepts: workers, slices connections, joining, and renewals.
///
/// # Errors
///
/// If the identity cannot be used; not for one of this crate's making.
pub fn coordinator_server(
    identity: &Identity,
    idle_timeout: Duration,
) -> Result<quinn::ServerConfig, rustls::Error> {
    let alpns = [ALPN, ALPN_JOIN, ALPN_SLICES, ALPN_RENEW];
    let tls = tls::server(identity, &alpns, ClientAuth::Optional)?;
    Ok(server_config(tls, transport(idle_timeout, UNKNOWN_WINDOW)))
}

/// What a worker accepts: the previous stage, with a certificate of the cluster. Whether it is the
/// right worker is the caller's to check, by [`accepted`](crate::peer::accepted).
///
/// # Errors
///
/// As [`coordinator_server`].
pub fn worker_server(
    identity: &Identity,
    idle_timeout: Duration,
) -> Result<quinn::ServerConfig, rustls::Error> {
    let tls = tls::server(identity, &[ALPN], ClientAuth::Required)?;
    Ok(server_config(tls, transport(idle_timeout, UNKNOWN_WINDOW)))
}

/// How to dial the coordinator or a worker with a certificate, ALPN `woolly`.
///
/// # Errors
///
/// As [`coordinator_server`].
pub fn link_client(
    identity: &Identity,
    idle_timeout: Duration,
) -> Result<quinn::ClientConfig, rustls::Error> {
    let tls = tls::client(identity, ALPN)?;
    Ok(client_config(tls, transport(idle_timeout, LINK_WINDOW)))
}

/// How to dial the coordinator for slices, ALPN `woolly-slices`: smaller windows, so that slices
/// never fill the memory and the way that forwards need. The peer opens no streams.
///
/// # Errors
///
/// As [`coordinator_server`].
pub fn slices_client(
    identity: &Identity,
    idle_timeout: Duration,
) -> Result<quinn::ClientConfig, rustls::Error> {
    let tls = tls::client(identity, ALPN_SLICES)?;
    Ok(client_config(tls, without_streams(transport(idle_timeout, SLICES_WINDOW))))
}

/// How to dial the coordinator for a new certificate, ALPN `woolly-renew`; the old one may have expired. The
/// peer opens no streams.
///
/// # Errors
///
/// As [`coordinator_server`].
pub fn renewal_client(
    identity: &Identity,
    idle_timeout: Duration,
) -> Result<quinn::ClientConfig, rustls::Error> {
    let tls = tls::client(identity, ALPN_RENEW)?;
    Ok(client_config(tls, without_streams(transport(idle_timeout, UNKNOWN_WINDOW))))
}

/// How to dial the coordinator with nothing but a token's pin or a join secret, ALPN `woolly-join`.
///
/// # Errors
///
/// Only if the cryptography library fails.
pub fn join_client(
    trust: Trust,
    idle_timeout: Duration,
) -> Result<quinn::ClientConfig, rustls::Error> {
    let tls = tls::join_client(trust)?;
    Ok(client_config(tls, without_streams(transport(idle_timeout, UNKNOWN_WINDOW))))
}

/// Dials the coordinator.
///
/// # Errors
///
/// The address, and what TLS or the network says, as a sentence.
pub async fn dial_coordinator(
    endpoint: &Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
) -> Result<Connection, DialError> {
    dial(endpoint, config, address, COORDINATOR_NAME).await
}

/// Dials a worker and accepts no other one at that address.
///
/// # Errors
///
/// As [`dial_coordinator`].
pub async fn dial_worker(
    endpoint: &Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
    worker: WorkerId,
) -> Result<Connection, DialError> {
    dial(endpoint, config, address, &worker_name(worker)).await
}

async fn dial(
    endpoint: &Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
    name: &str,
) -> Result<Connection, DialError> {
    let fail = |problem| DialError { address, problem };
    let connecting = endpoint
        .connect_with(config, address, name)
        .map_err(|error| fail(DialProblem::Connect(error)))?;
    match timeout(HANDSHAKE_TIME, connecting).await {
        Ok(connected) => connected.map_err(|error| fail(DialProblem::Connection(error))),
        Err(_) => Err(fail(DialProblem::Timeout)),
    }
}

/// Why a peer could not be dialled.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {address}: {problem}")]
pub struct DialError {
    /// The peer's address.
    pub address: SocketAddr,
    /// What went wrong.
    pub problem: DialProblem,
}

/// What went wrong when dialling.
#[derive(Debug, thiserror::Error)]
pub enum DialProblem {
    /// The address cannot be dialled from this endpoint.
    #[error(transparent)]
    Connect(quinn::ConnectError),
    /// Nobody answered, or one side does not trust the other.
    #[error("{}", explain(.0))]
    Connection(quinn::ConnectionError),
    /// The handshake began and did not end.
    #[error("the handshake took longer than {} s", HANDSHAKE_TIME.as_secs())]
    Timeout,
}

fn transport(idle_timeout: Duration, window: u32) -> TransportConfig {
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    let mut acks = AckFrequencyConfig::default();
    acks.max_ack_delay(Some(ACK_DELAY));
    acks.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED));
    let mut probes = MtuDiscoveryConfig::default();
    probes.upper_bound(DATAGRAM_MAX);
    let idle = u32::try_from(idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(VarInt::from_u32(idle).into()))
        .receive_window(VarInt::from_u32(window))
        // The window of the connection is the one that holds: it can be changed later.
        .stream_receive_window(VarInt::from_u32(WINDOW_MAX))
        .send_window(LINK_WINDOW.into())
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(PLAN_STREAMS_MAX))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(congestion))
        .mtu_discovery_config(Some(probes))
        .ack_frequency_config(Some(acks));
    transport
}

fn without_streams(mut transport: TransportConfig) -> TransportConfig {
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport
}

fn server_config(tls: rustls::ServerConfig, transport: TransportConfig) -> quinn::ServerConfig {
    let tls = QuicServerConfig::try_from(tls).expect("the provider has QUIC's first cipher");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BUFFER);
    config
}

fn client_config(tls: rustls::ClientConfig, transport: TransportConfig) -> quinn::ClientConfig {
    let tls = QuicClientConfig::try_from(tls).expect("the provider has QUIC's first cipher");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_ask_the_system_for_the_buffers_that_sockets_ask_for() {
        let settings = include_str!("../../deploy/systemd/60-woolly.conf");
        for name in ["net.core.rmem_max", "net.core.wmem_max"] {
            let line = format!("{name} = {SOCKET_BUFFER}");
            assert!(settings.lines().any(|found| found == line), "{line}");
        }
    }

    #[test]
    fn small_buffers_are_told_with_the_remedy() {
        assert_eq!(buffer_warning(usize::MAX), None);
        let warning = buffer_warning(212_992).unwrap();
        assert!(warning.contains("sysctl -w net.core.rmem_max=4194304"), "{warning}");
    }
}
