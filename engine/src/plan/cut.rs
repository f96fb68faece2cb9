//! Where to cut: layers to workers, so that the slowest stage is fast at each kind of work and everything
//! fits.
//!
//! The cut that is best for one kind of work need not be for another: prefill computes no head, which
//! weighs as much as several layers. An [`Objective`](super::Objective) says how much each counts. No single
//! cost of a stage says how slow a cut is, as each kind of work has its own slowest stage. So there are
//! candidates: the fastest cut for decode of few rows, that for many, and the fastest for both together as
//! prefill is held to less and less; the objective chooses among them.

use std::ops::Range;

use super::cut_request::{CutRequest, Member};
use super::error::PlanError;
use super::layout::{BLOCK_LEN, ModelLayout};
use super::objective::Weights;
use super::partition::{Stages, partition};
use super::room::Room;
use super::slowness::{Slowness, within_percent};
use super::speeds::Speeds;
use super::work::Work;
use crate::kv::GroupBlocks;

/// Contexts of `ctx_size` positions that the KV cache of a model that is served alone holds at most.
pub const KV_CTX_MAX: u64 = 16;
/// A new cut must promise this many percent more to take the place of the present one; and room for
/// more KV may cost this much.
const WORTH_PERCENT: u64 = 15;
/// Each candidate's prefill is at least this many percent faster than the last one's.
const PREFILL_STEP_PERCENT: u64 = 2;
/// Candidates with ever faster prefill at most: enough to come from the prefill that suits decode to one that
/// takes a quarter less.
const PREFILL_STEPS_MAX: usize = 16;

/// What one stage's worker keeps in memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageBudget {
    /// The stage's tensors.
    pub own_bytes: u64,
    /// Those of them that do not fit the memory and are read from the disk when they are needed.
    pub disk_bytes: u64,
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
    /// Blocks of the KV cache that hold all positions of sequences, on every stage: what their number
    /// and length is counted in, also where layers with a window have fewer.
    pub kv_blocks: u32,
    /// Blocks of each cache group, on every stage.
    pub caches: Vec<GroupBlocks>,
    /// The stage whose memory decided the number of blocks, the last such; if the request's
    /// limit of contexts did, the stage that uses most of its memory.
    pub limiting_stage: usize,
    /// Whether memory decided the number of blocks, not the request's limit of contexts.
    pub kv_is_limited_by_memory: bool,
    /// Memory of each stage.
    pub stages: Vec<StageBudget>,
    /// Predicted time of each stage to decode one token, in nanoseconds.
    pub predicted_ns: Vec<u64>,
    /// How slow it is for each kind of work, beside layers that are parted at will.
    pub slowness: Slowness,
}

impl Cut {
    /// Positions that the KV cache holds.
    pub fn kv_positions(&self) -> u64 {
        u64::from(self.kv_blocks) * u64::from(BLOCK_LEN)
    }

    /// Blocks of all cache groups.
    pub fn blocks(&self) -> u32 {
        self.caches.iter().fold(0, |sum, group| sum.saturating_add(group.count))
    }

    /// Layers of each stage, as [`CutRequest::previous`] wants them.
    pub fn counts(&self) -> Vec<u32> {
        self.layers.iter().map(|range| range.end - range.start).collect()
    }
}

/// Places the layers on `members`, which stand in order of joining.
///
/// The cut is the best one for the request's objective with room for the KV cache: of 16 contexts, or as many
/// as the request allows, half of them and so on down to 1 the largest that costs at most 15 % of speed. The present cut stays if no other is 15 %
/// faster. Every member gets at least one layer if there are enough layers and it can hold one. The same
/// input gives the same cut.
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
    let mut planner = Planner {
        room: Room::new(layout, members, request),
        work: Work::new(layout, Speeds::new(members)),
    };
    let cut = planner.place();
    let may_be_from_disk = members.iter().any(|member| member.weights_from_disk);
    if may_be_from_disk && matches!(cut, Err(PlanError::Memory { .. })) {
        // Where everything fits, nothing is read from a disk.
        planner.room.from_disk = true;
        return planner.place();
    }
    cut
}

