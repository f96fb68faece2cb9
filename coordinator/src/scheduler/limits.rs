//! What bounds the scheduler: its own configuration and the limits of the present plan.

use super::prefix_key::PrefixCache;
use std::time::Duration;
use woolly_protocol::forward::BlockLimits;
use woolly_protocol::ids::PlanEpoch;
use woolly_protocol::limits::{
    BLOCK_LEN, CACHE_GROUPS_MAX, CHUNKS_PER_MICROBATCH_MAX, CTX_MAX, IN_FLIGHT_MAX, KV_BLOCKS_MAX,
    PENALTY_TOKENS_MAX, ROWS_PER_MICROBATCH_MAX, STAGES_MAX,
};

/// Rows of one microbatch unless configured: a prefill that delays a decode step by little, and
/// still enough rows to use each weight many times.
pub const ROWS_PER_STEP: usize = 256;
/// Requests that may wait unless configured.
const WAITING_DEFAULT: usize = 512;
/// Sequences that may run at a time unless configured.
const RUNNING_DEFAULT: usize = 256;

/// How long requests wait for a new plan unless configured.
const FAILOVER_DEADLINE: Duration = Duration::from_secs(30);

/// What does not depend on the plan. Zeros are read as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Requests that may wait before new ones are refused. Preempted sequences wait too, but are
    /// never refused.
    pub waiting_max: usize,
    /// Sequences that may run at a time; memory often allows fewer.
    pub running_max: usize,
    /// Rows of one microbatch at most: decode rows first, the rest is prefill.
    pub rows_per_step: usize,
    /// The longest gap between two tokens of a stream that prefill beside it should cause.
    pub itl_target: ItlTarget,
    /// In how many groups decoding sequences travel, as far as so many microbatches may be in
    /// flight; `None` lets measurements choose.
    pub decode_groups: Option<u32>,
    /// Whose prefixes a request may find.
    pub prefix_cache: PrefixCache,
    /// How long requests wait for a new plan after one was lost.
    pub failover_deadline: Duration,
}

/// The longest gap between two tokens of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItlTarget {
    /// In percent of the gap that decoding has when no prompt is computed beside it.
    Percent(u32),
    /// A time.
    Time(Duration),
}

impl Default for ItlTarget {
    /// Four times the gap of decoding alone.
    fn default() -> Self {
        Self::Percent(400)
    }
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            waiting_max: WAITING_DEFAULT,
            running_max: RUNNING_DEFAULT,
            rows_per_step: ROWS_PER_STEP,
            itl_target: ItlTarget::default(),
            decode_groups: None,
            prefix_cache: PrefixCache::default(),
            failover_deadline: FAILOVER_DEADLINE,
        }
    }
}

/// What the present plan allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanLimits {
    /// The plan's number.
    pub epoch: PlanEpoch,
    /// Stages, at least 1.
    pub stages: u32,
    /// Microbatches in flight at most, at least 1.
    pub in_flight_max: u32,
    /// Positions of one sequence at most.
    pub ctx_size: u32,
    /// KV blocks of [`BLOCK_LEN`] positions for each cache group, the same on every stage.
    pub caches: CacheBlocks,
    /// Positions of an extent, which is given out as a whole: a multiple of [`BLOCK_LEN`]. Blocks beyond the last
    /// whole extent stay unused.
    pub extent_len: u32,
    /// Rows of one microbatch at most.
    pub rows_max: u32,
    /// Chunks of one microbatch at most.
    pub chunks_max: u32,
    /// Tokens of the model's vocabulary: the last stage answers with ids below it.
    pub vocab: u32,
    /// What forwards of the model read, by their rows.
    pub reads: Reads,
}

/// Numbers of rows for which it is known what a forward reads: 1, 2, 4, … 2,048.
const READS: usize = ROWS_PER_MICROBATCH_MAX.ilog2() as usize + 1;

/// What a forward reads of a model's weights, beside what one row reads: the same for any number of rows of a
/// dense model, more for more rows of a mixture, which choose more experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// For 1, 2, 4, … rows, in thousandths of one row's.
    thousandths: [u32; READS],
}

impl Default for Reads {
    /// Those of a dense model.
    fn default() -> Self {
        Self { thousandths: [1000; READS] }
    }
}

impl Reads {
    /// Where a forward of so many rows reads as many bytes as `bytes` says.
    pub fn of(bytes: impl Fn(u32) -> u64) -> Self {
        let one = u128::from(bytes(1).max(1));
        let thousandths = |at: usize| {
            let beside = u128::from(bytes(1 << at)) * 1000 / one;
            u32::try_from(beside).unwrap_or(u32::MAX).max(1000)
        };
        Self { thousandths: std::array::from_fn(thousandths) }
    }

