//! A stream that can be continued: its events as they are made, and who reads them.
//!
//! One task makes the events and adds them; a reader takes them from any place on, and the newest reader is the only
//! one. A stream without a reader goes on. What it takes is counted for all tapes together ([`Room`]): when that is
//! used up, what was read already is dropped, and a tape that nobody reads grows no more until somebody does.

use super::place::Place;
use super::sse::Events;
use crate::http::error::ApiError;
use axum::body::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bytes of events that all tapes may hold before they give way.
const ROOM: usize = 256 << 20;
/// Bytes that a tape may always hold beyond what was read.
const AHEAD: usize = 64 << 10;
/// Bytes of an event beside its text.
const EVENT_BYTES: usize = 64;

/// Writes why a stream stops for this reader in its API's words; the stream itself is not over.
pub type Interruption = fn(&ApiError, &mut Events);

/// What all tapes hold together, in bytes. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<AtomicUsize>);

impl Room {
    /// Whether tapes have to give way.
    pub fn is_short(&self) -> bool {
        self.0.load(Relaxed) > ROOM
    }
}

/// One stream. Shared by the task that makes it and by its reader.
#[derive(Debug)]
pub struct Tape {
    held: Mutex<Held>,
    room: Room,
    is_again: bool,
    changes: watch::Sender<()>,
    /// Nobody waits for it any more.
    pub abandoned: CancellationToken,
}

#[derive(Debug)]
struct Held {
    events: VecDeque<(Place, Bytes)>,
    /// Events that were dropped from the beginning, and the place of the last of them.
    dropped: u64,
    dropped_to: Option<Place>,
    bytes: usize,
    /// The event that the reader takes next, counted from the first of all.
    read: u64,
    unread_bytes: usize,
    done: bool,
    /// Counts readers; the newest has this number.
    reader: u64,
    is_read: bool,
    /// Since when nobody reads it, or it is complete.
    idle_since: Instant,
    /// How its API says why it stops, once that is known.
    interruption: Option<Interruption>,
    /// The error that it ends with.
    failure: Option<(&'static str, Vec<Bytes>)>,
    /// Why it stops before its end.
    stopped: Option<ApiError>,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// The next events.
    Events(Bytes),
    /// There are no more.
    End,
    /// It has failed: the code, and the events that say so.
    Failed(&'static str, Vec<Bytes>),
    /// Somebody else reads it now.
    TakenOver,
    /// It stops here, and may be continued elsewhere.
    Stopped(ApiError),
    /// The reader's place is beyond the end.
    Beyond,
}

/// Why a stream cannot be read from a place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSuchPlace {
    /// It is beyond what there is, which ends here.
    Beyond(Place),
    /// What comes after it was dropped.
    Dropped,
}

impl Tape {
    /// A stream that has not begun; or one that is made again, which readers may be ahead of.
    pub fn new(room: Room, is_again: bool) -> Tape {
        let held = Held {
            events: VecDeque::new(),
            dropped: 0,
            dropped_to: None,
            bytes: 0,
            read: 0,
            unread_bytes: 0,
            done: false,
            reader: 0,
            is_read: false,
            idle_since: Instant::now(),
            interruption: None,
            failure: None,
            stopped: None,
        };
        let (changes, _) = watch::channel(());
        Tape {
            held: Mutex::new(held),
            room,
            is_again,
            changes,
            abandoned: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its API says so why it stops.
    pub fn begins(&self, interruption: Interruption) {
        self.lock().interruption = Some(interruption);
    }

    /// Writes why it stops for a reader.
    pub fn interrupt(&self, error: &ApiError, events: &mut Events) {
        let write = self.lock().interruption;
        match write {
            Some(write) => write(error, events),
            None => events.message(&error.body()),
        }
    }

    /// It is not gone on with here.
    pub fn stop(&self, error: ApiError) {
        self.lock().stopped = Some(error);
        self.changes.send_replace(());
    }

    /// Adds events.
    pub fn add(&self, events: impl IntoIterator<Item = (Place, Bytes)>) {
        let mut held = self.lock();
        for (place, bytes) in events {
            let weight = bytes.len() + EVENT_BYTES;
            held.bytes += weight;
            held.unread_bytes += weight;
            self.room.0.fetch_add(weight, Relaxed);
            held.events.push_back((place, bytes));
        }
        drop(held);
        self.changes.send_replace(());
    }

    /// Waits until there is room for more.
    pub async fn room(&self) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if !self.room.is_short() || self.lock().unread_bytes < AHEAD {
                return;
            }
            let again = tokio::time::sleep(Duration::from_secs(1));
            tokio::select! { _ = changes.changed() => {} () = again => {} }
        }
    }

