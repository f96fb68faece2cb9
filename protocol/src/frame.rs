//! Frames: a fixed header, an rkyv archive and sometimes a payload that is used in place.
//!
//! ```text
//! offset  bytes
//!  0      4      archive length, u32 little-endian, without its padding
//!  4      2      kind, u16 little-endian
//!  6      2      zero
//!  8      4      payload length, u32 little-endian
//! 12      4      zero
//! 16      …      archive, padded with zeros to a multiple of 16
//!         …      payload
//! ```
//!
//! Order of checks: lengths against the limits of the kind, before anything is allocated for them;
//! then bytecheck; then [`Message::check`]. Streams are read in `frame_io.rs`; [`Frame::decode`]
//! does the same on plain bytes.

use crate::check::MessageError;
use crate::kind::Kind;
use crate::refusal::Refusal;
use bytes::Bytes;
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as ArchiveError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::{Archive, Deserialize, Serialize};

/// Bytes whose address is a multiple of 16, so that `f32` and `u32` can be read in place.
pub type AlignedBytes = rkyv::util::AlignedVec<ALIGNMENT>;

/// Archives and payloads start at multiples of it, on the wire and in memory.
pub const ALIGNMENT: usize = 16;
/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 16;
/// Room that the encoding of a message begins with: most fit.
const HEAD_GUESS: usize = 512;

/// A message that travels in a frame of its own kind.
pub trait Message:
    for<'a> Serialize<HighSerializer<AlignedBytes, ArenaHandle<'a>, ArchiveError>>
    + Archive<
        Archived: for<'a> CheckBytes<HighValidator<'a, ArchiveError>>
                      + Deserialize<Self, HighDeserializer<ArchiveError>>,
    > + Sized
{
    /// The kind of the frame, with its limits.
    const KIND: Kind;

    /// Whether the message says only what its kind may say, whatever the plan.
    ///
    /// # Errors
    ///
    /// Names the field, what was expected and what came.
    fn check(&self) -> Result<(), MessageError>;
}

/// Why a frame could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The peer refused us; the text says why and what to do.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// A kind that this version does not know.
    #[error("unknown kind of frame: {0}")]
    UnknownKind(u16),
    /// A kind that has no place on this stream or at this time.
    #[error("unexpected frame: expected {expected}, found {found}")]
    UnexpectedKind {
        /// The kinds that would have been right, as text.
        expected: String,
        /// The kind that came.
        found: Kind,
    },
    /// The archive is empty or longer than its kind allows.
    #[error("{kind} frame: expected an archive of 1 to {max} bytes, found {found}")]
    ArchiveLength {
        /// The frame's kind.
        kind: Kind,
        /// The length in the header.
        found: usize,
        /// Its limit.
        max: usize,
    },
    /// The payload is longer than its kind or the plan allows.
    #[error("{kind} frame: expected a payload of at most {max} bytes, found {found}")]
    PayloadLength {
        /// The frame's kind.
        kind: Kind,
        /// The length in the header.
        found: usize,
        /// Its limit.
        max: usize,
    },
    /// Bytes that must be zero are not.
    #[error("{0} frame: bytes that must be zero are not")]
    NotZero(Kind),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame: expected {expected} more bytes, found {found}")]
    Truncated {
        /// Bytes that should have followed.
        expected: usize,
        /// Bytes that did.
        found: usize,
    },
    /// The archive is not one of its type.
    #[error("{kind} frame: broken archive: {problem}")]
    Archive {
        /// The frame's kind.
        kind: Kind,
        /// What bytecheck said.
        problem: String,
    },
    /// The archive is sound but its meaning is not.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The peer sent less than [`PIECE`](crate::frame_io::PIECE) in the time for it.
    #[error("the peer stopped in the middle of a frame: less than 64 KiB in {0} s")]
    ReadStalled(u64),
    /// The peer took less than [`PIECE`](crate::frame_io::PIECE) in the time for it.
    #[error("the peer does not take what is sent: less than 64 KiB in {0} s")]
    WriteStalled(u64),
    /// The stream broke while reading.
    #[error("cannot read: {0}")]
    Read(quinn::ReadError),
    /// The stream broke while writing.
    #[error("cannot write: {0}")]
    Write(quinn::WriteError),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Connection(quinn::ConnectionError),
}

