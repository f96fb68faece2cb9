//! How a connection begins where TLS is spoken: the handshake within a time, and an answer to those who
//! speak plain HTTP.

use super::certificates::Certificates;
use super::connection::HEADER_TIMEOUT;
use super::socket::{Session, Wire};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use woolly_protocol::log_limit::LogLimit;

/// A handshake must be complete in this time, the client's first byte included.
pub const HANDSHAKE_TIMEOUT: Duration = HEADER_TIMEOUT;

/// The first byte of every TLS connection: a record of the kind "handshake" (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// What a client that speaks plain HTTP is told.
const NO_PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 141\r\n\r\n\
    {\"error\":{\"message\":\"This port speaks HTTPS: begin the URL with https://.\",\
    \"type\":\"invalid_request_error\",\"param\":null,\"code\":\"https_only\"}}\n";

/// Handshakes that failed: strangers can cause as many as they like.
static FAILED: LogLimit = LogLimit::new();

/// TLS on a new connection; `None` if nothing came of it, which the log says.
pub async fn begin(stream: TcpStream, certificates: &Certificates) -> Option<Session> {
    let from = stream.peer_addr().map_or_else(|_| "a client".to_owned(), |at| at.to_string());
    let wire = Wire::new(stream);
    let handshake = async {
        match wire.first_byte().await {
            Ok(Some(HANDSHAKE)) => {}
            // It was opened and closed again: a probe of the port.
            Ok(None) => return Ok(None),
            Ok(Some(byte)) if byte.is_ascii_uppercase() => {
                wire.refuse(NO_PLAIN_HTTP).await;
                return Err("it speaks plain HTTP, and this port speaks HTTPS".to_owned());
            }
            Ok(Some(_)) => return Err("what it sends is not TLS".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        let accepting = TlsAcceptor::from(certificates.config()).accept(wire.clone());
        accepting.await.map(Some).map_err(|error| error.to_string())
    };
    let done = timeout(HANDSHAKE_TIMEOUT, handshake).await;
    match done.unwrap_or_else(|_| Err(format!("no handshake within {HANDSHAKE_TIMEOUT:?}"))) {
        Ok(session) => session,
        Err(why) => {
            FAILED.warn(format_args!("HTTPS with {from} did not begin: {why}"));
            None
        }
    }
}
