//! One replica of a model: its queue and scheduler, its generations, and the pipeline that serves them.
//!
//! A lane outlives plans: a pipeline comes and goes, the scheduler stays. It knows nothing of other
//! lanes, of API keys' limits or of workers that are in no plan of its own.

use super::generations::{Generations, Told};
use super::pipeline::{Broken, Pipeline};
use super::recent::Recent;
use super::traces::Traces;
use crate::cluster::{PlacementConfig, StageInfo};
use crate::generation::{Failure, GenerationEvent, GenerationRequest, KeyId, LaneId, Refusal};
use crate::guides::{Guide, Next};
use crate::metrics::Metrics;
use crate::models::ServedModel;
use crate::models::last_plan::LastPlan;
use crate::scheduler::{Awaited, PlanLimits, Scheduler, SchedulerConfig, StageTiming};
use crate::snapshot::RecentSnapshot;
use crate::status::{Counts, Recovered, Status};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use woolly_protocol::control::ForwardTiming;
use woolly_protocol::ids::{PlanEpoch, SequenceId, WorkerId};
use woolly_protocol::sampling::Sampled;

/// What a lane is made from.
#[derive(Debug)]
pub struct LaneConfig {
    /// Its model.
    pub model: Arc<ServedModel>,
    /// How the model is placed.
    pub placement: PlacementConfig,
    /// How its requests are scheduled.
    pub scheduler: SchedulerConfig,
    /// Where its state is told.
    pub status: watch::Sender<Status>,
    /// Where its plan is remembered for the next start.
    pub last_plan: LastPlan,
    /// What people are told when it is ready.
    pub ready_text: String,
    /// Asks those who look after the model's files for a look.
    pub look: Arc<Notify>,
    /// Whether it is the model that the process was started for, which does without it only if there are others.
    pub of_command_line: bool,
    /// Told why, when the lane ends without being asked to: the model cannot be used, or has no room.
    pub ended: oneshot::Sender<String>,
}

/// A model is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unloaded {
    /// Generations that were ended with it.
    pub unfinished: usize,
}

/// A lane. See the [module](self).
#[derive(Debug)]
pub struct Lane {
    pub(super) config: LaneConfig,
    scheduler: Scheduler,
    pipeline: Option<Pipeline>,
    /// What its stages did lately.
    recent: Recent,
    /// The requests whose way is told.
    pub(super) traces: Traces,
    /// What takes over from it as soon as nothing is on its way.
    next: Option<(PlanLimits, Vec<StageInfo>)>,
    generations: Generations,
    /// When it is closed at the latest, and who asked for that.
    leaves: Option<(Duration, Vec<oneshot::Sender<Unloaded>>)>,
    /// As of which state of the cluster the status was told, and whether the server was stopping and a
    /// plan was looked for; `None` before.
    told: Option<(u64, bool, bool)>,
}

impl Lane {
    /// A lane without a plan.
    pub fn new(config: LaneConfig) -> Lane {
        Lane {
            scheduler: Scheduler::new(config.scheduler),
            config,
            pipeline: None,
            recent: Recent::default(),
            traces: Traces::default(),
            next: None,
            generations: Generations::default(),
            leaves: None,
            told: None,
        }
    }

    /// What its scheduler holds.
    pub fn counts(&self) -> Counts {
        self.scheduler.counts()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due at the latest.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let leaves = self.leaves.as_ref().map(|(until, _)| *until);
        self.scheduler.poll_timeout().into_iter().chain(leaves).min()
    }

    /// It is to be closed when its generations are over, at the latest at `until`.
    pub fn leave(&mut self, until: Duration, reply: oneshot::Sender<Unloaded>) {
        let (known, replies) = self.leaves.get_or_insert((until, Vec::new()));
        *known = until.min(*known);
        replies.push(reply);
    }

    /// Whether it is to be closed now.
    pub fn is_over(&self, now: Duration) -> bool {
        let is_due = |until| until <= now || self.generations.is_empty();
        self.leaves.as_ref().is_some_and(|(until, _)| is_due(*until))
    }

    /// Who asked for its end.
    pub fn take_leavers(&mut self) -> Vec<oneshot::Sender<Unloaded>> {
        self.leaves.take().map(|(_, replies)| replies).unwrap_or_default()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.scheduler.handle_timeout(now);
    }

