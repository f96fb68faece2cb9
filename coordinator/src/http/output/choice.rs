//! One choice of an answer while it is generated: events in, pieces of the answer out.

use super::logprobs::TokenLine;
use super::text::CompletionText;
use crate::generation::{
    EngineHandle, FinishReason, Generation, GenerationEvent, GenerationRequest, Refusal, TokenEvent,
};
use crate::http::error::{ApiError, engine_gone, expired};
use crate::http::server::request_log::RequestLog;
use crate::http::usage::Usage;
use crate::metrics::{Meter, Outcome};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use woolly_engine::tokenizer::{Detokenizer, Tokenizer};

/// A choice that is ready to start.
#[derive(Debug)]
pub struct ChoicePlan {
    /// What to generate. Nothing needs the engine if no token is wanted and none is to be scored.
    pub request: GenerationRequest,
    /// The prompt's text, to be given back before the completion.
    pub echo: Option<String>,
    /// Text of the completion.
    pub text: CompletionText,
}

impl ChoicePlan {
    fn needs_engine(&self) -> bool {
        self.request.max_tokens > 0 || (self.request.score_prompt && self.request.prompt.len() > 1)
    }
}

/// What one event adds to the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// The engine's first word on this choice.
    pub first: bool,
    /// Text to append.
    pub text: String,
    /// Tokens up to the end of that text, if log-probabilities were asked for.
    pub lines: Vec<TokenLine>,
    /// `stop` or `length`: the choice is complete.
    pub finish: Option<&'static str>,
}

/// One choice while it is generated.
#[derive(Debug)]
struct Choice {
    /// `None` before the engine is asked (if at all) and when nothing more comes: a completed stop
    /// string drops the generation, which cancels it.
    generation: Option<Generation>,
    plan: ChoicePlan,
    /// Tokens whose text is still held back.
    lines: Vec<TokenLine>,
    started: bool,
    finished: bool,
    /// When its newest token came.
    last_token: Option<Instant>,
    usage: Usage,
}

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
    turn: usize,
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
        let (unsubmitted, ask_again, turn) = (0, None, 0);
        let mut choices =
            Choices { engine, tokenizer, list, unsubmitted, ask_again, turn, arrived, meter, log };
        match choices.submit_more().await {
            Ok(()) => Ok(choices),
            Err(error) => {
                choices.meter.ended(Outcome::Refused);
                Err(error)
            }
        }
    }

    /// Submits choices as long as there are places for them. May be dropped and called again.
    async fn submit_more(&mut self) -> Result<(), ApiError> {
        let mut running = self.list.iter().filter(|choice| choice.generation.is_some()).count();
        while running < TOGETHER_MAX && self.unsubmitted < self.list.len() {
            let plan = &self.list[self.unsubmitted].plan;
            if plan.needs_engine() {
                let request = self.request(plan)?;
                match self.engine.submit(request).await {
                    Ok(generation) => {
                        self.list[self.unsubmitted].generation = Some(generation);
                        running += 1;
                    }
                    Err(refusal) if self.unsubmitted > 0 && passes(&refusal) => {
                        self.ask_again = Some(Instant::now() + ASK_AGAIN);
                        return Ok(());
                    }
                    Err(refusal) => return Err(refusal.into()),
                }
            }
            self.meter.prompt(self.list[self.unsubmitted].plan.request.prompt.len());
            self.unsubmitted += 1;
        }
        self.ask_again = None;
        Ok(())
    }

    /// What is submitted of a choice: its time counts from the request's arrival.
    fn request(&self, plan: &ChoicePlan) -> Result<GenerationRequest, ApiError> {
        let mut request = plan.request.clone();
        if let Some(limit) = &mut request.time_limit {
            let passed = self.arrived.elapsed();
            *limit = limit.checked_sub(passed).ok_or_else(|| expired(passed))?;
        }
        Ok(request)
    }

    /// Choices in all.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Tokens so far.
    pub fn usage(&self) -> Usage {
        Usage::sum(self.list.iter().map(|choice| choice.usage))
    }

    /// The next piece with the index of its choice; `None` when all choices are complete. May be
    /// dropped and called again: no event is lost.
    ///
    /// # Errors
    ///
    /// The engine's failure: the whole answer ends.
    pub async fn next(&mut self) -> Option<Result<(usize, Piece), ApiError>> {
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
        self.turn = index + 1;
        if let Some(GenerationEvent::Token(_)) = &event {
            self.meter.token(&mut self.list[index].last_token);
            self.log.first_token();
        }
        let piece = match event {
            Some(event) => self.list[index].handle(event, &self.tokenizer),
            None => Err(engine_gone()),
        };
        if self.list[index].finished && self.unsubmitted < self.list.len() {
            // A place has come free. What was answered is handed on all the same.
            self.ask_again = Some(Instant::now());
        }
        if piece.is_err() {
            self.failed();
        } else if self.all_finished() {
            self.meter.ended(Outcome::Answered);
        }
        Some(piece.map(|piece| (index, piece)))
    }

    /// The next event of any choice that was submitted.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<GenerationEvent>)> {
        for step in 0..self.unsubmitted {
            let index = (self.turn + step) % self.unsubmitted;
            let choice = &mut self.list[index];
            if choice.finished {
                continue;
            }
            let Some(generation) = &mut choice.generation else {
                let reason = FinishReason::Length;
                let event = GenerationEvent::Finished { reason, cached_tokens: 0 };
                return Poll::Ready((index, Some(event)));
            };
            if let Poll::Ready(event) = pin!(generation.next()).poll(cx) {
                return Poll::Ready((index, event));
            }
        }
        Poll::Pending
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

