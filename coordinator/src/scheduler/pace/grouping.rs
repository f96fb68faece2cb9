//! How many groups the decoding sequences travel in.
//!
//! With `g` groups of `n` rows each, every sequence gets one token per period:
//!
//! ```text
//! period(g) = max( sum over stages of t(n) + overhead,  g × the slowest stage's t(n) )
//! ```
//!
//! The first term is one group's way through all stages, the second is what the slowest stage has to
//! compute. Tokens per second are the sequences over the period, so the most tokens and the smallest
//! gap are the same choice; what is within [`TIE`] goes to the fewer groups.

use super::times::{Estimate, StageTimes};
use std::time::Duration;
use woolly_protocol::ids::MicrobatchId;

/// Predictions this close are equal: fewer groups read the weights less often.
const TIE: f64 = 0.01;
/// A change must promise as much more, or groups would come and go with the noise.
const HYSTERESIS: f64 = 0.02;
/// A probe must be able to win as much.
const PROBE_GAIN: f64 = 1.03;
/// Rounds that a probe takes.
const PROBE_ROUNDS: usize = 3;
/// A probe is over before its time when so many microbatches take so many times as long as without it:
/// one may be a hiccup, and would be all that is known of it for minutes.
const PROBE_LOST: (usize, f64) = (2, 1.15);
/// Rounds between probes: one that loses a third costs 2 %.
const ROUNDS_BETWEEN_PROBES: usize = 48;
/// Rounds before the first probe.
const ROUNDS_BEFORE_PROBE: usize = 8;
/// Rounds between changes.
const ROUNDS_BETWEEN_CHANGES: usize = 4;
/// Decode microbatches between decisions, or as many as there are stages if they are more.
const DECIDE_EVERY: usize = 8;
/// A decision is taken at once when the sequences have become more or fewer by this part.
const STREAMS_CHANGED: usize = 8;

/// What so many groups would give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::scheduler) struct Prediction {
    /// Seconds from one token of a sequence to its next.
    pub(in crate::scheduler) period: f64,
    /// The least that it may turn out to be; `period` if everything was measured.
    pub(in crate::scheduler) best_case: f64,
}

/// Predicts the period of so many sequences in so many groups; `None` while a stage is unknown.
pub(in crate::scheduler) fn predict(
    times: &StageTimes,
    now: Duration,
    streams: usize,
    groups: usize,
) -> Option<Prediction> {
    let (whole, larger) = (streams / groups, streams % groups);
    let overlap = groups.min(times.stages());
    let (mut through, mut slowest) = ((0.0, 0.0), (0.0_f64, 0.0_f64));
    for stage in 0..times.stages() {
        let at = |rows: usize| times.decode(now, stage, overlap, rows as f64);
        let most = at(whole + usize::from(larger > 0))?;
        let least = if larger > 0 && whole > 0 { at(whole)? } else { most };
        let all = |value: fn(&Estimate) -> f64| {
            let small = if whole > 0 { groups - larger } else { 0 };
            value(&most) * larger as f64 + value(&least) * small as f64
        };
        through = (through.0 + most.seconds, through.1 + most.best_case);
        slowest = (slowest.0.max(all(|e| e.seconds)), slowest.1.max(all(|e| e.best_case)));
    }
    let overhead = times.overhead();
    let period = (through.0 + overhead).max(slowest.0);
    Some(Prediction { period, best_case: (through.1 + overhead).max(slowest.1) })
}

/// A number of groups that is used for a few rounds to measure it.
#[derive(Clone, Copy, Debug)]
struct Probe {
    groups: usize,
    microbatches_left: usize,
    /// Its first microbatch, as soon as it is sent.
    first: Option<MicrobatchId>,
    /// Microbatches before those that have a period of their own: groups that leave together queue.
    start_up: usize,
    /// Seconds of a round that is too long, and how many were.
    too_long: f64,
    lost: usize,
}

/// The choice of the number of groups.
#[derive(Debug, Default)]
pub(in crate::scheduler) struct Grouping {
    /// 0 before the first decision.
    groups: usize,
    streams: usize,
    /// Decode microbatches since the last decision, and since groups changed.
    since_decision: usize,
    since_change: usize,
    probe: Option<Probe>,
    until_probe: usize,
}

