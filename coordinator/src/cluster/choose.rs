//! Who computes a lane's layers next, and with which cut.
//!
//! The first plan waits for as many workers as were asked for. Once one was served fewer have to do: after a
//! loss a spare takes the lost one's place, and where there is none the layers are cut over those who
//! remain. A cut that was given holds where there are workers for its stages.

use super::action::{Action, Actions};
use super::epochs::Epochs;
use super::membership::Membership;
use super::placement::Placement;
use super::plan::{Plan, Stage};
use super::seats::arrange;
use super::taken::Taken;
use std::time::Duration;
use woolly_engine::plan::{Cut, CutRequest, KV_CTX_MAX, Member, PlanError, cut};
use woolly_protocol::ids::{PlanEpoch, WorkerId};
use woolly_protocol::limits::STAGES_MAX;

/// What a choice may use beside the workers.
pub(super) struct Means<'a> {
    /// The coordinator's machine.
    pub(super) machine: [u8; 16],
    /// Numbers for plans.
    pub(super) epochs: &'a mut Epochs,
}

/// A cut, and the workers of its stages.
pub(super) type Choice = (Cut, Vec<WorkerId>);

impl Placement {
    /// Begins a plan if there is none and there are workers enough; or the next one, if a worker of the plan
    /// that is served is about to leave.
    pub(super) fn try_plan(
        &mut self,
        now: Duration,
        means: &mut Means<'_>,
        members: &mut Membership,
        actions: &mut Actions,
    ) {
        if self.is_unsure() {
            return;
        }
        if self.plan.is_some() {
            if self.next.is_none() && self.is_about_to_end(members) {
                self.next = self.make(now, means, members, actions);
            }
        } else if !self.waits_for_suspects(now, members) {
            self.plan = self.make(now, means, members, actions);
            if let Some(plan) = &self.plan {
                self.seats = plan.seats();
                self.last_error = None;
                self.ended = None;
            }
        }
    }

    /// Whether a worker of the plan that is served is about to leave.
    fn is_about_to_end(&self, members: &Membership) -> bool {
        let leaves = |stage: &Stage| members.of_plan(stage.worker).leaving.is_some();
        let served = self.plan.as_ref().filter(|plan| plan.serving_since.is_some());
        served.is_some_and(|plan| plan.stages.iter().any(leaves))
    }

    fn make(
        &mut self,
        now: Duration,
        means: &mut Means<'_>,
        members: &mut Membership,
        actions: &mut Actions,
    ) -> Option<Plan> {
        match self.choose(now, members)? {
            Ok(choice) => {
                // Without a number there is no plan; more are being reserved.
                let epoch = means.epochs.take()?;
                Some(self.begin(now, epoch, choice, means.machine, members, actions))
            }
            Err(error) => {
                let text = format!("no plan is possible: {error}");
                if self.last_error.as_ref() != Some(&text) {
                    actions.push_back(Action::Announce(format!("{}{text}", self.prefix())));
                    if self.config.must_fit && !self.has_served {
                        let reason = text.clone();
                        actions.push_back(Action::NoRoom { lane: self.lane, reason });
                    }
                    self.last_error = Some(text);
                }
                None
            }
        }
    }

    /// The best choice; `None` while workers are waited for.
    fn choose(&self, now: Duration, members: &Membership) -> Option<Result<Choice, PlanError>> {
        self.choose_among(&members.available(now), now, members)
    }

    /// The best choice among some workers, in order of joining; `None` while more are waited for.
    pub(super) fn choose_among(
        &self,
        available: &[WorkerId],
        now: Duration,
        members: &Membership,
    ) -> Option<Result<Choice, PlanError>> {
        let links = &members.links;
        // Pairs that could not talk are tried again only where nothing else can be, and after a pause.
        let good = |link| links.is_good(link);
        let mut found = self.choose_with(available, members, good);
        if !found.as_ref().is_some_and(Result::is_ok) {
            let tried = self.choose_with(available, members, |link| links.may_be_tried(now, link));
            found = tried.or(found);
        }
        found
    }

