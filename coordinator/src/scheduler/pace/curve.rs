//! Time as a function of rows, learnt from measurements that are noisy and drift.
//!
//! Rows are kept in buckets, exact up to 8 and four to an octave above. A bucket follows the median
//! of its last five samples, so that a hiccup leaves no trace and a change is believed after three.
//! Between buckets the curve is interpolated; it never falls with the rows.

use super::shape::Shape;
use std::cell::OnceCell;
use std::time::Duration;

/// Samples whose median counts.
const WINDOW: usize = 5;
/// Part of the way that a bucket goes towards the median at each sample, once its window is full.
const FOLLOW: f32 = 0.25;
/// Two points must be this far apart in rows before a slope is drawn through them.
const SLOPE_SPAN: f64 = 1.5;
/// Points at an end of the curve that its slope is drawn through.
const SLOPE_POINTS: usize = 4;
/// A point speaks for rows within this factor.
const NEAR: f64 = 1.2;

/// Samples of about the same number of rows.
#[derive(Clone, Debug)]
struct Bucket {
    index: usize,
    recent: [f32; WINDOW],
    /// Samples so far.
    count: u32,
    /// Mean rows of the samples.
    rows: f32,
    seconds: f32,
    /// Time of the last sample.
    at: Duration,
}

impl Bucket {
    fn new(index: usize, rows: f32) -> Self {
        let at = Duration::ZERO;
        Self { index, recent: [0.0; WINDOW], count: 0, rows, seconds: 0.0, at }
    }

    fn observe(&mut self, now: Duration, rows: f32, seconds: f32) {
        let slot = self.count as usize % WINDOW;
        self.recent[slot] = seconds;
        self.count = self.count.saturating_add(1);
        self.at = now;
        let filled = WINDOW.min(self.count as usize);
        let mut sorted = self.recent;
        sorted[..filled].sort_unstable_by(f32::total_cmp);
        // The lower one of two: hiccups only ever add time.
        let median = sorted[(filled - 1) / 2];
        let follow = if filled < WINDOW { 1.0 } else { FOLLOW };
        self.seconds += follow * (median - self.seconds);
        self.rows += follow.min(1.0 / filled as f32) * (rows - self.rows);
    }
}

/// The bucket of a number of rows, from 1.
fn bucket_of(rows: u32) -> usize {
    let rows = rows.max(1);
    if rows <= 8 {
        return rows as usize;
    }
    let octave = rows.ilog2();
    let quarter = (rows >> (octave - 2)) & 3;
    (8 + 4 * (octave - 3) + quarter) as usize
}

/// A monotone curve through what was measured.
#[derive(Clone, Debug, Default)]
pub(in crate::scheduler) struct Curve {
    /// In order of rows.
    buckets: Vec<Bucket>,
    /// (rows, seconds) of each bucket, ascending in both. Drawn when somebody looks: a stage reports
    /// every microbatch, and its curve is looked at now and then.
    points: OnceCell<Vec<(f64, f64)>>,
    /// How it goes on where nothing was measured.
    shape: Shape,
}

impl Curve {
    /// Nothing was measured yet.
    pub(in crate::scheduler) fn new(shape: Shape) -> Self {
        Self { shape, ..Self::default() }
    }

    /// One measurement. Zero time is no measurement.
    pub(in crate::scheduler) fn observe(&mut self, now: Duration, rows: u32, time: Duration) {
        if time.is_zero() || rows == 0 {
            return;
        }
        let index = bucket_of(rows);
        let rows = rows as f32;
        let place = match self.buckets.binary_search_by_key(&index, |bucket| bucket.index) {
            Ok(place) => place,
            Err(place) => {
                self.buckets.insert(place, Bucket::new(index, rows));
                place
            }
        };
        self.buckets[place].observe(now, rows, time.as_secs_f32());
        self.points.take();
    }

    fn points(&self) -> &[(f64, f64)] {
        self.points.get_or_init(|| self.draw())
    }

    /// Pools neighbours that contradict each other: more rows never take less time.
    fn draw(&self) -> Vec<(f64, f64)> {
        // (seconds, weight, buckets) of each pool, rising.
        let mut pools: Vec<(f64, f64, usize)> = Vec::with_capacity(self.buckets.len());
        for bucket in &self.buckets {
            let weight = f64::from(bucket.count.min(WINDOW as u32));
            let mut pool = (f64::from(bucket.seconds), weight, 1);
            while let Some(last) = pools.last().copied().filter(|last| last.0 > pool.0) {
                pools.pop();
                let weight = last.1 + pool.1;
                let seconds = (last.0 * last.1 + pool.0 * pool.1) / weight;
                pool = (seconds, weight, last.2 + pool.2);
            }
            pools.push(pool);
        }
        let seconds = pools.iter().flat_map(|pool| std::iter::repeat_n(pool.0, pool.2));
        let points = self.buckets.iter().zip(seconds);
        points.map(|(bucket, seconds)| (f64::from(bucket.rows), seconds)).collect()
    }

    /// The fewest and the most rows that were measured.
    pub(in crate::scheduler) fn range(&self) -> Option<(f64, f64)> {
        let (first, last) = (self.buckets.first()?, self.buckets.last()?);
        Some((first.rows.into(), last.rows.into()))
    }

    /// Whether so many rows, or nearly so many, were measured at `since` or later.
    pub(in crate::scheduler) fn knows(&self, rows: f64, since: Duration) -> bool {
        self.buckets.iter().any(|bucket| {
            let measured = f64::from(bucket.rows);
            bucket.at >= since && rows <= measured * NEAR && measured <= rows * NEAR
        })
    }

