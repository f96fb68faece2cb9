//! One draw: temperature, top-k, top-p, min-p, XTC and random numbers that depend on nothing else.

use super::SampleParams;
use crate::math;

/// Candidates sorted at a time while looking for the smallest set that reaches top-p.
const SORTED_AT_A_TIME: usize = 256;

/// Makes XTC's random number another one than the draw's.
const XTC: u64 = 0xa076_1d64_78bd_642f;

/// Draws a token; `None` if no logit is above −∞. `room` has capacity for the whole vocabulary.
pub(super) fn draw(
    logits: &[f32],
    params: &SampleParams<'_>,
    room: &mut Vec<(f32, u32)>,
) -> Option<u32> {
    let (_, max) = super::best(logits)?;
    room.clear();
    for (token, logit) in (0u32..).zip(logits) {
        let p = math::exp((logit - max) / params.temperature);
        if p > 0.0 {
            room.push((p, token));
        }
    }
    let mut kept = room.len();
    if params.top_k > 0 && (params.top_k as usize) < kept {
        kept = params.top_k as usize;
        room.select_nth_unstable_by(kept - 1, likelier_first);
    }
    if params.top_p < 1.0 {
        kept = smallest_set(&mut room[..kept], params.top_p);
    }
    room.truncate(kept);
    if params.min_p > 0.0 {
        // The most likely token has p = 1 here, so something always stays.
        room.retain(|(p, _)| *p >= params.min_p);
    }
    room.sort_unstable_by_key(|(_, token)| *token);
    if params.xtc_probability > 0.0 {
        exclude_top_choices(room, params);
    }
    let total: f64 = room.iter().map(|(p, _)| f64::from(*p)).sum();
    let target = uniform(params.seed, params.choice, params.position) * total;
    let mut sum = 0.0;
    for (p, token) in room.iter() {
        sum += f64::from(*p);
        if sum > target {
            return Some(*token);
        }
    }
    room.last().map(|(_, token)| *token)
}

/// XTC as llama.cpp has it: by chance the tokens that reach the threshold are left out but for the least
/// likely of them. The candidates are in the order of ids and stay so, which makes their sum one number.
fn exclude_top_choices(candidates: &mut Vec<(f32, u32)>, params: &SampleParams<'_>) {
    let chance = uniform(params.seed ^ XTC, params.choice, params.position);
    let is_on = params.xtc_threshold <= 0.5 && chance < f64::from(params.xtc_probability);
    if !is_on || candidates.len() < 2 {
        return;
    }
    let total: f64 = candidates.iter().map(|(p, _)| f64::from(*p)).sum();
    let reached = f64::from(params.xtc_threshold) * total;
    let tops = candidates.iter().filter(|(p, _)| f64::from(*p) >= reached);
    if let Some(least) = tops.max_by(|a, b| likelier_first(a, b)).copied() {
        candidates.retain(|other| likelier_first(other, &least).is_ge());
    }
}

fn likelier_first(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Moves the smallest set whose share reaches `top_p` to the front and says how many it has.
fn smallest_set(candidates: &mut [(f32, u32)], top_p: f32) -> usize {
    // In the order of ids, so that the sum does not depend on how candidates were moved about.
    candidates.sort_unstable_by_key(|(_, token)| *token);
    let total: f64 = candidates.iter().map(|(p, _)| f64::from(*p)).sum();
    let wanted = f64::from(top_p) * total;
    let (mut sum, mut sorted) = (0.0, 0);
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let step = SORTED_AT_A_TIME.max(sorted).min(rest.len());
        if step < rest.len() {
            rest.select_nth_unstable_by(step - 1, likelier_first);
        }
        rest[..step].sort_unstable_by(likelier_first);
        for (i, (p, _)) in rest[..step].iter().enumerate() {
            sum += f64::from(*p);
            if sum >= wanted {
                return sorted + i + 1;
            }
        }
        sorted += step;
    }
    candidates.len()
}

/// A number in [0, 1) from the seed, the choice and the position, and from nothing else.
///
/// SplitMix64's finaliser (Steele, Lea, Flood 2014) over the three, one after another.
pub(super) fn uniform(seed: u64, choice: u32, position: u32) -> f64 {
    let mut state = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    state = mix(state ^ u64::from(choice).wrapping_mul(0xd6e8_feb8_6659_fd93));
    state = mix(state ^ u64::from(position).wrapping_add(0x9e37_79b9_7f4a_7c15));
    (state >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