impl Grouping {
    /// A microbatch with decode rows was sent.
    pub(in crate::scheduler) fn sent(&mut self, id: MicrobatchId) {
        self.since_decision += 1;
        self.since_change += 1;
        self.until_probe = self.until_probe.saturating_sub(1);
        if let Some(probe) = &mut self.probe {
            probe.microbatches_left = probe.microbatches_left.saturating_sub(1);
            probe.first.get_or_insert(id);
        }
    }

    /// A microbatch with decode rows was answered. Reports say later how long each stage took, and
    /// last; that a probe loses is seen at once.
    pub(in crate::scheduler) fn answered(&mut self, id: MicrobatchId, round_trip: Duration) {
        let Some(probe) = &mut self.probe else { return };
        let whole = probe.first.is_some_and(|first| id.0 >= first.0 + probe.start_up as u64);
        probe.lost += usize::from(whole && round_trip.as_secs_f64() > probe.too_long);
        if probe.lost >= PROBE_LOST.0 {
            probe.microbatches_left = 0;
        }
    }

    /// How many groups `streams` decoding sequences travel in: 1 to `most`. `decode_only` if nothing but
    /// decode rows is sent, so that a probe measures what it is about.
    pub(in crate::scheduler) fn choose(
        &mut self,
        times: &StageTimes,
        now: Duration,
        (streams, most): (usize, usize),
        decode_only: bool,
    ) -> usize {
        let most = most.min(streams).max(1);
        if self.due(times.stages(), streams) {
            let changed = self.streams_changed(streams);
            self.streams = streams;
            self.since_decision = 0;
            self.decide(times, now, most, decode_only, changed);
        }
        self.probe.map_or(self.groups, |probe| probe.groups).clamp(1, most)
    }

    fn streams_changed(&self, streams: usize) -> bool {
        self.streams.abs_diff(streams) * STREAMS_CHANGED > self.streams
    }

    fn due(&self, stages: usize, streams: usize) -> bool {
        let over = self.probe.is_some_and(|probe| probe.microbatches_left == 0);
        let time = self.since_decision >= DECIDE_EVERY.max(stages);
        self.groups == 0 || over || time || self.streams_changed(streams)
    }

    fn decide(
        &mut self,
        times: &StageTimes,
        now: Duration,
        most: usize,
        decode_only: bool,
        changed: bool,
    ) {
        let over = |probe: &Probe| changed || !decode_only || probe.microbatches_left == 0;
        if self.probe.as_ref().is_some_and(|probe| !over(probe)) {
            return;
        }
        if self.probe.take().is_some() {
            self.since_change = 0;
        }
        if self.groups == 0 {
            self.until_probe = ROUNDS_BEFORE_PROBE * times.stages();
        }
        let Some((best, present)) = self.best(times, now, most) else {
            // Nothing is known: one group for each stage.
            self.groups = times.stages().min(most);
            return;
        };
        let recent = self.since_change < ROUNDS_BETWEEN_CHANGES * self.groups;
        if best != self.groups && (changed || !recent) {
            self.groups = best;
            self.since_change = 0;
        } else if decode_only && self.until_probe == 0 && present.best_case >= present.period {
            self.probe = self.worth_a_probe(times, now, most, present.period);
            if let Some(probe) = self.probe {
                self.until_probe = ROUNDS_BETWEEN_PROBES * self.groups.max(probe.groups);
                self.since_change = 0;
            }
        }
    }

    /// The best number of groups, the present one if it is nearly as good, and its prediction.
    fn best(&self, times: &StageTimes, now: Duration, most: usize) -> Option<(usize, Prediction)> {
        let mut found = Vec::new();
        for groups in candidates(times.stages(), self.groups, most) {
            found.push((groups, predict(times, now, self.streams, groups)?));
        }
        let least = found.iter().map(|(_, p)| p.period).fold(f64::INFINITY, f64::min);
        let good =
            |slack: f64| move |(_, p): &&(usize, Prediction)| p.period * (1.0 - slack) <= least;
        let present = found.iter().find(|(groups, _)| *groups == self.groups);
        let present = present.filter(good(HYSTERESIS));
        present.or_else(|| found.iter().find(good(TIE))).copied()
    }