impl Choice {
    fn new(plan: ChoicePlan) -> Choice {
        let usage = Usage {
            prompt_tokens: plan.request.prompt.len() as u64,
            cached_tokens: (!plan.needs_engine()).then_some(0),
            ..Usage::default()
        };
        Choice {
            generation: None,
            plan,
            lines: Vec::new(),
            started: false,
            finished: false,
            last_token: None,
            usage,
        }
    }

    fn handle(&mut self, event: GenerationEvent, tokenizer: &Tokenizer) -> Result<Piece, ApiError> {
        if let GenerationEvent::Prefilled { cached_tokens } = event {
            self.usage.cached_tokens = Some(u64::from(cached_tokens));
            return Ok(Piece::default());
        }
        let mut piece = Piece { first: !self.started, ..Piece::default() };
        if piece.first {
            self.started = true;
            self.begin(matches!(event, GenerationEvent::Scored(_)), tokenizer);
            piece.text = self.plan.echo.clone().unwrap_or_default();
        }
        match event {
            GenerationEvent::Scored(events) => self.scored(events),
            GenerationEvent::Token(event) => self.token(event, tokenizer, &mut piece),
            GenerationEvent::Finished { reason, cached_tokens } => {
                self.usage.cached_tokens = Some(u64::from(cached_tokens));
                let step = self.plan.text.finish();
                piece.text.push_str(&step.text);
                let stopped = step.stopped || reason == FinishReason::Stop;
                piece.finish = Some(if stopped { "stop" } else { "length" });
            }
            GenerationEvent::Failed(failure) => return Err(failure.into()),
            GenerationEvent::Prefilled { .. } => unreachable!("answered above"),
        }
        if piece.finish.is_some() {
            self.finished = true;
            self.generation = None;
        }
        if piece.finish.is_some() || !piece.text.is_empty() {
            piece.lines = std::mem::take(&mut self.lines);
        }
        Ok(piece)
    }

    /// The prompt's own tokens, if they are reported: their log-probabilities follow if `scored`.
    fn begin(&mut self, scored: bool, tokenizer: &Tokenizer) {
        let request = &self.plan.request;
        if !request.score_prompt {
            return;
        }
        let mut detokenizer = Detokenizer::new(tokenizer);
        let mut offset = 0;
        // A prompt of one token has nothing to score, and its only entry is the empty one.
        let tokens = if scored { &request.prompt[..] } else { &request.prompt[..1] };
        for &token in tokens {
            self.lines.push(TokenLine { token, logprob: None, top: Vec::new(), offset });
            offset += detokenizer.push(tokenizer, token).chars().count();
        }
    }

    fn scored(&mut self, events: Vec<TokenEvent>) {
        for (line, event) in self.lines.iter_mut().skip(1).zip(events) {
            line.logprob = Some(event.logprob);
            line.top = event.top;
        }
    }

    fn token(&mut self, event: TokenEvent, tokenizer: &Tokenizer, piece: &mut Piece) {
        self.usage.completion_tokens += 1;
        // A stop string may end the choice before the engine does.
        self.usage.cached_tokens.get_or_insert(0);
        let step = if self.plan.request.stop_tokens.contains(&event.token) {
            self.plan.text.skip()
        } else {
            self.plan.text.push(tokenizer, event.token)
        };
        piece.text.push_str(&step.text);
        if step.stopped {
            piece.finish = Some("stop");
        }
        if self.plan.request.top_logprobs.is_some() {
            let TokenEvent { token, logprob, top } = event;
            let logprob = Some(logprob);
            self.lines.push(TokenLine { token, logprob, top, offset: step.offset });
        }
    }
}
