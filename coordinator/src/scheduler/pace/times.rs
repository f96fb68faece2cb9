//! How long each stage takes: one curve per number of microbatches in work at the same time.
//!
//! Workers of one machine share its memory, so a stage is slower while others compute. Nobody has to
//! be told which workers those are: each number of microbatches in flight (the overlap, at most the
//! number of stages) has a curve of its own. One that was never measured is guessed from the others,
//! and once it was its own measurements count.
//!
//! Microbatches with prefill rows have curves of their own: the head computes their sampled rows
//! only, and their rows attend to more positions.

use super::curve::{Curve, between};
use super::shape::Shape;
use crate::scheduler::limits::to_usize;
use std::time::Duration;

/// A measurement older than this is worth being repeated.
const STALE_AFTER: Duration = Duration::from_secs(300);
/// While prompts wait, decode rows alone are measured again after this.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// How much faster than guessed a stage may turn out to be: with rows that this overlap has not had.
const BEST_CASE_ROWS: f64 = 0.85;
/// The same, with more overlap than was ever measured; it was guessed to slow nothing down.
const BEST_CASE_MORE_OVERLAP: f64 = 0.95;
/// The same, with less overlap than was ever measured: at best one stage has the memory alone.
const BEST_CASE_LESS_OVERLAP: f64 = 0.5;
/// Overheads whose least is believed.
const OVERHEADS: usize = 8;

/// What a stage is thought to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::scheduler) struct Estimate {
    pub(in crate::scheduler) seconds: f64,
    /// The least that it may turn out to be; equal to `seconds` if it was measured.
    pub(in crate::scheduler) best_case: f64,
}

/// The curves of one stage.
#[derive(Clone, Debug, Default)]
struct StageCurves {
    /// Of decode rows alone, by overlap from 1.
    decode: Levels,
    /// Of microbatches with prefill rows, by overlap from 1.
    mixed: Levels,
}

/// One curve for each overlap that was measured.
#[derive(Clone, Debug, Default)]
struct Levels {
    /// The overlaps, ascending, with the fewest and the most rows of their curves. Apart from those: they
    /// are looked through far more often.
    ranges: Vec<(usize, (f64, f64))>,
    /// The curves, in the same order.
    curves: Vec<Curve>,
    shape: Shape,
}

impl Levels {
    fn place(&self, overlap: usize) -> Result<usize, usize> {
        self.ranges.binary_search_by_key(&overlap, |(level, _)| *level)
    }

    /// One measurement. Zero time is no measurement.
    fn observe(&mut self, now: Duration, overlap: usize, rows: u32, time: Duration) {
        let place = self.place(overlap).unwrap_or_else(|place| {
            self.ranges.insert(place, (overlap, (0.0, 0.0)));
            self.curves.insert(place, Curve::new(self.shape));
            place
        });
        self.curves[place].observe(now, rows, time);
        match self.curves[place].range() {
            Some(range) => self.ranges[place].1 = range,
            None => {
                self.ranges.remove(place);
                self.curves.remove(place);
            }
        }
    }

    /// The curve of an overlap that was measured.
    fn of(&self, overlap: usize) -> Option<&Curve> {
        self.place(overlap).ok().map(|place| &self.curves[place])
    }
}

/// The curves of all stages of a plan.
#[derive(Debug, Default)]
pub(in crate::scheduler) struct StageTimes {
    stages: Vec<StageCurves>,
    /// Seconds that a microbatch spends outside the stages: the last few, and where the next goes.
    overheads: Vec<f64>,
    next_overhead: usize,
    /// What stages take where nothing is known.
    pub(super) shape: Shape,
}

impl StageTimes {
    /// A plan about which nothing is known but the shape of its stages' curves.
    pub(in crate::scheduler) fn new(stages: u32, shape: Shape) -> Self {
        let levels = Levels { shape, ..Levels::default() };
        let stage = StageCurves { decode: levels.clone(), mixed: levels };
        Self { stages: vec![stage; to_usize(stages)], shape, ..Self::default() }
    }

