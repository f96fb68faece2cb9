//! Where one lane's model is computed: who takes part, in which order, with which layers, and what ends
//! a plan.
//!
//! A placement knows its model and asks the [membership](super::membership) for workers; it knows
//! nothing of other lanes but the memory that they hold.

use super::epochs::Epochs;
use super::membership::Membership;
use super::plan::{Plan, Stage, StageInfo};
use super::worker::one_line;
use super::{Action, Actions};
use crate::ids::LaneId;
use std::sync::Arc;
use std::time::Duration;
use woolly_engine::plan::{
    Cut, CutRequest, KvType, Member, ModelLayout, Objective, PlanError, cut,
};
use woolly_protocol::control::{ModelPart, Ready, Release};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::ids::{PlanEpoch, WorkerId};
use woolly_protocol::limits::STAGES_MAX;

/// What is asked of a lane's plans: fixed for the life of the lane.
#[derive(Clone, Debug)]
pub struct PlacementConfig {
    /// The model.
    pub layout: Arc<ModelLayout>,
    /// Its files.
    pub parts: Vec<ModelPart>,
    /// Workers to wait for before layers are placed; at least the stages of `cut`, at least 1.
    pub workers_wanted: u32,
    /// What a cut is to be best for, if the planner chooses it.
    pub objective: Objective,
    /// Layers of each stage; `None` lets the planner choose.
    pub cut: Option<Vec<u32>>,
    /// Positions of a sequence.
    pub ctx_size: u32,
    /// Rows of a microbatch at most; fewer if the model is so wide that they would not fit a frame.
    pub rows_max: u32,
    /// How the KV cache holds its values.
    pub kv_type: KvType,
    /// Positions of the KV cache that are given out together, a multiple of 32.
    pub extent_len: u32,
}

/// After a link of a served plan broke: longer than a dead worker's connection takes to be noticed
/// here as well (2 s by default), so that the next plan is made without it.
const LINK_PAUSE: Duration = Duration::from_secs(5);

/// A lane's place in the cluster.
#[derive(Debug)]
pub(super) struct Placement {
    lane: LaneId,
    pub(super) config: PlacementConfig,
    /// BLAKE3 root over the 1 MiB chunks of the model's files.
    pub(super) fingerprint: [u8; 32],
    /// The plan in force, loading or served.
    pub(super) plan: Option<Plan>,
    /// Workers and layers of the latest plan, by stage: the next one keeps what it can.
    seats: Vec<(WorkerId, u32)>,
    /// Why there is no plan although there are workers enough.
    pub(super) last_error: Option<String>,
    /// The model's files were written to: nobody is placed before it is known what they hold.
    unsure: bool,
    /// Nobody is placed before: a link broke, and whose fault it is will show.
    pub(super) hold_until: Duration,
    /// Since when the pipeline has had work, if it has.
    pub(super) in_flight_since: Option<Duration>,
}

impl Placement {
    /// A lane that has no plan yet. `seats` are the workers of the last plan of this model with their
    /// numbers of layers, in order of stage: they keep their places. Empty if there was none; with a
    /// `cut` of other layers they do not count.
    pub(super) fn new(
        lane: LaneId,
        config: PlacementConfig,
        fingerprint: [u8; 32],
        mut seats: Vec<(WorkerId, u32)>,
    ) -> Self {
        let counts: Vec<u32> = seats.iter().map(|(_, layers)| *layers).collect();
        if config.cut.as_ref().is_some_and(|cut| *cut != counts) {
            seats.clear();
        }
        Self {
            lane,
            config,
            fingerprint,
            plan: None,
            seats,
            last_error: None,
            unsure: false,
            hold_until: Duration::ZERO,
            in_flight_since: None,
        }
    }

