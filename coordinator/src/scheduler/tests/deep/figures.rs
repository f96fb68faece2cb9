//! What came of a load: the figures that a scenario's line shows.

use super::super::flow::Flow;
use std::fmt;
use woolly_protocol::ids::SequenceId;

/// Times in seconds, sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Vec<f64>);

impl Times {
    pub(super) fn new(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// The time that so many percent do not exceed; infinite if there are none.
    fn percentile(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or(f64::INFINITY)
    }

    pub(super) fn p50(&self) -> f64 {
        self.percentile(50)
    }

    pub(super) fn p99(&self) -> f64 {
        self.percentile(99)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "            -");
        }
        write!(f, "{:6.2}/{:6.2}", self.p50(), self.p99())
    }
}

/// What a load showed.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// Rows per second of what the load is about: tokens decoded, or of prompts.
    pub(super) tokens_per_s: f64,
    /// The part of the best possible.
    pub(super) share: f64,
    pub(super) ttft: Times,
    pub(super) itl: Times,
    /// The p99 of the gaps of streams beside which the load is, over their median before it; `None` if
    /// there are none.
    pub(super) times_quiet: Option<f64>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens_per_s, share, ttft, itl, times_quiet } = self;
        write!(f, "{tokens_per_s:7.1} tokens/s {share:5.2} | TTFT {ttft} s | ITL {itl} s")?;
        times_quiet.map_or(Ok(()), |times| write!(f, ", {times:.1} times the quiet one"))
    }
}

/// Times to the first tokens of these sequences; those that have none are left out.
pub(super) fn ttft(flow: &Flow, of: &[SequenceId]) -> Times {
    let first = |id: &SequenceId| Some(flow.tokens.get(id)?.first()? - flow.submitted[id].0);
    Times::new(of.iter().filter_map(first).collect())
}

/// Gaps of these sequences that ended between two times.
pub(super) fn itl(flow: &Flow, of: &[SequenceId], from: f64, to: f64) -> Times {
    let known = of.iter().filter(|id| flow.tokens.contains_key(id));
    Times::new(known.flat_map(|id| flow.gaps(*id, from, to)).collect())
}
