//! Faults on the wire: a code to decide by, and a text for people.

use crate::ids::{MicrobatchId, PlanEpoch};
use rkyv::{Archive, Deserialize, Serialize};

/// Something went wrong on the sender's side; sent on the control stream.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct FaultMessage {
    /// What to decide by.
    pub code: FaultCode,
    /// The plan it happened in.
    pub epoch: PlanEpoch,
    /// The microbatch it happened to; 0 if none.
    pub microbatch: MicrobatchId,
    /// One sentence for people, at most `TEXT_MAX` bytes.
    pub text: String,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum FaultCode {
    /// A `Forward` or `Sampling` of another plan came; nothing was computed.
    WrongEpoch,
    /// A message was well formed but not meaningful.
    BadMessage,
    /// The stage could not be loaded (file, memory, format).
    LoadFailed,
    /// A slice could not be fetched or stored.
    SliceFailed,
    /// The link to the next stage could not be opened or broke.
    LinkFailed,
    /// The stage failed while computing.
    ComputeFailed,
}
