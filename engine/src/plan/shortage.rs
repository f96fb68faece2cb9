//! Where memory is too little, which stage misses most, and what all together have and need.

use std::ops::Range;

use super::error::{MemoryLimit, PlanError};
use super::partition::{Stages, partition};
use super::room::Room;

impl Room<'_> {
    /// The cut that misses the fewest bytes on its worst stage, each pool parted equally.
    pub(super) fn nearest_miss(&self) -> Stages {
        let blocks = self.blocks_per_ctx();
        let cost = |member: usize, layers: Range<u32>| {
            Some(self.need(member, &layers, blocks).saturating_sub(self.part(member)))
        };
        partition(self.members.len(), self.layout.layers, &cost)
            .expect("without limits every cut is possible")
    }

    /// The member's equal part of its pool.
    pub(super) fn part(&self, member: usize) -> u64 {
        let pool = self.pool_of[member];
        let sharers = self.pool_of.iter().filter(|&&other| other == pool).count() as u64;
        self.pools[pool] / sharers
    }

    /// Says which stage misses most, by how much, and what all together have and need.
    pub(super) fn explain(&self, stages: &Stages) -> PlanError {
        let blocks = self.blocks_per_ctx();
        let taken = self.taken(stages, blocks);
        let short = |(member, layers): &(usize, Range<u32>)| {
            let pool = self.pool_of[*member];
            let kv = self.kv_bytes(layers, blocks);
            let kv_limit = self.members[*member].kv_memory_bytes;
            let kv_short = if kv_limit == 0 { 0 } else { kv.saturating_sub(kv_limit) };
            kv_short.max(taken[pool].saturating_sub(self.pools[pool]))
        };
        let worst = (0..stages.len())
            .max_by_key(|&stage| {
                let (member, layers) = &stages[stage];
                (short(&stages[stage]), self.need(*member, layers, blocks))
            })
            .expect("a cut has a stage");
        let (place, layers) = &stages[worst];
        let (member, pool) = (&self.members[*place], self.pool_of[*place]);
        let need = self.need(*place, layers, blocks);
        let missing = short(&stages[worst]);
        let kv = self.kv_bytes(layers, blocks);
        // What the other workers of the machine leave.
        let allowance = self.pools[pool].saturating_sub(taken[pool] - need);
        let kv_limit = member.kv_memory_bytes;
        let limit = if kv_limit > 0 && kv.saturating_sub(kv_limit) == missing {
            MemoryLimit::KvCache(kv_limit)
        } else if member.memory_is_own {
            MemoryLimit::Own(allowance)
        } else {
            MemoryLimit::Machine(allowance)
        };
        let needs = stages.iter().map(|(member, layers)| self.need(*member, layers, blocks));
        PlanError::Memory {
            stage: worst,
            first: layers.start,
            last: layers.end - 1,
            missing,
            weights: self.weights_bytes(*place, layers),
            is_from_disk: self.is_from_disk(*place),
            scratch: self.scratch_bytes(layers),
            kv,
            ctx_size: self.request.ctx_size,
            limit,
            total_allowance: self.pools.iter().fold(0, |sum: u64, pool| sum.saturating_add(*pool)),
            total_needed: needs.sum(),
        }
    }
}