/// Layout, members and request, with what follows from them.
struct Planner<'a> {
    room: Room<'a>,
    work: Work<'a>,
}

impl Planner<'_> {
    /// The cut that was asked for, the best, or the present one if that is nearly as good.
    fn place(&self) -> Result<Cut, PlanError> {
        if let Some(counts) = &self.room.request.cut {
            let stages = self.fixed(counts)?;
            return self.finish_fixed(&stages).ok_or_else(|| self.room.explain(&stages));
        }
        let Some(best) = self.best() else {
            // Members of one machine are held to parts of its memory that need not be the best; what misses
            // least may fit.
            let nearest = self.room.nearest_miss();
            return self.finish_fixed(&nearest).ok_or_else(|| self.room.explain(&nearest));
        };
        let present = self.present(best.members.len());
        Ok(present.filter(|present| self.is_nearly(present, &best)).unwrap_or(best))
    }

    /// Whether a cut is so nearly as good as `best` that a present plan, or more room for KV, outweighs it.
    fn is_nearly(&self, cut: &Cut, best: &Cut) -> bool {
        let score = |cut: &Cut| self.room.request.objective.score(cut.slowness);
        within_percent(score(cut), score(best), WORTH_PERCENT)
    }

    /// Contexts that the KV cache holds at most.
    fn contexts_max(&self) -> u64 {
        self.room.request.contexts_max.max(1)
    }

    /// The best cut, with the largest KV cache that costs little of its speed.
    fn best(&self) -> Option<Cut> {
        let best = self.best_with_room(1)?;
        let mut contexts = self.contexts_max();
        while contexts > 1 {
            let cut = self.best_with_room(contexts).filter(|cut| {
                cut.members.len() == best.members.len() && self.is_nearly(cut, &best)
            });
            if cut.is_some() {
                return cut;
            }
            contexts /= 2;
        }
        Some(best)
    }

    /// The best cut with room for this many contexts, of those that leave the fewest members without a
    /// stage.
    fn best_with_room(&self, contexts: u64) -> Option<Cut> {
        let mut cuts = self.candidates(contexts * self.room.blocks_per_ctx());
        let stages = cuts.iter().map(|cut| cut.members.len()).max()?;
        cuts.retain(|cut| cut.members.len() == stages);
        let slowness: Vec<Slowness> = cuts.iter().map(|cut| cut.slowness).collect();
        let chosen = self.room.request.objective.choose(&slowness)?;
        Some(cuts.swap_remove(chosen))
    }

    /// The cuts with room for so many blocks among which the best is sought.
    fn candidates(&self, blocks: u64) -> Vec<Cut> {
        let of_one_kind = [Weights::FEW_ROWS, Weights::MANY_ROWS];
        let fastest = of_one_kind.map(|weights| self.fastest(blocks, weights, u64::MAX));
        let mut cuts: Vec<Cut> = fastest.into_iter().flatten().collect();
        let decode = self.room.request.objective.weights().of_decode();
        let mut prefill_max = u64::MAX;
        for _ in 0..PREFILL_STEPS_MAX {
            let Some(cut) = self.fastest(blocks, decode, prefill_max) else { break };
            prefill_max = cut.slowness.prefill / 100 * (100 - PREFILL_STEP_PERCENT);
            cuts.push(cut);
        }
        cuts
    }

    /// The cut whose slowest stage is fastest, each stage's time weighed, with room for so many blocks and
    /// with prefill no slower than `prefill_max` millionths.
    ///
    /// A pool that several members share couples stages that need not be neighbours. The members
    /// are first held to the whole pool each; where they take more together, each is held to its
    /// part of the pool, in proportion to what it took, and the cut is made again.
    fn fastest(&self, blocks: u64, weights: Weights, prefill_max: u64) -> Option<Cut> {
        let mut caps: Vec<u64> =
            self.room.pool_of.iter().map(|&pool| self.room.pools[pool]).collect();
        for _ in 0..=self.room.pools.len() {
            let cost = |member: usize, layers: Range<u32>| {
                let fits = self.room.need(member, &layers, blocks) <= caps[member]
                    && self.room.kv_allowed(member, &layers, blocks);
                let missing = self.room.missing(member, &layers, blocks);
                let slowness = fits.then(|| self.work.slowness(member, &layers, missing))?;
                (slowness.prefill <= prefill_max).then(|| weights.score(slowness))
            };
            let stages = partition(self.room.members.len(), self.room.layout.layers, &cost)?;
            let taken = self.room.taken(&stages, blocks);
            if taken.iter().zip(&self.room.pools).all(|(taken, pool)| taken <= pool) {
                return self.finish(&stages, blocks);
            }
            for (member, layers) in &stages {
                let pool = self.room.pool_of[*member];
                if taken[pool] > self.room.pools[pool] {
                    let part = u128::from(self.room.need(*member, layers, blocks))
                        * u128::from(self.room.pools[pool])
                        / u128::from(taken[pool]);
                    caps[*member] = u64::try_from(part).expect("less than the pool");
                }
            }
        }
        None
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
        self.finish_fixed(&self.fixed(counts).ok()?)
    }

    /// As [`finish`](Self::finish), of a cut that was not made for a number of blocks: as many as cost little
    /// speed.
    fn finish_fixed(&self, stages: &Stages) -> Option<Cut> {
        let with = |contexts| self.finish(stages, contexts * self.room.blocks_per_ctx());
        let one = with(1)?;
        if !self.room.from_disk {
            return Some(one);
        }
        let halves = std::iter::successors(Some(self.contexts_max()), |most| Some(most / 2));
        let more = halves.take_while(|contexts| *contexts > 1).map(with);
        let near = more.flatten().find(|cut| self.is_nearly(cut, &one));
        Some(near.unwrap_or(one))
    }

    /// The number of blocks that every stage can hold, and the stages' budgets; `None` if that is
    /// less than one context. Where weights are left on the disk, more blocks than the cut was made for would
    /// take their place in memory.
    fn finish(&self, stages: &Stages, blocks: u64) -> Option<Cut> {
        let most = self.contexts_max() * self.room.blocks_per_ctx();
        let limit = if self.room.from_disk { blocks } else { most };
        let allowed = self.room.allowed_blocks(stages);
        let fit = allowed.iter().copied().min()?.min(limit);
        let blocks = fit - fit % self.room.shares.together();
        if blocks < self.room.blocks_per_ctx() {
            return None;
        }
        let limiting = (0..stages.len()).rev().min_by_key(|&stage| allowed[stage])?;
        let budget = |(member, layers): &(usize, Range<u32>)| StageBudget {
            own_bytes: self.room.layout.stage_bytes(layers.clone()),
            disk_bytes: self.room.disk_bytes(*member, layers, blocks),
            scratch_bytes: self.room.scratch_bytes(layers),
            kv_bytes: self.room.kv_bytes(layers, blocks),
        };
        let missing = |stage: &(usize, Range<u32>)| self.room.missing(stage.0, &stage.1, blocks);
        let slowness =
            stages.iter().map(|stage| self.work.slowness(stage.0, &stage.1, missing(stage)));
        let predicted =
            stages.iter().map(|stage| self.work.predicted_ns(stage.0, &stage.1, missing(stage)));
        Some(Cut {
            layers: stages.iter().map(|(_, layers)| layers.clone()).collect(),
            members: stages.iter().map(|(member, _)| *member).collect(),
            kv_blocks: u32::try_from(blocks).ok()?,
            caches: self.room.shares.caches(blocks)?,
            limiting_stage: limiting,
            kv_is_limited_by_memory: allowed[limiting] < limit || limit < most,
            stages: stages.iter().map(budget).collect(),
            predicted_ns: predicted.collect(),
            slowness: slowness.fold(Slowness::default(), Slowness::max),
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