    /// Stages of the plan.
    pub(in crate::scheduler) fn stages(&self) -> usize {
        self.stages.len()
    }

    /// One measurement of a stage.
    pub(in crate::scheduler) fn observe(&mut self, now: Duration, stage: usize, of: Measured) {
        let count = self.stages.len();
        let curves = &mut self.stages[stage];
        let levels = if of.has_prefill { &mut curves.mixed } else { &mut curves.decode };
        let level = (of.overlap.round() as usize).clamp(1, count);
        levels.observe(now, level, of.rows, of.time);
    }

    /// One measurement of what a microbatch spent outside the stages while it never queued.
    pub(in crate::scheduler) fn observe_overhead(&mut self, seconds: f64) {
        if self.overheads.len() < OVERHEADS {
            self.overheads.push(seconds);
        } else {
            self.overheads[self.next_overhead] = seconds;
            self.next_overhead = (self.next_overhead + 1) % OVERHEADS;
        }
    }

    /// Seconds from the last stage through the coordinator to the first, and between stages.
    pub(in crate::scheduler) fn overhead(&self) -> f64 {
        self.overheads.iter().copied().reduce(f64::min).unwrap_or(0.0)
    }

    /// Seconds of the slowest stage and of all stages, where each takes what `of` says; `None` while one
    /// is unknown.
    pub(in crate::scheduler) fn through(
        &self,
        of: impl Fn(usize) -> Option<f64>,
    ) -> Option<(f64, f64)> {
        let (mut slowest, mut all) = (0.0_f64, 0.0);
        for stage in 0..self.stages.len() {
            let seconds = of(stage)?;
            slowest = slowest.max(seconds);
            all += seconds;
        }
        Some((slowest, all))
    }

    /// Microbatches in flight, at most `most`, that keep a slowest stage of so many seconds busy: one for
    /// each stage, and as many as it computes while one is on its way.
    pub(in crate::scheduler) fn in_flight(&self, slowest: f64, most: usize) -> usize {
        let on_their_way = (self.overhead() / slowest).ceil();
        let on_their_way = if on_their_way.is_finite() { on_their_way as usize } else { 1 };
        (self.stages.len() + on_their_way.max(1)).min(most)
    }

    /// What a stage takes for decode rows with so much overlap; `None` if it never had any.
    ///
    /// A curve may be flat where it was measured and rise beyond, and the other way round. So more or
    /// fewer rows than were measured take at least what the curve of prefill makes of the step there,
    /// or the usual shape where that knows nothing. That it goes on as it was is the best case.
    pub(in crate::scheduler) fn decode(
        &self,
        now: Duration,
        stage: usize,
        overlap: usize,
        rows: f64,
    ) -> Option<Estimate> {
        let StageCurves { decode, mixed } = &self.stages[stage];
        let overlap = overlap.clamp(1, self.stages.len());
        let near = nearest(decode, overlap, rows)?;
        let found = estimate_near(decode, near, overlap, rows, now)?;
        let (fewest, most) = near.1;
        let end = rows.clamp(fewest, most);
        if end == rows {
            return Some(found);
        }
        let at_end = estimate(decode, overlap, end, now)?.seconds;
        let seconds = found.seconds.max(at_end * growth(mixed, overlap, (end, at_end), rows));
        Some(Estimate { seconds, best_case: found.best_case })
    }

    /// Whether about so many decode rows alone were measured on every stage of late, whatever was in
    /// flight beside them.
    pub(in crate::scheduler) fn decode_is_fresh(&self, now: Duration, rows: f64) -> bool {
        let since = now.saturating_sub(FRESH_FOR);
        let knows =
            |stage: &StageCurves| stage.decode.curves.iter().any(|curve| curve.knows(rows, since));
        self.stages.iter().all(knows)
    }

    /// The most rows of a microbatch with prefill that every stage has reported; 0 if there is none.
    pub(in crate::scheduler) fn most_mixed_rows(&self) -> usize {
        let most = |levels: &Levels| {
            let ends = levels.ranges.iter().map(|(_, (_, most))| *most as usize);
            ends.max().unwrap_or(0)
        };
        self.stages.iter().map(|stage| most(&stage.mixed)).min().unwrap_or(0)
    }

