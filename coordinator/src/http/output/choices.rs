//! The choices of an answer while they are generated: submitted in order, heard in turn.
//!
//! What an event means for its choice stands in [`choice`](super::choice).

use super::choice::{Choice, ChoicePlan};
use super::delta::Deltas;
use crate::generation::{EngineHandle, GenerationEvent, GenerationRequest, Refusal};
use crate::http::error::{ApiError, engine_gone, expired};
use crate::http::server::request_log::RequestLog;
use crate::http::usage::Usage;
use crate::metrics::{Meter, Outcome};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use woolly_engine::tokenizer::Tokenizer;

/// Choices of one request in the engine at a time: a request of many prompts leaves room in the
/// queue for others.
const TOGETHER_MAX: usize = 64;
/// After this a choice that found no place asks again, if none of its own request has ended.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// All choices of an answer. Dropping it cancels what still runs.
///
/// They are submitted in order, at most `TOGETHER_MAX` at a time. The first one may be refused, and
/// the request with it; a later one that finds no place waits for one of its own request to end.
#[derive(Debug)]
pub struct Choices {
    engine: EngineHandle,
    tokenizer: Arc<Tokenizer>,
    list: Vec<Choice>,
    /// The first choice that was not submitted yet.
    unsubmitted: usize,
    /// A choice found no place: when it asks again.
    ask_again: Option<Instant>,
    /// The choice that is asked first, so that none starves.
    asked_first: usize,
    /// Tokens come in an order that follows from the choices alone.
    in_order: bool,
    arrived: Instant,
    meter: Meter,
    log: RequestLog,
}

impl Drop for Choices {
    fn drop(&mut self) {
        self.log.usage(self.usage());
    }
}

impl Choices {
    /// Submits the first choices; `meter` measures the request to its end.
    ///
    /// # Errors
    ///
    /// The refusal of the first one, or one that will not pass by itself; what was accepted before is
    /// cancelled.
    pub async fn start(
        plans: Vec<ChoicePlan>,
        engine: &EngineHandle,
        tokenizer: Arc<Tokenizer>,
        meter: Meter,
        log: RequestLog,
    ) -> Result<Choices, ApiError> {
        let list = plans.into_iter().map(Choice::new).collect();
        let engine = engine.clone();
        let arrived = Instant::now();
        let (unsubmitted, ask_again, asked_first) = (0, None, 0);
        let mut choices = Choices {
            engine,
            tokenizer,
            list,
            unsubmitted,
            ask_again,
            asked_first,
            in_order: false,
            arrived,
            meter,
            log,
        };
        match choices.submit_more().await {
            Ok(()) => {
                if choices.list.is_empty() {
                    choices.meter.ended(Outcome::Answered);
                }
                Ok(choices)
            }
            Err(error) => {
                choices.meter.ended(Outcome::Refused);
                Err(error)
            }
        }
    }

    /// The same choices, heard in an order that does not depend on who is faster, so that it is the same when they
    /// are generated again: token by token, choice after choice, of those that run together.
    pub fn in_order(mut self) -> Choices {
        self.in_order = true;
        self
    }

    /// By choice, how many tokens of its prompt a cache held the first time. What it holds now is not said.
    pub fn with_cached(mut self, known: &BTreeMap<u32, u32>) -> Choices {
        for (index, tokens) in known {
            if let Some(choice) = self.list.get_mut(*index as usize) {
                choice.cached_before = Some(*tokens);
            }
        }
        self
    }

    /// How many tokens of a choice's prompt a cache held, once that is known and if the prompt counts. That is said
    /// from now on.
    pub fn settle_cached(&mut self, index: usize) -> Option<u32> {
        let choice = self.list.get_mut(index).filter(|choice| choice.counts_prompt)?;
        let tokens = u32::try_from(choice.usage.cached_tokens?).ok()?;
        choice.cached_before = Some(tokens);
        Some(tokens)
    }

