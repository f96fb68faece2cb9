//! The KV cache of a plan: an allocator for each cache group, and what sequences hold there.
//!
//! A sequence has a table in each group, and all its tables end with the same position. With a window a table
//! begins late: with the extent that the next row reads first.
//!
//! # What a window leaves behind
//!
//! It goes back when the rows that read it last have been *sent*, not when they are answered, and the next
//! microbatch may write there. Every stage computes forwards in the order in which they arrive: it
//! has read an extent before it writes what came later into it. Inside a microbatch it is otherwise, as all
//! its rows are written before any is read; so nothing goes back before the microbatch is complete. An extent
//! that goes back keeps its name until its place is taken: a prefix may be found by it.
//!
//! # Claims
//!
//! However long a sequence gets, it holds no more of a group with a window than `window − 1` positions
//! and its largest chunk, and an extent more for what begins and ends inside of one. A sequence claims that
//! much as it starts, and less once its prompt is computed, as it goes on row by row. It starts when the
//! claims of all leave it room. So in such a group it never waits for a block again and nobody is preempted
//! for one; only the group that remembers all positions is overbooked.

use super::blocks::Blocks;
use super::limits::{PlanLimits, blocks_for, to_u32, to_usize};
use super::prefix_key::Name;
use std::ops::Range;
use woolly_protocol::ids::BlockId;
use woolly_protocol::limits::{BLOCK_LEN, CACHE_GROUPS_MAX};

/// A sequence's blocks in one cache group.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The place of the first in the sequence.
    pub(super) first: usize,
    /// In order of position.
    pub(super) blocks: Vec<BlockId>,
    /// Extents that it may come to hold, where there is a window.
    pub(super) claimed: usize,
}

impl Table {
    /// The place after its last block.
    pub(super) fn end(&self) -> usize {
        self.first + self.blocks.len()
    }
}

/// The cache groups of a plan, in its order; none without a plan.
#[derive(Debug, Default)]
pub(super) struct Caches {
    groups: Vec<Group>,
    /// Blocks of an extent.
    per_extent: u32,
    /// Rows of the largest chunk.
    rows: usize,
}

/// A cache group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) blocks: Blocks,
    /// Positions that are remembered, the present one included; `None` remembers all.
    pub(super) window: Option<u32>,
    /// Extents that sequences claim.
    pub(super) claimed: usize,
}

impl Group {
    /// The first extent of so many positions that a row at `position` reads.
    fn first_read(&self, position: usize, extent_len: usize) -> usize {
        let begin = self.window.map_or(0, |window| (position + 1).saturating_sub(to_usize(window)));
        begin / extent_len
    }
}

