//! The cluster at one moment, put together of what each part knows of itself.

use super::Driver;
use super::lane::Lane;
use crate::cluster::Placed;
use crate::snapshot::{ModelSnapshot, Snapshot};
use std::time::Duration;

impl Driver {
    /// All that is known but the time of day and the events, which others keep.
    pub(super) fn snapshot(&self) -> Snapshot {
        let now = self.now();
        let cluster = &self.members.cluster;
        let models =
            self.lanes.iter().map(|(id, lane)| lane.snapshot(now, cluster.placed(now, *id)));
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            numerics: cluster.numerics(),
            up_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            workers: self.members.snapshot(now),
            models: models.collect(),
            ..Snapshot::default()
        }
    }
}

impl Lane {
    /// What is known of its model, `placed` being what the cluster core knows of its plans.
    fn snapshot(&self, now: Duration, placed: Placed) -> ModelSnapshot {
        let (counts, status) = (self.counts(), self.config.status.borrow().clone());
        let placement = &self.config.placement;
        let state = match (self.is_leaving(), status.ready, placed.has_served) {
            (true, ..) => "unloading",
            (_, true, _) => "ready",
            (.., true) => "waiting",
            _ => "loading",
        };
        let mut plan = placed.plan;
        let served = plan.as_mut().filter(|plan| self.serves(plan.plan));
        let has_plan = served.is_some();
        for (number, stage) in served.into_iter().flat_map(|plan| &mut plan.stages).enumerate() {
            stage.recent = self.recent(now, number);
        }
        let of_plan = |blocks: u32| has_plan.then_some(blocks);
        ModelSnapshot {
            model: self.config.model.name.clone(),
            state: state.to_owned(),
            detail: status.detail,
            objective: placement.cut.is_none().then(|| placement.objective.name().to_owned()),
            ctx_size: placement.ctx_size,
            kv_type: placement.kv_type.name().to_owned(),
            running: counts.running,
            waiting: counts.waiting,
            in_flight: counts.in_flight,
            preemptions: counts.preemptions,
            failovers: counts.failovers,
            kv_blocks: of_plan(counts.kv_blocks),
            kv_blocks_free: of_plan(counts.kv_blocks_free),
            kv_blocks_cached: of_plan(counts.kv_blocks_cached),
            plan,
            next: placed.next,
        }
    }
}
