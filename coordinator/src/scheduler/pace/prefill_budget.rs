//! How many rows a microbatch with prefill may have.
//!
//! Beside decoding sequences: so many that the time between two tokens of a stream stays within the
//! target. Let `k` microbatches of `R` rows each be in flight. Then that time is
//!
//! ```text
//! gap(R) = max( sum over stages of t(R) + overhead,  k × the slowest stage's t(R) )
//! ```
//!
//! and `R` is the largest with `gap(R)` within the target. Of several `k` the one counts that lets the
//! most rows pass: as many as there are stages where each has its own memory, one where they share a
//! bus.
//!
//! Times are predicted, and they vary. So the budget holds a *set point*, a part of the target, which
//! follows the gaps that streams really had: each gap beyond the target takes 6 % off it, each other one
//! adds a little. (Multiplicative decrease and increase, as in congestion control; where both balance,
//! 4 % of the gaps are beyond the target.)
//!
//! With nobody decoding the only question is how soon the prompts are computed: `L` rows in chunks of
//! `c` take `L ÷ c` times the slowest stage's `t(c)`, and once each other stage's.

use super::curve::shape;
use super::times::StageTimes;
use crate::scheduler::limits::{ItlTarget, PlanLimits, to_usize};
use std::ops::RangeInclusive;
use std::time::Duration;
use woolly_protocol::ids::MicrobatchId;

/// Prefill rows of a microbatch at least, whatever the target: prompts always go on.
pub(in crate::scheduler) const CHUNK_MIN: usize = 2;
/// How many times more rows than were ever measured with prefill may be used: past its end a curve is
/// a guess.
const GROWTH: usize = 2;
/// Rows of a microbatch beside decodes while nothing was measured.
const ROWS_UNMEASURED: usize = 64;
/// The set point before any gap is known, as a part of the target.
const SET_POINT_FIRST: f64 = 0.9;
/// It stays between these: below, a target of twice the undisturbed gap would leave prompts nothing.
const SET_POINT_LEAST: f64 = 0.6;
const SET_POINT_MOST: f64 = 1.0;
/// What a gap beyond the target takes off it.
const SET_POINT_STEP: f64 = 0.06;
/// The part of the gaps that may be beyond the target: the set point settles where so many are.
const BEYOND: f64 = 0.04;
/// Chunks are multiples of this if they are not all rows that a microbatch may have.
const CHUNK_STEP: usize = 32;
/// Microbatches between two looks at the curves.
const LOOK_EVERY: usize = 8;

/// What microbatches with prefill may have beside decoding sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduler) struct Allowance {
    /// Rows of a microbatch, decodes included.
    pub(in crate::scheduler) rows: usize,
    /// Microbatches in flight, those of decodes included.
    pub(in crate::scheduler) in_flight: usize,
    /// Whether one microbatch in flight at a time may have prefill rows: the target is so short that
    /// even the smallest chunk exceeds it.
    pub(in crate::scheduler) one: bool,
}

/// What the last look at the curves found, and how it turned out.
#[derive(Debug)]
pub(in crate::scheduler) struct Budget {
    allowance: Option<(DecodeLoad, Allowance)>,
    looked: usize,
    /// Since when there is prefill beside decodes.
    since: Option<Duration>,
    /// Seconds of the last look's target; `None` while they are not known.
    target: Option<f64>,
    set_point: f64,
    /// The first microbatch whose gap shows what the set point does.
    observe_from: MicrobatchId,
    /// The last microbatch with prefill rows, and when it was sent.
    last: (MicrobatchId, Duration),
    /// For each chunk size: seconds of the slowest stage, and of all others together.
    chunks: Vec<(usize, f64, f64)>,
    chunks_looked: usize,
}

/// What a budget beside decodes depends on, the curves apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduler) struct DecodeLoad {
    pub(in crate::scheduler) groups: usize,
    /// Sequences that decode.
    pub(in crate::scheduler) streams: usize,
    /// Rows of a microbatch at most.
    pub(in crate::scheduler) rows_max: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            allowance: None,
            looked: 0,
            since: None,
            target: None,
            set_point: SET_POINT_FIRST,
            observe_from: MicrobatchId(0),
            last: (MicrobatchId(0), Duration::ZERO),
            chunks: Vec::new(),
            chunks_looked: 0,
        }
    }
}

impl Budget {
    /// Nothing is prefilled beside decodes at this moment.
    pub(in crate::scheduler) fn nothing_beside(&mut self) {
        self.since = None;
    }

    /// Between which times a gap must have begun to say something: prompts were there, and prefill
    /// was sent after it began.
    pub(in crate::scheduler) fn gaps_begin(&self) -> Option<RangeInclusive<Duration>> {
        Some(self.since?..=self.last.1)
    }

