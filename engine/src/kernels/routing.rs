//! Which experts a row goes to, with which weights, and which rows an expert has.
//!
//! Per row, in f32: scores become probabilities; the chosen are those with the greatest probability plus
//! bias, ties to the lower id, what is not a number last; their weights are divided by their sum, added up
//! in that order, and scaled, where the architecture says so.

use super::partition::UNIT_ROWS;
use super::scratch::PASS_ROWS;
use super::{LANES, per_level, sum_lanes};
use crate::math;
use crate::pool::{Pool, Shared};
use std::ops::Range;

/// Groups of experts at most, of which some are chosen first.
pub const GROUPS_MAX: usize = 64;
/// The sum that weights are divided by is at least the smallest normal half-precision number.
const SUM_MIN: f32 = 6.103_515_6e-5;
/// Rows that a thread takes at a time.
const GRAIN: usize = 16;

/// How scores become the weights of the chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// Softmax over all experts.
    Softmax,
    /// Each by itself.
    Sigmoid,
    /// Softmax over the chosen, which are those with the greatest scores.
    SoftmaxOfChosen,
}

/// How a layer's router chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    /// How scores become weights.
    pub gating: Gating,
    /// Experts are chosen from so many groups only, of so many in all: those with the greatest sum of
    /// their two best.
    pub groups: Option<(usize, usize)>,
    /// The weights of the chosen are divided by their sum.
    pub is_normalised: bool,
    /// Factor of the weights.
    pub scale: f32,
}

/// Where the rows of a forward go. Allocated when the stage is loaded.
#[derive(Debug)]
pub struct Routes {
    used: usize,
    rows: usize,
    unsummed_len: usize,
    /// `[row][slot]`: the chosen, the first with the greatest score.
    chosen: Vec<u32>,
    /// `[row][slot]`.
    weights: Vec<f32>,
    /// `[row][slot]`: the place among all that go to experts, sorted by expert and then by row.
    places: Vec<u32>,
    /// By place: the row.
    sources: Vec<u32>,
    /// The experts that have rows, ascending.
    experts: Vec<u32>,
    /// The places of each of them.
    groups: Vec<Range<usize>>,
    /// By expert: how many rows, then where the next one goes.
    next: Vec<usize>,
}

impl Routes {
    /// For forwards of at most `rows` rows that go to at most `used` of `experts` experts.
    pub fn new(rows: usize, used: usize, experts: usize) -> Self {
        let places = rows * used;
        Self {
            used,
            rows: 0,
            unsummed_len: (rows * PASS_ROWS).max(UNIT_ROWS) * used,
            chosen: vec![0; places],
            weights: vec![0.0; places],
            places: vec![0; places],
            sources: vec![0; places],
            experts: Vec::with_capacity(experts),
            groups: Vec::with_capacity(experts),
            next: vec![0; experts],
        }
    }

    /// Chooses for every row of `scores`, `[rows, experts]`, which are used up; `bias` is added for the
    /// choice only.
    ///
    /// # Panics
    ///
    /// If there are more rows, experts or chosen ones than this was made for.
    pub fn choose(
        &mut self,
        pool: &Pool,
        router: &Router,
        (experts, used): (usize, usize),
        (scores, bias): (&mut [f32], Option<&[f32]>),
    ) {
        let rows = scores.len() / experts;
        (self.rows, self.used) = (rows, used);
        let (scores, level) = (Shared::new(scores), pool.level());
        let chosen = Shared::new(&mut self.chosen[..rows * used]);
        let weights = Shared::new(&mut self.weights[..rows * used]);
        pool.for_ranges(rows, GRAIN, &|rows| {
            for row in rows {
                let slots = row * used..(row + 1) * used;
                // SAFETY: rows are one unit's alone.
                let (scores, chosen, weights) = unsafe {
                    let scores = scores.part(row * experts..(row + 1) * experts);
                    (scores, chosen.part(slots.clone()), weights.part(slots))
                };
                probabilities(level, router.gating, scores);
                pick(router, scores, bias, chosen);
                weigh(router, scores, chosen, weights);
            }
        });
        self.sort(experts);
    }

    /// Sorts the rows by expert.
    fn sort(&mut self, experts: usize) {
        let chosen = &self.chosen[..self.rows * self.used];
        let next = &mut self.next[..experts];
        next.fill(0);
        chosen.iter().for_each(|expert| next[*expert as usize] += 1);
        self.experts.clear();
        self.groups.clear();
        let mut start = 0;
        for (expert, next) in (0..).zip(next.iter_mut()) {
            let end = start + *next;
            if end > start {
                self.experts.push(expert);
                self.groups.push(start..end);
            }
            *next = start;
            start = end;
        }
        for (slot, expert) in chosen.iter().enumerate() {
            let place = &mut next[*expert as usize];
            self.places[slot] = *place as u32;
            self.sources[*place] = (slot / self.used) as u32;
            *place += 1;
        }
    }

