//! What happens when a page of a mapped file cannot be read any more: one sentence, and the end.
//!
//! A file that becomes shorter while it is mapped, or a disk that fails, is no error of a call: the kernel
//! sends SIGBUS to whoever reads the page. Nothing can be computed without it, so the process ends. By
//! itself it would be killed without a word; here it says what happened, if the page was one of a
//! [`Mapping`](super::mapping::Mapping). Any other SIGBUS does what it does without this.

use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Mappings that are known here at most, as many as the slices of several large models. One more is mapped
/// all the same, and what reads its lost pages is killed without a word.
const MAPPINGS_MAX: usize = 1024;

/// What is said and with which status the process ends; there once the handler is.
static LAST_WORDS: OnceLock<(&str, u8)> = OnceLock::new();
/// The mappings there are. The handler can wait for no lock, so these are none.
static MAPPINGS: [Entry; MAPPINGS_MAX] = [const { Entry::free() }; MAPPINGS_MAX];

/// A place in [`MAPPINGS`].
struct Entry {
    /// Address of the first byte; 0 where the place is free.
    start: AtomicUsize,
    /// Bytes; 0 while the entry is being made or taken back.
    len: AtomicUsize,
}

impl Entry {
    const fn free() -> Self {
        Self { start: AtomicUsize::new(0), len: AtomicUsize::new(0) }
    }

    fn covers(&self, address: usize) -> bool {
        // Between the two loads the place may go to another mapping. The page that is read now is of one
        // that stays until it has been read, and its entry with it.
        let (start, len) = (self.start.load(Ordering::Acquire), self.len.load(Ordering::Acquire));
        start != 0 && address.wrapping_sub(start) < len
    }
}

/// A range of memory that is a mapping of ours, for as long as this lives.
#[derive(Debug)]
pub(super) struct Known {
    /// Its place, if one was free.
    index: Option<usize>,
}

impl Known {
    /// Enters the mapping `bytes`.
    pub(super) fn new(bytes: &[u8]) -> Self {
        let start = bytes.as_ptr().addr();
        let take = |entry: &Entry| {
            entry.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let index = MAPPINGS.iter().position(take);
        if let Some(index) = index {
            MAPPINGS[index].len.store(bytes.len(), Ordering::Release);
        }
        Self { index }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            MAPPINGS[index].len.store(0, Ordering::Release);
            MAPPINGS[index].start.store(0, Ordering::Release);
        }
    }
}

/// From now on this process ends with `status` and `sentence` on stderr when a page of mapped weights cannot
/// be read any more. The first call counts; the sentence brings its own end of line.
///
/// # Errors
/// What the system says. Then such a process is killed by SIGBUS.
pub fn end_on_lost_pages(sentence: &'static str, status: u8) -> io::Result<()> {
    if LAST_WORDS.set((sentence, status)).is_err() {
        return Ok(());
    }
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    // SAFETY: zeros are a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // Threads have a stack for signals, should their own be what is at its end.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action is whole, and the handler has the signature that SA_SIGINFO asks for and calls
    // only what a handler may.
    match unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs in the middle of anything: it takes no lock and no memory, and calls only what POSIX lists as safe.
extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: with SA_SIGINFO the system passes a valid `siginfo_t`.
    let code = unsafe { (*info).si_code };
    // Those of other processes have no address and a code that is not positive.
    let is_fault = code > 0;
    if is_fault {
        // SAFETY: as above; of a fault, the address is the field that is there.
        let address = unsafe { (*info).si_addr() }.addr();
        if let Some((sentence, status)) = LAST_WORDS.get()
            && MAPPINGS.iter().any(|entry| entry.covers(address))
        {
            // SAFETY: the sentence is valid for its length, and both calls are safe in a handler.
            unsafe {
                libc::write(libc::STDERR_FILENO, sentence.as_ptr().cast(), sentence.len());
                libc::_exit((*status).into())
            }
        }
    }
    // SAFETY: both calls are safe in a handler. A fault happens again when this returns, and what was sent
    // is sent again and waits until then.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        if !is_fault {
            libc::raise(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mapping::{Mapping, OpenFile};
    use super::*;
    use crate::gguf::FileIdentity;
    use crate::memory::page_size;
    use memmap2::Mmap;
    use std::fs::{self, File};
    use std::hint::black_box;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};
    use std::sync::Arc;

    const CHILD: &str = "WOOLLY_TEST_LOST_PAGES";
    const SENTENCE: &str = "a page is lost\n";

    /// Two pages of a file that is gone when the process has ended.
    fn two_pages() -> (File, Arc<OpenFile>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pages");
        fs::write(&path, vec![7; 2 * page_size()]).unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let identity = FileIdentity::of(&fs::metadata(&path).unwrap());
        let (file, mapped) = (open(), open());
        (file, Arc::new(OpenFile { path, file: mapped, identity }))
    }

    /// The other process of the tests below: does nothing unless one of them starts it.
    #[test]
    fn other_process() {
        let Ok(what) = std::env::var(CHILD) else { return };
        end_on_lost_pages(SENTENCE, 70).unwrap();
        let (file, open) = two_pages();
        let ours = Mapping::new(&open, &(0..2 * page_size() as u64)).unwrap();
        // SAFETY: it is only read, and losing its pages is what is tested.
        let another = unsafe { Mmap::map(&open.file) }.unwrap();
        assert_eq!((ours.bytes[page_size()], another[0]), (7, 7));
        match &what[..] {
            "ours" => {
                file.set_len(1).unwrap();
                black_box(ours.bytes[page_size()]);
            }
            "another" => {
                file.set_len(0).unwrap();
                black_box(another[0]);
            }
            "dropped" => {
                drop(ours);
                file.set_len(0).unwrap();
                black_box(another[0]);
            }
            // SAFETY: a signal to this process.
            "sent" => assert_eq!(unsafe { libc::raise(libc::SIGBUS) }, 0),
            what => panic!("{what}"),
        }
        panic!("it goes on after {what}");
    }

    fn ended(what: &str) -> Output {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "weights::lost_pages::tests::other_process", "--nocapture"])
            .env(CHILD, what)
            .output()
            .unwrap()
    }

    #[test]
    fn a_truncated_file_of_ours_ends_the_process_with_its_sentence() {
        let Output { status, stderr, .. } = ended("ours");
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!((status.code(), &said[..]), (Some(70), SENTENCE));
    }

    #[test]
    fn any_other_sigbus_kills_as_ever() {
        for what in ["another", "dropped", "sent"] {
            let Output { status, stderr, .. } = ended(what);
            let said = String::from_utf8_lossy(&stderr);
            assert_eq!((status.signal(), &said[..]), (Some(libc::SIGBUS), ""), "{what}");
        }
    }

    #[test]
    fn places_are_given_back_and_a_full_table_is_no_error() {
        let bytes = [0; 64];
        let covered = || {
            let address = bytes.as_ptr().addr();
            let covers = |at: usize| MAPPINGS.iter().any(|entry| entry.covers(at));
            (covers(address - 1), covers(address), covers(address + 63), covers(address + 64))
        };
        let none = (false, false, false, false);
        assert_eq!(covered(), none);
        let known: Vec<Known> = (0..=MAPPINGS_MAX).map(|_| Known::new(&bytes)).collect();
        assert!(known.iter().any(|known| known.index.is_none()));
        assert_eq!(covered(), (false, true, true, false));
        drop(known);
        assert_eq!(covered(), none);
    }
}