    /// Seconds that a stage takes for rows some of which are prefill; `None` if nothing is known.
    ///
    /// Fewer rows than any such microbatch had are between those and decode rows. More rows than any
    /// had take at least what they usually would: a curve that was flat so far may rise.
    pub(in crate::scheduler) fn mixed(
        &self,
        stage: usize,
        overlap: usize,
        rows: f64,
    ) -> Option<f64> {
        let curves = &self.stages[stage];
        let overlap = overlap.clamp(1, self.stages.len());
        let of = |levels: &Levels, rows| {
            estimate(levels, overlap, rows, Duration::ZERO).map(|estimate| estimate.seconds)
        };
        let cautious = |levels: &Levels, most: f64| {
            let end = rows.min(most);
            Some(of(levels, rows)?.max(of(levels, end)? * self.shape.at(rows) / self.shape.at(end)))
        };
        let mixed = nearest(&curves.mixed, overlap, rows).map(|(_, range)| range);
        let decode = nearest(&curves.decode, overlap, rows).map(|(_, range)| range);
        match (mixed, decode) {
            (Some((from, _)), Some((_, to))) if rows < from => {
                let high = (from, of(&curves.mixed, from)?);
                let low = (to.min(from), of(&curves.decode, to.min(from))?.min(high.1));
                let at_low = of(&curves.decode, rows)?.min(low.1);
                Some(if rows <= low.0 { at_low } else { between(low, high, rows) })
            }
            (Some((_, to)), _) => cautious(&curves.mixed, to),
            (None, Some((_, to))) => cautious(&curves.decode, to),
            (None, None) => None,
        }
    }

