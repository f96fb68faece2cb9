//! Streams that others opened to this worker, waiting for the plan that they belong to.
//!
//! The previous stage may be ready before this worker has even heard of the plan, so a stream of a
//! plan that is not live is held for a short time: the plan may be to come, or be over. What is held
//! is counted per peer, so that no peer can take the room of another or of the coordinator. The
//! numbers of plans are names: their order means nothing.

use quinn::Connection;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use woolly_protocol::control::{StreamOpen, StreamPurpose};
use woolly_protocol::frame_io::FrameReader;
use woolly_protocol::ids::{PlanEpoch, WorkerId};

/// Workers that may be connected to this one: the previous stages of a plan and its successors.
pub const PEERS_MAX: usize = 64;
/// Streams of plans that are not live that are held of one peer. A plan needs two of the coordinator (forwards
/// and samplings) and one of the previous stage.
const HELD_PER_PEER: usize = 2;
/// Streams of plans that are not live that are held of all workers together: two of each that may be connected
/// to this one, so a worker finds room whatever the others do. Those of the coordinator are not
/// counted: [`HELD_PER_PEER`] bounds them.
const HELD_MAX: usize = HELD_PER_PEER * PEERS_MAX;
/// How long a stream of a plan that is not live is held. The coordinator sends a plan to all its workers at
/// once; this is the time by which one may hear of it later than another.
const HOLD_TIME: Duration = Duration::from_secs(5);

/// Who opened a stream, by its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The coordinator.
    Coordinator,
    /// Another worker.
    Worker(WorkerId),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Coordinator => f.write_str("the coordinator"),
            Peer::Worker(worker) => write!(f, "worker {}", worker.hex()),
        }
    }
}

/// A stream whose first frame was read.
#[derive(Debug)]
pub struct Arrival<R = Opened> {
    /// Who opened it.
    pub from: Peer,
    /// What it says it carries.
    pub open: StreamOpen,
    /// The stream itself.
    pub reader: R,
}

/// A stream behind its first frame.
#[derive(Debug)]
pub struct Opened {
    /// The frames that follow.
    pub reader: FrameReader,
    /// What it came on, to set the window that the plan needs.
    pub connection: Connection,
}

/// What can be held: a stream that ends with its connection.
pub trait Held {
    /// Whether the connection is gone.
    fn is_gone(&self) -> bool;
}

impl Held for Opened {
    fn is_gone(&self) -> bool {
        self.connection.close_reason().is_some()
    }
}

/// Why a stream was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// Its plan does not take streams of this peer.
    Stranger,
    /// As many as can be of use wait already.
    Full,
}

/// The streams that wait.
#[derive(Debug)]
pub struct Arrivals<R = Opened> {
    waiting: Mutex<Waiting<R>>,
    changed: Notify,
}

#[derive(Debug)]
struct Waiting<R> {
    /// The plans that are live, each with who sends its forwards.
    live: BTreeMap<PlanEpoch, Peer>,
    /// Oldest first. A stream of a live plan has no deadline: its stage may load for long.
    streams: Vec<(Arrival<R>, Option<Instant>)>,
}

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Waiting { live: BTreeMap::new(), streams: Vec::new() }
    }
}

impl<R: Held> Waiting<R> {
    /// Drops what came on connections that are gone.
    fn sweep(&mut self) {
        self.streams.retain(|(stream, _)| !stream.reader.is_gone());
    }

    /// Keeps a stream of the live plan whose forwards `sender` sends: one of each kind that a peer can
    /// open.
    fn keep(&mut self, arrival: Arrival<R>, sender: Peer) -> Result<(), NotKept> {
        if ![Peer::Coordinator, sender].contains(&arrival.from) {
            return Err(NotKept::Stranger);
        }
        let same =
            |(kept, _): &(Arrival<R>, _)| kept.open == arrival.open && kept.from == arrival.from;
        if self.streams.iter().any(same) {
            return Err(NotKept::Full);
        }
        self.streams.push((arrival, None));
        Ok(())
    }

