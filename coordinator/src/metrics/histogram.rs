//! A histogram of times with fixed buckets, and its text for Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds: 1, 2, 5 in every power of ten, from what a tiny stage
/// needs for a row to what a large one needs for a prefill. A last bucket has no bound.
pub const BOUNDS_US: [u64; 21] = [
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
];

/// Buckets: one below each bound, and the last.
pub const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Counts of times by length. Counting is one addition per time, from any thread.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Times of each bucket alone; the last has no bound.
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one time.
    pub fn observe(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// How many times each bucket has alone.
    pub fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|at| self.counts[at].load(Relaxed))
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Relaxed))
    }

    /// Appends the lines of the metric `name` with `labels` (`a="b"`, or nothing), without its `TYPE`.
    pub fn render(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        let bounds = BOUNDS_US.iter().map(|us| seconds(Duration::from_micros(*us)));
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&self.counts) {
            below += count.load(Relaxed);
            line(out, format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}"));
        }
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        line(out, format_args!("{name}_sum{braces} {}", seconds(self.sum())));
        // Of the buckets that were just written, so that both agree whatever is counted meanwhile.
        line(out, format_args!("{name}_count{braces} {below}"));
    }
}

/// Appends what a metric is, before its lines.
pub fn describe(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}.\n# TYPE {name} {kind}"));
}

/// A label's value: backslashes, quotes and line ends are escaped.
pub fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Seconds with as many digits as a microsecond needs.
pub fn seconds(time: Duration) -> String {
    let text = format!("{}.{:06}", time.as_secs(), time.subsec_micros());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Appends one line.
pub fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_that_holds_them() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 1_000, 200_000_000, 200_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let counts: Vec<u64> = histogram.counts.iter().map(|count| count.load(Relaxed)).collect();
        assert_eq!(counts[..6], [2, 1, 0, 0, 1, 0]);
        assert_eq!(counts[20..], [1, 1]);
        assert_eq!((histogram.count(), histogram.sum().as_micros()), (6, 400_001_102));
    }

    #[test]
    fn buckets_are_written_as_sums_of_all_below() {
        let histogram = Histogram::default();
        for us in [70, 1_500, 1_600, u64::MAX / 4] {
            histogram.observe(Duration::from_micros(us));
        }
        let mut text = String::new();
        histogram.render(&mut text, "t_seconds", "stage=\"3\"");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), BOUNDS_US.len() + 3);
        assert_eq!(lines[0], "t_seconds_bucket{stage=\"3\",le=\"0.00005\"} 0");
        assert_eq!(lines[1], "t_seconds_bucket{stage=\"3\",le=\"0.0001\"} 1");
        assert_eq!(lines[5], "t_seconds_bucket{stage=\"3\",le=\"0.002\"} 3");
        assert_eq!(lines[20], "t_seconds_bucket{stage=\"3\",le=\"200\"} 3");
        assert_eq!(lines[21], "t_seconds_bucket{stage=\"3\",le=\"+Inf\"} 4");
        assert_eq!(lines[23], "t_seconds_count{stage=\"3\"} 4");
        text.clear();
        Histogram::default().render(&mut text, "t", "");
        assert!(text.starts_with("t_bucket{le=\"0.00005\"} 0\n"), "{text}");
        assert!(text.ends_with("t_sum 0\nt_count 0\n"), "{text}");
    }
}
