//! What the gateway asks of the driver, and what it is told: the seam between HTTP and scheduling.
//!
//! The gateway knows text; the driver and the scheduler know token ids. One [`GenerationRequest`] is
//! one choice of one request. Events of a generation arrive in order; the last one is `Finished` or
//! `Failed`. Dropping the [`Generation`] cancels it.

pub use crate::ids::{GenerationId, KeyId, LaneId, ModelId};

use crate::guides::{Dry, Guided, Limits};
use crate::metrics::Metrics;
use crate::status::{Status, Work};
use crate::trace::Trace;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use woolly_protocol::sampling::SamplingOptions;

/// One completion of one prompt, in token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationRequest {
    /// Which model is asked.
    pub model: ModelId,
    /// At least one token; prompt and completion together fit the context.
    pub prompt: Vec<u32>,
    /// Report the log-probability of every prompt token but the first (echo with logprobs).
    pub score_prompt: bool,
    /// Tokens to generate at most; 0 only with `score_prompt` (score a text).
    pub max_tokens: u32,
    /// Alternatives to report per token, 0 to 20; `None` reports none and needs no log-probability.
    pub top_logprobs: Option<u8>,
    /// How tokens are chosen; the gateway has checked the ranges.
    pub sampling: SamplingOptions,
    /// What the completion has to be; `None` leaves it to the model.
    pub guided: Option<Guided>,
    /// Tokens that end the generation (reported as the last token). Empty with `ignore_eos`; one list
    /// for all requests of a model.
    pub stop_tokens: Arc<[u32]>,
    /// Whose request it is: keys take turns, and find only their own prefixes.
    pub key: KeyId,
    /// The generation fails if it has not ended so long after it was submitted.
    pub time_limit: Option<Duration>,
    /// Names the request if it has several choices: they compute their prompt once, even where the prefix
    /// cache is off.
    pub siblings: Option<NonZeroU64>,
    /// Which tokens may come, by the request's own words; at least one may come first. `None` allows all.
    pub limits: Option<Arc<Limits>>,
    /// Makes repetitions less likely.
    pub dry: Option<Arc<Dry>>,
}

/// One token with its log-probabilities (natural, from the raw logits).
#[derive(Clone, Debug, PartialEq)]
pub struct TokenEvent {
    /// The token.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The most likely tokens, best first, as many as asked for.
    pub top: Vec<(u32, f32)>,
}

/// What a generation is told.
#[derive(Clone, Debug, PartialEq)]
pub enum GenerationEvent {
    /// The prompt's tokens from the second on, all at once, before the first `Token`.
    Scored(Vec<TokenEvent>),
    /// Before the first `Token`, if any of the prompt's tokens were in the prefix cache.
    Prefilled {
        /// How many.
        cached_tokens: u32,
    },
    /// The next token of the completion; stop tokens are reported too.
    Token(TokenEvent),
    /// The end.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Tokens of the prompt that a cache already held.
        cached_tokens: u32,
    },
    /// The generation cannot go on; what was sent stays valid.
    Failed(Failure),
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was generated.
    Stop,
    /// `max_tokens` or the context is full.
    Length,
}

/// Why a generation failed: becomes an OpenAI error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For programs: `pipeline_lost`, `model_unloaded`, `model_numerics`, `shutting_down`, …
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// Why a request is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many requests wait (429).
    QueueFull {
        /// Requests waiting.
        waiting: usize,
        /// When a place should be free.
        retry_after: Duration,
    },
    /// Too many generations of one API key wait and run (429).
    KeyBusy {
        /// As many as may.
        limit: usize,
        /// When one of them should have ended.
        retry_after: Duration,
    },
    /// Prompt and completion do not fit (400, `context_length_exceeded`).
    TooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Positions that a sequence can have here.
        positions_max: usize,
    },
    /// The prompt has no tokens, so there is nothing to continue (400).
    NoTokens,
    /// The model is not there any more (404).
    Unloaded,
    /// No complete pipeline (503).
    NotReady {
        /// What is being waited for.
        detail: String,
    },
    /// The server is going down (503).
    ShuttingDown,
}

