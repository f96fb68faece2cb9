//! The compute thread: owns the thread pool and the stage, takes forwards in order.
//!
//! ```text
//! tokio                        compute thread (first of the pool)
//!   load  ───── commands ────► populate · Stage::load · lock
//!   link  ───── work ────────► convert::compute          (bounded: in_flight_max)
//!   link  ◄──── results ────── hidden states or Sampled  (bounded: in_flight_max)
//! ```
//!
//! Reading, checking, encoding and writing are the links' part: while one forward is computed, the
//! next is received and the last is sent. Between two forwards this thread takes one from a queue and
//! puts one into another, and nothing else. If none is there it looks again for `SPIN` and then
//! sleeps.
//!
//! A plan ends when its task drops [`Load::live`]'s guard and its channels: the thread finishes the
//! layer stack that it is in, finds its channels closed or the guard gone, and drops the stage.

use crate::convert::{self, Finished, Work};
use crate::counters::Counters;
use crate::pages::Pages;
use crate::simd::Simd;
use crate::source::Model;
use crate::system;
use crate::timings::Times;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use woolly_engine::pool::Pool;
use woolly_engine::probe;
use woolly_engine::stage::{Stage, StageConfig};

/// Commands that wait for the compute thread: the load in work, and those of plans that ended before
/// it got to them.
const COMMANDS_QUEUED_MAX: usize = 4;
/// How long the thread looks for the next forward before it sleeps: when the stages take about as
/// long as each other it comes within this time, and to be woken takes as long. Other threads are let
/// run all the while; on a machine with one core they are the ones that bring it.
const SPIN: Duration = Duration::from_micros(200);

/// The compute thread, seen from outside. It ends when this is dropped.
#[derive(Clone, Debug)]
pub struct Compute {
    commands: mpsc::Sender<Command>,
}

/// What a machine can do, measured once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes per second read from memory by all threads.
    pub read_bytes_per_s: u64,
    /// Multiply-adds per second of all threads.
    pub macs_per_s: u64,
}

/// A stage to load and then to serve until its channels close.
#[derive(Debug)]
pub struct Load {
    /// Header and mapped weights.
    pub model: Model,
    /// What the stage must hold.
    pub config: StageConfig,
    /// In which pages.
    pub pages: Pages,
    /// Forwards to compute.
    pub work: mpsc::Receiver<Work>,
    /// What came of them, in the same order.
    pub results: mpsc::Sender<Finished>,
    /// Told once, when the stage is ready or cannot be.
    pub loaded: oneshot::Sender<Result<Loaded, String>>,
    /// False once the plan has ended: nothing more is computed for it.
    pub live: Arc<AtomicBool>,
}

/// What a loaded stage is and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Whether it takes token ids.
    pub is_first: bool,
    /// Whether it samples.
    pub is_last: bool,
    /// Width of the hidden states in values.
    pub hidden: usize,
    /// Bytes of the model that are mapped.
    pub mapped_bytes: u64,
    /// How many of them are in huge pages; `None` if the system does not say.
    pub huge_bytes: Option<u64>,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Bytes of all other buffers.
    pub scratch_bytes: u64,
}

#[derive(Debug)]
enum Command {
    Measure(oneshot::Sender<Measured>),
    Load(Box<Load>),
}

impl Compute {
    /// Starts the thread with a pool of `threads` that uses the instruction set `simd`.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(threads: u32, simd: Simd, counters: Arc<Counters>) -> std::io::Result<Compute> {
        let (commands, queue) = mpsc::channel(COMMANDS_QUEUED_MAX);
        let threads = usize::try_from(threads).unwrap_or(usize::MAX);
        std::thread::Builder::new()
            .name("compute-0".to_owned())
            .spawn(move || run(&Pool::with_level(threads, simd.level()), queue, &counters))?;
        Ok(Compute { commands })
    }

    /// Measures this machine. `None` if the thread has ended.
    pub async fn measure(&self) -> Option<Measured> {
        let (reply, measured) = oneshot::channel();
        self.commands.send(Command::Measure(reply)).await.ok()?;
        measured.await.ok()
    }

    /// Hands over a stage to load; waits while others are queued. The answer comes by
    /// [`Load::loaded`], which is dropped if the thread has ended.
    pub async fn load(&self, load: Load) {
        // If the thread has ended, `loaded` is dropped with the command, which its receiver sees.
        let _ = self.commands.send(Command::Load(Box::new(load))).await;
    }

    /// Waits until the thread has ended, which it does before its handle is dropped only if it
    /// failed.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }
}

