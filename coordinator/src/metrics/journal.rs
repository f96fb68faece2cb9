//! What is counted of the journal and of the streams that can be continued. All 0 without `--journal`.

use super::histogram::{describe, line};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters and gauges.
#[derive(Debug, Default)]
pub struct JournalCounts {
    /// Streams whose requests are in the journal.
    pub journalled: AtomicU64,
    /// Streams that are served without it: it was full, or could not be written.
    pub unjournalled: AtomicU64,
    /// Readers that came back to a stream.
    pub continued: AtomicU64,
    /// Streams that were begun again after a start.
    pub restored: AtomicU64,
    /// Requests in the journal that have not ended.
    pub requests: AtomicU64,
    /// Bytes of its file.
    pub bytes: AtomicU64,
    /// 1 while it cannot be written.
    pub failing: AtomicU64,
}

impl JournalCounts {
    pub(super) fn render(&self, out: &mut String) {
        let all = [
            ("streams_total", "counter", "Streams whose requests were written", &self.journalled),
            ("unjournalled_total", "counter", "Streams served without it", &self.unjournalled),
            ("continued_total", "counter", "Readers that came back to a stream", &self.continued),
            ("restored_total", "counter", "Streams begun again after a start", &self.restored),
            ("requests", "gauge", "Requests in it that have not ended", &self.requests),
            ("bytes", "gauge", "Bytes of its file", &self.bytes),
            ("failing", "gauge", "1 while it cannot be written", &self.failing),
        ];
        for (name, kind, help, value) in all {
            let name = format!("woolly_journal_{name}");
            describe(out, &name, kind, help);
            line(out, format_args!("{name} {}", value.load(Relaxed)));
        }
    }
}