    /// Holds a stream of a plan that is not live. One too many of a peer takes the place of its oldest.
    fn hold(&mut self, arrival: Arrival<R>, now: Instant) -> Result<(), NotKept> {
        let held = |(stream, until): &(Arrival<R>, Option<Instant>)| {
            until.is_some().then_some(stream.from)
        };
        let from = arrival.from;
        let count = self.streams.iter().filter(|stream| held(stream) == Some(from)).count();
        if count >= HELD_PER_PEER {
            let oldest = self.streams.iter().position(|stream| held(stream) == Some(from));
            oldest.map(|index| self.streams.remove(index));
        }
        let of_workers = |stream: &&_| matches!(held(stream), Some(Peer::Worker(_)));
        let total = self.streams.iter().filter(of_workers).count();
        if from != Peer::Coordinator && total >= HELD_MAX {
            return Err(NotKept::Full);
        }
        self.streams.push((arrival, Some(now + HOLD_TIME)));
        Ok(())
    }
}

impl<R: Held> Default for Arrivals<R> {
    fn default() -> Self {
        Arrivals { waiting: Mutex::default(), changed: Notify::new() }
    }
}

impl<R: Held> Arrivals<R> {
    /// Forgets everything: a new conversation with a coordinator.
    pub fn clear(&self) {
        *self.lock() = Waiting::default();
    }

    /// The plan of `epoch` is live and gets its forwards from `sender`: of its streams, those that it
    /// does not take are dropped, and the others wait for as long as it lasts.
    pub fn begin(&self, epoch: PlanEpoch, sender: Peer) {
        let mut waiting = self.lock();
        waiting.sweep();
        waiting.live.insert(epoch, sender);
        let (ours, others) = std::mem::take(&mut waiting.streams)
            .into_iter()
            .partition::<Vec<_>, _>(|(stream, _)| stream.open.epoch == epoch);
        waiting.streams = others;
        // The newest of a kind is the one that its peer means.
        for (stream, _) in ours.into_iter().rev() {
            let (from, purpose) = (stream.from, stream.open.purpose);
            if waiting.keep(stream, sender).is_err() {
                tracing::debug!("dropped a stream of {purpose:?} from {from} that nobody takes");
            }
        }
    }

    /// The plan of `epoch` is over: its streams that nobody took are dropped. Other plans go on.
    pub fn end(&self, epoch: PlanEpoch) {
        let mut waiting = self.lock();
        waiting.live.remove(&epoch);
        waiting.streams.retain(|(stream, _)| stream.open.epoch != epoch);
    }

    /// Keeps a stream for its plan.
    ///
    /// # Errors
    ///
    /// Gives the reason if it is not kept; dropping the stream stops it.
    pub fn offer(&self, arrival: Arrival<R>) -> Result<(), NotKept> {
        let (mut waiting, now) = (self.lock(), Instant::now());
        waiting.sweep();
        match waiting.live.get(&arrival.open.epoch).copied() {
            Some(sender) => waiting.keep(arrival, sender)?,
            None => waiting.hold(arrival, now)?,
        }
        drop(waiting);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Drops the streams whose connection is gone, and those of `from` whose time is over: the latter
    /// are returned by what they carried.
    pub fn sweep(&self, from: Peer) -> Vec<StreamOpen> {
        let (mut waiting, now) = (self.lock(), Instant::now());
        waiting.sweep();
        let is_over = |(stream, until): &mut (Arrival<R>, Option<Instant>)| {
            stream.from == from && until.is_some_and(|until| until <= now)
        };
        waiting.streams.extract_if(.., is_over).map(|(stream, _)| stream.open).collect()
    }

    /// Waits until the time of a stream that is held of `from` is over; for ever if none is held.
    pub async fn overdue(&self, from: Peer) {
        let next = (self.lock().streams.iter())
            .filter_map(|(stream, until)| until.filter(|_| stream.from == from))
            .min();
        match next {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    /// Waits for the stream of this plan that carries `purpose` and was opened by `from`.
    pub async fn take(&self, epoch: PlanEpoch, purpose: StreamPurpose, from: Peer) -> R {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no offer falls between.
            changed.as_mut().enable();
            if let Some(reader) = self.find(epoch, purpose, from) {
                return reader;
            }
            changed.await;
        }
    }

    fn find(&self, epoch: PlanEpoch, purpose: StreamPurpose, from: Peer) -> Option<R> {
        let mut waiting = self.lock();
        waiting.sweep();
        let wanted = StreamOpen { epoch, purpose };
        let index = waiting
            .streams
            .iter()
            .position(|(stream, _)| stream.open == wanted && stream.from == from)?;
        Some(waiting.streams.remove(index).0.reader)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting<R>> {
        self.waiting.lock().expect("no one panics with the lock held")
    }
}

#[cfg(test)]
mod tests;
