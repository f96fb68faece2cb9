//! The slices that this worker has in memory, by the contents that they are: of which model, and which
//! of its slices. Stages come and go over them. Knows no plan.
//!
//! A slice that no stage needs stays for as long as there is memory for it; of those, the least recently
//! needed go first.

use crate::weights::slice_store::Stored;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use woolly_engine::plan::SliceId;
use woolly_engine::weights::{Resident, Weights};

/// Names a model by its contents.
pub type Fingerprint = [u8; 32];

/// What is in memory, and how much of it there may be.
#[derive(Debug)]
pub struct Residents {
    /// Bytes that this worker may use in all.
    allowance: u64,
    models: BTreeMap<Fingerprint, Model>,
    /// Bytes of the stages' own: caches and buffers.
    reserved: Arc<AtomicU64>,
    /// Counts the times that something was asked for, to order what was needed when.
    now: u64,
}

/// The slices of one model.
#[derive(Debug, Default)]
struct Model {
    slices: Resident,
    needed_at: BTreeMap<SliceId, u64>,
    /// Keeps their files in the store, and those of the headers.
    files: BTreeMap<SliceId, Stored>,
}

/// Memory of a stage's own, taken off the sum when the stage goes.
#[derive(Debug)]
pub struct Reserved {
    bytes: u64,
    sum: Arc<AtomicU64>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.bytes, Relaxed);
    }
}

impl Residents {
    /// Nothing, with so many bytes for what will come.
    pub fn new(allowance: u64) -> Residents {
        Residents { allowance, models: BTreeMap::new(), reserved: Arc::default(), now: 0 }
    }

    /// The slices of a model that are in memory.
    pub fn of(&self, model: &Fingerprint) -> Resident {
        self.models.get(model).map(|model| model.slices.clone()).unwrap_or_default()
    }

    /// Holds what a stage was made of, and the files that it came from.
    pub fn hold(
        &mut self,
        model: Fingerprint,
        weights: &Weights,
        files: impl IntoIterator<Item = (SliceId, Stored)>,
    ) {
        let model = self.models.entry(model).or_default();
        let slices = weights.slices();
        let is_another = |held: &Arc<_>| slices.iter().all(|slice| !Arc::ptr_eq(slice, held));
        if slices.iter().filter_map(|slice| model.slices.get(slice.id())).any(is_another) {
            // Its files were changed; stages that are made of the old slices keep them.
            *model = Model::default();
        }
        model.slices.extend(slices);
        model.files.extend(files);
        self.note_needed();
    }

    /// Takes note of memory of a stage's own.
    pub fn reserve(&self, bytes: u64) -> Reserved {
        self.reserved.fetch_add(bytes, Relaxed);
        Reserved { bytes, sum: Arc::clone(&self.reserved) }
    }

    /// Bytes by which the allowance would be passed if `needed` more came.
    pub fn shortage(&self, needed: u64) -> u64 {
        let slices: u64 = self.models.values().map(|model| model.slices.bytes()).sum();
        let sum = slices.saturating_add(self.reserved.load(Relaxed)).saturating_add(needed);
        sum.saturating_sub(self.allowance)
    }

    /// Lets slices go that no stage needs until there is room for `needed` more bytes, the least recently
    /// needed first. Returns by how many bytes it is short all the same.
    pub fn make_room(&mut self, needed: u64) -> u64 {
        self.note_needed();
        loop {
            let short = self.shortage(needed);
            if short == 0 || !self.let_one_go() {
                return short;
            }
        }
    }

    /// Lets the slice go that was not needed for the longest time. False if a stage needs every one.
    fn let_one_go(&mut self) -> bool {
        let idle = self.models.iter().flat_map(|(name, model)| {
            let idle = model.slices.slices().filter(|slice| !is_needed(slice));
            idle.map(|slice| (model.needed_at.get(&slice.id()).copied(), *name, slice.id()))
        });
        let Some((_, name, slice)) = idle.min() else { return false };
        if let Some(model) = self.models.get_mut(&name) {
            model.slices.remove(slice);
            model.needed_at.remove(&slice);
            model.files.remove(&slice);
        }
        self.models.retain(|_, model| model.slices.slices().next().is_some());
        true
    }

    fn note_needed(&mut self) {
        self.now += 1;
        for model in self.models.values_mut() {
            for slice in model.slices.slices() {
                let needed_at = model.needed_at.entry(slice.id()).or_insert(self.now);
                if is_needed(slice) {
                    *needed_at = self.now;
                }
            }
        }
    }
}

/// Whether a stage is made of it, too.
fn is_needed<T>(slice: &Arc<T>) -> bool {
    Arc::strong_count(slice) > 1
}
