//! The streams of the present plan: `Forward`s to the first stage, `Sampling`s to the last.

use crate::links::{FrameQueue, Link, SendError};
use crate::scheduler::Step;
use bytes::Bytes;
use woolly_protocol::control::{StreamOpen, StreamPurpose};
use woolly_protocol::frame::EncodedFrame;
use woolly_protocol::ids::{PlanEpoch, WorkerId};

// Token ids are little-endian on the wire and sent as they lie.
const _: () = assert!(cfg!(target_endian = "little"));

/// The ends of the pipeline.
#[derive(Debug)]
pub struct Pipeline {
    /// The plan.
    pub epoch: PlanEpoch,
    /// By stage; never empty.
    workers: Vec<WorkerId>,
    forwards: FrameQueue,
    samplings: FrameQueue,
}

/// A worker takes no frames any more.
#[derive(Debug)]
pub struct Broken {
    /// Which one.
    pub worker: WorkerId,
    /// Why.
    pub error: SendError,
}

impl Pipeline {
    /// Opens the streams to the ends of `workers`, which hold the stages in order; returns at once.
    ///
    /// # Errors
    ///
    /// Which worker cannot be reached, and why.
    pub fn open(
        epoch: PlanEpoch,
        workers: Vec<WorkerId>,
        first: &Link,
        last: &Link,
    ) -> Result<Pipeline, Broken> {
        let open = |link: &Link, purpose| {
            let worker = link.worker();
            link.open_stream(&StreamOpen { epoch, purpose })
                .map_err(|error| Broken { worker, error })
        };
        Ok(Pipeline {
            epoch,
            workers,
            forwards: open(first, StreamPurpose::Forwards)?,
            samplings: open(last, StreamPurpose::Samplings)?,
        })
    }

    /// Whether this worker holds the last stage: only it answers microbatches.
    pub fn is_last(&self, worker: WorkerId) -> bool {
        self.last() == worker
    }

    /// Stages of the plan.
    pub fn stages(&self) -> usize {
        self.workers.len()
    }

    /// The stage that a worker holds.
    pub fn stage_of(&self, worker: WorkerId) -> Option<usize> {
        self.workers.iter().position(|held| *held == worker)
    }

    fn last(&self) -> WorkerId {
        *self.workers.last().expect("a plan has at least one stage")
    }

    /// Sends a microbatch on its way; returns at once.
    ///
    /// # Errors
    ///
    /// Which worker takes no more, and why.
    pub fn send(&self, step: &Step) -> Result<(), Broken> {
        if let Some(sampling) = &step.sampling {
            EncodedFrame::new(sampling)
                .map_err(SendError::Frame)
                .and_then(|frame| self.samplings.send(frame))
                .map_err(|error| Broken { worker: self.last(), error })?;
        }
        let tokens = Bytes::copy_from_slice(bytemuck::cast_slice(&step.tokens));
        EncodedFrame::with_payload(&step.forward, tokens)
            .map_err(SendError::Frame)
            .and_then(|frame| self.forwards.send(frame))
            .map_err(|error| Broken { worker: self.workers[0], error })
    }
}
