//! Makes plans: who takes part, in which order, with which layers.

use super::worker::Worker;
use super::{Action, Cluster, WorkerId};
use crate::scheduler::PlanLimits;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;
use woolly_engine::plan::{Cut, CutRequest, KvType, Member, PlanError, cut};
use woolly_protocol::control::{Assign, KvType as WireKvType, Neighbour, Ready};
use woolly_protocol::ids::PlanEpoch;
use woolly_protocol::limits::{
    CHUNKS_PER_MICROBATCH_MAX, FORWARD_PAYLOAD_MAX, IN_FLIGHT_MAX, ROWS_PER_MICROBATCH_MAX,
    STAGES_MAX,
};

/// A plan in force.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) epoch: PlanEpoch,
    pub(super) cut: Cut,
    pub(super) stages: Vec<Stage>,
    pub(super) serving_since: Option<Duration>,
}

/// A stage of a plan.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) worker: WorkerId,
    pub(super) layers: Range<u32>,
    /// What its worker said when it was ready.
    pub(super) ready: Option<Ready>,
}

/// A stage that is served.
#[derive(Clone, Debug, PartialEq)]
pub struct StageInfo {
    /// Its worker.
    pub worker: WorkerId,
    /// Its worker's name.
    pub name: String,
    /// Its layers.
    pub layers: Range<u32>,
    /// What its worker has loaded.
    pub ready: Ready,
}

/// How long a stage should compute one microbatch.
const FORWARD_TARGET: Duration = Duration::from_secs(1);

/// Rows of a microbatch however slow a stage is: with fewer, weights are unpacked for too few tokens.
const ROWS_MIN: u32 = 16;

impl Plan {
    /// The stage of a worker, if the plan is of that epoch and has one for it.
    pub(super) fn position(&self, worker: WorkerId, epoch: PlanEpoch) -> Option<usize> {
        let stage = self.stages.iter().position(|stage| stage.worker == worker);
        stage.filter(|_| self.epoch == epoch)
    }

    /// See [`position`](Self::position).
    pub(super) fn stage_mut(&mut self, worker: WorkerId, epoch: PlanEpoch) -> Option<&mut Stage> {
        self.position(worker, epoch).map(|stage| &mut self.stages[stage])
    }

    pub(super) fn holds(&self, worker: WorkerId) -> bool {
        self.position(worker, self.epoch).is_some()
    }

    /// How long it has been served, if it is.
    pub(super) fn served_for(&self, now: Duration) -> Option<Duration> {
        self.serving_since.map(|since| now.saturating_sub(since))
    }
}

