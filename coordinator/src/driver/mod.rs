//! The one place where the scheduler and the cluster meet clock, channels and links.
//!
//! One task takes what happens (commands of the gateway, news of links, time), tells the state
//! machines, and does what they ask for until they ask for nothing more. It never waits for a
//! client or a worker: every queue it sends to holds all that can be under way, and one that is
//! full is broken.

mod generations;
mod members;
mod pipeline;
#[cfg(test)]
mod tests;

use crate::announce::Announcer;
use crate::cluster::{Action, ClusterConfig, StageInfo};
use crate::exit::Fatal;
use crate::generation::{Command, Failure, GenerationEvent, GenerationRequest, Refusal};
use crate::last_plan::{LastPlan, Seats};
use crate::links::{CurrentEpoch, LinkEvent};
use crate::metrics::Metrics;
use crate::model_watch::ModelNews;
use crate::scheduler::{Scheduler, SchedulerConfig, StageTiming, Step};
use crate::shutdown::Shutdown;
use crate::status::Status;
use generations::{Generations, Told};
use members::{Members, Report};
use pipeline::{Broken, Pipeline};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::sleep_until;
use woolly_protocol::certificate::ClusterId;
use woolly_protocol::control::ForwardTiming;
use woolly_protocol::ids::{PlanEpoch, SequenceId, WorkerId};
use woolly_protocol::sampling::Sampled;

/// Commands and news that are taken in before anything is sent: what arrives together is scheduled
/// together.
const TURN_MAX: usize = 256;

/// Where things happen.
#[derive(Debug)]
pub struct Inputs {
    /// Of the gateway.
    pub commands: mpsc::Receiver<Command>,
    /// Of the links.
    pub links: mpsc::Receiver<LinkEvent>,
    /// The model's fingerprint, which may take a while: workers are welcome before, and get their
    /// stages after.
    pub fingerprint: oneshot::Receiver<Result<[u8; 32], Fatal>>,
    /// Of those who look after the model's files.
    pub model: mpsc::Receiver<ModelNews>,
    /// No new generations from now on.
    pub asked: Shutdown,
    /// Those that still run end now.
    pub expired: Shutdown,
    /// The end.
    pub stopped: Shutdown,
}

/// Where the driver says what happens.
#[derive(Debug)]
pub struct Outputs {
    /// To the gateway.
    pub status: watch::Sender<Status>,
    /// To `/metrics`.
    pub metrics: Arc<Metrics>,
    /// To the heartbeats of all links.
    pub epoch: CurrentEpoch,
    /// To people.
    pub announcer: Announcer,
    /// What people are told when the pipeline is ready.
    pub ready_text: String,
    /// To the next start.
    pub last_plan: LastPlan,
    /// To those who look after the model's files: a look is needed.
    pub look_at_model: Arc<Notify>,
}

/// The driver. See the [module](self).
#[derive(Debug)]
pub struct Driver {
    started: Instant,
    scheduler: Scheduler,
    members: Members,
    pipeline: Option<Pipeline>,
    generations: Generations,
    outputs: Outputs,
    phase: Phase,
    fingerprint: [u8; 32],
}

/// How far the server is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not at all.
    Serving,
    /// No new generations.
    Draining,
    /// No generations; workers come to lose their coordinator, which is no news.
    Ending,
}

/// What the driver has to react to.
enum Happened {
    Command(Command),
    Link(LinkEvent),
    Fingerprint(Result<[u8; 32], Fatal>),
    Model(ModelNews),
    Asked,
    Expired,
    Stopped,
    Time,
}

impl Driver {
    /// A driver without workers. The fingerprint in `cluster` counts from when it is known.
    pub fn new(
        cluster: ClusterConfig,
        id: ClusterId,
        scheduler: SchedulerConfig,
        outputs: Outputs,
    ) -> Driver {
        Driver {
            started: Instant::now(),
            scheduler: Scheduler::new(scheduler),
            members: Members::new(cluster, id),
            pipeline: None,
            generations: Generations::default(),
            outputs,
            phase: Phase::Serving,
            fingerprint: [0; 32],
        }
    }

