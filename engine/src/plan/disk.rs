//! Stages whose weights need not fit their workers' memory: what must be in memory all the same, and what the
//! rest costs.
//!
//! | of a model | must be in memory | is read from the disk when it is needed |
//! |---|---|---|
//! | with experts | everything but experts, and of experts as much as one row reads | experts |
//! | without | twice its largest slice: what is computed with and what comes next | everything |
//!
//! What does not fit of the right column counts as so many times as slow to read as memory. It is so with
//! experts for the part that does not fit; a model without reads everything for every forward, in turn, so that
//! what is in memory is always what was needed last and never what is needed next.

use std::ops::Range;

use super::layout::ModelLayout;
use super::slice::SliceId;

/// How many times as long as from memory a byte takes from a disk: 2 GB/s beside 32.
pub(super) const SLOWER: u64 = 16;
/// Millionths of everything.
pub(super) const ALL: u64 = 1_000_000;
/// Slices of a model without experts that must be in memory.
const SLICES_IN_MEMORY: u64 = 2;

impl ModelLayout {
    /// Whether some of its layers have experts.
    pub fn is_mixture(&self) -> bool {
        self.sum(&(0..self.layers), |sum| sum.expert_bytes) > 0
    }

    /// Whether a tensor may be left on the disk where a stage does not fit its memory.
    pub fn may_be_on_disk(&self, is_of_experts: bool) -> bool {
        is_of_experts || !self.is_mixture()
    }

    /// Bytes of a stage's tensors that may be left on the disk.
    pub fn stage_disk_bytes(&self, layers: Range<u32>) -> u64 {
        if self.is_mixture() {
            self.sum(&layers, |sum| sum.expert_bytes)
        } else {
            self.stage_bytes(layers)
        }
    }

    /// Those of [`stage_disk_bytes`](Self::stage_disk_bytes) that a forward of so many rows reads.
    pub fn stage_disk_read(&self, layers: Range<u32>, rows: u32) -> u64 {
        if !self.is_mixture() {
            return self.stage_bytes_read(layers, rows);
        }
        // What is not of experts is read whatever the rows.
        self.layers_read(&layers, rows) - self.sum(&layers, |sum| sum.bytes - sum.expert_bytes)
    }
}

/// Bytes of the slices of a model without experts that must be in memory: of the largest but the embedding, of
/// which a forward reads a few rows.
pub(super) fn slices_in_memory(layout: &ModelLayout) -> u64 {
    let slices = (0..layout.layers).map(SliceId::Layer).chain([SliceId::Head]);
    SLICES_IN_MEMORY * slices.map(|slice| layout.slice_len(slice)).max().unwrap_or(0)
}

/// What reading so many bytes from a disk costs, in bytes of memory that take as long, beside the once that they are
/// read in any case; `missing` millionths of them are not in memory.
pub(super) fn surcharge(is_mixture: bool, bytes: u64, missing: u64) -> u64 {
    let part = if is_mixture || missing == 0 { missing } else { ALL };
    let more = u128::from(bytes) * u128::from(part) / u128::from(ALL) * u128::from(SLOWER - 1);
    u64::try_from(more).unwrap_or(u64::MAX)
}
