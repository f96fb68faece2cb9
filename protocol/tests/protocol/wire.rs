//! Literal bytes of every message, and every way to damage them.

use crate::pins::*;
use crate::samples;
use proptest::prelude::*;
use std::fmt::Debug;
use woolly_protocol::frame::{EncodedFrame, Frame, FrameError, HEADER_LEN, Message, encode};
use woolly_protocol::kind::Kind;
use woolly_protocol::limits::{CONTROL_ARCHIVE_MAX, FORWARD_PAYLOAD_MAX};
use woolly_protocol::{control, fault, forward, join, sampling, slices};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes must be these, must give the message back, and no damage may go further than a valid
/// message.
fn check_wire<M: Message + PartialEq + Debug>(message: &M, payload: &[u8], literal: &str) {
    let bytes = encode(message, payload).unwrap();
    assert_eq!(hex(&bytes), literal, "{}: the bytes on the wire have changed", M::KIND);
    let (frame, used) = Frame::decode(&bytes, &[M::KIND]).unwrap();
    assert_eq!((frame.kind(), used, frame.payload()), (M::KIND, bytes.len(), payload));
    let read = frame.message::<M>().unwrap();
    assert_eq!(format!("{read:?}"), format!("{message:?}"));
    assert_eq!(encode(&read, payload).unwrap(), bytes);
    every_truncation(&bytes);
    every_flipped_bit(&bytes);
}

fn every_truncation(bytes: &[u8]) {
    for len in 0..bytes.len() {
        let error = Frame::decode(&bytes[..len], &Kind::ALL).unwrap_err();
        assert!(matches!(error, FrameError::Truncated { .. }), "{len}: {error}");
    }
    // A frame that follows is no part of this one.
    let two = [bytes, bytes].concat();
    assert_eq!(Frame::decode(&two, &Kind::ALL).unwrap().1, bytes.len());
}

fn every_flipped_bit(bytes: &[u8]) {
    let mut damaged = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok((frame, used)) = Frame::decode(&damaged, &Kind::ALL) {
            assert!(used <= damaged.len());
            read_any(&frame);
        }
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Reads whatever the kind says; what is valid must also be sendable.
fn read_any(frame: &Frame) -> bool {
    fn read<M: Message>(frame: &Frame) -> bool {
        let Ok(message) = frame.message::<M>() else { return false };
        EncodedFrame::new(&message).unwrap();
        true
    }
    match frame.kind() {
        Kind::Hello => read::<control::Hello>(frame),
        Kind::Welcome => read::<control::Welcome>(frame),
        Kind::Assign => read::<control::Assign>(frame),
        Kind::Ready => read::<control::Ready>(frame),
        Kind::Heartbeat => read::<control::Heartbeat>(frame),
        Kind::Release => read::<control::Release>(frame),
        Kind::Drain => read::<control::Drain>(frame),
        Kind::Fault => read::<fault::FaultMessage>(frame),
        Kind::StreamOpen => read::<control::StreamOpen>(frame),
        Kind::Forward => read::<forward::Forward>(frame),
        Kind::Sampling => read::<sampling::Sampling>(frame),
        Kind::Sampled => read::<sampling::Sampled>(frame),
        Kind::JoinRequest => read::<join::JoinRequest>(frame),
        Kind::JoinAccepted => read::<join::JoinAccepted>(frame),
        Kind::RenewalRequest => read::<join::RenewalRequest>(frame),
        Kind::Removed => read::<join::Removed>(frame),
        Kind::SliceManifestRequest => read::<slices::SliceManifestRequest>(frame),
        Kind::SliceManifest => read::<slices::SliceManifest>(frame),
        Kind::SliceChunkRequest => read::<slices::SliceChunkRequest>(frame),
        Kind::SliceChunk => read::<slices::SliceChunk>(frame),
    }
}

#[test]
fn control_messages() {
    check_wire(&samples::hello(), &[], HELLO);
    check_wire(&samples::welcome(), &[], WELCOME);
    check_wire(&samples::assign(), &[], ASSIGN);
    check_wire(&samples::ready(), &[], READY);
    check_wire(&samples::heartbeat(), &[], HEARTBEAT);
    check_wire(&samples::release(), &[], RELEASE);
    check_wire(&samples::drain(), &[], DRAIN);
    check_wire(&samples::fault(), &[], FAULT);
    check_wire(&samples::stream_open(), &[], STREAM_OPEN);
}

#[test]
fn microbatch_messages() {
    check_wire(&samples::forward(), &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0], FORWARD);
    check_wire(&samples::sampling(), &[], SAMPLING);
    check_wire(&samples::sampled(), &[], SAMPLED);
}

#[test]
fn join_and_slice_messages() {
    check_wire(&samples::join_request(), &[], JOIN_REQUEST);
    check_wire(&samples::join_accepted(), &[], JOIN_ACCEPTED);
    check_wire(&samples::renewal_request(), &[], RENEWAL_REQUEST);
    check_wire(&samples::removed(), &[], REMOVED);
    check_wire(&samples::slice_manifest_request(), &[], SLICE_MANIFEST_REQUEST);
    check_wire(&samples::slice_manifest(), &[], SLICE_MANIFEST);
    check_wire(&samples::slice_chunk_request(), &[], SLICE_CHUNK_REQUEST);
    check_wire(&samples::slice_chunk(), &[0xaa, 0xbb], SLICE_CHUNK);
}

fn decode_error(bytes: &[u8], accept: &[Kind]) -> FrameError {
    Frame::decode(bytes, accept).unwrap_err()
}

