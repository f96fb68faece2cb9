//! `POST /v1/chat/completions` and `POST /v1/completions`.

use super::choice::{Choices, Piece};
use super::error::{ApiError, shutting_down};
use super::prepare::{self, Prepared};
use super::{Gateway, body, sse};
use crate::generation::KeyId;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Answers a conversation.
///
/// # Errors
///
/// What [`prepare::chat`] finds, a refusal of the engine, or its failure.
pub async fn chat(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    let key = key_of(&request);
    let body = read(&gateway, request).await?;
    let prepared =
        gateway.blocking(move |gateway| prepare::chat(gateway, &body.bytes, key)).await?;
    respond(&gateway, prepared).await
}

/// Continues one or more texts.
///
/// # Errors
///
/// What [`prepare::completion`] finds, a refusal of the engine, or its failure.
pub async fn completion(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    let key = key_of(&request);
    let body = read(&gateway, request).await?;
    let prepared =
        gateway.blocking(move |gateway| prepare::completion(gateway, &body.bytes, key)).await?;
    respond(&gateway, prepared).await
}

/// The key that the guard has found.
fn key_of(request: &Request) -> KeyId {
    request.extensions().get().copied().unwrap_or_default()
}

/// Reads the body of a request.
///
/// # Errors
///
/// As [`body::read`].
pub async fn read(gateway: &Gateway, request: Request) -> Result<body::ReadBody, ApiError> {
    let (parts, body) = request.into_parts();
    body::read(&parts.headers, body, &gateway.body_budget).await
}

async fn respond(gateway: &Gateway, prepared: Prepared) -> Result<Response, ApiError> {
    if gateway.draining.is_cancelled() {
        return Err(shutting_down());
    }
    let Prepared { answer, choices, stream } = prepared;
    let mut choices = Choices::start(choices, &gateway.engine, gateway.tokenizer.clone()).await?;
    if stream {
        return Ok(sse::response(answer, choices, gateway.closing.clone()));
    }
    let pieces = tokio::select! {
        biased;
        () = gateway.closing.cancelled() => return Err(shutting_down()),
        pieces = collect(&mut choices) => pieces?,
    };
    Ok(Json(answer.whole(&pieces, choices.usage())).into_response())
}

/// The complete choices.
async fn collect(choices: &mut Choices) -> Result<Vec<Piece>, ApiError> {
    let mut whole = vec![Piece::default(); choices.count()];
    while let Some(next) = choices.next().await {
        let (index, piece) = next?;
        whole[index].text.push_str(&piece.text);
        whole[index].lines.extend(piece.lines);
        whole[index].finish = piece.finish;
    }
    Ok(whole)
}