    /// There is no more.
    pub fn end(&self) {
        let mut held = self.lock();
        held.done = true;
        held.idle_since = Instant::now();
        drop(held);
        self.changes.send_replace(());
    }

    /// It ends with an error of this code, which these events say. They have no place of their own: made again, the
    /// stream may go on there.
    pub fn fail(&self, code: &'static str, events: Vec<Bytes>) {
        self.lock().failure = Some((code, events));
    }

    /// Whether all of it is there.
    pub fn is_done(&self) -> bool {
        self.lock().done
    }

    /// Since when nobody reads it, or since it is complete if that is later; `None` while somebody does.
    pub fn idle_since(&self) -> Option<Instant> {
        let held = self.lock();
        (!held.is_read).then_some(held.idle_since)
    }

    /// A new reader, the only one from now on.
    pub fn reader(self: &Arc<Tape>, after: Option<Place>) -> Reader {
        let mut held = self.lock();
        held.reader += 1;
        held.is_read = true;
        let number = held.reader;
        drop(held);
        self.changes.send_replace(());
        let changes = self.changes.subscribe();
        Reader { tape: Arc::clone(self), number, after, begun: false, last: after, changes }
    }

    /// Whether a reader can go on after this event. Of a stream that is made again that shows only at its end.
    ///
    /// # Errors
    ///
    /// It cannot.
    pub fn check(&self, after: Option<Place>) -> Result<(), NoSuchPlace> {
        let held = self.lock();
        if held.dropped > 0 && after < held.dropped_to {
            return Err(NoSuchPlace::Dropped);
        }
        let Some(after) = after.filter(|_| held.done || !self.is_again) else { return Ok(()) };
        let end = held.events.back().map(|(place, _)| *place).or(held.dropped_to);
        if Some(after) <= end { Ok(()) } else { Err(NoSuchPlace::Beyond(end.unwrap_or_default())) }
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.room.0.fetch_sub(held.bytes, Relaxed);
    }
}

/// Who reads a stream. When it goes, the stream waits for another.
#[derive(Debug)]
pub struct Reader {
    tape: Arc<Tape>,
    number: u64,
    after: Option<Place>,
    begun: bool,
    /// The last event that was taken.
    last: Option<Place>,
    changes: watch::Receiver<()>,
}

impl Reader {
    /// The stream.
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// After which event it goes on.
    pub fn last(&self) -> Option<Place> {
        self.last
    }

    /// What comes next. May be dropped and called again.
    pub async fn next(&mut self) -> Taken {
        loop {
            self.changes.borrow_and_update();
            if let Some(taken) = self.take() {
                return taken;
            }
            if self.changes.changed().await.is_err() {
                return Taken::End;
            }
        }
    }

    fn take(&mut self) -> Option<Taken> {
        let mut held = self.tape.lock();
        if held.reader != self.number {
            return Some(Taken::TakenOver);
        }
        if !std::mem::replace(&mut self.begun, true) {
            let had = held.events.partition_point(|(place, _)| Some(*place) <= self.after);
            held.read = held.dropped + had as u64;
        }
        // Of a stream that is computed again what the reader has already comes once more.
        while let Some((place, _)) = held.next() {
            if Some(*place) > self.after {
                break;
            }
            held.read += 1;
        }
        let mut bytes = Vec::new();
        while let Some((place, event)) = held.next().cloned() {
            bytes.extend_from_slice(&event);
            self.last = Some(place);
            held.read += 1;
        }
        held.unread_bytes = 0;
        let freed = if self.tape.room.is_short() { held.drop_read() } else { 0 };
        self.tape.room.0.fetch_sub(freed, Relaxed);
        if !bytes.is_empty() {
            return Some(Taken::Events(bytes.into()));
        }
        if let Some((code, events)) = held.failure.clone().filter(|_| held.done) {
            return Some(Taken::Failed(code, events));
        }
        if let Some(error) = &held.stopped {
            return Some(Taken::Stopped(error.clone()));
        }
        let end = held.events.back().map(|(place, _)| *place).or(held.dropped_to);
        held.done.then_some(if self.after > end { Taken::Beyond } else { Taken::End })
    }
}

impl Held {
    fn next(&self) -> Option<&(Place, Bytes)> {
        self.events.get(usize::try_from(self.read - self.dropped).ok()?)
    }

