//! How a request to generate is answered, whichever API it came by: read, checked, submitted, and
//! written whole or as a stream.

use super::on_demand::Patience;
use crate::generation::KeyId;
use crate::http::error::{ApiError, Problem, shutting_down};
use crate::http::gateway::Gateway;
use crate::http::input::fields::Fields;
use crate::http::input::job::{Job, take_model};
use crate::http::output::choices::Choices;
use crate::http::output::delta::{Delta, WholeChoice};
use crate::http::output::encoder::Encoder;
use crate::http::output::stream;
use crate::http::server::body;
use crate::http::server::places::ClientHalf;
use crate::http::server::request_log::RequestLog;
use crate::metrics::{Meter, Outcome};
use crate::models::ServedModel;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// The header that says which seed was used.
pub const SEED: HeaderName = HeaderName::from_static("x-woolly-seed");

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

/// Who asks, and for which model.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key that the guard has found.
    pub key: KeyId,
    /// The model's name as the client wrote it.
    pub named: String,
    /// The model.
    pub model: Arc<ServedModel>,
}

/// What a request asks for by its fields, and what writes its answer.
type Parse<E> = fn(&Gateway, Fields, Caller) -> Result<(Job, E), ApiError>;

/// Answers a request of an API, and measures it from here to its end.
///
/// # Errors
///
/// What is wrong with the request, a refusal of the engine, or its failure.
pub async fn answer<E: Encoder>(
    gateway: &Arc<Gateway>,
    request: Request,
    parse: Parse<E>,
) -> Result<Response, ApiError> {
    let mut meter = Meter::start(Arc::clone(gateway.engine.metrics()));
    let client = request.extensions().get::<ClientHalf>().cloned();
    let log = request.extensions().get::<RequestLog>().cloned().ok_or_else(unguarded)?;
    let parsed = parsed(gateway, request, parse, &log).await;
    let (job, mut encoder) = parsed.inspect_err(|_| meter.ended(Outcome::Refused))?;
    let Job { model, choices, stream, seed } = job;
    let (engine, tokenizer) = (&gateway.engine, Arc::clone(&model.tokenizer));
    let mut choices = Choices::start(choices, engine, tokenizer, meter, log.clone()).await?;
    if stream {
        let closing = gateway.closing.clone();
        return Ok(with_seed(stream::response(encoder, choices, closing, client, log), seed));
    }
    let whole = tokio::select! {
        biased;
        () = gateway.closing.cancelled() => {
            choices.failed();
            return Err(shutting_down());
        }
        whole = collect(&mut choices, &mut encoder) => whole?,
    };
    let text = encoder.whole(&whole, choices.usage());
    let json = HeaderValue::from_static("application/json");
    Ok(with_seed(([(header::CONTENT_TYPE, json)], text).into_response(), seed))
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

/// What a look at a request came to.
enum Looked<T> {
    Found(T),
    /// It names this model, and cannot be answered now.
    Not(Option<String>, ApiError),
}

/// Looks at a request on a blocking thread; again when the model that it names was loaded for it.
///
/// # Errors
///
/// What is wrong with the request, or with its model.
pub async fn look<T: Send + 'static>(
    gateway: &Arc<Gateway>,
    body: body::ReadBody,
    work: impl Fn(&Gateway, Fields) -> Result<T, ApiError> + Clone + Send + 'static,
) -> Result<T, ApiError> {
    let (body, mut patience) = (Arc::new(body), Patience::new(gateway));
    loop {
        let (body, work) = (Arc::clone(&body), work.clone());
        let looked = gateway.blocking(move |gateway| {
            let fields = Fields::of_bytes(&body.bytes)?;
            let named = fields.peek("model").and_then(|name| name.as_str().map(str::to_owned));
            Ok(work(gateway, fields).map_or_else(|error| Looked::Not(named, error), Looked::Found))
        });
        match looked.await? {
            Looked::Found(found) => return Ok(found),
            Looked::Not(named, error) => patience.wait(gateway, named, error).await?,
        }
    }
}

/// Reads a request and finds out what it asks for.
async fn parsed<E: Encoder>(
    gateway: &Arc<Gateway>,
    request: Request,
    parse: Parse<E>,
    log: &RequestLog,
) -> Result<(Job, E), ApiError> {
    let (key, log) = (key_of(&request), log.clone());
    let body = read(gateway, request).await?;
    let parsed = look(gateway, body, move |gateway, mut fields| {
        let (named, model) = take_model(&mut fields, gateway, Some(&log))?;
        parse(gateway, fields, Caller { key, named, model })
    });
    let parsed = parsed.await?;
    if gateway.draining.is_cancelled() { Err(shutting_down()) } else { Ok(parsed) }
}

/// The complete choices.
async fn collect(
    choices: &mut Choices,
    encoder: &mut impl Encoder,
) -> Result<Vec<WholeChoice>, ApiError> {
    let mut whole = vec![WholeChoice::default(); choices.count()];
    while let Some(next) = choices.next().await {
        let (index, deltas) = next?;
        if deltas.first() == Some(&Delta::Start) {
            encoder.begins();
        }
        deltas.into_iter().for_each(|delta| whole[index].add(delta));
    }
    Ok(whole)
}
