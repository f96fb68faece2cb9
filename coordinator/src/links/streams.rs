//! Unidirectional streams: `Forward`s and `Sampling`s out, `Sampled`s in.

use super::link::{Link, LinkError, LinkEvent, LinkId, News, SendError, try_send};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use woolly_protocol::control::{StreamOpen, StreamPurpose};
use woolly_protocol::frame::{EncodedFrame, FrameError};
use woolly_protocol::frame_io::{FrameReader, write_frame};
use woolly_protocol::ids::WorkerId;
use woolly_protocol::kind::Kind;
use woolly_protocol::limits::IN_FLIGHT_MAX;
use woolly_protocol::refusal::{Refusal, RefusalCode};
use woolly_protocol::sampling::Sampled;

/// Frames that wait for one stream: all microbatches in flight, and the `StreamOpen`.
const STREAM_QUEUE: usize = IN_FLIGHT_MAX + 1;
/// How long a stream may take to say what it carries.
const OPEN_TIME: Duration = Duration::from_secs(10);

/// The driver's end of a stream. Dropping it ends the stream after what was sent.
#[derive(Debug)]
pub struct FrameQueue {
    frames: mpsc::Sender<EncodedFrame>,
}

impl FrameQueue {
    /// Sends a frame; returns at once.
    ///
    /// # Errors
    ///
    /// [`SendError`]; the link is of no use after one.
    pub fn send(&self, frame: EncodedFrame) -> Result<(), SendError> {
        try_send(&self.frames, frame)
    }
}

impl Link {
    /// Opens a stream to the worker; returns at once. A stream that cannot be opened or written
    /// closes the connection, and the driver is told of its loss.
    ///
    /// # Errors
    ///
    /// [`SendError`] for the `StreamOpen` itself.
    pub fn open_stream(&self, open: &StreamOpen) -> Result<FrameQueue, SendError> {
        let (frames, queue) = mpsc::channel(STREAM_QUEUE);
        try_send(&frames, EncodedFrame::new(open)?)?;
        let connection = self.connection.clone();
        tokio::spawn(async move {
            if let Err(error) = write_stream(&connection, queue).await {
                // Without effect if the connection is what broke.
                Refusal::new(RefusalCode::Internal, &error.to_string()).close(&connection);
            }
        });
        Ok(FrameQueue { frames })
    }
}

async fn write_stream(
    connection: &quinn::Connection,
    mut frames: mpsc::Receiver<EncodedFrame>,
) -> Result<(), LinkError> {
    let mut send = connection.open_uni().await.map_err(LinkError::Connection)?;
    while let Some(frame) = frames.recv().await {
        match write_frame(&mut send, frame).await {
            // The worker's plan has ended; its fault, or our release of it, is on the way.
            // What comes until then is for nobody.
            Err(FrameError::Write(quinn::WriteError::Stopped(_))) => {
                while frames.recv().await.is_some() {}
                return Ok(());
            }
            written => written?,
        };
    }
    // An error says that the worker has stopped the stream: it ends either way.
    let _ = send.finish();
    Ok(())
}

/// Reads the streams that a worker opens, until something is wrong.
pub(super) async fn read_streams(
    connection: quinn::Connection,
    link: LinkId,
    worker: WorkerId,
    events: &mpsc::Sender<LinkEvent>,
) -> LinkError {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(recv) => {
                    let reader = FrameReader::new(recv);
                    streams.spawn(read_stream(reader, link, worker, events.clone()));
                }
                Err(error) => return LinkError::Connection(error),
            },
            Some(ended) = streams.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            },
        }
    }
}

/// Hands the answers on one stream to the driver until the stream ends.
async fn read_stream(
    mut reader: FrameReader,
    link: LinkId,
    worker: WorkerId,
    events: mpsc::Sender<LinkEvent>,
) -> Result<(), LinkError> {
    let open = timeout(OPEN_TIME, reader.read(&[Kind::StreamOpen]))
        .await
        .unwrap_or(Err(FrameError::ReadStalled(OPEN_TIME.as_secs())));
    let Some(open) = ended_by_reset(open)? else { return Ok(()) };
    let open = open.message::<StreamOpen>()?;
    if open.purpose != StreamPurpose::Results {
        return Err(LinkError::Purpose(open.purpose));
    }
    while let Some(frame) = ended_by_reset(reader.read(&[Kind::Sampled]).await)? {
        let sampled = frame.message::<Sampled>()?;
        if sampled.epoch != open.epoch {
            return Err(LinkError::Epoch { stream: open.epoch, message: sampled.epoch });
        }
        let news = News::Sampled(sampled);
        if events.send(LinkEvent { link, worker, news }).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A worker that drops a plan resets its stream: the stream is over, the connection is not.
fn ended_by_reset<T>(read: Result<Option<T>, FrameError>) -> Result<Option<T>, FrameError> {
    match read {
        Err(FrameError::Read(quinn::ReadError::Reset(_))) => Ok(None),
        read => read,
    }
}
