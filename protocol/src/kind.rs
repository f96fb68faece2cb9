//! The kinds of frames, their numbers on the wire and their limits.

use crate::limits::{
    CONTROL_ARCHIVE_MAX, FORWARD_ARCHIVE_MAX, FORWARD_PAYLOAD_MAX, JOIN_ARCHIVE_MAX,
    SAMPLED_ARCHIVE_MAX, SAMPLING_ARCHIVE_MAX, SLICE_ARCHIVE_MAX, SLICE_CHUNK,
};
use std::fmt;

/// What a frame holds. The number is the one on the wire and never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// [`Hello`](crate::control::Hello)
    Hello = 1,
    /// [`Welcome`](crate::control::Welcome)
    Welcome = 2,
    /// [`Assign`](crate::control::Assign)
    Assign = 3,
    /// [`Ready`](crate::control::Ready)
    Ready = 4,
    /// [`Heartbeat`](crate::control::Heartbeat)
    Heartbeat = 5,
    /// [`Release`](crate::control::Release)
    Release = 6,
    /// [`Drain`](crate::control::Drain)
    Drain = 7,
    /// [`FaultMessage`](crate::fault::FaultMessage)
    Fault = 8,
    /// [`StreamOpen`](crate::control::StreamOpen)
    StreamOpen = 9,
    /// [`Removed`](crate::join::Removed)
    Removed = 10,
    /// [`Forward`](crate::forward::Forward), with token ids or hidden states as payload
    Forward = 16,
    /// [`Sampling`](crate::sampling::Sampling)
    Sampling = 17,
    /// [`Sampled`](crate::sampling::Sampled)
    Sampled = 18,
    /// [`JoinRequest`](crate::join::JoinRequest)
    JoinRequest = 32,
    /// [`JoinAccepted`](crate::join::JoinAccepted)
    JoinAccepted = 33,
    /// [`RenewalRequest`](crate::join::RenewalRequest)
    RenewalRequest = 34,
    /// [`SliceManifestRequest`](crate::slices::SliceManifestRequest)
    SliceManifestRequest = 48,
    /// [`SliceManifest`](crate::slices::SliceManifest)
    SliceManifest = 49,
    /// [`SliceChunkRequest`](crate::slices::SliceChunkRequest)
    SliceChunkRequest = 50,
    /// [`SliceChunk`](crate::slices::SliceChunk), with the chunk's bytes as payload
    SliceChunk = 51,
}

impl Kind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Kind; 20] = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Assign,
        Kind::Ready,
        Kind::Heartbeat,
        Kind::Release,
        Kind::Drain,
        Kind::Fault,
        Kind::StreamOpen,
        Kind::Removed,
        Kind::Forward,
        Kind::Sampling,
        Kind::Sampled,
        Kind::JoinRequest,
        Kind::JoinAccepted,
        Kind::RenewalRequest,
        Kind::SliceManifestRequest,
        Kind::SliceManifest,
        Kind::SliceChunkRequest,
        Kind::SliceChunk,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The kind with this number; `None` if this version knows none.
    pub fn from_number(number: u16) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Bytes that the archive of such a frame has at most.
    pub const fn archive_max(self) -> usize {
        match self {
            Kind::Hello
            | Kind::Welcome
            | Kind::Assign
            | Kind::Ready
            | Kind::Heartbeat
            | Kind::Release
            | Kind::Drain
            | Kind::Fault
            | Kind::StreamOpen
            | Kind::Removed => CONTROL_ARCHIVE_MAX,
            Kind::Forward => FORWARD_ARCHIVE_MAX,
            Kind::Sampling => SAMPLING_ARCHIVE_MAX,
            Kind::Sampled => SAMPLED_ARCHIVE_MAX,
            Kind::JoinRequest | Kind::JoinAccepted | Kind::RenewalRequest => JOIN_ARCHIVE_MAX,
            Kind::SliceManifestRequest
            | Kind::SliceManifest
            | Kind::SliceChunkRequest
            | Kind::SliceChunk => SLICE_ARCHIVE_MAX,
        }
    }

    /// Bytes that the payload of such a frame has at most; 0 for kinds without one.
    pub const fn payload_max(self) -> usize {
        match self {
            Kind::Forward => FORWARD_PAYLOAD_MAX,
            Kind::SliceChunk => SLICE_CHUNK,
            _ => 0,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_names_one_kind() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
        }
        let known = (0..=u16::MAX).filter(|&n| Kind::from_number(n).is_some()).count();
        assert_eq!(known, Kind::ALL.len());
    }
}