    /// Whether its plan in force has this number.
    pub(super) fn is_of(&self, epoch: PlanEpoch) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.epoch == epoch)
    }

    /// The stage of a worker in the plan in force, if that has this number.
    pub(super) fn position(&self, worker: WorkerId, epoch: PlanEpoch) -> Option<usize> {
        self.plan.as_ref()?.position(worker, epoch)
    }

    /// A stage of the plan in force is loaded and linked.
    pub(super) fn handle_ready(
        &mut self,
        now: Duration,
        id: WorkerId,
        ready: &Ready,
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        let Some(stage) = self.position(id, ready.epoch) else { return };
        let plan = self.plan.as_mut().expect("a position is one of the plan");
        if plan.stages[stage].ready.replace(ready.clone()).is_some() {
            return;
        }
        members.of_plan_mut(id).ready(now, ready.epoch);
        self.start_serving(now, members, actions);
    }

    /// A worker of the plan in force cannot do what it was asked, or does it wrongly.
    pub(super) fn handle_fault(
        &mut self,
        now: Duration,
        id: WorkerId,
        fault: &FaultMessage,
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        let Some(stage) = self.position(id, fault.epoch) else { return };
        let served = self.plan.as_ref().and_then(|plan| plan.served_for(now));
        let did = match fault.code {
            FaultCode::LoadFailed => "could not load its stage",
            FaultCode::SliceFailed => "could not get the weights of its stage",
            FaultCode::LinkFailed => "has no link to the next stage",
            FaultCode::ComputeFailed => "failed while computing",
            FaultCode::BadMessage | FaultCode::WrongEpoch => "met a message without meaning",
        };
        let mut look = false;
        let worker = members.of_plan_mut(id);
        let reason =
            format!("worker {} (stage {stage}) {did}: {}", worker.name, one_line(&fault.text));
        if fault.code == FaultCode::LinkFailed && served.is_some() {
            // Most likely the neighbour died, and this worker saw it first.
            self.hold_until = now + LINK_PAUSE;
            actions.push_back(Action::Announce(reason.clone()));
        } else if fault.code == FaultCode::LoadFailed && served.is_some() && worker.forgive(now) {
            // It had loaded the stage: its file was written to since.
            self.unsure = true;
            look = true;
            actions.push_back(Action::Announce(reason.clone()));
        } else {
            let backoff = worker.back_off(now, served).as_secs();
            actions
                .push_back(Action::Announce(format!("{reason}. It is tried again in {backoff} s")));
        }
        self.end_plan(&reason, members, actions);
        if look {
            actions.push_back(Action::LookAtModel(self.lane));
        }
        self.last_error = Some(reason);
    }

    /// The model's files were written to, and are being read.
    pub(super) fn handle_model_unsure(&mut self) {
        self.unsure = true;
    }

    /// The model's files hold the model. Whether that was not known before.
    pub(super) fn handle_model_verified(&mut self, parts: Vec<ModelPart>) -> bool {
        self.config.parts = parts;
        std::mem::replace(&mut self.unsure, false)
    }

    /// Whether microbatches are in flight.
    pub(super) fn handle_in_flight(&mut self, now: Duration, in_flight: bool) {
        match (in_flight, self.in_flight_since) {
            (true, None) => self.in_flight_since = Some(now),
            (false, _) => self.in_flight_since = None,
            (true, Some(_)) => {}
        }
    }

    /// A worker is gone, and known no more.
    pub(super) fn handle_lost(
        &mut self,
        id: WorkerId,
        reason: &str,
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        self.hold_until = Duration::ZERO;
        if self.plan.as_ref().is_some_and(|plan| plan.holds(id)) {
            self.end_plan(reason, members, actions);
            self.last_error = Some(reason.to_owned());
        }
    }

    /// Ends the plan in force: those who are left give their stages back and wait.
    pub(super) fn end_plan(
        &mut self,
        reason: &str,
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        let Some(plan) = self.plan.take() else { return };
        self.in_flight_since = None;
        let epoch = plan.epoch;
        if plan.serving_since.is_some() {
            let (lane, reason) = (self.lane, reason.to_owned());
            actions.push_back(Action::Stopped { lane, epoch, reason });
        }
        for stage in &plan.stages {
            if let Some(worker) = members.get_mut(stage.worker) {
                worker.release(epoch);
                let release = Release { epoch };
                actions.push_back(Action::Release { worker: stage.worker, release });
            }
        }
    }

    /// Begins a plan if there is none and there are workers enough.
    pub(super) fn try_plan(
        &mut self,
        now: Duration,
        machine: [u8; 16],
        members: &mut Membership,
        epochs: &mut Epochs,
        actions: &mut Actions,
    ) {
        if self.plan.is_some() || self.unsure || now < self.hold_until {
            return;
        }
        let available = members.available(now);
        let wanted = self.workers_wanted();
        if available.len() < wanted {
            return;
        }
        let first = self.place(&self.seated(&available, wanted), members);
        // Workers beyond those waited for help where these are too small.
        let placed = first.or_else(|error| {
            let all = self.seated(&available, available.len().min(STAGES_MAX));
            if all.len() > wanted { self.place(&all, members) } else { Err(error) }
        });
        match placed {
            Ok((cut, ids)) => {
                // Without a number there is no plan; more are being reserved.
                let Some(epoch) = epochs.take() else { return };
                self.begin(now, epoch, (cut, &ids), machine, members, actions);
            }
            Err(error) => {
                let text = format!("no plan is possible: {error}");
                if self.last_error.as_ref() != Some(&text) {
                    actions.push_back(Action::Announce(text.clone()));
                    self.last_error = Some(text);
                }
            }
        }
    }

    /// Workers to wait for.
    pub(super) fn workers_wanted(&self) -> usize {
        let stages = self.config.cut.as_ref().map_or(1, Vec::len);
        let wanted = usize::try_from(self.config.workers_wanted).unwrap_or(STAGES_MAX);
        wanted.clamp(stages, STAGES_MAX.max(stages))
    }

    /// `count` of the available workers: those of the latest plan in their places, others in order
    /// of joining in the places that are left.
    fn seated(&self, available: &[WorkerId], count: usize) -> Vec<WorkerId> {
        let kept: Vec<_> = self.seats.iter().map(|(id, _)| *id).take(count).collect();
        let mut others = available.iter().filter(|id| !kept.contains(id));
        let mut seats: Vec<_> = kept
            .iter()
            .filter_map(|id| Some(id).filter(|id| available.contains(id)).or_else(|| others.next()))
            .copied()
            .collect();
        seats.extend(others.take(count.saturating_sub(seats.len())));
        seats
    }

    fn place(
        &self,
        ids: &[WorkerId],
        members: &Membership,
    ) -> Result<(Cut, Vec<WorkerId>), PlanError> {
        let free: Vec<Member> = ids.iter().map(|id| members.with_free_memory(*id)).collect();
        let previous: Vec<u32> = self.seats.iter().map(|(_, layers)| *layers).collect();
        let request = CutRequest {
            ctx_size: self.config.ctx_size,
            objective: self.config.objective,
            cut: self.config.cut.clone(),
            rows_max: self.rows_max(),
            kv_type: self.config.kv_type,
            block_len: self.config.extent_len,
            previous: Some(previous).filter(|counts| !counts.is_empty()),
        };
        let cut = cut(&self.config.layout, &free, &request)?;
        let placed = cut.members.iter().map(|member| ids[*member]).collect();
        Ok((cut, placed))
    }

    fn begin(
        &mut self,
        now: Duration,
        epoch: PlanEpoch,
        (cut, ids): (Cut, &[WorkerId]),
        machine: [u8; 16],
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        self.last_error = None;
        self.seats = ids.iter().copied().zip(cut.counts()).collect();
        let stages: Vec<_> = ids
            .iter()
            .zip(&cut.layers)
            .map(|(id, layers)| Stage { worker: *id, layers: layers.clone(), ready: None })
            .collect();
        let plan = Plan { epoch, cut, stages, serving_since: None };
        actions.extend(self.plan_lines(&plan, members).into_iter().map(Action::Announce));
        for (stage, id) in ids.iter().enumerate() {
            let assign = Box::new(self.assign(&plan, stage, machine, members));
            actions.push_back(Action::Assign { worker: *id, assign });
            let budget = &plan.cut.stages[stage];
            let bytes = budget.own_bytes + budget.kv_bytes + budget.scratch_bytes;
            members.of_plan_mut(*id).assign(now, epoch, bytes);
        }
        self.plan = Some(plan);
    }

    /// Serves the plan if all its stages are ready.
    fn start_serving(&mut self, now: Duration, members: &Membership, actions: &mut Actions) {
        let Some(plan) = self.plan.as_ref() else { return };
        let info = |stage: &Stage| {
            stage.ready.clone().map(|ready| StageInfo {
                worker: stage.worker,
                name: members.of_plan(stage.worker).name.clone(),
                layers: stage.layers.clone(),
                ready,
            })
        };
        let Some(stages) = plan.stages.iter().map(info).collect::<Option<Vec<_>>>() else {
            return;
        };
        let limits = self.limits(plan, members);
        actions.extend(self.serving_lines(plan, &stages).into_iter().map(Action::Announce));
        actions.push_back(Action::Serving { lane: self.lane, limits, stages });
        if let Some(plan) = self.plan.as_mut() {
            plan.serving_since = Some(now);
        }
    }
}
