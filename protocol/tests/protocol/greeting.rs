//! Preambles and refusals: their bytes, and who is told what.

use crate::quic::{Cluster, TIME};
use quinn::VarInt;
use tokio::time::timeout;
use woolly_protocol::PROTOCOL;
use woolly_protocol::control::Welcome;
use woolly_protocol::frame::{FrameError, Message};
use woolly_protocol::frame_io::read_frame;
use woolly_protocol::preamble::{Preamble, answer_greeting, greet, refuse};
use woolly_protocol::refusal::{Refusal, RefusalCode};

#[test]
fn a_preamble_is_32_fixed_bytes() {
    let ours = Preamble::ours(0x0403_0201);
    let bytes = ours.to_bytes();
    assert_eq!(&bytes[..8], b"WOOLLY\0\x01");
    assert_eq!(bytes[8..20], [7, 0, 0, 0, 7, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(bytes[20..], [0; 12]);
    assert_eq!(Preamble::from_bytes(&bytes), Ok(ours));
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        let fits = Preamble::from_bytes(&damaged).and_then(|theirs| ours.check(&theirs));
        // Only the oldest version spoken is of no importance while versions must be equal.
        assert_eq!(fits.is_ok(), (12..16).contains(&(bit / 8)), "bit {bit}");
    }
}

#[test]
fn versions_are_named_on_both_sides() {
    let ours = Preamble::ours(7);
    for protocol in [0, 1, 2, 3, 4, 5, 6, 8, u32::MAX] {
        // A later version may use what is reserved now.
        let mut bytes = Preamble { protocol, ..ours }.to_bytes();
        bytes[31] = 1;
        let refusal = ours.check(&Preamble::from_bytes(&bytes).unwrap()).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Protocol);
        let named = format!("protocol {PROTOCOL}, its peer protocol {protocol}:");
        assert!(refusal.text.contains(&named), "{refusal}");
    }
    let refusal = ours.check(&Preamble::ours(8)).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Numerics);
    assert!(refusal.text.contains("numerics 7, its peer by numerics 8"), "{refusal}");
}

#[test]
fn a_refusal_has_a_fixed_layout() {
    let bytes = Refusal::new(RefusalCode::NameTaken, "no\n").to_bytes();
    assert_eq!(bytes, b"WOOLLY\0\x02\x08\0\0\0\x03\0\0\0no ");
    for number in 0..40 {
        assert_eq!(RefusalCode::from_number(number).number(), number);
    }
    let long = Refusal::new(RefusalCode::Internal, &"x".repeat(10_000));
    assert_eq!(long.to_bytes().len(), 16 + 4096);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_learn_of_another_version() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let ours = Preamble::ours(1);
    let later = PROTOCOL + 1;
    let newer = Preamble { protocol: later, ..ours };
    let (theirs, told) = tokio::join!(greet(&worker, &newer), answer_greeting(&coordinator, &ours));
    for (side, mine, other) in
        [(theirs.unwrap_err(), later, PROTOCOL), (told.unwrap_err(), PROTOCOL, later)]
    {
        let FrameError::Refused(refusal) = side else { panic!("{side}") };
        assert_eq!(refusal.code, RefusalCode::Protocol);
        let named = format!("protocol {mine}, its peer protocol {other}:");
        assert!(refusal.text.contains(&named), "{refusal}");
    }
    // The connection is closed with the same code.
    let closed = timeout(TIME, worker.closed()).await.unwrap();
    let refusal = Refusal::from_connection(&closed).unwrap();
    assert_eq!(refusal.code, RefusalCode::Protocol);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_takes_the_place_of_a_frame() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let ours = Preamble::ours(1);
    let refusing = async {
        let (mut send, _recv) = answer_greeting(&coordinator, &ours).await.unwrap();
        let refusal = Refusal::new(RefusalCode::NameTaken, "the name node is taken: use --name");
        refuse(&coordinator, &mut send, &refusal).await;
    };
    let asking = async {
        let (_send, mut recv) = greet(&worker, &ours).await.unwrap();
        read_frame(&mut recv, &[Welcome::KIND]).await.unwrap_err()
    };
    let (error, ()) = tokio::join!(asking, refusing);
    let FrameError::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.code, RefusalCode::NameTaken);
    assert_eq!(refusal.text, "the name node is taken: use --name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strange_first_bytes_are_refused() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let strange = async {
        let (mut send, _recv) = worker.open_bi().await.unwrap();
        send.write_all(b"GET / HTTP/1.1\r\nHost: woolly\r\n\r\n..").await.unwrap();
        worker.closed().await
    };
    let ours = Preamble::ours(1);
    let (closed, answered) = tokio::join!(strange, answer_greeting(&coordinator, &ours));
    let FrameError::Refused(refusal) = answered.unwrap_err() else { panic!("not refused") };
    assert_eq!(refusal.code, RefusalCode::Malformed);
    assert_eq!(Refusal::from_connection(&closed).unwrap(), refusal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_not_a_greeting() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let (mut send, _recv) = worker.open_bi().await.unwrap();
    send.write_all(&Preamble::ours(1).to_bytes()[..31]).await.unwrap();
    let silent = timeout(TIME, answer_greeting(&coordinator, &Preamble::ours(1))).await.unwrap();
    assert_eq!(silent.unwrap_err(), FrameError::ReadStalled(5));
    coordinator.close(VarInt::from_u32(0), b"");
    // A normal end is no refusal.
    assert_eq!(Refusal::from_connection(&worker.closed().await), None);
}