    /// Seconds for so many rows: interpolated, or extrapolated from the points at the end.
    pub(in crate::scheduler) fn at(&self, rows: f64) -> Option<f64> {
        let points = self.points();
        let after = points.partition_point(|point| point.0 < rows);
        match (after.checked_sub(1).map(|i| points[i]), points.get(after)) {
            (Some(low), Some(high)) => Some(between(low, *high, rows)),
            (None, Some(first)) => {
                let end = SLOPE_POINTS.min(points.len());
                Some(self.beyond(*first, &points[..end], rows))
            }
            (Some(last), None) => {
                let start = points.len().saturating_sub(SLOPE_POINTS);
                Some(self.beyond(last, &points[start..], rows))
            }
            (None, None) => None,
        }
    }

    /// Past the end of the curve at `end`: the slope of the points there if they are far enough apart,
    /// else the usual shape. Neither below constant time nor above time in proportion to the rows.
    fn beyond(&self, end: (f64, f64), points: &[(f64, f64)], rows: f64) -> f64 {
        let (first, last) = (points[0], points[points.len() - 1]);
        let guess = if last.0 >= first.0 * SLOPE_SPAN {
            end.1 + (last.1 - first.1) / (last.0 - first.0) * (rows - end.0)
        } else {
            end.1 * self.shape.at(rows) / self.shape.at(end.0)
        };
        let proportional = end.1 * rows / end.0;
        guess.clamp(proportional.min(end.1), proportional.max(end.1))
    }
}

/// The straight line between two points.
pub(in crate::scheduler) fn between(low: (f64, f64), high: (f64, f64), rows: f64) -> f64 {
    if high.0 <= low.0 {
        return high.1;
    }
    low.1 + (high.1 - low.1) * (rows - low.0) / (high.0 - low.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    fn curve(samples: &[(u32, u64)]) -> Curve {
        let mut curve = Curve::default();
        samples.iter().for_each(|(rows, time)| curve.observe(Duration::ZERO, *rows, us(*time)));
        curve
    }

    fn at(curve: &Curve, rows: f64) -> f64 {
        (curve.at(rows).unwrap() * 1e7).round() / 10.0
    }

    #[test]
    fn buckets_are_exact_for_few_rows_and_a_quarter_octave_for_many() {
        let of = |rows: &[u32]| rows.iter().map(|rows| bucket_of(*rows)).collect::<Vec<_>>();
        assert_eq!(of(&[0, 1, 2, 7, 8]), [1, 1, 2, 7, 8]);
        assert_eq!(of(&[9, 10, 11, 12, 15, 16, 19, 20]), [8, 9, 9, 10, 11, 12, 12, 13]);
        assert_eq!(bucket_of(2048), 40);
        assert!((1..2048).all(|rows| bucket_of(rows) <= bucket_of(rows + 1)));
    }

    #[test]
    fn it_is_interpolated_between_measurements() {
        let curve = curve(&[(4, 100), (8, 180)]);
        assert_eq!([at(&curve, 4.0), at(&curve, 6.0), at(&curve, 8.0)], [100.0, 140.0, 180.0]);
    }

    #[test]
    fn past_its_ends_it_goes_on_as_it_was() {
        let two = curve(&[(4, 100), (8, 180)]);
        assert_eq!([at(&two, 2.0), at(&two, 10.0)], [60.0, 220.0]);
        // One point has no slope: the usual shape.
        let one = curve(&[(6, 120)]);
        assert_eq!([at(&one, 1.0), at(&one, 18.0)], [70.0, 240.0]);
        // A slope steeper than proportional is noise.
        let steep = curve(&[(4, 10), (8, 180)]);
        assert_eq!(at(&steep, 16.0), 360.0);
        assert_eq!(Curve::default().at(3.0), None);
    }

    #[test]
    fn a_hiccup_leaves_no_trace() {
        let mut curve = curve(&[(4, 100); 6]);
        curve.observe(Duration::ZERO, 4, us(1000));
        assert_eq!(at(&curve, 4.0), 100.0);
        curve.observe(Duration::ZERO, 4, us(1000));
        assert_eq!(at(&curve, 4.0), 100.0);
        // A lasting change is followed.
        for _ in 0..20 {
            curve.observe(Duration::ZERO, 4, us(200));
        }
        assert!((at(&curve, 4.0) - 200.0).abs() < 2.0, "{}", at(&curve, 4.0));
    }

    #[test]
    fn more_rows_never_take_less_time() {
        let curve = curve(&[(1, 50), (2, 100), (3, 80), (4, 60), (8, 200)]);
        let times: Vec<_> = (1..300).map(|rows| curve.at(f64::from(rows)).unwrap()).collect();
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1] + 1e-12), "{times:?}");
        assert_eq!(at(&curve, 3.0), 80.0, "the mean of those that contradict each other");
    }

    #[test]
    fn it_knows_what_was_measured_of_late() {
        let mut curve = Curve::default();
        curve.observe(us(50), 10, us(7));
        assert!(curve.knows(10.0, us(50)) && curve.knows(11.0, us(0)) && curve.knows(9.0, us(0)));
        assert!(
            !curve.knows(10.0, us(51)) && !curve.knows(14.0, us(0)) && !curve.knows(7.0, us(0))
        );
    }
}
