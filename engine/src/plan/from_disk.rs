//! What of a stage's weights a worker must have memory for, and what it leaves on its disk.

use std::ops::Range;

use super::disk::ALL;
use super::room::Room;

impl Room<'_> {
    /// Whether the member leaves on the disk what does not fit.
    pub(super) fn is_from_disk(&self, member: usize) -> bool {
        self.from_disk && self.members[member].weights_from_disk
    }

    /// Bytes of its weights that the member must have memory for.
    pub(super) fn weights_bytes(&self, member: usize, layers: &Range<u32>) -> u64 {
        let all = self.layout.stage_bytes(layers.clone());
        if !self.is_from_disk(member) {
            all
        } else if self.layout.is_mixture() {
            all - self.layout.sum(layers, |sum| sum.bytes - sum.bytes_read[0])
        } else {
            all.min(self.slices_in_memory)
        }
    }

    /// Millionths of what may be left on the disk that do not fit the member's memory beside so many blocks.
    pub(super) fn missing(&self, member: usize, layers: &Range<u32>, blocks: u64) -> u64 {
        if !self.is_from_disk(member) {
            return 0;
        }
        let (all, paged) =
            (self.layout.stage_bytes(layers.clone()), self.layout.stage_disk_bytes(layers.clone()));
        let others = self.scratch_bytes(layers).saturating_add(self.kv_bytes(layers, blocks));
        let misses = all.saturating_add(others).saturating_sub(self.part(member)).min(paged);
        let part = u128::from(misses) * u128::from(ALL) / u128::from(paged.max(1));
        u64::try_from(part).unwrap_or(ALL)
    }

    /// Bytes of the member's weights that come from the disk when they are needed.
    pub(super) fn disk_bytes(&self, member: usize, layers: &Range<u32>, blocks: u64) -> u64 {
        let bytes = u128::from(self.layout.stage_disk_bytes(layers.clone()));
        let missing = u128::from(self.missing(member, layers, blocks));
        u64::try_from(bytes * missing / u128::from(ALL)).unwrap_or(u64::MAX)
    }
}
