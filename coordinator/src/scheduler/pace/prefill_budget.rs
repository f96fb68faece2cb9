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
/// Rows of a microbatch beside decodes while nothing was measured, of a dense model; of a mixture as many as take
/// as long.
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
/// Another number of microbatches in flight must let this part more rows of prefill pass.
const PRESENT_COUNTS: usize = 8;
/// The target doubles, if nothing held it, when so many prompts wait for each that is served.
const QUEUE_DOUBLES: f64 = 4.0;
/// What a queue adds to the target at most, as a part of it.
const QUEUE_COUNTS: f64 = 0.5;
/// A number of rows that is better than the few below it: on AVX-512 a row of 8, of 12 and of 16 costs
/// 2.0, 2.0 and 1.8 times one of 512.
const KERNEL_ROWS: usize = 16;
/// By how much a target that is a multiple may be exceeded to have [`KERNEL_ROWS`].
const KERNEL_ROWS_NEAR: f64 = 1.1;
/// Microbatches with prefill between two looks at the curves, or as many as there are stages if they are
/// more.
const LOOK_EVERY: usize = 8;
/// They are looked at at once when the streams have become more or fewer by this part.
const STREAMS_CHANGED: usize = 8;

/// What microbatches with prefill may have beside decoding sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduler) struct Allowance {
    /// Rows of a microbatch, decodes included.
    pub(in crate::scheduler) rows: usize,
    /// The same for the first that follow decodes alone: these come back sooner than the stages compute
    /// them with prefill, and queue.
    rows_first: usize,
    /// Microbatches in flight, those of decodes included.
    pub(in crate::scheduler) in_flight: usize,
    /// Microbatches in flight when decode rows go as well: enough to keep the slowest stage busy.
    pub(in crate::scheduler) in_flight_max: usize,
    /// Whether one microbatch in flight at a time may have prefill rows: the target is so short that
    /// even the smallest chunk exceeds it.
    pub(in crate::scheduler) one: bool,
}

impl Allowance {
    /// With the rows for a microbatch before which so many had prefill: as many as in flight are the
    /// first, and over twice as many more they grow to what they may be.
    fn after(self, sent: usize) -> Self {
        let Self { rows, rows_first, in_flight, .. } = self;
        let grown = sent.saturating_sub(in_flight).min(2 * in_flight);
        Self { rows: rows_first + (rows - rows_first) * grown / (2 * in_flight), ..self }
    }
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
    /// Microbatches with prefill rows since prompts are beside decodes.
    beside: usize,
}

/// What a budget beside decodes depends on, the curves apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduler) struct DecodeLoad {
    pub(in crate::scheduler) groups: usize,
    /// Sequences that decode.
    pub(in crate::scheduler) streams: usize,
    /// Prompts that are to be computed beside them.
    pub(in crate::scheduler) waiting: usize,
    /// Rows of a microbatch at most.
    pub(in crate::scheduler) rows_max: usize,
}

impl DecodeLoad {
    /// Whether it is the same but for the prompts, which go on and come at any time, and a few streams of
    /// many.
    fn is_like(&self, other: &Self) -> bool {
        let few = self.streams.abs_diff(other.streams) * STREAMS_CHANGED <= self.streams;
        few && (self.groups, self.rows_max) == (other.groups, other.rows_max)
    }

    /// Prompts behind the first, for each that is served: streams, and one prompt at each stage.
    fn queue(&self, stages: usize) -> f64 {
        self.waiting.saturating_sub(1) as f64 / (self.streams + stages) as f64
    }
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
            beside: 0,
        }
    }
}

impl Budget {
    /// Nothing is prefilled beside decodes at this moment.
    pub(in crate::scheduler) fn nothing_beside(&mut self) {
        self.since = None;
        self.beside = 0;
        self.looked = usize::MAX;
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
            self.looked = usize::MAX;
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
        self.looked = self.looked.saturating_add(1);
        self.beside = self.beside.saturating_add(usize::from(self.since.is_some()));
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
            && known.is_like(&load)
            && self.looked < LOOK_EVERY.max(times.stages())
        {
            return allowance.after(self.beside);
        }
        if self.target.is_none() || self.allowance.is_none_or(|(known, _)| !known.is_like(&load)) {
            // What is in flight was sent for another target.
            self.observe_from.0 = self.last.0.0 + 1 + u64::from(plan.in_flight_max);
        }
        let queue = load.queue(times.stages());
        self.target = undisturbed().map(|gap| target.seconds(gap, queue));
        let allowance = match self.target {
            Some(seconds) => {
                let present = self.allowance.map(|(_, present)| present.in_flight);
                let within = (self.set_point * seconds, target.near());
                let found = best(times, plan, load, within, present);
                if present.is_some_and(|present| present != found.in_flight) {
                    // What was sent for another number queues as well.
                    self.beside = 0;
                }
                found
            }
            None => {
                let rows = times.shape.as_dense(ROWS_UNMEASURED).min(load.rows_max);
                let in_flight = times.in_flight(f64::INFINITY, to_usize(plan.in_flight_max));
                let (rows_first, in_flight_max) = (rows, in_flight);
                Allowance { rows, rows_first, in_flight, in_flight_max, one: false }
            }
        };
        self.allowance = Some((load, allowance));
        self.looked = 0;
        allowance.after(self.beside)
    }
}

