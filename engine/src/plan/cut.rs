//! Where to cut: layers to workers, so that the slowest stage is fastest and everything fits.
//!
//! A stage's time to decode a token is what it reads divided by its worker's read bandwidth.
//! Workers of one machine share its bandwidth, and unless they have memory of their own they share
//! its memory. Of the embedding one row is read per token, of the head everything.
//!
//! What fits: `weights + scratch + KV ≤ allowance`. KV is the same number of blocks on every stage,
//! at least one context and at most [`KV_CTX_MAX`] of them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cut_request::{CutRequest, Member};
use super::error::{MemoryLimit, PlanError};
use super::layout::{BLOCK_LEN, ModelLayout};
use super::partition::{Stages, partition};
use crate::arch::layer::LayerShape;
use crate::limits::LOGIT_ROWS;

/// Contexts of `ctx_size` positions that the KV cache holds at most.
pub const KV_CTX_MAX: u64 = 16;
/// Speeds that differ by less than this many percent count as equal.
const SPEED_NOISE_PERCENT: u64 = 25;
/// A new cut must promise this many percent more to take the place of the present one; and room for
/// more KV may cost this much.
const WORTH_PERCENT: u64 = 15;
/// Time of one stage when no bandwidth is known, per byte: all workers count as equal.
const NANOSECONDS: u128 = 1_000_000_000;

/// What one stage's worker keeps in memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageBudget {
    /// The stage's tensors.
    pub own_bytes: u64,
    /// Buffers of a forward.
    pub scratch_bytes: u64,
    /// The KV cache.
    pub kv_bytes: u64,
}

/// A plan's layers and memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Layers of each stage; contiguous from 0.
    pub layers: Vec<Range<u32>>,
    /// The member of each stage, as an index into those given; ascending. Members that are not
    /// named are spares.
    pub members: Vec<usize>,
    /// Blocks of the KV cache, on every stage.
    pub kv_blocks: u32,
    /// The stage whose memory decided the number of blocks, the last such; if the limit of
    /// [`KV_CTX_MAX`] contexts did, the stage that uses most of its memory.
    pub limiting_stage: usize,
    /// Whether memory decided the number of blocks, not the limit of [`KV_CTX_MAX`] contexts.
    pub kv_is_limited_by_memory: bool,
    /// Memory of each stage.
    pub stages: Vec<StageBudget>,
    /// Predicted time of each stage to decode one token, in nanoseconds.
    pub predicted_ns: Vec<u64>,
}

impl Cut {
    /// Positions that the KV cache holds.
    pub fn kv_positions(&self) -> u64 {
        u64::from(self.kv_blocks) * u64::from(BLOCK_LEN)
    }

    /// Layers of each stage, as [`CutRequest::previous`] wants them.
    pub fn counts(&self) -> Vec<u32> {
        self.layers.iter().map(|range| range.end - range.start).collect()
    }

    /// Predicted time of the slowest stage, in nanoseconds.
    pub fn slowest_ns(&self) -> u64 {
        self.predicted_ns.iter().copied().max().unwrap_or(0)
    }
}

/// Bytes of buffers that a stage needs for a forward of up to `rows_max` rows.
///
/// ```text
/// rows_max × (4·hidden + 2·ffn + 2·heads·head_dim + 2·kv_heads·head_dim) × 4 bytes
///   + on the last stage 32 rows of logits: 32 × vocab × 4 bytes
/// ```
///
/// Hidden states come in, stand beside their norm and residual, and go out; gate and up; queries,
/// attention's result, keys and values. Quantised activations are smaller than what they replace.
pub fn scratch_bytes(layout: &ModelLayout, layers: &Range<u32>, rows_max: u32) -> u64 {
    let width = |layer: &LayerShape| {
        4 * layer.hidden + 2 * layer.ffn_width() + 2 * (layer.q_width() + layer.kv_width())
    };
    let row = layout.layer_shapes().iter().map(width).max().unwrap_or(0) as u64;
    let last = layers.end == layout.layers;
    let logits = if last { LOGIT_ROWS as u64 * u64::from(layout.vocab) } else { 0 };
    4 * (u64::from(rows_max) * row + logits)
}