    /// Submits choices as long as there are places for them. May be dropped and called again.
    async fn submit_more(&mut self) -> Result<(), ApiError> {
        let mut running = self.list.iter().filter(|choice| choice.generation.is_some()).count();
        while running < TOGETHER_MAX && self.unsubmitted < self.list.len() {
            if let Some(request) = self.next_request()? {
                match self.engine.submit(request).await {
                    Ok(generation) => {
                        let choice = &mut self.list[self.unsubmitted];
                        choice.request = None;
                        choice.generation = Some(generation);
                        running += 1;
                    }
                    Err(refusal) if self.unsubmitted > 0 && passes(&refusal) => {
                        self.ask_again = Some(Instant::now() + ASK_AGAIN);
                        return Ok(());
                    }
                    Err(refusal) => return Err(refusal.into()),
                }
            }
            self.meter.prompt(self.list[self.unsubmitted].usage.prompt_tokens);
            self.unsubmitted += 1;
        }
        self.ask_again = None;
        Ok(())
    }

    /// What is submitted of the next choice, if it needs the engine: its time counts from the request's
    /// arrival. Only the first one is never asked for again; the others keep theirs until they have a place.
    fn next_request(&mut self) -> Result<Option<GenerationRequest>, ApiError> {
        let asked = &mut self.list[self.unsubmitted].request;
        let request = if self.unsubmitted == 0 { asked.take() } else { asked.clone() };
        let Some(mut request) = request else { return Ok(None) };
        if let Some(limit) = &mut request.time_limit {
            let passed = self.arrived.elapsed();
            *limit = limit.checked_sub(passed).ok_or_else(|| expired(passed))?;
        }
        Ok(Some(request))
    }

    /// Choices in all.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Tokens so far.
    pub fn usage(&self) -> Usage {
        Usage::sum(self.list.iter().map(|choice| choice.usage))
    }

    /// What comes next in one of the choices, with its index: none, one or more deltas. `None` when all
    /// choices are complete. May be dropped and called again: no event is lost.
    ///
    /// # Errors
    ///
    /// The engine's failure: the whole answer ends.
    pub async fn next(&mut self) -> Option<Result<(usize, Deltas), ApiError>> {
        if self.all_finished() {
            return None;
        }
        let (index, event) = loop {
            let held_back = self.ask_again;
            tokio::select! {
                biased;
                next = poll_fn(|cx| self.poll_event(cx)) => break next,
                () = until(held_back) => {}
            }
            if let Err(error) = self.submit_more().await {
                self.failed();
                return Some(Err(error));
            }
        };
        self.asked_first = index + 1;
        if let Some(GenerationEvent::Token(_)) = &event {
            self.meter.token(&mut self.list[index].last_token);
            self.list[index].timed(self.arrived);
            self.log.first_token();
        }
        let deltas = match event {
            Some(event) => self.list[index].handle(event, &self.tokenizer),
            None => Err(engine_gone()),
        };
        if self.list[index].finished && self.unsubmitted < self.list.len() {
            // A place has come free. What was answered is handed on all the same.
            self.ask_again = Some(Instant::now());
        }
        if deltas.is_err() {
            self.failed();
        } else if self.all_finished() {
            self.meter.ended(Outcome::Answered);
        }
        Some(deltas.map(|deltas| (index, deltas)))
    }

    /// The next event of any choice that was submitted.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<GenerationEvent>)> {
        if self.in_order {
            return self.poll_in_order(cx);
        }
        for step in 0..self.unsubmitted {
            let index = (self.asked_first + step) % self.unsubmitted;
            if let Poll::Ready(event) = self.list[index].poll(cx) {
                return Poll::Ready((index, event));
            }
        }
        Poll::Pending
    }

    /// The next event of the choice that has the fewest tokens, of those that may run together: others wait for it.
    fn poll_in_order(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<GenerationEvent>)> {
        let Some(first) = self.list.iter().position(|choice| !choice.finished) else {
            return Poll::Pending;
        };
        let end = (first / TOGETHER_MAX + 1) * TOGETHER_MAX;
        let together = first..end.min(self.list.len());
        let unfinished = together.filter(|index| !self.list[*index].finished);
        let next = unfinished.min_by_key(|index| self.list[*index].usage.completion_tokens);
        let index = next.unwrap_or(first);
        if index >= self.unsubmitted {
            return Poll::Pending;
        }
        self.list[index].poll(cx).map(|event| (index, event))
    }

    /// The answer ends here, and not because the client went away.
    pub fn failed(&mut self) {
        self.meter.ended(Outcome::Failed);
    }

    fn all_finished(&self) -> bool {
        self.list.iter().all(|choice| choice.finished)
    }
}

/// Whether a refusal ends by itself when others do.
fn passes(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::QueueFull { .. } | Refusal::KeyBusy { .. })
}

/// Waits until a time; for ever without one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
