//! Streams that others opened to this worker, waiting for the plan that they belong to.
//!
//! The previous stage may be ready before this worker has even heard of the plan, so a stream of a
//! plan to come is held for a short time; one of a plan that is over is refused. What is held is
//! counted per peer, so that no peer can take the room of another or of the coordinator.

use quinn::Connection;
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
/// Streams of plans to come that are held of one peer. A plan needs two of the coordinator (forwards
/// and samplings) and one of the previous stage.
const HELD_PER_PEER: usize = 2;
/// Streams of plans to come that are held of all workers together: two of each that may be connected
/// to this one, so a worker finds room whatever the others do. Those of the coordinator are not
/// counted: [`HELD_PER_PEER`] bounds them.
const HELD_MAX: usize = HELD_PER_PEER * PEERS_MAX;
/// How long a stream of a plan to come is held. The coordinator sends a plan to all its workers at
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
    /// It belongs to a plan that is over: the oldest epoch that is still wanted is given.
    Stale(PlanEpoch),
    /// The plan in force does not take streams of this peer.
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
    /// The oldest plan whose streams are still wanted.
    epoch: PlanEpoch,
    /// Who sends forwards in the plan of `epoch`, once this worker has heard of that plan.
    sender: Option<Peer>,
    /// Oldest first. A stream of the plan in force has no deadline: its stage may load for long.
    streams: Vec<(Arrival<R>, Option<Instant>)>,
}

impl<R: Held> Waiting<R> {
    fn new(epoch: PlanEpoch) -> Waiting<R> {
        Waiting { epoch, sender: None, streams: Vec::new() }
    }

    /// Drops what nobody can take any more.
    fn sweep(&mut self, now: Instant) {
        self.streams.retain(|(stream, until)| {
            !stream.reader.is_gone() && until.is_none_or(|until| now < until)
        });
    }

    fn is_in_force(&self, epoch: PlanEpoch) -> bool {
        self.sender.is_some() && epoch == self.epoch
    }

    /// Whether the plan in force takes streams of this peer.
    fn takes(&self, from: Peer) -> bool {
        from == Peer::Coordinator || Some(from) == self.sender
    }

    /// Keeps a stream of the plan in force: one of each kind that a peer can open.
    fn keep(&mut self, arrival: Arrival<R>) -> Result<(), NotKept> {
        if !self.takes(arrival.from) {
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

    /// Holds a stream of a plan to come. One too many of a peer takes the place of its oldest.
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
        Arrivals { waiting: Mutex::new(Waiting::new(PlanEpoch(0))), changed: Notify::new() }
    }
}

impl<R: Held> Arrivals<R> {
    /// Forgets everything: a new conversation with a coordinator, whose epochs may start anew.
    pub fn clear(&self) {
        *self.lock() = Waiting::new(PlanEpoch(0));
    }

    /// Streams of plans before `epoch` are not wanted any more; that plan is not known yet.
    pub fn retire_before(&self, epoch: PlanEpoch) {
        let mut waiting = self.lock();
        (waiting.epoch, waiting.sender) = (epoch, None);
        waiting.streams.retain(|(stream, _)| stream.open.epoch >= epoch);
    }

    /// The plan of `epoch` is in force and gets its forwards from `sender`: streams that it does not
    /// take are dropped, and so are those of plans before; the others wait for as long as it lasts.
    pub fn begin(&self, epoch: PlanEpoch, sender: Peer) {
        self.retire_before(epoch);
        let mut waiting = self.lock();
        waiting.sweep(Instant::now());
        waiting.sender = Some(sender);
        let (ours, to_come) = std::mem::take(&mut waiting.streams)
            .into_iter()
            .partition::<Vec<_>, _>(|(stream, _)| stream.open.epoch == epoch);
        waiting.streams = to_come;
        // The newest of a kind is the one that its peer means.
        for (stream, _) in ours.into_iter().rev() {
            let (from, purpose) = (stream.from, stream.open.purpose);
            if waiting.keep(stream).is_err() {
                tracing::debug!("dropped a stream of {purpose:?} from {from} that nobody takes");
            }
        }
    }

    /// Keeps a stream for its plan.
    ///
    /// # Errors
    ///
    /// Gives the reason if it is not kept; dropping the stream stops it.
    pub fn offer(&self, arrival: Arrival<R>) -> Result<(), NotKept> {
        let (mut waiting, now) = (self.lock(), Instant::now());
        waiting.sweep(now);
        if arrival.open.epoch < waiting.epoch {
            return Err(NotKept::Stale(waiting.epoch));
        }
        if waiting.is_in_force(arrival.open.epoch) {
            waiting.keep(arrival)?
        } else {
            waiting.hold(arrival, now)?
        }
        drop(waiting);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Drops the streams whose time is over, or whose connection is gone.
    pub fn sweep(&self) {
        self.lock().sweep(Instant::now());
    }

    /// Waits until the time of a stream that is held is over; for ever if none is held.
    pub async fn overdue(&self) {
        let next = self.lock().streams.iter().filter_map(|(_, until)| *until).min();
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
        waiting.sweep(Instant::now());
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