    /// Whether a request could be taken.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::check_request`].
    pub fn check(&mut self, now: Duration, request: &GenerationRequest) -> Result<(), Refusal> {
        self.scheduler.check_request(now, request)
    }

    /// When a key whose generations are all that it may have should come again.
    pub fn retry_after(&self, now: Duration, limit: usize) -> Duration {
        self.scheduler.key_retry_after(now, limit)
    }

    /// Takes a request that was checked.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::handle_request`].
    pub fn submit(
        &mut self,
        now: Duration,
        request: GenerationRequest,
        events: mpsc::Sender<GenerationEvent>,
    ) -> Result<SequenceId, Refusal> {
        let (key, guided) = (request.key, request.guided.clone());
        let id = self.scheduler.handle_request(now, request)?;
        let guide = guided.and_then(|guided| guided.take());
        self.generations.add(id, key, events, guide);
        Ok(id)
    }

    /// A guide that is to be asked what may come after a token of its generation.
    pub fn poll_question(&mut self) -> Option<(SequenceId, Guide, u32)> {
        loop {
            let (id, token) = self.scheduler.poll_question()?;
            // Without one the generation has ended.
            if let Some(guide) = self.generations.take_guide(id) {
                return Some((id, guide, token));
            }
        }
    }

    /// A guide has answered.
    pub fn handle_next(&mut self, now: Duration, id: SequenceId, guide: Guide, next: Next) {
        if self.generations.return_guide(id, guide) {
            self.scheduler.handle_next(now, id, next);
        }
    }

    /// The client is gone. Whose generation that was, if it is known.
    pub fn cancel(&mut self, now: Duration, id: SequenceId) -> Option<KeyId> {
        let key = self.generations.remove(id)?;
        self.scheduler.handle_cancel(now, id);
        self.traces.ended(now, id);
        Some(key)
    }

    /// Ends all generations; whose they were.
    pub fn fail_all(&mut self, now: Duration, failure: &Failure) -> Vec<KeyId> {
        let failed = self.generations.fail_all(failure);
        failed.iter().for_each(|(id, _)| self.scheduler.handle_cancel(now, *id));
        failed.into_iter().map(|(_, key)| key).collect()
    }

    /// A plan is served from now on.
    pub fn serve(&mut self, now: Duration, limits: PlanLimits, pipeline: Pipeline) {
        self.recent = Recent::new(now, pipeline.stages());
        self.pipeline = Some(pipeline);
        self.scheduler.handle_plan(now, limits);
    }

    /// Another plan takes over as soon as nothing is on its way.
    pub fn hand_over(&mut self, limits: PlanLimits, stages: Vec<StageInfo>) {
        self.next = Some((limits, stages));
        self.scheduler.handle_hand_over();
    }

    /// It does not, after all.
    pub fn withdraw(&mut self, now: Duration) {
        self.next = None;
        self.scheduler.handle_withdrawn(now);
    }

    /// What takes over now.
    pub fn drained(
        (id, lane): (&LaneId, &mut Lane),
    ) -> Option<(LaneId, PlanLimits, Vec<StageInfo>)> {
        let (limits, stages) = lane.next.take_if(|_| lane.scheduler.is_drained())?;
        Some((*id, limits, stages))
    }

    /// The answer that is due next.
    pub fn awaited(&self) -> Option<Awaited> {
        self.scheduler.awaited()
    }

    /// What failovers took, for metrics.
    pub fn poll_recovered(&mut self) -> Option<Recovered> {
        self.scheduler.poll_recovered()
    }

    /// The plan that was served has ended.
    pub fn stop(&mut self, now: Duration) {
        self.pipeline = None;
        self.next = None;
        self.scheduler.handle_pipeline_lost(now);
    }

    /// Whether the pipeline that is served is of this plan.
    pub fn is_of(&self, epoch: PlanEpoch) -> bool {
        self.pipeline.as_ref().is_some_and(|pipeline| pipeline.epoch == epoch)
    }

    /// Whether the pipeline that is served is of the plan with this number.
    pub(super) fn serves(&self, plan: u32) -> bool {
        self.is_of(PlanEpoch(plan))
    }

