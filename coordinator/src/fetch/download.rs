//! The shell of a download: connections, each in a thread, that do what the [`Course`] says.

use super::answer::Meaning;
use super::client::{Client, Place, Reply};
use super::course::{Course, Next, Pace, Patience};
use super::link::Link;
use super::part::{Identity, Part};
use super::progress::Progress;
use super::spans::{Span, Spans};
use super::trouble::{FetchError, Trouble};
use std::io::Read;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that are read and written at a time.
const BLOCK: usize = 256 << 10;
/// Bytes after which what came is noted in the record.
const NOTE_BYTES: u64 = 128 << 20;
/// Time after which it is noted.
const NOTE_PERIOD: Duration = Duration::from_secs(2);
/// Tries of a question at most: whoever has no network is to hear of it soon.
const QUESTION_TRIES: u32 = 4;
/// How long a connection without work sleeps at most.
const NAP: Duration = Duration::from_secs(1);

/// What a server says of a file before its bytes are asked for.
#[derive(Clone, Debug)]
pub struct Probed {
    /// Which file it is.
    pub identity: Identity,
    /// Whether parts of it can be asked for.
    pub ranged: bool,
    /// Where it is now.
    pub place: Place,
}

/// Asks for the first byte of a file, and so what it is. What is `expected` of it must be so.
///
/// # Errors
///
/// [`Trouble`]: the server cannot be asked, or contradicts itself or what is expected.
pub fn probe(
    client: &Client,
    link: &Link,
    expected: Option<(u64, Option<&str>)>,
) -> Result<Probed, Trouble> {
    let reply = client.get(&Place::first(link), Some(Span { start: 0, end: 1 }), None)?;
    let Reply { place, meaning, told, .. } = reply;
    let (size, ranged) = match meaning {
        Meaning::Part { size, .. } => (Some(size), true),
        Meaning::Whole { size } => (size, false),
        _ => (None, false),
    };
    let size = size.or(told.size).or(expected.map(|(size, _)| size));
    let size =
        size.ok_or_else(|| Trouble::failed(format!("{link} does not say how long it is")))?;
    let listed = expected.map(|(size, _)| size).or(told.size);
    if let Some(listed) = listed.filter(|listed| *listed != size) {
        return Err(Trouble::failed(format!(
            "{link} has {size} bytes, and the server says elsewhere that it has {listed}"
        )));
    }
    let digest = expected.and_then(|(_, digest)| digest);
    if let (Some(listed), Some(told)) = (digest, &told.sha256)
        && listed != told
    {
        return Err(Trouble::failed(format!(
            "{link}: the server says two digests, {listed} and {told}: if it has changed just now, pull it again"
        )));
    }
    let sha256 = digest.map(str::to_owned).or(told.sha256);
    Ok(Probed { identity: Identity { size, sha256, validator: told.validator }, ranged, place })
}

/// Asks something until it is answered or not worth another try.
///
/// # Errors
///
/// What happened last.
pub fn patiently<T>(
    pace: &Pace,
    progress: &Progress,
    mut action: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, FetchError> {
    let pace = Pace { tries: pace.tries.min(QUESTION_TRIES), ..*pace };
    let (began, mut patience) = (Instant::now(), Patience::new(pace));
    loop {
        let (what, after) = match action() {
            Ok(value) => return Ok(value),
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Again { what, after }) => (what, after),
            Err(Trouble::Expired(what)) => (what, None),
            Err(Trouble::NoRanges) => ("the server sends whole files only".to_owned(), None),
        };
        progress.trouble(&what);
        patience.failed(began.elapsed(), &what, after)?;
        if let Some(wait) = patience.wait(began.elapsed()) {
            std::thread::sleep(wait);
        }
    }
}

/// Fills a part.
///
/// # Errors
///
/// What ended it. What came is noted in the record, and gone on with the next time.
pub fn download(
    client: &Client,
    link: &Link,
    probed: &Probed,
    pace: &Pace,
    (part, there): (&Part, Spans),
    progress: &Progress,
) -> Result<(), FetchError> {
    let now = Instant::now();
    let course = Course::new(probed.identity.size, there, probed.ranged, *pace);
    let place = probed.place.clone();
    let state = State { course, place, noted_at: now, noted: 0, is_noting: false };
    let shared = Shared {
        client,
        link,
        identity: &probed.identity,
        part,
        progress,
        began: now,
        state: Mutex::new(state),
        changed: Condvar::new(),
    };
    let connections = if probed.ranged { pace.connections.max(1) } else { 1 };
    let results: Vec<Result<(), FetchError>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..connections).map(|_| scope.spawn(|| shared.connection())).collect();
        let broken = || Err(FetchError::Failed("a connection's thread ended".to_owned()));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| broken())).collect()
    });
    let state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let result = results.into_iter().collect::<Result<Vec<()>, FetchError>>();
    if state.course.is_ranged() {
        let noted = part.note(&probed.identity, state.course.whole());
        // What ended it is said, not what follows from that.
        if result.is_ok() {
            noted?;
        }
    }
    let left = probed.identity.size.saturating_sub(state.course.whole().total());
    match result {
        Err(FetchError::NoRoom { folder, free, .. }) => {
            Err(FetchError::NoRoom { folder, needed: left, free })
        }
        result => result.map(|_| ()),
    }
}

