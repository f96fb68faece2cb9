//! `GET /v1/streams/{id}`: a stream that was begun by another request goes on, also after the server started again.
//!
//! What is to be computed again is read again from the journal's record of the request, by the same functions that read
//! it the first time, with the same identity; so it is the same request, and its tokens are the same. That it is the
//! same is checked ([`meaning`]): a context, a template or a model that changed ends the stream instead.

use super::answer::{Api, Caller, Parse, key_of, meaning};
use super::on_demand::Patience;
use super::{chat, completions, infill, messages, responses};
use crate::generation::KeyId;
use crate::http::error::{ApiError, Problem, quote};
use crate::http::gateway::Gateway;
use crate::http::ids::Identity;
use crate::http::input::fields::Fields;
use crate::http::input::job::Job;
use crate::http::output::choices::Choices;
use crate::http::output::encoder::Encoder;
use crate::http::output::follow;
use crate::http::output::place::Place;
use crate::http::output::record::Recorder;
use crate::http::output::streams::{Found, Streams, ToRestore, gone};
use crate::http::output::tape::{NoSuchPlace, Tape};
use crate::http::server::places::ClientHalf;
use crate::http::server::request_log::{Entry, RequestLog};
use crate::http::usage::Usage;
use crate::journal::Restored;
use crate::metrics::Meter;
use crate::models::ServedModel;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// Hexadecimal digits of a stream's number.
const NUMBER_DIGITS: usize = 32;
/// The header with which a client says what it has.
const LAST_EVENT_ID: &str = "last-event-id";
/// A stream that cannot begin again yet is tried again after this.
const AGAIN: Duration = Duration::from_millis(100);

/// Goes on with a stream after the event that `Last-Event-ID` names, or from its beginning. Who read it before reads it
/// no more.
///
/// # Errors
///
/// 404 for a stream that is not there or belongs to another key, 410 for one that cannot be continued, 400 for a place
/// that is none or that it has not reached.
pub async fn stream(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let log = request.extensions().get::<RequestLog>().cloned();
    let (Some(streams), Some(log)) = (&gateway.streams, log) else { return Err(no_journal()) };
    if request.method() == Method::HEAD {
        let text = "HEAD would take the stream away from its reader: use GET.";
        return Err(ApiError::new(Problem::Method, text));
    }
    let owner = streams.journal.seal(&gateway.config.keys.hash(key_of(&request)));
    let number = number_of(&id).ok_or_else(|| unknown(&id))?;
    let found = streams.find(number, &owner);
    let tape = match &found {
        Found::Here(tape) | Found::Again(tape, _) => Arc::clone(tape),
        Found::Gone(why) => return Err(gone(why)),
        Found::Nothing => return Err(unknown(&id)),
    };
    if let Found::Again(tape, restored) = found {
        tokio::spawn(again(Arc::clone(&gateway), *restored, tape));
    }
    let after = after(request.headers())?;
    tape.check(after).map_err(|place| match place {
        NoSuchPlace::Beyond(end) => {
            let text = format!(
                "'Last-Event-ID' names an event that the stream has not reached; the last is {end}."
            );
            ApiError::invalid("Last-Event-ID", text)
        }
        NoSuchPlace::Dropped => {
            gone("What follows that event was read, and there was no more room for it.")
        }
    })?;
    streams.continued();
    let client = request.extensions().get::<ClientHalf>().cloned();
    let closing = gateway.closing.clone();
    let response = follow::response(tape.reader(after), closing, client, log);
    Ok(super::answer::named_stream(response, number))
}

fn no_journal() -> ApiError {
    let text = "No stream can be continued here: the server was started without --journal.";
    ApiError::new(Problem::NotFound, text)
}

/// The same for a stream that is not there and one of another key: nobody learns which there are.
fn unknown(id: &str) -> ApiError {
    let text = format!("There is no stream '{}' of this API key.", quote(id));
    ApiError::new(Problem::NotFound, text)
}

/// The number in the id of an answer, or alone.
fn number_of(id: &str) -> Option<u128> {
    let (beginning, digits) = id.split_at_checked(id.len().checked_sub(NUMBER_DIGITS)?)?;
    let is_id = beginning.is_empty() || beginning.ends_with(['-', '_']);
    let plain = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    let digits = Some(digits).filter(|digits| is_id && digits.bytes().all(plain))?;
    u128::from_str_radix(digits, 16).ok()
}

