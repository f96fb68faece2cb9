//! `POST /v1/chat/completions` and `POST /v1/completions`.

use crate::generation::KeyId;
use crate::http::error::{ApiError, Problem, shutting_down};
use crate::http::gateway::Gateway;
use crate::http::input::prepare::{self, Caller, Prepared};
use crate::http::output::choice::{Choices, Piece};
use crate::http::output::sse;
use crate::http::server::body;
use crate::http::server::places::ClientHalf;
use crate::http::server::request_log::RequestLog;
use crate::metrics::{Meter, Outcome};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// The header that says which seed was used.
pub const SEED: HeaderName = HeaderName::from_static("x-woolly-seed");

/// Answers a conversation.
///
/// # Errors
///
/// What [`prepare::chat`] finds, a refusal of the engine, or its failure.
pub async fn chat(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&gateway, request, prepare::chat).await
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
    answer(&gateway, request, prepare::completion).await
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

/// Checks the body of a caller's request.
type Prepare = fn(&Gateway, &[u8], &Caller) -> Result<Prepared, ApiError>;

/// Answers a request that `prepare` checks, and measures it from here to its end.
async fn answer(
    gateway: &Arc<Gateway>,
    request: Request,
    prepare: Prepare,
) -> Result<Response, ApiError> {
    let mut meter = Meter::start(Arc::clone(gateway.engine.metrics()));
    let client = request.extensions().get::<ClientHalf>().cloned();
    let log = request.extensions().get::<RequestLog>().cloned().ok_or_else(unguarded)?;
    let prepared = prepared(gateway, request, prepare, &log).await;
    let prepared = prepared.inspect_err(|_| meter.ended(Outcome::Refused))?;
    let Prepared { answer, choices, stream, seed } = prepared;
    let (engine, tokenizer) = (&gateway.engine, gateway.tokenizer.clone());
    let mut choices = Choices::start(choices, engine, tokenizer, meter, log.clone()).await?;
    if stream {
        let closing = gateway.closing.clone();
        return Ok(with_seed(sse::response(answer, choices, closing, client, log), seed));
    }
    let pieces = tokio::select! {
        biased;
        () = gateway.closing.cancelled() => {
            choices.failed();
            return Err(shutting_down());
        }
        pieces = collect(&mut choices) => pieces?,
    };
    Ok(with_seed(Json(answer.whole(&pieces, choices.usage())).into_response(), seed))
}

/// Every route stands behind the guard, which begins the log's line.
fn unguarded() -> ApiError {
    ApiError::new(Problem::Internal, "An internal error: the request has no entry in the log.")
}

/// Says which seed was used: sent again, it gives the same answer.
fn with_seed(mut response: Response, seed: u64) -> Response {
    response.headers_mut().insert(SEED, HeaderValue::from(seed));
    response
}

async fn prepared(
    gateway: &Arc<Gateway>,
    request: Request,
    prepare: Prepare,
    log: &RequestLog,
) -> Result<Prepared, ApiError> {
    let caller = Caller { key: key_of(&request), log: log.clone() };
    let body = read(gateway, request).await?;
    let prepared = gateway.blocking(move |gateway| prepare(gateway, &body.bytes, &caller)).await?;
    if gateway.draining.is_cancelled() { Err(shutting_down()) } else { Ok(prepared) }
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
