//! One worker's connection: its control stream both ways, and the streams that it opens.

use super::link::{
    CONTROL_QUEUE, HEARTBEAT_MS, Link, LinkError, LinkEvent, LinkId, News, try_send,
};
use super::streams::read_streams;
use crate::trust::renewals::Renewals;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use woolly_protocol::control::{Drain, Heartbeat, Hello, Ready};
use woolly_protocol::fault::FaultMessage;
use woolly_protocol::frame::{EncodedFrame, Frame, FrameError};
use woolly_protocol::frame_io::{FrameReader, write_frame};
use woolly_protocol::gone::gone;
use woolly_protocol::ids::WorkerId;
use woolly_protocol::join::RenewalRequest;
use woolly_protocol::kind::Kind;
use woolly_protocol::preamble::{Preamble, answer_greeting};
use woolly_protocol::rate::FrameRate;
use woolly_protocol::refusal::{Refusal, RefusalCode};

/// How long a connected worker may take to say `Hello`.
const GREETING_TIME: Duration = Duration::from_secs(10);
/// The time between two renewals of a worker's certificate: each is a signature.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// What the links of one coordinator share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// To the driver.
    pub events: mpsc::Sender<LinkEvent>,
    /// What we speak.
    pub preamble: Preamble,
    /// New certificates for workers.
    pub renewals: Renewals,
}

/// Serves one connection of a worker until it is lost. `worker` is what its certificate says.
///
/// # Errors
///
/// What went wrong before the worker had said `Hello`; after that the driver is told.
pub async fn run(
    connection: quinn::Connection,
    worker: WorkerId,
    id: LinkId,
    shared: Shared,
) -> Result<(), LinkError> {
    let greeting = async {
        let (send, recv) = answer_greeting(&connection, &shared.preamble).await?;
        let mut reader = FrameReader::new(recv);
        let hello = match reader.read(&[Kind::Hello]).await? {
            Some(frame) => frame.message::<Hello>()?,
            None => return Err(LinkError::Left),
        };
        Ok((send, reader, hello))
    };
    let greeted = timeout(GREETING_TIME, greeting)
        .await
        .unwrap_or(Err(FrameError::ReadStalled(GREETING_TIME.as_secs()).into()));
    let (send, reader, hello) = greeted.inspect_err(|error| error.refusal().close(&connection))?;
    let (control, frames) = mpsc::channel(CONTROL_QUEUE);
    let remote = connection.remote_address();
    // Weak, so that the queue ends with the driver's end of it.
    let answers = control.downgrade();
    let link = Link { id, worker, remote, connection: connection.clone(), control };
    let tell = |news| LinkEvent { link: id, worker, news };
    if shared.events.send(tell(News::Hello { hello: Box::new(hello), link })).await.is_err() {
        // The driver is gone: the process is ending.
        return Ok(());
    }
    let seen = AtomicU64::new(0);
    let error = tokio::select! {
        error = read_control(reader, (id, worker), &shared, (&answers, &seen)) => error,
        error = write_control(send, frames, &seen) => error,
        error = read_streams(connection.clone(), id, worker, &shared.events) => error,
        () = gone(&connection) => LinkError::Gone,
    };
    error.refusal().close(&connection);
    // The driver being gone is no news that anyone waits for.
    let _ = shared.events.send(tell(News::Lost(error.to_string()))).await;
    Ok(())
}

/// Hands control messages to the driver until something is wrong. The number of the last heartbeat is
/// left in `seen`. A certificate is renewed here: there is nothing to decide about it.
async fn read_control(
    mut reader: FrameReader,
    (link, worker): (LinkId, WorkerId),
    shared: &Shared,
    (answers, seen): (&mpsc::WeakSender<EncodedFrame>, &AtomicU64),
) -> LinkError {
    const ACCEPT: [Kind; 5] =
        [Kind::Ready, Kind::Heartbeat, Kind::Fault, Kind::Drain, Kind::RenewalRequest];
    let mut rate = FrameRate::default();
    let mut renewed = None;
    loop {
        let read = reader.read(&ACCEPT).await;
        if let Err(error) = rate.count(Instant::now()) {
            return error.into();
        }
        let news = match read {
            Ok(Some(frame)) if frame.kind() == Kind::RenewalRequest => {
                match renew(worker, &frame, shared, answers, &mut renewed) {
                    Ok(()) => continue,
                    Err(error) => return error,
                }
            }
            Ok(Some(frame)) => match frame.kind() {
                Kind::Ready => frame.message::<Ready>().map(News::Ready),
                Kind::Heartbeat => frame.message::<Heartbeat>().map(|heartbeat| {
                    seen.store(heartbeat.number, Relaxed);
                    News::Heartbeat(heartbeat)
                }),
                Kind::Drain => frame.message::<Drain>().map(News::Drain),
                _ => frame.message::<FaultMessage>().map(News::Fault),
            },
            Ok(None) => return LinkError::Left,
            Err(error) => Err(error),
        };
        let news = match news {
            Ok(news) => news,
            Err(error) => return error.into(),
        };
        if shared.events.send(LinkEvent { link, worker, news }).await.is_err() {
            return LinkError::Dropped;
        }
    }
}

/// Answers with a new certificate. `renewed` is when that was last done on this link.
fn renew(
    worker: WorkerId,
    frame: &Frame,
    shared: &Shared,
    answers: &mpsc::WeakSender<EncodedFrame>,
    renewed: &mut Option<Instant>,
) -> Result<(), LinkError> {
    if renewed.is_some_and(|at| at.elapsed() < RENEWAL_PAUSE) {
        let text = format!("a certificate is renewed once in {} s", RENEWAL_PAUSE.as_secs());
        return Err(FrameError::Refused(Refusal::new(RefusalCode::Busy, &text)).into());
    }
    *renewed = Some(Instant::now());
    let request = frame.message::<RenewalRequest>()?;
    let signed = shared.renewals.sign(worker, &request).map_err(FrameError::Refused)?;
    let queue = answers.upgrade().ok_or(LinkError::Dropped)?;
    // A queue that is full is the driver's to see; the worker asks again.
    try_send(&queue, EncodedFrame::new(&signed)?).or(Ok(()))
}

/// Writes the driver's messages, and a heartbeat every [`HEARTBEAT_MS`] which echoes the number in
/// `seen`, until something is wrong.
async fn write_control(
    mut send: quinn::SendStream,
    mut frames: mpsc::Receiver<EncodedFrame>,
    seen: &AtomicU64,
) -> LinkError {
    let mut tick = interval(Duration::from_millis(u64::from(HEARTBEAT_MS)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Nothing may come before the answer to `Hello`, which is the driver's.
    let mut welcomed = false;
    let mut number = 0;
    loop {
        let frame = tokio::select! {
            biased;
            frame = frames.recv() => match frame {
                Some(frame) => frame,
                None => return LinkError::Dropped,
            },
            _ = tick.tick(), if welcomed => {
                number += 1;
                let echo = seen.load(Relaxed);
                let heartbeat = Heartbeat { number, echo, ..Heartbeat::default() };
                match EncodedFrame::new(&heartbeat) {
                    Ok(frame) => frame,
                    Err(error) => return error.into(),
                }
            }
        };
        welcomed = true;
        if let Err(error) = write_frame(&mut send, frame).await {
            return error.into();
        }
    }
}
