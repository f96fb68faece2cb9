//! Threads that run one region after another without going to sleep between them.
//!
//! A region is a number of units of work. Each member has a contiguous range of them, so that it
//! streams through memory, and takes from the others' ranges when its own is done: a member that
//! the system took its processor from delays the region by the unit it holds, not by its share, and one that
//! did not come in time is not waited for.
//!
//! Between two regions members spin for a while and sleep then. They do not yield instead: who yields
//! gives a whole turn, some milliseconds, to whatever else wants the processor, however unimportant it is, while
//! one that sleeps is let in at once when it is woken.

use super::affinity;
use super::gate::{Gate, HELPERS_MAX, Seen};
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;

/// Turns of a waiting loop before it sleeps: some tens of microseconds.
const SPINS: u32 = 4096;

/// A unit of work: the member that does it, and its number.
type Call = unsafe fn(*const (), usize, usize);

#[derive(Clone, Copy)]
struct Region {
    call: Call,
    data: *const (),
}

/// One member's units that are left. On cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Member {
    next: AtomicUsize,
    end: AtomicUsize,
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

#[repr(align(128))]
#[derive(Default)]
struct Padded<T>(T);

/// What the members share.
pub struct Team {
    members: Vec<Member>,
    gate: Gate,
    /// Helpers that came in and are done with the region.
    done: Padded<AtomicUsize>,
    /// Forwards that began.
    wakes: AtomicU32,
    /// The leader, while it sleeps until helpers are done.
    leader: Mutex<Option<Thread>>,
    leader_sleeps: AtomicBool,
    /// Whether a region runs.
    busy: AtomicBool,
    failed: AtomicBool,
    ended: AtomicBool,
    region: UnsafeCell<Region>,
}

// SAFETY: `region` is written by the leader while the gate is closed and no helper is inside, and read by
// helpers that came in after it was opened.
unsafe impl Sync for Team {}
// SAFETY: the region's pointer is only used while the leader waits in `run`.
unsafe impl Send for Team {}

unsafe fn nothing(_: *const (), _: usize, _: usize) {}

impl Team {
    /// A team of `members`, of which the caller is the first and the others have yet to
    /// [`help`](Self::help).
    ///
    /// # Panics
    ///
    /// If there are more than a gate can count.
    pub fn new(members: usize) -> Arc<Self> {
        assert!(members <= HELPERS_MAX, "at most {HELPERS_MAX} threads compute");
        Arc::new(Self {
            members: (0..members).map(|_| Member::default()).collect(),
            gate: Gate::new(),
            done: Padded::default(),
            wakes: AtomicU32::new(0),
            leader: Mutex::new(None),
            leader_sleeps: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            region: UnsafeCell::new(Region { call: nothing, data: std::ptr::null() }),
        })
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The life of helper `index` (1 and up), on processor `cpu` if there is one for each.
    pub fn help(&self, index: usize, cpu: Option<usize>) {
        if let Some(cpu) = cpu {
            affinity::keep_on(&[cpu]);
        }
        self.members[index].thread.get_or_init(std::thread::current);
        let mut seen = Seen::default();
        while let Some(entered) = self.wait(index, seen) {
            seen = entered;
            // SAFETY: stored before the gate was opened; the leader does not write it again before this
            // helper, which is inside, counts as done.
            let region = unsafe { *self.region.get() };
            if catch_unwind(AssertUnwindSafe(|| self.share(index, region))).is_err() {
                self.failed.store(true, Ordering::Release);
            }
            self.done.0.fetch_add(1, Ordering::SeqCst);
            if self.leader_sleeps.load(Ordering::SeqCst)
                && let Some(leader) = &*self.leader.lock().unwrap_or_else(PoisonError::into_inner)
            {
                leader.unpark();
            }
        }
    }

    /// Comes in to a region after `seen`; `None` if there will be none.
    fn wait(&self, index: usize, seen: Seen) -> Option<Seen> {
        let mut spins = 0;
        loop {
            if let Some(entered) = self.gate.enter(seen) {
                return Some(entered);
            }
            if self.ended.load(Ordering::Acquire) {
                return None;
            }
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                self.sleep(index, seen);
                spins = 0;
            }
        }
    }

    fn sleep(&self, index: usize, seen: Seen) {
        let asleep = &self.members[index].asleep;
        let wakes = self.wakes.load(Ordering::SeqCst);
        asleep.store(true, Ordering::SeqCst);
        let idle = || {
            self.wakes.load(Ordering::SeqCst) == wakes
                && !self.ended.load(Ordering::SeqCst)
                && !self.gate.is_open(seen)
        };
        while idle() {
            std::thread::park();
        }
        asleep.store(false, Ordering::SeqCst);
    }

    /// Wakes the helpers for a forward, so that they are there for its first region.
    pub fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.unpark();
    }

    /// Ends the helpers' lives.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.unpark();
    }

    fn unpark(&self) {
        for member in &self.members[1..] {
            if member.asleep.load(Ordering::SeqCst)
                && let Some(thread) = member.thread.get()
            {
                thread.unpark();
            }
        }
    }

    /// Calls `work` for each unit of `0..count`, on all members, and returns when all are done.
    ///
    /// # Panics
    ///
    /// If `work` does, or if a region of this team runs already.
    pub fn run<W: Fn(usize, usize) + Sync>(&self, count: usize, work: &W) {
        unsafe fn call<W: Fn(usize, usize) + Sync>(data: *const (), member: usize, unit: usize) {
            // SAFETY: `data` is the `work` of the region that runs, and `run` has not returned.
            let work = unsafe { &*data.cast::<W>() };
            work(member, unit);
        }
        assert!(!self.busy.swap(true, Ordering::Acquire), "one region at a time");
        let members = self.members.len();
        for (i, member) in self.members.iter().enumerate() {
            member.next.store(i * count / members, Ordering::Relaxed);
            member.end.store((i + 1) * count / members, Ordering::Relaxed);
        }
        let region = Region { call: call::<W>, data: std::ptr::from_ref(work).cast() };
        // SAFETY: all helpers that came in were done with the last region before `run` returned from it.
        unsafe { *self.region.get() = region };
        self.done.0.store(0, Ordering::Relaxed);
        self.gate.open();
        self.unpark();
        let own = catch_unwind(AssertUnwindSafe(|| self.share(0, region)));
        self.join(self.gate.close());
        self.busy.store(false, Ordering::Release);
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!self.failed.swap(false, Ordering::AcqRel), "a compute thread panicked");
    }

    /// Waits until the helpers that came in, `inside` of them, are done with the region.
    fn join(&self, inside: usize) {
        let is_done = || self.done.0.load(Ordering::SeqCst) == inside;
        for _ in 0..SPINS {
            if is_done() {
                return;
            }
            std::hint::spin_loop();
        }
        let leader = || self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        *leader() = Some(std::thread::current());
        self.leader_sleeps.store(true, Ordering::SeqCst);
        while !is_done() {
            std::thread::park();
        }
        self.leader_sleeps.store(false, Ordering::SeqCst);
        *leader() = None;
    }

    /// A member's own units, then what the others have left.
    fn share(&self, index: usize, region: Region) {
        let members = self.members.len();
        for victim in (index..members).chain(0..index) {
            let Member { next, end, .. } = &self.members[victim];
            let end = end.load(Ordering::Relaxed);
            while next.load(Ordering::Relaxed) < end {
                let unit = next.fetch_add(1, Ordering::Relaxed);
                if unit < end {
                    // SAFETY: the region runs until this member counts as done.
                    unsafe { (region.call)(region.data, index, unit) };
                }
            }
        }
    }
}
