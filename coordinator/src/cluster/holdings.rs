//! Who holds what: the memory that the plans of each lane count on, worker by worker.

use super::Cluster;
use super::placement::Placement;
use super::taken::Taken;
use crate::status::{Holding, WorkerMemory};
use crate::units::show_size;
use woolly_protocol::ids::WorkerId;

/// Workers that a sentence about memory names; what the others hold is said in the status.
const NAMED_MAX: usize = 8;

impl Placement {
    /// What its plans hold on a worker; `None` if it has no stage there.
    fn taken_of(&self, id: WorkerId) -> Option<Taken> {
        let plans = self.plan.iter().chain(&self.next);
        let held = plans.filter_map(|plan| {
            let stage = plan.stages.iter().position(|stage| stage.worker == id)?;
            Some(Taken::of(&plan.cut.stages[stage]))
        });
        held.reduce(Taken::plus)
    }
}

impl Cluster {
    /// What each worker may use, and what each lane's plans hold of it.
    pub fn holdings(&self) -> Vec<WorkerMemory> {
        let of_worker = |(id, worker): (WorkerId, &super::worker::Worker)| {
            let held = self.placements.values().filter_map(|placement| {
                let Taken { weights, kv, scratch } = placement.taken_of(id)?;
                Some(Holding { model: placement.config.name.clone(), weights, kv, scratch })
            });
            WorkerMemory {
                worker: worker.name.clone(),
                worker_id: id.hex(),
                allowance: worker.member.memory_bytes,
                free: self.members.with_free_memory(id, None).memory_bytes,
                models: held.collect(),
            }
        };
        self.members.iter().map(of_worker).collect()
    }

    /// The same in words, of workers that hold something; empty if none does.
    pub fn holdings_text(&self) -> String {
        let held: Vec<WorkerMemory> =
            self.holdings().into_iter().filter(|memory| !memory.models.is_empty()).collect();
        let mut said: Vec<String> = held.iter().take(NAMED_MAX).map(sentence).collect();
        if held.len() > NAMED_MAX {
            said.push(format!("{} more workers hold stages", held.len() - NAMED_MAX));
        }
        said.join("; ")
    }
}

fn sentence(memory: &WorkerMemory) -> String {
    let each = memory.models.iter().map(|held| {
        let all = show_size(held.weights + held.kv + held.scratch);
        let (weights, kv) = (show_size(held.weights), show_size(held.kv));
        format!("'{}' holds {all} ({weights} of weights, {kv} of KV)", held.model)
    });
    format!(
        "worker {} may use {}: {}, {} are free",
        memory.worker,
        show_size(memory.allowance),
        each.collect::<Vec<_>>().join(", "),
        show_size(memory.free)
    )
}
