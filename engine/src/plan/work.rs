//! What stages do of each kind of work, and how slow their workers are at it.

use std::cell::RefCell;
use std::ops::Range;

use rustc_hash::FxHashMap;

use super::disk::surcharge;
use super::layout::{FEW_ROWS, MANY_ROWS, ModelLayout, PREFILL_ROWS};
use super::slowness::Slowness;
use super::speeds::Speeds;

/// A slowness of one: the work parted at will.
const PERFECT: u128 = 1_000_000;

/// A model over members of some speeds.
pub(super) struct Work<'a> {
    layout: &'a ModelLayout,
    speeds: Speeds,
    /// What all members do in a second together.
    read_of_all: u64,
    macs_of_all: u64,
    /// Of each member, the first that is as fast.
    alike: Vec<usize>,
    /// How slow such a member is with some layers: cuts for every objective and memory ask for the same.
    known: RefCell<FxHashMap<(usize, u32, u32), Slowness>>,
}

impl<'a> Work<'a> {
    /// The work of the model over members of these speeds.
    pub(super) fn new(layout: &'a ModelLayout, speeds: Speeds) -> Self {
        let (read_of_all, macs_of_all) = (speeds.read.iter().sum(), speeds.macs.iter().sum());
        let speed = |member: usize| (speeds.read[member], speeds.macs[member]);
        let first = |member| (0..member).find(|other| speed(*other) == speed(member));
        let members = 0..speeds.read.len();
        let alike = members.map(|member| first(member).unwrap_or(member)).collect();
        Self { layout, speeds, read_of_all, macs_of_all, alike, known: RefCell::default() }
    }

    /// How slow the member is with these layers, where `missing` millionths of what may be left on the disk are
    /// not in memory.
    pub(super) fn slowness(&self, member: usize, layers: &Range<u32>, missing: u64) -> Slowness {
        if missing > 0 {
            return self.reckoned(member, layers, missing);
        }
        let key = (self.alike[member], layers.start, layers.end);
        *self.known.borrow_mut().entry(key).or_insert_with(|| self.reckoned(member, layers, 0))
    }

    fn reckoned(&self, member: usize, layers: &Range<u32>, missing: u64) -> Slowness {
        let from_disk = |(bytes, of_all): (u64, u64), rows| {
            (bytes.saturating_add(self.surcharge(layers, rows, missing)), of_all)
        };
        let of_all = 0..self.layout.layers;
        let part = |work: &dyn Fn(&ModelLayout, Range<u32>) -> u64| {
            (work(self.layout, layers.clone()), work(self.layout, of_all.clone()))
        };
        let few = part(&|layout, layers| layout.stage_bytes_read(layers, FEW_ROWS));
        let many = part(&|layout, layers| layout.stage_bytes_read(layers, MANY_ROWS));
        let many_macs =
            part(&|layout, layers| u64::from(MANY_ROWS) * layout.stage_macs_per_token(layers));
        let prefill = part(&|layout, layers| layout.stage_prefill_bytes_read(layers, PREFILL_ROWS));
        let prefill_macs = part(&|layout, layers| {
            u64::from(PREFILL_ROWS) * layout.stage_prefill_macs_per_token(layers)
        });
        Slowness {
            few_rows: millionths(from_disk(few, FEW_ROWS), self.read(member)),
            many_rows: self.of_both(member, from_disk(many, MANY_ROWS), many_macs),
            prefill: self.of_both(member, from_disk(prefill, PREFILL_ROWS), prefill_macs),
        }
    }

    /// Bytes per second of the member and of all.
    fn read(&self, member: usize) -> (u64, u64) {
        (self.speeds.read[member], self.read_of_all)
    }

    /// How slow the member is with work that reads and multiplies beside each other: what takes longer
    /// counts, of the stage and of all.
    fn of_both(&self, member: usize, bytes: (u64, u64), macs: (u64, u64)) -> u64 {
        let (read, multiplied) = (self.read(member), (self.speeds.macs[member], self.macs_of_all));
        let reads_longer = u128::from(bytes.1) * u128::from(multiplied.1)
            > u128::from(macs.1) * u128::from(read.1);
        let (of_all, speed_of_all) =
            if reads_longer { (bytes.1, read.1) } else { (macs.1, multiplied.1) };
        let beside = |work, speed| millionths((work, of_all), (speed, speed_of_all));
        beside(bytes.0, read.0).max(beside(macs.0, multiplied.0))
    }

    /// What it costs to read a part of the weights from the disk.
    fn surcharge(&self, layers: &Range<u32>, rows: u32, missing: u64) -> u64 {
        if missing == 0 {
            return 0;
        }
        let bytes = self.layout.stage_disk_read(layers.clone(), rows);
        surcharge(self.layout.is_mixture(), bytes, missing)
    }

    /// Nanoseconds of the member to decode one token.
    pub(super) fn predicted_ns(&self, member: usize, layers: &Range<u32>, missing: u64) -> u64 {
        const NANOSECONDS: u128 = 1_000_000_000;
        let bytes = self.layout.stage_bytes_per_token(layers.clone());
        let bytes = bytes.saturating_add(self.surcharge(layers, 1, missing));
        let time = u128::from(bytes) * NANOSECONDS / u128::from(self.speeds.read[member]);
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

/// `(work ÷ speed) ÷ (work of all ÷ speed of all)`, in millionths.
fn millionths((work, of_all): (u64, u64), (speed, speed_of_all): (u64, u64)) -> u64 {
    // Whole numbers, so that equal input gives equal cuts on every machine.
    let time = (PERFECT * u128::from(work)).saturating_mul(u128::from(speed_of_all));
    let perfect = (u128::from(of_all) * u128::from(speed)).max(1);
    u64::try_from(time / perfect).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_work_on_the_slower_of_two_is_slow() {
        assert_eq!(millionths((5, 10), (1, 2)), 1_000_000);
        assert_eq!(millionths((5, 10), (1, 4)), 2_000_000, "the other is three times as fast");
        assert_eq!(millionths((u64::MAX, 1), (1, u64::MAX)), u64::MAX);
        assert_eq!(millionths((0, 0), (1, 1)), 0, "a model without matrices");
    }
}
