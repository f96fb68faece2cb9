//! What a machine can do at most, measured: briefly for the planner, thoroughly for a benchmark.

#[allow(
    unsafe_code,
    reason = "widest instructions after detection, and calls of the system about CPUs"
)]
mod loops;

use crate::kernels::activations::{Activations, Forms};
use crate::kernels::matmul::{Product, matmul};
use crate::kernels::matrix::Matrix;
use crate::memory::{Buffer, HUGE_PAGE};
use crate::pool::Pool;
use crate::quant::TensorType;
use loops::{Int8Loop, allowed_cpus, pin, sum_words};
use std::hint::black_box;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

/// Bytes read per round for the planner: more than the caches of an ordinary server.
const READ_BYTES: usize = 128 << 20;
/// A measurement for the planner ends after the first round that passes it.
const ENOUGH: Duration = Duration::from_millis(60);
/// What the memory holds that is read.
const PATTERN: u8 = 0x5a;
/// Rounds of a thorough measurement, of which the best counts.
const ROUNDS: usize = 3;
/// How long a thread multiplies in each round.
const MULTIPLY_TIME: Duration = Duration::from_millis(20);
/// Rounds of the multiplying loop between two looks at the clock.
const MULTIPLY_ROUNDS: u32 = 1 << 12;

/// The limits of a machine with some number of threads, measured as often as asked.
///
/// Its threads are its own, each bound to one of the CPUs that were the calling thread's when it was
/// made, and live as long as a measurement.
#[derive(Debug)]
pub struct Probe {
    cpus: Vec<usize>,
    parts: Vec<Range<usize>>,
    memory: Buffer<u8>,
}

/// What one measurement found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes per second that all threads read from memory together.
    pub read_bytes_per_s: f64,
    /// Multiply-adds of bytes per second of all threads together, in registers.
    pub macs_per_s: f64,
}

impl Limits {
    /// The better of both, figure by figure: what disturbs a probe only slows it down.
    pub fn best(self, other: Self) -> Self {
        Self {
            read_bytes_per_s: self.read_bytes_per_s.max(other.read_bytes_per_s),
            macs_per_s: self.macs_per_s.max(other.macs_per_s),
        }
    }
}

impl Probe {
    /// Takes `bytes` of memory, in huge pages if there are any, a part of which for each of `threads`
    /// threads that touches it first. It should be far more than the caches hold.
    ///
    /// # Errors
    ///
    /// If that is less than a huge page per thread.
    ///
    /// # Panics
    ///
    /// If the system does not give the memory.
    pub fn new(threads: usize, bytes: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let part = bytes / threads / HUGE_PAGE * HUGE_PAGE;
        if part == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut memory = Buffer::new(threads * part);
        let cpus = allowed_cpus();
        std::thread::scope(|scope| {
            for (thread, part) in memory.chunks_exact_mut(part).enumerate() {
                let cpus = &cpus;
                scope.spawn(move || {
                    bind(cpus, thread);
                    part.fill(PATTERN);
                });
            }
        });
        let parts = (0..threads).map(|i| i * part..(i + 1) * part).collect();
        Ok(Self { cpus, parts, memory })
    }

    /// Bytes that all threads read in a round.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Range::len).sum()
    }

    /// The instruction that multiplies.
    pub fn instruction(&self) -> &'static str {
        Int8Loop::widest().name
    }

    /// Measures both limits, the best of three rounds each.
    pub fn measure(&self) -> Limits {
        Limits { read_bytes_per_s: self.read(), macs_per_s: self.multiply() }
    }

    /// Every thread reads its own part from its first byte to its last.
    fn read(&self) -> f64 {
        let rounds = self.rounds(&|thread| {
            black_box(sum_words(&self.memory[self.parts[thread].clone()]));
            self.parts[thread].len() as f64
        });
        let rate = |round: &Vec<Work>| {
            let begin = round.iter().map(|work| work.begin).min().expect("a thread");
            let end = round.iter().map(|work| work.end).max().expect("a thread");
            round.iter().map(|work| work.amount).sum::<f64>() / (end - begin).as_secs_f64()
        };
        rounds.iter().map(rate).fold(0.0, f64::max)
    }

    /// Every thread multiplies for the same time.
    fn multiply(&self) -> f64 {
        let int8 = Int8Loop::widest();
        let rounds = self.rounds(&|_| {
            let (begin, mut rounds) = (Instant::now(), 0);
            while begin.elapsed() < MULTIPLY_TIME {
                black_box(int8.run(MULTIPLY_ROUNDS));
                rounds += u64::from(MULTIPLY_ROUNDS);
            }
            (rounds * int8.macs) as f64
        });
        let rate = |work: &Work| work.amount / (work.end - work.begin).as_secs_f64();
        rounds.iter().map(|round| round.iter().map(rate).sum()).fold(0.0, f64::max)
    }

    /// [`ROUNDS`] rounds of `work`, each begun by all threads together; it returns its amount.
    fn rounds(&self, work: &(impl Fn(usize) -> f64 + Sync)) -> Vec<Vec<Work>> {
        let together = Barrier::new(self.parts.len());
        let done: Vec<[OnceLock<Work>; ROUNDS]> =
            self.parts.iter().map(|_| Default::default()).collect();
        std::thread::scope(|scope| {
            for (thread, done) in done.iter().enumerate() {
                let together = &together;
                scope.spawn(move || {
                    bind(&self.cpus, thread);
                    for done in done {
                        together.wait();
                        let begin = Instant::now();
                        let amount = work(thread);
                        let work = Work { begin, end: Instant::now(), amount };
                        done.set(work).expect("each round is done once");
                    }
                });
            }
        });
        let round = |i: usize| done.iter().filter_map(|thread| thread[i].get().copied()).collect();
        (0..ROUNDS).map(round).collect()
    }
}