    /// Whether its model is being unloaded.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaves.is_some()
    }

    /// What a stage of the pipeline did lately.
    pub(super) fn recent(&self, now: Duration, stage: usize) -> Option<RecentSnapshot> {
        self.recent.of(now, stage)
    }

    /// Stages of the pipeline that is served; 0 without one.
    pub fn stages(&self) -> usize {
        self.pipeline.as_ref().map_or(0, Pipeline::stages)
    }

    /// A worker has answered a microbatch.
    ///
    /// # Errors
    ///
    /// What is wrong with that, for people.
    pub fn sampled(
        &mut self,
        now: Duration,
        worker: WorkerId,
        sampled: Sampled,
    ) -> Result<(), String> {
        let of_us = self.is_of(sampled.epoch);
        if of_us && !self.pipeline.as_ref().is_some_and(|pipeline| pipeline.is_last(worker)) {
            return Err("it answered a microbatch and does not hold the last stage".to_owned());
        }
        self.scheduler.handle_sampled(now, sampled).map_err(|error| error.to_string())
    }

    /// A stage tells how long its forwards took; metrics count it as stage `first_stage` and on.
    pub fn timings(
        &mut self,
        now: Duration,
        (worker, epoch): (WorkerId, PlanEpoch),
        timings: &[ForwardTiming],
        (metrics, first_stage): (&Metrics, usize),
    ) {
        let Some(stage) = self.pipeline.as_ref().and_then(|p| p.stage_of(worker)) else { return };
        for timing in timings {
            metrics.forward(first_stage + stage, timing);
            self.traces.timing((epoch, stage, worker), timing);
            self.recent.add(now, stage, timing);
            let time = |us: u32| Duration::from_micros(us.into());
            let timing = StageTiming {
                microbatch: timing.microbatch,
                compute: time(timing.compute_us),
                wait: time(timing.wait_us),
            };
            self.scheduler.handle_timing(now, epoch, stage, &timing);
        }
        self.traces.flush(now, &self.config.model.name, metrics);
    }

    /// Sends the microbatches that are due and tells generations what happened. Whether there was
    /// anything to do; `ended` is given the keys of generations that have ended.
    ///
    /// # Errors
    ///
    /// Which worker takes no more microbatches, and why. The pipeline is of no use any more.
    pub fn settle(&mut self, now: Duration, mut ended: impl FnMut(KeyId)) -> Result<bool, Broken> {
        let mut busy = false;
        while let Some((id, event)) = self.scheduler.poll_event() {
            busy = true;
            match self.generations.tell(id, event) {
                Told::Heard => {}
                Told::Ended(key) => {
                    ended(key);
                    self.traces.ended(now, id);
                }
                Told::Gone(key) => {
                    ended(key);
                    self.traces.ended(now, id);
                    self.scheduler.handle_cancel(now, id);
                }
            }
        }
        while let Some(mut step) = self.scheduler.poll_step(now) {
            busy = true;
            // Without a pipeline the scheduler is about to hear that the plan has ended.
            let Some(pipeline) = &self.pipeline else { continue };
            self.traces.stamp(now, &mut step.forward);
            if let Err(broken) = pipeline.send(&step) {
                self.pipeline = None;
                return Err(broken);
            }
            self.scheduler.take_back(step);
        }
        Ok(busy)
    }

    /// Tells the gateway how things stand, if they stand differently. `revision` is the cluster's;
    /// `describe` says what the cluster knows of this lane.
    pub fn publish(
        &mut self,
        revision: u64,
        stopping: bool,
        describe: impl FnOnce() -> Status,
    ) -> Counts {
        let counts = self.counts();
        let holds = self.scheduler.holds();
        let now = Some((revision, stopping, holds));
        let described = (self.told != now).then(|| {
            let mut status = describe();
            if holds {
                // Requests are taken and wait: to the outside it is only slow.
                status.ready = true;
                status.ctx_size = self.config.placement.ctx_size;
                status.kv_type = self.config.placement.kv_type.name();
                status.detail = format!("failing over: {}", status.detail);
            }
            if stopping {
                status.ready = false;
                status.stopping = true;
                status.detail = "shutting down".to_owned();
            }
            status
        });
        self.told = now;
        self.config.status.send_if_modified(|known| {
            let mut changed = false;
            if let Some(described) = described {
                let before = std::mem::replace(known, described);
                known.take_counts(&before);
                changed = *known != before;
            }
            known.update_counts(&counts) || changed
        });
        counts
    }
}