fn run(pool: &Arc<Pool>, mut commands: mpsc::Receiver<Command>, counters: &Counters) {
    while let Some(command) = commands.blocking_recv() {
        match command {
            Command::Measure(reply) => {
                let measured = Measured {
                    read_bytes_per_s: probe::read_bytes_per_s(pool).max(1),
                    macs_per_s: probe::macs_per_s(pool).max(1),
                };
                // Whoever asked may have gone; the next one asks again.
                let _ = reply.send(measured);
            }
            Command::Load(load) => serve(*load, pool, counters),
        }
    }
}

fn serve(load: Load, pool: &Arc<Pool>, counters: &Counters) {
    let Load { model, config, pages, mut work, results, loaded, live } = load;
    if !live.load(SeqCst) {
        return;
    }
    let Model { gguf, weights, fetched_bytes, in_use } = model;
    pages.prepare(&weights, fetched_bytes > 0);
    // First, and not while the stage is made, which would read a little here and there.
    weights.populate(&counters.loaded);
    let stage = Stage::load(&gguf, weights, &config, Arc::clone(pool));
    let mut stage = match stage.map_err(|error| error.to_string()).and_then(|s| locked(s, pages)) {
        Ok(stage) => stage,
        Err(text) => {
            let _ = loaded.send(Err(text));
            return;
        }
    };
    drop(gguf);
    let facts = Loaded {
        is_first: stage.is_first(),
        is_last: stage.is_last(),
        hidden: stage.hidden_len(),
        mapped_bytes: stage.mapped_bytes(),
        huge_bytes: stage.weights().huge_bytes(),
        kv_bytes: stage.kv_bytes(),
        scratch_bytes: stage.scratch_bytes(),
    };
    if loaded.send(Ok(facts)).is_err() {
        return;
    }
    compute_all(&mut stage, &mut work, &results, &live, counters);
    drop(stage);
    // The slices' files may go once nothing maps them.
    drop(in_use);
}

/// Computes what comes until the plan ends.
fn compute_all(
    stage: &mut Stage,
    work: &mut mpsc::Receiver<Work>,
    results: &mpsc::Sender<Finished>,
    live: &AtomicBool,
    counters: &Counters,
) {
    let mut idle_since = Instant::now();
    while let Some(work) = next(work).filter(|_| live.load(SeqCst)) {
        counters.microbatch.store(work.microbatch().0, Relaxed);
        let (started, cpu_before) = (Instant::now(), system::thread_cpu_time());
        let computed = convert::compute(stage, &work, &counters.progress);
        let times = Times {
            cpu: system::thread_cpu_time().saturating_sub(cpu_before),
            compute: started.elapsed(),
            wait: started - idle_since,
        };
        counters.forwards.fetch_add(1, Relaxed);
        counters.microbatch.store(0, Relaxed);
        idle_since = Instant::now();
        let finished = Finished { work, computed, times, at: idle_since };
        if results.blocking_send(finished).is_err() {
            break;
        }
        // With one core the network's thread would else wait for the end of this one's time slice, some
        // milliseconds into the next forward, and the next stage with it. With more it costs nothing.
        std::thread::yield_now();
    }
}

/// The next of a queue: looked for during `SPIN`, then waited for in sleep. `None` if there will be
/// none.
pub fn next<T>(queue: &mut mpsc::Receiver<T>) -> Option<T> {
    let until = Instant::now() + SPIN;
    loop {
        match queue.try_recv() {
            Ok(next) => return Some(next),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) if Instant::now() < until => std::thread::yield_now(),
            Err(TryRecvError::Empty) => return queue.blocking_recv(),
        }
    }
}

/// The stage, kept in memory if the flags say so.
///
/// # Errors
///
/// The sentence to print: the limit of locked memory.
pub fn locked(stage: Stage, pages: Pages) -> Result<Stage, String> {
    if pages.mlock {
        stage.lock().map_err(|error| format!("--mlock: {error}"))?;
    }
    Ok(stage)
}