    /// What so many rows read, in units of what one reads; between the numbers that are known on a straight line.
    pub(super) fn at(&self, rows: f64) -> f64 {
        let rows = rows.clamp(1.0, ROWS_PER_MICROBATCH_MAX as f64);
        let low = (rows as u32).ilog2();
        let known = |at: u32| f64::from(self.thousandths[to_usize(at).min(READS - 1)]) / 1000.0;
        let first = f64::from(1u32 << low);
        known(low) + (known(low + 1) - known(low)) * (rows / first - 1.0)
    }
}

/// The blocks of each cache group of a plan, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheBlocks {
    groups: [BlockLimits; CACHE_GROUPS_MAX],
    count: usize,
}

impl CacheBlocks {
    /// These groups.
    ///
    /// # Panics
    ///
    /// If there is none, or more than the wire carries: the planner makes no such plan.
    pub fn new(groups: impl IntoIterator<Item = BlockLimits>) -> Self {
        let mut all = Self { groups: [BlockLimits { count: 0, window: None }; _], count: 0 };
        for group in groups {
            all.groups[all.count] = group;
            all.count += 1;
        }
        assert!(all.count > 0, "a plan has a cache group");
        all
    }

    /// One group, whose layers remember all positions.
    pub fn all_positions(count: u32) -> Self {
        Self::new([BlockLimits { count, window: None }])
    }

    /// The groups.
    pub fn groups(&self) -> &[BlockLimits] {
        &self.groups[..self.count]
    }
}

/// Microbatches that a plan lets be in flight beside one for each stage, at least: what links of a
/// long round take is not known before the plan is served.
const ON_THEIR_WAY: u32 = 8;

impl PlanLimits {
    /// Microbatches in flight at most in a plan of so many stages: as many on their way as stages, at
    /// least eight, and no more than the wire allows. How many are in flight is decided by
    /// what the links are found to take.
    pub fn in_flight_max(stages: u32) -> u32 {
        (stages + stages.max(ON_THEIR_WAY)).min(to_u32(IN_FLIGHT_MAX))
    }

    /// Positions that the longest sequence can have: the context, or all blocks of a group that remembers
    /// all positions if they are fewer.
    pub fn positions_max(&self) -> usize {
        let full = self.caches.groups().iter().filter(|group| group.window.is_none());
        let in_blocks = full.map(|group| {
            u64::from(group.count / self.blocks_per_extent()) * u64::from(self.extent_len)
        });
        let most = in_blocks.fold(u64::from(self.ctx_size), u64::min);
        usize::try_from(most).expect("at most CTX_MAX")
    }

    /// Blocks of an extent.
    pub(super) fn blocks_per_extent(&self) -> u32 {
        self.extent_len / BLOCK_LEN
    }

    /// Positions that a sequence with penalties can have: what it counts has to fit a message.
    pub(super) fn positions_max_with(&self, penalties: bool) -> usize {
        let all = self.positions_max();
        if penalties { all.min(PENALTY_TOKENS_MAX) } else { all }
    }

    /// # Panics
    ///
    /// If a limit is zero or beyond what the protocol allows: the planner makes no such plan.
    pub(super) fn assert_valid(&self) {
        let within = |value: u32, max: usize| value >= 1 && to_usize(value) <= max;
        assert!(within(self.stages, STAGES_MAX), "a plan has 1 to {STAGES_MAX} stages: {self:?}");
        assert!(
            within(self.in_flight_max, IN_FLIGHT_MAX),
            "1 to {IN_FLIGHT_MAX} microbatches are in flight: {self:?}"
        );
        assert!(within(self.ctx_size, to_usize(CTX_MAX)), "context beyond the wire: {self:?}");
        let groups = || self.caches.groups().iter();
        assert!(
            groups().all(|group| within(group.count, to_usize(KV_BLOCKS_MAX))),
            "blocks beyond the wire: {self:?}"
        );
        let whole = self.extent_len >= BLOCK_LEN && self.extent_len.is_multiple_of(BLOCK_LEN);
        assert!(
            whole && groups().all(|group| group.count >= self.blocks_per_extent()),
            "blocks are given out in whole extents: {self:?}"
        );
        assert!(within(self.rows_max, ROWS_PER_MICROBATCH_MAX), "rows beyond the wire: {self:?}");
        assert!(
            within(self.chunks_max, CHUNKS_PER_MICROBATCH_MAX),
            "chunks beyond the wire: {self:?}"
        );
    }
}

/// `u32` always fits: Woolly runs on 64-bit machines.
pub(super) fn to_usize(value: u32) -> usize {
    usize::try_from(value).expect("usize has at least 32 bits")
}

/// Positions, rows and blocks of a sequence stay below `CTX_MAX`.
pub(super) fn to_u32(value: usize) -> u32 {
    u32::try_from(value).expect("positions and rows are bounded by CTX_MAX")
}

/// Blocks that hold so many positions.
pub(super) fn blocks_for(positions: usize) -> usize {
    positions.div_ceil(to_usize(BLOCK_LEN))
}