/// Places the layers on `members`, which stand in order of joining.
///
/// The slowest stage is the fastest possible with room for the KV cache: of 16, 8, 4, 2 and 1
/// contexts the largest that costs at most 15 % of speed. Every member gets at least one layer if
/// there are enough layers and it can hold one. The same input gives the same cut.
///
/// # Errors
/// A context of 0 or beyond the model's; a fixed cut of another sum, or with more stages than
/// members; too little memory, with the stage and the bytes that it misses.
pub fn cut(
    layout: &ModelLayout,
    members: &[Member],
    request: &CutRequest,
) -> Result<Cut, PlanError> {
    if members.is_empty() {
        return Err(PlanError::NoMembers);
    }
    if !(1..=layout.ctx_train).contains(&request.ctx_size) {
        return Err(PlanError::Context { found: request.ctx_size, limit: layout.ctx_train });
    }
    let planner = Planner::new(layout, members, request);
    if let Some(counts) = &request.cut {
        let stages = planner.fixed(counts)?;
        return planner.finish(&stages).ok_or_else(|| planner.explain(&stages));
    }
    let Some(best) = planner.best() else {
        let nearest = planner.nearest_miss();
        return Err(planner.explain(&nearest));
    };
    Ok(planner.present(best.members.len()).filter(|present| keeps(present, &best)).unwrap_or(best))
}

/// Whether the present cut is as good as `best` but for what a change is not worth.
fn keeps(present: &Cut, best: &Cut) -> bool {
    within_percent(present.slowest_ns(), best.slowest_ns(), WORTH_PERCENT)
}

/// Whether `a` is at most `percent` percent more than `b`.
fn within_percent(a: u64, b: u64, percent: u64) -> bool {
    u128::from(a) * 100 <= u128::from(b) * u128::from(100 + percent)
}

/// Layout, members and request, with what follows from the members alone.
struct Planner<'a> {
    layout: &'a ModelLayout,
    members: &'a [Member],
    request: &'a CutRequest,
    /// Bytes per second of each member, sharing and noise counted.
    speeds: Vec<u64>,
    /// The memory pool of each member: its own, or that of its machine.
    pool_of: Vec<usize>,
    /// Bytes of each pool.
    pools: Vec<u64>,
}

impl<'a> Planner<'a> {
    fn new(layout: &'a ModelLayout, members: &'a [Member], request: &'a CutRequest) -> Self {
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
        Self { layout, members, request, speeds: speeds(members), pool_of, pools }
    }

    /// Blocks that are given out together.
    fn blocks_together(&self) -> u64 {
        u64::from((self.request.block_len / BLOCK_LEN).max(1))
    }

    /// Blocks that hold one context.
    fn blocks_per_ctx(&self) -> u64 {
        let blocks = u64::from(self.request.ctx_size.div_ceil(BLOCK_LEN));
        blocks.next_multiple_of(self.blocks_together())
    }

    /// Weights and scratch.
    fn fixed_bytes(&self, layers: &Range<u32>) -> u64 {
        self.layout.stage_bytes(layers.clone())
            + scratch_bytes(self.layout, layers, self.request.rows_max)
    }

    fn block_bytes(&self, layers: &Range<u32>) -> u64 {
        self.layout.kv_block_bytes(layers.clone(), self.request.kv_type)
    }

    /// Whether the member's own limit on KV allows `blocks` of them.
    fn kv_allowed(&self, member: usize, layers: &Range<u32>, blocks: u64) -> bool {
        let limit = self.members[member].kv_memory_bytes;
        limit == 0 || blocks * self.block_bytes(layers) <= limit
    }

    /// Nanoseconds to decode one token.
    fn time(&self, member: usize, layers: &Range<u32>) -> u64 {
        let bytes = self.layout.stage_bytes_per_token(layers.clone());
        let time = u128::from(bytes) * NANOSECONDS / u128::from(self.speeds[member]);
        u64::try_from(time).unwrap_or(u64::MAX)
    }

    /// The fastest cut, with the largest KV cache that costs little of its speed.
    fn best(&self) -> Option<Cut> {
        let fastest = self.fastest(1)?;
        let mut contexts = KV_CTX_MAX;
        while contexts > 1 {
            let cut = self.fastest(contexts).filter(|cut| {
                cut.members.len() == fastest.members.len()
                    && within_percent(cut.slowest_ns(), fastest.slowest_ns(), WORTH_PERCENT)
            });
            if cut.is_some() {
                return cut;
            }
            contexts /= 2;
        }
        Some(fastest)
    }

