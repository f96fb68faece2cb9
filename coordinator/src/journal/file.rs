//! The journal's file: what is in it, how it grows, and how it becomes small again. Blocks; one thread has it.

use super::format::{self, Entry, Note, Reader, Record, Stamp};
use super::{Gone, NotKept, VERSION};
use crate::trust::state::make_private_dir;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NAME: &str = "streams.journal";
/// After a write that failed it is tried again so much later.
const RETRY: Duration = Duration::from_secs(10);

/// How much the journal may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the file and of the one that is written in its place, together.
    pub bytes: u64,
}

/// Why the journal cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another coordinator uses the journal {0}: give this one its own with --journal")]
    Taken(PathBuf),
    /// The system said so.
    #[error("cannot use the journal {0}")]
    Io(PathBuf, #[source] io::Error),
}

/// A request that had not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The request.
    pub entry: Entry,
    /// By choice, how many tokens of its prompt a cache held.
    pub cached: BTreeMap<u32, u32>,
    /// Its answer was complete.
    pub finished: bool,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Opened {
    /// In the order in which they were accepted.
    pub restored: Vec<Restored>,
    /// Streams that cannot be continued, with whose they are if that is known.
    pub gone: Vec<(u128, Option<[u8; 32]>, Gone)>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// The file.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    head: Vec<u8>,
    limits: Limits,
    file: File,
    /// Held as long as the journal is used.
    _lock: File,
    /// Bytes that are good.
    len: u64,
    /// Requests that have not ended, in the order in which they were accepted.
    live: BTreeMap<u64, Live>,
    order: BTreeMap<u128, u64>,
    next: u64,
    live_bytes: u64,
    failing_since: Option<Instant>,
}

/// Where a request stands in the file.
#[derive(Debug)]
struct Live {
    number: u128,
    at: u64,
    len: usize,
    notes: Vec<Note>,
    /// Bytes of the notes.
    more: u64,
}

