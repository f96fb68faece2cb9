//! OpenAI's Responses API: `POST /v1/responses` and `POST /v1/responses/input_tokens`, without a memory.
//!
//! Nothing is stored: a conversation is sent whole each time, and there is nothing to ask for afterwards.
//!
//! | file | holds |
//! | --- | --- |
//! | `request.rs`, `items.rs`, `tools.rs` | fields → conversation: all of them, what was said, tools |
//! | `encoder.rs`, `output.rs` | deltas → events of a stream, or one whole response; its items |

pub mod encoder;
mod items;
pub mod output;
pub(super) mod request;
mod tools;

use super::answer::{Api, answer, look, read};
use crate::http::error::{ApiError, Problem, quote};
use crate::http::gateway::Gateway;
use crate::http::ids::Identity;
use crate::http::input::fields::Fields;
use crate::http::input::job::take_model;
use crate::http::server::body;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a conversation.
///
/// # Errors
///
/// 400 naming the field, 404 for another model, 503 while there is no plan; a refusal of the engine, or
/// its failure.
pub async fn responses(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&gateway, request, Some(Api::Responses), request::parse).await
}

/// Tokens of the prompt that a conversation would be, without answering it.
///
/// # Errors
///
/// As [`responses`], but for the engine's: it is not asked.
pub async fn input_tokens(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = read(&gateway, request).await?;
    look(&gateway, body, count).await.map(Json)
}

fn count(gateway: &Gateway, mut fields: Fields) -> Result<Value, ApiError> {
    let (_, model) = take_model(&mut fields, gateway, None)?;
    let tokens =
        request::conversation(fields, &model, Identity::new()?)?.asked.prompt_tokens(&model)?;
    Ok(json!({ "object": "response.input_tokens", "input_tokens": tokens }))
}

/// There is no response to be looked at, cancelled or deleted.
///
/// # Errors
///
/// 404, always.
pub async fn stored(Path(id): Path<String>, request: Request) -> ApiError {
    body::discard(request).await;
    let text = format!("There is no response '{}': responses are not stored here.", quote(&id));
    ApiError::new(Problem::NotFound, text)
}
