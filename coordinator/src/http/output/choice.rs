//! One choice of an answer: the events of its generation in, deltas out.

use super::delta::{Delta, Deltas, End, Logprobs};
use super::text::{CompletionText, NewText};
use crate::chat_formats::{Part, Place};
use crate::few::Few;
use crate::generation::{FinishReason, Generation, GenerationEvent, GenerationRequest, TokenEvent};
use crate::http::error::ApiError;
use crate::http::ids::Identity;
use crate::http::usage::Usage;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
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
    /// Tokens that end the completion because the request says so, and not the model.
    pub own_stops: Arc<[u32]>,
    /// Whether it is the first of its prompt, whose tokens count once.
    pub is_first: bool,
    /// What is said of it beside its text.
    pub reports: ChoiceReports,
    /// What names its calls.
    pub identity: Identity,
}

/// What is said of a choice beside its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChoiceReports {
    /// The completion's tokens with so many alternatives; `None` reports no log-probability.
    pub top: Option<u8>,
    /// The prompt's tokens are reported before them.
    pub echoes_scores: bool,
    /// The prompt's tokens apart, with so many alternatives.
    pub prompt: Option<u8>,
    /// The completion's tokens alone.
    pub ids: bool,
}

impl ChoicePlan {
    fn needs_engine(&self) -> bool {
        self.request.max_tokens > 0 || (self.request.score_prompt && self.request.prompt.len() > 1)
    }
}

/// One choice while it is generated.
#[derive(Debug)]
pub(super) struct Choice {
    /// What is to be submitted; `None` if nothing needs the engine, or it was.
    pub(super) request: Option<GenerationRequest>,
    /// `None` before the engine is asked (if at all) and when nothing more comes: a completed stop
    /// string drops the generation, which cancels it.
    pub(super) generation: Option<Generation>,
    /// Nothing more comes.
    pub(super) finished: bool,
    /// When its first token came, and its newest.
    pub(super) first_token: Option<Instant>,
    pub(super) last_token: Option<Instant>,
    /// Tokens so far.
    pub(super) usage: Usage,
    echo: Option<String>,
    text: CompletionText,
    /// Tokens that are no text.
    stop_tokens: Arc<[u32]>,
    /// Those among them that are the request's own.
    own_stops: Arc<[u32]>,
    /// The one of them that came: the engine says next that the completion has ended.
    stopped_by: Option<u32>,
    /// Whether its prompt counts.
    pub(super) counts_prompt: bool,
    /// What a cache held of its prompt when this answer was begun before.
    pub(super) cached_before: Option<u32>,
    reports: ChoiceReports,
    identity: Identity,
    index: u32,
    /// Tokens whose text is still held back; at first that of the prompt, if its tokens are reported.
    held: Logprobs,
    /// Tokens that may be text or not.
    in_doubt: Logprobs,
    /// Tools that it has called.
    calls: usize,
    started: bool,
}

impl Choice {
    /// A choice that nobody has heard of yet.
    pub(super) fn new(plan: ChoicePlan) -> Choice {
        let needs_engine = plan.needs_engine();
        let ChoicePlan { request, echo, text, own_stops, is_first, reports, identity } = plan;
        let mut held = Logprobs::default();
        if reports.echoes_scores {
            held.first = request.prompt.first().copied();
            held.offsets.push(0);
        }
        Choice {
            usage: Usage {
                prompt_tokens: if is_first { request.prompt.len() as u64 } else { 0 },
                cached_tokens: (!needs_engine || !is_first).then_some(0),
                ..Usage::default()
            },
            stop_tokens: Arc::clone(&request.stop_tokens),
            own_stops,
            stopped_by: None,
            counts_prompt: is_first,
            cached_before: None,
            reports,
            identity,
            index: request.sampling.choice,
            request: needs_engine.then_some(request),
            generation: None,
            finished: false,
            first_token: None,
            last_token: None,
            echo,
            text,
            held,
            in_doubt: Logprobs::default(),
            calls: 0,
            started: false,
        }
    }

    /// A token has come, of a request that came at `arrived`: how long it took so far.
    pub(super) fn timed(&mut self, arrived: Instant) {
        let Some(last) = self.last_token else { return };
        let first = *self.first_token.get_or_insert(last);
        self.usage.prompt_time = first - arrived;
        self.usage.completion_time = last - first;
    }

