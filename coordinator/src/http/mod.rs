//! The gateway: an OpenAI-compatible HTTP server in front of the cluster.
//!
//! A request is read ([`body`]), checked field by field and tokenised on a blocking thread
//! ([`prepare`]), submitted through [`crate::generation`], and answered whole or as a stream
//! ([`generate`], [`sse`]). Fields are obeyed or refused by name, never ignored: what is accepted
//! without acting on it stands in one table ([`known`]). Every error has OpenAI's shape ([`error`]).
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | configuration, shared state, routes |
//! | `server.rs`, `places.rs` | listeners, places for connections, the orderly end |
//! | `connection.rs`, `socket.rs`, `stall.rs` | one connection: its requests, and clients that are gone |
//! | `paths.rs`, `guard.rs`, `keys.rs` | what holds for every request: path, URI, `Host`, API key, id, wrong paths |
//! | `request_log.rs` | a line in the log for each request |
//! | `body.rs`, `json.rs`, `fields.rs` | bytes → JSON → fields |
//! | `known/`, `sampling.rs`, `samplers.rs`, `messages.rs`, `template_options.rs`, `prompts.rs` | the fields |
//! | `prepare.rs` | fields → token ids → what is to be generated |
//! | `choice.rs`, `generate.rs` | running choices → text; the two endpoints |
//! | `response.rs`, `logprobs.rs`, `sse.rs` | text → JSON, whole and in chunks |
//! | `models.rs`, `health.rs`, `tokenize.rs`, `page.rs` | the small endpoints, and a page for people |
//!
//! # Limits
//!
//! Header, body, time and connection limits are constants in `server.rs`, `body.rs` and `guard.rs`;
//! those of single fields stand with the field. Plain HTTP/1.1; web pages of other origins cannot read
//! answers unless [`GatewayConfig::cors_origins`] names them.

pub mod body;
pub mod choice;
pub mod connection;
pub mod error;
pub mod fields;
pub mod generate;
pub mod guard;
pub mod health;
pub mod json;
pub mod keys;
pub mod known;
pub mod logprobs;
pub mod messages;
pub mod models;
pub mod page;
pub mod paths;
pub mod places;
pub mod prepare;
pub mod prompts;
pub mod request_log;
pub mod response;
pub mod samplers;
pub mod sampling;
pub mod server;
pub mod socket;
pub mod sse;
pub mod stall;
pub mod template_options;
pub mod tokenize;

#[cfg(test)]
pub(crate) mod tests;

use crate::generation::EngineHandle;
use crate::template::Template;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::routing::{get, post};
use error::{ApiError, Problem, shutting_down};
use guard::{Door, Hosts};
use keys::ApiKeys;
use places::Limits;
use request_log::Refusals;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use woolly_engine::tokenizer::Tokenizer;

/// Requests that are parsed and tokenised at a time; others wait, at most one per connection.
const PREPARING_MAX: usize = 2;

/// How long a browser may remember what it was told about another origin.
const CORS_MAX_AGE: Duration = Duration::from_secs(3600);
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
    config: GatewayConfig,
    engine: EngineHandle,
    tokenizer: Arc<Tokenizer>,
    template: Template,
    refusals: Arc<Refusals>,
    /// Unix seconds of the start.
    started: u64,
    preparing: Arc<Semaphore>,
    body_budget: Arc<Semaphore>,
    /// No new requests.
    draining: CancellationToken,
    /// Running streams end now.
    closing: CancellationToken,
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
            started: prepare::unix_seconds(),
            preparing: Arc::new(Semaphore::new(PREPARING_MAX)),
            body_budget: Arc::new(Semaphore::new(body::BODY_BUDGET_KIB)),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Does work that takes milliseconds away from the threads that serve everybody.
    async fn blocking<T: Send + 'static>(
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

/// The whole gateway as one service, for a listener on `bound`.
pub fn router(gateway: Arc<Gateway>, bound: IpAddr) -> Router {
    guarded(routes(), gateway, bound)
}

fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/v1/chat/completions", post(generate::chat))
        .route("/chat/completions", post(generate::chat))
        .route("/v1/completions", post(generate::completion))
        .route("/completions", post(generate::completion))
        .route("/v1/models", get(models::list))
        .route("/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/models/{*name}", get(models::one))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/version", get(health::version))
        .route("/metrics", get(health::metrics))
        .route("/", get(page::page))
        .route("/favicon.ico", get(page::favicon))
}

/// Routes with what holds for every request. Paths are cleaned outside all else, so that nobody looks
/// at another path than the router does.
fn guarded(routes: Router<Arc<Gateway>>, gateway: Arc<Gateway>, bound: IpAddr) -> Router {
    let hosts = Hosts::new(bound, &gateway.config.allowed_hosts);
    let origins = cors(&gateway.config.cors_origins);
    let door = Door { gateway: gateway.clone(), hosts };
    let inner = routes
        .fallback(guard::not_found)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(CatchPanicLayer::custom(guard::panicked))
        .layer(axum::middleware::from_fn_with_state(door, guard::guard))
        .with_state(gateway);
    let clean = |mut request: Request| {
        *request.uri_mut() = paths::clean(std::mem::take(request.uri_mut()));
        request
    };
    let outer =
        Router::new().fallback_service(inner).layer(tower::util::MapRequestLayer::new(clean));
    match origins {
        Some(origins) => outer.layer(origins),
        None => outer,
    }
}

/// What lets pages of other origins ask and read answers; their browsers ask first, without a key.
fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let all = origins.iter().any(|origin| origin == "*");
    let allowed = match (origins.is_empty(), all) {
        (true, _) => return None,
        (false, true) => AllowOrigin::any(),
        (false, false) => AllowOrigin::list(origins.iter().cloned()),
    };
    let exposed = [HeaderName::from_static("x-request-id"), generate::SEED, header::RETRY_AFTER];
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .allow_private_network(true)
        .expose_headers(exposed)
        .max_age(CORS_MAX_AGE);
    Some(layer)
}

/// Serves on `listeners` until `shutdown` is done and running requests have ended, at the latest
/// [`GatewayConfig::drain`] and a second later.
///
/// # Errors
///
/// A listener has no address.
pub async fn serve(
    listeners: Vec<TcpListener>,
    config: GatewayConfig,
    engine: EngineHandle,
    tokenizer: Arc<Tokenizer>,
    template: Template,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let gateway = Arc::new(Gateway::new(config, engine, tokenizer, template));
    server::run(listeners, gateway, shutdown).await
}
