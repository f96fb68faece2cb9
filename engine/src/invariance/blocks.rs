//! Who holds which blocks: given out in no order, and taken back once a window has left them behind.

use super::model::Random;
use crate::kv::{BlockTable, GroupBlocks};
use crate::limits::BLOCK_LEN;

/// What a sequence holds in one cache group.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) first: u32,
    pub(super) blocks: Vec<u32>,
}

impl Held {
    pub(super) fn table(&self) -> BlockTable<'_> {
        BlockTable { first: self.first, blocks: &self.blocks }
    }
}

/// The blocks of each cache group that nobody holds.
pub(super) struct BlockPool {
    groups: Vec<(GroupBlocks, Vec<u32>)>,
}

impl BlockPool {
    pub(super) fn new(caches: &[GroupBlocks]) -> Self {
        let mut random = Random(3);
        let groups = caches.iter().map(|group| {
            let mut free: Vec<u32> = (0..group.count).collect();
            for i in (1..free.len()).rev() {
                free.swap(i, (random.next() % (i as u64 + 1)) as usize);
            }
            (*group, free)
        });
        Self { groups: groups.collect() }
    }

    /// Blocks for the positions up to `end`.
    pub(super) fn grow(&mut self, held: &mut [Held], end: usize) {
        for (held, (_, free)) in held.iter_mut().zip(&mut self.groups) {
            while held.first as usize + held.blocks.len() < end.div_ceil(BLOCK_LEN) {
                held.blocks.push(free.pop().expect("as many blocks as are needed at once"));
            }
        }
    }

    /// Takes what no row from `done` on reads; the next to grow gets it.
    pub(super) fn leave_behind(&mut self, held: &mut [Held], done: usize) {
        for (held, (group, free)) in held.iter_mut().zip(&mut self.groups) {
            let first = group.first_read(done as u32).max(held.first);
            let left = (first - held.first) as usize;
            free.extend(held.blocks.drain(..left.min(held.blocks.len())));
            held.first = first;
        }
    }

    /// Takes all.
    pub(super) fn take_back(&mut self, held: &mut [Held]) {
        for (held, (_, free)) in held.iter_mut().zip(&mut self.groups) {
            free.append(&mut held.blocks);
            held.first = 0;
        }
    }
}