/// What the driver is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Start a generation.
    Submit {
        /// What to generate.
        request: Box<GenerationRequest>,
        /// Holds all events of the generation: never full.
        events: mpsc::Sender<GenerationEvent>,
        /// The trace that it belongs to.
        trace: Option<Trace>,
        /// Whether it was accepted, and under which number.
        reply: oneshot::Sender<Result<GenerationId, Refusal>>,
    },
    /// The client is gone.
    Cancel {
        /// Its name from `reply`.
        id: GenerationId,
    },
}

/// The gateway's end: submits generations and reads the status.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    commands: mpsc::Sender<Command>,
    work: watch::Receiver<Work>,
    statuses: Statuses,
    metrics: Arc<Metrics>,
    /// What is submitted belongs to it.
    trace: Option<Trace>,
}

/// How each model that is loaded stands. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct Statuses(Arc<RwLock<BTreeMap<ModelId, watch::Receiver<Status>>>>);

/// A running generation. Dropping it cancels it.
#[derive(Debug)]
pub struct Generation {
    id: GenerationId,
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<GenerationEvent>,
}

/// Commands that wait for the driver.
const COMMANDS_MAX: usize = 1024;

/// Both ends of the seam: the gateway's handle, the driver's receiver, and where the driver says what is
/// left to do.
pub fn seam() -> (EngineHandle, mpsc::Receiver<Command>, watch::Sender<Work>) {
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let (sender, work) = watch::channel(Work::default());
    let (statuses, metrics) = (Statuses::default(), Arc::new(Metrics::default()));
    (EngineHandle { commands, work, statuses, metrics, trace: None }, receiver, sender)
}

impl Statuses {
    /// A model is loaded from now on: where its status is told.
    pub fn add(&self, model: ModelId) -> watch::Sender<Status> {
        let (sender, status) = watch::channel(Status::default());
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(model, status);
        sender
    }

    /// A model is gone.
    pub fn remove(&self, model: ModelId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&model);
    }

    /// To be told of a model's changes; `None` if it is not loaded.
    pub fn watch(&self, model: ModelId) -> Option<watch::Receiver<Status>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&model).cloned()
    }
}

impl EngineHandle {
    /// The same, whose generations belong to this trace.
    pub fn traced(&self, trace: Option<Trace>) -> EngineHandle {
        EngineHandle { trace, ..self.clone() }
    }

    /// Starts a generation.
    ///
    /// # Errors
    ///
    /// The driver's refusal; `ShuttingDown` when the driver is gone.
    pub async fn submit(&self, request: GenerationRequest) -> Result<Generation, Refusal> {
        // `Scored`, `Prefilled`, every token, and the end: the driver never waits for a client.
        let capacity = request.max_tokens as usize + 3;
        let (sender, events) = mpsc::channel(capacity);
        let (reply, answer) = oneshot::channel();
        let (request, trace) = (Box::new(request), self.trace);
        let command = Command::Submit { request, events: sender, trace, reply };
        self.commands.send(command).await.map_err(|_| Refusal::ShuttingDown)?;
        let id = answer.await.map_err(|_| Refusal::ShuttingDown)??;
        Ok(Generation { id, commands: self.commands.clone(), events })
    }

    /// What the driver and the gateway count.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How a model stands now. Of one that is not there any more only that is said.
    pub fn status(&self, model: ModelId) -> Status {
        match self.statuses.watch(model) {
            Some(status) => status.borrow().clone(),
            None => Status { detail: "the model was unloaded".to_owned(), ..Status::default() },
        }
    }

    /// How all models together stand; see [`Status::of_all`].
    pub fn status_of_all(&self) -> Status {
        let models = self.statuses.0.read().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<Status> = models.values().map(|status| status.borrow().clone()).collect();
        Status::of_all(&all, self.work.borrow().stopping)
    }

    /// How each model stands.
    pub fn statuses(&self) -> &Statuses {
        &self.statuses
    }
}

impl Generation {
    /// The next event; `None` after the last one, or when the driver is gone.
    pub async fn next(&mut self) -> Option<GenerationEvent> {
        self.events.recv().await
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // A full command channel means that the driver is far behind; it also notices a generation
        // whose receiver is closed when it next sends to it.
        let _ = self.commands.try_send(Command::Cancel { id: self.id });
    }
}