    /// Drives until `stopped`.
    ///
    /// # Errors
    ///
    /// When the model cannot be read for its fingerprint, or its file holds another model.
    pub async fn run(mut self, mut inputs: Inputs) -> Result<(), Fatal> {
        let mut fingerprint_known = false;
        self.publish();
        loop {
            let timeouts = [self.members.poll_timeout(), self.scheduler.poll_timeout()];
            let deadline = timeouts.into_iter().flatten().min().map(|at| self.started + at);
            let happened = tokio::select! {
                () = inputs.stopped.asked() => Happened::Stopped,
                () = inputs.asked.asked(), if self.phase == Phase::Serving => Happened::Asked,
                () = inputs.expired.asked(), if self.phase != Phase::Ending => Happened::Expired,
                Ok(found) = &mut inputs.fingerprint, if !fingerprint_known => {
                    fingerprint_known = true;
                    Happened::Fingerprint(found)
                }
                Some(news) = inputs.model.recv() => Happened::Model(news),
                Some(event) = inputs.links.recv() => Happened::Link(event),
                Some(command) = inputs.commands.recv() => Happened::Command(command),
                () = wait_until(deadline) => Happened::Time,
            };
            match happened {
                Happened::Stopped => break,
                Happened::Fingerprint(found) => self.begin(found?),
                Happened::Model(ModelNews::Unsure) => self.members.handle_model_unsure(),
                Happened::Model(ModelNews::Verified(parts)) => {
                    self.members.handle_model_verified(self.now(), parts);
                }
                Happened::Model(ModelNews::Changed(fatal)) => return Err(fatal),
                Happened::Asked => self.phase = Phase::Draining,
                Happened::Expired => self.expire(),
                Happened::Link(event) => self.link_event(event),
                Happened::Command(command) => self.command(command),
                Happened::Time => {
                    self.members.handle_timeout(self.now());
                    self.scheduler.handle_timeout(self.now());
                }
            }
            // Before anything else comes in: an eviction must not meet the worker's next connection.
            self.settle();
            for _ in 0..TURN_MAX {
                if let Ok(event) = inputs.links.try_recv() {
                    self.link_event(event);
                } else if let Ok(command) = inputs.commands.try_recv() {
                    self.command(command);
                } else {
                    break;
                }
            }
            self.settle();
        }
        self.expire();
        Ok(())
    }

    /// The model is known: plans can be made, and the last one is kept where it can be.
    fn begin(&mut self, fingerprint: [u8; 32]) {
        self.fingerprint = fingerprint;
        // A few lines, read once.
        let seats = self.outputs.last_plan.load(&fingerprint);
        self.members.begin(self.now(), fingerprint, seats);
    }

    fn remember(&self, stages: &[StageInfo]) {
        let layers = |stage: &StageInfo| stage.layers.end - stage.layers.start;
        let seats: Seats = stages.iter().map(|stage| (stage.worker, layers(stage))).collect();
        let (last_plan, fingerprint) = (self.outputs.last_plan.clone(), self.fingerprint);
        tokio::task::spawn_blocking(move || last_plan.save(&fingerprint, &seats));
    }

    /// The generations that are left end now.
    fn expire(&mut self) {
        self.phase = Phase::Ending;
        let message = "the server is shutting down".to_owned();
        for id in self.generations.fail_all(&Failure { code: "shutting_down", message }) {
            self.scheduler.handle_cancel(self.now(), id);
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Submit { request, events, reply } => {
                let accepted = self.submit(request, events);
                if let Err(Ok(id)) = reply.send(accepted) {
                    // The client went away before it could be told.
                    self.cancel(SequenceId(id));
                }
            }
            Command::Cancel { id } => self.cancel(SequenceId(id)),
        }
    }

