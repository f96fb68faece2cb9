//! What one stage takes of the memory of its worker.

use woolly_engine::plan::StageBudget;

/// What a stage takes of its worker's memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub(super) weights: u64,
    pub(super) kv: u64,
    pub(super) scratch: u64,
}

impl Taken {
    /// Weights that stay on the disk take none.
    pub(super) fn of(budget: &StageBudget) -> Taken {
        let weights = budget.own_bytes - budget.disk_bytes;
        Taken { weights, kv: budget.kv_bytes, scratch: budget.scratch_bytes }
    }

    pub(super) fn bytes(self) -> u64 {
        self.weights + self.kv + self.scratch
    }

    pub(super) fn plus(self, other: Taken) -> Taken {
        Taken {
            weights: self.weights + other.weights,
            kv: self.kv + other.kv,
            scratch: self.scratch + other.scratch,
        }
    }
}