    /// The fastest cut with room for this many contexts.
    ///
    /// A pool that several members share couples stages that need not be neighbours. The members
    /// are first held to the whole pool each; where they take more together, each is held to its
    /// part of the pool, in proportion to what it took, and the cut is made again.
    fn fastest(&self, contexts: u64) -> Option<Cut> {
        let blocks = contexts * self.blocks_per_ctx();
        let mut caps: Vec<u64> = self.pool_of.iter().map(|&pool| self.pools[pool]).collect();
        for _ in 0..=self.pools.len() {
            let stages = self.partition(blocks, &caps)?;
            let taken = self.taken(&stages, blocks);
            if taken.iter().zip(&self.pools).all(|(taken, pool)| taken <= pool) {
                return self.finish(&stages);
            }
            for (member, layers) in &stages {
                let pool = self.pool_of[*member];
                if taken[pool] > self.pools[pool] {
                    let part = u128::from(self.need(layers, blocks)) * u128::from(self.pools[pool])
                        / u128::from(taken[pool]);
                    caps[*member] = u64::try_from(part).expect("less than the pool");
                }
            }
        }
        None
    }

    fn partition(&self, blocks: u64, caps: &[u64]) -> Option<Stages> {
        let cost = |member: usize, layers: Range<u32>| {
            let fits = self.need(&layers, blocks) <= caps[member]
                && self.kv_allowed(member, &layers, blocks);
            fits.then(|| self.time(member, &layers))
        };
        partition(self.members.len(), self.layout.layers, &cost)
    }

    /// Bytes of a stage with so many blocks.
    fn need(&self, layers: &Range<u32>, blocks: u64) -> u64 {
        self.fixed_bytes(layers).saturating_add(blocks.saturating_mul(self.block_bytes(layers)))
    }

    /// Bytes that the stages take of each pool.
    fn taken(&self, stages: &Stages, blocks: u64) -> Vec<u64> {
        let mut taken = vec![0u64; self.pools.len()];
        for (member, layers) in stages {
            let pool = &mut taken[self.pool_of[*member]];
            *pool = pool.saturating_add(self.need(layers, blocks));
        }
        taken
    }

    /// The cut that a person has fixed.
    fn fixed(&self, counts: &[u32]) -> Result<Stages, PlanError> {
        let found = || counts.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        if counts.len() > self.members.len() {
            let (stages, members) = (counts.len(), self.members.len());
            return Err(PlanError::CutStages { found: found(), stages, members });
        }
        let sum: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        if sum != u64::from(self.layout.layers) || counts.contains(&0) {
            return Err(PlanError::CutLayers { found: found(), sum, layers: self.layout.layers });
        }
        Ok(ranges(counts).into_iter().enumerate().collect())
    }

    /// The present cut with its present workers, if it is one of `stages` stages and still fits.
    fn present(&self, stages: usize) -> Option<Cut> {
        let counts = self.request.previous.as_ref().filter(|counts| counts.len() == stages)?;
        self.finish(&self.fixed(counts).ok()?)
    }

    /// The number of blocks that every stage can hold, and the stages' budgets; `None` if that is
    /// less than one context.
    fn finish(&self, stages: &Stages) -> Option<Cut> {
        let limit = KV_CTX_MAX * self.blocks_per_ctx();
        let allowed = self.allowed_blocks(stages);
        let fit = allowed.iter().copied().min()?.min(limit);
        let blocks = fit - fit % self.blocks_together();
        if blocks < self.blocks_per_ctx() {
            return None;
        }
        let limiting = (0..stages.len()).rev().min_by_key(|&stage| allowed[stage])?;
        let budget = |(_, layers): &(usize, Range<u32>)| StageBudget {
            own_bytes: self.layout.stage_bytes(layers.clone()),
            scratch_bytes: scratch_bytes(self.layout, layers, self.request.rows_max),
            kv_bytes: blocks * self.block_bytes(layers),
        };
        Some(Cut {
            layers: stages.iter().map(|(_, layers)| layers.clone()).collect(),
            members: stages.iter().map(|(member, _)| *member).collect(),
            kv_blocks: u32::try_from(blocks).ok()?,
            limiting_stage: limiting,
            kv_is_limited_by_memory: allowed[limiting] < limit,
            stages: stages.iter().map(budget).collect(),
            predicted_ns: stages
                .iter()
                .map(|(member, layers)| self.time(*member, layers))
                .collect(),
        })
    }

