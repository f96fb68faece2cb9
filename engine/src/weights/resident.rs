//! Slices of one model that are in memory, with lives of their own: stages come and go over them.
//! Knows no stage.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mapping::MappedTensor;
use crate::plan::SliceId;

/// The tensors of one slice, mapped. What two slices have in common is shared by them.
#[derive(Debug)]
pub struct MappedSlice {
    pub(super) id: SliceId,
    pub(super) tensors: Vec<Arc<MappedTensor>>,
}

impl MappedSlice {
    /// Which slice it is.
    pub fn id(&self) -> SliceId {
        self.id
    }

    /// Bytes of its tensors, those shared with another slice included.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.range.len() as u64).sum()
    }

    /// Whether all of it was read in once.
    pub fn is_populated(&self) -> bool {
        self.tensors.iter().all(|tensor| tensor.is_populated())
    }
}

/// The slices of one model that somebody holds. What is in here is not mapped, advised or populated
/// again for a stage that needs it. A slice that is taken out goes when no stage has it any more.
#[derive(Clone, Debug, Default)]
pub struct Resident {
    slices: BTreeMap<SliceId, Arc<MappedSlice>>,
}

impl Resident {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Holds a slice; one that is held already is kept as it is.
    pub fn hold(&mut self, slice: &Arc<MappedSlice>) {
        self.slices.entry(slice.id).or_insert_with(|| Arc::clone(slice));
    }

    /// The slice, if it is held.
    pub fn get(&self, id: SliceId) -> Option<&Arc<MappedSlice>> {
        self.slices.get(&id)
    }

    /// Stops holding a slice.
    pub fn remove(&mut self, id: SliceId) -> Option<Arc<MappedSlice>> {
        self.slices.remove(&id)
    }

    /// Bytes of all that are held in memory; a tensor that two slices share counts once, one that is read from
    /// the disk as it is needed does not.
    pub fn bytes(&self) -> u64 {
        let tensors = self.slices().flat_map(|slice| &slice.tensors);
        let tensors = tensors.filter(|tensor| !tensor.is_on_disk());
        let places: BTreeMap<_, _> =
            tensors.map(|tensor| (Arc::as_ptr(tensor), tensor.range.len() as u64)).collect();
        places.values().sum()
    }

    /// All that are held.
    pub fn slices(&self) -> impl Iterator<Item = &Arc<MappedSlice>> {
        self.slices.values()
    }
}

impl<'a> Extend<&'a Arc<MappedSlice>> for Resident {
    fn extend<I: IntoIterator<Item = &'a Arc<MappedSlice>>>(&mut self, slices: I) {
        slices.into_iter().for_each(|slice| self.hold(slice));
    }
}
