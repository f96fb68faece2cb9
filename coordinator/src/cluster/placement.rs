//! Where one lane's model is computed: who takes part, in which order, with which layers, and what ends
//! a plan.
//!
//! A placement knows its model and asks the [membership](super::membership) for workers; it knows
//! nothing of other lanes but the memory that they hold.

use super::action::{Action, Actions};
use super::membership::Membership;
use super::placement_config::PlacementConfig;
use super::plan::{Ended, Plan, Stage, StageInfo};
use super::worker::one_line;
use crate::ids::LaneId;
use crate::scheduler::Awaited;
use std::time::Duration;
use woolly_protocol::control::{ModelPart, PlanReport, Ready, Release};
use woolly_protocol::failpoint::planted;
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::ids::{PlanEpoch, WorkerId};

/// After a link of a served plan broke: longer than it takes to notice here as well that one of its ends is
/// dead, if it is.
const LINK_PAUSE: Duration = Duration::from_secs(3);

/// A plan that was served for so long says that its links work.
const LONG_SERVICE: Duration = Duration::from_secs(60);

/// The ends of a link that broke. Until both have shown that they live, or one is lost, nothing is planned.
#[derive(Clone, Debug)]
struct Suspects {
    ends: Vec<WorkerId>,
    since: Duration,
}

