//! The compute threads of a stage and how they share out one operation's outputs.
//!
//! Threads come from rayon; what they do between two forwards and inside one is the `team`'s. The
//! thread that makes the pool is its first member. Threads split outputs, never sums: what an output
//! is does not depend on how many there are.

mod affinity;
mod gate;
mod team;

use crate::kernels::Level;
use crate::kernels::scratch::Scratch;
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use team::Team;

/// Threads that compute one stage.
pub struct Pool {
    team: Arc<Team>,
    /// Owns the helpers' threads.
    helpers: Option<rayon::ThreadPool>,
    /// One per member; only that member uses it.
    scratch: Vec<UnsafeCell<Scratch>>,
    level: Level,
    /// What the first member could run on before it was pinned.
    before: Option<Vec<usize>>,
}

// SAFETY: each scratch is used by one member, inside a region, of which there is one at a time.
unsafe impl Sync for Pool {}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads())
            .field("level", &self.level)
            .finish()
    }
}

impl Pool {
    /// A pool of `threads` threads of which the calling one is the first.
    ///
    /// Use it, and every [`Stage`](crate::stage::Stage) made with it, on this thread only. If there
    /// are as many threads as processors that this thread may run on, each stays on one of them.
    ///
    /// # Panics
    ///
    /// If no thread can be started.
    pub fn on_this_thread(threads: usize) -> Arc<Self> {
        Self::with_level(threads, Level::best())
    }

    /// As [`on_this_thread`](Self::on_this_thread), with the instruction set given.
    ///
    /// # Panics
    ///
    /// As [`on_this_thread`](Self::on_this_thread).
    pub fn with_level(threads: usize, level: Level) -> Arc<Self> {
        let threads = threads.max(1);
        let team = Team::new(threads);
        let cpus = affinity::allowed();
        let pinned = threads > 1 && cpus.len() == threads;
        let helpers = (threads > 1).then(|| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads - 1)
                .thread_name(|i| format!("compute-{}", i + 1))
                .build()
                .expect("threads can be started");
            let (team, cpus) = (Arc::clone(&team), cpus.clone());
            pool.spawn_broadcast(move |context| {
                let index = context.index() + 1;
                team.help(index, pinned.then(|| cpus[index]));
            });
            pool
        });
        if pinned {
            affinity::keep_on(&cpus[..1]);
        }
        let scratch = (0..threads).map(|_| UnsafeCell::new(Scratch::new())).collect();
        Arc::new(Self { team, helpers, scratch, level, before: pinned.then_some(cpus) })
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        self.team.members()
    }

    /// The instruction set that the kernels use.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Runs `work` with the threads woken: once for a forward's layers, and once for each tile of
    /// logits.
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        self.team.wake();
        work()
    }

    /// Calls `work` for each unit of `0..count`, on all threads, with the scratch of its thread.
    ///
    /// Neighbouring units mostly go to the same thread, in ascending order. `work` may not call the
    /// pool again.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub fn each(&self, count: usize, work: &(impl Fn(&mut Scratch, usize) + Sync)) {
        let scratch = SharedScratch(&self.scratch);
        self.team.run(count, &|member, unit| {
            let scratch = &scratch;
            // SAFETY: only member `member` is here with this index, for one unit at a time.
            work(unsafe { &mut *scratch.0[member].get() }, unit);
        });
    }

    /// Calls `work` for ranges that together are `0..len`, each of at most `grain` items and
    /// starting at a multiple of it, on all threads.
    pub fn for_ranges(&self, len: usize, grain: usize, work: &(impl Fn(Range<usize>) + Sync)) {
        let grain = grain.max(1);
        self.each(len.div_ceil(grain), &|_, i| work(i * grain..len.min((i + 1) * grain)));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.team.end();
        drop(self.helpers.take());
        if let Some(cpus) = &self.before {
            affinity::keep_on(cpus);
        }
    }
}

struct SharedScratch<'a>(&'a [UnsafeCell<Scratch>]);

// SAFETY: as for the pool.
unsafe impl Sync for SharedScratch<'_> {}

/// Values that threads write disjoint parts of.
#[derive(Clone, Copy)]
pub struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: whoever writes promises that nobody else has that part.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: it is as good as the exclusive borrow it was made of.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Shares `values` for as long as they are borrowed.
    pub fn new(values: &'a mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), life: PhantomData }
    }

    /// The values of `range`, to be written by the caller alone.
    ///
    /// # Safety
    ///
    /// No other thread has a part that overlaps `range`, and the caller no other borrow of it.
    ///
    /// # Panics
    ///
    /// If the range is not inside.
    #[allow(clippy::mut_from_ref, reason = "that is what it is for; the contract is above")]
    #[inline(always)]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "inside what is shared");
        // SAFETY: inside the borrow that this was made of; alone, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_unit_is_done_once_whatever_the_threads() {
        for threads in [1, 2, 3, 5] {
            std::thread::spawn(move || {
                let pool = Pool::on_this_thread(threads);
                for count in [0, 1, 2, 7, 100] {
                    let units: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    let round = || {
                        pool.each(count, &|_, unit| {
                            units[unit].fetch_add(1, Ordering::Relaxed);
                        });
                    };
                    round();
                    pool.enter(|| {
                        round();
                        round();
                    });
                    assert!(units.iter().all(|u| u.load(Ordering::Relaxed) == 3));
                }
                let sum = AtomicUsize::new(0);
                pool.for_ranges(37, 5, &|range| {
                    assert!(range.start.is_multiple_of(5) && range.len() <= 5);
                    sum.fetch_add(range.sum(), Ordering::Relaxed);
                });
                assert_eq!(sum.into_inner(), 36 * 37 / 2);
            })
            .join()
            .expect("the pool's thread ends well");
        }
    }

    #[test]
    fn panic_in_a_unit_reaches_the_caller_and_the_pool_works_on() {
        std::thread::spawn(|| {
            let pool = Pool::on_this_thread(3);
            for unit in [0, 99] {
                let round = std::panic::AssertUnwindSafe(|| {
                    pool.each(100, &|_, i| assert!(i != unit, "planted"));
                });
                assert!(std::panic::catch_unwind(round).is_err());
            }
            let count = AtomicUsize::new(0);
            pool.each(10, &|_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 10);
        })
        .join()
        .expect("the pool's thread ends well");
    }
}
