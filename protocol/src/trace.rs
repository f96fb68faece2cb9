//! Traces: which request a sequence belongs to, in the words of W3C Trace Context, on its way to the stages.
//!
//! A stage learns it with the first `Forward` of a plan that has a chunk of the sequence, and hands it on with that. The span of a stage is not sent:
//! both ends make it of what they know, so that the coordinator's line and a worker's log name the same. Nothing is computed by it.

use crate::ids::PlanEpoch;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt::Write;

/// Names a trace; never all zeros.
pub type TraceId = [u8; 16];

/// Names a span of a trace; never all zeros.
pub type SpanId = [u8; 8];

/// What the sequence of a chunk is computed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SequenceTrace {
    /// Which chunk of the forward.
    pub chunk: u32,
    /// The trace of its request.
    pub trace: TraceId,
    /// The span of its request.
    pub span: SpanId,
}

/// The span of a stage of a plan, below the span of a request.
pub fn stage_span((trace, span): (TraceId, SpanId), epoch: PlanEpoch, stage: usize) -> SpanId {
    let mut hasher = blake3::Hasher::new_derive_key("woolly 2026 the span of a stage");
    hasher.update(&trace).update(&span).update(&epoch.0.to_le_bytes());
    hasher.update(&(stage as u64).to_le_bytes());
    let mut id = SpanId::default();
    id.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // Of 2^64 hashes one is no id.
    if id == SpanId::default() { [1; 8] } else { id }
}

/// An id as people and headers write it.
pub fn hex(id: &[u8]) -> String {
    id.iter().fold(String::with_capacity(2 * id.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_plans_and_requests_have_spans_of_their_own() {
        let of = |trace: u8, span: u8, epoch, stage| {
            stage_span(([trace; 16], [span; 8]), PlanEpoch(epoch), stage)
        };
        let spans =
            [of(1, 1, 1, 0), of(2, 1, 1, 0), of(1, 2, 1, 0), of(1, 1, 2, 0), of(1, 1, 1, 1)];
        for (at, span) in spans.iter().enumerate() {
            assert!(!spans[..at].contains(span) && *span != [0; 8]);
        }
        assert_eq!(of(1, 1, 1, 0), spans[0]);
        assert_eq!(hex(&[0x0a, 0xff]), "0aff");
    }
}
