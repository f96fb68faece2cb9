//! Takes connections of other workers and the streams that they and the coordinator open; what a stream
//! carries is not looked at here.

use super::arrivals::{Arrival, Arrivals, NotKept, Opened, PEERS_MAX, Peer};
use super::outbox::{Outbox, wrong_epoch};
use super::removed::RemovedWorkers;
use super::traffic::Traffic;
use crate::convert::preamble;
use quinn::{Connection, Endpoint};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::task::JoinSet;
use tokio::time::timeout;
use woolly_protocol::control::StreamOpen;
use woolly_protocol::frame::FrameError;
use woolly_protocol::frame_io::FrameReader;
use woolly_protocol::ids::{MicrobatchId, WorkerId};
use woolly_protocol::kind::Kind;
use woolly_protocol::log_limit::LogLimit;
use woolly_protocol::peer::{Peer as Dialled, accept, screen};
use woolly_protocol::places::Places;
use woolly_protocol::preamble::answer_greeting;
use woolly_protocol::refusal::{Refusal, RefusalCode};

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
pub async fn accept_peers(
    endpoint: Endpoint,
    arrivals: Arc<Arrivals>,
    removed: Arc<RemovedWorkers>,
    traffic: Arc<Traffic>,
) {
    let half_open = Places::of_handshakes();
    let peers = Places::new(PEERS_MAX, PER_PEER_MAX);
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        let Some((incoming, place)) = screen(incoming, &half_open) else { continue };
        let (arrivals, peers, removed) =
            (Arc::clone(&arrivals), peers.clone(), Arc::clone(&removed));
        let traffic = Arc::clone(&traffic);
        tasks.spawn(async move {
            let accepted = accept(incoming, SystemTime::now()).await;
            drop(place);
            match accepted {
                Ok((connection, peer)) => {
                    serve_peer(connection, peer, (&peers, &removed, &traffic), &arrivals).await;
                }
                Err(error) => tracing::debug!("a connection from another worker: {error}"),
            }
        });
    }
}

async fn serve_peer(
    connection: Connection,
    peer: Dialled,
    (peers, removed, traffic): (&Places<WorkerId>, &RemovedWorkers, &Arc<Traffic>),
    arrivals: &Arrivals,
) {
    let Dialled::Worker(worker) = peer else {
        let text = "this is a worker: only the worker of the previous stage dials it";
        Refusal::new(RefusalCode::WrongRole, text).close(&connection);
        return;
    };
    if removed.contains(worker) {
        let refusal = RemovedWorkers::refusal();
        refusal.close(&connection);
        REFUSED.warn(format_args!("worker {} was turned away: {refusal}", worker.hex()));
        return;
    }
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
    let _counted = traffic.count(worker.hex(), &connection);
    let from = Peer::Worker(worker);
    let mut receiving = pin!(receive_streams(&connection, from, arrivals, None));
    let ended = tokio::select! {
        ended = &mut receiving => ended,
        () = removed.until(worker) => {
            RemovedWorkers::refusal().close(&connection);
            receiving.await
        }
    };
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