#[test]
fn headers_are_held_against_limits_before_anything_follows() {
    let good = encode(&samples::heartbeat(), &[]).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut head = good[..HEADER_LEN].to_vec();
        head[at..at + bytes.len()].copy_from_slice(bytes);
        decode_error(&head, &Kind::ALL)
    };
    let (kind, max) = (Kind::Heartbeat, CONTROL_ARCHIVE_MAX);
    for found in [0, max + 1, 0x1234_5678, u32::MAX as usize] {
        let length = u32::try_from(found).unwrap().to_le_bytes();
        assert_eq!(with(0, &length), FrameError::ArchiveLength { kind, found, max });
    }
    assert_eq!(with(4, &[0xff, 0xff]), FrameError::UnknownKind(0xffff));
    assert_eq!(with(4, &[0, 0]), FrameError::UnknownKind(0));
    assert_eq!(with(6, &[1]), FrameError::NotZero(kind));
    assert_eq!(with(15, &[1]), FrameError::NotZero(kind));
    assert_eq!(with(8, &[1]), FrameError::PayloadLength { kind, found: 1, max: 0 });
    let mut head = with_payload_len(&samples::forward(), FORWARD_PAYLOAD_MAX + 1);
    assert!(matches!(decode_error(&head, &Kind::ALL), FrameError::PayloadLength { .. }));
    head = with_payload_len(&samples::forward(), FORWARD_PAYLOAD_MAX);
    assert!(matches!(decode_error(&head, &Kind::ALL), FrameError::Truncated { .. }));
}

fn with_payload_len<M: Message>(message: &M, len: usize) -> Vec<u8> {
    let mut bytes = encode(message, &[]).unwrap();
    bytes[8..12].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
    bytes
}

#[test]
fn kinds_that_have_no_place_here_are_refused() {
    let bytes = encode(&samples::heartbeat(), &[]).unwrap();
    let error = decode_error(&bytes, &[Kind::Hello, Kind::Drain]);
    let expected = "Hello or Drain".to_owned();
    assert_eq!(error, FrameError::UnexpectedKind { expected, found: Kind::Heartbeat });
    let (frame, _) = Frame::decode(&bytes, &[Kind::Heartbeat]).unwrap();
    let error = frame.message::<control::Hello>().unwrap_err();
    assert!(matches!(error, FrameError::UnexpectedKind { .. }), "{error}");
}

#[test]
fn padding_must_be_zero() {
    let mut bytes = encode(&samples::release(), &[]).unwrap();
    assert_eq!(bytes.len(), HEADER_LEN + 16);
    *bytes.last_mut().unwrap() = 1;
    assert_eq!(decode_error(&bytes, &Kind::ALL), FrameError::NotZero(Kind::Release));
}

#[test]
fn what_the_peer_would_refuse_is_not_sent() {
    let mut drain = samples::drain();
    drain.reason = "x".repeat(5000);
    assert!(matches!(EncodedFrame::new(&drain), Err(FrameError::Message(_))));
    let error = encode(&samples::heartbeat(), &[1]).unwrap_err();
    assert!(matches!(error, FrameError::PayloadLength { found: 1, max: 0, .. }), "{error}");
    let mut assign = samples::assign();
    assign.source.parts[0].path = "p".repeat(4000);
    assign.source.parts = vec![assign.source.parts[0].clone(); 20];
    let error = EncodedFrame::new(&assign).unwrap_err();
    assert!(matches!(error, FrameError::ArchiveLength { .. }), "{error}");
}

#[test]
fn payloads_are_aligned_in_place() {
    let values: Vec<u8> = [1.5f32, -2.0, 3.25].iter().flat_map(|v| v.to_le_bytes()).collect();
    let bytes = encode(&samples::forward(), &values).unwrap();
    // The frame itself at an odd address.
    let odd = [&[0xff][..], &bytes].concat();
    let (frame, _) = Frame::decode(&odd[1..], &[Kind::Forward]).unwrap();
    frame.message::<forward::Forward>().unwrap();
    let payload = frame.payload();
    assert_eq!(payload.as_ptr().align_offset(16), 0);
    assert_eq!(payload, values);
    // What a stage sends on is what it would be if it were encoded anew.
    let onward = frame.with_payload(vec![7; 32].into()).unwrap();
    assert_eq!(onward.to_vec(), encode(&samples::forward(), &[7; 32]).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Archives of random bytes, and real ones with several bytes changed.
    #[test]
    fn no_archive_makes_the_reader_panic(
        kind in 0..Kind::ALL.len(),
        mut archive in prop::collection::vec(any::<u8>(), 1..300),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let kind = Kind::ALL[kind];
        let read = |archive: &[u8], kind: Kind| {
            let mut bytes = u32::try_from(archive.len()).unwrap().to_le_bytes().to_vec();
            bytes.extend(kind.number().to_le_bytes());
            bytes.resize(HEADER_LEN, 0);
            bytes.extend(archive);
            bytes.resize(HEADER_LEN + archive.len().next_multiple_of(16), 0);
            read_any(&Frame::decode(&bytes, &[kind]).unwrap().0)
        };
        read(&archive, kind);
        for text in [SAMPLING, ASSIGN, FORWARD] {
            let bytes: Vec<u8> = (0..text.len() / 2)
                .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            let len = usize::from(bytes[0]) | usize::from(bytes[1]) << 8;
            archive = bytes[HEADER_LEN..HEADER_LEN + len].to_vec();
            let kind = Kind::from_number(u16::from(bytes[4])).unwrap();
            prop_assert!(read(&archive, kind));
            for (at, value) in &changes {
                let at = at.index(archive.len());
                archive[at] = *value;
            }
            read(&archive, kind);
        }
    }
}
