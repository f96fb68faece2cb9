//! What the worker counts: the heartbeat and `--metrics` report it, and nothing decides by it here.

use crate::stage::timings::Times;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counters shared by the compute thread, the links and the session. None orders memory.
#[derive(Debug, Default)]
pub struct Counters {
    /// Advances with every layer computed.
    pub progress: AtomicU64,
    /// Bytes of the load in work that are done: hashed, fetched, populated. It only grows, so that
    /// it can be added to `progress`; `load_base` says where the present load began.
    pub loaded: AtomicU64,
    /// `loaded` at the start of the load in work.
    pub load_base: AtomicU64,
    /// Bytes of the load in work; 0 when there is none.
    pub load_total: AtomicU64,
    /// The microbatch in work; 0 if none.
    pub microbatch: AtomicU64,
    /// Forwards computed.
    pub forwards: AtomicU64,
    /// Rows of them.
    pub rows: AtomicU64,
    /// Microseconds inside forwards.
    pub compute_us: AtomicU64,
    /// CPU time of the compute thread in them.
    pub cpu_us: AtomicU64,
    /// Microseconds that the compute thread had waited for them.
    pub wait_us: AtomicU64,
    /// 1 while the coordinator has welcomed this worker.
    pub connected: AtomicU64,
    /// Plans that ended with a fault of this worker.
    pub failed: AtomicU64,
    /// Mappings of slices made.
    pub mappings: AtomicU64,
    /// Bytes of weights read in.
    pub populated: AtomicU64,
    /// Chunks of stored slices that were not what they had been.
    pub damaged_chunks: AtomicU64,
}

impl Counters {
    /// A load of `bytes` begins: `loaded` counts towards it from here.
    pub fn begin_load(&self, bytes: u64) {
        self.load_base.store(self.loaded.load(Relaxed), Relaxed);
        self.load_total.store(bytes, Relaxed);
    }

    /// More to do than was known at the start of the load.
    pub fn extend_load(&self, bytes: u64) {
        self.load_total.fetch_add(bytes, Relaxed);
    }

    /// A forward was computed.
    pub fn computed(&self, rows: u64, times: &Times) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.forwards.fetch_add(1, Relaxed);
        self.rows.fetch_add(rows, Relaxed);
        self.compute_us.fetch_add(us(times.compute), Relaxed);
        self.cpu_us.fetch_add(us(times.cpu), Relaxed);
        self.wait_us.fetch_add(us(times.wait), Relaxed);
    }

    /// The load is over, well or not.
    pub fn end_load(&self) {
        self.load_total.store(0, Relaxed);
    }

    /// Bytes done and bytes in all of the load in work; zeros when there is none.
    pub fn load(&self) -> (u64, u64) {
        match self.load_total.load(Relaxed) {
            0 => (0, 0),
            total => {
                let base = self.load_base.load(Relaxed);
                let done = self.loaded.load(Relaxed).saturating_sub(base);
                (done.min(total), total)
            }
        }
    }

    /// A number that moves whenever this worker gets anything done.
    pub fn pulse(&self) -> u64 {
        self.progress.load(Relaxed).wrapping_add(self.loaded.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_counts_from_its_own_start_and_the_pulse_never_falls() {
        let counters = Counters::default();
        counters.loaded.fetch_add(70, Relaxed);
        assert_eq!(counters.load(), (0, 0));
        counters.begin_load(100);
        counters.loaded.fetch_add(30, Relaxed);
        assert_eq!(counters.load(), (30, 100));
        counters.extend_load(50);
        counters.loaded.fetch_add(900, Relaxed);
        assert_eq!(counters.load(), (150, 150));
        let before = counters.pulse();
        counters.end_load();
        counters.begin_load(10);
        assert_eq!(counters.pulse(), before);
        assert_eq!(counters.load(), (0, 10));
    }
}
