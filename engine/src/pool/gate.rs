//! The gate of a region: helpers come in while it is open, and who closed it waits only for those who did.
//!
//! A helper whose processor the system gave to somebody else does not come; the others do its units, and
//! nobody waits for it.

use std::sync::atomic::{AtomicU64, Ordering};

/// One helper inside, in the state's lowest bits.
const ONE: u64 = 1;
/// Nobody comes in any more.
const CLOSED: u64 = 1 << 15;
/// One region, in the bits above.
const REGION: u64 = 1 << 16;

/// Helpers that a gate can count.
pub const HELPERS_MAX: usize = CLOSED as usize - 1;

/// On a cache line of its own: helpers look at it while they wait.
#[repr(align(128))]
#[derive(Debug)]
pub struct Gate(AtomicU64);

/// A region that somebody was in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u64);

impl Gate {
    /// The gate before the first region.
    pub fn new() -> Gate {
        Gate(AtomicU64::new(CLOSED))
    }

    /// Lets helpers in to a new region. What was written before is seen by those who come in.
    pub fn open(&self) {
        let state = self.0.load(Ordering::Relaxed);
        debug_assert!(state & CLOSED != 0, "the region before is over");
        self.0.store((state & !(REGION - 1)).wrapping_add(REGION), Ordering::SeqCst);
    }

    /// Ends the coming in; how many are inside.
    pub fn close(&self) -> usize {
        let inside = self.0.fetch_or(CLOSED, Ordering::AcqRel) & (CLOSED - 1);
        usize::try_from(inside).expect("at most HELPERS_MAX")
    }

    /// Whether a region is open in which who was last in `seen` has not been.
    pub fn is_open(&self, seen: Seen) -> bool {
        let state = self.0.load(Ordering::SeqCst);
        state & CLOSED == 0 && state / REGION != seen.0
    }

    /// Comes in to a region in which who was last in `seen` has not been, if one is open; which it is.
    pub fn enter(&self, seen: Seen) -> Option<Seen> {
        let mut state = self.0.load(Ordering::Acquire);
        while state & CLOSED == 0 && state / REGION != seen.0 {
            let inside = state + ONE;
            match self.0.compare_exchange_weak(state, inside, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Seen(state / REGION)),
                Err(found) => state = found,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_come_in_once_while_it_is_open() {
        let gate = Gate::new();
        let nothing = Seen::default();
        assert!(!gate.is_open(nothing));
        assert_eq!(gate.enter(nothing), None);
        gate.open();
        assert!(gate.is_open(nothing));
        let first = gate.enter(nothing).unwrap();
        assert_eq!(gate.enter(first), None);
        assert!(!gate.is_open(first));
        assert_eq!(gate.enter(nothing), Some(first));
        assert_eq!(gate.close(), 2);
        assert_eq!(gate.enter(nothing), None);
        gate.open();
        assert!(gate.is_open(first), "the next region is another");
        assert_eq!(gate.close(), 0, "nobody came");
    }
}