impl JournalFile {
    /// Opens the journal in a folder, which is made if it is not there, and says what is in it.
    ///
    /// # Errors
    ///
    /// Another process has it; the system's word.
    pub fn open(
        folder: &Path,
        stamp: &Stamp,
        limits: Limits,
    ) -> Result<(JournalFile, [u8; 32], Opened), OpenError> {
        let failed = |error| OpenError::Io(folder.to_owned(), error);
        make_private_dir(folder).map_err(failed)?;
        let lock = private(&folder.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Taken(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let path = folder.join(NAME);
        let mut fresh = [0; 32];
        getrandom::fill(&mut fresh).map_err(|error| failed(io::Error::other(error)))?;
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let (salt, opened) = look(&bytes, stamp, &path).unwrap_or((fresh, Opened::default()));
        drop(bytes);
        let head = format::file_head(stamp, &salt);
        let file = private(&path).map_err(failed)?;
        let mut journal = JournalFile {
            path,
            head,
            limits,
            file,
            _lock: lock,
            len: 0,
            live: BTreeMap::new(),
            order: BTreeMap::new(),
            next: 0,
            live_bytes: 0,
            failing_since: None,
        };
        journal.begin_with(&opened.restored).map_err(failed)?;
        Ok((journal, salt, opened))
    }

    /// A file that holds these and nothing else.
    fn begin_with(&mut self, restored: &[Restored]) -> io::Result<()> {
        let (file, path) = self.new_file()?;
        let mut len = self.head.len() as u64;
        file.write_all_at(&self.head, 0)?;
        for Restored { entry, cached, finished } in restored {
            let bytes = format::accepted(entry);
            file.write_all_at(&bytes, len)?;
            let at = len;
            len += bytes.len() as u64;
            self.add(entry.number, at, bytes.len());
            let cached = cached.iter().map(|(&choice, &tokens)| Note::Cached { choice, tokens });
            for note in cached.chain(finished.then_some(Note::Finished)) {
                let bytes = format::noted(entry.number, note);
                file.write_all_at(&bytes, len)?;
                len += bytes.len() as u64;
                self.keep_note(entry.number, note);
            }
        }
        self.replace(file, &path, len)
    }

    fn new_file(&self) -> io::Result<(File, PathBuf)> {
        let path = self.path.with_extension("new");
        let file = private(&path)?;
        file.set_len(0)?;
        Ok((file, path))
    }

    /// Puts a file that is complete in the place of the one that is there: after a crash there is one of them.
    fn replace(&mut self, file: File, path: &Path, len: u64) -> io::Result<()> {
        file.sync_all()?;
        fs::rename(path, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        (self.file, self.len) = (file, len);
        Ok(())
    }

    fn add(&mut self, number: u128, at: u64, len: usize) {
        self.order.insert(number, self.next);
        self.live.insert(self.next, Live { number, at, len, notes: Vec::new(), more: 0 });
        self.next += 1;
        self.live_bytes += len as u64;
    }

    fn remove(&mut self, number: u128) {
        if let Some(live) = self.order.remove(&number).and_then(|order| self.live.remove(&order)) {
            self.live_bytes -= live.len as u64 + live.more;
        }
    }

    /// Remembers a note for the next file, as far as it counts.
    fn keep_note(&mut self, number: u128, note: Note) {
        match self.order.get(&number).and_then(|order| self.live.get_mut(order)) {
            Some(live) if note != Note::Ended => {
                let bytes = format::noted(number, note).len() as u64;
                live.notes.push(note);
                live.more += bytes;
                self.live_bytes += bytes;
            }
            Some(_) => self.remove(number),
            None => {}
        }
    }

    /// Writes the file anew with what has not ended.
    fn compact(&mut self) -> io::Result<()> {
        let (file, path) = self.new_file()?;
        file.write_all_at(&self.head, 0)?;
        let mut len = self.head.len() as u64;
        let mut places = Vec::with_capacity(self.live.len());
        for (order, live) in &self.live {
            let mut bytes = vec![0; live.len];
            self.file.read_exact_at(&mut bytes, live.at)?;
            places.push((*order, len));
            live.notes.iter().for_each(|note| bytes.extend(format::noted(live.number, *note)));
            file.write_all_at(&bytes, len)?;
            len += bytes.len() as u64;
        }
        self.replace(file, &path, len)?;
        for (order, at) in places {
            self.live.get_mut(&order).expect("it was there just now").at = at;
        }
        Ok(())
    }

    /// Writes requests down; they are on the disk when this returns, those that are.
    pub fn accept(&mut self, entries: &[Entry], now: Instant) -> Vec<Result<(), NotKept>> {
        let failing = self.failing_since;
        if failing.is_some_and(|since| now.duration_since(since) < RETRY)
            || (failing.is_some() && !self.did(now, JournalFile::compact))
        {
            return vec![Err(NotKept::Failing); entries.len()];
        }
        let written: Vec<Result<(), NotKept>> =
            entries.iter().map(|entry| self.append_entry(entry, now)).collect();
        let synced = self.failing_since.is_none() && self.did(now, |own| own.file.sync_data());
        if synced {
            return written;
        }
        for (entry, written) in entries.iter().zip(&written) {
            if written.is_ok() {
                self.remove(entry.number);
            }
        }
        written.into_iter().map(|written| written.and(Err(NotKept::Failing))).collect()
    }

    fn append_entry(&mut self, entry: &Entry, now: Instant) -> Result<(), NotKept> {
        if self.failing_since.is_some() {
            return Err(NotKept::Failing);
        }
        let bytes = format::accepted(entry);
        let len = bytes.len() as u64;
        if self.live_bytes + len > self.limits.bytes / 3 {
            return Err(NotKept::Full);
        }
        if self.len + len > self.limits.bytes / 3 * 2 && !self.did(now, JournalFile::compact) {
            return Err(NotKept::Failing);
        }
        let at = self.len;
        if !self.did(now, |own| own.append(&bytes)) {
            return Err(NotKept::Failing);
        }
        self.add(entry.number, at, bytes.len());
        Ok(())
    }

    /// Says what became of a request. What cannot be written is in the next file all the same.
    pub fn note(&mut self, number: u128, note: Note, now: Instant) {
        if !self.order.contains_key(&number) {
            return;
        }
        self.keep_note(number, note);
        let bytes = format::noted(number, note);
        let full = self.len + bytes.len() as u64 > self.limits.bytes / 3 * 2;
        if self.failing_since.is_none() {
            self.did(now, |own| if full { own.compact() } else { own.append(&bytes) });
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Behind what is good: of a write that failed nothing stays.
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Does something with the disk, and remembers whether that can be done.
    fn did(&mut self, now: Instant, work: impl FnOnce(&mut JournalFile) -> io::Result<()>) -> bool {
        match work(self) {
            Ok(()) => {
                if self.failing_since.take().is_some() {
                    tracing::info!("the journal is written again");
                }
                true
            }
            Err(error) => {
                if self.failing_since.is_none() {
                    tracing::warn!(
                        "cannot write the journal {}: {error}; new requests are served without it, and do not survive \
                         a restart",
                        self.path.display()
                    );
                }
                self.failing_since = Some(now);
                false
            }
        }
    }

    /// Requests that have not ended, bytes of the file, and whether writing fails.
    pub fn standing(&self) -> (u64, u64, bool) {
        (self.live.len() as u64, self.len, self.failing_since.is_some())
    }

    /// From now on every write fails.
    #[cfg(test)]
    pub fn break_it(&mut self) {
        self.file = File::open("/dev/null").unwrap();
        fs::create_dir(self.path.with_extension("new")).unwrap();
    }

    /// Writes succeed again.
    #[cfg(test)]
    pub fn mend(&mut self) {
        fs::remove_dir(self.path.with_extension("new")).unwrap();
        self.file = private(&self.path).unwrap();
    }
}

/// Opens a file to read and to write, for its owner only.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// What a file holds, and its salt; `None` if it is empty or its head cannot be read.
fn look(bytes: &[u8], stamp: &Stamp, path: &Path) -> Option<([u8; 32], Opened)> {
    if bytes.is_empty() {
        return None;
    }
    let mut opened = Opened::default();
    let Some((version, theirs, salt)) = format::read_file_head(bytes) else {
        tracing::warn!(
            "{} has no readable head: its streams are lost, and it begins anew",
            path.display()
        );
        return None;
    };
    if version != VERSION {
        tracing::warn!(
            "{} has the form {version}, this build reads {VERSION}: its streams are lost, and it begins anew",
            path.display()
        );
        return None;
    }
    let mut found: Vec<Restored> = Vec::new();
    let mut damaged = 0;
    for (_, _, record) in Reader::new(bytes) {
        match record {
            Record::Accepted(entry) => {
                let (cached, finished) = (BTreeMap::new(), false);
                found.push(Restored { entry: *entry, cached, finished });
            }
            Record::Noted(number, note) => apply(&mut found, number, note),
            Record::Damaged(number) => {
                damaged += 1;
                let known = number.filter(|n| found.iter().all(|one| one.entry.number != *n));
                opened.gone.extend(known.map(|number| (number, None, Gone::Damaged)));
            }
        }
    }
    if damaged > 0 {
        let text = format!("{damaged} records of {} cannot be read", path.display());
        opened.warnings.push(text);
    }
    match theirs.differs(stamp) {
        None => opened.restored = found,
        Some(words) => {
            let count = found.len();
            let text =
                format!("{count} streams of the journal end: it is of another build ({words})");
            opened.warnings.extend((count > 0).then_some(text));
            opened.gone.extend(
                found.into_iter().map(|one| {
                    (one.entry.number, Some(one.entry.key), Gone::Foreign(words.clone()))
                }),
            );
        }
    }
    Some((salt, opened))
}

/// What became of a request that was read.
fn apply(found: &mut Vec<Restored>, number: u128, note: Note) {
    // Notes come soon after their request: it is looked for from the end.
    let Some(at) = found.iter().rposition(|one| one.entry.number == number) else { return };
    match note {
        Note::Cached { choice, tokens } => drop(found[at].cached.insert(choice, tokens)),
        Note::Finished => found[at].finished = true,
        Note::Ended => drop(found.remove(at)),
    }
}
