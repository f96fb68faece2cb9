//! The first 32 bytes each way on a connection: a layout that never changes.
//!
//! ```text
//!  0  8   magic "WOOLLY\0\x01"
//!  8  4   protocol version
//! 12  4   oldest protocol version spoken
//! 16  4   NUMERICS
//! 20 12   zero
//! ```
//!
//! All numbers are `u32` little-endian. The side that dialled opens the first bidirectional stream of
//! the connection with its preamble ([`greet`]); the other side answers there with its own
//! ([`answer_greeting`]).

use crate::PROTOCOL;
use crate::frame::FrameError;
use crate::frame_io::{connection_error, read_error, write_error};
use crate::refusal::{Refusal, RefusalCode, u32_at};
use quinn::{Connection, RecvStream, SendStream};
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of a preamble.
pub const PREAMBLE_LEN: usize = 32;
/// What a preamble begins with.
pub const PREAMBLE_MAGIC: [u8; 8] = *b"WOOLLY\0\x01";
/// Time in which both preambles must have passed.
pub const GREETING_TIME: Duration = Duration::from_secs(5);
/// Time that a refused peer has to take the refusal before the connection is closed.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// What a side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// Its protocol version.
    pub protocol: u32,
    /// The oldest protocol version that it speaks.
    pub oldest: u32,
    /// The version of its order of floating-point operations.
    pub numerics: u32,
}

impl Preamble {
    /// What this program speaks; `numerics` is the engine's number.
    pub fn ours(numerics: u32) -> Self {
        Self { protocol: PROTOCOL, oldest: PROTOCOL, numerics }
    }

    /// The bytes on the wire.
    pub fn to_bytes(self) -> [u8; PREAMBLE_LEN] {
        let mut bytes = [0; PREAMBLE_LEN];
        bytes[0..8].copy_from_slice(&PREAMBLE_MAGIC);
        bytes[8..12].copy_from_slice(&self.protocol.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.oldest.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.numerics.to_le_bytes());
        bytes
    }

    /// Reads a peer's preamble.
    ///
    /// # Errors
    ///
    /// [`RefusalCode::Malformed`] if it is none.
    pub fn from_bytes(bytes: &[u8; PREAMBLE_LEN]) -> Result<Self, Refusal> {
        if bytes[0..8] != PREAMBLE_MAGIC {
            return Err(Refusal::malformed("the first bytes of the stream are not Woolly's"));
        }
        let theirs = Self {
            protocol: u32_at(bytes, 8),
            oldest: u32_at(bytes, 12),
            numerics: u32_at(bytes, 16),
        };
        if theirs.protocol == PROTOCOL && bytes[20..] != [0; 12] {
            return Err(Refusal::malformed("the reserved bytes of the preamble are not zero"));
        }
        Ok(theirs)
    }

    /// Whether this side (`self`) and its peer understand each other.
    ///
    /// # Errors
    ///
    /// A refusal that names both sides' versions and what to do.
    pub fn check(&self, theirs: &Preamble) -> Result<(), Refusal> {
        if self.protocol != theirs.protocol {
            let text = format!(
                "{} speaks Woolly protocol {}, its peer protocol {}: before version 1.0 both sides \
                 must run the same release, so update the one with the lower number",
                this_program(),
                self.protocol,
                theirs.protocol
            );
            return Err(Refusal::new(RefusalCode::Protocol, &text));
        }
        if self.numerics != theirs.numerics {
            let text = format!(
                "{} computes by numerics {}, its peer by numerics {}: tokens would differ between \
                 them, so run the same release on both sides",
                this_program(),
                self.numerics,
                theirs.numerics
            );
            return Err(Refusal::new(RefusalCode::Numerics, &text));
        }
        Ok(())
    }
}

fn this_program() -> String {
    format!("woolly {}", env!("CARGO_PKG_VERSION"))
}

/// Writes the refusal where a frame could stand, gives the peer a second to read it and closes the
/// connection with it.
pub async fn refuse(connection: &Connection, send: &mut SendStream, refusal: &Refusal) {
    let sent = timeout(REFUSAL_TIME, send.write_all(&refusal.to_bytes())).await;
    if matches!(sent, Ok(Ok(()))) && send.finish().is_ok() {
        // Whether the peer took it or is gone, the connection ends here.
        let _ = timeout(REFUSAL_TIME, send.stopped()).await;
    }
    refusal.close(connection);
}

/// Dialling side, once per connection: opens the first bidirectional stream and exchanges
/// preambles. The stream goes on as the protocol's ALPN says.
///
/// # Errors
///
/// [`FrameError::Refused`] if either side finds that they do not understand each other.
pub async fn greet(
    connection: &Connection,
    ours: &Preamble,
) -> Result<(SendStream, RecvStream), FrameError> {
    let greeting = async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(connection_error)?;
        send.write_all(&ours.to_bytes()).await.map_err(write_error)?;
        let theirs = read_preamble(&mut recv).await?.map_err(FrameError::Refused)?;
        ours.check(&theirs).map_err(FrameError::Refused)?;
        Ok((send, recv))
    };
    timeout(GREETING_TIME, greeting)
        .await
        .unwrap_or(Err(FrameError::ReadStalled(GREETING_TIME.as_secs())))
}

/// Accepting side, once per connection: accepts the first bidirectional stream and exchanges
/// preambles; refuses a peer of another version on the stream and closes the connection.
///
/// # Errors
///
/// [`FrameError::Refused`] with what the peer was told, if it does not fit.
pub async fn answer_greeting(
    connection: &Connection,
    ours: &Preamble,
) -> Result<(SendStream, RecvStream), FrameError> {
    let greeting = async {
        let (mut send, mut recv) = connection.accept_bi().await.map_err(connection_error)?;
        send.write_all(&ours.to_bytes()).await.map_err(write_error)?;
        let theirs = read_preamble(&mut recv).await?;
        Ok((send, recv, theirs.and_then(|theirs| ours.check(&theirs))))
    };
    let (mut send, recv, fits) = timeout(GREETING_TIME, greeting)
        .await
        .unwrap_or(Err(FrameError::ReadStalled(GREETING_TIME.as_secs())))?;
    if let Err(refusal) = fits {
        refuse(connection, &mut send, &refusal).await;
        return Err(FrameError::Refused(refusal));
    }
    Ok((send, recv))
}

/// The inner error is what the peer is to be told.
async fn read_preamble(recv: &mut RecvStream) -> Result<Result<Preamble, Refusal>, FrameError> {
    let mut bytes = [0; PREAMBLE_LEN];
    let mut len = 0;
    while len < PREAMBLE_LEN {
        match recv.read(&mut bytes[len..]).await.map_err(read_error)? {
            Some(read) => len += read,
            None => {
                return Err(FrameError::Truncated { expected: PREAMBLE_LEN, found: len });
            }
        }
    }
    Ok(Preamble::from_bytes(&bytes))
}
