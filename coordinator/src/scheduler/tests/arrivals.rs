//! What the simulated clusters are asked: configurations, plans and requests, drawn from a seed.
//!
//! What is about keys, shared prefixes and time is drawn from a second generator.

use super::greedy;
use super::rng::{Rng, mix};
use super::toy::{FRAGILE_SEED, VOCAB};
use crate::generation::{GenerationRequest, KeyId};
use crate::guides::limits::{Limits, only};
use crate::guides::{Breakers, Dry};
use crate::scheduler::{CacheBlocks, ItlTarget, PlanLimits, PrefixCache, Reads, SchedulerConfig};
use std::sync::Arc;
use std::time::Duration;
use woolly_engine::plan::window_blocks;
use woolly_protocol::forward::BlockLimits;
use woolly_protocol::ids::PlanEpoch;

/// Stages at most.
const STAGES: u64 = 4;
/// What many prompts begin with: so many different beginnings.
const BEGINNINGS: u64 = 3;
/// Tokens of a beginning at most.
const BEGINNING_LEN: u64 = 130;

/// Bounds, and who shares with whom.
pub(super) fn config(rng: &mut Rng, more: &mut Rng) -> SchedulerConfig {
    SchedulerConfig {
        waiting_max: rng.pick(&[3, 100]),
        running_max: rng.pick(&[1, 4, 100, 100]),
        rows_per_step: rng.pick(&[1, 3, 16, 64, 256]),
        prefix_cache: more.pick(&[PrefixCache::Off, PrefixCache::Key, PrefixCache::Shared]),
        itl_target: more.pick(&[
            ItlTarget::default(),
            ItlTarget::Percent(0),
            ItlTarget::Time(Duration::from_millis(1)),
        ]),
        decode_groups: more.pick(&[None, None, None, Some(1), Some(2), Some(9)]),
        failover_deadline: Duration::from_millis(more.pick(&[3, 30_000, 30_000])),
    }
}

/// A plan, often with little room. After the first of a history, whose context and block size stay.
pub(super) fn limits(rng: &mut Rng, epoch: u32, first: Option<&PlanLimits>) -> PlanLimits {
    let stages = u32::try_from(rng.range(1, STAGES)).unwrap();
    let mut limits = PlanLimits {
        epoch: PlanEpoch(epoch),
        stages,
        in_flight_max: u32::try_from(rng.range(1, u64::from(stages) + 1)).unwrap(),
        ctx_size: rng.pick(&[40, 97, 160, 256]),
        caches: CacheBlocks::all_positions(rng.pick(&[1, 4, 6, 8, 8, 12, 16, 64])),
        extent_len: 32,
        rows_max: rng.pick(&[1, 2, 8, 33, 256]),
        chunks_max: rng.pick(&[1, 2, 5, 64]),
        vocab: 1 << 17,
        reads: Reads::default(),
    };
    if let Some(first) = first {
        (limits.ctx_size, limits.extent_len) = (first.ctx_size, first.extent_len);
        let least = first.ctx_size.div_ceil(first.extent_len) * first.extent_len / 32;
        limits.caches = CacheBlocks::all_positions(limits.caches.groups()[0].count.max(least));
        return limits;
    }
    if limits.caches.groups()[0].count >= 12 {
        limits.extent_len = 32 * (1 + epoch.wrapping_add(limits.ctx_size) % 3);
    }
    limits.ctx_size = u32::try_from(limits.positions_max()).unwrap();
    limits
}

/// The windows of the cache groups of a history's model: `None` remembers all.
pub(super) fn windows(rng: &mut Rng) -> Vec<Option<u32>> {
    let window = Some(rng.pick(&[1, 5, 32, 33, 64, 100]));
    let other = Some(rng.pick(&[2, 40]));
    rng.pick(&[
        &[window, None][..],
        &[window, None],
        &[None, window],
        &[window],
        &[other, window, None],
    ])
    .to_vec()
}

