//! Links over real QUIC on loopback, with the worker's side played by the test.

use super::testing::{TestCluster, hello};
use super::*;
use std::time::Duration;
use tokio::time::timeout;
use woolly_protocol::control::{Heartbeat, Hello, StreamOpen, StreamPurpose, Welcome};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::frame::{EncodedFrame, Frame};
use woolly_protocol::frame_io::{FrameReader, read_frame, write_frame};
use woolly_protocol::identity::SigningRequest;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch};
use woolly_protocol::join::{JoinAccepted, RenewalRequest};
use woolly_protocol::kind::Kind;
use woolly_protocol::preamble::{Preamble, greet};
use woolly_protocol::refusal::{Refusal, RefusalCode};
use woolly_protocol::sampling::Sampled;

/// A coordinator with one worker's connection.
struct Pair {
    worker: quinn::Connection,
    cluster: TestCluster,
}

async fn pair() -> Pair {
    let cluster = TestCluster::new();
    let worker = cluster.dial(&cluster.identity()).await;
    Pair { worker, cluster }
}

impl Pair {
    async fn news(&mut self) -> News {
        let event =
            timeout(Duration::from_secs(10), self.cluster.events.recv()).await.unwrap().unwrap();
        assert_eq!(event.link, LinkId(1));
        event.news
    }

    /// Says `Hello`; gives the worker's stream and the driver's link.
    async fn hello(&mut self) -> (quinn::SendStream, FrameReader, Link) {
        let (mut send, recv) = greet(&self.worker, &self.cluster.preamble).await.unwrap();
        write_frame(&mut send, EncodedFrame::new(&hello()).unwrap()).await.unwrap();
        match self.news().await {
            News::Hello { hello: found, link } => {
                assert_eq!(*found, Hello { time_ms: found.time_ms, ..hello() });
                (send, FrameReader::new(recv), link)
            }
            news => panic!("{news:?}"),
        }
    }
}

fn sampled(epoch: u32) -> Sampled {
    Sampled { epoch: PlanEpoch(epoch), microbatch: MicrobatchId(5), rows: Vec::new() }
}

async fn open_sampleds(pair: &Pair, purpose: StreamPurpose) -> quinn::SendStream {
    let mut send = pair.worker.open_uni().await.unwrap();
    let open = StreamOpen { epoch: PlanEpoch(3), purpose };
    write_frame(&mut send, EncodedFrame::new(&open).unwrap()).await.unwrap();
    send
}

#[tokio::test]
async fn control_messages_pass_both_ways_and_heartbeats_follow_the_welcome() {
    let mut pair = pair().await;
    let (mut send, mut reader, link) = pair.hello().await;
    link.send(&Welcome { cluster: [2; 16], heartbeat_ms: HEARTBEAT_MS }).unwrap();
    let frame = reader.read(&[Kind::Welcome]).await.unwrap().unwrap();
    assert_eq!(frame.message::<Welcome>().unwrap().cluster, [2; 16]);
    let first = reader.read(&[Kind::Heartbeat]).await.unwrap().unwrap();
    let first: Heartbeat = first.message().unwrap();
    assert_eq!((first.number, first.echo), (1, 0));
    // What the worker says is echoed with the next one.
    let theirs = Heartbeat { number: 77, echo: 1, ..Heartbeat::default() };
    write_frame(&mut send, EncodedFrame::new(&theirs).unwrap()).await.unwrap();
    assert!(matches!(pair.news().await, News::Heartbeat(found) if found == theirs));
    let next = reader.read(&[Kind::Heartbeat]).await.unwrap().unwrap();
    let next: Heartbeat = next.message().unwrap();
    assert_eq!((next.number, next.echo), (2, 77));
    let fault =
        FaultMessage::new(FaultCode::LoadFailed, PlanEpoch(9), MicrobatchId(0), "no memory");
    write_frame(&mut send, EncodedFrame::new(&fault).unwrap()).await.unwrap();
    assert!(matches!(pair.news().await, News::Fault(found) if found == fault));
}

#[tokio::test]
async fn streams_carry_frames_both_ways() {
    let mut pair = pair().await;
    let (_send, _reader, link) = pair.hello().await;
    let open = StreamOpen { epoch: PlanEpoch(3), purpose: StreamPurpose::Forwards };
    let queue = link.open_stream(&open).unwrap();
    queue.send(EncodedFrame::new(&sampled(3)).unwrap()).unwrap();
    let mut recv = pair.worker.accept_uni().await.unwrap();
    let first: Frame = read_frame(&mut recv, &[Kind::StreamOpen]).await.unwrap().unwrap();
    assert_eq!(first.message::<StreamOpen>().unwrap(), open);
    assert!(read_frame(&mut recv, &[Kind::Sampled]).await.unwrap().is_some());
    drop(queue);
    assert!(read_frame(&mut recv, &[Kind::Sampled]).await.unwrap().is_none());

    let mut send = open_sampleds(&pair, StreamPurpose::Results).await;
    write_frame(&mut send, EncodedFrame::new(&sampled(3)).unwrap()).await.unwrap();
    assert!(matches!(pair.news().await, News::Sampled(found) if found == sampled(3)));
    // A plan that ends resets its streams; the link lives on.
    send.reset(0u32.into()).unwrap();
    let mut send = open_sampleds(&pair, StreamPurpose::Results).await;
    write_frame(&mut send, EncodedFrame::new(&sampled(3)).unwrap()).await.unwrap();
    assert!(matches!(pair.news().await, News::Sampled(_)));
}

