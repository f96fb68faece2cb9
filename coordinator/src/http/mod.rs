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
pub mod gateway;
pub mod generate;
pub mod guard;
pub mod health;
pub mod ids;
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

pub use gateway::{Gateway, GatewayConfig, ModelFacts};

use crate::generation::EngineHandle;
use crate::template::Template;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::routing::{get, post};
use guard::{Door, Hosts};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use woolly_engine::tokenizer::Tokenizer;

/// How long a browser may remember what it was told about another origin.
const CORS_MAX_AGE: Duration = Duration::from_secs(3600);
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
