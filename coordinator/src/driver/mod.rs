//! The one place where the schedulers and the cluster meet clock, channels and links.
//!
//! One task takes what happens (commands of the gateway, news of links, time), tells the state
//! machines, and does what they ask for until they ask for nothing more. It never waits for a
//! client or a worker: every queue it sends to holds all that can be under way, and one that is
//! full is broken.
//!
//! The router (`router.rs`) finds the lane of a request, the epoch that of a frame: a plan's number
//! belongs to one lane for ever. Lanes come and go while others serve (`models.rs`).

mod generations;
mod guides;
mod lane;
mod members;
mod models;
mod pipeline;
mod recent;
mod requests;
mod router;
mod snapshot;
mod tell;
#[cfg(test)]
mod tests;
mod traces;
mod wiring;

pub use lane::{LaneConfig, Unloaded};
pub use wiring::{DriverConfig, Inputs, LaneCommand, Outputs};

use crate::cluster::{Action, StageInfo};
use crate::events::Happening;
use crate::exit::Fatal;
use crate::generation::{Command, LaneId, ModelId};
use crate::guides::Answered;
use crate::links::LinkEvent;
use crate::models::last_plan::Seats;
use crate::models::watch::ModelNews;
use crate::scheduler::PlanLimits;
use crate::status::{Counts, Work};
use lane::Lane;
use members::{Members, Report};
use pipeline::Broken;
use router::Router;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};
use tell::happening;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use woolly_protocol::control::Heartbeat;
use woolly_protocol::failpoint;
use woolly_protocol::ids::WorkerId;
use woolly_protocol::sampling::Sampled;

/// Commands and news that are taken in before anything is sent: what arrives together is scheduled
/// together.
const TURN_MAX: usize = 256;

/// The driver. See the [module](self).
#[derive(Debug)]
pub struct Driver {
    started: Instant,
    members: Members,
    lanes: BTreeMap<LaneId, Lane>,
    /// The number of the next lane: none is used again.
    next_lane: LaneId,
    /// What lanes that are gone have counted.
    gone: Counts,
    router: Router,
    outputs: Outputs,
    /// Numbers for plans as they are reserved.
    reserved: (mpsc::Sender<Range<u32>>, mpsc::Receiver<Range<u32>>),
    phase: Phase,
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
enum Event {
    Command(Command),
    Lanes(LaneCommand),
    Link(LinkEvent),
    Model(ModelId, ModelNews),
    Guide(Box<Answered>),
    Epochs(Range<u32>),
    Drain,
    Deadline,
    Stop,
    Time,
}

impl Driver {
    /// A driver without workers and models.
    pub fn new(config: DriverConfig, outputs: Outputs) -> Driver {
        Driver {
            started: Instant::now(),
            members: Members::new(config.cluster, config.id, config.exclusions, config.clock),
            lanes: BTreeMap::new(),
            next_lane: LaneId(0),
            gone: Counts::default(),
            router: Router::new(config.key_concurrency),
            outputs,
            reserved: mpsc::channel(1),
            phase: Phase::Serving,
        }
    }

    /// Drives until `stop`.
    ///
    /// # Errors
    ///
    /// When the model of the command line cannot be read for its fingerprint, or its file holds another model,
    /// and no other model is loaded.
    pub async fn run(mut self, mut inputs: Inputs) -> Result<(), Fatal> {
        self.publish();
        loop {
            match self.next_event(&mut inputs).await {
                Event::Stop => break,
                Event::Model(model, news) => self.model_news(model, news)?,
                Event::Epochs(epochs) => {
                    let now = self.now();
                    self.members.cluster.handle_epochs(now, epochs);
                }
                Event::Drain => self.phase = Phase::Draining,
                Event::Deadline => self.end_generations(),
                Event::Link(event) => self.link_event(event),
                Event::Command(command) => self.command(command),
                Event::Guide(answered) => self.guided(*answered),
                Event::Lanes(command) => self.lane_command(command),
                Event::Time => {
                    let now = self.now();
                    self.members.cluster.handle_timeout(now);
                    self.lanes.values_mut().for_each(|lane| lane.handle_timeout(now));
                }
            }
            // Before anything else comes in: an eviction must not meet the worker's next connection.
            self.settle();
            let mut more = false;
            for _ in 0..TURN_MAX {
                if let Ok(event) = inputs.links.try_recv() {
                    self.link_event(event);
                } else if let Ok(command) = inputs.commands.try_recv() {
                    self.command(command);
                } else if let Ok(answered) = inputs.guides.try_recv() {
                    self.guided(answered);
                } else {
                    break;
                }
                more = true;
            }
            if more {
                self.settle();
            }
        }
        self.end_generations();
        Ok(())
    }

