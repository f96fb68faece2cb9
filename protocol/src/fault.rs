//! Faults on the wire: a code to decide by, and a text for people.

use crate::check::{Check, MessageError, text_from};
use crate::frame::Message;
use crate::ids::{MicrobatchId, PlanEpoch, WorkerId};
use crate::kind::Kind;
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
    /// For [`FaultCode::LinkFailed`] the worker at the other end of the link; `None` if that is the
    /// coordinator.
    pub about: Option<WorkerId>,
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
    /// A link to a neighbour could not be opened or broke. Which of both ends is to blame is the
    /// coordinator's to find out.
    LinkFailed,
    /// The stage failed while computing.
    ComputeFailed,
}

impl FaultMessage {
    /// A fault; the text is cut to `TEXT_MAX` bytes and freed of control characters.
    pub fn new(code: FaultCode, epoch: PlanEpoch, microbatch: MicrobatchId, text: &str) -> Self {
        Self { code, epoch, microbatch, about: None, text: text_from(text) }
    }
}

impl Message for FaultMessage {
    const KIND: Kind = Kind::Fault;

    fn check(&self) -> Result<(), MessageError> {
        Check(Self::KIND).text("text", &self.text)
    }
}
