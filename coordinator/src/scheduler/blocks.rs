//! The one allocator of KV blocks: a block id means the same place on every stage.
//!
//! Blocks are given out in extents (`--block-size` positions, one block unless configured). An extent
//! is in one of four states, and their sum is all extents:
//!
//! ```text
//! fresh ──► held by n sequences ──► free              (it has no name)
//!             ▲             └─────► idle: kept ──► held again (a prefix was found)
//!             └──────────────────────────────────── evicted: the one that is idle longest
//! ```
//!
//! A name stands for a content; the prefix cache gives names to extents that are full, and an extent
//! that has one is kept when its last holder leaves. Sequences hold a prefix from its start and give
//! back their last extent first, so the end of a prefix is evicted before its beginning, without which
//! the end could not be found.

use super::limits::to_usize;
use super::prefix_key::Name;
use std::collections::BTreeMap;
use woolly_protocol::ids::BlockId;

/// Blocks that are given out together, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Extent(u32);

/// An extent that was ever used.
#[derive(Debug, Default)]
struct Slot {
    /// Sequences that hold it.
    holders: u32,
    /// Its content, if the prefix cache can find it by that.
    name: Option<Name>,
    /// Its place among the idle ones; means nothing while it is held.
    idle_since: u64,
}

/// Extents of one plan.
///
/// Free extents come back last in, first out, so that a small load stays within few of them. Memory
/// grows with the extents that were ever used, not with those of the plan.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Extents in all.
    count: u32,
    /// Blocks of an extent.
    per_extent: u32,
    /// Extents from here on were never used.
    fresh: u32,
    free: Vec<Extent>,
    slots: Vec<Slot>,
    /// Extents by their content.
    named: BTreeMap<Name, Extent>,
    /// Extents that nobody holds and that have a name, idle longest first.
    idle: BTreeMap<u64, Extent>,
    /// Counts what becomes idle: the age of what is idle without a clock.
    idle_count: u64,
    evictions: u64,
}

impl Blocks {
    /// `count` free extents of `per_extent` blocks each.
    pub(super) fn new(count: u32, per_extent: u32) -> Self {
        Self {
            count,
            per_extent,
            fresh: 0,
            free: Vec::new(),
            slots: Vec::new(),
            named: BTreeMap::new(),
            idle: BTreeMap::new(),
            idle_count: 0,
            evictions: 0,
        }
    }

    /// Extents in all.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Blocks of an extent.
    pub(super) fn per_extent(&self) -> u32 {
        self.per_extent
    }

    /// Extents that can be taken: nobody holds them.
    pub(super) fn free(&self) -> usize {
        self.free.len() + to_usize(self.count - self.fresh) + self.idle.len()
    }

    /// Extents among the free ones that are kept for their content.
    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Extents whose content was given up since the plan began.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The blocks of an extent, in order of position.
    pub(super) fn ids(&self, extent: Extent) -> impl Iterator<Item = BlockId> + use<> {
        let first = extent.0 * self.per_extent;
        (first..first + self.per_extent).map(BlockId)
    }

    /// The extent of its first block.
    pub(super) fn extent_of(&self, first: BlockId) -> Extent {
        debug_assert!(first.0.is_multiple_of(self.per_extent), "{first} begins no extent");
        Extent(first.0 / self.per_extent)
    }

    /// An extent for one holder: a free one, else the one that is idle longest; `None` when all are
    /// held.
    pub(super) fn take(&mut self) -> Option<Extent> {
        if let Some(extent) = self.free.pop() {
            self.slot(extent).holders = 1;
            return Some(extent);
        }
        if self.fresh < self.count {
            let extent = Extent(self.fresh);
            self.fresh += 1;
            self.slots.push(Slot { holders: 1, ..Slot::default() });
            return Some(extent);
        }
        let (_, extent) = self.idle.pop_first()?;
        let name = self.slot(extent).name.take().expect("idle extents have a name");
        self.named.remove(&name);
        self.slot(extent).holders = 1;
        self.evictions += 1;
        Some(extent)
    }

    /// One holder less; the last one makes the extent idle if it has a name, else free.
    ///
    /// # Panics
    ///
    /// If nobody holds the extent: it would soon be given to two.
    pub(super) fn release(&mut self, extent: Extent) {
        let since = self.idle_count;
        let slot = self.slot(extent);
        assert!(slot.holders > 0, "{extent:?} was released by a sequence that does not hold it");
        slot.holders -= 1;
        if slot.holders > 0 {
            return;
        }
        if slot.name.is_none() {
            self.free.push(extent);
            return;
        }
        slot.idle_since = since;
        self.idle_count += 1;
        self.idle.insert(since, extent);
    }

    /// The extent with this content and whether anybody holds it.
    pub(super) fn find(&self, name: &Name) -> Option<(Extent, bool)> {
        let extent = *self.named.get(name)?;
        Some((extent, self.slots[to_usize(extent.0)].holders > 0))
    }

    /// One holder more of an extent that [`find`](Self::find) has found.
    pub(super) fn hold(&mut self, extent: Extent) {
        let slot = self.slot(extent);
        debug_assert!(slot.name.is_some(), "{extent:?} has no content that could be shared");
        slot.holders += 1;
        if slot.holders == 1 {
            let since = slot.idle_since;
            self.idle.remove(&since);
        }
    }

    /// Gives a held extent its content's name, unless another extent has it: then this one stays
    /// without, and is free when its holder leaves.
    pub(super) fn name(&mut self, extent: Extent, name: Name) {
        debug_assert!(self.slots[to_usize(extent.0)].holders > 0, "{extent:?} is not held");
        if let std::collections::btree_map::Entry::Vacant(entry) = self.named.entry(name) {
            entry.insert(extent);
            self.slot(extent).name = Some(name);
        }
    }