/// The fixed beginning of a frame, with its lengths already held against the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) archive_len: usize,
    pub(crate) payload_len: usize,
}

impl Header {
    /// Reads and checks a header. Payloads are held against the lower of the kind's limit and
    /// `payload_max`.
    pub(crate) fn read(
        bytes: &[u8; HEADER_LEN],
        accept: &[Kind],
        payload_max: usize,
    ) -> Result<Self, FrameError> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let number = u16::from_le_bytes([bytes[4], bytes[5]]);
        let kind = Kind::from_number(number).ok_or(FrameError::UnknownKind(number))?;
        if !accept.contains(&kind) {
            let expected = accept.iter().map(Kind::to_string).collect::<Vec<_>>().join(" or ");
            return Err(FrameError::UnexpectedKind { expected, found: kind });
        }
        if bytes[6..8] != [0; 2] || bytes[12..16] != [0; 4] {
            return Err(FrameError::NotZero(kind));
        }
        let header =
            Self { kind, archive_len: u32_at(0) as usize, payload_len: u32_at(8) as usize };
        header.check_lengths(payload_max)?;
        Ok(header)
    }

    fn check_lengths(&self, payload_max: usize) -> Result<(), FrameError> {
        let Self { kind, archive_len, payload_len } = *self;
        let max = kind.archive_max();
        if archive_len == 0 || archive_len > max {
            return Err(FrameError::ArchiveLength { kind, found: archive_len, max });
        }
        let max = kind.payload_max().min(payload_max);
        if payload_len > max {
            return Err(FrameError::PayloadLength { kind, found: payload_len, max });
        }
        Ok(())
    }

    /// Bytes of the archive with its padding.
    pub(crate) fn archive_padded(&self) -> usize {
        self.archive_len.next_multiple_of(ALIGNMENT)
    }

    fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let length = |len: usize| u32::try_from(len).expect("limits are below 2^32").to_le_bytes();
        bytes[0..4].copy_from_slice(&length(self.archive_len));
        bytes[4..6].copy_from_slice(&self.kind.number().to_le_bytes());
        bytes[8..12].copy_from_slice(&length(self.payload_len));
        bytes
    }
}

/// A frame that is ready to be written; can wait in a queue whatever its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedFrame {
    /// Its kind.
    pub kind: Kind,
    /// Header and padded archive.
    pub(crate) head: Bytes,
    pub(crate) payload: Bytes,
}

impl EncodedFrame {
    /// Encodes a message without a payload.
    ///
    /// # Errors
    ///
    /// As [`with_payload`](Self::with_payload).
    pub fn new<M: Message>(message: &M) -> Result<Self, FrameError> {
        Self::with_payload(message, Bytes::new())
    }

    /// Encodes a message; the payload is handed on without a copy.
    ///
    /// # Errors
    ///
    /// [`FrameError::ArchiveLength`] or [`FrameError::PayloadLength`] if the peer would refuse the
    /// frame for its size, [`FrameError::Message`] if it would refuse what it says.
    pub fn with_payload<M: Message>(message: &M, payload: Bytes) -> Result<Self, FrameError> {
        message.check()?;
        // The archive is written where it is sent from: behind its header, which is filled in after.
        let mut head = AlignedBytes::with_capacity(HEAD_GUESS);
        head.resize(HEADER_LEN, 0);
        let mut head = rkyv::api::high::to_bytes_in::<_, ArchiveError>(message, head)
            .map_err(|error| broken(M::KIND, &error))?;
        let archive_len = head.len() - HEADER_LEN;
        let header = Header { kind: M::KIND, archive_len, payload_len: payload.len() };
        header.check_lengths(usize::MAX)?;
        head[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        head.resize(HEADER_LEN + header.archive_padded(), 0);
        Ok(Self { kind: M::KIND, head: Bytes::from_owner(head), payload })
    }

    fn from_archive(kind: Kind, archive: &[u8], payload: Bytes) -> Result<Self, FrameError> {
        let header = Header { kind, archive_len: archive.len(), payload_len: payload.len() };
        header.check_lengths(usize::MAX)?;
        let mut head = Vec::with_capacity(HEADER_LEN + header.archive_padded());
        head.extend_from_slice(&header.to_bytes());
        head.extend_from_slice(archive);
        head.resize(HEADER_LEN + header.archive_padded(), 0);
        Ok(Self { kind, head: head.into(), payload })
    }

    /// The bytes on the wire in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        [&self.head[..], &self.payload[..]].concat()
    }
}

