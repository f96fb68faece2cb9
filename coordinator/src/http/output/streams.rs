//! All streams that can be continued: those that are made or were just complete, and those of the journal.
//!
//! A stream is here from its request until nobody has read it for the patience: counted from when its last reader went,
//! from its end, or from the server's start. Then it is gone, and that is all that is known of it.

use super::tape::{Room, Tape};
use crate::http::error::{ApiError, Problem};
use crate::journal::{Entry, Gone, Journal, NotKept, Note, Opened, Restored, Standing};
use crate::metrics::Metrics;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Streams that are remembered to be gone.
const GONE_MAX: usize = 4096;
/// Between two looks at who waits for what.
const LOOK: Duration = Duration::from_millis(250);

/// Whose stream it is, as the journal writes it.
pub type Owner = [u8; 32];

/// All streams that can be continued.
#[derive(Debug)]
pub struct Streams {
    /// Where requests are written down.
    pub journal: Journal,
    patience: Duration,
    table: Mutex<Table>,
    room: Room,
    again: Mutex<ToRestore>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Table {
    streams: BTreeMap<u128, Stream>,
    /// Those that are gone, oldest first.
    gone: VecDeque<u128>,
}

#[derive(Debug)]
enum Stream {
    Taped(Owner, Arc<Tape>),
    /// It was complete when the server ended: it is made again if somebody asks for it by then.
    Asleep(Box<Restored>, Instant),
    /// Of a damaged record nobody knows whose it was; its number is 128 random bits.
    Gone(Option<Owner>, String),
}

/// A stream that was asked for.
#[derive(Debug)]
pub enum Found {
    /// It is here.
    Here(Arc<Tape>),
    /// It has to be made again.
    Again(Arc<Tape>, Box<Restored>),
    /// It cannot be continued, for this reason.
    Gone(String),
    /// There is none of this owner.
    Nothing,
}

/// What has to be made again, in order.
pub type ToRestore = Vec<(Restored, Arc<Tape>)>;

impl Streams {
    /// The streams of a journal that was just opened.
    pub fn new(
        journal: Journal,
        opened: Opened,
        patience: Duration,
        metrics: Arc<Metrics>,
    ) -> Streams {
        let (mut table, room) = (Table::default(), Room::default());
        for (number, owner, gone) in opened.gone {
            let text = match gone {
                Gone::Foreign(words) => format!(
                    "It was begun by another build, which might have gone on with other tokens ({words})."
                ),
                Gone::Damaged => "Its record in the journal is damaged.".to_owned(),
            };
            table.is_gone(number, owner, text);
        }
        let (mut again, until) = (Vec::new(), Instant::now() + patience);
        for restored in opened.restored {
            let number = restored.entry.number;
            let stream = if restored.finished {
                Stream::Asleep(Box::new(restored), until)
            } else {
                let tape = Arc::new(Tape::new(room.clone(), true));
                let owner = restored.entry.key;
                again.push((restored, Arc::clone(&tape)));
                Stream::Taped(owner, tape)
            };
            table.streams.insert(number, stream);
        }
        let (table, again) = (Mutex::new(table), Mutex::new(again));
        Streams { journal, patience, table, room, again, metrics }
    }