    /// A bug that tests plant: another plan's blocks are taken for those of the one before.
    #[cfg(debug_assertions)]
    pub(super) fn keep_names(&mut self, next: Blocks) {
        if next.count == 0 {
            return;
        }
        let old = std::mem::replace(self, next);
        for (index, slot) in old.slots.into_iter().enumerate().take(to_usize(self.count)) {
            let extent = Extent(self.fresh);
            self.fresh += 1;
            let idle_since = index as u64;
            self.slots.push(Slot { holders: 0, name: slot.name, idle_since });
            match slot.name {
                Some(name) => {
                    self.named.insert(name, extent);
                    self.idle.insert(idle_since, extent);
                }
                None => self.free.push(extent),
            }
            self.idle_count = idle_since + 1;
        }
    }

    fn slot(&mut self, extent: Extent) -> &mut Slot {
        &mut self.slots[to_usize(extent.0)]
    }

    /// Checks that every extent is in one state and has at most one name, and that holders are as
    /// counted by the caller.
    #[cfg(test)]
    pub(super) fn assert_consistent(&self, holders: &BTreeMap<Extent, u32>) {
        let mut free = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            let extent = Extent(u32::try_from(index).unwrap());
            assert_eq!(slot.holders, holders.get(&extent).copied().unwrap_or(0), "{extent:?}");
            let idle = self.idle.get(&slot.idle_since) == Some(&extent);
            assert_eq!(idle, slot.holders == 0 && slot.name.is_some(), "{extent:?} idle");
            if let Some(name) = slot.name {
                assert_eq!(self.named.get(&name), Some(&extent), "the name of {extent:?}");
            }
            free += usize::from(slot.holders == 0 && slot.name.is_none());
        }
        let named = self.slots.iter().filter(|slot| slot.name.is_some()).count();
        assert_eq!(named, self.named.len(), "names");
        assert_eq!(free, self.free.len(), "free extents");
        let fresh = to_usize(self.count - self.fresh);
        let sum = holders.len() + self.idle.len() + free + fresh;
        assert_eq!(sum, to_usize(self.count), "held + idle + free + fresh");
        assert!(holders.keys().all(|extent| extent.0 < self.fresh), "an extent out of nowhere");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(byte: u8) -> Name {
        Name::root(u32::from(byte))
    }

    #[test]
    fn gives_every_extent_once_and_takes_it_back() {
        let mut blocks = Blocks::new(3, 1);
        let held: Vec<_> = std::iter::from_fn(|| blocks.take()).collect();
        assert_eq!(held, [Extent(0), Extent(1), Extent(2)]);
        assert_eq!(blocks.free(), 0);
        blocks.release(Extent(1));
        assert_eq!(blocks.free(), 1);
        assert_eq!(blocks.take(), Some(Extent(1)));
        assert_eq!(blocks.take(), None);
    }

    #[test]
    #[should_panic(expected = "does not hold it")]
    fn an_extent_cannot_be_released_twice() {
        let mut blocks = Blocks::new(2, 1);
        let extent = blocks.take().unwrap();
        blocks.release(extent);
        blocks.release(extent);
    }

    #[test]
    fn an_extent_is_as_many_blocks_as_configured() {
        let mut blocks = Blocks::new(2, 4);
        blocks.take().unwrap();
        let second = blocks.take().unwrap();
        let ids: Vec<_> = blocks.ids(second).map(|id| id.0).collect();
        assert_eq!(ids, [4, 5, 6, 7]);
        assert_eq!(blocks.extent_of(BlockId(4)), second);
    }

    #[test]
    fn what_is_idle_longest_is_evicted_first_and_only_when_nothing_is_free() {
        let mut blocks = Blocks::new(3, 1);
        let extents: Vec<_> = (0..3).map(|_| blocks.take().unwrap()).collect();
        blocks.name(extents[0], name(1));
        blocks.name(extents[1], name(2));
        for extent in [extents[1], extents[0], extents[2]] {
            blocks.release(extent);
        }
        assert_eq!((blocks.free(), blocks.idle()), (3, 2));
        assert_eq!(blocks.take(), Some(extents[2]), "free ones first");
        assert_eq!(blocks.take(), Some(extents[1]));
        assert_eq!((blocks.find(&name(2)), blocks.evictions()), (None, 1));
        assert_eq!(blocks.find(&name(1)), Some((extents[0], false)));
    }

    #[test]
    fn an_extent_that_is_found_is_held_by_several() {
        let mut blocks = Blocks::new(1, 1);
        let extent = blocks.take().unwrap();
        blocks.name(extent, name(1));
        blocks.release(extent);
        blocks.hold(extent);
        assert_eq!((blocks.free(), blocks.find(&name(1))), (0, Some((extent, true))));
        blocks.hold(extent);
        blocks.release(extent);
        assert_eq!(blocks.free(), 0);
        blocks.release(extent);
        assert_eq!((blocks.free(), blocks.idle()), (1, 1));
        blocks.assert_consistent(&BTreeMap::new());
    }

    #[test]
    fn a_second_extent_of_the_same_content_has_no_name() {
        let mut blocks = Blocks::new(2, 1);
        let (first, second) = (blocks.take().unwrap(), blocks.take().unwrap());
        blocks.name(first, name(1));
        blocks.name(second, name(1));
        blocks.release(second);
        assert_eq!((blocks.idle(), blocks.free()), (0, 1));
        blocks.assert_consistent(&BTreeMap::from([(first, 1)]));
    }
}
