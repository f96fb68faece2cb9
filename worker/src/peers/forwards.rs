//! What a plan receives: forwards from the previous stage or the coordinator, and at the last stage the
//! samplings that belong to them.

use super::arrivals::{Opened, Peer};
use super::outbox::{Outbox, fault, link_fault, wrong_epoch};
use super::samplings::Samplings;
use crate::convert::Work;
use crate::stage::compute::ForwardQueue;
use std::future::pending;
use woolly_protocol::control::{Assign, PlanLinks};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::forward::{Forward, ForwardLimits};
use woolly_protocol::frame::{FrameError, Message};
use woolly_protocol::ids::PlanEpoch;
use woolly_protocol::kind::Kind;
use woolly_protocol::sampling::Sampling;

/// Hands forwards to the compute thread in the order in which they come, at the last stage together
/// with their samplings. Returns what ended it.
pub async fn receive_forwards(
    mut stream: Opened,
    assign: &Assign,
    samplings: &Samplings,
    queue: &ForwardQueue,
    outbox: &Outbox,
) -> FaultMessage {
    let Assign { stage, links, .. } = assign;
    let limits = ForwardLimits {
        rows_max: stage.rows_max,
        ctx_size: stage.ctx_size,
        caches: &stage.caches,
        hidden: stage.hidden,
        first_stage: links.is_first(),
    };
    let payload_max = limits.payload_max();
    let of_coordinator = links.previous.is_none();
    loop {
        let frame = match stream.reader.read_limited(&[Kind::Forward], payload_max).await {
            Ok(Some(frame)) => frame,
            Ok(None) if of_coordinator => return pending().await,
            Err(error) if of_coordinator && is_over(&error) => return pending().await,
            Ok(None) => return broken(links, "it was ended by the other side"),
            Err(error) => return broken(links, error),
        };
        let forward: Forward = match frame.message() {
            Ok(forward) => forward,
            Err(error) => return broken(links, error),
        };
        if forward.epoch != links.epoch {
            let text = format!("a forward of plan {} came in plan {}", forward.epoch, links.epoch);
            outbox.fault(wrong_epoch(forward.epoch, forward.microbatch, text)).await;
            continue;
        }
        let sampling = if links.is_last() && forward.sample_rows() > 0 {
            Some(samplings.take(forward.microbatch).await)
        } else {
            None
        };
        // What is not meaningful fails alone; its sampling was taken and waits for nobody.
        if let Err(error) = forward.check_against(&limits, frame.payload().len()) {
            let text = format!("a forward cannot be computed: {error}");
            let (epoch, microbatch) = (forward.epoch, forward.microbatch);
            let code = FaultCode::BadMessage;
            outbox.fault(FaultMessage { microbatch, ..fault(code, epoch, text) }).await;
            continue;
        }
        if queue.push(|place| Work::new(forward, frame, sampling, place)).is_err() {
            let text = format!("more than {} forwards are in flight", links.in_flight_max);
            return fault(FaultCode::BadMessage, links.epoch, text);
        }
    }
}

/// Whether the coordinator's stream was reset or its connection lost. As when it ends the stream, the
/// plan is over, and the control stream says so or ends as well: nobody is to be told.
fn is_over(error: &FrameError) -> bool {
    matches!(error, FrameError::Connection(_) | FrameError::Read(_) | FrameError::Refused(_))
}

fn broken(links: &PlanLinks, why: impl std::fmt::Display) -> FaultMessage {
    let from = links.previous.map_or(Peer::Coordinator, Peer::Worker);
    let text = format!("stage {}: the stream of forwards from {from} broke: {why}", links.stage);
    link_fault(links.previous, links.epoch, text)
}

/// Collects the samplings of a plan. Returns what ended it.
pub async fn receive_samplings(
    mut stream: Opened,
    epoch: PlanEpoch,
    samplings: &Samplings,
    outbox: &Outbox,
) -> FaultMessage {
    let broken =
        |why: String| link_fault(None, epoch, format!("the stream of samplings broke: {why}"));
    loop {
        let frame = match stream.reader.read(&[Sampling::KIND]).await {
            Ok(Some(frame)) => frame,
            Err(error) if !is_over(&error) => return broken(error.to_string()),
            Ok(None) | Err(_) => return pending().await,
        };
        let sampling: Sampling = match frame.message() {
            Ok(sampling) => sampling,
            Err(error) => return broken(error.to_string()),
        };
        if sampling.epoch != epoch {
            let text = format!("a sampling of plan {} came in plan {epoch}", sampling.epoch);
            outbox.fault(wrong_epoch(sampling.epoch, sampling.microbatch, text)).await;
            continue;
        }
        if let Err(error) = samplings.offer(sampling) {
            return fault(FaultCode::BadMessage, epoch, error.to_string());
        }
    }
}