    /// Outputs of a unit of work that a thread keeps until they are added up.
    pub fn unsummed_len(&self) -> usize {
        self.unsummed_len
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The experts that have rows, ascending.
    pub fn experts(&self) -> &[u32] {
        &self.experts
    }

    /// Their places, in the same order: consecutive, from 0 on.
    pub fn groups(&self) -> &[Range<usize>] {
        &self.groups
    }

    /// The row at each place.
    pub fn sources(&self) -> &[u32] {
        &self.sources[..self.rows * self.used]
    }

    /// The places of a row's chosen and their weights, in the order in which they were chosen.
    pub fn of_row(&self, row: usize) -> (&[u32], &[f32]) {
        let slots = row * self.used..(row + 1) * self.used;
        (&self.places[slots.clone()], &self.weights[slots])
    }

    /// The chosen of a row, in that order.
    pub fn chosen(&self, row: usize) -> &[u32] {
        &self.chosen[row * self.used..(row + 1) * self.used]
    }

    /// Bytes of its lists.
    pub fn bytes(&self) -> u64 {
        let lists = 4 * (self.chosen.len() + 3 * self.places.len());
        (lists + self.next.len() * (size_of::<usize>() + 4 + size_of::<Range<usize>>())) as u64
    }
}

per_level! {
    /// Makes a row's scores probabilities.
    fn probabilities(gating: Gating, scores: &mut [f32]) = probabilities_of;
}

#[inline(always)]
fn probabilities_of(gating: Gating, scores: &mut [f32]) {
    match gating {
        Gating::Softmax => softmax(scores),
        Gating::Sigmoid => scores.iter_mut().for_each(|x| *x = math::sigmoid(*x)),
        Gating::SoftmaxOfChosen => {}
    }
}

/// `exp(x − max) / Σ exp(x − max)`, the sum in sixteen lanes and the tree.
#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let max = scores.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    let mut lanes = [0.0f32; LANES];
    for scores in scores.chunks_mut(LANES) {
        for (lane, x) in lanes.iter_mut().zip(scores) {
            *x = math::exp(*x - max);
            *lane += *x;
        }
    }
    let sum = sum_lanes(lanes);
    scores.iter_mut().for_each(|x| *x /= sum);
}

/// Whether `a` goes before `b`: it is greater, or the other is not a number.
fn is_before(a: f32, b: f32) -> bool {
    a > b || (b.is_nan() && !a.is_nan())
}

/// The experts with the greatest probability plus bias, the greatest first.
fn pick(router: &Router, probabilities: &[f32], bias: Option<&[f32]>, chosen: &mut [u32]) {
    let score = |expert: usize| probabilities[expert] + bias.map_or(0.0, |bias| bias[expert]);
    let experts = probabilities.len();
    let (groups, allowed) = match router.groups {
        Some((used, groups)) => (groups, best_groups(experts, used, groups, &score)),
        None => (1, 1),
    };
    let mut found = 0;
    for expert in 0..experts {
        if allowed >> (expert / (experts / groups)) & 1 == 0 {
            continue;
        }
        // Behind all that are not worse: of equals the lower id stands first.
        let worse = |other: &&u32| is_before(score(expert), score(**other as usize));
        let place = found - chosen[..found].iter().rev().take_while(worse).count();
        if place == chosen.len() {
            continue;
        }
        found = (found + 1).min(chosen.len());
        chosen[place..found].rotate_right(1);
        chosen[place] = expert as u32;
    }
}

/// A bit for each of the `used` groups whose two best scores have the greatest sums.
fn best_groups(experts: usize, used: usize, groups: usize, score: &dyn Fn(usize) -> f32) -> u64 {
    let len = experts / groups;
    let mut sums = [f32::NAN; GROUPS_MAX];
    for (group, sum) in sums[..groups].iter_mut().enumerate() {
        let mut best = [f32::NEG_INFINITY; 2];
        for expert in group * len..(group + 1) * len {
            let score = score(expert);
            if is_before(score, best[0]) {
                best = [score, best[0]];
            } else if is_before(score, best[1]) {
                best[1] = score;
            }
        }
        *sum = if len > 1 { best[0] + best[1] } else { best[0] };
    }
    let mut allowed = 0u64;
    for _ in 0..used {
        let left = (0..groups).filter(|group| allowed >> group & 1 == 0);
        let best = left.reduce(|a, b| if is_before(sums[b], sums[a]) { b } else { a });
        allowed |= best.map_or(0, |best| 1 << best);
    }
    allowed
}

