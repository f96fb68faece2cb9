//! What a plan is cut for: how much each kind of work weighs, and which of several cuts is taken.
//!
//! ```text
//! score = (few × slowness of few rows + many × slowness of many rows + prefill × slowness of prefill)
//!         ÷ (few + many + prefill)                                                  lower is better
//! ```

use super::slowness::Slowness;

/// A cut that is at most this many percent slower than the best one for every kind of work is as good
/// as that: what workers measure of themselves is no more certain.
const NEAR_TIE_PERCENT: u64 = 6;
/// Millionths of one percent: by less, prefill is not better.
const PERCENT: u64 = 10_000;

/// What a plan is cut for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Objective {
    /// Streams, alone and many together, and prompts, all alike.
    #[default]
    Balanced,
    /// Many requests at a time: decode steps of many rows, and prompts.
    Throughput,
    /// Few streams at a time: decode steps of few rows.
    Latency,
}

/// How much each kind of work counts, beside the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weights {
    pub(super) few_rows: u64,
    pub(super) many_rows: u64,
    pub(super) prefill: u64,
}

impl Weights {
    /// Decode steps of few rows alone.
    pub(super) const FEW_ROWS: Self = Self { few_rows: 1, many_rows: 0, prefill: 0 };
    /// Decode steps of many rows alone.
    pub(super) const MANY_ROWS: Self = Self { few_rows: 0, many_rows: 1, prefill: 0 };

    /// Decode steps weighed as here, without prefill.
    pub(super) fn of_decode(self) -> Self {
        Self { prefill: 0, ..self }
    }

    /// The mean of the slowness, in millionths.
    pub(super) fn score(self, slowness: Slowness) -> u64 {
        let weigh = |weight: u64, slowness: u64| u128::from(weight) * u128::from(slowness);
        let sum = weigh(self.few_rows, slowness.few_rows)
            + weigh(self.many_rows, slowness.many_rows)
            + weigh(self.prefill, slowness.prefill);
        let mean = sum / u128::from(self.few_rows + self.many_rows + self.prefill);
        u64::try_from(mean).expect("a mean is no more than the largest")
    }
}

impl Objective {
    /// Every objective.
    pub const ALL: [Self; 3] = [Self::Balanced, Self::Throughput, Self::Latency];

    /// Its name in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Throughput => "throughput",
            Self::Latency => "latency",
        }
    }

    /// How much each kind of work counts.
    pub(super) fn weights(self) -> Weights {
        match self {
            Self::Balanced => Weights { few_rows: 1, many_rows: 1, prefill: 1 },
            Self::Throughput => Weights { few_rows: 1, many_rows: 4, prefill: 4 },
            Self::Latency => Weights { few_rows: 8, many_rows: 1, prefill: 1 },
        }
    }

    /// How slow a cut is by this objective, in millionths: the weighted mean over the kinds of work.
    pub(super) fn score(self, slowness: Slowness) -> u64 {
        self.weights().score(slowness)
    }

    /// Which of several cuts is taken, by their slowness: of the one with the best score and its near-ties
    /// the one with the best prefill; of equals, the better score and then the first. `None` if there are
    /// none.
    ///
    /// Near-ties are told by every kind of work and not by the score: else a cut whose prefill is
    /// better could be a near-tie although its decode steps are far slower.
    pub(super) fn choose(self, cuts: &[Slowness]) -> Option<usize> {
        let best = *cuts.iter().min_by_key(|cut| self.score(**cut))?;
        let near =
            (0..cuts.len()).filter(|cut| cuts[*cut].is_within_percent(best, NEAR_TIE_PERCENT));
        near.min_by_key(|cut| (cuts[*cut].prefill / PERCENT, self.score(cuts[*cut])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slowness(few_rows: u64, many_rows: u64, prefill: u64) -> Slowness {
        let percent = |percent: u64| percent * PERCENT;
        Slowness {
            few_rows: percent(few_rows),
            many_rows: percent(many_rows),
            prefill: percent(prefill),
        }
    }

    #[test]
    fn a_score_is_a_weighted_mean() {
        assert_eq!(Objective::Balanced.score(slowness(100, 110, 120)), 1_100_000);
        assert_eq!(Objective::Throughput.score(slowness(190, 100, 100)), 1_100_000);
        assert_eq!(Objective::Latency.score(slowness(100, 150, 150)), 1_100_000);
        assert_eq!(Objective::default(), Objective::Balanced);
    }

    #[test]
    fn near_ties_go_to_prefill() {
        let choose = |objective: Objective, cuts: &[Slowness]| objective.choose(cuts);
        let (best, near) = (slowness(100, 100, 150), slowness(106, 105, 149));
        assert_eq!(choose(Objective::Latency, &[best, near]), Some(1));
        // Seven percent more of one kind of work are no tie, whatever the mean is.
        assert_eq!(choose(Objective::Latency, &[best, slowness(104, 107, 149)]), Some(0));
        // Of equal prefill, the better score; of equal scores, the first.
        assert_eq!(choose(Objective::Latency, &[slowness(105, 100, 150), best]), Some(1));
        assert_eq!(choose(Objective::Latency, &[best, best]), Some(0));
        assert_eq!(choose(Objective::Balanced, &[]), None);
    }

    #[test]
    fn names_are_unlike() {
        assert_eq!(Objective::ALL.map(Objective::name), ["balanced", "throughput", "latency"]);
    }
}
