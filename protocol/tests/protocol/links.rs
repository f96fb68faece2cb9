//! Frames over real QUIC: whole, aligned, in any pieces, and never without end.

use crate::quic::{Cluster, IDLE, TIME, dialler};
use crate::samples;
use quinn::{Connection, RecvStream, SendStream};
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use woolly_protocol::control::Heartbeat;
use woolly_protocol::endpoint::{DATAGRAM_MAX, dial_coordinator, link_client};
use woolly_protocol::forward::Forward;
use woolly_protocol::frame::{EncodedFrame, FrameError, Message, encode};
use woolly_protocol::frame_io::{FrameReader, STALL_TIME, read_frame, write_frame};
use woolly_protocol::identity::Identity;
use woolly_protocol::kind::Kind;
use woolly_protocol::peer::{Peer, peer_worker_id};
use woolly_protocol::windows::{LINK_WINDOW, forward_window, set_window};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn join_then_a_megabyte_over_mutual_tls() {
    let cluster = Cluster::start().await;
    let identity = cluster.worker().await;
    let home = tempfile::tempdir().unwrap();
    identity.save(home.path()).unwrap();
    let identity = Identity::load(home.path(), SystemTime::now()).unwrap().unwrap();
    let config = link_client(&identity, IDLE).unwrap();
    let worker = dial_coordinator(&dialler(), config, cluster.address).await.unwrap();
    let (coordinator, peer) = cluster.next().await.unwrap();
    assert_eq!(peer, Peer::Worker(identity.worker().unwrap()));
    assert_eq!(peer_worker_id(&coordinator), identity.worker());
    assert_eq!(peer_worker_id(&worker), None);

    let values: Vec<f32> = (0..1 << 18).map(|i| i as f32 * 0.5).collect();
    let payload: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let frame = EncodedFrame::with_payload(&samples::forward(), payload.into()).unwrap();
    let writing = async {
        let mut send = worker.open_uni().await.unwrap();
        for _ in 0..3 {
            write_frame(&mut send, frame.clone()).await.unwrap();
        }
        send.finish().unwrap();
        send.stopped().await.unwrap();
    };
    let reading = async {
        let mut recv = coordinator.accept_uni().await.unwrap();
        for _ in 0..3 {
            let frame = read_frame(&mut recv, &[Forward::KIND]).await.unwrap().unwrap();
            assert_eq!(frame.message::<Forward>().unwrap(), samples::forward());
            let payload = frame.payload();
            assert_eq!(payload.as_ptr().align_offset(16), 0);
            let (read, rest) = payload.as_chunks::<4>();
            assert!(
                rest.is_empty() && read.iter().map(|v| f32::from_le_bytes(*v)).eq(values.clone())
            );
        }
        assert!(read_frame(&mut recv, &[Forward::KIND]).await.unwrap().is_none());
    };
    timeout(TIME, async { tokio::join!(writing, reading) }).await.unwrap();
}

