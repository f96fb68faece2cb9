//! How a request to generate is answered, whichever API it came by: read, checked, submitted, and
//! written whole or as a stream.
//!
//! With a journal a stream whose events have ids is written down before its first byte, and can be continued
//! ([`streams`](super::streams)): then the stream is made by a task of its own, and the answer reads it.

use super::on_demand::Patience;
use crate::generation::KeyId;
use crate::http::error::{ApiError, Problem, shutting_down};
use crate::http::gateway::Gateway;
use crate::http::ids::Identity;
use crate::http::input::fields::Fields;
use crate::http::input::job::{Job, take_model};
use crate::http::output::choices::Choices;
use crate::http::output::delta::{Delta, WholeChoice};
use crate::http::output::encoder::Encoder;
use crate::http::output::record::Recorder;
use crate::http::output::streams::Streams;
use crate::http::output::{follow, stream};
use crate::http::server::body;
use crate::http::server::places::ClientHalf;
use crate::http::server::request_log::RequestLog;
use crate::journal::{Entry, NotKept};
use crate::metrics::{Meter, Outcome};
use crate::models::ServedModel;
use crate::trace::Trace;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The header that says which seed was used.
pub const SEED: HeaderName = HeaderName::from_static("x-woolly-seed");

/// The header that says under which number a stream can be continued.
pub const STREAM: HeaderName = HeaderName::from_static("x-woolly-stream");

/// The header that says why a stream is not in the journal, although there is one.
pub const JOURNAL: HeaderName = HeaderName::from_static("x-woolly-journal");

/// An API whose streams can be continued: its events have ids. The numbers stand in journals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/v1/chat/completions`.
    Chat = 1,
    /// `/v1/completions`.
    Completions = 2,
    /// `/v1/responses`.
    Responses = 3,
    /// `/v1/messages`.
    Messages = 4,
    /// `/infill`.
    Infill = 5,
}

impl Api {
    /// The one with this number.
    pub fn of(number: u8) -> Option<Api> {
        let all = [Api::Chat, Api::Completions, Api::Responses, Api::Messages, Api::Infill];
        all.into_iter().find(|api| *api as u8 == number)
    }
}

/// The key that the guard has found.
pub fn key_of(request: &Request) -> KeyId {
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
    /// All that is by chance or by the clock in the answer.
    pub identity: Identity,
}

/// What a request asks for by its fields, and what writes its answer.
pub type Parse<E> = fn(&Gateway, Fields, Caller) -> Result<(Job, E), ApiError>;