    fn choose_with(
        &self,
        available: &[WorkerId],
        members: &Membership,
        good: impl Fn((WorkerId, WorkerId)) -> bool,
    ) -> Option<Result<Choice, PlanError>> {
        let kept: Vec<WorkerId> = self.seats.iter().map(|(id, _)| *id).collect();
        let mut last = None;
        for size in self.sizes(available.len()) {
            let Some(order) = arrange(&kept, available, size, &good) else { continue };
            match self.place(&order, members) {
                // Those without a stage are left out, which makes new neighbours.
                Ok((_, ids)) if !ids.windows(2).all(|pair| good((pair[0], pair[1]))) => {}
                Ok(choice) => return Some(Ok(choice)),
                Err(error) => last = last.or(Some(Err(error))),
            }
        }
        last
    }

    /// Numbers of workers to try, the best first.
    fn sizes(&self, available: usize) -> Vec<usize> {
        let wanted = self.workers_wanted();
        if available < wanted && !self.has_served {
            return Vec::new();
        }
        let most = available.min(STAGES_MAX);
        let usual = if self.has_served { wanted.max(self.seats.len()) } else { wanted }.min(most);
        let mut sizes = vec![usual];
        // Workers beyond those waited for help where these are too small.
        sizes.extend((most > usual).then_some(most));
        if self.has_served {
            sizes.extend((1..usual).rev());
        }
        sizes.retain(|size| *size > 0);
        sizes
    }

    /// Workers to wait for.
    pub(super) fn workers_wanted(&self) -> usize {
        let stages = self.config.cut.as_ref().map_or(1, Vec::len);
        let wanted = usize::try_from(self.config.workers_wanted).unwrap_or(STAGES_MAX);
        wanted.clamp(stages, STAGES_MAX.max(stages))
    }

    fn place(&self, ids: &[WorkerId], members: &Membership) -> Result<Choice, PlanError> {
        let present = self.plan.as_ref().map(|plan| plan.epoch);
        let free = |id: &WorkerId| {
            let mut member = members.with_free_memory(*id, present);
            if let Some(bytes) = self.config.kv_memory {
                member.kv_memory_bytes = bytes.min(member.memory_bytes).max(1);
            }
            member
        };
        let free: Vec<Member> = ids.iter().map(free).collect();
        let previous: Vec<u32> = self.seats.iter().map(|(_, layers)| *layers).collect();
        let request = CutRequest {
            ctx_size: self.config.ctx_size,
            objective: self.config.objective,
            cut: self.config.cut.clone().filter(|cut| cut.len() <= ids.len() || !self.has_served),
            rows_max: self.rows_max(),
            kv_type: self.config.kv_type,
            block_len: self.config.extent_len,
            contexts_max: self.contexts_max(&free),
            previous: Some(previous).filter(|counts| !counts.is_empty()),
        };
        let cut = cut(&self.config.layout, &free, &request)?;
        let placed = cut.members.iter().map(|member| ids[*member]).collect();
        Ok((cut, placed))
    }

    /// Sequences of full length for which there is to be memory at most. Workers that all say how much memory
    /// a cache may have mean as much of it as there is.
    pub(super) fn contexts_max<'a>(&self, members: impl IntoIterator<Item = &'a Member>) -> u64 {
        let said = members.into_iter().all(|member| member.kv_memory_bytes > 0);
        if said || self.config.kv_memory.is_some() { KV_CTX_MAX } else { self.config.contexts_max }
    }

    fn begin(
        &self,
        now: Duration,
        epoch: PlanEpoch,
        choice: Choice,
        machine: [u8; 16],
        members: &mut Membership,
        actions: &mut Actions,
    ) -> Plan {
        let made = self.made(epoch, (&choice.0, &choice.1), members);
        let told = (made.cut.clone(), made.reason.clone());
        let plan = Plan::new(epoch, choice, told);
        actions.push_back(Action::Made { lane: self.lane, made });
        actions.extend(self.plan_lines(&plan, members).into_iter().map(Action::Announce));
        for (stage, id) in plan.workers().into_iter().enumerate() {
            let assign = Box::new(self.assign(&plan, stage, machine, members));
            actions.push_back(Action::Assign { worker: id, assign });
            let bytes = Taken::of(&plan.cut.stages[stage]).bytes();
            members.of_plan_mut(id).assign(now, epoch, bytes);
        }
        plan
    }
}
