//! What an answer of the last stage means for the sequences of its microbatch.

use super::Scheduler;
use super::sampled_error::SampledError;
use super::sequence::{Phase, token_event};
use super::step::{InFlight, SentChunk};
use crate::generation::{Failure, FinishReason, GenerationEvent};
use std::time::Duration;
use std::vec::IntoIter;
use woolly_protocol::failpoint::planted;
use woolly_protocol::ids::{MicrobatchId, SequenceId};
use woolly_protocol::sampling::{Sampled, SampledRow};

impl Scheduler {
    /// The last stage has answered a microbatch. An answer to another plan is dropped and counted.
    ///
    /// # Errors
    ///
    /// An answer that does not belong to the oldest microbatch in flight or does not fit it. The
    /// last stage is faulty; the scheduler is as it was.
    pub fn handle_sampled(
        &mut self,
        now: Duration,
        mut sampled: Sampled,
    ) -> Result<(), SampledError> {
        if let (true, Some(plan), Some(oldest)) =
            (planted("ignore-epoch"), self.plan, self.in_flight.front())
            && plan.epoch != sampled.epoch
        {
            (sampled.epoch, sampled.microbatch) = (plan.epoch, oldest.microbatch);
        }
        let Some(plan) = self.plan.filter(|plan| plan.epoch == sampled.epoch) else {
            self.tally.stale_answers += 1;
            return Ok(());
        };
        self.check(&sampled, plan.vocab)?;
        let in_flight = self.in_flight.pop_front().expect("check found it there");
        self.pace.answered(now, sampled.microbatch, in_flight.decodes);
        self.round_trips.note(in_flight.rows, now.saturating_sub(in_flight.sent_at));
        self.answered_at = now;
        if in_flight.decodes {
            self.observe_gaps(now, &in_flight);
        }
        let mut rows = sampled.rows.into_iter();
        for chunk in &in_flight.chunks {
            self.account(now, chunk, &mut rows);
        }
        self.builder.take_back_answered(in_flight);
        self.admit(now);
        Ok(())
    }

    /// Tells what holds gaps within the target of those that the answer ends.
    fn observe_gaps(&mut self, now: Duration, answered: &InFlight) {
        let later = MicrobatchId(self.next_microbatch.0 + self.in_flight.len() as u64);
        let begun = answered.chunks.iter().filter_map(|chunk| chunk.token_at);
        self.pace.observe_gaps(now, answered.microbatch, later, begun);
    }

    fn check(&self, sampled: &Sampled, vocab: u32) -> Result<(), SampledError> {
        let microbatch = sampled.microbatch;
        let known = |in_flight: &InFlight| in_flight.microbatch == microbatch;
        let Some(oldest) = self.in_flight.front().filter(|_| self.in_flight.iter().any(known))
        else {
            return Err(SampledError::NotInFlight { microbatch });
        };
        if !known(oldest) {
            let expected = oldest.microbatch;
            return Err(SampledError::OutOfOrder { expected, found: microbatch });
        }
        if oldest.asked.len() != sampled.rows.len() {
            let (expected, found) = (oldest.asked.len(), sampled.rows.len());
            return Err(SampledError::RowCount { microbatch, expected, found });
        }
        for (row, (answer, (target, top))) in sampled.rows.iter().zip(&oldest.asked).enumerate() {
            let SampledRow::Token(answer) = answer else { continue };
            let ids = answer.top.iter().map(|(id, _)| *id).chain([answer.token]);
            if let Some(found) = ids.filter(|id| *id >= vocab).max() {
                return Err(SampledError::Vocabulary { microbatch, row, vocab, found });
            }
            if answer.top.len() > usize::from(*top) {
                let (expected, found) = (*top, answer.top.len());
                return Err(SampledError::TopCount { microbatch, row, expected, found });
            }
            if let Some(expected) = target.filter(|target| *target != answer.token) {
                let found = answer.token;
                return Err(SampledError::Target { microbatch, row, expected, found });
            }
        }
        Ok(())
    }

