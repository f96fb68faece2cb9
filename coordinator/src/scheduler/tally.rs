//! What the scheduler counts since the start of the program, for metrics. Nothing is decided by it.

/// Sums that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Sequences preempted.
    pub(super) preemptions: u64,
    /// Positions that were found in the prefix cache.
    pub(super) prefix_hit_tokens: u64,
    /// Prompt tokens of all requests.
    pub(super) prompt_tokens: u64,
    /// Requests that ran out of time.
    pub(super) expired: u64,
    /// Plans that were lost.
    pub(super) failovers: u64,
    /// Positions that had been computed under a plan that ended.
    pub(super) recomputed_tokens: u64,
    /// Answers to a plan that was over.
    pub(super) stale_answers: u64,
    /// Reports of stages that belong to nothing that is remembered.
    pub(super) unknown_timings: u64,
    /// Rows sent.
    pub(super) rows: u64,
    /// Bytes of the token masks that went with them: in an archive, equal ones of a microbatch once.
    pub(super) mask_bytes: u64,
}
