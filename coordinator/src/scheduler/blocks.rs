//! The one allocator of KV blocks: a block id means the same place on every stage.

use super::limits::to_usize;
use woolly_protocol::ids::BlockId;

/// Blocks of one plan: a free list and how many sequences hold each block.
///
/// Blocks come back last in, first out, so that a small load stays within few blocks. Memory grows
/// with the blocks that were ever used, not with those of the plan.
#[derive(Debug)]
pub(super) struct Blocks {
    count: u32,
    /// Blocks from here on were never used.
    fresh: u32,
    free: Vec<BlockId>,
    /// Holders of each block that was ever used.
    holders: Vec<u32>,
}

impl Blocks {
    /// `count` free blocks.
    pub(super) fn new(count: u32) -> Self {
        Self { count, fresh: 0, free: Vec::new(), holders: Vec::new() }
    }

    /// Blocks in all.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Blocks that nobody holds.
    pub(super) fn free(&self) -> usize {
        self.free.len() + to_usize(self.count - self.fresh)
    }

    /// A block for one holder; `None` when all are held.
    pub(super) fn take(&mut self) -> Option<BlockId> {
        if let Some(block) = self.free.pop() {
            self.holders[to_usize(block.0)] = 1;
            return Some(block);
        }
        if self.fresh == self.count {
            return None;
        }
        let block = BlockId(self.fresh);
        self.fresh += 1;
        self.holders.push(1);
        Some(block)
    }

    /// One holder less; the last one makes the block free.
    ///
    /// # Panics
    ///
    /// If nobody holds the block: it would soon be given to two.
    pub(super) fn release(&mut self, block: BlockId) {
        let holders = &mut self.holders[to_usize(block.0)];
        assert!(*holders > 0, "block {block} was released by a sequence that does not hold it");
        *holders -= 1;
        if *holders == 0 {
            self.free.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_every_block_once_and_takes_it_back() {
        let mut blocks = Blocks::new(3);
        let held: Vec<_> = std::iter::from_fn(|| blocks.take()).collect();
        assert_eq!(held, [BlockId(0), BlockId(1), BlockId(2)]);
        assert_eq!(blocks.free(), 0);
        blocks.release(BlockId(1));
        assert_eq!(blocks.free(), 1);
        assert_eq!(blocks.take(), Some(BlockId(1)));
        assert_eq!(blocks.take(), None);
    }

    #[test]
    #[should_panic(expected = "does not hold it")]
    fn a_block_cannot_be_released_twice() {
        let mut blocks = Blocks::new(2);
        let block = blocks.take().unwrap();
        blocks.release(block);
        blocks.release(block);
    }
}
