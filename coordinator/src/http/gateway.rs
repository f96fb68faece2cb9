//! What all requests share: the configuration, the way to the engine, the tokenizer, and what is bounded
//! for all of them together.

use super::error::{ApiError, Problem, shutting_down};
use super::ids::unix_seconds;
use super::server::body::BODY_BUDGET_KIB;
use super::server::keys::ApiKeys;
use super::server::places::Limits;
use super::server::request_log::Refusals;
use crate::generation::EngineHandle;
use crate::template::Template;
use axum::http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use woolly_engine::tokenizer::Tokenizer;

/// Requests that are parsed and tokenised at a time; others wait, at most one per connection.
const PREPARING_MAX: usize = 2;
/// What Ollama's clients put behind a model's name.
const LATEST: &str = ":latest";

/// What the gateway says about the model.
#[derive(Clone, Debug, Default)]
pub struct ModelFacts {
    /// For instance `llama`.
    pub architecture: String,
    /// For instance `Q4_K_M`.
    pub file_type: String,
    /// Positions that the model was trained for.
    pub ctx_train: u32,
    /// Parameters.
    pub parameters: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// How the gateway presents itself.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The name that clients ask for.
    pub model_id: String,
    /// Other names of the same model.
    pub aliases: Vec<String>,
    /// Answer whatever model a client asks for.
    pub any_model: bool,
    /// For `/v1/models`.
    pub model: ModelFacts,
    /// Names besides localhost that a server on loopback answers to (a proxy in front of it).
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may read answers, as browsers send them; `*` is all.
    pub cors_origins: Vec<HeaderValue>,
    /// How many connections there may be.
    pub connections: Limits,
    /// After the shutdown signal, running requests have this long to end.
    pub drain: Duration,
    /// Who may use the server.
    pub keys: ApiKeys,
    /// Prompts of one API key that may wait and run together; `None` is no limit of its own.
    pub key_concurrency: Option<usize>,
    /// How long a request may take, waiting included; `None` is as long as it takes.
    pub request_timeout: Option<Duration>,
}

impl GatewayConfig {
    /// Whether a client that asks for `name` means the model that is served. Letters may be large or
    /// small, and `:latest` may follow, as with Ollama.
    pub fn serves(&self, name: &str) -> bool {
        let bare = |name: &str| {
            let cut = name.len().saturating_sub(LATEST.len());
            let latest = name.get(cut..).is_some_and(|end| end.eq_ignore_ascii_case(LATEST));
            name[..if latest { cut } else { name.len() }].to_lowercase()
        };
        let wanted = bare(name);
        let mut known = [&self.model_id].into_iter().chain(&self.aliases);
        self.any_model || known.any(|known| bare(known) == wanted)
    }
}

/// What all requests share.
#[derive(Debug)]
pub struct Gateway {
    pub(super) config: GatewayConfig,
    pub(super) engine: EngineHandle,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) template: Template,
    pub(super) refusals: Arc<Refusals>,
    /// Unix seconds of the start.
    pub(super) started: u64,
    pub(super) preparing: Arc<Semaphore>,
    pub(super) body_budget: Arc<Semaphore>,
    /// No new requests.
    pub(super) draining: CancellationToken,
    /// Running streams end now.
    pub(super) closing: CancellationToken,
}

impl Gateway {
    /// The state of a gateway.
    pub fn new(
        config: GatewayConfig,
        engine: EngineHandle,
        tokenizer: Arc<Tokenizer>,
        template: Template,
    ) -> Gateway {
        Gateway {
            refusals: Arc::default(),
            config,
            engine,
            tokenizer,
            template,
            started: unix_seconds(),
            preparing: Arc::new(Semaphore::new(PREPARING_MAX)),
            body_budget: Arc::new(Semaphore::new(BODY_BUDGET_KIB)),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Does work that takes milliseconds away from the threads that serve everybody.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Gateway) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = self.preparing.clone().acquire_owned().await.map_err(|_| shutting_down())?;
        let gateway = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&gateway);
            drop(place);
            result
        });
        done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "preparing a request failed");
            Err(ApiError::new(Problem::Internal, "An internal error: see the server's log."))
        })
    }
}