    /// Its next event, `None` if the engine ended without one. Without the engine there is only the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<GenerationEvent>> {
        if self.finished {
            return Poll::Pending;
        }
        let Some(generation) = &mut self.generation else {
            let reason = FinishReason::Length;
            return Poll::Ready(Some(GenerationEvent::Finished { reason, cached_tokens: 0 }));
        };
        pin!(generation.next()).poll(cx)
    }

    /// What an event adds to the answer.
    ///
    /// # Errors
    ///
    /// The engine's failure: the whole answer ends.
    pub(super) fn handle(
        &mut self,
        event: GenerationEvent,
        tokenizer: &Tokenizer,
    ) -> Result<Deltas, ApiError> {
        if let GenerationEvent::Prefilled { cached_tokens } = event {
            self.note_cached(cached_tokens);
            return Ok(Deltas::default());
        }
        let mut deltas = Deltas::default();
        if !std::mem::replace(&mut self.started, true) {
            deltas.push(Delta::Start);
        }
        let (parts, ended) = match event {
            GenerationEvent::Scored(events) => {
                self.scored(events, tokenizer);
                (Few::default(), None)
            }
            GenerationEvent::Token(event) => self.token(event, tokenizer),
            GenerationEvent::Finished { reason, cached_tokens } => {
                self.note_cached(cached_tokens);
                let new = self.text.finish();
                self.held.extend(std::mem::take(&mut self.in_doubt));
                let end = self.stopped_by.map_or(reason.into(), End::StopToken);
                (new.parts, Some(new.stopped.map_or(end, End::StopString)))
            }
            GenerationEvent::Failed(failure) => return Err(failure.into()),
            GenerationEvent::Prefilled { .. } => unreachable!("answered above"),
        };
        self.add(parts, &mut deltas)?;
        if let Some(end) = ended {
            if !self.held.is_empty() {
                let logprobs = std::mem::take(&mut self.held);
                deltas.push(Delta::Text { text: String::new(), logprobs });
            }
            self.finished = true;
            self.generation = None;
            deltas.push(Delta::End { end: self.end(end) });
        }
        Ok(deltas)
    }

    /// The deltas of what comes next, after the prompt's text if that is given back.
    fn add(&mut self, parts: Few<Part>, deltas: &mut Deltas) -> Result<(), ApiError> {
        let mut echo = self.echo.take().unwrap_or_default();
        if !echo.is_empty() && !matches!(parts.first(), Some(Part::Text(_))) {
            self.add_text(std::mem::take(&mut echo), deltas);
        }
        for part in parts {
            match part {
                Part::Text(text) if echo.is_empty() => self.add_text(text, deltas),
                Part::Text(text) => self.add_text(std::mem::take(&mut echo) + &text, deltas),
                Part::Reasoning(text) => deltas.push(Delta::Reasoning { text }),
                Part::Call(name) => {
                    let id = self.identity.call_id(self.index, self.calls);
                    deltas.push(Delta::ToolCall { call: self.calls, id, name });
                    self.calls += 1;
                }
                Part::Arguments(text) => {
                    deltas.push(Delta::Arguments { call: self.calls.saturating_sub(1), text });
                }
            }
        }
        Ok(())
    }

    fn add_text(&mut self, text: String, deltas: &mut Deltas) {
        let logprobs = std::mem::take(&mut self.held);
        deltas.push(Delta::Text { text, logprobs });
    }

    /// Why the choice ends, as clients know it: a model that calls tools waits for them, unless it was cut
    /// off.
    fn end(&self, end: End) -> End {
        match end {
            End::Stop | End::StopString(_) if self.calls > 0 => End::ToolCalls,
            end => end,
        }
    }

    /// Tokens of the prompt were in a cache. Those that the first choice of a prompt has computed for the
    /// others are no hit of the request.
    fn note_cached(&mut self, tokens: u32) {
        if self.counts_prompt {
            self.usage.cached_tokens = Some(u64::from(self.cached_before.unwrap_or(tokens)));
        }
    }

    /// The prompt's tokens from the second on; before the first one nothing is reported.
    fn scored(&mut self, mut events: Vec<TokenEvent>, tokenizer: &Tokenizer) {
        if let Some(top) = self.reports.prompt {
            self.held.prompt.extend(events.iter().map(|event| with_top(event.clone(), top)));
        }
        for event in &mut events {
            event.top.truncate(usize::from(self.reports.top.unwrap_or(0)));
        }
        let Some(first) = self.held.first else { return };
        let mut detokenizer = Detokenizer::new(tokenizer);
        let mut chars = |token| detokenizer.push(tokenizer, token).chars().count();
        let mut offset = chars(first);
        for event in &events {
            self.held.offsets.push(offset);
            offset += chars(event.token);
        }
        self.held.tokens = events;
    }

    /// The next token of the completion: its parts, and why the completion ends with it, if it does.
    fn token(&mut self, event: TokenEvent, tokenizer: &Tokenizer) -> (Few<Part>, Option<End>) {
        self.usage.completion_tokens += 1;
        // A stop string may end the choice before the engine does.
        let cached = u64::from(self.cached_before.unwrap_or(0));
        self.usage.cached_tokens.get_or_insert(cached);
        let new = if self.own_stops.contains(&event.token) {
            self.stopped_by = Some(event.token);
            self.text.stop_token(tokenizer, event.token)
        } else if self.stop_tokens.contains(&event.token) {
            self.text.skip()
        } else {
            self.text.push(tokenizer, event.token)
        };
        self.usage.reasoning_tokens += u64::from(new.is_thinking);
        if self.reports.ids {
            self.held.ids.push(event.token);
        }
        if let Some(top) = self.reports.top {
            self.report(with_top(event, top), &new);
        }
        let ended = new.stopped.map(End::StopString);
        (new.parts, ended.or(new.has_its_call.then_some(End::ToolCalls)))
    }

    /// Keeps a token to be reported with the text that it is part of; of others nothing is said.
    fn report(&mut self, event: TokenEvent, new: &NewText) {
        if new.parts.iter().any(|part| matches!(part, Part::Text(_))) {
            self.held.extend(std::mem::take(&mut self.in_doubt));
        }
        let kept = match new.place {
            Place::Text => {
                self.held.extend(std::mem::take(&mut self.in_doubt));
                &mut self.held
            }
            Place::InDoubt => &mut self.in_doubt,
            Place::Reasoning | Place::Call => {
                self.in_doubt = Logprobs::default();
                return;
            }
            Place::Frame => return,
        };
        kept.offsets.push(new.offset);
        kept.tokens.push(event);
    }
}

/// A token with so many alternatives at most: others of the request may have asked for more.
fn with_top(mut event: TokenEvent, top: u8) -> TokenEvent {
    event.top.truncate(usize::from(top));
    event
}
