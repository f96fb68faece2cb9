//! What a layer costs to compute: multiplications and bytes read, as functions of the rows that are
//! computed together.

use super::layer::FeedForwardKind;
use crate::gguf::TensorInfo;

/// The cost of a layer, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes that every forward reads.
    bytes: u64,
    /// Multiplications for every row.
    macs: u64,
    /// Of all experts.
    expert_bytes: u64,
    /// Of all experts, if a row went to every one.
    expert_macs: u64,
    /// Experts, and how many of them a row goes to.
    experts: Option<(u64, u64)>,
}

impl Cost {
    /// The cost of `tensors`; those with `true` are of all experts of a layer of this kind.
    pub(crate) fn new<'a>(
        kind: FeedForwardKind,
        tensors: impl Iterator<Item = (&'a TensorInfo, bool)>,
    ) -> Self {
        let mut cost = Self::default();
        if let FeedForwardKind::Experts { count, used, .. } = kind {
            cost.experts = Some((count as u64, used as u64));
        }
        for (tensor, is_of_experts) in tensors {
            let macs = if tensor.rows() > 1 { tensor.elements() } else { 0 };
            if is_of_experts {
                cost.expert_bytes += tensor.len;
                cost.expert_macs += macs;
            } else {
                cost.bytes += tensor.len;
                cost.macs += macs;
            }
        }
        cost
    }

    /// The cost of `tensors` that are used for every row.
    pub(crate) fn whole<'a>(tensors: impl Iterator<Item = &'a TensorInfo>) -> Self {
        let kind = FeedForwardKind::Dense { width: 0 };
        Self::new(kind, tensors.map(|tensor| (tensor, false)))
    }

    /// Bytes of all experts together; 0 without any.
    pub fn expert_bytes(&self) -> u64 {
        self.expert_bytes
    }

    /// Multiplications of a forward of so many rows, attention scores excepted.
    pub fn macs(&self, rows: u32) -> u64 {
        let of_experts = self.experts.map_or(0, |(count, used)| self.expert_macs * used / count);
        u64::from(rows) * (self.macs + of_experts)
    }

    /// Bytes that a forward of so many rows reads of the weights: of experts those of as many as the
    /// rows are expected to choose, each by chance.
    pub fn bytes_read(&self, rows: u32) -> u64 {
        let Some((count, used)) = self.experts else { return self.bytes };
        if rows == 1 {
            return self.bytes + self.expert_bytes * used / count;
        }
        let share = 1.0 - power(1.0 - used as f64 / count as f64, rows);
        self.bytes + (self.expert_bytes as f64 * share) as u64
    }
}

/// `base` to the power `exponent`, by the same multiplications everywhere.
fn power(mut base: f64, mut exponent: u32) -> f64 {
    let mut power = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            power *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    power
}
