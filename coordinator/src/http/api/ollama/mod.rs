//! Ollama's API: `/api/chat`, `/api/generate`, and what its clients ask about models.
//!
//! | file | holds |
//! | --- | --- |
//! | `request.rs`, `options.rs`, `turns.rs` | fields → conversation or text: all of them, options, what was said |
//! | `encoder.rs` | deltas → lines of a stream, or one whole answer |
//! | `models.rs` | the models, and what cannot be done to them |
//! | `error.rs` | errors in this API's words |
//!
//! Its lines have no ids, so its streams cannot be continued.

pub mod encoder;
pub mod error;
pub mod models;
mod options;
mod request;
mod turns;

use super::answer::answer;
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;

/// Answers a conversation.
///
/// # Errors
///
/// 400 naming the field, 404 for another model, 503 while there is no plan; a refusal of the engine, or
/// its failure.
pub async fn chat(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&gateway, request, None, request::chat).await
}

/// Answers a prompt, or continues a text (`raw`).
///
/// # Errors
///
/// As [`chat`].
pub async fn generate(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&gateway, request, None, request::generate).await
}