    /// A neighbour that was never measured and may be better.
    fn worth_a_probe(
        &self,
        times: &StageTimes,
        now: Duration,
        most: usize,
        period: f64,
    ) -> Option<Probe> {
        let here = self.groups;
        let near = [here - 1, here + 1, here / 2, here * 2];
        let near = near.into_iter().filter(|groups| (1..=most).contains(groups) && *groups != here);
        let promising = near.filter_map(|groups| {
            let prediction = predict(times, now, self.streams, groups)?;
            let unknown = prediction.best_case < prediction.period;
            (unknown && prediction.best_case * PROBE_GAIN <= period).then_some((groups, prediction))
        });
        let (groups, _) = promising.min_by(|a, b| a.1.best_case.total_cmp(&b.1.best_case))?;
        Some(Probe {
            groups,
            microbatches_left: PROBE_ROUNDS * groups,
            first: None,
            start_up: if groups < here { groups - 1 } else { 2 * groups - 1 },
            too_long: period * PROBE_LOST.1,
            lost: 0,
        })
    }
}

/// Numbers of groups to compare, ascending: all if they are few, else the ends, the present one with
/// its neighbours, two to an octave between, and some on their way over slow links beside one for each
/// stage.
fn candidates(stages: usize, present: usize, most: usize) -> Vec<usize> {
    const ALL: usize = 8;
    let near = [present.saturating_sub(1), present, present + 1, stages, stages + 1];
    let on_their_way = [8, 4, 2].map(|part| stages + stages / part);
    let near = near.into_iter().chain(on_their_way).chain([most]);
    let octaves = (0..usize::BITS).map(|bit| 1_usize << bit).take_while(|power| *power <= most);
    let some = octaves.flat_map(|power| [power, power + power / 2]).chain(near);
    let mut found: Vec<_> = (1..=ALL).chain(some).filter(|g| (1..=most).contains(g)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::super::shape::Shape;
    use super::super::times::Measured;
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    /// Two stages with a time in microseconds for each (overlap, rows).
    fn measured(samples: &[(u32, u32, u64)]) -> StageTimes {
        let mut times = StageTimes::new(2, Shape::default());
        for (overlap, rows, us) in samples {
            let (rows, overlap, time) = (*rows, *overlap as f32, Duration::from_micros(*us));
            for stage in 0..2 {
                times.observe(NOW, stage, Measured { rows, has_prefill: false, overlap, time });
            }
        }
        times
    }

    fn chosen(times: &StageTimes, streams: usize) -> usize {
        Grouping::default().choose(times, NOW, (streams, 3), true)
    }

    #[test]
    fn the_period_is_the_way_through_or_the_slowest_stage() {
        let times = measured(&[(1, 8, 500), (2, 4, 300), (2, 3, 260), (2, 2, 200)]);
        let us = |groups| (predict(&times, NOW, 8, groups).unwrap().period * 1e6).round();
        assert_eq!(us(1), 1000.0, "one group through both stages");
        assert_eq!(us(2), 600.0, "two of four");
        assert_eq!(us(3), 720.0, "3 + 3 + 2 rows at one stage");
    }

    #[test]
    fn without_measurements_there_is_a_group_for_each_stage() {
        assert_eq!(chosen(&StageTimes::new(2, Shape::default()), 8), 2);
        assert_eq!(chosen(&StageTimes::new(2, Shape::default()), 1), 1);
    }

    #[test]
    fn it_splits_where_time_grows_with_the_rows_and_not_where_the_bus_is_shared() {
        assert_eq!(chosen(&measured(&[(1, 8, 500), (2, 4, 300)]), 8), 2);
        assert_eq!(chosen(&measured(&[(1, 8, 300), (2, 4, 500)]), 8), 1);
        // Nearly equal: the fewer.
        assert_eq!(chosen(&measured(&[(1, 8, 302), (2, 4, 300)]), 8), 1);
    }

    #[test]
    fn what_is_nearly_as_good_is_kept() {
        let mut grouping = Grouping::default();
        let times = measured(&[(1, 8, 500), (2, 4, 400)]);
        assert_eq!(grouping.choose(&times, NOW, (8, 2), false), 2);
        let times = measured(&[(1, 8, 500), (2, 4, 505)]);
        for _ in 0..100 {
            grouping.sent(MicrobatchId(0));
            assert_eq!(grouping.choose(&times, NOW, (8, 2), false), 2);
        }
        let times = measured(&[(1, 8, 500), (2, 4, 520)]);
        (0..DECIDE_EVERY).for_each(|_| grouping.sent(MicrobatchId(0)));
        assert_eq!(grouping.choose(&times, NOW, (8, 2), false), 1);
    }

    #[test]
    fn a_number_that_may_win_is_probed_for_a_few_rounds_and_then_again_much_later() {
        let mut grouping = Grouping::default();
        // Two groups are known; one may be as fast with the memory alone.
        let times = measured(&[(2, 4, 300)]);
        let mut probes = Vec::new();
        for sent in 0..400 {
            if grouping.choose(&times, NOW, (8, 2), true) == 1 {
                probes.push(sent);
            }
            grouping.sent(MicrobatchId(0));
        }
        assert_eq!(probes[..3], [16, 17, 18]);
        assert!(probes.len() <= 4 * PROBE_ROUNDS, "{probes:?}");
        assert!(probes[3] >= 100, "{probes:?}");
        // As soon as two of it took too long it is over.
        let mut lost = Grouping::default();
        let mut probes = 0;
        for sent in 0..100 {
            if lost.choose(&times, NOW, (8, 2), true) == 1 {
                probes += 1;
                lost.sent(MicrobatchId(sent));
                lost.answered(MicrobatchId(sent), Duration::from_micros(700));
            } else {
                lost.sent(MicrobatchId(sent));
                lost.answered(MicrobatchId(sent), Duration::from_micros(900));
            }
        }
        assert_eq!(probes, 2);
        // Not while prompts are computed beside.
        let mut busy = Grouping::default();
        for _ in 0..400 {
            assert_eq!(busy.choose(&times, NOW, (8, 2), false), 2);
            busy.sent(MicrobatchId(0));
        }
    }

    #[test]
    fn many_stages_compare_some_numbers_only() {
        assert_eq!(candidates(2, 2, 3), [1, 2, 3]);
        let many = candidates(64, 40, 65);
        assert!(many.len() < 28 && many.contains(&39) && many.contains(&64), "{many:?}");
        // Slow links want more than one on its way.
        let more = candidates(32, 33, 64);
        assert!([36, 40, 48, 64].iter().all(|groups| more.contains(groups)), "{more:?}");
    }

    #[test]
    fn rows_that_were_not_measured_are_guessed_by_what_a_mixture_reads() {
        let period = |shape: Shape, groups: usize| {
            let mut times = StageTimes::new(2, shape);
            for stage in 0..2 {
                let time = Duration::from_micros(1000);
                let of = Measured { rows: 8, has_prefill: false, overlap: 1.0, time };
                times.observe(NOW, stage, of);
            }
            let found = predict(&times, NOW, 8, groups).unwrap();
            (found.period * 1e6).round()
        };
        // Four rows take 10 ÷ 14 of eight, but they read 33 experts' bytes and not 56.
        assert_eq!(period(Shape::default(), 2), (2000.0_f64 * 10.0 / 14.0).round());
        let mixture = period(Shape::mixture(), 2);
        assert!((1130.0..1170.0).contains(&mixture), "{mixture}");
        // And one row of eight groups is an eighth of its time and not half of it.
        let dense = period(Shape::default(), 8);
        assert!(period(Shape::mixture(), 8) < 0.5 * dense, "{dense}");
        // One group for each stage is the best guess whatever the shape.
        for shape in [Shape::default(), Shape::mixture()] {
            let least = (1..=8).map(|groups| period(shape, groups)).fold(f64::MAX, f64::min);
            assert_eq!(period(shape, 2), least);
        }
    }
}