    /// The same, and a little less where this overlap has not had so many rows but more: hoping for
    /// less is how they come to be probe.
    pub(in crate::scheduler) fn mixed_best_case(
        &self,
        stage: usize,
        overlap: usize,
        rows: f64,
    ) -> Option<f64> {
        let levels = &self.stages[stage].mixed;
        let own = levels.of(overlap.clamp(1, self.stages.len()));
        let known = own.is_some_and(|own| own.knows(rows, Duration::ZERO));
        let past_end = nearest(levels, overlap, rows).is_none_or(|(_, range)| rows > range.1);
        let best_case = if known || past_end { 1.0 } else { BEST_CASE_ROWS };
        Some(self.mixed(stage, overlap, rows)? * best_case)
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(in crate::scheduler) struct Measured {
    pub(in crate::scheduler) rows: u32,
    pub(in crate::scheduler) has_prefill: bool,
    /// Microbatches in flight meanwhile, on average.
    pub(in crate::scheduler) overlap: f32,
    pub(in crate::scheduler) time: Duration,
}

/// The overlap with measurements nearest to these rows, then to this overlap; with their range.
fn nearest(levels: &Levels, overlap: usize, rows: f64) -> Option<(usize, (f64, f64))> {
    let ranges = levels.ranges.iter().copied();
    ranges.min_by_key(|(level, range)| (!within(*range, rows), level.abs_diff(overlap)))
}

fn within(range: (f64, f64), rows: f64) -> bool {
    range.0 <= rows && rows <= range.1
}

fn estimate(levels: &Levels, overlap: usize, rows: f64, now: Duration) -> Option<Estimate> {
    let near = nearest(levels, overlap, rows)?;
    estimate_near(levels, near, overlap, rows, now)
}

/// The same with the [`nearest`] overlap that was measured.
fn estimate_near(
    levels: &Levels,
    (other_level, other_range): (usize, (f64, f64)),
    overlap: usize,
    rows: f64,
    now: Duration,
) -> Option<Estimate> {
    let other = levels.of(other_level)?;
    let Some(own) = levels.of(overlap) else {
        let factor = slowdown(levels, overlap, rows) / slowdown(levels, other_level, rows);
        let seconds = other.at(rows)? * factor;
        let best_case = if overlap > other_level {
            BEST_CASE_MORE_OVERLAP
        } else {
            (overlap as f64 / other_level as f64).max(BEST_CASE_LESS_OVERLAP)
        };
        return Some(Estimate { seconds, best_case: seconds * best_case });
    };
    let range = own.range()?;
    // Out of its own range, a curve goes on in the shape of one that knows these rows.
    let end = rows.clamp(range.0, range.1);
    let seconds = if within(range, rows) || !within(other_range, rows) {
        own.at(rows)?
    } else {
        own.at(end)? * other.at(rows)? / other.at(end)?
    };
    let known = own.knows(rows, now.saturating_sub(STALE_AFTER));
    let best_case = if known { 1.0 } else { BEST_CASE_ROWS };
    Some(Estimate { seconds, best_case: seconds * best_case })
}

/// How many times longer `rows` take than the rows at the end of a decode curve, by the curves of
/// prefill; by the usual shape if these do not know so many rows.
fn growth(mixed: &Levels, overlap: usize, (end, at_end): (f64, f64), rows: f64) -> f64 {
    let usual = mixed.shape.at(rows) / mixed.shape.at(end);
    let Some((_, range)) = nearest(mixed, overlap, rows) else { return usual };
    let seconds = |rows| estimate(mixed, overlap, rows, Duration::ZERO).map(|found| found.seconds);
    match (within(range, rows), within(range, end), seconds(rows), seconds(end)) {
        (true, true, Some(there), Some(here)) => there / here,
        // Prefill is at least as cheap as decode: what it takes for more rows is the least.
        (true, false, Some(there), _) if rows > end => (there / at_end).max(1.0),
        _ => usual,
    }
}

/// How much slower than at the least overlap measured, on a straight line through the least and the
/// most; 1 if fewer than two were probe.
fn slowdown(levels: &Levels, overlap: usize, rows: f64) -> f64 {
    let (Some((low, a)), Some((high, b))) = (levels.ranges.first(), levels.ranges.last()) else {
        return 1.0;
    };
    if low == high {
        return 1.0;
    }
    let (Some(least), Some(most)) = (levels.curves.first(), levels.curves.last()) else {
        return 1.0;
    };
    // Where both were measured, if there is such a place.
    let rows = rows.clamp(a.0.max(b.0).min(a.1), a.1.min(b.1).max(a.0));
    let (Some(a), Some(b)) = (least.at(rows), most.at(rows)) else { return 1.0 };
    let per_level = (b / a - 1.0).max(0.0) / (high - low) as f64;
    (1.0 + per_level * (overlap as f64 - *low as f64)).max(BEST_CASE_LESS_OVERLAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn times(samples: &[(u32, f32, u64)]) -> StageTimes {
        let mut times = StageTimes::new(3, Shape::default());
        for (rows, overlap, us) in samples {
            let (rows, overlap, time) = (*rows, *overlap, Duration::from_micros(*us));
            times.observe(NOW, 0, Measured { rows, has_prefill: false, overlap, time });
        }
        times
    }

    fn us(times: &StageTimes, overlap: usize, rows: f64) -> (f64, f64) {
        let found = times.decode(NOW, 0, overlap, rows).unwrap();
        ((found.seconds * 1e6).round(), (found.best_case * 1e6).round())
    }

    #[test]
    fn an_overlap_that_was_measured_has_its_own_time() {
        let times = times(&[(4, 1.0, 100), (4, 1.9, 150)]);
        assert_eq!(us(&times, 1, 4.0), (100.0, 100.0));
        assert_eq!(us(&times, 2, 4.0), (150.0, 150.0));
    }

    #[test]
    fn an_overlap_never_measured_is_guessed_from_the_others() {
        let one = times(&[(4, 1.0, 100)]);
        assert_eq!(us(&one, 2, 4.0), (100.0, 95.0), "no slowdown is known yet");
        let two = times(&[(4, 1.0, 100), (4, 2.0, 150)]);
        assert_eq!(us(&two, 3, 4.0), (200.0, 190.0), "as much more again");
        let deep = times(&[(4, 2.0, 150)]);
        assert_eq!(us(&deep, 1, 4.0), (150.0, 75.0), "with the memory alone it may take half");
    }

    #[test]
    fn rows_never_measured_follow_an_overlap_that_knows_them() {
        let times = times(&[(4, 1.0, 100), (16, 1.0, 400), (4, 2.0, 150)]);
        assert_eq!(us(&times, 2, 16.0), (600.0, 510.0));
    }

    #[test]
    fn few_rows_with_prefill_lie_between_decode_and_prefill() {
        let mut times = times(&[(4, 1.0, 100)]);
        let time = Duration::from_micros(700);
        times.observe(NOW, 0, Measured { rows: 64, has_prefill: true, overlap: 1.0, time });
        let us = |rows| (times.mixed(0, 1, rows).unwrap() * 1e6).round();
        assert_eq!([us(4.0), us(34.0), us(64.0), us(128.0)], [100.0, 400.0, 700.0, 1340.0]);
        let best_case = |rows| (times.mixed_best_case(0, 1, rows).unwrap() * 1e6).round();
        assert_eq!([best_case(34.0), best_case(64.0), best_case(128.0)], [340.0, 700.0, 1340.0]);
        assert_eq!(times.mixed(1, 1, 4.0), None);
    }

    #[test]
    fn decode_beyond_what_was_measured_is_as_prefill_is() {
        let at = |times: &StageTimes, rows| us(times, 1, rows);
        // Flat up to four rows: nobody knows how it goes on, so the usual shape.
        let flat = || times(&[(1, 1.0, 100), (2, 1.0, 100), (4, 1.0, 100)]);
        assert_eq!(at(&flat(), 64.0), (700.0, 85.0), "(6 + 64) / (6 + 4); at best it stays flat");
        // Prefill knows 64 rows, and then also four.
        let mut known = flat();
        prefill(&mut known, 64, 500);
        assert_eq!(at(&known, 64.0).0, 500.0, "prefill is at least as cheap");
        prefill(&mut known, 4, 125);
        assert_eq!(at(&known, 64.0).0, 400.0, "four times as long as four rows");
        // And below: a steep curve says nothing of fewer rows.
        let steep = times(&[(32, 1.0, 1000), (64, 1.0, 2000)]);
        assert_eq!(at(&steep, 4.0).0, (1000.0_f64 * 10.0 / 38.0).round());
    }

    fn prefill(times: &mut StageTimes, rows: u32, us: u64) {
        let time = Duration::from_micros(us);
        times.observe(NOW, 0, Measured { rows, has_prefill: true, overlap: 1.0, time });
    }

    #[test]
    fn what_is_in_flight_covers_the_links() {
        let mut times = StageTimes::new(8, Shape::default());
        assert_eq!(times.in_flight(0.01, 65), 9, "no link is known");
        times.observe_overhead(0.035);
        assert_eq!([times.in_flight(0.01, 65), times.in_flight(0.1, 65)], [12, 9]);
        assert_eq!([times.in_flight(0.01, 10), times.in_flight(f64::INFINITY, 65)], [10, 9]);
    }

    #[test]
    fn decode_rows_are_fresh_for_a_minute() {
        let mut times = StageTimes::new(1, Shape::default());
        let time = Duration::from_millis(1);
        times.observe(NOW, 0, Measured { rows: 8, has_prefill: false, overlap: 1.0, time });
        assert!(times.decode_is_fresh(NOW + FRESH_FOR, 8.0));
        assert!(!times.decode_is_fresh(NOW, 16.0));
        assert!(!times.decode_is_fresh(NOW + FRESH_FOR + time, 8.0));
    }

    #[test]
    fn the_overhead_is_the_least_of_late() {
        let mut times = StageTimes::new(1, Shape::default());
        assert_eq!(times.overhead(), 0.0);
        times.observe_overhead(0.001);
        (0..OVERHEADS - 1).for_each(|_| times.observe_overhead(0.005));
        assert_eq!(times.overhead(), 0.001);
        times.observe_overhead(0.004);
        assert_eq!(times.overhead(), 0.004);
    }
}
