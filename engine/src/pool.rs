//! The compute threads of a stage and how they share out one operation's outputs.
//!
//! Threads come from rayon. The thread that makes the pool is its first member, so a whole forward
//! runs inside the pool and nothing enters it from outside. Threads split outputs, never sums: what
//! an output is does not depend on how many there are.

#![allow(unsafe_code, reason = "threads write disjoint columns of one output")]

use crate::kernels::Level;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Threads that compute one stage.
#[derive(Debug)]
pub struct Pool {
    threads: Threads,
    level: Level,
}

#[derive(Debug)]
enum Threads {
    One,
    Many(rayon::ThreadPool),
}

impl Pool {
    /// A pool of `threads` threads of which the calling one is the first.
    ///
    /// Use it, and every [`Stage`](crate::stage::Stage) made with it, on this thread only: from
    /// another one the work would still be right, but it would have to enter the pool each time.
    ///
    /// # Panics
    ///
    /// If the calling thread belongs to another pool already, or no thread can be started.
    pub fn on_this_thread(threads: usize) -> Arc<Self> {
        Self::with_level(threads, Level::best())
    }

    /// As [`on_this_thread`](Self::on_this_thread), with the instruction set given.
    ///
    /// # Panics
    ///
    /// As [`on_this_thread`](Self::on_this_thread).
    pub fn with_level(threads: usize, level: Level) -> Arc<Self> {
        let threads = if threads <= 1 {
            Threads::One
        } else {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .use_current_thread()
                .thread_name(|i| format!("compute-{i}"))
                .build();
            let pool = pool.expect("a thread belongs to one pool and threads can be started");
            pool.install(wait_for_another_thread);
            Threads::Many(pool)
        };
        Arc::new(Self { threads, level })
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        match &self.threads {
            Threads::One => 1,
            Threads::Many(pool) => pool.current_num_threads(),
        }
    }

    /// The instruction set that the kernels use.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Runs `work` inside the pool: once for a forward's layers, and once for each tile of logits.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.threads {
            Threads::One => work(),
            Threads::Many(pool) => pool.install(work),
        }
    }

    /// Calls `work` for ranges that together are `0..len`, each of at most `grain` items and
    /// starting at a multiple of it, on all threads.
    pub fn for_ranges(&self, len: usize, grain: usize, work: &(impl Fn(Range<usize>) + Sync)) {
        let grain = grain.max(1);
        match &self.threads {
            Threads::One => {
                for start in (0..len).step_by(grain) {
                    work(start..len.min(start + grain));
                }
            }
            Threads::Many(_) => halves(0..len.div_ceil(grain), &|i| {
                work(i * grain..len.min((i + 1) * grain));
            }),
        }
    }

    /// Fills `out`, `[rows, columns]`: `work` gets a panel for each range of columns of at most
    /// `grain` and writes all rows of them.
    pub fn fill_columns<T: Copy + Send>(
        &self,
        out: &mut [T],
        columns: usize,
        grain: usize,
        work: &(impl Fn(Panel<'_, T>) + Sync),
    ) {
        assert!(columns > 0 && out.len().is_multiple_of(columns), "whole rows of {columns}");
        let rows = out.len() / columns;
        let shared = Shared(out.as_mut_ptr());
        self.for_ranges(columns, grain, &|range| {
            let shared = &shared;
            work(Panel { out: shared.0, rows, columns, range, life: PhantomData });
        });
    }

    /// Calls `work` with each piece of `out` of `len` items and its index, on all threads.
    pub fn fill_pieces<T: Send>(
        &self,
        out: &mut [T],
        len: usize,
        work: &(impl Fn(usize, &mut [T]) + Sync),
    ) {
        match &self.threads {
            Threads::One => out.chunks_mut(len).enumerate().for_each(|(i, piece)| work(i, piece)),
            Threads::Many(_) => pieces(out, len, 0, work),
        }
    }
}

/// Makes the calling member wait for work that another one took, once.
///
/// Rayon allocates a thread's place in its bookkeeping when the thread first looks for work; this has
/// it happen now and not in the middle of a decode step.
fn wait_for_another_thread() {
    let (taken, left) = (AtomicBool::new(false), AtomicBool::new(false));
    rayon::join(
        || {
            while !taken.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            left.store(true, Ordering::Release);
        },
        || {
            taken.store(true, Ordering::Release);
            while !left.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            // The other member now waits for this one and looks for work meanwhile.
            std::thread::sleep(std::time::Duration::from_millis(1));
        },
    );
}

fn halves(range: Range<usize>, work: &(impl Fn(usize) + Sync)) {
    match range.len() {
        0 => {}
        1 => work(range.start),
        len => {
            let middle = range.start + len / 2;
            rayon::join(|| halves(range.start..middle, work), || halves(middle..range.end, work));
        }
    }
}

fn pieces<T: Send>(
    out: &mut [T],
    len: usize,
    first: usize,
    work: &(impl Fn(usize, &mut [T]) + Sync),
) {
    let count = out.len().div_ceil(len);
    if count <= 1 {
        if count == 1 {
            work(first, out);
        }
        return;
    }
    let (left, right) = out.split_at_mut(count / 2 * len);
    rayon::join(|| pieces(left, len, first, work), || pieces(right, len, first + count / 2, work));
}

struct Shared<T>(*mut T);

// SAFETY: the pointer is only turned into `Panel`s, whose ranges of columns do not overlap.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Some columns of an output that one thread fills.
pub struct Panel<'a, T> {
    out: *mut T,
    rows: usize,
    columns: usize,
    range: Range<usize>,
    life: PhantomData<&'a mut [T]>,
}

impl<T: Copy> Panel<'_, T> {
    /// The columns that this panel may write.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Rows of the output.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes one output.
    ///
    /// # Panics
    ///
    /// If the place is outside this panel.
    #[inline(always)]
    pub fn set(&mut self, row: usize, column: usize, value: T) {
        assert!(row < self.rows && self.range.contains(&column), "inside the panel");
        // SAFETY: the place is inside `out`, which lives as long as the panel, and no other panel
        // has this column.
        unsafe { *self.out.add(row * self.columns + column) = value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_output_is_written_once_whatever_the_threads_and_the_grain() {
        for threads in [1, 2, 3] {
            std::thread::spawn(move || {
                let pool = Pool::on_this_thread(threads);
                for grain in [1, 3, 16, 1000] {
                    let mut out = vec![0u32; 5 * 37];
                    pool.fill_columns(&mut out, 37, grain, &|mut panel| {
                        for row in 0..panel.rows() {
                            for column in panel.range() {
                                panel.set(row, column, (row * 37 + column) as u32);
                            }
                        }
                    });
                    assert!(out.iter().enumerate().all(|(i, v)| *v == i as u32));
                    let mut out = vec![0usize; 41];
                    pool.fill_pieces(&mut out, grain, &|index, piece| piece.fill(index + 1));
                    assert!(out.iter().enumerate().all(|(i, v)| *v == i / grain + 1));
                }
            })
            .join()
            .expect("the pool's thread ends well");
        }
    }
}
