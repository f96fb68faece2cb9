//! The routes of the gateway, and the layers around them.
//!
//! It knows which function answers which path, and nothing of what an answer holds.

use super::api::{
    admin, answer, chat, cluster, completions, events, fields, health, history, infill, members,
    messages, metrics, models, ollama, page, props, responses, session, shape, streams, tokenize,
};
use super::gateway::Gateway;
use super::server::admin::Door;
use super::server::guard::{self, Guard, Hosts};
use super::server::paths;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::routing::{any, get, post};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// How long a browser may remember what it was told about another origin.
const CORS_MAX_AGE: Duration = Duration::from_secs(3600);

/// The whole gateway as one service, for a listener on `bound`.
pub fn router(gateway: Arc<Gateway>, bound: IpAddr) -> Router {
    guarded(routes().merge(admin_routes()), gateway, bound)
}

/// The admin API and what probes ask, for the socket in the state directory.
pub fn admin_router(gateway: Arc<Gateway>) -> Router {
    let hosts = Hosts::all();
    let checks = Guard { gateway: Arc::clone(&gateway), hosts, door: Door::Socket };
    within(admin_routes().merge(probe_routes()), gateway, checks)
}

fn probe_routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
}

fn admin_routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/admin/v1/models", get(admin::list))
        .route("/admin/v1/models/load", post(admin::load))
        .route("/admin/v1/models/unload", post(admin::unload))
        .route("/admin/v1/cluster", get(cluster::cluster))
        .route("/admin/v1/remove", post(members::remove))
        .route("/admin/v1/ban", post(members::ban))
        .route("/admin/v1/allow", post(members::allow))
        .route("/admin/v1/tokens", post(members::token))
        .route("/admin/v1/events", get(events::events))
        .route("/admin/v1/history", get(history::history))
        .route("/admin/v1/requests", get(history::requests))
        .route("/admin/v1/session", post(session::session))
        .route("/admin/v1/page", post(session::page))
}

fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/v1/chat/completions", post(chat::chat))
        .route("/chat/completions", post(chat::chat))
        .route("/v1/completions", post(completions::completions))
        .route("/completions", post(completions::completions))
        .route("/v1/responses", post(responses::responses))
        .route("/responses", post(responses::responses))
        .route("/v1/responses/input_tokens", post(responses::input_tokens))
        .route("/v1/responses/{*id}", any(responses::stored))
        .route("/responses/{*id}", any(responses::stored))
        .route("/v1/messages", post(messages::messages))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/v1/streams/{id}", get(streams::stream))
        .route("/infill", post(infill::infill))
        .route("/v1/models", get(models::list))
        .route("/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/models/{*name}", get(models::one))
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/tags", get(ollama::models::tags))
        .route("/api/ps", get(ollama::models::ps))
        .route("/api/show", post(ollama::models::show))
        .route("/api/version", get(ollama::models::version))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/apply-template", post(props::apply_template))
        .route("/tokenizer_info", get(props::tokenizer_info))
        .route("/props", get(props::props))
        .merge(probe_routes())
        .route("/v1/health", get(health::health))
        .route("/ping", get(health::livez))
        .route("/version", get(health::version))
        .route("/openapi.json", get(fields::document::openapi))
        .route("/metrics", get(metrics::metrics))
        .route("/", get(page::page))
        .route("/page/{name}", get(page::file))
        .route("/favicon.ico", get(page::favicon))
        .merge(not_done())
}

/// What Ollama has and Woolly does not.
fn not_done() -> Router<Arc<Gateway>> {
    let paths =
        ["pull", "push", "create", "copy", "delete", "embed", "embeddings", "blobs/{*digest}"];
    paths.iter().fold(Router::new(), |router, path| {
        router.route(&format!("/api/{path}"), any(ollama::models::unsupported))
    })
}

/// Routes with what holds for every request. Paths are cleaned outside all else, so that nobody looks
/// at another path than the router does.
pub(super) fn guarded(
    routes: Router<Arc<Gateway>>,
    gateway: Arc<Gateway>,
    bound: IpAddr,
) -> Router {
    let hosts = Hosts::new(bound, &gateway.config.allowed_hosts);
    let origins = cors(&gateway.config.cors_origins);
    let checks = Guard { gateway: gateway.clone(), hosts, door: Door::Http };
    let outer = within(routes, gateway, checks);
    match origins {
        Some(origins) => outer.layer(origins),
        None => outer,
    }
}

/// Routes behind their guard.
fn within(routes: Router<Arc<Gateway>>, gateway: Arc<Gateway>, checks: Guard) -> Router {
    let inner = routes
        .fallback(guard::not_found)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(CatchPanicLayer::custom(guard::panicked))
        .layer(axum::middleware::from_fn_with_state(checks, guard::guard))
        .layer(axum::middleware::from_fn(shape::errors))
        .with_state(gateway);
    let clean = |mut request: Request| {
        *request.uri_mut() = paths::clean(std::mem::take(request.uri_mut()));
        request
    };
    Router::new().fallback_service(inner).layer(tower::util::MapRequestLayer::new(clean))
}

/// What lets pages of other origins ask and read answers; their browsers ask first, without a key.
fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let all = origins.iter().any(|origin| origin == "*");
    let allowed = match (origins.is_empty(), all) {
        (true, _) => return None,
        (false, true) => AllowOrigin::any(),
        (false, false) => AllowOrigin::list(origins.iter().cloned()),
    };
    let exposed = [
        HeaderName::from_static("x-request-id"),
        answer::SEED,
        answer::STREAM,
        answer::JOURNAL,
        header::RETRY_AFTER,
    ];
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .allow_private_network(true)
        .expose_headers(exposed)
        .max_age(CORS_MAX_AGE);
    Some(layer)
}