    /// Drops what was read; says how many bytes that gives back.
    fn drop_read(&mut self) -> usize {
        let mut freed = 0;
        while self.dropped < self.read {
            let Some((place, bytes)) = self.events.pop_front() else { break };
            freed += bytes.len() + EVENT_BYTES;
            self.dropped += 1;
            self.dropped_to = Some(place);
        }
        self.bytes -= freed;
        freed
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut held = self.tape.lock();
        if held.reader == self.number {
            held.is_read = false;
            held.idle_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tape(is_again: bool) -> (Room, Arc<Tape>) {
        let room = Room::default();
        (room.clone(), Arc::new(Tape::new(room, is_again)))
    }

    fn add(tape: &Tape, tokens: std::ops::Range<u64>) {
        let place = |tokens| Place { tokens, more: 0 };
        tape.add(tokens.map(|n| (place(n), Bytes::from(format!("{n};")))));
    }

    fn at(tokens: u64) -> Option<Place> {
        Some(Place { tokens, more: 0 })
    }

    fn events(text: &'static str) -> Taken {
        Taken::Events(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_reader_takes_what_comes_after_its_place_and_waits_for_more() {
        let (_, tape) = tape(false);
        add(&tape, 0..3);
        let mut reader = tape.reader(at(0));
        assert_eq!(reader.next().await, events("1;2;"));
        let waits = tokio::time::timeout(Duration::from_millis(20), reader.next());
        assert!(waits.await.is_err());
        add(&tape, 3..4);
        assert_eq!((reader.next().await, reader.last()), (events("3;"), at(3)));
        assert_eq!(
            (tape.check(at(3)), tape.check(at(4))),
            (Ok(()), Err(NoSuchPlace::Beyond(at(3).unwrap())))
        );
        tape.end();
        assert_eq!(reader.next().await, Taken::End);
        assert!(tape.idle_since().is_none());
        drop(reader);
        assert!(tape.idle_since().is_some());
    }

    #[tokio::test]
    async fn who_is_ahead_of_a_stream_that_is_made_again_gets_what_is_new() {
        let (_, tape) = tape(true);
        let mut reader = tape.reader(at(2));
        assert_eq!(tape.check(at(2)), Ok(()));
        add(&tape, 0..2);
        add(&tape, 2..4);
        assert_eq!(reader.next().await, events("3;"));
        let mut ahead = tape.reader(at(9));
        assert_eq!(reader.next().await, Taken::TakenOver);
        tape.end();
        assert_eq!(ahead.next().await, Taken::Beyond);
    }

    #[tokio::test]
    async fn without_room_what_was_read_goes_and_nobody_runs_ahead() {
        let (room, tape) = tape(false);
        add(&tape, 0..2);
        let mut reader = tape.reader(None);
        assert_eq!(reader.next().await, events("0;1;"));
        room.0.fetch_add(ROOM, Relaxed);
        let large = Bytes::from(vec![b'x'; AHEAD]);
        tape.add([(Place { tokens: 2, more: 0 }, large)]);
        let waits = tokio::time::timeout(Duration::from_millis(20), tape.room());
        assert!(waits.await.is_err());
        assert!(matches!(reader.next().await, Taken::Events(_)));
        tape.room().await;
        assert_eq!(room.0.load(Relaxed), ROOM, "what was read was given back");
        assert_eq!(
            (tape.check(at(1)), tape.check(None)),
            (Err(NoSuchPlace::Dropped), Err(NoSuchPlace::Dropped))
        );
        assert_eq!(tape.check(at(2)), Ok(()));
        add(&tape, 3..4);
        drop(reader);
        drop(tape);
        assert_eq!(room.0.load(Relaxed), ROOM);
    }
}
