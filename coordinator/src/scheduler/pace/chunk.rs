//! The size of chunks when nobody decodes.
//!
//! The only question then is how soon the prompts are computed: `L` rows in chunks of `c` take `L ÷ c`
//! times the slowest stage's `t(c)`, and once each other stage's and the links'. Small chunks fill and
//! drain a deep pipeline soon, large ones repeat less of what a pass costs whatever its rows.

use super::shape::Shape;
use super::times::StageTimes;

/// Sizes that are compared, beside all rows that a microbatch may have.
const SIZES: [usize; 17] =
    [8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 1536];
/// Another size must save this part, or chunks of one prompt would change with the noise: where a larger
/// one follows a smaller one, the stages wait.
const HYSTERESIS: f64 = 0.03;
/// Microbatches between two looks at the curves, or as many as there are stages if they are more.
const LOOK_EVERY: usize = 8;

/// What each size would take, and which one is used.
#[derive(Debug, Default)]
pub(in crate::scheduler) struct Chunks {
    sizes: Vec<Size>,
    /// Microbatches since the curves were looked at.
    looked: usize,
    /// Rows chosen last; 0 before.
    present: usize,
}

/// A size of chunks.
#[derive(Clone, Copy, Debug)]
struct Size {
    rows: usize,
    /// Seconds between two of them: the slowest stage's, or their part of a round where not enough of
    /// them may be in flight to keep it busy.
    every: f64,
    /// Seconds that the last one takes beyond that: on the other stages and on the links.
    others: f64,
    /// Microbatches in flight that keep the slowest stage busy.
    in_flight: usize,
    shape: Shape,
}

impl Chunks {
    /// A microbatch with prefill rows was sent.
    pub(in crate::scheduler) fn sent(&mut self) {
        self.looked += 1;
    }

    /// Rows of a microbatch when `left` rows of prompts are to be computed, and how many such
    /// microbatches may be in flight. A plan allows `rows_max` and `in_flight_max` of them.
    pub(in crate::scheduler) fn choose(
        &mut self,
        times: &StageTimes,
        (rows_max, in_flight_max): (usize, usize),
        left: usize,
    ) -> (usize, usize) {
        let stale = self.sizes.last().is_none_or(|last| last.rows != rows_max);
        if stale || self.looked >= LOOK_EVERY.max(times.stages()) {
            let rows = SIZES.into_iter().filter(|rows| *rows < rows_max).chain([rows_max]);
            self.sizes = rows.map(|rows| Size::new(times, rows, in_flight_max)).collect();
            self.looked = 0;
        }
        let cost = |size: &&Size| size.cost(left);
        let best = self.sizes.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        let best = best.expect("all rows that a microbatch may have are a size");
        let present = self.sizes.iter().find(|size| size.rows == self.present);
        let present = present.filter(|size| cost(size) * (1.0 - HYSTERESIS) <= cost(&best));
        let Size { rows, in_flight, .. } = *present.unwrap_or(best);
        self.present = rows;
        (rows, in_flight)
    }
}

impl Size {
    fn new(times: &StageTimes, rows: usize, in_flight_max: usize) -> Self {
        let (stages, overhead) = (times.stages(), times.overhead());
        let guess = |stage| times.mixed(stage, stages, rows as f64);
        let (slowest, all) = times.through(guess).unwrap_or_else(|| {
            let one = times.shape.at(rows as f64);
            (one, one * stages as f64)
        });
        let in_flight = times.in_flight(slowest, in_flight_max);
        let every = slowest.max((all + overhead) / in_flight as f64);
        let shape = times.shape;
        Self { rows, every, others: all - slowest + overhead, in_flight, shape }
    }

    /// Seconds until so many rows are computed.
    fn cost(&self, left: usize) -> f64 {
        let Self { rows, every, others, shape, .. } = *self;
        // The last chunk has what is left; it may be the only one.
        let rest = shape.at((left % rows) as f64) / shape.at(rows as f64);
        match left / rows {
            0 => (every + others) * rest,
            full if left.is_multiple_of(rows) => every * full as f64 + others,
            full => every * (full as f64 + rest) + others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::times::Measured;
    use super::*;
    use std::time::Duration;

    /// So many stages, each of which was seen to take `6 + rows` milliseconds; and what a round takes
    /// outside them, in milliseconds.
    fn times(stages: u32, overhead: f64) -> StageTimes {
        let mut times = StageTimes::new(stages, Shape::default());
        for rows in [8, 16, 24, 32, 48, 64, 96, 128, 256] {
            let (overlap, time) = (stages as f32, Duration::from_millis(6 + u64::from(rows)));
            for stage in 0..times.stages() {
                let of = Measured { rows, has_prefill: true, overlap, time };
                times.observe(Duration::ZERO, stage, of);
            }
        }
        times.observe_overhead(overhead / 1e3);
        times
    }

    fn chosen(stages: u32, overhead: f64, left: usize) -> (usize, usize) {
        Chunks::default().choose(&times(stages, overhead), (256, 65), left)
    }

    #[test]
    fn deep_pipelines_and_short_prompts_want_small_chunks() {
        assert_eq!(chosen(1, 0.0, 2048).0, 256, "nothing is filled or drained");
        let of = |stages, left| chosen(stages, 0.0, left).0;
        // The square root of 6 × 2,048 ÷ (stages − 1) is 111, 64, 42 and 20.
        assert_eq!([of(2, 2048), of(4, 2048), of(8, 2048), of(32, 2048)], [128, 64, 48, 24]);
        assert_eq!([of(8, 512), of(16, 512), of(32, 512)], [24, 16, 8]);
    }

    #[test]
    fn what_is_on_its_way_is_in_flight_beside_one_for_each_stage() {
        assert_eq!(chosen(2, 0.0, 2048).1, 3);
        // 134 ms for 128 rows, and three of them on the way.
        assert_eq!(chosen(2, 300.0, 2048), (128, 5));
        let few = Chunks::default().choose(&times(2, 3000.0), (256, 4), 2048);
        assert_eq!(few.1, 4, "no more than the plan allows");
        assert!(few.0 >= 128, "as few are in flight, each is large: {few:?}");
    }

    #[test]
    fn a_size_is_kept_until_another_saves_three_percent() {
        let (times, mut chunks) = (times(8, 0.0), Chunks::default());
        let first = chunks.choose(&times, (256, 65), 2048).0;
        let near = chunks.choose(&times, (256, 65), 2048 + 512).0;
        let far = chunks.choose(&times, (256, 65), 20_480).0;
        assert_eq!(first, near);
        assert!(far > first, "{far}");
    }

    #[test]
    fn before_anything_is_measured_a_mixture_has_larger_chunks_than_a_dense_model() {
        let chosen = |shape: Shape, left| {
            Chunks::default().choose(&StageTimes::new(8, shape), (256, 65), left).0
        };
        // The square root of 6 × 2,048 ÷ 7 is 42; nearly all of 128 experts are read eleven times as often as
        // the 8 of one row, which makes it 139.
        assert_eq!(chosen(Shape::default(), 2048), 48);
        assert_eq!(chosen(Shape::mixture(), 2048), 128);
        assert!(chosen(Shape::mixture(), 512) >= 2 * chosen(Shape::default(), 512));
    }
}
