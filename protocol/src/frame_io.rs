//! Frames on QUIC streams: buffers grow as bytes arrive, and a peer that stalls is an error.

use crate::frame::{AlignedBytes, EncodedFrame, Frame, FrameError, HEADER_LEN, Header};
use crate::kind::Kind;
use crate::limits::TEXT_MAX;
use crate::refusal::{REFUSAL_HEAD_LEN, REFUSAL_MAGIC, Refusal, RefusalCode, u32_at};
use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Bytes that must pass in every [`STALL_TIME`] once a frame has begun: a peer that drips single
/// bytes holds nobody up.
pub const PIECE: usize = 64 << 10;
/// See [`PIECE`].
pub const STALL_TIME: Duration = Duration::from_secs(10);
/// Bytes set aside for an archive or payload before its first byte has come.
const FIRST_ALLOCATION: usize = 256 << 10;

/// Writes one frame.
///
/// # Errors
///
/// [`FrameError::WriteStalled`] if the peer takes less than [`PIECE`] bytes in [`STALL_TIME`];
/// otherwise what the stream says. The stream is of no use after an error.
pub async fn write_frame(send: &mut SendStream, frame: EncodedFrame) -> Result<(), FrameError> {
    let mut parts = [frame.head, frame.payload];
    let mut rest = &mut parts[..];
    let mut pace = Pace::start();
    while !rest.is_empty() {
        let written = timeout_at(pace.deadline, send.write_chunks(rest))
            .await
            .map_err(|_| FrameError::WriteStalled(STALL_TIME.as_secs()))?
            .map_err(write_error)?;
        pace.advance(written.bytes);
        rest = &mut rest[written.chunks..];
        while rest.first().is_some_and(Bytes::is_empty) {
            rest = &mut rest[1..];
        }
    }
    Ok(())
}

/// Reads one frame of one of the kinds in `accept`; `None` at the end of the stream.
///
/// Waits for the first byte without a time-out (the connection has its own). Not safe to cancel:
/// in a `select!` use a [`FrameReader`].
///
/// # Errors
///
/// Everything of [`FrameError`]; the stream is of no use after an error.
pub async fn read_frame(
    recv: &mut RecvStream,
    accept: &[Kind],
) -> Result<Option<Frame>, FrameError> {
    Partial::default().read(recv, accept, usize::MAX).await
}

/// Code and length of a refusal's text, from the fixed part after its magic was seen.
fn refusal_head(head: &[u8; REFUSAL_HEAD_LEN]) -> Result<(RefusalCode, usize), FrameError> {
    let (code, len) = (RefusalCode::from_number(u32_at(head, 8)), u32_at(head, 12) as usize);
    if len > TEXT_MAX {
        let text = format!("a refusal's text: expected at most {TEXT_MAX} bytes, found {len}");
        return Err(FrameError::Refused(Refusal::new(code, &text)));
    }
    Ok((code, len))
}

/// Reads frames from a stream; [`read`](Self::read) can be cancelled and called again.
#[derive(Debug)]
pub struct FrameReader {
    recv: RecvStream,
    partial: Partial,
}

impl FrameReader {
    /// Reads from `recv`, which is between two frames.
    pub fn new(recv: RecvStream) -> Self {
        Self { recv, partial: Partial::default() }
    }

    /// As [`read_frame`], and loses nothing when cancelled.
    ///
    /// # Errors
    ///
    /// As [`read_frame`].
    pub async fn read(&mut self, accept: &[Kind]) -> Result<Option<Frame>, FrameError> {
        self.read_limited(accept, usize::MAX).await
    }

    /// As [`read`](Self::read), with a limit for payloads below the kind's own: what a plan's rows
    /// and width allow.
    ///
    /// # Errors
    ///
    /// As [`read_frame`].
    pub async fn read_limited(
        &mut self,
        accept: &[Kind],
        payload_max: usize,
    ) -> Result<Option<Frame>, FrameError> {
        self.partial.read(&mut self.recv, accept, payload_max).await
    }

    /// The stream, to stop it or to name it.
    pub fn stream(&mut self) -> &mut RecvStream {
        &mut self.recv
    }
}

/// What has been read of a frame.
#[derive(Debug, Default)]
struct Partial {
    head: [u8; HEADER_LEN],
    head_len: usize,
    pace: Option<Pace>,
    archive: AlignedBytes,
    payload: AlignedBytes,
}

