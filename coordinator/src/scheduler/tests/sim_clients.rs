//! Clients of the simulated pipeline, and how what they were told is judged.

use super::toy;
use crate::generation::{Failure, GenerationEvent, GenerationRequest, Refusal};
use woolly_protocol::ids::SequenceId;

/// A request and what became of it.
pub(super) struct Client {
    pub(super) request: GenerationRequest,
    pub(super) id: Option<SequenceId>,
    pub(super) refusal: Option<Refusal>,
    pub(super) cancelled: bool,
    /// Of the plan when it arrived.
    pub(super) positions_max: usize,
    pub(super) events: Vec<GenerationEvent>,
}

/// What a set of histories has met, to know that they meet everything.
#[derive(Default)]
pub(super) struct Met {
    pub(super) preemptions: u64,
    pub(super) stale: u64,
    pub(super) lost: usize,
    pub(super) failed: usize,
    pub(super) cancelled: usize,
    pub(super) refused: usize,
    pub(super) scored: usize,
    pub(super) tokens: usize,
    pub(super) cached: u64,
    pub(super) evictions: u64,
    pub(super) expired: usize,
    /// Tokens of generations with a grammar.
    pub(super) guided: usize,
    pub(super) broken_grammars: usize,
    /// Positions that were computed again after a loss.
    pub(super) recomputed: u64,
}

impl Client {
    /// One that has not arrived yet.
    pub(super) fn new(request: GenerationRequest) -> Self {
        Self {
            request,
            id: None,
            refusal: None,
            cancelled: false,
            positions_max: 0,
            events: Vec::new(),
        }
    }

    /// Of a model with these windows.
    pub(super) fn judge(&self, windows: &[Option<u32>], met: &mut Met) {
        if self.id.is_none() {
            assert!(self.refusal.is_some(), "a request without an answer");
            met.refused += 1;
            return;
        }
        let prefilled =
            |event: &&GenerationEvent| !matches!(event, GenerationEvent::Prefilled { .. });
        let told: Vec<_> = self.events.iter().filter(prefilled).map(as_if_alone).collect();
        let tokens = told.iter().filter(|event| matches!(event, GenerationEvent::Token(_)));
        let count = tokens.count();
        met.tokens += count;
        met.guided += if self.request.guided.is_some() { count } else { 0 };
        met.broken_grammars += usize::from(told.last() == Some(&toy::failed("grammar_limit")));
        let scored = |event: &GenerationEvent| matches!(event, GenerationEvent::Scored(_));
        met.scored += usize::from(told.first().is_some_and(scored));
        let expired = told.last() == Some(&toy::failed("request_timeout"));
        met.expired += usize::from(expired);
        let lost = told.last() == Some(&toy::failed("pipeline_lost"));
        met.lost += usize::from(lost);
        met.cancelled += usize::from(self.cancelled);
        met.failed += usize::from(told.last() == Some(&toy::failed("model_numerics")));
        let alone = toy::expected_with(windows, &self.request, self.positions_max);
        let agrees = match (lost || expired, self.cancelled) {
            (true, _) => alone.starts_with(&told[..told.len() - 1]),
            (false, true) => alone.starts_with(&told),
            (false, false) => alone == told,
        };
        assert!(agrees, "{:?} was told {told:?}, alone it would be {alone:?}", self.request);
    }
}

/// An event without what may differ: texts, and what a cache held.
fn as_if_alone(event: &GenerationEvent) -> GenerationEvent {
    match event {
        GenerationEvent::Finished { reason, .. } => {
            GenerationEvent::Finished { reason: *reason, cached_tokens: 0 }
        }
        GenerationEvent::Failed(Failure { code, .. }) => toy::failed(code),
        other => other.clone(),
    }
}
