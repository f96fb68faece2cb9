//! Where to cut: layers to workers, so that the slowest stage is fastest and everything fits.
//!
//! A stage's time to decode a token is what it reads divided by its worker's read bandwidth.
//! Workers of one machine share its bandwidth, and unless they have memory of their own they share
//! its memory. Of the embedding one row is read per token, of the head everything.

use std::ops::Range;

use super::cut_request::{CutRequest, Member};
use super::error::PlanError;
use super::layout::{BLOCK_LEN, ModelLayout};
use super::partition::{Stages, partition};
use super::room::{Room, scratch_bytes};
use super::speeds::{speeds, within_percent};

/// Contexts of `ctx_size` positions that the KV cache holds at most.
pub const KV_CTX_MAX: u64 = 16;
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
    let planner = Planner { room: Room::new(layout, members, request), speeds: speeds(members) };
    if let Some(counts) = &request.cut {
        let stages = planner.fixed(counts)?;
        return planner.finish(&stages).ok_or_else(|| planner.room.explain(&stages));
    }
    let Some(best) = planner.best() else {
        let nearest = planner.room.nearest_miss();
        return Err(planner.room.explain(&nearest));
    };
    Ok(planner.present(best.members.len()).filter(|present| keeps(present, &best)).unwrap_or(best))
}

/// Whether the present cut is as good as `best` but for what a change is not worth.
fn keeps(present: &Cut, best: &Cut) -> bool {
    within_percent(present.slowest_ns(), best.slowest_ns(), WORTH_PERCENT)
}

/// Layout, members and request, with what follows from them.
struct Planner<'a> {
    room: Room<'a>,
    /// Bytes per second of each member, sharing and noise counted.
    speeds: Vec<u64>,
}

impl Planner<'_> {
    /// Nanoseconds to decode one token.
    fn time(&self, member: usize, layers: &Range<u32>) -> u64 {
        let bytes = self.room.layout.stage_bytes_per_token(layers.clone());
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
        let blocks = contexts * self.room.blocks_per_ctx();
        let mut caps: Vec<u64> =
            self.room.pool_of.iter().map(|&pool| self.room.pools[pool]).collect();
        for _ in 0..=self.room.pools.len() {
            let stages = self.partition(blocks, &caps)?;
            let taken = self.room.taken(&stages, blocks);
            if taken.iter().zip(&self.room.pools).all(|(taken, pool)| taken <= pool) {
                return self.finish(&stages);
            }
            for (member, layers) in &stages {
                let pool = self.room.pool_of[*member];
                if taken[pool] > self.room.pools[pool] {
                    let part = u128::from(self.room.need(layers, blocks))
                        * u128::from(self.room.pools[pool])
                        / u128::from(taken[pool]);
                    caps[*member] = u64::try_from(part).expect("less than the pool");
                }
            }
        }
        None
    }

    fn partition(&self, blocks: u64, caps: &[u64]) -> Option<Stages> {
        let cost = |member: usize, layers: Range<u32>| {
            let fits = self.room.need(&layers, blocks) <= caps[member]
                && self.room.kv_allowed(member, &layers, blocks);
            fits.then(|| self.time(member, &layers))
        };
        partition(self.room.members.len(), self.room.layout.layers, &cost)
    }

    /// The cut that a person has fixed.
    fn fixed(&self, counts: &[u32]) -> Result<Stages, PlanError> {
        let found = || counts.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        if counts.len() > self.room.members.len() {
            let (stages, members) = (counts.len(), self.room.members.len());
            return Err(PlanError::CutStages { found: found(), stages, members });
        }
        let sum: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        if sum != u64::from(self.room.layout.layers) || counts.contains(&0) {
            return Err(PlanError::CutLayers {
                found: found(),
                sum,
                layers: self.room.layout.layers,
            });
        }
        Ok(ranges(counts).into_iter().enumerate().collect())
    }

    /// The present cut with its present workers, if it is one of `stages` stages and still fits.
    fn present(&self, stages: usize) -> Option<Cut> {
        let counts = self.room.request.previous.as_ref().filter(|counts| counts.len() == stages)?;
        self.finish(&self.fixed(counts).ok()?)
    }

    /// The number of blocks that every stage can hold, and the stages' budgets; `None` if that is
    /// less than one context.
    fn finish(&self, stages: &Stages) -> Option<Cut> {
        let limit = KV_CTX_MAX * self.room.blocks_per_ctx();
        let allowed = self.room.allowed_blocks(stages);
        let fit = allowed.iter().copied().min()?.min(limit);
        let blocks = fit - fit % self.room.blocks_together();
        if blocks < self.room.blocks_per_ctx() {
            return None;
        }
        let limiting = (0..stages.len()).rev().min_by_key(|&stage| allowed[stage])?;
        let budget = |(_, layers): &(usize, Range<u32>)| StageBudget {
            own_bytes: self.room.layout.stage_bytes(layers.clone()),
            scratch_bytes: scratch_bytes(self.room.layout, layers, self.room.request.rows_max),
            kv_bytes: blocks * self.room.block_bytes(layers),
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
