//! How slow a cut is beside one that could part layers at will, for each kind of work.
//!
//! There are three kinds, and each has another balance between the stages:
//!
//! | work | a stage's time |
//! |---|---|
//! | decode of few rows | bytes that it reads, the head's included, over its worker's bandwidth |
//! | decode of many rows | the longer of that for so many rows and multiplications, the head's included, over its worker's multiplications per second |
//! | prefill | the same without the head: of a prompt only the last token is sampled after |
//!
//! Of a dense model the multiplications are longer in the last two; of a mixture's experts many rows read nearly
//! all, and each expert has few of the rows.

/// How long the slowest stage takes for each kind of work, in millionths of the time that it would take if
/// all workers together had the work parted at will: 1,000,000 is perfect, 2,000,000 twice as slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slowness {
    /// Of decode steps of few rows, which read the weights.
    pub few_rows: u64,
    /// Of decode steps of many rows, which multiply, or read a mixture's experts.
    pub many_rows: u64,
    /// Of prompts, which multiply and need no head.
    pub prefill: u64,
}

impl Slowness {
    /// Each figure of the slower one.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            few_rows: self.few_rows.max(other.few_rows),
            many_rows: self.many_rows.max(other.many_rows),
            prefill: self.prefill.max(other.prefill),
        }
    }

    /// Whether no kind of work takes more than `percent` percent longer than with `other`.
    pub(super) fn is_within_percent(self, other: Self, percent: u64) -> bool {
        within_percent(self.few_rows, other.few_rows, percent)
            && within_percent(self.many_rows, other.many_rows, percent)
            && within_percent(self.prefill, other.prefill, percent)
    }
}

/// Whether `a` is at most `percent` percent more than `b`.
pub(super) fn within_percent(a: u64, b: u64, percent: u64) -> bool {
    u128::from(a) * 100 <= u128::from(b) * u128::from(100 + percent)
}
