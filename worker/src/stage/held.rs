//! The stages that this worker's live plans are served with, for `--metrics`. A plan stands here while it is served: as many as there can be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Semaphore;
use woolly_protocol::ids::PlanEpoch;

/// A stage of a plan.
#[derive(Clone, Debug)]
pub struct HeldStage {
    /// Its number in the plan.
    pub stage: u32,
    /// First layer, and one past the last.
    pub layers: (u32, u32),
    /// Bytes of the model that are mapped.
    pub weights_bytes: u64,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Blocks of it, of all cache groups. Who holds them the coordinator knows.
    pub kv_blocks: u64,
    /// Places for forwards in flight, and how many there are in all.
    pub places: (Arc<Semaphore>, usize),
}

impl HeldStage {
    /// Forwards that have come and whose results are not on their way yet.
    pub fn in_flight(&self) -> usize {
        let (places, all) = &self.places;
        all.saturating_sub(places.available_permits())
    }
}

/// The stages by plan.
#[derive(Debug, Default)]
pub struct Held(Mutex<BTreeMap<PlanEpoch, HeldStage>>);

/// A plan is served while this is held.
#[derive(Debug)]
pub struct Holding {
    held: Arc<Held>,
    epoch: PlanEpoch,
}

impl Held {
    /// A plan is served with this stage from now on.
    pub fn begin(self: &Arc<Self>, epoch: PlanEpoch, stage: HeldStage) -> Holding {
        self.lock().insert(epoch, stage);
        Holding { held: Arc::clone(self), epoch }
    }

    /// All of them.
    pub fn stages(&self) -> Vec<(PlanEpoch, HeldStage)> {
        self.lock().iter().map(|(epoch, stage)| (*epoch, stage.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PlanEpoch, HeldStage>> {
        self.0.lock().expect("no one panics with the lock held")
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.held.lock().remove(&self.epoch);
    }
}