#[tokio::test]
async fn a_stream_for_something_else_or_another_epoch_ends_the_link() {
    for (purpose, epoch) in [(StreamPurpose::Forwards, 3), (StreamPurpose::Results, 4)] {
        let mut pair = pair().await;
        let (_send, _reader, _link) = pair.hello().await;
        let mut send = open_sampleds(&pair, purpose).await;
        // The stream may be stopped before the frame is through.
        let _ = write_frame(&mut send, EncodedFrame::new(&sampled(epoch)).unwrap()).await;
        let News::Lost(why) = pair.news().await else { panic!("the link goes on") };
        assert!(why.contains("stream"), "{why}");
        let closed = timeout(Duration::from_secs(10), pair.worker.closed()).await.unwrap();
        assert_eq!(Refusal::from_connection(&closed).unwrap().code, RefusalCode::Malformed);
    }
}

#[tokio::test]
async fn the_loss_of_a_worker_is_told_once() {
    let mut pair = pair().await;
    let (_send, _reader, _link) = pair.hello().await;
    pair.worker.close(0u32.into(), b"");
    assert!(matches!(pair.news().await, News::Lost(_)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(pair.cluster.events.try_recv().is_err(), "there was news after the loss");
}

#[tokio::test]
async fn a_dropped_link_closes_the_connection() {
    let mut pair = pair().await;
    let (_send, _reader, link) = pair.hello().await;
    drop(link);
    timeout(Duration::from_secs(10), pair.worker.closed()).await.unwrap();
    assert!(matches!(pair.news().await, News::Lost(_)));
}

#[tokio::test]
async fn a_worker_that_takes_no_frames_is_no_reason_to_wait() {
    let mut pair = pair().await;
    let (_send, _reader, link) = pair.hello().await;
    let open = StreamOpen { epoch: PlanEpoch(3), purpose: StreamPurpose::Samplings };
    let queue = link.open_stream(&open).unwrap();
    let error = (0..10_000).find_map(|_| queue.send(EncodedFrame::new(&sampled(3)).unwrap()).err());
    assert!(matches!(error, Some(SendError::Full(_))), "{error:?}");
}

#[tokio::test]
async fn another_version_is_refused_with_a_sentence() {
    let pair = pair().await;
    let refused =
        greet(&pair.worker, &Preamble::ours(crate::models::NUMERICS + 1)).await.unwrap_err();
    assert!(refused.to_string().contains("numerics"), "{refused}");
}

/// A15: 258,000 in a second, as it was seen, took a core of everybody's machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_heartbeats_closes_the_link() {
    let mut pair = pair().await;
    let (mut send, _recv, _link) = pair.hello().await;
    let flood = tokio::spawn(async move {
        let mut sent = 0_u32;
        while write_frame(
            &mut send,
            EncodedFrame::new(&Heartbeat { number: 1, ..Heartbeat::default() }).unwrap(),
        )
        .await
        .is_ok()
        {
            sent += 1;
        }
        sent
    });
    let mut heartbeats = 0;
    let why = loop {
        match pair.news().await {
            News::Heartbeat(_) => heartbeats += 1,
            News::Lost(why) => break why,
            news => panic!("{news:?}"),
        }
    };
    assert!((1000..10_000).contains(&heartbeats), "{heartbeats}");
    assert!(why.contains("too many control messages"), "{why}");
    let closed = Refusal::from_connection(&pair.worker.closed().await).unwrap();
    assert_eq!(closed.code, RefusalCode::Busy);
    assert!(flood.await.unwrap() >= 1000);
}

#[tokio::test]
async fn a_certificate_is_renewed_on_the_control_stream_and_not_too_often() {
    let mut pair = pair().await;
    let (mut send, mut reader, link) = pair.hello().await;
    link.send(&Welcome { cluster: [2; 16], heartbeat_ms: HEARTBEAT_MS }).unwrap();
    reader.read(&[Kind::Welcome]).await.unwrap().unwrap();
    let request = SigningRequest::new().unwrap();
    let asked = RenewalRequest { signing_request: request.der().to_vec() };
    write_frame(&mut send, EncodedFrame::new(&asked).unwrap()).await.unwrap();
    let answer: JoinAccepted = loop {
        let accept = [Kind::JoinAccepted, Kind::Heartbeat];
        let frame = timeout(Duration::from_secs(10), reader.read(&accept)).await.unwrap();
        let frame = frame.unwrap().unwrap();
        if frame.kind() == Kind::JoinAccepted {
            break frame.message().unwrap();
        }
    };
    let renewed = woolly_protocol::certificate::subject(&answer.certificate.into()).unwrap();
    assert_eq!(renewed.role, woolly_protocol::certificate::Role::Worker(link.worker()));
    // Each is a signature: whoever asks again at once is not asked to stay.
    write_frame(&mut send, EncodedFrame::new(&asked).unwrap()).await.unwrap();
    let News::Lost(why) = pair.news().await else { panic!("the link goes on") };
    assert!(why.contains("once in 60 s"), "{why}");
}

#[tokio::test]
async fn who_was_removed_gets_no_certificate_on_the_control_stream() {
    let mut pair = pair().await;
    let (mut send, _reader, link) = pair.hello().await;
    pair.cluster.exclusions.remove(link.worker(), "w", 1).unwrap();
    let request = SigningRequest::new().unwrap();
    let asked = RenewalRequest { signing_request: request.der().to_vec() };
    write_frame(&mut send, EncodedFrame::new(&asked).unwrap()).await.unwrap();
    let News::Lost(_) = pair.news().await else { panic!("the link goes on") };
    let closed = timeout(Duration::from_secs(10), pair.worker.closed()).await.unwrap();
    assert_eq!(Refusal::from_connection(&closed).unwrap().code, RefusalCode::Removed);
}