impl Partial {
    async fn read(
        &mut self,
        recv: &mut RecvStream,
        accept: &[Kind],
        payload_max: usize,
    ) -> Result<Option<Frame>, FrameError> {
        if !self.read_head(recv).await? {
            return Ok(None);
        }
        let pace = self.pace.get_or_insert_with(Pace::start);
        if self.head[..REFUSAL_MAGIC.len()] == REFUSAL_MAGIC {
            let (code, text_len) = refusal_head(&self.head)?;
            fill(recv, &mut self.payload, text_len, pace).await?;
            return Err(FrameError::Refused(Refusal::from_parts(code, &self.payload)));
        }
        let header = Header::read(&self.head, accept, payload_max)?;
        fill(recv, &mut self.archive, header.archive_padded(), pace).await?;
        fill(recv, &mut self.payload, header.payload_len, pace).await?;
        let Self { archive, payload, .. } = std::mem::take(self);
        Frame::from_parts(header, archive, payload).map(Some)
    }

    /// Whether there is a header; `false` at the end of the stream.
    async fn read_head(&mut self, recv: &mut RecvStream) -> Result<bool, FrameError> {
        while self.head_len < HEADER_LEN {
            let (have, wanted) = (self.head_len, HEADER_LEN - self.head_len);
            let read = recv.read(&mut self.head[have..]);
            let read = match self.pace {
                None => read.await,
                Some(pace) => timeout_at(pace.deadline, read).await.map_err(|_| stalled())?,
            };
            match read.map_err(read_error)? {
                Some(len) => self.head_len += len,
                None if have == 0 => return Ok(false),
                None => return Err(FrameError::Truncated { expected: wanted, found: 0 }),
            }
            self.pace.get_or_insert_with(Pace::start);
        }
        Ok(true)
    }
}

/// Reads until `buffer` holds `total` bytes; memory doubles as bytes arrive.
async fn fill(
    recv: &mut RecvStream,
    buffer: &mut AlignedBytes,
    total: usize,
    pace: &mut Pace,
) -> Result<(), FrameError> {
    while buffer.len() < total {
        if buffer.len() == buffer.capacity() {
            let capacity = (buffer.capacity() * 2).max(FIRST_ALLOCATION).min(total);
            buffer.reserve_exact(capacity - buffer.len());
        }
        let wanted = total.min(buffer.capacity()) - buffer.len();
        let chunk = timeout_at(pace.deadline, recv.read_chunk(wanted, true))
            .await
            .map_err(|_| stalled())?
            .map_err(read_error)?;
        let Some(chunk) = chunk else {
            return Err(FrameError::Truncated { expected: total, found: buffer.len() });
        };
        buffer.extend_from_slice(&chunk.bytes);
        pace.advance(chunk.bytes.len());
    }
    Ok(())
}

/// The time by which the next [`PIECE`] must have passed.
#[derive(Clone, Copy, Debug)]
struct Pace {
    deadline: Instant,
    passed: usize,
}

impl Pace {
    fn start() -> Self {
        Self { deadline: Instant::now() + STALL_TIME, passed: 0 }
    }

    fn advance(&mut self, bytes: usize) {
        self.passed += bytes;
        if self.passed >= PIECE {
            *self = Self::start();
        }
    }
}

fn stalled() -> FrameError {
    FrameError::ReadStalled(STALL_TIME.as_secs())
}

/// A broken stream as an error; a refusal in the closing of the connection is found.
pub(crate) fn read_error(error: quinn::ReadError) -> FrameError {
    match error {
        quinn::ReadError::ConnectionLost(error) => connection_error(error),
        error => FrameError::Read(error),
    }
}

/// As [`read_error`], for writing.
pub(crate) fn write_error(error: quinn::WriteError) -> FrameError {
    match error {
        quinn::WriteError::ConnectionLost(error) => connection_error(error),
        error => FrameError::Write(error),
    }
}

/// As [`read_error`], for the connection itself.
pub(crate) fn connection_error(error: quinn::ConnectionError) -> FrameError {
    match Refusal::from_connection(&error) {
        Some(refusal) => FrameError::Refused(refusal),
        None => FrameError::Connection(error),
    }
}
