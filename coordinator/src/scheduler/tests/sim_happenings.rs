//! What happens in a simulated cluster, and the stages to which it happens.

use super::toy::ToyStage;
use crate::guides::Next;
use crate::scheduler::StageTiming;
use std::collections::VecDeque;
use woolly_protocol::forward::Forward;
use woolly_protocol::ids::{PlanEpoch, SequenceId};
use woolly_protocol::sampling::{Sampled, Sampling};

/// What happens at a moment.
pub(super) enum Happening {
    Arrival(usize),
    Cancel(usize),
    /// The pipeline is lost.
    Loss,
    /// A new plan is served.
    Plan,
    /// Another plan is about to take over.
    HandOver,
    /// A microbatch with its rows reaches a stage.
    Reaches(usize, Forward, Vec<u64>),
    /// A `Sampling` reaches the last stage.
    Samples(Sampling),
    /// The scheduler wanted to be called.
    Time,
    /// A stage is done with what it computes.
    Done(usize),
    /// An answer reaches the coordinator.
    Answer(Sampled),
    /// A guide has said what may come next.
    Next(SequenceId, Next),
    /// A stage's report reaches the coordinator.
    Report(PlanEpoch, usize, StageTiming),
}

/// One stage at work.
pub(super) struct StageSim {
    pub(super) model: ToyStage,
    pub(super) queue: VecDeque<(Forward, Vec<u64>)>,
    pub(super) busy: bool,
    pub(super) base_us: u64,
    pub(super) row_us: u64,
    /// When its last message arrives: links keep the order.
    pub(super) link_free_at: u64,
}
