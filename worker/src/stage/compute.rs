//! The compute thread: owns the threads' pool and the stages, takes forwards of all plans in the order in
//! which they come.
//!
//! ```text
//! tokio                        compute thread (first of the pool)
//!   plans ─┬─── forwards ────► execute::compute            (bounded: the sum of in_flight_max)
//!          └─── commands ────► keep · take over · end       (bounded: those of SEATS_MAX plans)
//!   plan  ◄──── results ────── hidden states or Sampled     (bounded: in_flight_max)
//! ```
//!
//! Reading, checking, encoding and writing are the links' part: while one forward is computed, the
//! next is received and the last is sent. Between two forwards this thread takes one from its queue and
//! puts one into another, and nothing else. If none is there it looks again for `SPIN` and then
//! sleeps. Stages are loaded elsewhere and brought here whole: a plan that loads delays no other.
//!
//! No plan owns the thread. A plan has a [`Seat`]: when it drops that, the thread finishes the layer stack
//! that it is in, passes over what is left of that plan in the queue, and keeps the stage for the next.

use super::execute;
use crate::blocking::blocking;
use crate::convert::{Finished, Work};
use crate::counters::Counters;
use crate::machine::simd::Simd;
use crate::machine::system;
use crate::stage::load::{LoadedStage, Loader, Measured, StageFacts};
use crate::stage::stages::{Kept, Stages, Wish};
use crate::stage::timings::Times;
use crate::weights::pages::Pages;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use woolly_protocol::control::StageSpec;
use woolly_protocol::failpoint;
use woolly_protocol::ids::PlanEpoch;
use woolly_protocol::limits::{IN_FLIGHT_MAX, LIVE_PLANS_MAX};

/// Plans that have a seat: those that are live, and as many that have ended before the thread got to
/// know of it.
const SEATS_MAX: usize = 2 * LIVE_PLANS_MAX;
/// What waits for the thread at most: of each plan its forwards in flight, and one of each command.
const QUEUED_MAX: usize = SEATS_MAX * (IN_FLIGHT_MAX + 4);
/// How long the thread looks for the next forward before it sleeps: when the stages take about as
/// long as each other it comes within this time, and so does a single stream's next token, which takes half a
/// millisecond by way of the gateway. Other threads are let run all the while; on a machine with one core they
/// are the ones that bring it.
const SPIN: Duration = Duration::from_micros(700);
/// How long a stage is kept that no plan is served with: a coordinator that starts again has its
/// workers back before. Longer would keep the memory of its cache from other workers of the machine.
const KEEP_TIME: Duration = Duration::from_secs(120);

/// The compute thread, seen from outside. It ends when this is dropped.
#[derive(Clone, Debug)]
pub struct Compute {
    queue: mpsc::Sender<Command>,
    seats: Arc<Semaphore>,
    /// One question at a time.
    asking: Arc<Mutex<()>>,
}

/// What waits for the compute thread.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are forwards: a box would be one for each"
)]
pub enum Command {
    /// Compute this.
    Forward(Work),
    /// Measure the machine.
    Measure(oneshot::Sender<Measured>),
    /// Keep a stage that was loaded.
    Keep(StageSpec, Box<LoadedStage>),
    /// Serve a plan with a stage that is kept; what it is is the answer, `None` if there is none such.
    TakeOver(Box<Wish>, oneshot::Sender<Option<StageFacts>>),
    /// A plan is over.
    End(PlanEpoch, Option<OwnedSemaphorePermit>),
    /// Give away kept stages until they are so many bytes in all.
    GiveAway(u64, oneshot::Sender<Vec<Kept>>),
    /// Give away the stages that were kept for too long.
    GiveAwayOld(oneshot::Sender<Vec<Kept>>),
}