impl Caches {
    /// The groups of a plan whose microbatches have at most `rows_per_step` rows.
    pub(super) fn new(plan: &PlanLimits, rows_per_step: usize) -> Self {
        let per_extent = plan.blocks_per_extent();
        let groups = plan.caches.groups().iter().map(|limits| Group {
            blocks: Blocks::new(limits.count / per_extent, per_extent),
            window: limits.window,
            claimed: 0,
        });
        let rows = to_usize(plan.rows_max).min(rows_per_step);
        let caches = Self { groups: groups.collect(), per_extent, rows };
        let longest = plan.positions_max();
        assert!(
            caches
                .groups
                .iter()
                .all(|group| caches.most(group, rows, longest) <= to_usize(group.blocks.count())),
            "the largest chunk of a sequence needs more blocks than a group has: {plan:?}"
        );
        caches
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Blocks of an extent.
    pub(super) fn per_extent(&self) -> usize {
        to_usize(self.per_extent.max(1))
    }

    /// Positions of an extent.
    pub(super) fn extent_len(&self) -> usize {
        self.per_extent() * to_usize(BLOCK_LEN)
    }

    /// Extents that hold so many positions.
    pub(super) fn extents_for(&self, positions: usize) -> usize {
        blocks_for(positions).div_ceil(self.per_extent())
    }

    /// The group that remembers all positions, if there is one.
    pub(super) fn full(&self) -> Option<&Blocks> {
        self.groups.iter().find(|group| group.window.is_none()).map(|group| &group.blocks)
    }

    /// Whether there is a group with a window.
    pub(super) fn has_windows(&self) -> bool {
        self.groups.iter().any(|group| group.window.is_some())
    }

    /// The sum over the groups of what `of` says of each in extents, in blocks.
    pub(super) fn blocks(&self, of: impl Fn(&Blocks) -> usize) -> u32 {
        let extents: usize = self.groups.iter().map(|group| of(&group.blocks)).sum();
        to_u32(extents) * self.per_extent
    }

    /// Extents whose content was given up since the plan began.
    pub(super) fn evictions(&self) -> u64 {
        self.groups.iter().map(|group| group.blocks.evictions()).sum()
    }

    /// Whether each group has so many extents that nobody holds.
    pub(super) fn have(&self, extents: usize) -> bool {
        self.groups.iter().all(|group| group.blocks.free() >= extents)
    }

    /// Gives a sequence as many extents of each group, which [`have`](Self::have) them.
    pub(super) fn take(&mut self, tables: &mut [Table], extents: usize) {
        for (group, table) in self.groups.iter_mut().zip(tables) {
            for _ in 0..extents {
                let extent = group.blocks.take().expect("so many are free");
                table.blocks.extend(group.blocks.ids(extent));
            }
        }
    }

    /// Whether a sequence that computes `rows` rows and gets `longest` positions long may claim what it may
    /// come to hold.
    pub(super) fn has_claims(&self, rows: usize, longest: usize) -> bool {
        self.groups.iter().filter(|group| group.window.is_some()).all(|group| {
            let claims = group.claimed + self.most(group, rows, longest);
            claims <= to_usize(group.blocks.count())
        })
    }

    /// Claims that for a sequence, in place of what it claimed before.
    pub(super) fn claim(&mut self, tables: &mut Vec<Table>, rows: usize, longest: usize) {
        tables.resize_with(self.groups.len(), Table::default);
        for (index, table) in tables.iter_mut().enumerate() {
            let group = &self.groups[index];
            if group.window.is_some() {
                let claimed = self.most(group, rows, longest);
                let group = &mut self.groups[index];
                group.claimed = group.claimed - table.claimed + claimed;
                table.claimed = claimed;
            }
        }
    }

    /// Extents that a sequence holds of a group at most.
    fn most(&self, group: &Group, rows: usize, longest: usize) -> usize {
        let all = self.extents_for(longest);
        group.window.map_or(all, |window| {
            // As the planner counts: the window before the chunk, the chunk, and the ends of both.
            let positions = to_usize(window) + rows.clamp(1, self.rows.max(1));
            (positions.saturating_sub(2).div_ceil(self.extent_len()) + 1).min(all)
        })
    }

    /// Takes back what no row from `position` on reads.
    pub(super) fn leave_behind(&mut self, tables: &mut [Table], position: usize) {
        let len = self.extent_len();
        for (group, table) in self.groups.iter_mut().zip(tables) {
            let first = group.first_read(position, len);
            leave_behind(&mut group.blocks, table, first);
        }
    }

    /// Takes back all that a sequence holds and claims.
    pub(super) fn take_back(&mut self, tables: Vec<Table>) {
        let per_extent = self.per_extent();
        for (group, table) in self.groups.iter_mut().zip(tables) {
            // The last first: the next to take some gets them in the old order, and what is kept of a
            // prefix is given up from its end.
            for first in table.blocks.iter().step_by(per_extent).rev() {
                group.blocks.release(group.blocks.extent_of(*first));
            }
            group.claimed -= table.claimed;
        }
    }

    /// The longest prefix, in extents, that a sequence of which `from` have been sent can go on after: all of
    /// them in the group that remembers all, and in one with a window those that the next row reads. `names`
    /// are those of its extents that may be found. Looks at the next `ahead` of them.
    pub(super) fn hit(&self, names: &[Name], from: usize, ahead: usize) -> usize {
        let len = self.extent_len();
        let mut hit = from;
        // Where those begin that are there without a gap; what was sent is there as far as it is read.
        let mut begins = [0; CACHE_GROUPS_MAX];
        for (index, name) in names.iter().enumerate().skip(from).take(ahead) {
            let (end, mut is_hit) = (index + 1, true);
            for (group, begin) in self.groups.iter().zip(&mut begins) {
                if group.blocks.find(name).is_none() {
                    if group.window.is_none() {
                        return hit;
                    }
                    *begin = end;
                }
                is_hit &= *begin <= group.first_read(end * len, len);
            }
            if is_hit {
                hit = end;
            }
        }
        hit
    }

    /// Lets a sequence hold the extents of a prefix that was [found](Self::hit), and leave behind what is not
    /// read after it.
    pub(super) fn adopt(&mut self, tables: &mut [Table], names: &[Name], found: Range<usize>) {
        let len = self.extent_len();
        for (group, table) in self.groups.iter_mut().zip(tables) {
            let first = group.first_read(found.end * len, len);
            leave_behind(&mut group.blocks, table, first);
            for name in &names[found.start.max(first)..found.end] {
                let (extent, _) = group.blocks.find(name).expect("it was found");
                group.blocks.hold(extent);
                table.blocks.extend(group.blocks.ids(extent));
            }
        }
    }

    /// How many of these extents others hold in the group that remembers all.
    pub(super) fn shared(&self, names: &[Name]) -> usize {
        let Some(full) = self.full() else { return 0 };
        names.iter().filter(|name| full.find(name).is_some_and(|(_, held)| held)).count()
    }

    /// Gives extents of a sequence, as far as it holds them, the names of their contents.
    pub(super) fn name(&mut self, tables: &[Table], names: &[Name], full: Range<usize>) {
        let per_extent = self.per_extent();
        for (group, table) in self.groups.iter_mut().zip(tables) {
            let first = table.first / per_extent;
            let held = full.start.max(first)..full.end;
            let blocks = table.blocks.iter().step_by(per_extent).skip(held.start - first);
            for (block, name) in blocks.zip(&names[held]) {
                group.blocks.name(group.blocks.extent_of(*block), *name);
            }
        }
    }

    /// A bug that tests plant: another plan's blocks are taken for those of the one before.
    #[cfg(debug_assertions)]
    pub(super) fn keep_names(&mut self, next: Caches) {
        if self.groups.len() != next.groups.len() {
            if !next.groups.is_empty() {
                *self = next;
            }
            return;
        }
        (self.per_extent, self.rows) = (next.per_extent, next.rows);
        for (group, next) in self.groups.iter_mut().zip(next.groups) {
            group.claimed = 0;
            group.blocks.keep_names(next.blocks);
        }
    }
}

/// Takes back the extents of a table before the `first` one.
fn leave_behind(blocks: &mut Blocks, table: &mut Table, first: usize) {
    let per_extent = to_usize(blocks.per_extent());
    let first = first * per_extent;
    if first <= table.first {
        return;
    }
    let left = (first - table.first).min(table.blocks.len());
    for first in table.blocks.drain(..left).step_by(per_extent) {
        blocks.release(blocks.extent_of(first));
    }
    table.first = first;
}
