//! What a stage takes for so many rows before anything is measured, up to a factor.
//!
//! ```text
//! time ∝ 6 × what so many rows read ÷ what one row reads + rows
//! ```
//!
//! A dense model reads the same for any number of rows. Of a mixture more rows read more experts: so few rows
//! cost more of each other's time, and large chunks are worth more.

use crate::scheduler::limits::Reads;

/// Rows that cost as much as reading once what one row reads. Q4_K on AVX-512 takes 1, 1.35, 2.05 and 4.1 times
/// as long for 1, 4, 8 and 16 rows, and 76 times for 512.
const READING_IN_ROWS: f64 = 6.0;

/// The shape of the curves of one plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::scheduler) struct Shape {
    reads: Reads,
}

impl Shape {
    /// The shape where forwards read so much.
    pub(in crate::scheduler) fn new(reads: Reads) -> Self {
        Self { reads }
    }

    /// What so many rows take, up to a factor: in units of what each row adds.
    pub(in crate::scheduler) fn at(&self, rows: f64) -> f64 {
        READING_IN_ROWS * self.reads.at(rows) + rows
    }

    /// The most rows, from 1 to `most`, that take no longer than `most` rows would if all read the same.
    pub(in crate::scheduler) fn as_dense(&self, most: usize) -> usize {
        let limit = Self::default().at(most as f64);
        (1..=most).rev().find(|&rows| self.at(rows as f64) <= limit).unwrap_or(1)
    }
}

#[cfg(test)]
impl Shape {
    /// That of Qwen3-30B-A3B: of what one row reads two thirds are its 8 of 128 experts.
    pub(super) fn mixture() -> Self {
        let read = |rows: u32| {
            let experts = 128.0 * (1.0 - (1.0 - 8.0 / 128.0_f64).powi(rows.cast_signed()));
            (4.0e6 + 1.0e6 * experts) as u64
        };
        Self::new(Reads::of(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dense_model_reads_its_weights_once() {
        let dense = Shape::default();
        assert_eq!([1.0, 8.0, 64.0].map(|rows| dense.at(rows)), [7.0, 14.0, 70.0]);
        assert_eq!(Shape::new(Reads::of(|_| 5_000_000)), dense);
        assert_eq!(dense.as_dense(64), 64);
    }

    #[test]
    fn a_mixture_reads_more_experts_for_more_rows() {
        let shape = Shape::mixture();
        let reads = |rows: f64| (shape.at(rows) - rows) / READING_IN_ROWS;
        // One row: 4 + 8; eight rows: 4 + 51.6; 64 rows: 4 + 126.
        let near = |found: f64, expected: f64| (found - expected).abs() < 0.03 * expected;
        assert!(near(reads(1.0), 1.0) && near(reads(8.0), 55.6 / 12.0), "{}", reads(8.0));
        assert!(near(reads(64.0), 129.9 / 12.0) && near(reads(256.0), 11.0), "{}", reads(64.0));
        // Between the numbers that are known it is near, too.
        let twelve = (4.0 + 128.0 * (1.0 - (1.0 - 0.0625_f64).powi(12))) / 12.0;
        assert!(near(reads(12.0), twelve), "{} for {twelve}", reads(12.0));
        assert!(near(reads(5000.0), 11.0), "past the last they are all read");
        assert_eq!(shape.as_dense(64), 21, "6 × 8 + 21 rows are as long as 6 + 64");
    }
}
