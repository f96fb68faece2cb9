//! Places for connections: when they run short the one that is idle longest makes room.
//!
//! A connection is at work from the head of a request to the last byte of its answer, and idle
//! otherwise; one at work is never closed for another. When all are at work there are
//! some places more, for probes alone: a supervisor that hears nothing would end the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For all requests.
    pub connections: usize,
    /// Beyond those, for probes only.
    pub probes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 1024, probes: 16 }
    }
}

impl Limits {
    /// As many as by default, or as a process can have that may open `files`: some are the model's,
    /// the workers' and the log's.
    pub fn within(files: usize) -> Limits {
        const OTHERS: usize = 128;
        let default = Limits::default();
        // Where even the others would not fit, some connections are worth more than none.
        let room = files.saturating_sub(OTHERS + default.probes).max(files / 4).max(1);
        Limits { connections: default.connections.min(room), ..default }
    }
}

/// What a new connection may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Everything.
    Fully,
    /// `/livez` and `/readyz`, once.
    ForProbes,
}

/// All places. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Places {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// Counts ups and downs, so that idle connections have an order.
    tick: u64,
    connections: BTreeMap<u64, Held>,
    /// Idle connections of each kind, by the tick since which they are.
    idle: BTreeSet<(bool, u64, u64)>,
}

#[derive(Debug)]
struct Held {
    is_full: bool,
    /// `None` while it is at work.
    idle_since: Option<u64>,
    /// Told to end, and counted no more.
    is_leaving: bool,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    leave: Notify,
    half_closed: AtomicBool,
    changed: Notify,
}

/// One connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    id: u64,
    admitted: Admitted,
    table: Arc<Mutex<Table>>,
    shared: Arc<Shared>,
}

/// A connection is at work as long as this lives.
#[derive(Debug)]
pub struct AtWork {
    id: u64,
    table: Arc<Mutex<Table>>,
}

/// Whether a client has closed its half of a connection: it may wait for the answer, or be gone.
#[derive(Clone, Debug)]
pub struct ClientHalf(Arc<Shared>);

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Places {
    /// A place for a new connection, if need be that of the one that is idle longest; `None` when all
    /// are at work.
    pub fn take(&self, limits: Limits) -> Option<Place> {
        let mut table = lock(&self.table);
        let admitted = if table.make_room(true, limits.connections) {
            Admitted::Fully
        } else if table.make_room(false, limits.probes) {
            Admitted::ForProbes
        } else {
            return None;
        };
        let shared = Arc::new(Shared::default());
        let id = table.next;
        table.next += 1;
        let is_full = admitted == Admitted::Fully;
        let held =
            Held { is_full, idle_since: None, is_leaving: false, shared: Arc::clone(&shared) };
        table.connections.insert(id, held);
        table.set_idle(id);
        Some(Place { id, admitted, table: Arc::clone(&self.table), shared })
    }
}

impl Table {
    /// Whether there is a place of this kind, after the one idle longest was told to leave.
    fn make_room(&mut self, full: bool, limit: usize) -> bool {
        let stays = |held: &&Held| held.is_full == full && !held.is_leaving;
        if self.connections.values().filter(stays).count() < limit {
            return true;
        }
        let Some(&(kind, tick, id)) = self.idle.range((full, 0, 0)..).next() else { return false };
        if kind != full {
            return false;
        }
        self.idle.remove(&(kind, tick, id));
        if let Some(held) = self.connections.get_mut(&id) {
            held.is_leaving = true;
            held.shared.leave.notify_one();
        }
        true
    }

    /// A connection is idle from now on.
    fn set_idle(&mut self, id: u64) {
        self.tick += 1;
        let tick = self.tick;
        if let Some(held) = self.connections.get_mut(&id).filter(|held| !held.is_leaving) {
            held.idle_since = Some(tick);
            self.idle.insert((held.is_full, tick, id));
        }
    }

    /// A connection is at work from now on, even if it was told to leave: what it asks is answered.
    fn set_at_work(&mut self, id: u64) {
        let Some(held) = self.connections.get_mut(&id) else { return };
        if let Some(tick) = held.idle_since.take() {
            self.idle.remove(&(held.is_full, tick, id));
        }
    }
}