/// Answers a request of an API, and measures it from here to its end.
///
/// # Errors
///
/// What is wrong with the request, a refusal of the engine, or its failure.
pub async fn answer<E: Encoder>(
    gateway: &Arc<Gateway>,
    request: Request,
    api: Option<Api>,
    parse: Parse<E>,
) -> Result<Response, ApiError> {
    let mut meter = Meter::start(Arc::clone(gateway.engine.metrics()));
    let client = request.extensions().get::<ClientHalf>().cloned();
    let log = request.extensions().get::<RequestLog>().cloned().ok_or_else(unguarded)?;
    let (identity, key) = (Identity::new()?, key_of(&request));
    let engine = gateway.engine.traced(Trace::begin(traceparent(request.headers())));
    let parsed = parsed(gateway, request, identity, parse, &log).await;
    let (job, mut encoder, body) = parsed.inspect_err(|_| meter.ended(Outcome::Refused))?;
    let resumable = api.zip(gateway.streams.as_ref()).filter(|_| job.stream);
    let written = resumable.map(|(api, streams)| {
        let owner = streams.journal.seal(&gateway.config.keys.hash(key));
        entry(api, owner, identity, &job, &body)
    });
    drop(body);
    let Job { model, choices, stream, seed } = job;
    let tokenizer = Arc::clone(&model.tokenizer);
    let mut choices = Choices::start(choices, &engine, tokenizer, meter, log.clone()).await?;
    if stream {
        let closing = gateway.closing.clone();
        let streaming = Streaming { encoder, choices, closing, client, log };
        let response = match (written, &gateway.streams) {
            (Some(entry), Some(streams)) => streaming.kept(streams, entry).await,
            _ => streaming.plain(),
        };
        return Ok(with_seed(response, seed));
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

/// What a request says of the trace that it belongs to; of two such headers neither counts.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all("traceparent").iter();
    all.next().filter(|_| all.next().is_none())?.to_str().ok()
}

/// A streamed answer that is about to begin.
struct Streaming<E> {
    encoder: E,
    choices: Choices,
    closing: CancellationToken,
    client: Option<ClientHalf>,
    log: RequestLog,
}

impl<E: Encoder> Streaming<E> {
    /// It ends with its connection.
    fn plain(self) -> Response {
        let Streaming { encoder, choices, closing, client, log } = self;
        stream::response(encoder, choices, closing, client, log)
    }

    /// It can be continued, if the journal has its request.
    async fn kept(self, streams: &Streams, entry: Entry) -> Response {
        let number = entry.number;
        let tape = match streams.accept(entry).await {
            Ok(tape) => tape,
            Err(refused) => {
                let mut response = self.plain();
                let why = match refused {
                    NotKept::Full => "full",
                    NotKept::Failing => "failing",
                };
                response.headers_mut().insert(JOURNAL, HeaderValue::from_static(why));
                return response;
            }
        };
        let Streaming { encoder, choices, closing, client, log } = self;
        let reader = tape.reader(None);
        let recorder = Recorder {
            number,
            tape,
            encoder: Box::new(encoder),
            choices: choices.in_order(),
            journal: streams.journal.clone(),
            closing: closing.clone(),
            log: None,
        };
        tokio::spawn(recorder.run());
        named_stream(follow::response(reader, closing, client, log), number)
    }
}

/// What the journal has of a request.
fn entry(api: Api, key: [u8; 32], identity: Identity, job: &Job, body: &body::ReadBody) -> Entry {
    Entry {
        number: identity.number,
        created: identity.created,
        seed: job.seed,
        api: api as u8,
        key,
        fingerprint: job.model.fingerprint.get().copied().unwrap_or_default(),
        meaning: meaning(job),
        body: body.bytes.clone(),
    }
}

/// A hash of what is computed: with the same model, the same hash gives the same tokens, as far as numbers say it;
/// grammars and limits follow from the request's bytes.
pub fn meaning(job: &Job) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("woolly 2026 what a request means");
    for choice in &job.choices {
        let request = &choice.request;
        let facts = (&request.prompt, request.max_tokens, &request.sampling, &request.stop_tokens);
        hasher.update(format!("{facts:?}").as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Says under which number a stream can be continued.
pub fn named_stream(mut response: Response, number: u128) -> Response {
    let number = format!("{number:032x}");
    // Hexadecimal digits are a header's value.
    if let Ok(number) = HeaderValue::from_str(&number) {
        response.headers_mut().insert(STREAM, number);
    }
    response
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
    body: impl Into<Arc<body::ReadBody>>,
    work: impl Fn(&Gateway, Fields) -> Result<T, ApiError> + Clone + Send + 'static,
) -> Result<T, ApiError> {
    let (body, mut patience) = (body.into(), Patience::new(gateway));
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
    identity: Identity,
    parse: Parse<E>,
    log: &RequestLog,
) -> Result<(Job, E, Arc<body::ReadBody>), ApiError> {
    let (key, log) = (key_of(&request), log.clone());
    let body = Arc::new(read(gateway, request).await?);
    let parsed = look(gateway, Arc::clone(&body), move |gateway, mut fields| {
        let (named, model) = take_model(&mut fields, gateway, Some(&log))?;
        parse(gateway, fields, Caller { key, named, model, identity })
    });
    let (job, encoder) = parsed.await?;
    if gateway.draining.is_cancelled() { Err(shutting_down()) } else { Ok((job, encoder, body)) }
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