/// A stream from the worker to the coordinator.
async fn stream(worker: &Connection, coordinator: &Connection) -> (SendStream, RecvStream) {
    let mut send = worker.open_uni().await.unwrap();
    // A stream exists for the peer once something was sent on it.
    write_frame(&mut send, EncodedFrame::new(&samples::drain()).unwrap()).await.unwrap();
    let mut recv = coordinator.accept_uni().await.unwrap();
    read_frame(&mut recv, &[Kind::Drain]).await.unwrap().unwrap();
    (send, recv)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_whole_in_any_pieces() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let (mut send, recv) = stream(&worker, &coordinator).await;
    let bytes = encode(&samples::heartbeat(), &[]).unwrap();
    let writing = tokio::spawn(async move {
        // Byte by byte, then two glued together, then a frame and one byte more.
        for byte in &bytes {
            send.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        send.write_all(&[&bytes[..], &bytes, &bytes, &[0]].concat()).await.unwrap();
        send.finish().unwrap();
        send.stopped().await.unwrap();
    });
    let mut reader = FrameReader::new(recv);
    let (mut frames, mut cancelled) = (0, 0);
    let error = loop {
        // Cancelled again and again; nothing may be lost.
        match timeout(Duration::from_millis(2), reader.read(&[Kind::Heartbeat])).await {
            Err(_) => cancelled += 1,
            Ok(Ok(frame)) => {
                let message: Heartbeat = frame.unwrap().message().unwrap();
                assert_eq!(message, samples::heartbeat());
                frames += 1;
            }
            Ok(Err(error)) => break error,
        }
    };
    assert_eq!((frames, error), (4, FrameError::Truncated { expected: 15, found: 0 }));
    assert!(cancelled > 0, "the reader was never cancelled");
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_end_between_frames_only() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let bytes = encode(&samples::forward(), &[7; 12]).unwrap();
    for len in 1..bytes.len() {
        let (mut send, mut recv) = stream(&worker, &coordinator).await;
        send.write_all(&bytes[..len]).await.unwrap();
        send.finish().unwrap();
        let error = read_frame(&mut recv, &Kind::ALL).await.unwrap_err();
        assert!(matches!(error, FrameError::Truncated { .. }), "{len}: {error}");
    }
    let (mut send, recv) = stream(&worker, &coordinator).await;
    send.write_all(&bytes).await.unwrap();
    send.reset(5u32.into()).unwrap();
    let mut reader = FrameReader::new(recv);
    // What came before the reset may be read or be lost; the end is never taken for a good one.
    let mut read = reader.read(&Kind::ALL).await;
    if matches!(read, Ok(Some(_))) {
        read = reader.read(&Kind::ALL).await;
    }
    assert!(matches!(read, Err(FrameError::Read(_))), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_drips_is_given_up() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let (mut send, mut recv) = stream(&worker, &coordinator).await;
    let bytes = encode(&samples::forward(), &[7; 12]).unwrap();
    let dripping = tokio::spawn(async move {
        for byte in bytes {
            if send.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let reading = timeout(STALL_TIME * 2, read_frame(&mut recv, &Kind::ALL)).await;
    assert_eq!(reading.unwrap().unwrap_err(), FrameError::ReadStalled(STALL_TIME.as_secs()));
    dripping.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_beyond_the_plan_are_refused_unread() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let (mut send, recv) = stream(&worker, &coordinator).await;
    let frame = EncodedFrame::with_payload(&samples::forward(), vec![0; 1025].into()).unwrap();
    write_frame(&mut send, frame).await.unwrap();
    let read = FrameReader::new(recv).read_limited(&[Kind::Forward], 1024).await;
    let expected = FrameError::PayloadLength { kind: Kind::Forward, found: 1025, max: 1024 };
    assert_eq!(read.unwrap_err(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_hold_every_forward_in_flight() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let (mut send, mut recv) = stream(&worker, &coordinator).await;
    // Three forwards of 8 MiB that nobody reads: more than a window without a plan.
    let window = forward_window(512, 4096, 3);
    assert!(window >= 3 * (8 << 20));
    set_window(&worker, window);
    let frame = EncodedFrame::with_payload(&samples::forward(), vec![1; 8 << 20].into()).unwrap();
    let mut writing = tokio::spawn(async move {
        for _ in 0..3 {
            write_frame(&mut send, frame.clone()).await.unwrap();
        }
        send.finish().unwrap();
        send.stopped().await.unwrap()
    });
    let early = timeout(Duration::from_secs(1), &mut writing).await;
    assert!(early.is_err(), "the window was open before the plan was known");
    set_window(&coordinator, window);
    timeout(TIME, writing).await.expect("all of it fits the window").unwrap();
    for _ in 0..3 {
        let frame = read_frame(&mut recv, &[Kind::Forward]).await.unwrap().unwrap();
        assert_eq!(frame.payload().len(), 8 << 20);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_is_given_up() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let (mut send, _recv) = stream(&worker, &coordinator).await;
    let payload = vec![1; LINK_WINDOW as usize];
    let frame = EncodedFrame::with_payload(&samples::forward(), payload.into()).unwrap();
    set_window(&worker, 4 * LINK_WINDOW);
    let writing = async {
        write_frame(&mut send, frame.clone()).await?;
        write_frame(&mut send, frame).await
    };
    let error = timeout(TIME, writing).await.unwrap().unwrap_err();
    assert_eq!(error, FrameError::WriteStalled(STALL_TIME.as_secs()));
}

/// Ten datagrams of 8,972 bytes are more than the system takes in one call: they were lost, and the
/// connection fell back to the smallest ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_go_out_in_the_largest_datagrams_and_none_is_too_long() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let payload = vec![7u8; 2 << 20];
    let frame = EncodedFrame::with_payload(&samples::forward(), payload.into()).unwrap();
    let writing = async {
        let mut send = worker.open_uni().await.unwrap();
        // Probes pass between frames, and each needs its answer.
        while worker.stats().path.current_mtu < DATAGRAM_MAX - 20 {
            let beat = EncodedFrame::new(&samples::heartbeat()).unwrap();
            write_frame(&mut send, beat).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for _ in 0..4 {
            write_frame(&mut send, frame.clone()).await.unwrap();
        }
        send.finish().unwrap();
        send.stopped().await.unwrap();
    };
    let reading = async {
        let mut recv = coordinator.accept_uni().await.unwrap();
        let mut bytes = 0;
        while let Some(frame) =
            read_frame(&mut recv, &[Forward::KIND, Heartbeat::KIND]).await.unwrap()
        {
            bytes += frame.payload().len();
        }
        bytes
    };
    let (_, bytes) = timeout(TIME, async { tokio::join!(writing, reading) }).await.unwrap();
    assert_eq!(bytes, 4 * (2 << 20));
    let path = worker.stats().path;
    assert_eq!(path.black_holes_detected, 0, "{path:?}");
    assert!(path.current_mtu >= DATAGRAM_MAX - 20, "{path:?}");
}