/// A lane's place in the cluster.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    pub(super) lane: LaneId,
    pub(super) config: PlacementConfig,
    /// BLAKE3 root over the 1 MiB chunks of the model's files.
    pub(super) fingerprint: [u8; 32],
    /// The plan in force, loading or served.
    pub(super) plan: Option<Plan>,
    /// The one that is to take over from a plan whose worker is about to leave.
    pub(super) next: Option<Plan>,
    /// Whether a plan was ever served: then fewer workers than were waited for have to do.
    pub(super) has_served: bool,
    /// Workers and layers of the latest plan, by stage: the next one keeps what it can.
    pub(super) seats: Vec<(WorkerId, u32)>,
    /// The last plan that ended, while no other was made since.
    pub(super) ended: Option<Ended>,
    /// Whether other lanes are placed, too: then plans are announced with the model's name.
    pub(super) is_one_of_several: bool,
    /// Why there is no plan although there are workers enough.
    pub(super) last_error: Option<String>,
    /// The model's files were written to: nobody is placed before it is known what they hold.
    unsure: bool,
    /// A link broke, and whose fault it is will show.
    suspects: Option<Suspects>,
    /// Workers of the plan in force that could not do their part of a next one beside it: without the present
    /// one they may.
    tried: Vec<WorkerId>,
    /// The answer that is due next, if the pipeline has work.
    pub(super) awaited: Option<Awaited>,
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
            next: None,
            has_served: false,
            seats,
            ended: None,
            is_one_of_several: false,
            last_error: None,
            unsure: false,
            suspects: None,
            tried: Vec::new(),
            awaited: None,
        }
    }

    /// Its plan with this number, in force or about to be.
    pub(super) fn plan_of(&mut self, epoch: PlanEpoch) -> Option<&mut Plan> {
        self.plan.iter_mut().chain(&mut self.next).find(|plan| plan.epoch == epoch)
    }

    /// Whether a worker holds a stage of its plan with this number.
    pub(super) fn holds(&self, worker: WorkerId, epoch: PlanEpoch) -> bool {
        let mut plans = self.plan.iter().chain(&self.next);
        plans.any(|plan| plan.position(worker, epoch).is_some())
    }

    /// A stage is loaded and linked.
    pub(super) fn handle_ready(
        &mut self,
        now: Duration,
        id: WorkerId,
        ready: &Ready,
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        let Some(plan) = self.plan_of(ready.epoch) else { return };
        let Some(stage) = plan.position(id, ready.epoch) else { return };
        if plan.stages[stage].ready.replace(ready.clone()).is_some() {
            return;
        }
        members.of_plan_mut(id).ready(now, ready.epoch);
        self.start_serving(now, members, actions);
    }

    /// A worker of a plan cannot do what it was asked, or does it wrongly. The plan that is being prepared
    /// ends in any case: it was made without knowing this.
    pub(super) fn handle_fault(
        &mut self,
        now: Duration,
        id: WorkerId,
        fault: &FaultMessage,
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        let Some(plan) = self.plan_of(fault.epoch) else { return };
        let Some(stage) = plan.position(id, fault.epoch) else { return };
        let served = plan.served_for(now);
        let in_force = self.plan.as_ref().is_some_and(|plan| plan.epoch == fault.epoch);
        let did = match fault.code {
            FaultCode::LoadFailed => "could not load its stage",
            FaultCode::SliceFailed => "could not get the weights of its stage",
            FaultCode::LinkFailed => "has no link",
            FaultCode::ComputeFailed => "failed while computing",
            FaultCode::BadMessage | FaultCode::WrongEpoch => "met a message without meaning",
        };
        // The file may be what is wrong: it is looked at before the stage is tried again.
        let look = fault.code == FaultCode::LoadFailed;
        let worker = members.of_plan_mut(id);
        let reason =
            format!("worker {} (stage {stage}) {did}: {}", worker.name, one_line(&fault.text));
        if fault.code == FaultCode::LinkFailed {
            actions.push_back(Action::Announce(reason.clone()));
            self.note_link(now, (id, fault.about), served, members, actions);
        } else if fault.code == FaultCode::LoadFailed && served.is_some() && worker.forgive(now) {
            // It had loaded the stage: its file was written to since.
            self.unsure = true;
            actions.push_back(Action::Announce(reason.clone()));
        } else {
            let backoff = worker.back_off(now, served).as_secs();
            actions
                .push_back(Action::Announce(format!("{reason}. It is tried again in {backoff} s")));
        }
        let serves = self.plan.as_ref().is_some_and(|plan| plan.holds(id));
        if !in_force && serves {
            self.tried.push(id);
        }
        self.drop_next(members, actions);
        if in_force {
            self.end_plan(now, (&reason, Duration::ZERO), members, actions);
            self.last_error = Some(reason);
        }
        if look {
            actions.push_back(Action::LookAtModel(self.lane));
        }
    }

    /// A worker says that its link with another one failed, or with us. Neither end is believed to be the
    /// cause before the other's partners say so too.
    fn note_link(
        &mut self,
        now: Duration,
        (id, other): (WorkerId, Option<WorkerId>),
        served: Option<Duration>,
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        if served.is_some() {
            let ends = std::iter::once(id).chain(other).collect();
            self.suspects = Some(Suspects { ends, since: now });
        }
        let Some(other) = other.filter(|other| members.get(*other).is_some()) else {
            // Once may be the way to us that broke; twice in a short time is no coincidence.
            let worker = members.of_plan_mut(id);
            if served.is_none() || !worker.forgive(now) {
                worker.back_off(now, served);
            }
            return;
        };
        let dials =
            self.plan.iter().chain(&self.next).any(|plan| plan.links().contains(&(id, other)));
        let direction = if dials { (id, other) } else { (other, id) };
        members.links.note(now, direction, served.is_some());
        let accused = planted("believe-first-accuser").then_some(other);
        if let Some(culprit) = accused.or_else(|| members.links.culprit(direction)) {
            let worker = members.of_plan_mut(culprit);
            let backoff = worker.back_off(now, served).as_secs();
            let text = format!(
                "worker {} fails to be reached by several others: it is tried again in {backoff} s; let \
                 UDP through between it and them, or set its --listen and --advertise",
                worker.name
            );
            actions.push_back(Action::Announce(text));
        }
    }

    /// Whether it is still to show which end of a link that broke is to blame.
    pub(super) fn waits_for_suspects(&mut self, now: Duration, members: &Membership) -> bool {
        let Some(Suspects { ends, since }) = &self.suspects else { return false };
        let lives = |id: &WorkerId| members.get(*id).is_none_or(|worker| worker.heard_at > *since);
        let waits = now < *since + LINK_PAUSE && !ends.iter().all(lives);
        if !waits {
            self.suspects = None;
        }
        waits
    }

    /// When that is over at the latest.
    pub(super) fn suspects_until(&self) -> Option<Duration> {
        self.suspects.as_ref().map(|suspects| suspects.since + LINK_PAUSE)
    }

    /// The model's files were written to, and are being read.
    pub(super) fn handle_model_unsure(&mut self) {
        self.unsure = true;
    }

    /// Whether nothing may be planned before it is known what the model's files hold.
    pub(super) fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// The model's files hold the model. Whether that was not known before.
    pub(super) fn handle_model_verified(&mut self, parts: Vec<ModelPart>) -> bool {
        self.config.parts = parts;
        std::mem::replace(&mut self.unsure, false)
    }

    /// What a worker says of forwards that it computed.
    pub(super) fn handle_report(&mut self, id: WorkerId, report: &PlanReport) {
        let Some(last) = report.timings.iter().map(|timing| timing.microbatch).max() else {
            return;
        };
        let Some(plan) = self.plan_of(report.epoch) else { return };
        if let Some(stage) = plan.position(id, report.epoch) {
            let computed = &mut plan.stages[stage].computed;
            *computed = last.max(*computed);
        }
    }

    /// The answer that is awaited does not come: the stage that did not compute its microbatch backs off.
    pub(super) fn handle_stuck(
        &mut self,
        now: Duration,
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        let Some((awaited, plan)) = self.awaited.zip(self.plan.as_ref()) else { return };
        let (stage, served) = (plan.stuck_at(awaited.microbatch), plan.served_for(now));
        let id = plan.stages[stage].worker;
        let silent = now.saturating_sub(awaited.since);
        let worker = members.of_plan_mut(id);
        let reason = format!(
            "worker {} (stage {stage}) lives, but has not computed microbatch {} for {:.1} s",
            worker.name,
            awaited.microbatch,
            silent.as_secs_f32()
        );
        let backoff = worker.back_off(now, served).as_secs();
        actions.push_back(Action::Announce(format!("{reason}. It is tried again in {backoff} s")));
        self.drop_next(members, actions);
        self.end_plan(now, (&reason, silent), members, actions);
        self.last_error = Some(reason);
    }

    /// A worker is gone, and known no more.
    pub(super) fn handle_lost(
        &mut self,
        now: Duration,
        id: WorkerId,
        (reason, silent): (&str, Duration),
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        if self.suspects.as_ref().is_some_and(|suspects| suspects.ends.contains(&id)) {
            self.suspects = None;
        }
        if self.next.as_ref().is_some_and(|plan| plan.holds(id)) {
            self.drop_next(members, actions);
        }
        if self.plan.as_ref().is_some_and(|plan| plan.holds(id)) {
            self.end_plan(now, (reason, silent), members, actions);
            self.last_error = Some(reason.to_owned());
        }
    }

    /// Ends the plan in force: those who are left give their stages back and wait. If another was being
    /// prepared it is the one in force now. `silent` is how long the cause had shown no life.
    pub(super) fn end_plan(
        &mut self,
        now: Duration,
        (reason, silent): (&str, Duration),
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        let Some(plan) = self.plan.take() else { return };
        self.awaited = None;
        if let Some(since) = plan.serving_since {
            let (lane, epoch, reason) = (self.lane, plan.epoch, reason.to_owned());
            actions.push_back(Action::Stopped { lane, epoch, reason, silent });
            if now.saturating_sub(since) >= LONG_SERVICE {
                plan.links().into_iter().for_each(|link| members.links.works(link));
            }
        }
        release(&plan, members, actions);
        self.ended = Some(Ended { epoch: plan.epoch, cut: plan.text, reason: reason.to_owned() });
        for id in self.tried.drain(..) {
            if let Some(worker) = members.get_mut(id) {
                worker.backoff_until = worker.backoff_until.min(now);
            }
        }
        self.promote(now, members, actions);
    }

    /// The shell has switched to the plan that was offered: the one before ends.
    pub(super) fn handle_taken_over(
        &mut self,
        now: Duration,
        epoch: PlanEpoch,
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        if self.next.as_ref().is_none_or(|next| next.epoch != epoch) {
            return;
        }
        if let Some(old) = self.plan.take() {
            release(&old, members, actions);
        }
        self.awaited = None;
        self.tried.clear();
        self.plan = self.next.take();
        if let Some(plan) = &mut self.plan {
            plan.serving_since = Some(now);
            plan.is_offered = false;
            self.seats = plan.seats();
        }
    }

    /// What was being prepared is in force now.
    fn promote(&mut self, now: Duration, members: &Membership, actions: &mut Actions) {
        let Some(next) = self.next.take() else { return };
        self.ended = None;
        self.seats = next.seats();
        self.plan = Some(Plan { is_offered: false, ..next });
        self.start_serving(now, members, actions);
    }

    /// What was being prepared is of no use.
    pub(super) fn drop_next(&mut self, members: &mut Membership, actions: &mut Actions) {
        let Some(next) = self.next.take() else { return };
        if next.is_offered {
            actions.push_back(Action::Withdrawn { lane: self.lane });
        }
        release(&next, members, actions);
    }

    /// The lane is gone: its plans end, and nobody is to be told of it.
    pub(super) fn close(self, members: &mut Membership, actions: &mut Actions) {
        for plan in self.plan.iter().chain(&self.next) {
            release(plan, members, actions);
        }
    }

    /// Serves the plan in force if all its stages are ready; offers the one that is being prepared.
    fn start_serving(&mut self, now: Duration, members: &Membership, actions: &mut Actions) {
        if let Some(plan) = self.plan.as_ref().filter(|plan| plan.serving_since.is_none()) {
            let Some(stages) = infos(plan, members) else { return };
            let (lane, limits) = (self.lane, self.limits(plan, members));
            actions.extend(self.serving_lines(plan, &stages).into_iter().map(Action::Announce));
            actions.push_back(Action::Serving { lane, limits, stages });
            self.has_served = true;
            if let Some(plan) = self.plan.as_mut() {
                plan.serving_since = Some(now);
            }
        }
        let Some(next) = self.next.as_ref().filter(|next| !next.is_offered) else { return };
        let Some(stages) = infos(next, members) else { return };
        let (lane, limits) = (self.lane, self.limits(next, members));
        actions.extend(self.serving_lines(next, &stages).into_iter().map(Action::Announce));
        actions.push_back(Action::TakeOver { lane, limits, stages });
        if let Some(next) = self.next.as_mut() {
            next.is_offered = true;
        }
    }
}

/// Those who are left give their stages back.
fn release(plan: &Plan, members: &mut Membership, actions: &mut Actions) {
    let epoch = plan.epoch;
    for stage in &plan.stages {
        if let Some(worker) = members.get_mut(stage.worker) {
            worker.release(epoch);
            actions.push_back(Action::Release { worker: stage.worker, release: Release { epoch } });
        }
    }
}

/// The stages of a plan; `None` before all are ready.
fn infos(plan: &Plan, members: &Membership) -> Option<Vec<StageInfo>> {
    let info = |stage: &Stage| {
        let ready = stage.ready.clone()?;
        let name = members.of_plan(stage.worker).name.clone();
        Some(StageInfo { worker: stage.worker, name, layers: stage.layers.clone(), ready })
    };
    plan.stages.iter().map(info).collect()
}
