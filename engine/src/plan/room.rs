//! What fits: the memory that workers have, and what stages take of it.
//!
//! A stage fits if `weights + scratch + KV ≤ allowance`. KV is the same number of blocks on every
//! stage, at least one context and at most the request's `contexts_max` of them. Blocks here are whole
//! ones, see `caches.rs`. Workers of one machine share its memory unless they have memory of their own.

use std::collections::BTreeMap;
use std::ops::Range;

use super::caches::Shares;
use super::cut_request::{CutRequest, Member};
use super::disk::slices_in_memory;
use super::layout::ModelLayout;
use super::partition::Stages;
use crate::arch::layer::LayerShape;
use crate::limits::LOGIT_ROWS;

/// Bytes of buffers that a stage needs for a forward of up to `rows_max` rows.
///
/// ```text
/// rows_max × (4·hidden + 2·ffn + 2·heads·head_dim + 2·kv_heads·head_dim) × 4 bytes
///   + with experts: rows_max × (used × (2·max(hidden, width) + 8) + experts + hidden) × 4 bytes
///   + on the last stage 32 rows of logits: 32 × vocab × 4 bytes
/// ```
///
/// Hidden states come in, stand beside their norm and residual, and go out; gate and up, of all chosen experts;
/// queries, attention's result, keys and values. Quantised activations are smaller than what they replace.
/// Rows that are sorted by expert stand there once for each, in two forms at most; scores; what a
/// shared expert gives.
pub fn scratch_bytes(layout: &ModelLayout, layers: &Range<u32>, rows_max: u32) -> u64 {
    let width = |layer: &LayerShape| {
        let (experts, used) = layer.experts();
        let of_experts = used * (2 * layer.sorted_width() + 8) + experts + layer.apart_width();
        let dense = 4 * layer.hidden + 2 * layer.ffn_width();
        dense + 2 * (layer.q_width() + layer.kv_width()) + of_experts
    };
    let row = layout.layer_shapes().iter().map(width).max().unwrap_or(0) as u64;
    let last = layers.end == layout.layers;
    let logits = if last { LOGIT_ROWS as u64 * u64::from(layout.vocab) } else { 0 };
    4 * (u64::from(rows_max) * row + logits)
}

/// The workers' memory, and the model and the request that want some of it.
pub(super) struct Room<'a> {
    pub(super) layout: &'a ModelLayout,
    pub(super) members: &'a [Member],
    pub(super) request: &'a CutRequest,
    /// The memory pool of each member: its own, or that of its machine.
    pub(super) pool_of: Vec<usize>,
    /// Bytes of each pool.
    pub(super) pools: Vec<u64>,
    /// Whether members that may leave weights on the disk do so.
    pub(super) from_disk: bool,
    /// What such a member must have in memory of a stage without experts.
    pub(super) slices_in_memory: u64,
    /// The cache groups.
    pub(super) shares: Shares,
    /// Bytes of buffers of the last stage and of each other one: all layers are looked at for them, which
    /// is too much to do for every stage that is thought of.
    scratch_of_last: u64,
    scratch_of_others: u64,
}

impl<'a> Room<'a> {
    /// The pools that the members' memory makes.
    pub(super) fn new(
        layout: &'a ModelLayout,
        members: &'a [Member],
        request: &'a CutRequest,
    ) -> Self {
        let mut pools: Vec<u64> = Vec::new();
        let mut shared: BTreeMap<[u8; 16], usize> = BTreeMap::new();
        let mut pool_of = Vec::with_capacity(members.len());
        for member in members {
            let pool = if member.memory_is_own {
                pools.len()
            } else {
                *shared.entry(member.machine).or_insert(pools.len())
            };
            match pools.get_mut(pool) {
                // Workers of a machine see the same memory; if not, the smallest figure holds.
                Some(bytes) => *bytes = member.memory_bytes.min(*bytes),
                None => pools.push(member.memory_bytes),
            }
            pool_of.push(pool);
        }
        let scratch = |layers: Range<u32>| scratch_bytes(layout, &layers, request.rows_max);
        let (scratch_of_last, scratch_of_others) = (scratch(0..layout.layers), scratch(0..0));
        let CutRequest { ctx_size, rows_max, block_len, .. } = *request;
        let shares = Shares::new(layout, request.kv_type, (ctx_size, rows_max, block_len));
        Self {
            layout,
            members,
            request,
            pool_of,
            pools,
            shares,
            from_disk: false,
            slices_in_memory: slices_in_memory(layout),
            scratch_of_last,
            scratch_of_others,
        }
    }

    /// Blocks that hold one context.
    pub(super) fn blocks_per_ctx(&self) -> u64 {
        self.shares.per_ctx()
    }

    /// Weights that must be in memory, and scratch.
    pub(super) fn fixed_bytes(&self, member: usize, layers: &Range<u32>) -> u64 {
        self.weights_bytes(member, layers) + self.scratch_bytes(layers)
    }

    /// As the function of that name.
    pub(super) fn scratch_bytes(&self, layers: &Range<u32>) -> u64 {
        if layers.end == self.layout.layers { self.scratch_of_last } else { self.scratch_of_others }
    }

    /// Bytes of the KV cache of a stage with so many blocks.
    pub(super) fn kv_bytes(&self, layers: &Range<u32>, blocks: u64) -> u64 {
        self.shares.bytes(layers, blocks)
    }

    /// Whether the member's own limit on KV allows `blocks` of them.
    pub(super) fn kv_allowed(&self, member: usize, layers: &Range<u32>, blocks: u64) -> bool {
        let limit = self.members[member].kv_memory_bytes;
        limit == 0 || self.kv_bytes(layers, blocks) <= limit
    }

    /// Bytes of a stage with so many blocks on the member.
    pub(super) fn need(&self, member: usize, layers: &Range<u32>, blocks: u64) -> u64 {
        self.fixed_bytes(member, layers).saturating_add(self.kv_bytes(layers, blocks))
    }

    /// Bytes that the stages take of each pool.
    pub(super) fn taken(&self, stages: &Stages, blocks: u64) -> Vec<u64> {
        let mut taken = vec![0u64; self.pools.len()];
        for (member, layers) in stages {
            let pool = &mut taken[self.pool_of[*member]];
            *pool = pool.saturating_add(self.need(*member, layers, blocks));
        }
        taken
    }

    /// Blocks that each stage could hold beside its weights; 0 if not even those fit.
    pub(super) fn allowed_blocks(&self, stages: &Stages) -> Vec<u64> {
        let fixed = self.taken(stages, 0);
        let mut per_block = vec![Vec::new(); self.pools.len()];
        for (member, layers) in stages {
            let (bytes, sum) =
                (self.shares.block_bytes(layers), &mut per_block[self.pool_of[*member]]);
            sum.resize(bytes.len(), 0);
            for (sum, bytes) in sum.iter_mut().zip(bytes) {
                *sum += bytes;
            }
        }
        let allowed = |(member, layers): &(usize, Range<u32>)| {
            let pool = self.pool_of[*member];
            let left = self.pools[pool].saturating_sub(fixed[pool]);
            let shared = self.shares.within(left, &per_block[pool]);
            match self.members[*member].kv_memory_bytes {
                0 => shared,
                own => shared.min(self.shares.within(own, &self.shares.block_bytes(layers))),
            }
        };
        stages.iter().map(allowed).collect()
    }
}