/// The same plan for a model with these windows: often with no more blocks there than one sequence needs.
pub(super) fn with_windows(
    limits: PlanLimits,
    windows: &[Option<u32>],
    rows_per_step: usize,
    rng: &mut Rng,
) -> PlanLimits {
    let rows = limits.rows_max.min(u32::try_from(rows_per_step).unwrap());
    let full = limits.caches.groups()[0].count;
    let groups = windows.iter().map(|window| {
        let count = window.map_or(full, |window| {
            let of_ctx = limits.ctx_size.div_ceil(limits.extent_len) * limits.extent_len / 32;
            let most = window_blocks(window, rows, limits.extent_len).min(of_ctx.into());
            u32::try_from(most).unwrap() * rng.pick(&[1, 1, 2, 3, 10])
        });
        BlockLimits { count, window: *window }
    });
    PlanLimits { caches: CacheBlocks::new(groups), ..limits }
}

/// A request: lengths, parameters, whose it is and how long it may take.
pub(crate) fn request(rng: &mut Rng, more: &mut Rng) -> GenerationRequest {
    let prompt_len = rng.pick(&[1, 2, 8, 31, 33, 70]);
    let own = (0..rng.range(1, prompt_len))
        .map(|_| u32::try_from(rng.range(0, VOCAB - 1)).unwrap())
        .collect::<Vec<u32>>();
    let mut prompt = beginning(more);
    prompt.extend(own);
    let most = rng.pick(&[2, 60, 250, 250]);
    let mut request = greedy(prompt, u32::try_from(rng.range(1, most)).unwrap());
    request.sampling.seed = rng.next();
    if rng.one_in(5) {
        request.sampling.seed -= request.sampling.seed % FRAGILE_SEED;
    }
    request.sampling.temperature = rng.pick(&[0.0, 0.7]);
    request.sampling.repetition_penalty = rng.pick(&[1.0, 1.0, 1.1]);
    request.sampling.frequency_penalty = rng.pick(&[0.0, 0.0, 0.5]);
    request.sampling.presence_penalty = rng.pick(&[0.0, 0.0, -0.5]);
    if rng.one_in(4) {
        request.sampling.logit_bias = vec![(3, -1.0), (9, 2.0)];
    }
    request.stop_tokens = rng.pick(&[&[][..], &[], &[], &[5], &[1, 17]]).into();
    request.top_logprobs = rng.pick(&[None, Some(0), Some(3)]);
    request.score_prompt = rng.one_in(4);
    if request.score_prompt && rng.one_in(2) {
        request.max_tokens = 0;
    }
    request.key = KeyId(u32::try_from(more.range(0, 3)).unwrap());
    if more.one_in(8) {
        request.time_limit = Some(Duration::from_micros(more.range(1, 60_000)));
    }
    request
}

/// Limits some requests in what may come. Where a grammar's tokens are scored before they are told, a failure
/// is told first: such requests stay as they are.
pub(super) fn limit(request: &mut GenerationRequest, rng: &mut Rng) {
    let scores = request.top_logprobs.is_some() || request.score_prompt;
    if rng.one_in(3) && !(request.guided.is_some() && scores) {
        let only = rng.one_in(3).then(|| Arc::new(only(&(0..30).collect::<Vec<_>>(), 40)));
        let bad_words: Arc<[Vec<u32>]> = [vec![4], vec![1, 2], vec![3, 3, 3]].into();
        let min_tokens = u32::try_from(rng.range(0, 9)).unwrap();
        let ends = Arc::clone(&request.stop_tokens);
        request.limits = Some(Arc::new(Limits { min_tokens, ends, only, bad_words }));
    }
    if rng.one_in(3) {
        let mut breakers = Breakers::default();
        breakers.add(7, Vec::new());
        breakers.add(8, vec![9]);
        let (allowed_length, last) = (1, rng.pick(&[10, 64, usize::MAX]));
        let dry = Dry { multiplier: 0.8, base: 1.75, allowed_length, last, breakers };
        request.dry = Some(Arc::new(dry));
    }
}

/// Nothing, or the first tokens of one of a few texts.
fn beginning(more: &mut Rng) -> Vec<u32> {
    if more.one_in(2) {
        return Vec::new();
    }
    let text = more.range(0, BEGINNINGS - 1);
    let token = |at: u64| u32::try_from(mix(text << 32 | at) % VOCAB).unwrap();
    (0..more.range(1, BEGINNING_LEN)).map(token).collect()
}