impl Place {
    /// What the connection may be used for.
    pub fn admitted(&self) -> Admitted {
        self.admitted
    }

    /// Returns when another connection needs the place.
    pub async fn asked_to_leave(&self) {
        self.shared.leave.notified().await;
    }

    /// Whether a request is in work.
    pub fn is_at_work(&self) -> bool {
        let table = lock(&self.table);
        table.connections.get(&self.id).is_some_and(|held| held.idle_since.is_none())
    }

    /// A request has come.
    pub fn begin(&self) -> AtWork {
        lock(&self.table).set_at_work(self.id);
        AtWork { id: self.id, table: Arc::clone(&self.table) }
    }

    /// The client's half of the connection, to be looked at by those who answer.
    pub fn client_half(&self) -> ClientHalf {
        ClientHalf(Arc::clone(&self.shared))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        table.set_at_work(self.id);
        table.connections.remove(&self.id);
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        lock(&self.table).set_idle(self.id);
    }
}

impl ClientHalf {
    /// The client will send nothing more.
    pub fn close(&self) {
        self.0.half_closed.store(true, Relaxed);
        self.0.changed.notify_waiters();
    }

    /// Whether it has.
    pub fn is_closed(&self) -> bool {
        self.0.half_closed.load(Relaxed)
    }

    /// Returns when it has.
    pub async fn closed(&self) {
        let changed = self.0.changed.notified();
        tokio::pin!(changed);
        // Registered before looking, so that no change falls between.
        changed.as_mut().enable();
        if !self.is_closed() {
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { connections: 2, probes: 1 };

    #[test]
    fn connections_leave_files_for_the_rest() {
        let within = |files| Limits::within(files).connections;
        assert_eq!([within(65_536), within(1024), within(144), within(40)], [1024, 880, 36, 10]);
    }

    fn told(place: &Place) -> bool {
        lock(&place.table).connections[&place.id].is_leaving
    }

    #[test]
    fn the_one_idle_longest_makes_room() {
        let places = Places::default();
        let first = places.take(LIMITS).unwrap();
        let second = places.take(LIMITS).unwrap();
        // The first has worked since, so the second is idle longer.
        drop(first.begin());
        let third = places.take(LIMITS).unwrap();
        assert_eq!((told(&first), told(&second)), (false, true));
        assert_eq!(third.admitted(), Admitted::Fully);
        drop(second);
        drop(third);
        assert_eq!(places.take(LIMITS).unwrap().admitted(), Admitted::Fully);
        assert!(!told(&first));
    }

    #[test]
    fn who_is_at_work_stays_and_probes_have_places_of_their_own() {
        let places = Places::default();
        let connections = [places.take(LIMITS).unwrap(), places.take(LIMITS).unwrap()];
        let work: Vec<AtWork> = connections.iter().map(Place::begin).collect();
        let probe = places.take(LIMITS).unwrap();
        assert_eq!(probe.admitted(), Admitted::ForProbes);
        let other = places.take(LIMITS).unwrap();
        assert!(told(&probe) && other.admitted() == Admitted::ForProbes);
        let asks = other.begin();
        assert!(places.take(LIMITS).is_none(), "all are at work");
        assert!(connections.iter().all(|place| place.is_at_work() && !told(place)));
        drop(asks);
        drop(work);
        assert_eq!(places.take(LIMITS).unwrap().admitted(), Admitted::Fully);
    }

    #[test]
    fn one_that_was_told_to_leave_and_is_asked_something_is_not_idle() {
        let places = Places::default();
        let first = places.take(LIMITS).unwrap();
        let _second = places.take(LIMITS).unwrap();
        let _third = places.take(LIMITS).unwrap();
        assert!(told(&first));
        let work = first.begin();
        assert!(first.is_at_work());
        drop(work);
        assert!(lock(&places.table).idle.iter().all(|(_, _, id)| *id != first.id));
    }
}