/// The number of microbatches in flight that lets the most prefill rows pass within the target.
///
/// `present` is the number there was; `near` how far the target may be exceeded for [`KERNEL_ROWS`].
fn best(
    times: &StageTimes,
    plan: &PlanLimits,
    load: DecodeLoad,
    (seconds, near): (f64, f64),
    present: Option<usize>,
) -> Allowance {
    let stages = times.stages();
    let most = load.rows_max.min(GROWTH * times.most_mixed_rows().max(load.streams));
    let rows_of = |in_flight| {
        let within = |rows, seconds: f64| gap(times, in_flight, rows).is_some_and(|g| g <= seconds);
        let rows = most_rows(most, |rows| within(rows, seconds));
        let few = (KERNEL_ROWS / 2 + 1..KERNEL_ROWS).contains(&rows) && most >= KERNEL_ROWS;
        if few && within(KERNEL_ROWS, seconds * near) { KERNEL_ROWS } else { rows }
    };
    let filled = stages.max(load.groups);
    // Microbatches in flight that keep the slowest stage busy.
    let keeping_busy = |rows: usize| {
        let mixed = |stage| times.mixed(stage, stages, rows as f64);
        let slowest = times.through(mixed).map_or(f64::INFINITY, |(slowest, _)| slowest);
        times.in_flight(slowest, to_usize(plan.in_flight_max))
    };
    let with_links = keeping_busy(rows_of(filled));
    // Of equals the last counts.
    let options = [with_links, 1, stages.div_ceil(2), stages, filled];
    let new = |(at, option): &(usize, usize)| !options[..*at].contains(option);
    let found = options.into_iter().enumerate().filter(new).map(|(_, option)| option);
    let found = found.filter(|option| *option <= to_usize(plan.in_flight_max));
    let found = found.map(|in_flight| (in_flight, rows_of(in_flight)));
    let streams = load.streams;
    let prefill = |(in_flight, rows): &(usize, usize)| {
        let rows = (in_flight * rows).saturating_sub(streams);
        // Gaps are longer where one number follows another.
        if Some(*in_flight) == present { rows + rows / PRESENT_COUNTS } else { rows }
    };
    let (in_flight, rows) =
        found.max_by_key(prefill).expect("one microbatch may always be in flight");
    let decodes = streams.div_ceil(load.groups.min(in_flight));
    let one = rows < (decodes + CHUNK_MIN).min(load.rows_max);
    let in_flight_max = keeping_busy(rows).max(in_flight);
    // All that are in flight wait before the first stage, and then go through.
    let queued = (2 * in_flight - 1) as f64;
    let best_case = |stage, rows| times.mixed_best_case(stage, in_flight, rows as f64);
    let first = |rows| {
        times.through(|stage| best_case(stage, rows)).is_some_and(|(t, _)| t * queued <= seconds)
    };
    let rows_first = most_rows(rows, first);
    Allowance { rows, rows_first, in_flight, in_flight_max, one }
}

/// The gap of a stream when so many microbatches of so many rows are in flight.
fn gap(times: &StageTimes, in_flight: usize, rows: usize) -> Option<f64> {
    let best_case = |stage| times.mixed_best_case(stage, in_flight, rows as f64);
    let (slowest, all) = times.through(best_case)?;
    Some((all + times.overhead()).max(slowest * in_flight as f64))
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

impl ItlTarget {
    /// The target where a stream that nobody disturbs has a gap of so many seconds, and so many prompts
    /// wait for each that is served. Who waits for a first token waits longer than any stream, so where
    /// they are many a multiple grows by up to a half; a time stays what it is.
    fn seconds(self, gap: f64, queue: f64) -> f64 {
        match self {
            Self::Percent(percent) => {
                let for_queue = 1.0 + (queue / QUEUE_DOUBLES).min(QUEUE_COUNTS);
                gap * f64::from(percent) / 100.0 * for_queue
            }
            Self::Time(time) => time.as_secs_f64(),
        }
    }

    /// How far it may be exceeded, as a factor, for rows that the kernels like.
    fn near(self) -> f64 {
        if matches!(self, Self::Percent(_)) { KERNEL_ROWS_NEAR } else { 1.0 }
    }
}