/// The place of one plan on the compute thread. The plan ends there when it is dropped.
#[derive(Debug)]
pub struct Seat {
    epoch: PlanEpoch,
    is_live: Arc<AtomicBool>,
    queue: mpsc::Sender<Command>,
    /// Room in the queue for its end, which so finds room at any time; `None` if the thread has ended.
    end: Option<mpsc::OwnedPermit<Command>>,
    place: Option<OwnedSemaphorePermit>,
}

/// Takes the forwards of one plan to the compute thread, so many at a time.
#[derive(Debug)]
pub struct ForwardQueue {
    queue: mpsc::Sender<Command>,
    places: Arc<Semaphore>,
}

/// There are as many forwards in flight as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Compute {
    /// Starts the thread with a pool of `threads` that uses the instruction set `simd`; what loads stages
    /// for it comes beside it.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(
        threads: u32,
        simd: Simd,
        pages: Pages,
        counters: Arc<Counters>,
    ) -> std::io::Result<(Compute, Loader)> {
        let (queue, commands) = mpsc::channel(QUEUED_MAX);
        let (made, pool) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name("compute-0".to_owned()).spawn(move || {
            let loader = Loader::on_this_thread(threads, simd, pages, Arc::clone(&counters));
            if made.send(loader.clone()).is_ok() {
                run(&loader, commands, &counters);
            }
        })?;
        let loader = pool.recv().map_err(std::io::Error::other)?;
        let seats = Arc::new(Semaphore::new(SEATS_MAX));
        Ok((Compute { queue, seats, asking: Arc::default() }, loader))
    }

    /// Measures this machine. `None` if the thread has ended.
    pub async fn measure(&self) -> Option<Measured> {
        self.ask(Command::Measure).await
    }

    /// A place for a plan; waits while too many that are over have theirs.
    pub async fn seat(&self, epoch: PlanEpoch) -> Seat {
        // They are never closed.
        let place = Arc::clone(&self.seats).acquire_owned().await.ok();
        let (queue, is_live) = (self.queue.clone(), Arc::new(AtomicBool::new(true)));
        let end = queue.clone().reserve_owned().await.ok();
        Seat { epoch, is_live, queue, end, place }
    }

    /// Keeps a stage for the plan that wants it. Waits for room: not for an async thread.
    pub fn keep(&self, spec: StageSpec, stage: LoadedStage) {
        // If the thread has ended, the process is about to.
        let _ = self.queue.blocking_send(Command::Keep(spec, Box::new(stage)));
    }

    /// Kept stages that are `bytes` in all, the longest unused first; fewer if there are no more. Who
    /// drops them frees their memory.
    pub async fn give_away(&self, bytes: u64) -> Vec<Kept> {
        self.ask(|reply| Command::GiveAway(bytes, reply)).await.unwrap_or_default()
    }

    /// Waits until stages that are put back about now have been kept for long; then they are given away.
    async fn outlived(&self) -> Vec<Kept> {
        // The thread may get to them a little later.
        tokio::time::sleep(KEEP_TIME + KEEP_TIME / 8).await;
        self.ask(Command::GiveAwayOld).await.unwrap_or_default()
    }

    /// A stage is kept from now on, or soon: it goes when it was kept for too long. Needs a runtime.
    pub fn forget_later(&self) {
        let compute = self.clone();
        tokio::spawn(async move {
            let old = compute.outlived().await;
            blocking(move || drop(old)).await;
        });
    }

    /// Waits until the thread has ended, which it does before its handle is dropped only if it
    /// failed.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let _asking = self.asking.lock().await;
        let (reply, answer) = oneshot::channel();
        self.queue.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

impl Seat {
    /// Serves the plan with a stage that is kept, or that of the plan which it `replaces`. `None` if there is
    /// none such.
    pub async fn take_over(
        &self,
        spec: &StageSpec,
        replaces: Option<PlanEpoch>,
        results: mpsc::Sender<Finished>,
    ) -> Option<StageFacts> {
        let (epoch, spec, is_live) = (self.epoch, spec.clone(), Arc::clone(&self.is_live));
        let wish = Box::new(Wish { epoch, spec, replaces, results, is_live });
        let (reply, answer) = oneshot::channel();
        self.queue.send(Command::TakeOver(wish, reply)).await.ok()?;
        answer.await.ok()?
    }

