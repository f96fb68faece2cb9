//! Streams between stages: taken from the previous one, opened to the next one or the coordinator.

use crate::convert::{Finished, Work, preamble};
use crate::peers::arrivals::{Arrival, Arrivals, NotKept, Opened, PEERS_MAX, Peer};
use crate::peers::outbox::{Outbox, fault, wrong_epoch};
use crate::peers::samplings::Samplings;
use crate::stage::compute::ForwardQueue;
use crate::stage::timings::Timings;
use quinn::{Connection, Endpoint, SendStream};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use woolly_protocol::control::{Assign, PlanLinks, StreamOpen, StreamPurpose};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::forward::{Forward, ForwardLimits};
use woolly_protocol::frame::{EncodedFrame, FrameError, Message};
use woolly_protocol::frame_io::{FrameReader, write_frame};
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, WorkerId};
use woolly_protocol::kind::Kind;
use woolly_protocol::log_limit::LogLimit;
use woolly_protocol::peer::{Peer as Dialled, accept, screen};
use woolly_protocol::places::Places;
use woolly_protocol::preamble::answer_greeting;
use woolly_protocol::refusal::{Refusal, RefusalCode};
use woolly_protocol::sampling::Sampling;

/// Connections of one worker among them: each plan dials anew, and the end of an older connection
/// may not have been noticed yet.
const PER_PEER_MAX: usize = 4;
/// Time in which the first frame of a stream must have come.
const OPEN_TIME: Duration = Duration::from_secs(5);

/// Lines about what strangers and other workers were refused.
static REFUSED: LogLimit = LogLimit::new();

/// Accepts other workers for as long as the endpoint lives; their streams go to `arrivals`.
///
/// Handshakes have their own bound and take no place of a worker: only a certificate does.
pub async fn accept_peers(endpoint: Endpoint, arrivals: Arc<Arrivals>) {
    let half_open = Places::of_handshakes();
    let peers = Places::new(PEERS_MAX, PER_PEER_MAX);
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        let Some((incoming, place)) = screen(incoming, &half_open) else { continue };
        let (arrivals, peers) = (Arc::clone(&arrivals), peers.clone());
        tasks.spawn(async move {
            let accepted = accept(incoming).await;
            drop(place);
            match accepted {
                Ok((connection, peer)) => serve_peer(connection, peer, &peers, &arrivals).await,
                Err(error) => tracing::debug!("a connection from another worker: {error}"),
            }
        });
    }
}

async fn serve_peer(
    connection: Connection,
    peer: Dialled,
    peers: &Places<WorkerId>,
    arrivals: &Arrivals,
) {
    let Dialled::Worker(worker) = peer else {
        let text = "this is a worker: only the worker of the previous stage dials it";
        Refusal::new(RefusalCode::WrongRole, text).close(&connection);
        return;
    };
    let Some(_place) = peers.take(worker) else {
        let text = format!(
            "too many connections: this worker takes {PEERS_MAX}, {PER_PEER_MAX} of one worker"
        );
        Refusal::new(RefusalCode::Busy, &text).close(&connection);
        REFUSED.warn(format_args!("worker {} was turned away: {text}", worker.hex()));
        return;
    };
    // Both ends of the first stream stay open with the connection.
    let _greeting = match answer_greeting(&connection, &preamble()).await {
        Ok(streams) => streams,
        Err(error) => {
            REFUSED.warn(format_args!("worker {} was turned away: {error}", worker.hex()));
            return;
        }
    };
    let ended = receive_streams(&connection, Peer::Worker(worker), arrivals, None).await;
    tracing::debug!("the connection from worker {} ended: {ended}", worker.hex());
}

/// Takes the streams that a peer opens until its connection ends; returns why it did. Streams whose plan
/// did not become live in time are answered with `WrongEpoch` if there is an `outbox` to do it.
pub async fn receive_streams(
    connection: &Connection,
    from: Peer,
    arrivals: &Arrivals,
    outbox: Option<&Outbox>,
) -> quinn::ConnectionError {
    loop {
        let stream = tokio::select! {
            stream = connection.accept_uni() => stream,
            () = arrivals.overdue(from) => {
                give_up(arrivals.sweep(from), from, outbox).await;
                continue;
            }
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // What waited on this connection is gone with it.
                arrivals.sweep(from);
                return error;
            }
        };
        let mut reader = FrameReader::new(stream);
        let open = match timeout(OPEN_TIME, read_open(&mut reader)).await {
            Ok(Ok(open)) => open,
            Ok(Err(error)) => {
                let text = format!("a stream from {from} does not begin as it should: {error}");
                REFUSED.warn(text);
                continue;
            }
            Err(_) => {
                let seconds = OPEN_TIME.as_secs();
                REFUSED.warn(format_args!("a stream from {from} did not begin in {seconds} s"));
                continue;
            }
        };
        let opened = Opened { reader, connection: connection.clone() };
        match arrivals.offer(Arrival { from, open, reader: opened }) {
            Ok(()) => {}
            Err(NotKept::Full) => {
                REFUSED.warn(format_args!("a stream from {from} is one too many: dropped"))
            }
            Err(NotKept::Stranger) => REFUSED.warn(format_args!(
                "a stream from {from} was dropped: plan {} takes none from it",
                open.epoch
            )),
        }
    }
}

/// Says that streams were dropped because nobody named their plan.
async fn give_up(dropped: Vec<StreamOpen>, from: Peer, outbox: Option<&Outbox>) {
    for StreamOpen { epoch, purpose } in dropped {
        let text =
            format!("a stream of {purpose:?} came from {from} for plan {epoch}, which is not live");
        REFUSED.warn(&text);
        if let Some(outbox) = outbox {
            outbox.fault(wrong_epoch(epoch, MicrobatchId(0), text)).await;
        }
    }
}

async fn read_open(reader: &mut FrameReader) -> Result<StreamOpen, FrameError> {
    match reader.read(&[Kind::StreamOpen]).await? {
        Some(frame) => frame.message(),
        None => Err(FrameError::Truncated { expected: 1, found: 0 }),
    }
}

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
            outbox.fault(FaultMessage { code, epoch, microbatch, text }).await;
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
    fault(FaultCode::LinkFailed, links.epoch, text)
}

/// Collects the samplings of a plan. Returns what ended it.
pub async fn receive_samplings(
    mut stream: Opened,
    epoch: PlanEpoch,
    samplings: &Samplings,
    outbox: &Outbox,
) -> FaultMessage {
    let broken = |why: String| {
        fault(FaultCode::LinkFailed, epoch, format!("the stream of samplings broke: {why}"))
    };
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
        if let Err(error) = write_frame(&mut send, frame).await {
            let to = match &links.next {
                Some(next) => format!("worker {} at {}", next.name, next.address),
                None => "the coordinator".to_owned(),
            };
            let text = format!("stage {}: the link to {to} broke: {error}", links.stage);
            return fault(FaultCode::LinkFailed, links.epoch, text);
        }
        timings.push(links.epoch, times.timing(work.microbatch(), at.elapsed()));
    }
    fault(FaultCode::ComputeFailed, links.epoch, "the compute thread has ended".to_owned())
}
