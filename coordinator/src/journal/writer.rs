//! The thread that writes the journal, and what the gateway has of it.

use super::NotKept;
use super::file::{JournalFile, Limits, OpenError, Opened};
use super::format::{Entry, Note, Stamp};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Requests that come within this time are synced together.
const GROUP: Duration = Duration::from_millis(2);
/// Requests of a group at most.
const GROUP_MAX: usize = 256;

/// The journal. Clones are of the same; the thread ends with the last of them.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Not bounded by itself: of each request that a client waits for there is one, and of each that is kept a few.
    orders: Sender<Order>,
    salt: [u8; 32],
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Order {
    Accept(Box<Entry>, oneshot::Sender<Result<(), NotKept>>),
    Note(u128, Note),
}

#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU64,
    bytes: AtomicU64,
    failing: AtomicBool,
}

/// How the journal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests in it that have not ended.
    pub requests: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Writing fails at the moment.
    pub failing: bool,
}

impl Journal {
    /// Opens the journal in a folder and begins to write. Blocks for as long as reading it takes.
    ///
    /// # Errors
    ///
    /// Another process has it; the system's word.
    pub fn open(
        folder: &Path,
        stamp: &Stamp,
        limits: Limits,
    ) -> Result<(Journal, Opened), OpenError> {
        let (file, salt, opened) = JournalFile::open(folder, stamp, limits)?;
        let (orders, asked) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        shared.tell(&file);
        let told = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write(file, &asked, &told))
            .map_err(|error| OpenError::Io(folder.to_owned(), error))?;
        Ok((Journal { orders, salt, shared }, opened))
    }

    /// Writes a request down. It is on the disk when this is done.
    ///
    /// # Errors
    ///
    /// There is no room for it, or writing fails.
    pub async fn accept(&self, entry: Entry) -> Result<(), NotKept> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Accept(Box::new(entry), reply);
        self.orders.send(order).map_err(|_| NotKept::Failing)?;
        answer.await.unwrap_or(Err(NotKept::Failing))
    }

    /// Says what became of a request; never waits.
    pub fn note(&self, number: u128, note: Note) {
        // Without its thread nothing is written any more.
        let _ = self.orders.send(Order::Note(number, note));
    }

    /// What the journal holds instead of a key's hash: it says nothing to who has not this file.
    pub fn seal(&self, key: &[u8; 32]) -> [u8; 32] {
        *blake3::keyed_hash(&self.salt, key).as_bytes()
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let Shared { requests, bytes, failing } = &*self.shared;
        Standing {
            requests: requests.load(Relaxed),
            bytes: bytes.load(Relaxed),
            failing: failing.load(Relaxed),
        }
    }
}

impl Shared {
    fn tell(&self, file: &JournalFile) {
        let (requests, bytes, failing) = file.standing();
        self.requests.store(requests, Relaxed);
        self.bytes.store(bytes, Relaxed);
        self.failing.store(failing, Relaxed);
    }
}

fn write(mut file: JournalFile, asked: &Receiver<Order>, shared: &Shared) {
    let (mut entries, mut replies) = (Vec::new(), Vec::new());
    while let Ok(first) = asked.recv() {
        let until = Instant::now() + GROUP;
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Note(number, note) => {
                    // Its request may be of this group: that one is first.
                    accept(&mut file, &mut entries, &mut replies);
                    file.note(number, note, Instant::now());
                }
                Order::Accept(entry, reply) => {
                    entries.push(*entry);
                    replies.push(reply);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            let more = !entries.is_empty() && entries.len() < GROUP_MAX && !left.is_zero();
            next = if more { asked.recv_timeout(left).ok() } else { None };
        }
        accept(&mut file, &mut entries, &mut replies);
        shared.tell(&file);
    }
}

fn accept(
    file: &mut JournalFile,
    entries: &mut Vec<Entry>,
    replies: &mut Vec<oneshot::Sender<Result<(), NotKept>>>,
) {
    if entries.is_empty() {
        return;
    }
    let kept = file.accept(entries, Instant::now());
    entries.clear();
    for (reply, kept) in replies.drain(..).zip(kept) {
        // Who went away meanwhile says later that it has ended.
        let _ = reply.send(kept);
    }
}
