//! Streams that others opened to this worker, waiting for the plan that they belong to.
//!
//! The previous stage may be ready before this worker has even heard of the plan, so a stream of a
//! later epoch waits here; one of an earlier epoch is refused.

use quinn::Connection;
use std::fmt;
use std::sync::Mutex;
use tokio::sync::Notify;
use woolly_protocol::control::{StreamOpen, StreamPurpose};
use woolly_protocol::frame_io::FrameReader;
use woolly_protocol::ids::{PlanEpoch, WorkerId};

/// Streams that wait at most: two per plan (forwards, samplings), and as many of a plan to come.
const WAITING_MAX: usize = 8;

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

/// Why a stream was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// It belongs to a plan that is over: the epoch that is in force is given.
    Stale(PlanEpoch),
    /// Too many wait already.
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
    streams: Vec<Arrival<R>>,
}

impl<R> Default for Arrivals<R> {
    fn default() -> Self {
        let waiting = Waiting { epoch: PlanEpoch(0), streams: Vec::new() };
        Arrivals { waiting: Mutex::new(waiting), changed: Notify::new() }
    }
}

impl<R> Arrivals<R> {
    /// Forgets everything: a new conversation with a coordinator, whose epochs may start anew.
    pub fn clear(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting { epoch: PlanEpoch(0), streams: Vec::new() };
    }

    /// Streams of plans before `epoch` are not wanted any more.
    pub fn retire_before(&self, epoch: PlanEpoch) {
        let mut waiting = self.lock();
        waiting.epoch = epoch;
        waiting.streams.retain(|stream| stream.open.epoch >= epoch);
    }

    /// Keeps a stream for its plan.
    ///
    /// # Errors
    ///
    /// Gives the reason if it is not kept; dropping the stream stops it.
    pub fn offer(&self, arrival: Arrival<R>) -> Result<(), NotKept> {
        let mut waiting = self.lock();
        if arrival.open.epoch < waiting.epoch {
            return Err(NotKept::Stale(waiting.epoch));
        }
        if waiting.streams.len() >= WAITING_MAX {
            return Err(NotKept::Full);
        }
        waiting.streams.push(arrival);
        drop(waiting);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Waits for the stream of this plan that carries `purpose` and was opened by `from`. Another
    /// peer's stream of the same kind is dropped with a warning.
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
        let wanted = StreamOpen { epoch, purpose };
        while let Some(index) = waiting.streams.iter().position(|stream| stream.open == wanted) {
            let stream = waiting.streams.swap_remove(index);
            if stream.from == from {
                return Some(stream.reader);
            }
            tracing::warn!("dropped a stream of {purpose:?} from {}, expected {from}", stream.from);
        }
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting<R>> {
        self.waiting.lock().expect("no one panics with the lock held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::timeout;

    const A: Peer = Peer::Worker(WorkerId(1));

    fn arrival(epoch: u32, from: Peer, reader: &'static str) -> Arrival<&'static str> {
        let open = StreamOpen { epoch: PlanEpoch(epoch), purpose: StreamPurpose::Forwards };
        Arrival { from, open, reader }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_come_before_or_after_its_plan() {
        let arrivals = Arc::new(Arrivals::default());
        arrivals.offer(arrival(7, A, "early")).unwrap();
        arrivals.retire_before(PlanEpoch(7));
        assert_eq!(arrivals.take(PlanEpoch(7), StreamPurpose::Forwards, A).await, "early");
        let waiting = arrivals.clone();
        let late =
            tokio::spawn(
                async move { waiting.take(PlanEpoch(8), StreamPurpose::Forwards, A).await },
            );
        tokio::task::yield_now().await;
        arrivals.offer(arrival(8, A, "late")).unwrap();
        assert_eq!(late.await.unwrap(), "late");
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_old_plans_and_other_peers_are_refused() {
        let arrivals = Arrivals::default();
        arrivals.offer(arrival(3, A, "old")).unwrap();
        arrivals.retire_before(PlanEpoch(4));
        assert_eq!(arrivals.offer(arrival(3, A, "x")), Err(NotKept::Stale(PlanEpoch(4))));
        let other = Peer::Worker(WorkerId(2));
        arrivals.offer(arrival(4, other, "not mine")).unwrap();
        arrivals.offer(arrival(4, A, "mine")).unwrap();
        assert_eq!(arrivals.take(PlanEpoch(4), StreamPurpose::Forwards, A).await, "mine");
        let samplings = arrivals.take(PlanEpoch(4), StreamPurpose::Samplings, Peer::Coordinator);
        assert!(timeout(Duration::from_secs(9), samplings).await.is_err());
    }

    #[test]
    fn only_so_many_wait() {
        let arrivals = Arrivals::default();
        for _ in 0..WAITING_MAX {
            arrivals.offer(arrival(1, A, "x")).unwrap();
        }
        assert_eq!(arrivals.offer(arrival(1, A, "x")), Err(NotKept::Full));
        arrivals.clear();
        assert_eq!(arrivals.offer(arrival(1, A, "x")), Ok(()));
    }
}