/// What the client has; an empty id is what it has of nothing.
fn after(headers: &HeaderMap) -> Result<Option<Place>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().unwrap_or("?");
    if text.trim().is_empty() {
        return Ok(None);
    }
    Place::parse(text).map(Some).ok_or_else(|| {
        let text = format!("'Last-Event-ID' must be the 'id' of an event; got '{}'.", quote(text));
        ApiError::invalid("Last-Event-ID", text)
    })
}

/// Begins again what had not ended: of each model one after the other, in the order in which it was accepted.
pub fn restore(gateway: &Arc<Gateway>) {
    let Some(streams) = &gateway.streams else { return };
    let mut of_models: BTreeMap<[u8; 32], ToRestore> = BTreeMap::new();
    for (restored, tape) in streams.take_unfinished() {
        of_models.entry(restored.entry.fingerprint).or_default().push((restored, tape));
    }
    for streams in of_models.into_values() {
        let gateway = Arc::clone(gateway);
        tokio::spawn(async move {
            for (restored, tape) in streams {
                again(Arc::clone(&gateway), restored, tape).await;
            }
        });
    }
}

/// Why a stream does not begin again.
enum Not {
    /// Its model is not ready, or there is no place for it.
    Yet,
    /// No model is called so. It may be loaded on demand, as for the request itself.
    Loaded(String),
    /// It would be another one.
    Ever(String),
}

impl From<ApiError> for Not {
    fn from(error: ApiError) -> Not {
        let passes = [Problem::QueueFull, Problem::KeyBusy, Problem::NotReady, Problem::NoModel];
        match error.problem() {
            Problem::ShuttingDown => Not::Yet,
            problem if passes.contains(&problem) => Not::Yet,
            _ => Not::Ever(format!("Its request is refused now: {}", error.message())),
        }
    }
}

/// Begins one stream again as soon as that is possible.
async fn again(gateway: Arc<Gateway>, restored: Restored, tape: Arc<Tape>) {
    let Some(streams) = &gateway.streams else { return };
    let number = restored.entry.number;
    let (restored, mut patience) = (Arc::new(restored), Patience::new(&gateway));
    while !tape.abandoned.is_cancelled() && !gateway.draining.is_cancelled() {
        match begin(&gateway, streams, &restored, &tape).await {
            Ok(()) => {
                streams.metrics().journal.restored.fetch_add(1, Relaxed);
                return;
            }
            Err(Not::Yet) => tokio::time::sleep(AGAIN).await,
            Err(Not::Loaded(name)) => {
                let absent = ApiError::model_not_found(&name, "it is waited for");
                if patience.wait(&gateway, Some(name), absent).await.is_err() {
                    tokio::time::sleep(AGAIN).await;
                }
            }
            Err(Not::Ever(why)) => {
                tracing::warn!(stream = %format_args!("{number:032x}"), why, "a stream cannot be continued");
                return streams.ends(number, why);
            }
        }
    }
}

async fn begin(
    gateway: &Arc<Gateway>,
    streams: &Streams,
    restored: &Arc<Restored>,
    tape: &Arc<Tape>,
) -> Result<(), Not> {
    let entry = &restored.entry;
    let key = gateway.config.keys.with(&entry.key, |hash| streams.journal.seal(hash));
    let key = key.ok_or_else(|| Not::Ever("Its API key is not known any more.".to_owned()))?;
    let model = the_model(gateway, restored)?;
    let (asked, of) = (Arc::clone(restored), Arc::clone(&model));
    let parsed = gateway.blocking(move |gateway| parse(gateway, &asked, of, key)).await;
    let (job, encoder) = parsed?;
    if job.seed != entry.seed || meaning(&job) != entry.meaning || !job.stream {
        let text = "Its request means something else now: the context, the template or an option has changed.";
        return Err(Not::Ever(text.to_owned()));
    }
    let meter = Meter::start(Arc::clone(gateway.engine.metrics()));
    let log = log_of(gateway, entry.number, key, &model.name);
    let tokenizer = Arc::clone(&model.tokenizer);
    let choices = Choices::start(job.choices, &gateway.engine, tokenizer, meter, log.clone());
    let recorder = Recorder {
        number: entry.number,
        tape: Arc::clone(tape),
        encoder,
        choices: choices.await?.in_order().with_cached(&restored.cached),
        journal: streams.journal.clone(),
        closing: gateway.closing.clone(),
        log: Some(log),
    };
    tokio::spawn(recorder.run());
    Ok(())
}