impl Cluster {
    /// Begins a plan if there is none and there are workers enough.
    pub(super) fn try_plan(&mut self, now: Duration) {
        if self.plan.is_some() || self.unsure || now < self.placing_from {
            return;
        }
        let available = self.available(now);
        let wanted = self.workers_wanted();
        if available.len() < wanted {
            return;
        }
        let first = self.place(&self.seated(&available, wanted));
        // Workers beyond those waited for help where these are too small.
        let placed = first.or_else(|error| {
            let all = self.seated(&available, available.len().min(STAGES_MAX));
            if all.len() > wanted { self.place(&all) } else { Err(error) }
        });
        match placed {
            Ok((cut, members)) => self.begin(now, cut, &members),
            Err(error) => {
                let text = format!("no plan is possible: {error}");
                if self.trouble.as_ref() != Some(&text) {
                    self.announce(text.clone());
                    self.trouble = Some(text);
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

    /// Workers that can be placed, in order of joining.
    fn available(&self, now: Duration) -> Vec<WorkerId> {
        let mut rested: Vec<_> =
            self.workers.iter().filter(|(_, worker)| worker.rest_until <= now).collect();
        rested.sort_by_key(|(_, worker)| worker.joined);
        rested.into_iter().map(|(id, _)| *id).collect()
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

    fn place(&self, ids: &[WorkerId]) -> Result<(Cut, Vec<WorkerId>), PlanError> {
        let members: Vec<Member> = ids.iter().map(|id| self.worker(*id).member.clone()).collect();
        let previous: Vec<u32> = self.seats.iter().map(|(_, layers)| *layers).collect();
        let request = CutRequest {
            ctx_size: self.config.ctx_size,
            cut: self.config.cut.clone(),
            rows_max: self.rows_max(),
            kv_type: self.config.kv_type,
            block_len: self.config.block_len,
            previous: Some(previous).filter(|counts| !counts.is_empty()),
        };
        let cut = cut(&self.config.layout, &members, &request)?;
        let placed = cut.members.iter().map(|member| ids[*member]).collect();
        Ok((cut, placed))
    }

    /// Rows of a microbatch: as configured, but no more than fit a frame as hidden states.
    fn rows_max(&self) -> u32 {
        let width = usize::try_from(self.config.layout.hidden).expect("usize has 32 bits") * 4;
        let most = (FORWARD_PAYLOAD_MAX / width.max(1)).clamp(1, ROWS_PER_MICROBATCH_MAX);
        self.config.rows_max.clamp(1, u32::try_from(most).expect("at most 2,048"))
    }

    /// Rows that no stage of `plan` computes for much longer than [`FORWARD_TARGET`], by what its
    /// worker measured; a decode step of one request waits at most for that many of another's prompt.
    fn rows_of(&self, plan: &Plan) -> u32 {
        let rows = |stage: usize| {
            let worker = self.workers.get(&plan.stages[stage].worker)?;
            let layers = plan.cut.layers[stage].clone();
            let macs = self.config.layout.stage_macs_per_token(layers).max(1);
            Some(worker.member.macs_per_s.saturating_mul(FORWARD_TARGET.as_secs()) / macs)
        };
        let slowest = (0..plan.stages.len()).filter_map(rows).min().unwrap_or(u64::MAX);
        let most = self.rows_max();
        u32::try_from(slowest).unwrap_or(most).clamp(ROWS_MIN.min(most), most)
    }

    fn begin(&mut self, now: Duration, cut: Cut, ids: &[WorkerId]) {
        self.epoch.0 += 1;
        self.trouble = None;
        self.seats = ids.iter().copied().zip(cut.counts()).collect();
        let stages: Vec<_> = ids
            .iter()
            .zip(&cut.layers)
            .map(|(id, layers)| Stage { worker: *id, layers: layers.clone(), ready: None })
            .collect();
        let plan = Plan { epoch: self.epoch, cut, stages, serving_since: None };
        for line in self.plan_lines(&plan) {
            self.announce(line);
        }
        for (stage, id) in ids.iter().enumerate() {
            let assign = Box::new(self.assign(&plan, stage));
            self.actions.push_back(Action::Assign { worker: *id, assign });
            self.worker_mut(*id).assign(now);
        }
        self.plan = Some(plan);
    }

    fn assign(&self, plan: &Plan, stage: usize) -> Assign {
        let number = |value: usize| u32::try_from(value).expect("stages are few");
        let limits = self.limits(plan);
        let Range { start, end } = plan.stages[stage].layers;
        let next = plan.stages.get(stage + 1).map(|next| {
            let worker = self.worker(next.worker);
            let (address, name) = (worker.address.clone(), worker.name.clone());
            Neighbour { worker: next.worker, address, name }
        });
        Assign {
            epoch: plan.epoch,
            fingerprint: self.config.fingerprint,
            machine: self.config.machine,
            parts: self.config.parts.clone(),
            stage: number(stage),
            stage_count: limits.stages,
            layer_first: start,
            layer_end: end,
            ctx_size: limits.ctx_size,
            kv_blocks: limits.kv_blocks,
            rows_max: limits.rows_max,
            in_flight_max: limits.in_flight_max,
            kv_type: match self.config.kv_type {
                KvType::F16 => WireKvType::F16,
                KvType::Q8_0 => WireKvType::Q8_0,
            },
            hidden: self.config.layout.hidden,
            next,
            previous: stage.checked_sub(1).map(|previous| plan.stages[previous].worker),
        }
    }

    fn limits(&self, plan: &Plan) -> PlanLimits {
        let number = |value: usize| u32::try_from(value).expect("stages and chunks are few");
        let stages = plan.stages.len();
        PlanLimits {
            epoch: plan.epoch,
            stages: number(stages),
            // One for each stage to compute, and one on its way.
            in_flight_max: number((stages + 1).min(IN_FLIGHT_MAX)),
            ctx_size: self.config.ctx_size,
            kv_blocks: plan.cut.kv_blocks,
            block_len: self.config.block_len,
            rows_max: self.rows_of(plan),
            chunks_max: number(CHUNKS_PER_MICROBATCH_MAX),
            vocab: self.config.layout.vocab,
        }
    }

    /// Serves the plan if all its stages are ready.
    pub(super) fn start_serving(&mut self, now: Duration) {
        let Some(plan) = self.plan.as_ref() else { return };
        let info = |stage: &Stage| {
            stage.ready.clone().map(|ready| StageInfo {
                worker: stage.worker,
                name: self.worker(stage.worker).name.clone(),
                layers: stage.layers.clone(),
                ready,
            })
        };
        let Some(stages) = plan.stages.iter().map(info).collect::<Option<Vec<_>>>() else {
            return;
        };
        let limits = self.limits(plan);
        for line in self.serving_lines(plan, &stages) {
            self.announce(line);
        }
        self.actions.push_back(Action::Serving { limits, stages });
        if let Some(plan) = self.plan.as_mut() {
            plan.serving_since = Some(now);
        }
    }

    /// Workers of the plan in force.
    pub(super) fn planned(&self) -> BTreeSet<WorkerId> {
        self.plan.iter().flat_map(|plan| &plan.stages).map(|stage| stage.worker).collect()
    }

    pub(super) fn worker(&self, id: WorkerId) -> &Worker {
        self.workers.get(&id).expect("plans and seats hold live workers only")
    }

    fn worker_mut(&mut self, id: WorkerId) -> &mut Worker {
        self.workers.get_mut(&id).expect("plans and seats hold live workers only")
    }
}