    fn submit(
        &mut self,
        request: GenerationRequest,
        events: mpsc::Sender<GenerationEvent>,
    ) -> Result<u64, Refusal> {
        if self.phase != Phase::Serving {
            return Err(Refusal::ShuttingDown);
        }
        match self.scheduler.handle_request(self.now(), request) {
            Ok(id) => {
                self.generations.add(id, events);
                Ok(id.0)
            }
            Err(Refusal::NotReady { .. }) => {
                Err(Refusal::NotReady { detail: self.members.status().detail })
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn cancel(&mut self, id: SequenceId) {
        if self.generations.remove(id) {
            self.scheduler.handle_cancel(self.now(), id);
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        let now = self.now();
        match self.members.handle_event(now, event) {
            None => {}
            Some(Report::Sampled(worker, sampled)) => self.sampled(now, worker, sampled),
            Some(Report::Timings { worker, epoch, timings }) => {
                self.timings(now, worker, epoch, &timings);
            }
        }
    }

    fn sampled(&mut self, now: Duration, worker: WorkerId, sampled: Sampled) {
        let of = (sampled.epoch, sampled.microbatch);
        let is_last = self.pipeline.as_ref().is_some_and(|pipeline| pipeline.is_last(worker));
        let expected = self.pipeline.as_ref().map(|pipeline| pipeline.epoch);
        if !is_last && expected == Some(sampled.epoch) {
            let text = "it answered a microbatch and does not hold the last stage";
            self.members.handle_nonsense(now, worker, of, text);
        } else if let Err(error) = self.scheduler.handle_sampled(now, sampled) {
            self.members.handle_nonsense(now, worker, of, &error.to_string());
        }
    }

    /// A stage tells how long its forwards took. What it says of an earlier plan is of no use.
    fn timings(
        &mut self,
        now: Duration,
        worker: WorkerId,
        epoch: PlanEpoch,
        timings: &[ForwardTiming],
    ) {
        let Some(pipeline) = self.pipeline.as_ref().filter(|pipeline| pipeline.epoch == epoch)
        else {
            return;
        };
        let Some(stage) = pipeline.stage_of(worker) else { return };
        for timing in timings {
            self.outputs.metrics.forward(stage, timing);
            let time = |us: u32| Duration::from_micros(us.into());
            let timing = StageTiming {
                microbatch: timing.microbatch,
                compute: time(timing.compute_us),
                wait: time(timing.wait_us),
            };
            self.scheduler.handle_timing(now, epoch, stage, &timing);
        }
    }

    /// Does what the state machines ask for until they ask for nothing more.
    fn settle(&mut self) {
        loop {
            let mut settled = true;
            while let Some(action) = self.members.poll_action() {
                settled = false;
                self.act(action);
            }
            while let Some(step) = self.scheduler.poll_step(self.now()) {
                settled = false;
                self.send(&step);
            }
            while let Some((id, event)) = self.scheduler.poll_event() {
                settled = false;
                if self.generations.tell(id, event) == Told::Gone {
                    self.scheduler.handle_cancel(self.now(), id);
                }
            }
            if settled {
                break;
            }
        }
        self.members.handle_in_flight(self.now(), self.scheduler.counts().in_flight > 0);
        self.publish();
    }

    fn act(&mut self, action: Action) {
        let now = self.now();
        // Before anything of a new plan is sent, so that heartbeats never lag behind it.
        self.outputs.epoch.set(self.members.epoch());
        match action {
            Action::Assign { worker, assign } => self.members.send(now, worker, &*assign),
            Action::Release { worker, release } => self.members.send(now, worker, &release),
            Action::Evict { worker, text } => self.members.evict(worker, &text),
            Action::LookAtModel => self.outputs.look_at_model.notify_one(),
            Action::Announce(text) if self.phase == Phase::Ending => tracing::debug!("{text}"),
            Action::Announce(text) => self.outputs.announcer.say(text),
            Action::Serving { limits, stages } => {
                self.remember(&stages);
                let workers = stages.iter().map(|stage| stage.worker).collect();
                match self.members.open_pipeline(limits.epoch, workers) {
                    Ok(pipeline) => {
                        let named = |stage: StageInfo| (stage.name, stage.layers);
                        self.outputs.metrics.plan(stages.into_iter().map(named).collect());
                        self.pipeline = Some(pipeline);
                        self.scheduler.handle_plan(now, limits);
                        self.outputs.announcer.say(&self.outputs.ready_text);
                    }
                    Err(Broken { worker, error }) => {
                        self.members.lose(now, worker, &error.to_string());
                    }
                }
            }
            Action::Stopped { epoch, reason } => {
                tracing::debug!("plan {epoch} has ended: {reason}");
                self.pipeline = None;
                self.outputs.metrics.plan(Vec::new());
                self.scheduler.handle_pipeline_lost(now);
            }
        }
    }

    fn send(&mut self, step: &Step) {
        // Without a pipeline the scheduler is about to hear that the plan has ended.
        let Some(pipeline) = &self.pipeline else { return };
        if let Err(Broken { worker, error }) = pipeline.send(step) {
            self.pipeline = None;
            self.members.lose(self.now(), worker, &error.to_string());
        }
    }

    /// Tells the gateway how things stand, if they stand differently.
    fn publish(&self) {
        let mut counts = self.scheduler.counts();
        counts.stale_faults = self.members.stale_faults();
        self.outputs.metrics.scheduler(counts);
        let mut status = self.members.status();
        status.waiting = counts.waiting;
        status.running = counts.running;
        status.kv_blocks_free = counts.kv_blocks_free;
        status.preemptions = counts.preemptions;
        if self.phase != Phase::Serving {
            status.ready = false;
            status.stopping = true;
            status.detail = "shutting down".to_owned();
        }
        self.outputs.status.send_if_modified(|known| {
            let changed = *known != status;
            if changed {
                *known = status;
            }
            changed
        });
    }
}

/// Without a deadline nothing but news ends the wait.
async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