/// The model of a request: by what is in its files, whatever it is called now.
fn the_model(gateway: &Gateway, restored: &Restored) -> Result<Arc<ServedModel>, Not> {
    let known = |model: &ServedModel| model.fingerprint.get().copied();
    let wanted = restored.entry.fingerprint;
    let is_it = |model: &Arc<ServedModel>| known(model).unwrap_or_default() == wanted;
    if let Some(model) = gateway.models.iter().find(is_it) {
        let is_ready = gateway.engine.status(model.id).ctx_size > 0;
        return if is_ready { Ok(model) } else { Err(Not::Yet) };
    }
    let fields = Fields::of_bytes(&restored.entry.body)?;
    let name = fields.peek("model").and_then(|name| name.as_str().map(str::to_owned));
    let named = name.as_deref();
    let called = named.map_or_else(|| gateway.models.first(), |name| gateway.models.find(name));
    match (called, name) {
        (Some(model), _) if known(&model).is_some() => {
            Err(Not::Ever("Its model is another one now.".to_owned()))
        }
        (None, Some(name)) => Err(Not::Loaded(name)),
        _ => Err(Not::Yet),
    }
}

/// What the request asks for, as it was read the first time.
fn parse(
    gateway: &Gateway,
    restored: &Restored,
    model: Arc<ServedModel>,
    key: KeyId,
) -> Result<(Job, Box<dyn Encoder>), ApiError> {
    let entry = &restored.entry;
    let mut fields = Fields::of_bytes(&entry.body)?;
    let name = fields.take("model");
    let named = name.and_then(|name| name.as_str().map(str::to_owned));
    let named = named.unwrap_or_else(|| model.name.clone());
    let identity = Identity { number: entry.number, created: entry.created, seed: entry.seed };
    let caller = Caller { key, named, model, identity };
    match Api::of(entry.api) {
        Some(Api::Chat) => boxed(chat::parse, gateway, fields, caller),
        Some(Api::Completions) => boxed(completions::parse, gateway, fields, caller),
        Some(Api::Responses) => boxed(responses::request::parse, gateway, fields, caller),
        Some(Api::Messages) => boxed(messages::request::parse, gateway, fields, caller),
        Some(Api::Infill) => boxed(infill::parse, gateway, fields, caller),
        None => Err(ApiError::new(Problem::Internal, "Its API is not known.")),
    }
}

fn boxed<E: Encoder>(
    parse: Parse<E>,
    gateway: &Gateway,
    fields: Fields,
    caller: Caller,
) -> Result<(Job, Box<dyn Encoder>), ApiError> {
    let (job, encoder) = parse(gateway, fields, caller)?;
    Ok((job, Box::new(encoder)))
}

/// The line of a stream that was begun again: nobody has sent a request for it.
fn log_of(gateway: &Gateway, number: u128, key: KeyId, model: &str) -> RequestLog {
    let named = !gateway.config.keys.is_empty();
    let entry = Entry {
        id: format!("{number:032x}"),
        key: if named { format!("key-{}", key.0 + 1) } else { "-".to_owned() },
        method: "AGAIN".to_owned(),
        path: "/v1/streams".to_owned(),
        model: quote(model),
        usage: Usage::default(),
        arrived: Instant::now(),
        first_token: None,
        status: 200,
        reason: None,
        complete: false,
        is_probe: false,
    };
    RequestLog::new(entry, Arc::clone(&gateway.refusals))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_in_the_ids_of_answers() {
        let digits = "00112233445566778899aabbccddeeff";
        let number = Some(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        for id in [digits.to_owned(), format!("chatcmpl-{digits}"), format!("msg_{digits}")] {
            assert_eq!(number_of(&id), number, "{id}");
        }
        for id in [
            "",
            "chatcmpl-",
            &digits[1..],
            &format!("x{digits}"),
            &digits.to_uppercase(),
            "€€€€€€€€€€€",
        ] {
            assert_eq!(number_of(id), None, "{id}");
        }
    }
}