    /// Blocks that each stage could hold beside its weights; 0 if not even those fit.
    fn allowed_blocks(&self, stages: &Stages) -> Vec<u64> {
        let fixed = self.taken(stages, 0);
        let mut per_block = vec![0u64; self.pools.len()];
        for (member, layers) in stages {
            per_block[self.pool_of[*member]] += self.block_bytes(layers);
        }
        let allowed = |(member, layers): &(usize, Range<u32>)| {
            let pool = self.pool_of[*member];
            let shared = self.pools[pool].saturating_sub(fixed[pool]) / per_block[pool];
            match self.members[*member].kv_memory_bytes {
                0 => shared,
                own => shared.min(own / self.block_bytes(layers)),
            }
        };
        stages.iter().map(allowed).collect()
    }

    /// The cut that misses the fewest bytes on its worst stage, each pool parted equally.
    fn nearest_miss(&self) -> Stages {
        let blocks = self.blocks_per_ctx();
        let cost = |member: usize, layers: Range<u32>| {
            Some(self.need(&layers, blocks).saturating_sub(self.part(member)))
        };
        partition(self.members.len(), self.layout.layers, &cost)
            .expect("without limits every cut is possible")
    }

    /// The member's equal part of its pool.
    fn part(&self, member: usize) -> u64 {
        let pool = self.pool_of[member];
        let sharers = self.pool_of.iter().filter(|&&other| other == pool).count() as u64;
        self.pools[pool] / sharers
    }

    /// Says which stage misses most, by how much, and what all together have and need.
    fn explain(&self, stages: &Stages) -> PlanError {
        let blocks = self.blocks_per_ctx();
        let taken = self.taken(stages, blocks);
        let short = |(member, layers): &(usize, Range<u32>)| {
            let pool = self.pool_of[*member];
            let kv = blocks * self.block_bytes(layers);
            let kv_limit = self.members[*member].kv_memory_bytes;
            let kv_short = if kv_limit == 0 { 0 } else { kv.saturating_sub(kv_limit) };
            kv_short.max(taken[pool].saturating_sub(self.pools[pool]))
        };
        let worst = (0..stages.len())
            .max_by_key(|&stage| (short(&stages[stage]), self.need(&stages[stage].1, blocks)))
            .expect("a cut has a stage");
        let (member, layers) = &stages[worst];
        let (member, pool) = (&self.members[*member], self.pool_of[*member]);
        let need = self.need(layers, blocks);
        let missing = short(&stages[worst]);
        let kv = blocks * self.block_bytes(layers);
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
        let total_needed = stages.iter().map(|(_, layers)| self.need(layers, blocks)).sum();
        PlanError::Memory {
            stage: worst,
            first: layers.start,
            last: layers.end - 1,
            missing,
            weights: self.layout.stage_bytes(layers.clone()),
            scratch: scratch_bytes(self.layout, layers, self.request.rows_max),
            kv,
            ctx_size: self.request.ctx_size,
            limit,
            total_allowance: self.pools.iter().fold(0, |sum: u64, pool| sum.saturating_add(*pool)),
            total_needed,
        }
    }
}

/// Layers of each stage as ranges.
fn ranges(counts: &[u32]) -> Vec<Range<u32>> {
    let mut start = 0;
    let range = |&count: &u32| {
        let range = start..start + count;
        start = range.end;
        range
    };
    counts.iter().map(range).collect()
}

/// Bytes per second of each member: at most its part of its machine's bandwidth, with the speeds
/// that differ by noise made equal.
fn speeds(members: &[Member]) -> Vec<u64> {
    let share = |member: &Member| {
        let mates = || members.iter().filter(|mate| mate.machine == member.machine);
        let machine = mates().map(|mate| mate.read_bytes_per_s).max().unwrap_or(0);
        member.read_bytes_per_s.min(machine / mates().count() as u64).max(1)
    };
    let shares: Vec<u64> = members.iter().map(share).collect();
    let mut sorted = shares.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted.dedup();
    // Groups from the fastest down; all of a group count as its fastest.
    let mut leaders: Vec<u64> = Vec::new();
    for speed in sorted {
        match leaders.last() {
            Some(&leader) if within_percent(leader, speed, SPEED_NOISE_PERCENT) => {}
            _ => leaders.push(speed),
        }
    }
    let leader =
        |share: &u64| *leaders.iter().rev().find(|leader| *leader >= share).unwrap_or(share);
    shares.iter().map(leader).collect()
}