    /// Where its forwards go, `in_flight_max` at a time.
    pub fn forwards(&self, in_flight_max: u32) -> ForwardQueue {
        ForwardQueue::new(self.queue.clone(), in_flight_max)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Nothing more is computed for it, whatever is still queued.
        self.is_live.store(false, SeqCst);
        if let Some(end) = self.end.take() {
            end.send(Command::End(self.epoch, self.place.take()));
        }
    }
}

impl ForwardQueue {
    /// Puts forwards into `queue` while fewer than `in_flight_max` of them are in flight.
    pub fn new(queue: mpsc::Sender<Command>, in_flight_max: u32) -> ForwardQueue {
        let places = usize::try_from(in_flight_max).unwrap_or(Semaphore::MAX_PERMITS);
        ForwardQueue { queue, places: Arc::new(Semaphore::new(places)) }
    }

    /// The places of forwards in flight.
    pub fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.places)
    }

    /// Queues the forward that is made for its place.
    ///
    /// # Errors
    ///
    /// If no place is free: the sender sent more than may be in flight.
    pub fn push(&self, make: impl FnOnce(OwnedSemaphorePermit) -> Work) -> Result<(), Full> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Full)?;
        // There is room for all that have a place; if the thread has ended, the process is about to.
        let _ = self.queue.try_send(Command::Forward(make(place)));
        Ok(())
    }
}

fn run(loader: &Loader, mut queue: mpsc::Receiver<Command>, counters: &Counters) {
    let mut stages = Stages::default();
    let mut idle_since = Instant::now();
    // Who asked may have gone; then nobody wants the answer, and stages that are given away are dropped.
    while let Some(command) = next(&mut queue) {
        match command {
            Command::Forward(work) => {
                let ended = compute(&mut stages, work, idle_since, counters);
                idle_since = ended.unwrap_or(idle_since);
            }
            Command::Measure(reply) => drop(reply.send(loader.measure())),
            Command::Keep(spec, stage) => stages.keep(spec, stage),
            Command::TakeOver(wish, reply) => {
                let _ = reply.send(stages.take_over(*wish));
                idle_since = Instant::now();
            }
            Command::End(epoch, _place) => stages.end(epoch),
            Command::GiveAway(bytes, reply) => drop(reply.send(stages.give_away(bytes))),
            Command::GiveAwayOld(reply) => drop(reply.send(stages.give_away_older(KEEP_TIME))),
        }
    }
}

/// Computes a forward and hands on what came of it; returns when it was done. `None` if its plan is over:
/// then it is passed over.
fn compute(
    stages: &mut Stages,
    work: Work,
    idle_since: Instant,
    counters: &Counters,
) -> Option<Instant> {
    let live = stages.of(work.epoch())?;
    counters.microbatch.store(work.microbatch().0, Relaxed);
    let (started, cpu_before) = (Instant::now(), system::thread_cpu_time());
    failpoint::hit("worker.forward");
    let computed = execute::compute(live.stage.stage(), &work, &counters.progress);
    let times = Times {
        cpu: system::thread_cpu_time().saturating_sub(cpu_before),
        compute: started.elapsed(),
        wait: started - idle_since,
        queue: started.saturating_duration_since(work.came()),
    };
    counters.computed(work.rows(), &times);
    counters.microbatch.store(0, Relaxed);
    let at = Instant::now();
    // There is room for all that have a place; nobody waits for it if its plan has ended meanwhile.
    let _ = live.results.try_send(Finished { work, computed, times, at });
    // With one core the network's thread would else wait for the end of this one's time slice, some
    // milliseconds into the next forward, and the next stage with it. With more it costs nothing.
    std::thread::yield_now();
    Some(at)
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
