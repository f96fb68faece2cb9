//! What a plan sends on: hidden states to the next stage, or what was sampled to the coordinator.

use super::outbox::{Outbox, fault, link_fault};
use crate::convert::{Finished, Work};
use crate::stage::timings::Timings;
use quinn::{Connection, SendStream};
use tokio::sync::mpsc;
use woolly_protocol::control::{ForwardTiming, PlanLinks, StreamOpen, StreamPurpose};
use woolly_protocol::failpoint;
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::frame::{EncodedFrame, FrameError};
use woolly_protocol::frame_io::write_frame;
use woolly_protocol::ids::PlanEpoch;
use woolly_protocol::trace::{hex, stage_span};

/// Opens a stream of this plan on a connection.
///
/// # Errors
///
/// If the connection is gone.
pub async fn open_stream(
    connection: &Connection,
    epoch: PlanEpoch,
    purpose: StreamPurpose,
) -> Result<SendStream, FrameError> {
    let mut send = connection.open_uni().await.map_err(FrameError::Connection)?;
    write_frame(&mut send, EncodedFrame::new(&StreamOpen { epoch, purpose })?).await?;
    Ok(send)
}

/// Sends on what was computed. Returns what ended it.
pub async fn send_results(
    mut send: SendStream,
    mut results: mpsc::Receiver<Finished>,
    links: &PlanLinks,
    timings: &Timings,
    outbox: &Outbox,
) -> FaultMessage {
    while let Some(finished) = results.recv().await {
        let Finished { work, computed, times, at } = finished;
        let frame = match work.encode(computed) {
            Ok(frame) => frame,
            Err(fault) => {
                tracing::error!("microbatch {}: {}", fault.microbatch, fault.text);
                outbox.fault(fault).await;
                continue;
            }
        };
        if failpoint::hit("worker.answer") {
            let _ = write_frame(&mut send, frame.clone()).await;
        }
        if let Err(error) = write_frame(&mut send, frame).await {
            let to = match &links.next {
                Some(next) => format!("worker {} at {}", next.name, next.address),
                None => "the coordinator".to_owned(),
            };
            let text = format!("stage {}: the link to {to} broke: {error}", links.stage);
            let about = links.next.as_ref().map(|next| next.worker);
            return link_fault(about, links.epoch, text);
        }
        let timing = times.timing(work.microbatch(), at.elapsed());
        tell_traces(&work, links, &timing);
        timings.push(links.epoch, timing);
    }
    fault(FaultCode::ComputeFailed, links.epoch, "the compute thread has ended".to_owned())
}

/// Tells the log which requests a plan's stage has seen for the first time, and how long it had the forward that brought them. The coordinator's line
/// about a request names the same spans.
fn tell_traces(work: &Work, links: &PlanLinks, timing: &ForwardTiming) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let ForwardTiming { queue_us, compute_us, wire_us, .. } = timing;
    let (epoch, stage) = (links.epoch, links.stage);
    for (of, sequence) in work.traces() {
        let span = stage_span((of.trace, of.span), epoch, stage as usize);
        let (trace, span, parent) = (hex(&of.trace), hex(&span), hex(&of.span));
        tracing::debug!(
            %trace, %span, %parent,
            "plan {epoch} stage {stage} begins with sequence {sequence}: forward {} of {} rows, queue {queue_us} us, compute \
             {compute_us} us, wire {wire_us} us",
            work.microbatch(),
            work.rows(),
        );
    }
}