struct Shared<'a> {
    client: &'a Client,
    link: &'a Link,
    identity: &'a Identity,
    part: &'a Part,
    progress: &'a Progress,
    began: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    course: Course,
    place: Place,
    noted_at: Instant,
    noted: u64,
    is_noting: bool,
}

impl Shared<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the course says until it says that there is nothing more.
    fn connection(&self) -> Result<(), FetchError> {
        let mut state = self.lock();
        loop {
            let nap = match state.course.next(self.began.elapsed()) {
                Next::Done => return Ok(()),
                Next::Failed(error) => return Err(error),
                Next::Wait(wait) => wait.min(NAP),
                Next::Idle => NAP,
                Next::Fetch { span, ranged } => {
                    let place = state.place.clone();
                    drop(state);
                    let trouble = self.fetch(&place, span, ranged).err();
                    if let Some(Trouble::Again { what, .. } | Trouble::Expired(what)) = &trouble {
                        self.progress.trouble(what);
                    }
                    state = self.lock();
                    if matches!(trouble, Some(Trouble::Expired(_))) && state.place == place {
                        state.place = Place::first(self.link);
                    }
                    state.course.ended(span, trouble, self.began.elapsed());
                    self.changed.notify_all();
                    continue;
                }
            };
            let waited = self.changed.wait_timeout(state, nap);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Asks for bytes and writes what comes.
    fn fetch(&self, place: &Place, span: Span, ranged: bool) -> Result<(), Trouble> {
        // A file with a digest is checked in the end; the next server of the same file has another ETag.
        let validator =
            self.identity.validator.as_deref().filter(|_| self.identity.sha256.is_none());
        let reply = self.client.get(place, ranged.then_some(span), validator.filter(|_| ranged))?;
        let (end, ranged) = self.check(&reply, span, ranged)?;
        if reply.place != *place {
            let mut state = self.lock();
            if state.place == *place {
                state.place = reply.place.clone();
            }
        }
        self.read(reply, Span { start: span.start, end }, ranged)
    }

    /// Where the bytes that follow end, and whether they are a part of the file.
    fn check(&self, reply: &Reply, span: Span, ranged: bool) -> Result<(u64, bool), Trouble> {
        let link = &reply.place.link;
        let has_changed = || {
            Trouble::failed(format!("{link} has changed while it was downloaded: pull it again"))
        };
        if let (Some(ours), Some(told)) = (&self.identity.sha256, &reply.told.sha256)
            && ours != told
        {
            return Err(has_changed());
        }
        match reply.meaning {
            Meaning::Part { size, .. } if size != self.identity.size => Err(has_changed()),
            Meaning::Part { span: sent, .. } if sent.start != span.start || sent.end > span.end => {
                Err(Trouble::again(format!("{link} sends other bytes than it was asked for")))
            }
            Meaning::Part { span: sent, .. } => Ok((sent.end, true)),
            Meaning::Whole { size } if size.is_some_and(|size| size != self.identity.size) => {
                Err(has_changed())
            }
            Meaning::Whole { .. } if !ranged => Ok((span.end, false)),
            // That is how a server says that the file is not the one of If-Range.
            Meaning::Whole { .. } if reply.told.validator != self.identity.validator => {
                if self.identity.sha256.is_some() {
                    Err(Trouble::NoRanges)
                } else {
                    Err(has_changed())
                }
            }
            Meaning::Whole { .. } => Err(Trouble::NoRanges),
            _ => Err(Trouble::again(format!("{link} sends no bytes"))),
        }
    }

    fn read(&self, mut reply: Reply, span: Span, ranged: bool) -> Result<(), Trouble> {
        let mut block = vec![0; BLOCK];
        let mut at = span.start;
        while at < span.end {
            let most = usize::try_from(span.end - at).unwrap_or(BLOCK).min(BLOCK);
            let broke = |why: String| {
                let came = at - span.start;
                Trouble::again(format!("{} broke off after {came} bytes: {why}", reply.place.link))
            };
            let len = match reply.body.read(&mut block[..most]) {
                Ok(0) => return Err(broke(format!("{} were to follow", span.end - at))),
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broke(error.to_string())),
            };
            self.part.write(&block[..len], at).map_err(Trouble::Fatal)?;
            let came = Span { start: at, end: at + len as u64 };
            at = came.end;
            let mut state = self.lock();
            if !state.course.got(came, ranged) {
                return Ok(());
            }
            let total = state.course.whole().total();
            self.progress.at(total);
            let is_due =
                total >= state.noted + NOTE_BYTES || state.noted_at.elapsed() >= NOTE_PERIOD;
            if ranged && is_due && !state.is_noting {
                state.is_noting = true;
                let whole = state.course.whole().clone();
                drop(state);
                let noted = self.part.note(self.identity, &whole);
                let mut state = self.lock();
                (state.is_noting, state.noted, state.noted_at) = (false, total, Instant::now());
                noted.map_err(Trouble::Fatal)?;
            }
        }
        Ok(())
    }
}
