//! Which slice is wanted, and how long it may be.

use woolly_protocol::slices::SliceKey;

/// A slice that a stage needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The model's fingerprint.
    pub fingerprint: [u8; 32],
    /// Which slice of it.
    pub slice: SliceKey,
    /// How long it may be.
    pub length: Length,
}

/// How long a slice may be: what the assignment says, whatever a peer claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// The model's header gives the length in bytes.
    Exactly(u64),
    /// A header's own length is not known before it is read.
    AtMost(u64),
}
