//! The ways of the requests that ended last, stage by stage: `GET /admin/v1/requests`. Bounded: [`WAYS_MAX`], the oldest go first.

use super::Metrics;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Mutex;

/// Requests whose ways are kept.
pub const WAYS_MAX: usize = 64;

/// What became of a request, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    /// When its last reports had come, in milliseconds since 1970.
    pub at_ms: u64,
    /// The model that it asked.
    pub model: String,
    /// Its trace, in hex.
    pub trace: String,
    /// Its span, in hex.
    pub span: String,
    /// The caller's span, in hex; left out if it named none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// From its acceptance to its end.
    pub took_ms: u64,
    /// Until its first rows were sent.
    pub waited_ms: u64,
    /// In the order of plans and their stages.
    pub stages: Vec<WayStage>,
}

/// A stage of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WayStage {
    /// The plan.
    pub plan: u32,
    /// The stage's number in it.
    pub stage: usize,
    /// Its worker's id in hex.
    pub worker_id: String,
    /// The stage's span, in hex, as the worker's log has it.
    pub span: String,
    /// Forwards that had rows of it.
    pub forwards: u64,
    /// How long they waited for the compute thread, in microseconds.
    pub queue_us: u64,
    /// How long they were computed.
    pub compute_us: u64,
    /// How long until their results were handed to the connection.
    pub wire_us: u64,
}

/// The last ways.
#[derive(Debug, Default)]
pub(super) struct Ways(Mutex<VecDeque<Way>>);

impl Metrics {
    /// A request has gone its way.
    pub fn way(&self, way: Way) {
        let mut ways = self.ways.0.lock().expect("no one panics with the lock held");
        ways.truncate(WAYS_MAX - 1);
        ways.push_front(way);
    }

    /// The last ways, the newest first.
    pub fn ways(&self) -> Vec<Way> {
        let ways = self.ways.0.lock().expect("no one panics with the lock held");
        ways.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let metrics = Metrics::default();
        for at_ms in 0..WAYS_MAX as u64 + 5 {
            metrics.way(Way {
                at_ms,
                model: "m".to_owned(),
                trace: String::new(),
                span: String::new(),
                parent: None,
                took_ms: 1,
                waited_ms: 0,
                stages: Vec::new(),
            });
        }
        let kept: Vec<u64> = metrics.ways().iter().map(|way| way.at_ms).collect();
        let expected: Vec<u64> = (5..WAYS_MAX as u64 + 5).rev().collect();
        assert_eq!(kept, expected);
    }
}