/// What one thread did in one round.
#[derive(Clone, Copy, Debug)]
struct Work {
    begin: Instant,
    end: Instant,
    amount: f64,
}

/// Binds the calling thread to its CPU; one that cannot be bound measures all the same.
fn bind(cpus: &[usize], thread: usize) {
    if !cpus.is_empty() {
        pin(cpus[thread % cpus.len()]);
    }
}

/// Bytes per second that all threads read from memory together.
pub fn read_bytes_per_s(pool: &Pool) -> u64 {
    let mut memory = Buffer::new(READ_BYTES);
    // Written once, so that the pages are there.
    memory.fill(PATTERN);
    let piece = memory.len() / pool.threads();
    best_per_s(READ_BYTES as u64, || {
        let total = AtomicU64::new(0);
        pool.enter(|| {
            pool.for_ranges(memory.len(), piece, &|range| {
                total.fetch_add(sum_words(&memory[range]), Ordering::Relaxed);
            });
        });
        black_box(total.into_inner());
    })
}

/// Multiply-adds per second of the matrix product with many tokens.
pub fn macs_per_s(pool: &Pool) -> u64 {
    let (rows, cols, tokens) = (256, 2048, 64);
    let ty = TensorType::Q4_K;
    let bytes = vec![0x11u8; rows * ty.row_bytes(cols)];
    let forms = Forms::of(ty);
    let mut activations = Activations::new(tokens, cols, forms);
    activations.fill(pool, (tokens, cols), forms, &|_, _, out| out.fill(0.5));
    let mut out = vec![0.0; tokens * rows];
    best_per_s((rows * cols * tokens) as u64, || {
        let matrix = Matrix { ty, rows, cols, bytes: &bytes };
        pool.enter(|| matmul(pool, &activations, [Product::new(matrix, &mut out)]));
        black_box(&out);
    })
}

/// The best rate of rounds of `amount`, over [`ENOUGH`] time.
fn best_per_s(amount: u64, mut round: impl FnMut()) -> u64 {
    let start = Instant::now();
    let mut best = 0.0f64;
    while start.elapsed() < ENOUGH {
        let begin = Instant::now();
        round();
        best = best.max(amount as f64 / begin.elapsed().as_secs_f64());
    }
    best as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_its_own_part_in_whole_huge_pages() {
        let probe = Probe::new(3, 10 * HUGE_PAGE).expect("memory for a test");
        assert_eq!(probe.bytes(), 9 * HUGE_PAGE);
        for (i, part) in probe.parts.iter().enumerate() {
            assert_eq!(part.len(), 3 * HUGE_PAGE);
            assert_eq!(probe.memory[part.start..].as_ptr().align_offset(HUGE_PAGE), 0);
            assert!(probe.memory[part.clone()].iter().all(|byte| *byte == PATTERN));
            assert!(i == 0 || probe.parts[i - 1].end == part.start);
        }
        assert!(Probe::new(3, 3 * HUGE_PAGE - 1).is_err());
    }

    #[test]
    fn its_threads_have_the_cpus_that_were_there_before_a_pool_took_one() {
        let run = std::thread::spawn(|| {
            let cpus = allowed_cpus();
            let probe = Probe::new(cpus.len(), cpus.len() * HUGE_PAGE).expect("memory for a test");
            // With as many threads as CPUs, the pool keeps the calling thread on the first.
            let pool = Pool::on_this_thread(cpus.len());
            assert_eq!(allowed_cpus(), cpus[..1]);
            for round in probe.rounds(&|_| allowed_cpus().iter().sum::<usize>() as f64) {
                let found: Vec<usize> = round.iter().map(|work| work.amount as usize).collect();
                assert_eq!(found, cpus);
            }
            drop(pool);
            assert_eq!(allowed_cpus(), cpus);
        });
        run.join().expect("all CPUs are used");
    }

    #[test]
    fn a_measurement_finds_both_limits_and_the_better_ones_are_kept() {
        let limits = Probe::new(2, 2 * HUGE_PAGE).expect("memory for a test").measure();
        assert!(limits.read_bytes_per_s > 0.0 && limits.macs_per_s > 0.0);
        let (a, b) = (
            Limits { read_bytes_per_s: 1.0, macs_per_s: 4.0 },
            Limits { read_bytes_per_s: 2.0, macs_per_s: 3.0 },
        );
        assert_eq!(a.best(b), Limits { read_bytes_per_s: 2.0, macs_per_s: 4.0 });
    }
}