    /// What had not ended, and has to be made again: the first time that it is asked for.
    pub fn take_unfinished(&self) -> ToRestore {
        std::mem::take(&mut *self.again.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a request down, and makes a place for its stream.
    ///
    /// # Errors
    ///
    /// It is not in the journal, and its stream cannot be continued.
    pub async fn accept(&self, entry: Entry) -> Result<Arc<Tape>, NotKept> {
        let (number, owner) = (entry.number, entry.key);
        if self.room.is_short() {
            self.metrics.journal.unjournalled.fetch_add(1, Relaxed);
            return Err(NotKept::Full);
        }
        // A client that goes away before it is answered leaves nothing behind.
        let waits = Waits { journal: &self.journal, number: Some(number) };
        let kept = self.journal.accept(entry).await;
        waits.answered();
        let counts = &self.metrics.journal;
        let counted = if kept.is_ok() { &counts.journalled } else { &counts.unjournalled };
        counted.fetch_add(1, Relaxed);
        kept?;
        let tape = Arc::new(Tape::new(self.room.clone(), false));
        self.lock().streams.insert(number, Stream::Taped(owner, Arc::clone(&tape)));
        Ok(tape)
    }

    /// A stream that somebody asks for.
    pub fn find(&self, number: u128, owner: &Owner) -> Found {
        let mut table = self.lock();
        let is_owner = |of: &Owner| bool::from(of.ct_eq(owner));
        let (tape, restored) = match table.streams.get(&number) {
            Some(Stream::Taped(of, tape)) if is_owner(of) => (Arc::clone(tape), None),
            Some(Stream::Asleep(restored, _)) if is_owner(&restored.entry.key) => {
                let tape = Arc::new(Tape::new(self.room.clone(), true));
                (tape, Some(restored.clone()))
            }
            Some(Stream::Gone(of, why)) if of.as_ref().is_none_or(is_owner) => {
                return Found::Gone(why.clone());
            }
            _ => return Found::Nothing,
        };
        let Some(restored) = restored else { return Found::Here(tape) };
        table.streams.insert(number, Stream::Taped(*owner, Arc::clone(&tape)));
        Found::Again(tape, restored)
    }

    /// A reader has come back to a stream.
    pub fn continued(&self) {
        self.metrics.journal.continued.fetch_add(1, Relaxed);
    }

    /// A stream cannot be continued, for this reason.
    pub fn ends(&self, number: u128, why: String) {
        let mut table = self.lock();
        let owner = match table.streams.get(&number) {
            Some(Stream::Taped(owner, tape)) => {
                tape.abandoned.cancel();
                // For a reader that found it just before.
                tape.stop(gone(&why));
                Some(*owner)
            }
            Some(Stream::Asleep(restored, _)) => Some(restored.entry.key),
            Some(Stream::Gone(..)) | None => return,
        };
        table.is_gone(number, owner, why);
        drop(table);
        self.journal.note(number, Note::Ended);
    }

    /// Ends what nobody waits for any more, until the server ends.
    pub async fn look_after(&self, until: CancellationToken) {
        loop {
            tokio::select! {
                () = until.cancelled() => return,
                () = tokio::time::sleep(LOOK.min(self.patience / 4)) => self.look(Instant::now()),
            }
        }
    }

    fn look(&self, now: Instant) {
        for (number, why) in self.over(now) {
            self.ends(number, why);
        }
        // One at a time: the next look finds out whether that was enough.
        if self.room.is_short()
            && let Some(number) = self.oldest_complete()
        {
            self.ends(number, "It was complete, and there was no more room for it.".to_owned());
        }
        let Standing { requests, bytes, failing } = self.journal.standing();
        let counts = &self.metrics.journal;
        counts.requests.store(requests, Relaxed);
        counts.bytes.store(bytes, Relaxed);
        counts.failing.store(u64::from(failing), Relaxed);
    }

    fn over(&self, now: Instant) -> Vec<(u128, String)> {
        let s = self.patience.as_secs_f32();
        let table = self.lock();
        let over = table.streams.iter().filter_map(|(number, stream)| match stream {
            Stream::Taped(_, tape) => {
                let is_over = tape.idle_since().is_some_and(|since| now >= since + self.patience);
                let why = if tape.is_done() {
                    format!("It was complete, and is kept for {s} s after that.")
                } else {
                    format!("Nobody read it for {s} s (--journal-patience).")
                };
                is_over.then_some((*number, why))
            }
            Stream::Asleep(_, until) => {
                let why = format!("It was complete before the server started again, {s} s ago.");
                (now >= *until).then_some((*number, why))
            }
            Stream::Gone(..) => None,
        });
        over.collect()
    }

    fn oldest_complete(&self) -> Option<u128> {
        let table = self.lock();
        let complete = table.streams.iter().filter_map(|(number, stream)| match stream {
            Stream::Taped(_, tape) if tape.is_done() => Some((tape.idle_since()?, *number)),
            _ => None,
        });
        complete.min().map(|(_, number)| number)
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How the journal stands.
    pub fn standing(&self) -> Standing {
        self.journal.standing()
    }
}

/// 410: why a stream cannot be continued.
pub fn gone(why: &str) -> ApiError {
    ApiError::new(Problem::Gone, format!("The stream cannot be continued. {why}"))
}

impl Table {
    fn is_gone(&mut self, number: u128, owner: Option<Owner>, why: String) {
        if self.gone.len() == GONE_MAX
            && let Some(oldest) = self.gone.pop_front()
        {
            self.streams.remove(&oldest);
        }
        self.gone.push_back(number);
        self.streams.insert(number, Stream::Gone(owner, why));
    }
}

/// A client that waits for its request to be written down.
struct Waits<'a> {
    journal: &'a Journal,
    number: Option<u128>,
}

impl Waits<'_> {
    fn answered(mut self) {
        self.number = None;
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.journal.note(number, Note::Ended);
        }
    }
}