    /// The longest gap that ended with a microbatch. Those sent before `later` show nothing of what
    /// this one changes.
    pub(in crate::scheduler) fn observe_gap(
        &mut self,
        gap: Duration,
        of: MicrobatchId,
        later: MicrobatchId,
    ) {
        let Some(target) = self.target.filter(|_| of >= self.observe_from) else { return };
        if gap.as_secs_f64() > target {
            if self.allowance.is_some_and(|(_, allowance)| allowance.one) {
                // There are no fewer rows than these.
                return;
            }
            self.set_point = (self.set_point * (1.0 - SET_POINT_STEP)).max(SET_POINT_LEAST);
            self.observe_from = later;
            // What the smaller set point allows counts at once.
            self.looked = LOOK_EVERY;
        } else {
            self.set_point = (self.set_point * (1.0 + SET_POINT_STEP * BEYOND / (1.0 - BEYOND)))
                .min(SET_POINT_MOST);
        }
    }

    /// What the last answer to [`allowance`](Self::allowance) was in rows; 0 if there was none.
    pub(in crate::scheduler) fn rows_beside(&self) -> usize {
        self.allowance.map_or(0, |(_, allowance)| allowance.rows)
    }

    /// A microbatch with prefill rows was sent.
    pub(in crate::scheduler) fn sent(&mut self, now: Duration, id: MicrobatchId) {
        self.last = (id, now);
        self.looked += 1;
        self.chunks_looked += 1;
    }

    /// What microbatches may have beside decodes whose undisturbed gap is `undisturbed` seconds.
    pub(in crate::scheduler) fn allowance(
        &mut self,
        times: &StageTimes,
        plan: &PlanLimits,
        target: ItlTarget,
        load: DecodeLoad,
        now: Duration,
        undisturbed: impl FnOnce() -> Option<f64>,
    ) -> Allowance {
        self.since.get_or_insert(now);
        if let Some((known, allowance)) = self.allowance
            && known == load
            && self.looked < LOOK_EVERY
        {
            return allowance;
        }
        if self.target.is_none() || self.allowance.is_none_or(|(known, _)| known != load) {
            // What is in flight was sent for another target.
            self.observe_from.0 = self.last.0.0 + 1 + u64::from(plan.in_flight_max);
        }
        self.target = undisturbed().map(|gap| target.seconds(gap));
        let allowance = match self.target {
            Some(target) => best(times, plan, load, self.set_point * target),
            None => Allowance {
                rows: ROWS_UNMEASURED.min(load.rows_max),
                in_flight: to_usize(plan.in_flight_max),
                one: false,
            },
        };
        self.allowance = Some((load, allowance));
        self.looked = 0;
        allowance
    }

    /// Rows of a microbatch when nobody decodes and `left` rows of prompts are to be computed.
    pub(in crate::scheduler) fn alone(
        &mut self,
        times: &StageTimes,
        rows_max: usize,
        left: usize,
    ) -> usize {
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
                full if left.is_multiple_of(*rows) => slowest * full as f64 + others,
                full => slowest * (full as f64 + rest) + others,
            }
        };
        let best = self.chunks.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        best.map_or(rows_max, |best| best.0)
    }
}

/// The number of microbatches in flight that lets the most prefill rows pass within the target.
fn best(times: &StageTimes, plan: &PlanLimits, load: DecodeLoad, target: f64) -> Allowance {
    let stages = times.stages();
    let most = load.rows_max.min(GROWTH * times.most_mixed_rows().max(load.streams));
    let options = [1, stages.div_ceil(2), stages, stages.max(load.groups)];
    let options = options.into_iter().filter(|option| *option <= to_usize(plan.in_flight_max));
    let found = options.map(|in_flight| {
        let within = |rows| gap(times, in_flight, rows).is_some_and(|gap| gap <= target);
        (in_flight, most_rows(most, within))
    });
    let streams = load.streams;
    let (in_flight, rows) = found
        .max_by_key(|(in_flight, rows)| (in_flight * rows).saturating_sub(streams))
        .expect("one microbatch may always be in flight");
    let decodes = streams.div_ceil(load.groups.min(in_flight));
    Allowance { rows, in_flight, one: rows < (decodes + CHUNK_MIN).min(load.rows_max) }
}

/// The gap of a stream when so many microbatches of so many rows are in flight.
fn gap(times: &StageTimes, in_flight: usize, rows: usize) -> Option<f64> {
    let best_case = |stage| times.mixed_best_case(stage, in_flight, rows as f64);
    let (slowest, all) = through(times.stages(), best_case)?;
    Some((all + times.overhead()).max(slowest * in_flight as f64))
}

/// Seconds of the slowest stage and of all stages.
fn through(stages: usize, of: impl Fn(usize) -> Option<f64>) -> Option<(f64, f64)> {
    let (mut slowest, mut all) = (0.0_f64, 0.0);
    for stage in 0..stages {
        let seconds = of(stage)?;
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
            let guess = |stage| times.mixed(stage, stages, rows as f64);
            let (slowest, all) = through(stages, guess).unwrap_or_else(|| {
                let one = shape(rows as f64);
                (one, one * stages as f64)
            });
            (rows, slowest, all - slowest)
        })
        .collect()
}

impl ItlTarget {
    /// The target where a stream that nobody disturbs has a gap of so many seconds.
    fn seconds(self, gap: f64) -> f64 {
        match self {
            Self::Percent(percent) => gap * f64::from(percent) / 100.0,
            Self::Time(time) => time.as_secs_f64(),
        }
    }
}
