//! What failovers took: how long a loss went unseen, the search for a plan, the replay, and what clients saw.

use super::Metrics;
use super::histogram::{Histogram, describe};
use crate::status::Recovered;
use std::time::Duration;

/// Times of failovers.
#[derive(Debug, Default)]
pub(super) struct Failovers {
    detection: Histogram,
    search: Histogram,
    replay: Histogram,
    stall: Histogram,
}

impl Metrics {
    /// A plan was lost whose cause had shown no life for so long.
    pub fn lost(&self, silent: Duration) {
        self.failovers.detection.observe(silent);
    }

    /// Something of a failover is over.
    pub fn recovered(&self, recovered: Recovered) {
        match recovered {
            Recovered::Plan(time) => self.failovers.search.observe(time),
            Recovered::Replay { took, .. } => self.failovers.replay.observe(took),
            Recovered::Failover(_) => {}
            Recovered::Stream(time) => self.failovers.stall.observe(time),
        }
    }

    pub(super) fn render_failovers(&self, out: &mut String) {
        let Failovers { detection, search, replay, stall } = &self.failovers;
        let histograms = [
            ("failover_detection", "From the last sign of life to the end of a plan", detection),
            ("failover_search", "From the end of a plan to the next that is served", search),
            ("failover_replay", "From the start of a plan until all that computed went on", replay),
            ("stall", "From a stream's last token before a loss or hand-over to its next", stall),
        ];
        for (what, help, histogram) in histograms {
            let name = format!("woolly_{what}_seconds");
            describe(out, &name, "histogram", help);
            histogram.render(out, &name, "");
        }
    }
}
