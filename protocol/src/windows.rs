//! Flow-control windows.
//!
//! A window is what a peer may have sent and not yet been read; it is memory that the peer decides
//! about, so it starts small and grows with what the peer may do: [`UNKNOWN_WINDOW`] for anyone,
//! [`LINK_WINDOW`] for a member of the cluster, and [`forward_window`] once a plan says how large
//! its microbatches are and how many are in flight. The last one holds *all* of them, so that a
//! sender that blocks is a fault, never back-pressure. The receiver must have called [`set_window`]
//! before the first forward comes, so before it says `Ready`.

use crate::limits::{FORWARD_ARCHIVE_MAX, SLICE_CHUNK};
use quinn::{Connection, VarInt};

/// Bytes unread from a peer that has not shown a certificate.
pub const UNKNOWN_WINDOW: u32 = 256 << 10;
/// Bytes unread from a member of the cluster that has no part in a plan.
pub const LINK_WINDOW: u32 = 16 << 20;
/// Bytes unread from any peer, whatever the plan: 1 GiB.
pub const WINDOW_MAX: u32 = 1 << 30;
/// Bytes unread on a slices connection: a few chunks on their way.
pub const SLICES_WINDOW: u32 = 4 * SLICE_CHUNK as u32;

/// Bytes that all forwards in flight take on their way into one stage, at most [`WINDOW_MAX`].
pub fn forward_window(rows_max: u32, hidden: u32, in_flight_max: u32) -> u32 {
    let window = forward_bytes(rows_max, hidden).saturating_mul(in_flight_max.into());
    u32::try_from(window.max(LINK_WINDOW.into())).map_or(WINDOW_MAX, |bytes| bytes.min(WINDOW_MAX))
}

/// Forwards of so many rows that the largest window holds.
pub fn forwards_in_window(rows_max: u32, hidden: u32) -> u32 {
    let forwards = u64::from(WINDOW_MAX) / forward_bytes(rows_max, hidden);
    u32::try_from(forwards).unwrap_or(u32::MAX)
}

/// Bytes of a forward at most: its archive and hidden states of so many rows.
fn forward_bytes(rows_max: u32, hidden: u32) -> u64 {
    let values = u64::from(rows_max) * u64::from(hidden);
    values.saturating_mul(size_of::<f32>() as u64).saturating_add(FORWARD_ARCHIVE_MAX as u64)
}

/// Lets the peer send, and this side keep unacknowledged, that many bytes: both ends of a link call
/// it with the plan's [`forward_window`] before the first forward.
pub fn set_window(connection: &Connection, bytes: u32) {
    let bytes = bytes.min(WINDOW_MAX);
    connection.set_receive_window(VarInt::from_u32(bytes));
    connection.set_send_window(bytes.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_what_is_in_flight_and_are_bounded() {
        let archive = FORWARD_ARCHIVE_MAX as u32;
        assert_eq!(forward_window(512, 4096, 3), 3 * (512 * 4096 * 4 + archive));
        assert_eq!(forward_window(1, 64, 1), LINK_WINDOW);
        assert_eq!(forward_window(u32::MAX, u32::MAX, u32::MAX), WINDOW_MAX);
        assert_eq!(forwards_in_window(u32::MAX, u32::MAX), 0);
        for (rows, hidden) in [(1, 64), (256, 4096), (2048, 16_384)] {
            let most = forwards_in_window(rows, hidden);
            assert!(forward_window(rows, hidden, most) <= WINDOW_MAX);
            assert!(u64::from(most + 1) * forward_bytes(rows, hidden) > u64::from(WINDOW_MAX));
        }
    }
}
