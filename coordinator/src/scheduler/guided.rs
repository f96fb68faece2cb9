//! Generations under a grammar: what may come next is asked of their guides, which answer beside the pipeline.
//!
//! After each token that was chosen the guide is asked ([`poll_question`](Scheduler::poll_question)), and until
//! [`handle_next`](Scheduler::handle_next) brings its answer no row of the sequence is sent after which a token
//! would be sampled: it is not *ready*, and nobody else waits for it. The answer follows from the log alone, so
//! it stays with the sequence through preemption and the loss of a pipeline; a question that is on its way
//! meanwhile is answered all the same.
//!
//! Tokens that the grammar forces go into the log as if they had been sampled, and travel with the newest one as
//! one chunk. Clients hear of them at once; if log-probabilities are wanted, when their rows have been scored.

use super::Scheduler;
use super::account::nothing_allowed;
use super::limits::to_usize;
use super::sequence::{Allowed, Phase};
use crate::generation::{Failure, FinishReason, GenerationEvent, TokenEvent};
use crate::guides::Next;
use std::sync::Arc;
use std::time::Duration;
use woolly_protocol::ids::SequenceId;
use woolly_protocol::sampling::TokenMask;

/// Rows with which a sequence still counts as one that decodes; one with more computes them as a prompt.
const DECODE_ROWS_MAX: usize = 16;

impl Scheduler {
    /// What the guide of a generation is to be asked: what may come after this token, its newest. Exactly one
    /// [`handle_next`](Self::handle_next) answers it, unless the generation ends before.
    pub fn poll_question(&mut self) -> Option<(SequenceId, u32)> {
        self.questions.pop_front()
    }

    /// A guide has answered. A generation that has ended is ignored.
    pub fn handle_next(&mut self, now: Duration, id: SequenceId, next: Next) {
        let awaits = |s: &super::Sequence| s.phase != Phase::Ended && s.awaits_guide();
        if self.sequences.get(&id).is_some_and(awaits) {
            self.take_next(now, id, next);
            self.admit(now);
        }
    }

    /// A token was chosen, and the generation goes on: with its guide's answer, or at once.
    pub(super) fn go_on(&mut self, now: Duration, id: SequenceId, token: u32) {
        let sequence = self.sequence_mut(id);
        if sequence.request.guided.is_some() {
            sequence.allowed = Allowed::Awaited;
            self.questions.push_back((id, token));
        } else if self.allow(now, id, None) && self.sequence(id).phase == Phase::Running {
            self.running.make_ready(id);
        }
    }

    /// Of the tokens that a guide allows those may come that the request's own limits allow. `false` if there is
    /// none, and the generation has failed.
    pub(super) fn allow(
        &mut self,
        now: Duration,
        id: SequenceId,
        guide: Option<Arc<TokenMask>>,
    ) -> bool {
        if self.sequence_mut(id).allow(guide).is_ok() {
            return true;
        }
        self.running.leave_ready(id);
        self.fail(now, id, nothing_allowed());
        false
    }

    /// What may come next is known.
    pub(super) fn take_next(&mut self, now: Duration, id: SequenceId, next: Next) {
        let (forced, mask, mut ends) = match next {
            Next::Goes { forced, mask } => (forced, mask, None),
            Next::Ends { forced } => (forced, None, Some(FinishReason::Stop)),
            Next::Fails(why) => {
                let message = format!("the grammar cannot be followed any further: {why}");
                self.running.leave_ready(id);
                return self.fail(now, id, Failure { code: "grammar_limit", message });
            }
        };
        ends = self.append(now, id, &forced).or(ends);
        if ends.is_some() {
            self.sequence_mut(id).allowed = Allowed::Known(None);
        } else if !self.allow(now, id, mask) {
            return;
        }
        let sequence = self.sequence_mut(id);
        match ends {
            Some(reason) if sequence.scored_count == sequence.score_end => {
                self.finish(now, id, reason);
            }
            ends => {
                sequence.ends = ends;
                self.send_on(id);
            }
        }
    }

    /// Writes tokens into the log that nobody chose. Why the generation ends with one of them, if it does; those
    /// behind it are left out.
    fn append(&mut self, now: Duration, id: SequenceId, forced: &[u32]) -> Option<FinishReason> {
        let plan = self.plan.or(self.hold.map(|hold| hold.limits))?;
        let sequence = self.sequences.get_mut(&id).expect("it is asked for");
        // A prompt's scores come first, too.
        let scores = sequence.request.top_logprobs.is_some() || sequence.request.score_prompt;
        let before = sequence.tokens.len();
        let mut ends = None;
        for token in forced {
            sequence.commit(now, *token);
            if !scores {
                let event = TokenEvent { token: *token, logprob: 0.0, top: Vec::new() };
                self.events.push_back((id, GenerationEvent::Token(event)));
            }
            ends = sequence.ends_with(*token, &plan);
            if ends.is_some() {
                break;
            }
        }
        if scores && sequence.tokens.len() > before {
            // The row before a token says how likely it is.
            if sequence.scored_count >= sequence.score_end {
                sequence.scored_count = before - 1;
            }
            sequence.score_end = sequence.tokens.len() - 1;
        }
        ends
    }

    /// A running sequence has its newest tokens to send, unless its prompt is still on its way.
    fn send_on(&mut self, id: SequenceId) {
        let sequence = self.sequence(id);
        let Some(rank) = sequence.rank.filter(|_| sequence.phase == Phase::Running) else { return };
        if self.running.is_prefilling(rank) {
            return;
        }
        let rows = sequence.pending();
        // Few enough to fit into what decode has of a microbatch.
        let whole = self.plan.map_or(0, |plan| to_usize(plan.rows_max));
        let few = (whole.min(self.config.rows_per_step) / 4).clamp(1, DECODE_ROWS_MAX);
        if rows <= few {
            self.running.make_ready(id);
        } else {
            self.running.catch_up(rank, id);
        }
    }
}