/// The weights of the chosen.
fn weigh(router: &Router, probabilities: &[f32], chosen: &[u32], weights: &mut [f32]) {
    for (weight, expert) in weights.iter_mut().zip(chosen) {
        *weight = probabilities[*expert as usize];
    }
    if router.gating == Gating::SoftmaxOfChosen {
        softmax(weights);
    }
    if router.is_normalised {
        let sum = weights.iter().sum::<f32>().max(SUM_MIN);
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    if router.scale != 1.0 {
        weights.iter_mut().for_each(|weight| *weight *= router.scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Router =
        Router { gating: Gating::SoftmaxOfChosen, groups: None, is_normalised: false, scale: 1.0 };

    fn picked(router: &Router, scores: &[f32], bias: Option<&[f32]>, used: usize) -> Vec<u32> {
        let mut chosen = vec![u32::MAX; used];
        pick(router, scores, bias, &mut chosen);
        chosen
    }

    #[test]
    fn the_greatest_are_chosen_in_order_and_equals_by_id() {
        let scores = [0.5, 2.0, f32::NAN, 2.0, -1.0, 3.0];
        assert_eq!(picked(&PLAIN, &scores, None, 1), [5]);
        assert_eq!(picked(&PLAIN, &scores, None, 4), [5, 1, 3, 0]);
        assert_eq!(picked(&PLAIN, &scores, None, 6), [5, 1, 3, 0, 4, 2], "no number comes last");
        let bias = [3.0, 0.0, 0.0, 0.5, 0.0, 0.0];
        assert_eq!(picked(&PLAIN, &scores, Some(&bias), 3), [0, 5, 3]);
        assert_eq!(picked(&PLAIN, &[f32::NAN; 4], None, 2), [0, 1]);
    }

    #[test]
    fn groups_are_chosen_by_their_two_best() {
        // Sums: 5, 5, 6, 1. Of the two with 5 the lower group.
        let scores = [5.0, 0.0, 3.0, 2.0, 6.0, 0.0, 0.5, 0.5];
        let router = Router { groups: Some((2, 4)), ..PLAIN };
        assert_eq!(picked(&router, &scores, None, 3), [4, 0, 1]);
        let router = Router { groups: Some((1, 4)), ..PLAIN };
        assert_eq!(picked(&router, &scores, None, 2), [4, 5]);
    }

    #[test]
    fn weights_are_what_the_router_says() {
        let weigh_all = |router: Router, mut scores: Vec<f32>| {
            probabilities_of(router.gating, &mut scores);
            let mut weights = [0.0; 2];
            weigh(&router, &scores, &[2, 0], &mut weights);
            weights
        };
        let scores = vec![0.0, -2.0, 1.0];
        let e = [1.0f64, (-2.0f64).exp(), 1.0f64.exp()];
        let all: f64 = e.iter().sum();
        let close = |found: [f32; 2], expected: [f64; 2]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
            }
        };
        let router =
            |gating, is_normalised, scale| Router { gating, groups: None, is_normalised, scale };
        close(
            weigh_all(router(Gating::Softmax, false, 1.0), scores.clone()),
            [e[2] / all, 1.0 / all],
        );
        let two = e[2] + 1.0;
        close(
            weigh_all(router(Gating::Softmax, true, 1.0), scores.clone()),
            [e[2] / two, 1.0 / two],
        );
        close(
            weigh_all(router(Gating::SoftmaxOfChosen, false, 2.5), scores.clone()),
            [2.5 * e[2] / two, 2.5 / two],
        );
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        close(weigh_all(router(Gating::Sigmoid, false, 1.0), scores.clone()), [sigmoid(1.0), 0.5]);
        let tiny = vec![-80.0, 0.0, -80.0];
        let found = weigh_all(router(Gating::Sigmoid, true, 1.0), tiny);
        assert!(found[0] < 1e-20, "a sum of nearly nothing is not divided by: {found:?}");
    }

    #[test]
    fn rows_are_sorted_by_expert() {
        let mut routes = Routes::new(4, 2, 5);
        routes.rows = 3;
        routes.chosen[..6].copy_from_slice(&[4, 1, 1, 3, 4, 3]);
        routes.sort(5);
        assert_eq!(routes.experts(), [1, 3, 4]);
        assert_eq!(routes.groups(), [0..2, 2..4, 4..6]);
        assert_eq!(routes.sources(), [0, 1, 1, 2, 0, 2]);
        assert_eq!(routes.of_row(1).0, [1, 2]);
        assert_eq!(routes.of_row(2).0, [5, 3]);
    }
}
