//! How many rows a microbatch with prefill may have.
//!
//! Beside decoding sequences: so many that the time between two tokens of a stream stays within the
//! target. Let `k` microbatches of `R` rows each be in flight. Then that time is
//!
//! ```text
//! gap(R) = max( sum over stages of t(R) + overhead,  k × the slowest stage's t(R) )
//! ```
//!
//! and `R` is the largest with `gap(R)` within the target, `k` the number of stages (or of decode
//! groups, if they are more). With nobody decoding the only question is how soon the prompts are
//! computed: `L` rows in chunks of `c` take `L ÷ c` times the slowest stage's `t(c)` and once each
//! other stage's.

use super::curve::shape;
use super::limits::to_usize;
use super::times::StageTimes;
use super::{ItlTarget, PlanLimits};

/// Prefill rows of a microbatch at least, whatever the target: prompts always go on.
pub(super) const CHUNK_MIN: usize = 8;
/// Rows of a microbatch beside decodes while nothing was measured.
const ROWS_UNMEASURED: usize = 64;
/// Part of the target that is aimed at: times vary.
const AIM: f64 = 0.9;
/// Chunks are multiples of this if they are not all rows that a microbatch may have.
const CHUNK_STEP: usize = 32;
/// Microbatches between two looks at the curves.
const LOOK_EVERY: usize = 8;

/// What microbatches with prefill may have beside decoding sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beside {
    /// Rows of a microbatch, decodes included.
    pub(super) rows: usize,
    /// Microbatches in flight, those of decodes included.
    pub(super) in_flight: usize,
    /// Whether one microbatch in flight at a time may have prefill rows: the target is so short that
    /// even the smallest chunk exceeds it.
    pub(super) one: bool,
}

/// What the last look at the curves found.
#[derive(Debug, Default)]
pub(super) struct Budget {
    beside: Option<(Situation, Beside)>,
    looked: usize,
    /// For each chunk size: seconds of the slowest stage, and of all others together.
    chunks: Vec<(usize, f64, f64)>,
    chunks_looked: usize,
}

/// What a budget beside decodes depends on, the curves apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Situation {
    pub(super) groups: usize,
    /// Decode rows of the largest group.
    pub(super) decodes: usize,
    /// Rows of a microbatch at most.
    pub(super) rows_max: usize,
}

impl Budget {
    /// A microbatch with prefill rows was sent.
    pub(super) fn sent(&mut self) {
        self.looked += 1;
        self.chunks_looked += 1;
    }

    /// What microbatches may have beside decodes whose undisturbed gap is `quiet` seconds.
    pub(super) fn beside(
        &mut self,
        times: &StageTimes,
        plan: &PlanLimits,
        target: ItlTarget,
        situation: Situation,
        quiet: impl FnOnce() -> Option<f64>,
    ) -> Beside {
        if let Some((known, beside)) = self.beside
            && known == situation
            && self.looked < LOOK_EVERY
        {
            return beside;
        }
        let in_flight_max = to_usize(plan.in_flight_max);
        let (rows, in_flight) = match quiet() {
            Some(quiet) => {
                let target = AIM * target.seconds(quiet);
                let in_flight = times.stages().max(situation.groups).min(in_flight_max);
                let within = |rows| gap(times, in_flight, rows).is_some_and(|gap| gap <= target);
                (most_rows(situation.rows_max, within), in_flight)
            }
            None => (ROWS_UNMEASURED.min(situation.rows_max), in_flight_max),
        };
        let one = rows < (situation.decodes + CHUNK_MIN).min(situation.rows_max);
        let beside = Beside { rows, in_flight, one };
        self.beside = Some((situation, beside));
        self.looked = 0;
        beside
    }

    /// Rows of a microbatch when nobody decodes and `left` rows of prompts are to be computed.
    pub(super) fn alone(&mut self, times: &StageTimes, rows_max: usize, left: usize) -> usize {
        let stale = self.chunks.last().is_none_or(|last| last.0 != rows_max);
        if stale || self.chunks_looked >= LOOK_EVERY {
            self.chunks = chunks(times, rows_max);
            self.chunks_looked = 0;
        }
        let cost = |(rows, slowest, others): &(usize, f64, f64)| {
            // The last chunk has what is left; it may be the only one.
            let rest = shape((left % rows) as f64) / shape(*rows as f64);
            match left / rows {
                0 => (slowest + others) * rest,
                full if left % rows == 0 => slowest * full as f64 + others,
                full => slowest * (full as f64 + rest) + others,
            }
        };
        let best = self.chunks.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        best.map_or(rows_max, |best| best.0)
    }
}

/// The gap of a stream when so many microbatches of so many rows are in flight.
fn gap(times: &StageTimes, in_flight: usize, rows: usize) -> Option<f64> {
    let (slowest, all) = through(times, in_flight, rows)?;
    Some((all + times.overhead()).max(slowest * in_flight as f64))
}

/// Seconds of the slowest stage and of all stages for rows that are prefill for the most part.
fn through(times: &StageTimes, in_flight: usize, rows: usize) -> Option<(f64, f64)> {
    let (mut slowest, mut all) = (0.0_f64, 0.0);
    for stage in 0..times.stages() {
        let seconds = times.mixed(stage, in_flight, rows as f64)?;
        slowest = slowest.max(seconds);
        all += seconds;
    }
    Some((slowest, all))
}

/// The largest number up to `most` that is good, if all smaller ones are; at least 1.
fn most_rows(most: usize, good: impl Fn(usize) -> bool) -> usize {
    if good(most) {
        return most;
    }
    let (mut low, mut high) = (1, most);
    while low + 1 < high {
        let middle = low.midpoint(high);
        if good(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn chunks(times: &StageTimes, rows_max: usize) -> Vec<(usize, f64, f64)> {
    let steps = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48].map(|step| step * CHUNK_STEP);
    let sizes = steps.into_iter().filter(|rows| *rows < rows_max).chain([rows_max]);
    let stages = times.stages();
    sizes
        .map(|rows| {
            let (slowest, all) = through(times, stages, rows).unwrap_or_else(|| {
                let one = shape(rows as f64);
                (one, one * stages as f64)
            });
            (rows, slowest, all - slowest)
        })
        .collect()
}

impl ItlTarget {
    /// The target where a stream that nobody disturbs has a gap of `quiet` seconds.
    fn seconds(self, quiet: f64) -> f64 {
        match self {
            Self::Percent(percent) => quiet * f64::from(percent) / 100.0,
            Self::Time(time) => time.as_secs_f64(),
        }
    }
}
