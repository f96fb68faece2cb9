//! What is told of a plan when it is made: what it takes the place of, and why.

use super::membership::Membership;
use super::placement::Placement;
use super::plan::{Plan, PlanMade};
use woolly_engine::plan::Cut;
use woolly_protocol::ids::{PlanEpoch, WorkerId};

impl Placement {
    /// What is to be told of a plan with these workers that is about to begin: in place of the one in force, of
    /// which a worker wants to leave, or of the last one that ended.
    pub(super) fn made(
        &self,
        epoch: PlanEpoch,
        (cut, ids): (&Cut, &[WorkerId]),
        members: &Membership,
    ) -> PlanMade {
        let name = |id: &WorkerId| members.of_plan(*id).name.as_str();
        let stages = ids.iter().zip(&cut.layers);
        let text = stages.map(|(id, layers)| {
            let last = layers.end.saturating_sub(1);
            format!("{} {}-{last}", name(id), layers.start)
        });
        let cut = text.collect::<Vec<_>>().join(", ");
        let (old, reason) = match (&self.plan, &self.ended) {
            (Some(plan), _) => (Some((plan.epoch, plan.text.clone())), why_it_ends(plan, members)),
            (None, Some(ended)) => (Some((ended.epoch, ended.cut.clone())), ended.reason.clone()),
            (None, None) => {
                let (here, wanted) = (members.len(), self.workers_wanted());
                (None, format!("the first plan: of {here} workers, {wanted} were waited for"))
            }
        };
        PlanMade { epoch, cut, old, reason }
    }
}

/// Why another plan is to take over from one that is served.
fn why_it_ends(plan: &Plan, members: &Membership) -> String {
    let leaving = plan.stages.iter().find_map(|stage| {
        let worker = members.of_plan(stage.worker);
        let reason = worker.leaving.as_ref()?;
        Some(format!("worker {}: {reason}", worker.name))
    });
    leaving.unwrap_or_else(|| "another plan was asked for".to_owned())
}
