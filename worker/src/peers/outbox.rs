//! Messages to the coordinator, in the order in which they are to be written.

use tokio::sync::mpsc;
use woolly_protocol::check::text_from;
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::frame::{EncodedFrame, Message};
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, WorkerId};

/// Control messages that wait to be written: heartbeats, faults and answers of two plans.
const OUTBOX_MAX: usize = 64;

/// Messages on their way to the control stream.
#[derive(Clone, Debug)]
pub struct Outbox(mpsc::Sender<EncodedFrame>);

impl Outbox {
    /// An outbox, and what is put into it.
    pub fn new() -> (Outbox, mpsc::Receiver<EncodedFrame>) {
        let (queue, queued) = mpsc::channel(OUTBOX_MAX);
        (Outbox(queue), queued)
    }

    /// Waits for room and queues a message; one that cannot be sent is dropped with the conversation.
    pub async fn send<M: Message>(&self, message: &M) {
        match EncodedFrame::new(message) {
            // An error means that the conversation is over: nobody is there to be told.
            Ok(frame) => drop(self.0.send(frame).await),
            Err(error) => tracing::error!("cannot tell the coordinator: {error}"),
        }
    }

    /// Sends a fault; its text is made fit for the wire.
    pub async fn fault(&self, mut fault: FaultMessage) {
        fault.text = text_from(&fault.text);
        self.send(&fault).await;
    }

    /// Queues the message that is made if there is room for it. A heartbeat that finds none is not
    /// missed: what is queued says as much.
    pub fn try_send<M: Message>(&self, make: impl FnOnce() -> M) {
        let Ok(place) = self.0.try_reserve() else { return };
        match EncodedFrame::new(&make()) {
            Ok(frame) => place.send(frame),
            Err(error) => tracing::error!("cannot tell the coordinator: {error}"),
        }
    }
}

/// A fault of the whole plan.
pub fn fault(code: FaultCode, epoch: PlanEpoch, text: String) -> FaultMessage {
    FaultMessage { code, epoch, microbatch: MicrobatchId(0), about: None, text }
}

/// The link to a neighbour failed; `None` is the coordinator.
pub fn link_fault(about: Option<WorkerId>, epoch: PlanEpoch, text: String) -> FaultMessage {
    FaultMessage { about, ..fault(FaultCode::LinkFailed, epoch, text) }
}

/// A frame of a plan that is not the one in force.
pub fn wrong_epoch(epoch: PlanEpoch, microbatch: MicrobatchId, text: String) -> FaultMessage {
    FaultMessage { microbatch, ..fault(FaultCode::WrongEpoch, epoch, text) }
}
