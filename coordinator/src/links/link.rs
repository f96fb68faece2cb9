//! The driver's end of a connection, and what comes of it.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};
use woolly_protocol::control::{Drain, Heartbeat, Hello, Ready, StreamPurpose};
use woolly_protocol::fault::FaultMessage;
use woolly_protocol::frame::{EncodedFrame, FrameError, Message};
use woolly_protocol::gone::GONE;
use woolly_protocol::ids::{PlanEpoch, WorkerId};
use woolly_protocol::refusal::{Refusal, RefusalCode};
use woolly_protocol::sampling::Sampled;

/// Milliseconds between two heartbeats, in both directions.
pub const HEARTBEAT_MS: u32 = 500;
/// Events that wait for the driver, of all links together.
pub const EVENTS_MAX: usize = 1024;
/// Control messages that wait for one worker: a plan sends two, a shutdown one more.
pub(super) const CONTROL_QUEUE: usize = 64;

/// One connection of one worker; never used again, so that news of a lost one are told from those
/// of its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Something that a worker said, or its loss.
#[derive(Debug)]
pub struct LinkEvent {
    /// The connection.
    pub link: LinkId,
    /// The worker, as its certificate says.
    pub worker: WorkerId,
    /// What happened.
    pub news: News,
}

/// What can happen on a link. `Hello` is the first, `Lost` the last.
#[derive(Debug)]
pub enum News {
    /// The worker is connected and waits for a `Welcome`.
    Hello {
        /// What it is and what it measured.
        hello: Box<Hello>,
        /// The driver's end of the connection.
        link: Link,
    },
    /// Its stage is loaded and linked.
    Ready(Ready),
    /// It lives.
    Heartbeat(Heartbeat),
    /// It cannot do what it was asked.
    Fault(FaultMessage),
    /// It leaves.
    Drain(Drain),
    /// The last stage answers a microbatch.
    Sampled(Sampled),
    /// The connection is gone; says why.
    Lost(String),
}

/// The driver's end of a connection. All methods return at once. Dropping it closes the connection.
#[derive(Debug)]
pub struct Link {
    pub(super) id: LinkId,
    pub(super) worker: WorkerId,
    pub(super) remote: SocketAddr,
    pub(super) connection: quinn::Connection,
    pub(super) control: mpsc::Sender<EncodedFrame>,
}

/// Why something could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The message breaks a limit of the wire.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The queue is full: the worker takes nothing any more.
    #[error("it takes no frames any more: {0} wait for it")]
    Full(usize),
    /// The connection is gone.
    #[error("its connection is gone")]
    Gone,
}

/// Why a link is lost.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The worker has ended its control stream.
    #[error("the worker has left")]
    Left,
    /// The driver has let go of the link.
    #[error("the coordinator closed the connection")]
    Dropped,
    /// The worker's port is nobody's any more.
    #[error("{GONE}")]
    Gone,
    /// A frame could not be read or written.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection itself broke.
    #[error(transparent)]
    Connection(quinn::ConnectionError),
    /// A worker opens streams for answers only.
    #[error("the worker opened a stream for {0:?}: expected Results")]
    Purpose(StreamPurpose),
    /// All messages of a stream belong to its plan.
    #[error("a message of epoch {message} on a stream of epoch {stream}")]
    Epoch {
        /// The stream's.
        stream: PlanEpoch,
        /// The message's.
        message: PlanEpoch,
    },
}

impl LinkError {
    /// What the worker is told when the connection is closed for this.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            LinkError::Frame(FrameError::Refused(refusal)) => refusal.clone(),
            LinkError::Left | LinkError::Dropped | LinkError::Gone | LinkError::Connection(_) => {
                Refusal::new(RefusalCode::Internal, &self.to_string())
            }
            LinkError::Frame(error) if is_passing(error) => {
                Refusal::new(RefusalCode::Internal, &error.to_string())
            }
            error => Refusal::new(RefusalCode::Malformed, &error.to_string()),
        }
    }
}

/// Whether the link broke and not a rule: the worker may try again.
fn is_passing(error: &FrameError) -> bool {
    matches!(
        error,
        FrameError::ReadStalled(_)
            | FrameError::WriteStalled(_)
            | FrameError::Truncated { .. }
            | FrameError::Read(_)
            | FrameError::Connection(_)
            | FrameError::Write(_)
    )
}

impl Link {
    /// The connection's number.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// The worker, as its certificate says.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Where it calls from.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The present estimate of the time that a packet takes there and back.
    pub fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    /// Sends a control message.
    ///
    /// # Errors
    ///
    /// [`SendError`]; the link is of no use after one.
    pub fn send<M: Message>(&self, message: &M) -> Result<(), SendError> {
        try_send(&self.control, EncodedFrame::new(message)?)
    }

    /// Closes the connection and tells the worker why.
    pub fn close(&self, refusal: &Refusal) {
        refusal.close(&self.connection);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Without effect if it was closed with a refusal before.
        self.connection.close(0u32.into(), b"");
    }
}

/// Puts a frame into a queue; returns at once.
pub(super) fn try_send(
    queue: &mpsc::Sender<EncodedFrame>,
    frame: EncodedFrame,
) -> Result<(), SendError> {
    queue.try_send(frame).map_err(|error| match error {
        TrySendError::Full(_) => SendError::Full(queue.max_capacity()),
        TrySendError::Closed(_) => SendError::Gone,
    })
}
