//! How many blocks each cache group gets, and what they take.
//!
//! What is counted are *whole* blocks: those that hold every position of a sequence. Layers with a window hold
//! less of one, however long it is:
//!
//! ```text
//! the window before the chunk │ the chunk
//!      window − 1 positions   │  rows        and where both begin and end in the middle of a block, one block more
//! ```
//!
//! So for `w` whole blocks, of which `c` hold a context, a group whose layers hold at most `m` blocks of a
//! sequence gets `w · m / c`, rounded up: of `k` contexts that fit, each has what it may hold there. The
//! numbers are the same on every stage. A model whose layers all have windows counts in whole
//! blocks all the same, and has none.

use std::ops::Range;

use super::layout::{BLOCK_LEN, ModelLayout};
use crate::kv::{GroupBlocks, KvType};

/// Blocks that a sequence holds at most for layers with a window, if it is computed in chunks of up to
/// `rows` rows and blocks are given out `block_len` positions at a time.
pub fn window_blocks(window: u32, rows: u32, block_len: u32) -> u64 {
    let len = u64::from(block_len);
    let most = (u64::from(window) + u64::from(rows)).saturating_sub(2).div_ceil(len) + 1;
    most * len.div_ceil(BLOCK_LEN.into())
}

/// The cache of a model, as it is shared out among the cache groups.
pub(super) struct Shares {
    groups: Vec<Share>,
    /// Whole blocks of one context.
    per_ctx: u64,
    /// Blocks that are given out together.
    together: u64,
}

/// A cache group's.
struct Share {
    window: Option<u32>,
    /// Blocks for one context.
    per_ctx: u64,
    /// Bytes of one block, of the layers before each and of all.
    bytes: Vec<u64>,
}

impl Shares {
    /// For contexts of `ctx_size` positions in chunks of up to `rows` rows.
    pub(super) fn new(
        layout: &ModelLayout,
        kv_type: KvType,
        (ctx_size, rows, block_len): (u32, u32, u32),
    ) -> Self {
        let together = u64::from((block_len / BLOCK_LEN).max(1));
        let per_ctx = u64::from(ctx_size.div_ceil(BLOCK_LEN)).next_multiple_of(together);
        let groups = layout.cache_groups().iter().map(|group| {
            let window = group.forgetting.window();
            let of_window =
                window.map_or(per_ctx, |window| window_blocks(window, rows, block_len.max(1)));
            let bytes = 0..=layout.layers;
            let bytes = bytes.map(|end| layout.group_block_bytes(group, 0..end, kv_type));
            Share { window, per_ctx: of_window.min(per_ctx), bytes: bytes.collect() }
        });
        Self { groups: groups.collect(), per_ctx, together }
    }

    /// Blocks that are given out together.
    pub(super) fn together(&self) -> u64 {
        self.together
    }

    /// Whole blocks of one context.
    pub(super) fn per_ctx(&self) -> u64 {
        self.per_ctx
    }

    /// The blocks of each cache group for so many whole ones; `None` if they are beyond all numbers.
    pub(super) fn caches(&self, whole: u64) -> Option<Vec<GroupBlocks>> {
        let groups = self.groups.iter().map(|share| {
            let count = u32::try_from(self.of_group(share, whole)).ok()?;
            Some(GroupBlocks { window: share.window, count })
        });
        groups.collect()
    }

    /// Bytes of one block of each group on a stage.
    pub(super) fn block_bytes(&self, layers: &Range<u32>) -> Vec<u64> {
        self.groups.iter().map(|share| share.block_bytes(layers)).collect()
    }

    /// Bytes of the cache of a stage with so many whole blocks.
    pub(super) fn bytes(&self, layers: &Range<u32>, whole: u64) -> u64 {
        let groups = self.groups.iter();
        let bytes = groups
            .map(|share| self.of_group(share, whole).saturating_mul(share.block_bytes(layers)));
        bytes.fold(0, u64::saturating_add)
    }

    /// Whole blocks that `bytes` are enough for, if one block of each group takes so many.
    pub(super) fn within(&self, bytes: u64, block_bytes: &[u64]) -> u64 {
        let groups = || self.groups.iter().zip(block_bytes);
        let taken = |whole: u64| -> u128 {
            let of = |(share, bytes): (&Share, &u64)| {
                u128::from(self.of_group(share, whole)) * u128::from(*bytes)
            };
            groups().map(of).sum()
        };
        let of_ctx: u128 =
            groups().map(|(share, bytes)| u128::from(share.per_ctx) * u128::from(*bytes)).sum();
        let most = u128::from(bytes) * u128::from(self.per_ctx) / of_ctx.max(1);
        let mut whole = u64::try_from(most).unwrap_or(u64::MAX);
        // What groups with a window have is rounded up.
        while whole > 0 && taken(whole) > u128::from(bytes) {
            whole -= 1;
        }
        whole
    }

    fn of_group(&self, share: &Share, whole: u64) -> u64 {
        if share.per_ctx == self.per_ctx {
            return whole;
        }
        let part = (u128::from(whole) * u128::from(share.per_ctx)).div_ceil(self.per_ctx.into());
        let part = u64::try_from(part).expect("less than the whole");
        part.next_multiple_of(self.together)
    }
}

impl Share {
    fn block_bytes(&self, layers: &Range<u32>) -> u64 {
        self.bytes[layers.end as usize] - self.bytes[layers.start as usize]
    }
}

impl ModelLayout {
    /// As many blocks for each cache group: such as keep all positions.
    pub fn equal_caches(&self, count: u32) -> Vec<GroupBlocks> {
        let windows = self.cache_groups().iter().map(|group| group.forgetting.window());
        windows.map(|window| GroupBlocks { window, count }).collect()
    }

    /// Bytes of the cache of a stage with these layers and so many blocks of each cache group.
    pub fn kv_bytes(&self, layers: &Range<u32>, kv_type: KvType, caches: &[GroupBlocks]) -> u64 {
        let groups = self.cache_groups().iter().zip(caches);
        let bytes = groups.map(|(group, blocks)| {
            let block = self.group_block_bytes(group, layers.clone(), kv_type);
            block.saturating_mul(blocks.count.into())
        });
        bytes.fold(0, u64::saturating_add)
    }
}
