//! The cluster at one moment: its workers, those that are gone, and the plans of each lane.

use super::Cluster;
use super::lost::LostWorker;
use super::membership::Membership;
use super::placement::Placement;
use super::plan::{Placed, Plan};
use super::status::percent_of;
use super::taken::Taken;
use super::worker::Worker;
use crate::ids::LaneId;
use crate::snapshot::{
    HeardSnapshot, MemorySnapshot, PlanSnapshot, StageSnapshot, WorkerSnapshot, WorkerState,
};
use crate::status::WorkerMemory;
use std::collections::BTreeMap;
use std::time::Duration;
use woolly_protocol::ids::WorkerId;

impl Cluster {
    /// What is known of each worker: those that are here in order of joining, then those that were lost, the
    /// last one first. The shell knows their round trips.
    pub fn workers(&self, now: Duration) -> Vec<(WorkerId, WorkerSnapshot)> {
        let mut here: Vec<_> = self.members.iter().collect();
        here.sort_by_key(|(_, worker)| worker.joined);
        let mut memory: BTreeMap<String, WorkerMemory> =
            self.holdings().into_iter().map(|memory| (memory.worker_id.clone(), memory)).collect();
        let of_one = |(id, worker): (WorkerId, &Worker)| {
            let ago = |then: Duration| milliseconds(now.saturating_sub(then));
            let heard = HeardSnapshot {
                joined_ms_ago: ago(worker.joined_at),
                heartbeat_ms_ago: ago(worker.heard_at),
                hears_ms_ago: ago(worker.echoed_at()),
                rtt_us: None,
            };
            let backoff = worker.backoff_until.saturating_sub(now);
            let told = WorkerSnapshot {
                reason: worker.leaving.clone(),
                backoff_ms: (!backoff.is_zero()).then(|| milliseconds(backoff)),
                memory: memory.remove(&id.hex()).map(|memory| memory_of(worker, memory)),
                heard: Some(heard),
                ..described(id, worker, self.state_of(now, id, worker))
            };
            (id, told)
        };
        let mut all: Vec<_> = here.into_iter().map(of_one).collect();
        all.extend(self.members.lost.iter().map(|lost| (lost.id, gone(now, lost))));
        all
    }

    /// Whether a worker has said that it leaves.
    pub fn is_leaving(&self, id: WorkerId) -> bool {
        self.members.iter().any(|(here, worker)| here == id && worker.leaving.is_some())
    }

    /// The plans of a lane; none of one whose model is not known yet.
    pub fn placed(&self, now: Duration, lane: LaneId) -> Placed {
        let Some(placement) = self.placements.get(&lane) else { return Placed::default() };
        let described = |plan: &Plan| plan.snapshot(now, &self.members);
        Placed {
            has_served: placement.has_served,
            plan: placement.plan.as_ref().map(described),
            next: placement.next.as_ref().map(described),
        }
    }

    fn state_of(&self, now: Duration, id: WorkerId, worker: &Worker) -> WorkerState {
        // Half of the time after which it counts as lost.
        let timeouts = &self.config.timeouts;
        let is_late = |then: Duration, limit: Duration| now.saturating_sub(then) * 2 >= limit;
        let serves = |placement: &Placement| {
            let served = placement.plan.as_ref().filter(|plan| plan.serving_since.is_some());
            served.is_some_and(|plan| plan.holds(id))
        };
        if worker.leaving.is_some() {
            WorkerState::Leaving
        } else if is_late(worker.heard_at, timeouts.heartbeat)
            || is_late(worker.echoed_at(), timeouts.unheard)
        {
            WorkerState::Unreachable
        } else if self.placements.values().any(serves) {
            WorkerState::Serving
        } else if worker.has_stage() {
            WorkerState::Loading
        } else if worker.backoff_until > now {
            WorkerState::BackingOff
        } else {
            WorkerState::Spare
        }
    }
}

impl Plan {
    fn snapshot(&self, now: Duration, members: &Membership) -> PlanSnapshot {
        let predicted = self.cut.predicted_ns.iter();
        let stages = self.stages.iter().zip(&self.cut.stages).zip(predicted);
        let described = stages.map(|((stage, budget), predicted)| {
            let Taken { weights, kv, scratch } = Taken::of(budget);
            StageSnapshot {
                worker: members.of_plan(stage.worker).name.clone(),
                worker_id: stage.worker.hex(),
                layer_first: stage.layers.start,
                layer_end: stage.layers.end,
                weights,
                disk: budget.disk_bytes,
                kv,
                scratch,
                loaded_percent: percent_of(self, stage, members),
                mapped: stage.ready.as_ref().map(|ready| ready.mapped_bytes),
                predicted_us: predicted / 1000,
                recent: None,
            }
        });
        PlanSnapshot {
            plan: self.epoch.0,
            reason: self.reason.clone(),
            served_ms: self.served_for(now).map(milliseconds),
            stages: described.collect(),
        }
    }
}

/// What is known of a worker, here or lost.
fn described(id: WorkerId, worker: &Worker, state: WorkerState) -> WorkerSnapshot {
    let member = &worker.member;
    WorkerSnapshot {
        worker: worker.name.clone(),
        worker_id: id.hex(),
        machine: member.machine.iter().map(|byte| format!("{byte:02x}")).collect(),
        address: worker.address.clone(),
        state,
        reason: None,
        backoff_ms: None,
        version: worker.version.clone(),
        isa: worker.isa.clone(),
        local: worker.is_local,
        threads: member.threads,
        read_bytes_per_s: member.read_bytes_per_s,
        macs_per_s: member.macs_per_s,
        memory: None,
        heard: None,
        lost_ms_ago: None,
        clock_ahead_ms: None,
    }
}

fn memory_of(worker: &Worker, memory: WorkerMemory) -> MemorySnapshot {
    let said = worker.member.kv_memory_bytes;
    MemorySnapshot {
        allowance: memory.allowance,
        free: memory.free,
        is_own: worker.member.memory_is_own,
        kv_memory: (said > 0).then_some(said),
        models: memory.models,
    }
}

fn gone(now: Duration, lost: &LostWorker) -> WorkerSnapshot {
    WorkerSnapshot {
        reason: Some(lost.reason.clone()),
        lost_ms_ago: Some(milliseconds(now.saturating_sub(lost.at))),
        ..described(lost.id, &lost.worker, WorkerState::Lost)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
