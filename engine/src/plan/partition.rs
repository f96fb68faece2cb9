//! Cutting a row of layers into contiguous stages so that the dearest stage is cheapest.
//!
//! Two passes of dynamic programming over (members seen, layers placed). The first finds the
//! smallest possible cost of the dearest stage; the second, among the cuts that reach it, the one
//! with the smallest sum of squares, which spreads what the dearest stage leaves open. Members are
//! taken in order; as few as possible stay without a stage, the later ones if it makes no
//! difference. Whole numbers only, so that equal input gives equal cuts everywhere.

use std::ops::Range;

/// A cut: the members that have a stage, with their layers.
pub(super) type Stages = Vec<(usize, Range<u32>)>;

/// Cost of the layers on the member, if it can hold them. It grows with the layers: with one more, none
/// costs less, and what cannot be held is not held either.
pub(super) trait Cost: Fn(usize, Range<u32>) -> Option<u64> {}
impl<F: Fn(usize, Range<u32>) -> Option<u64>> Cost for F {}

/// The best cut of `layers` layers over `members` members; `None` if no cut is possible.
pub(super) fn partition(members: usize, layers: u32, cost: &impl Cost) -> Option<Stages> {
    let problem = Problem { members, layers, cost };
    let dearest = problem.solve(|so_far, stage| so_far.max(u128::from(stage)), u64::MAX)?.1.key.1;
    let dearest = u64::try_from(dearest).expect("the dearest stage has the cost of one stage");
    // One stage costs at most 2^63 or so; squares of 64 of them are held to what fits.
    let sum = |so_far: u128, stage: u64| {
        so_far.saturating_add(u128::from(stage).saturating_mul(u128::from(stage)))
    };
    problem.solve(sum, dearest).map(|(stages, _)| stages)
}

/// A problem to solve.
struct Problem<'a, C> {
    members: usize,
    layers: u32,
    cost: &'a C,
}

/// The best way to place the first layers on the first members.
#[derive(Clone, Copy)]
struct Best {
    /// Members without a stage, then what is minimised.
    key: (usize, u128),
    /// Where the last member's stage begins; `None` if it has none.
    from: Option<u32>,
}

