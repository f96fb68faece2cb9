//! The gateway: an OpenAI-compatible HTTP server in front of the cluster.
//!
//! A request is read ([`body`]), checked field by field and tokenised on a blocking thread
//! ([`prepare`]), submitted through [`crate::generation`], and answered whole or as a stream
//! ([`generate`], [`sse`]). Fields are obeyed or refused by name, never ignored: what is accepted
//! without acting on it stands in one table ([`known`]). Every error has OpenAI's shape ([`error`]).
//!
//! | file | holds |
//! | --- | --- |
//! | `gateway.rs`, `routes.rs` | configuration, shared state; which function answers which path |
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
pub mod routes;
pub mod samplers;
pub mod sampling;
pub mod server;
pub mod socket;
pub mod sse;
pub mod stall;
pub mod template_options;
pub mod tokenize;
pub mod usage;

#[cfg(test)]
pub(crate) mod tests;

pub use gateway::{Gateway, GatewayConfig, ModelFacts};
pub use routes::router;

use crate::generation::EngineHandle;
use crate::template::Template;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use woolly_engine::tokenizer::Tokenizer;

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
    serve_gateway(listeners, gateway, shutdown).await
}

/// As [`serve`], for a gateway that is there.
async fn serve_gateway(
    listeners: Vec<TcpListener>,
    gateway: Arc<Gateway>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut served = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let routes = router(Arc::clone(&gateway), listener.local_addr()?.ip());
        served.push((listener, routes));
    }
    server::run(served, &gateway, shutdown).await;
    Ok(())
}