    /// One chunk has come back with its rows.
    fn account(&mut self, now: Duration, chunk: &SentChunk, rows: &mut IntoIter<SampledRow>) {
        let id = chunk.sequence;
        self.sequence_mut(id).in_flight -= 1;
        // Scores first: what is reported must not depend on which rows shared a chunk.
        if !chunk.scored.is_empty() {
            self.account_scored(now, id, rows.by_ref().take(chunk.scored.len()));
        }
        if let Some(row) = chunk.samples.then(|| rows.next()).flatten() {
            self.account_token(now, id, row);
        }
        if self.sequences.get(&id).is_some_and(|sequence| sequence.phase != Phase::Running) {
            self.settle(id);
        }
    }

    fn account_scored(
        &mut self,
        now: Duration,
        id: SequenceId,
        rows: impl Iterator<Item = SampledRow>,
    ) {
        let mut failure = None;
        for row in rows {
            match row {
                _ if failure.is_some() || !self.is_wanted(id) => {}
                SampledRow::Token(token) => {
                    let sequence = self.sequence_mut(id);
                    sequence.scored_count += 1;
                    sequence.losses = 0;
                    sequence.scored.push(token_event(token));
                }
                SampledRow::NonFinite => failure = Some(non_finite()),
                SampledRow::NothingAllowed => failure = Some(nothing_allowed()),
            }
        }
        if let Some(failure) = failure {
            self.fail(now, id, failure);
            return;
        }
        if !self.is_wanted(id) {
            return;
        }
        let sequence = self.sequence_mut(id);
        if sequence.scored.is_empty() || sequence.scored_count < sequence.score_end {
            return;
        }
        let mut scored = std::mem::take(&mut sequence.scored);
        // A row scores the token that follows: those of the prompt's come first.
        let first = sequence.score_end - scored.len();
        let forced = scored.split_off((sequence.prompt_len - 1).saturating_sub(first));
        let scores_only = sequence.request.max_tokens == 0;
        let ends = sequence.ends;
        if !scored.is_empty() {
            self.events.push_back((id, GenerationEvent::Scored(scored)));
        }
        self.events.extend(forced.into_iter().map(|token| (id, GenerationEvent::Token(token))));
        if let Some(reason) = ends.or(scores_only.then_some(FinishReason::Length)) {
            self.finish(now, id, reason);
        }
    }

    fn account_token(&mut self, now: Duration, id: SequenceId, row: SampledRow) {
        let plan = self.plan.expect("answers are accounted under a plan only");
        let Some(sequence) = self.sequences.get_mut(&id).filter(|s| s.phase != Phase::Ended) else {
            return;
        };
        let row = match row {
            SampledRow::Token(token) => token,
            SampledRow::NonFinite => return self.fail(now, id, non_finite()),
            SampledRow::NothingAllowed => return self.fail(now, id, nothing_allowed()),
        };
        let cached = sequence.cached_tokens;
        let tells = cached > 0 && sequence.output_len() == 0;
        sequence.commit(now, row.token);
        let ends = sequence.ends_with(row.token, &plan);
        let token = row.token;
        if sequence.replays_since.is_some() {
            self.note_replayed(now, id, true);
        }
        if tells {
            let cached_tokens = super::limits::to_u32(cached);
            self.events.push_back((id, GenerationEvent::Prefilled { cached_tokens }));
        }
        self.events.push_back((id, GenerationEvent::Token(token_event(row))));
        match ends {
            Some(reason) => self.finish(now, id, reason),
            None => self.go_on(now, id, token),
        }
    }

    /// Whether anyone still wants to hear of the sequence.
    fn is_wanted(&self, id: SequenceId) -> bool {
        self.sequences.get(&id).is_some_and(|sequence| sequence.phase != Phase::Ended)
    }

    pub(super) fn finish(&mut self, now: Duration, id: SequenceId, reason: FinishReason) {
        let cached_tokens = super::limits::to_u32(self.sequence(id).cached_tokens);
        self.events.push_back((id, GenerationEvent::Finished { reason, cached_tokens }));
        self.end(now, id);
    }

    pub(super) fn fail(&mut self, now: Duration, id: SequenceId, failure: Failure) {
        self.events.push_back((id, GenerationEvent::Failed(failure)));
        self.end(now, id);
    }
}

fn non_finite() -> Failure {
    Failure {
        code: "model_numerics",
        message: "the model computed values that are not finite for this request".to_owned(),
    }
}

pub(super) fn nothing_allowed() -> Failure {
    Failure {
        code: "no_token_allowed",
        message: "no token that the request's constraints allow has a chance".to_owned(),
    }
}