/// The bytes of one frame: [`EncodedFrame`] in one piece.
///
/// # Errors
///
/// As [`EncodedFrame::with_payload`].
pub fn encode<M: Message>(message: &M, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    EncodedFrame::with_payload(message, Bytes::copy_from_slice(payload)).map(|f| f.to_vec())
}

/// A frame that was read: lengths are checked, the archive is not yet.
#[derive(Debug)]
pub struct Frame {
    kind: Kind,
    archive: AlignedBytes,
    payload: AlignedBytes,
}

impl Frame {
    /// Takes what was read for `header`; the archive still has its padding.
    pub(crate) fn from_parts(
        header: Header,
        mut archive: AlignedBytes,
        payload: AlignedBytes,
    ) -> Result<Self, FrameError> {
        if archive[header.archive_len..].iter().any(|&b| b != 0) {
            return Err(FrameError::NotZero(header.kind));
        }
        archive.resize(header.archive_len, 0);
        Ok(Self { kind: header.kind, archive, payload })
    }

    /// Reads the frame at the beginning of `bytes`; also returns how many bytes it has.
    ///
    /// # Errors
    ///
    /// Everything that reading the same bytes from a stream would give.
    pub fn decode(bytes: &[u8], accept: &[Kind]) -> Result<(Self, usize), FrameError> {
        let (head, rest) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(FrameError::Truncated { expected: HEADER_LEN, found: bytes.len() })?;
        let header = Header::read(head, accept, usize::MAX)?;
        let (padded, len) = (header.archive_padded(), header.payload_len);
        if rest.len() < padded + len {
            return Err(FrameError::Truncated { expected: padded + len, found: rest.len() });
        }
        let mut archive = AlignedBytes::with_capacity(padded);
        archive.extend_from_slice(&rest[..padded]);
        let mut payload = AlignedBytes::with_capacity(len);
        payload.extend_from_slice(&rest[padded..padded + len]);
        Ok((Self::from_parts(header, archive, payload)?, HEADER_LEN + padded + len))
    }

    /// What the frame holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message: validated by bytecheck, then by its own [`Message::check`].
    ///
    /// # Errors
    ///
    /// [`FrameError::UnexpectedKind`], [`FrameError::Archive`] or [`FrameError::Message`].
    pub fn message<M: Message>(&self) -> Result<M, FrameError> {
        if self.kind != M::KIND {
            let expected = M::KIND.to_string();
            return Err(FrameError::UnexpectedKind { expected, found: self.kind });
        }
        let message: M = rkyv::access::<M::Archived, ArchiveError>(&self.archive)
            .and_then(rkyv::deserialize::<M, ArchiveError>)
            .map_err(|error| broken(self.kind, &error))?;
        message.check()?;
        Ok(message)
    }

    /// The payload; its address is a multiple of 16.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// A frame with the message that was read, byte for byte, and another payload: what a stage sends
    /// on. The message is not encoded anew.
    ///
    /// # Errors
    ///
    /// [`FrameError::PayloadLength`] if the peer would refuse the frame for its size.
    pub fn with_payload(&self, payload: Bytes) -> Result<EncodedFrame, FrameError> {
        EncodedFrame::from_archive(self.kind, &self.archive, payload)
    }
}

fn broken(kind: Kind, error: &ArchiveError) -> FrameError {
    FrameError::Archive { kind, problem: crate::check::text_from(&error.to_string()) }
}
