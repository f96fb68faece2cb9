//! Anthropic's API: `POST /v1/messages` and `POST /v1/messages/count_tokens`.
//!
//! | file | holds |
//! | --- | --- |
//! | `request.rs`, `turns.rs`, `tools.rs` | fields → conversation: all of them, what was said, tools |
//! | `encoder.rs` | deltas → events of a stream, or one whole message |
//! | `error.rs` | errors in this API's words |

pub mod encoder;
pub mod error;
pub(super) mod request;
mod tools;
mod turns;

use super::answer::{Api, answer, look, read};
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::ids::Identity;
use crate::http::input::fields::Fields;
use crate::http::input::job::take_model;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a conversation.
///
/// # Errors
///
/// 400 naming the field, 404 for another model, 503 while there is no plan; a refusal of the engine, or
/// its failure.
pub async fn messages(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&gateway, request, Some(Api::Messages), request::parse).await
}

/// Tokens of the prompt that a conversation would be, without answering it.
///
/// # Errors
///
/// As [`messages`], but for the engine's: it is not asked.
pub async fn count_tokens(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = read(&gateway, request).await?;
    look(&gateway, body, count).await.map(Json)
}

fn count(gateway: &Gateway, mut fields: Fields) -> Result<Value, ApiError> {
    let (_, model) = take_model(&mut fields, gateway, None)?;
    let identity = Identity::new()?;
    let mut count = || {
        let tokens =
            request::conversation(&mut fields, &model, identity)?.asked.prompt_tokens(&model)?;
        Ok(json!({ "input_tokens": tokens }))
    };
    let counted = count().map_err(|error: ApiError| error.renamed(request::NAMES))?;
    fields.finish()?;
    Ok(counted)
}