    async fn next_event(&mut self, inputs: &mut Inputs) -> Event {
        let cluster = self.members.cluster.poll_timeout();
        let timeouts = self.lanes.values().filter_map(Lane::poll_timeout).chain(cluster);
        let deadline = timeouts.min().map(|at| self.started + at);
        tokio::select! {
            () = inputs.stop.asked() => Event::Stop,
            () = inputs.drain.asked(), if self.phase == Phase::Serving => Event::Drain,
            () = inputs.deadline.asked(), if self.phase != Phase::Ending => Event::Deadline,
            Some((model, news)) = inputs.models.recv() => Event::Model(model, news),
            Some(epochs) = self.reserved.1.recv() => Event::Epochs(epochs),
            Some(event) = inputs.links.recv() => Event::Link(event),
            Some(command) = inputs.commands.recv() => Event::Command(command),
            Some(answered) = inputs.guides.recv() => Event::Guide(Box::new(answered)),
            Some(command) = inputs.lanes.recv() => Event::Lanes(command),
            () = wait_until(deadline) => Event::Time,
        }
    }

    fn remember(&self, id: LaneId, stages: &[StageInfo]) {
        let Some(lane) = self.lanes.get(&id) else { return };
        let Some(fingerprint) = lane.config.model.fingerprint.get().copied() else { return };
        let layers = |stage: &StageInfo| stage.layers.end - stage.layers.start;
        let seats: Seats = stages.iter().map(|stage| (stage.worker, layers(stage))).collect();
        let last_plan = lane.config.last_plan.clone();
        tokio::task::spawn_blocking(move || last_plan.save(&fingerprint, &seats));
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn link_event(&mut self, event: LinkEvent) {
        let now = self.now();
        match self.members.handle_event(now, event) {
            None => {}
            Some(Report::Sampled(worker, sampled)) => self.sampled(now, worker, sampled),
            Some(Report::Heartbeat(worker, heartbeat)) => self.heartbeat(now, worker, &heartbeat),
        }
    }

    fn sampled(&mut self, now: Duration, worker: WorkerId, sampled: Sampled) {
        failpoint::hit("coordinator.sampled");
        let of = (sampled.epoch, sampled.microbatch);
        let mut lanes = self.lanes.values_mut();
        // An answer to no plan in force is late; the first lane counts it.
        let lane = match lanes.find(|lane| lane.is_of(sampled.epoch)) {
            Some(lane) => Some(lane),
            None => self.lanes.values_mut().next(),
        };
        if let Some(Err(text)) = lane.map(|lane| lane.sampled(now, worker, sampled)) {
            self.members.handle_nonsense(now, worker, of, &text);
        }
    }

    /// A worker says how it is. What it says of a plan that is not served is of no use.
    fn heartbeat(&mut self, now: Duration, worker: WorkerId, heartbeat: &Heartbeat) {
        if let Some(name) = self.members.name(worker) {
            let unheard = self.members.cluster.unheard_for(now, worker).unwrap_or_default();
            self.outputs.metrics.worker(name, heartbeat, unheard);
        }
        for report in &heartbeat.plans {
            let mut first_stage = 0;
            for lane in self.lanes.values_mut() {
                if lane.is_of(report.epoch) {
                    let series = (self.outputs.metrics.as_ref(), first_stage);
                    lane.timings(now, (worker, report.epoch), &report.timings, series);
                }
                first_stage += lane.stages();
            }
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
            let now = self.now();
            self.ask_guides();
            for lane in self.lanes.values_mut() {
                match lane.settle(now, |key| self.router.end(key)) {
                    Ok(busy) => settled &= !busy,
                    Err(Broken { worker, error }) => {
                        settled = false;
                        self.members.lose(now, worker, &error.to_string());
                    }
                }
                while let Some(recovered) = lane.poll_recovered() {
                    let model = &lane.config.model.name;
                    self.outputs.metrics.recovered(recovered);
                    happening(model, recovered)
                        .into_iter()
                        .for_each(|it| self.outputs.events.say(it));
                }
            }
            // Only when nothing is left to be done that may withdraw it, and one at a time.
            let drained =
                if settled { self.lanes.iter_mut().find_map(Lane::drained) } else { None };
            if let Some((lane, limits, stages)) = drained {
                settled = false;
                self.serve(lane, limits, stages);
                self.members.cluster.handle_taken_over(self.now(), lane, limits.epoch);
            }
            settled &= !self.close_one_that_leaves();
            if settled {
                break;
            }
        }
        self.tell_news();
        self.publish();
    }

    fn act(&mut self, action: Action) {
        // What somebody's coming or going leads to is told after it.
        self.tell_news();
        let now = self.now();
        match action {
            Action::Assign { worker, assign } => self.members.send(now, worker, &*assign),
            Action::Release { worker, release } => self.members.send(now, worker, &release),
            Action::Evict { worker, text } => self.members.evict(worker, &text),
            Action::LookAtModel(lane) => {
                if let Some(lane) = self.lanes.get(&lane) {
                    lane.config.look.notify_one();
                }
            }
            Action::NoRoom { lane, reason } => self.no_room(lane, &reason),
            Action::ReserveEpochs => self.reserve_epochs(),
            Action::Announce(text) if self.phase == Phase::Ending => tracing::debug!("{text}"),
            Action::Announce(text) => self.outputs.announcer.say(text),
            Action::Made { lane, made } => self.tell_made(lane, made),
            Action::Serving { lane, limits, stages } => self.serve(lane, limits, stages),
            Action::TakeOver { lane, limits, stages } => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.hand_over(limits, stages);
                }
            }
            Action::Withdrawn { lane } => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.withdraw(now);
                }
            }
            Action::Stopped { lane, epoch, reason, silent } => {
                self.outputs.metrics.lost(silent);
                tracing::debug!("plan {epoch} has ended: {reason}");
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.stop(now);
                    let model = lane.config.model.name.clone();
                    self.outputs.events.say(Happening::PlanLost { model, plan: epoch.0, reason });
                }
                self.outputs.metrics.plan(lane, Vec::new());
            }
        }
    }

    fn serve(&mut self, id: LaneId, limits: PlanLimits, stages: Vec<StageInfo>) {
        self.remember(id, &stages);
        let now = self.now();
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let workers = stages.iter().map(|stage| stage.worker).collect();
        match self.members.open_pipeline(limits.epoch, workers) {
            Ok(pipeline) => {
                let model = lane.config.model.name.clone();
                let (plan, count) = (limits.epoch.0, stages.len());
                self.outputs.events.say(Happening::PlanServing { model, plan, stages: count });
                let named = |stage: StageInfo| (stage.name, stage.layers);
                self.outputs.metrics.plan(id, stages.into_iter().map(named).collect());
                lane.serve(now, limits, pipeline);
                self.outputs.announcer.say(&lane.config.ready_text);
            }
            Err(Broken { worker, error }) => self.members.lose(now, worker, &error.to_string()),
        }
    }

    /// Reserves numbers away from this task: they are synced to the disk before they are used.
    fn reserve_epochs(&self) {
        let (counter, reserved) = (self.outputs.epochs.clone(), self.reserved.0.clone());
        tokio::task::spawn_blocking(move || match counter.reserve() {
            // The driver is gone if nobody takes them.
            Ok(epochs) => _ = reserved.try_send(epochs),
            Err(error) => tracing::error!("no more plans can be numbered: {error}"),
        });
    }

    /// Tells the core and the gateway how things stand, if they stand differently.
    fn publish(&mut self) {
        let stopping = self.phase != Phase::Serving;
        let mut sum = self.gone;
        for (id, lane) in &mut self.lanes {
            let cluster = &mut self.members.cluster;
            let revision = cluster.revision();
            let counts = lane.publish(revision, stopping, || cluster.status(*id));
            cluster.handle_awaited(*id, lane.awaited());
            self.outputs.metrics.lane(*id, counts);
            sum = sum.plus(counts);
        }
        let work = Work { stopping, generations: sum.waiting + sum.running };
        self.outputs.work.send_if_modified(|known| std::mem::replace(known, work) != work);
        sum.stale_faults = self.members.cluster.stale_faults();
        self.outputs.metrics.scheduler(sum);
    }
}

/// Without a deadline nothing but news ends the wait.
async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