impl<C: Cost> Problem<'_, C> {
    /// The cut that minimises (members without a stage, `add` over the stages), of those without a
    /// stage dearer than `dearest`.
    fn solve(&self, add: impl Fn(u128, u64) -> u128, dearest: u64) -> Option<(Stages, Best)> {
        let mut rows: Vec<Vec<Option<Best>>> = vec![vec![None; self.layers as usize + 1]];
        rows[0][0] = Some(Best { key: (0, 0), from: None });
        for member in 0..self.members {
            let row = self.row(member, &rows[member], &add, dearest);
            rows.push(row);
        }
        let best = rows[self.members][self.layers as usize]?;
        let mut stages = Vec::new();
        let mut end = self.layers;
        for member in (0..self.members).rev() {
            if let Some(start) = rows[member + 1][end as usize].and_then(|best| best.from) {
                stages.push((member, start..end));
                end = start;
            }
        }
        stages.reverse();
        Some((stages, best))
    }

    /// The best ways to place the first layers, for each number of them, when `member` is added to those
    /// of `before`.
    fn row(
        &self,
        member: usize,
        before: &[Option<Best>],
        add: &impl Fn(u128, u64) -> u128,
        dearest: u64,
    ) -> Vec<Option<Best>> {
        // For each number of layers, the fewest members without a stage over it and those below it.
        let fewest = before.iter().scan(usize::MAX, |fewest, best| {
            *fewest = best.map_or(*fewest, |best| best.key.0.min(*fewest));
            Some(*fewest)
        });
        let fewest: Vec<usize> = fewest.collect();
        let best_of = |end: u32| {
            // Of equals, a later member stays idle, and a member with a stage starts as early as it can.
            let idle = before[end as usize];
            let mut found = idle.map(|best| Best { key: (best.key.0 + 1, best.key.1), from: None });
            for start in (0..end).rev() {
                let cost = (self.cost)(member, start..end).filter(|&cost| cost <= dearest);
                // With more layers the stage is dearer still.
                let Some(cost) = cost else { break };
                let least = (fewest[start as usize], add(0, cost));
                if found.is_some_and(|found| found.key < least) {
                    break;
                }
                let Some(best) = before[start as usize] else { continue };
                let key = (best.key.0, add(best.key.1, cost));
                let is_better =
                    |found: Best| key < found.key || key == found.key && found.from.is_some();
                if found.is_none_or(is_better) {
                    found = Some(Best { key, from: Some(start) });
                }
            }
            found
        };
        (0..=self.layers).map(best_of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers_of(stages: &Stages) -> Vec<(usize, u32)> {
        stages.iter().map(|(member, layers)| (*member, layers.end - layers.start)).collect()
    }

    #[test]
    fn equal_members_get_equal_layers_and_the_rest_is_spread() {
        let cost = |_, layers: Range<u32>| Some(u64::from(layers.end - layers.start));
        let stages = partition(3, 25, &cost).unwrap();
        assert_eq!(layers_of(&stages), [(0, 8), (1, 8), (2, 9)]);
    }

    #[test]
    fn every_cut_of_a_small_problem_is_no_better() {
        // Every cut of 7 layers into 3 stages, by hand, against the tables.
        let weights = [5u64, 1, 1, 9, 2, 2, 7];
        let speeds = [1u64, 3, 2];
        let cost = |member: usize, layers: Range<u32>| {
            let range = layers.start as usize..layers.end as usize;
            Some(weights[range].iter().sum::<u64>() * 6 / speeds[member])
        };
        let stages = partition(3, 7, &cost).unwrap();
        let found = stages.iter().map(|(m, l)| cost(*m, l.clone()).unwrap()).max().unwrap();
        let mut best = u64::MAX;
        for a in 1..6u32 {
            for b in a + 1..7 {
                let all = [cost(0, 0..a), cost(1, a..b), cost(2, b..7)];
                best = best.min(all.into_iter().flatten().max().unwrap());
            }
        }
        assert_eq!(found, best);
    }

    /// The least (members without a stage, dearest stage, sum of squares) of every way to place the layers
    /// from `start` on the members from `member` on.
    fn least(
        cost: &impl Cost,
        (member, members): (usize, usize),
        (start, layers): (u32, u32),
        so_far: (usize, u64, u128),
    ) -> Option<(usize, u64, u128)> {
        if member == members {
            return (start == layers).then_some(so_far);
        }
        let (idle, dearest, squares) = so_far;
        let rest = |end, so_far| least(cost, (member + 1, members), (end, layers), so_far);
        let used = (start + 1..=layers).filter_map(|end| {
            let cost = cost(member, start..end)?;
            rest(end, (idle, dearest.max(cost), squares + u128::from(cost * cost)))
        });
        rest(start, (idle + 1, dearest, squares)).into_iter().chain(used).min()
    }

    #[test]
    fn no_way_to_place_a_few_layers_is_better() {
        let mut seed = 1u64;
        let mut below = |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % limit
        };
        for _ in 0..500 {
            let (members, layers) = (1 + below(4) as usize, 1 + below(7) as u32);
            let weights: Vec<u64> = (0..layers).map(|_| 1 + below(4)).collect();
            let slow: Vec<u64> = (0..members).map(|_| 1 + below(3)).collect();
            let held: Vec<u64> = (0..members).map(|_| below(16)).collect();
            let cost = |member: usize, range: Range<u32>| {
                let weight: u64 = weights[range.start as usize..range.end as usize].iter().sum();
                (weight <= held[member]).then(|| weight * slow[member])
            };
            let found = partition(members, layers, &cost).map(|stages| {
                let costs = stages.iter().map(|(member, layers)| cost(*member, layers.clone()));
                let costs: Vec<u64> = costs.map(|cost| cost.expect("it holds them")).collect();
                let squares = costs.iter().map(|cost| u128::from(cost * cost)).sum();
                (members - stages.len(), costs.into_iter().max().expect("a stage"), squares)
            });
            assert_eq!(found, least(&cost, (0, members), (0, layers), (0, 0, 0)));
        }
    }

    #[test]
    fn a_member_that_can_hold_nothing_stays_idle() {
        let cost = |member, layers: Range<u32>| {
            (member != 1).then(|| u64::from(layers.end - layers.start))
        };
        assert_eq!(layers_of(&partition(3, 4, &cost).unwrap()), [(0, 2), (2, 2)]);
    }

    #[test]
    fn later_members_are_spare_when_layers_run_out() {
        let cost = |_, layers: Range<u32>| Some(u64::from(layers.end - layers.start));
        assert_eq!(layers_of(&partition(4, 2, &cost).unwrap()), [(0, 1), (1, 1)]);
    }

    #[test]
    fn nothing_fits() {
        assert!(partition(2, 2, &|_, _| None).is_none());
        assert!(partition(0, 2, &|_, _| Some(1)).is_none());
    }
}
