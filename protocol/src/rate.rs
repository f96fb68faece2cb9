//! How many control frames a peer may send: enough for any honest one, too few to cost anything.

use crate::frame::FrameError;
use crate::refusal::{Refusal, RefusalCode};
use std::time::{Duration, Instant};

/// Frames that may come at once: what a peer sends in some seconds may arrive together.
const BURST: u32 = 1000;
/// The time that one frame costs: 200 in a second. A heartbeat comes twice in a second, and more
/// often only from a busy stage that has many timings to tell.
const COST: Duration = Duration::from_millis(5);

/// Counts the control frames of one link.
#[derive(Debug, Default)]
pub struct FrameRate {
    /// When all frames so far will be paid for.
    paid_at: Option<Instant>,
}

impl FrameRate {
    /// Counts a frame that came at `now`.
    ///
    /// # Errors
    ///
    /// [`RefusalCode::Busy`] if too many came: the link is to be closed with it.
    pub fn count(&mut self, now: Instant) -> Result<(), FrameError> {
        let paid_at = self.paid_at.map_or(now, |at| at.max(now)) + COST;
        self.paid_at = Some(paid_at);
        if paid_at - now <= COST * BURST {
            return Ok(());
        }
        let per_second = 1000 / COST.as_millis();
        let text = format!(
            "too many control messages: expected at most {BURST} at once and {per_second} in a second"
        );
        Err(FrameError::Refused(Refusal::new(RefusalCode::Busy, &text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `frames`, one each `gap`, come before the link is closed.
    fn taken(frames: u32, gap: Duration) -> u32 {
        let (mut rate, start) = (FrameRate::default(), Instant::now());
        (0..frames).take_while(|frame| rate.count(start + gap * *frame).is_ok()).count() as u32
    }

    #[test]
    fn w28_a_flood_of_heartbeats_closes_the_link() {
        // 258,000 in a second, as it was seen.
        assert!(taken(258_000, Duration::from_nanos(3876)) < 2 * BURST);
        assert_eq!(taken(BURST + 1, Duration::ZERO), BURST);
    }

    #[test]
    fn an_honest_peer_is_never_cut_off() {
        assert_eq!(taken(100_000, Duration::from_millis(500)), 100_000);
        assert_eq!(taken(100_000, COST), 100_000);
    }

    #[test]
    fn what_was_late_may_come_at_once() {
        let (mut rate, start) = (FrameRate::default(), Instant::now());
        for round in 0..3 {
            let now = start + Duration::from_secs(10) * round;
            assert!((0..BURST).all(|_| rate.count(now).is_ok()), "round {round}");
        }
    }
}
