//! The first 32 bytes each way on a connection, and refusals: layouts that never change.
//!
//! ```text
//! preamble                                  refusal
//!  0  8   magic "WOOLLY\0\x01"               0  8   magic "WOOLLY\0\x02"
//!  8  4   protocol version                   8  4   code
//! 12  4   oldest protocol version spoken    12  4   length of the text, at most 4096
//! 16  4   NUMERICS                          16  …   UTF-8 text
//! 20 12   zero
//! ```
//!
//! All numbers are `u32` little-endian. A refusal may stand wherever a frame may begin (its magic,
//! read as a length, is longer than any archive); the same code and text also close the
//! connection, so that a peer that was not reading its stream learns them too. The side that
//! dialled opens the first bidirectional stream of the connection with its preamble ([`greet`]);
//! the other side answers there with its own ([`answer_greeting`]).

use crate::PROTOCOL;
use crate::check::text_from;
use crate::frame::{FrameError, HEADER_LEN};
use crate::frame_io::{connection_error, read_error, write_error};
use crate::limits::TEXT_MAX;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of a preamble.
pub const PREAMBLE_LEN: usize = 32;
/// What a preamble begins with.
pub const PREAMBLE_MAGIC: [u8; 8] = *b"WOOLLY\0\x01";
/// What a refusal begins with.
pub const REFUSAL_MAGIC: [u8; 8] = *b"WOOLLY\0\x02";
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

/// Why a peer is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// Another protocol version.
    Protocol,
    /// Another order of floating-point operations.
    Numerics,
    /// The token is not one of this cluster's.
    TokenWrong,
    /// The token's time is over.
    TokenExpired,
    /// The token was revoked.
    TokenRevoked,
    /// The token has no uses left.
    TokenUsedUp,
    /// The peer belongs to another cluster.
    WrongCluster,
    /// Another worker has this name.
    NameTaken,
    /// A worker with this certificate is connected already.
    AlreadyConnected,
    /// A certificate is needed and none was shown.
    NotAuthenticated,
    /// The certificate is for another role or another worker.
    WrongRole,
    /// What came is not meaningful.
    Malformed,
    /// A limit of connections, workers or attempts is reached.
    Busy,
    /// The process is shutting down.
    ShuttingDown,
    /// Something failed on the refusing side; its log says what.
    Internal,
    /// A code that this version does not know.
    Other(u32),
}

const CODES: [(u32, RefusalCode); 15] = [
    (1, RefusalCode::Protocol),
    (2, RefusalCode::Numerics),
    (3, RefusalCode::TokenWrong),
    (4, RefusalCode::TokenExpired),
    (5, RefusalCode::TokenRevoked),
    (6, RefusalCode::TokenUsedUp),
    (7, RefusalCode::WrongCluster),
    (8, RefusalCode::NameTaken),
    (9, RefusalCode::AlreadyConnected),
    (10, RefusalCode::NotAuthenticated),
    (11, RefusalCode::WrongRole),
    (12, RefusalCode::Malformed),
    (13, RefusalCode::Busy),
    (14, RefusalCode::ShuttingDown),
    (15, RefusalCode::Internal),
];

impl RefusalCode {
    /// The number on the wire; never 0.
    pub fn number(self) -> u32 {
        match self {
            Self::Other(number) => number,
            known => {
                CODES.iter().find(|(_, code)| *code == known).expect("every code has a number").0
            }
        }
    }

    /// The code with this number.
    pub fn from_number(number: u32) -> Self {
        CODES.iter().find(|(n, _)| *n == number).map_or(Self::Other(number), |(_, code)| *code)
    }
}

/// Turns a peer away: a code to decide by, and a text that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What to decide by.
    pub code: RefusalCode,
    /// For people, at most [`TEXT_MAX`] bytes, without control characters.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// A refusal; the text is made safe for logs and cut to its limit.
    pub fn new(code: RefusalCode, text: &str) -> Self {
        Self { code, text: text_from(text) }
    }

    pub(crate) fn malformed(text: &str) -> Self {
        Self::new(RefusalCode::Malformed, text)
    }

    /// The bytes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = text_from(&self.text);
        let len = u32::try_from(text.len()).expect("texts are below 2^32 bytes");
        let mut bytes = Vec::with_capacity(HEADER_LEN + text.len());
        bytes.extend_from_slice(&REFUSAL_MAGIC);
        bytes.extend_from_slice(&self.code.number().to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    /// Code and length of the text, from the fixed part after its magic was seen.
    pub(crate) fn read_head(head: &[u8; HEADER_LEN]) -> Result<(RefusalCode, usize), FrameError> {
        let (code, len) = (u32_at(head, 8), u32_at(head, 12) as usize);
        if len > TEXT_MAX {
            let text = format!("a refusal's text: expected at most {TEXT_MAX} bytes, found {len}");
            return Err(FrameError::Refused(Self::new(RefusalCode::from_number(code), &text)));
        }
        Ok((RefusalCode::from_number(code), len))
    }

    /// Text that is not UTF-8 loses the wrong bytes only.
    pub(crate) fn from_parts(code: RefusalCode, text: &[u8]) -> Self {
        Self::new(code, &String::from_utf8_lossy(text))
    }

    /// Closes a connection with this refusal; the peer finds it by
    /// [`from_connection`](Self::from_connection). Nothing more is sent on any stream.
    pub fn close(&self, connection: &Connection) {
        connection.close(VarInt::from_u32(self.code.number()), self.text.as_bytes());
    }

    /// The refusal that a peer closed the connection with; `None` if it was closed otherwise.
    pub fn from_connection(error: &quinn::ConnectionError) -> Option<Self> {
        let quinn::ConnectionError::ApplicationClosed(close) = error else { return None };
        let code = u32::try_from(close.error_code.into_inner()).ok().filter(|code| *code != 0)?;
        Some(Self::from_parts(RefusalCode::from_number(code), &close.reason))
    }
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

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
