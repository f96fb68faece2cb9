//! Threads that run one region after another without going to sleep between them.
//!
//! A region is a number of units of work. Each member has a contiguous range of them, so that it
//! streams through memory, and takes from the others' ranges when its own is done: a member that
//! the system took its processor from delays the region by the unit it holds, not by its share.
//!
//! Between two regions of a forward, members spin; when they have spun for long they yield, because
//! then there are fewer processors than threads. Between forwards they sleep.

use super::affinity;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

/// Turns of a waiting loop before it lets others run: some tens of microseconds.
const SPINS: u32 = 4096;
/// Yields of an idle member before it sleeps.
const YIELDS: u32 = 64;

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
    /// Grows with every region.
    epoch: Padded<AtomicU32>,
    /// Helpers that are done with the region.
    done: Padded<AtomicUsize>,
    /// Whether a forward runs: helpers do not sleep.
    awake: AtomicBool,
    /// Whether a region runs.
    busy: AtomicBool,
    failed: AtomicBool,
    ended: AtomicBool,
    region: UnsafeCell<Region>,
}

// SAFETY: `region` is written by the leader while no helper is in a region, and read by helpers
// after they saw the epoch that was stored behind it.
unsafe impl Sync for Team {}
// SAFETY: the region's pointer is only used while the leader waits in `run`.
unsafe impl Send for Team {}

unsafe fn nothing(_: *const (), _: usize, _: usize) {}

impl Team {
    /// A team of `members`, of which the caller is the first and the others have yet to
    /// [`help`](Self::help).
    pub fn new(members: usize) -> Arc<Self> {
        Arc::new(Self {
            members: (0..members).map(|_| Member::default()).collect(),
            epoch: Padded::default(),
            done: Padded::default(),
            awake: AtomicBool::new(false),
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
        let mut epoch = 0;
        while self.wait(index, epoch) {
            epoch = epoch.wrapping_add(1);
            // SAFETY: stored before the epoch that was just seen; the leader does not write it again
            // before this helper counts as done.
            let region = unsafe { *self.region.get() };
            if catch_unwind(AssertUnwindSafe(|| self.share(index, region))).is_err() {
                self.failed.store(true, Ordering::Release);
            }
            self.done.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Waits for a region after `epoch`; `false` if there will be none.
    fn wait(&self, index: usize, epoch: u32) -> bool {
        let (mut spins, mut yields) = (0, 0);
        loop {
            if self.epoch.0.load(Ordering::Acquire) != epoch {
                return true;
            }
            if self.ended.load(Ordering::Acquire) {
                return false;
            }
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else if yields < YIELDS || self.awake.load(Ordering::Acquire) {
                yields += 1;
                std::thread::yield_now();
            } else {
                self.sleep(index, epoch);
                (spins, yields) = (0, 0);
            }
        }
    }

    fn sleep(&self, index: usize, epoch: u32) {
        let asleep = &self.members[index].asleep;
        asleep.store(true, Ordering::SeqCst);
        let idle = || {
            !self.awake.load(Ordering::SeqCst)
                && !self.ended.load(Ordering::SeqCst)
                && self.epoch.0.load(Ordering::SeqCst) == epoch
        };
        while idle() {
            std::thread::park();
        }
        asleep.store(false, Ordering::SeqCst);
    }

    /// Wakes the helpers for a forward.
    pub fn wake(&self) {
        self.awake.store(true, Ordering::SeqCst);
        self.unpark();
    }

    /// Lets the helpers sleep.
    pub fn rest(&self) {
        self.awake.store(false, Ordering::SeqCst);
    }

    /// Whether a forward runs.
    pub fn is_awake(&self) -> bool {
        self.awake.load(Ordering::Relaxed)
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
        // SAFETY: all helpers were done with the last region before `run` returned from it.
        unsafe { *self.region.get() = region };
        self.done.0.store(0, Ordering::Relaxed);
        self.epoch.0.fetch_add(1, Ordering::SeqCst);
        if !self.is_awake() {
            self.unpark();
        }
        let own = catch_unwind(AssertUnwindSafe(|| self.share(0, region)));
        self.join();
        self.busy.store(false, Ordering::Release);
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!self.failed.swap(false, Ordering::AcqRel), "a compute thread panicked");
    }

    /// Waits until every helper is done with the region.
    fn join(&self) {
        let mut spins = 0;
        while self.done.0.load(Ordering::Acquire) != self.members.len() - 1 {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
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
