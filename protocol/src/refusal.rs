//! Turning a peer away: a layout that never changes.
//!
//! ```text
//!  0  8   magic "WOOLLY\0\x02"
//!  8  4   code
//! 12  4   length of the text, at most 4096
//! 16  …   UTF-8 text
//! ```
//!
//! All numbers are `u32` little-endian. A refusal may stand wherever a frame may begin (its magic,
//! read as a length, is longer than any archive); the same code and text also close the
//! connection, so that a peer that was not reading its stream learns them too.

use crate::check::text_from;
use quinn::{Connection, VarInt};
use std::fmt;

/// What a refusal begins with.
pub const REFUSAL_MAGIC: [u8; 8] = *b"WOOLLY\0\x02";
/// Bytes before the text, as many as a frame's header has.
pub const REFUSAL_HEAD_LEN: usize = 16;

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
    /// The certificate was taken back.
    Removed,
    /// Workers of this name or from this machine may not be here.
    Banned,
    /// The certificate has expired: it may be renewed.
    CertificateExpired,
    /// The certificate is not valid yet: a clock is wrong.
    ClockWrong,
    /// A code that this version does not know.
    Other(u32),
}

const CODES: [(u32, RefusalCode); 19] = [
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
    (16, RefusalCode::Removed),
    (17, RefusalCode::Banned),
    (18, RefusalCode::CertificateExpired),
    (19, RefusalCode::ClockWrong),
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
    /// For people, at most [`TEXT_MAX`](crate::limits::TEXT_MAX) bytes, without control characters.
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
        let mut bytes = Vec::with_capacity(REFUSAL_HEAD_LEN + text.len());
        bytes.extend_from_slice(&REFUSAL_MAGIC);
        bytes.extend_from_slice(&self.code.number().to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
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

/// The little-endian number at a place.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
