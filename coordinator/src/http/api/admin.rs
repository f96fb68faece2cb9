//! `/admin/v1/models…`: which models there are, and loading and unloading them while the server runs.
//!
//! Who may ask is the guard's to know. An answer comes when a model is ready or cannot be, at the latest after
//! the time that was asked for; whoever goes away before changes nothing of what is done.

use super::answer::read;
use crate::admin::{AdminHandle, Ask, Kept, KeptModel, LoadOptions, Progress, Refused, Source};
use crate::generation::ModelId;
use crate::http::error::{ApiError, Problem, shutting_down};
use crate::http::gateway::Gateway;
use crate::http::input::fields::{Fields, expected};
use crate::http::server::admin::Door;
use crate::status::WorkerMemory;
use crate::units::parse_size;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use woolly_engine::plan::KvType;

/// Characters of a name or a path.
const TEXT_CHARS_MAX: usize = 4096;
/// Bytes of a name in the API.
const ALIAS_BYTES_MAX: usize = 64;
/// Names of a model.
const ALIASES_MAX: usize = 16;
/// How long an answer waits for a model, in seconds, unless the request says otherwise.
const WAIT_S: u64 = 600;
/// How long it waits at most, and how long generations may go on after an unload.
const WAIT_S_MAX: u64 = 3600;
/// Workers that a plan can wait for.
const WORKERS_MAX: u64 = 64;

/// The way to who keeps the models.
///
/// # Errors
///
/// 404 where nobody does.
pub fn keeper(gateway: &Gateway) -> Result<&AdminHandle, ApiError> {
    let none = || ApiError::new(Problem::NotFound, "There is no admin API here.");
    gateway.admin.as_ref().map(|admin| &admin.handle).ok_or_else(none)
}

/// The models that are loaded and those that can be, with what each worker's memory is taken by.
///
/// # Errors
///
/// 503 while the server goes down.
pub async fn list(State(gateway): State<Arc<Gateway>>) -> Result<Json<Value>, ApiError> {
    let kept = keeper(&gateway)?.ask(Ask::List).await.ok_or_else(shutting_down)?;
    let Kept { models, stock, workers } = kept;
    let loadable = stock.as_ref().map(|stock| {
        let named = stock.models.iter().map(|on_shelf| {
            let is_of = |model: &&KeptModel| model.source.as_ref() == Some(&on_shelf.name);
            let loaded = models.iter().find(is_of).map(|model| &model.name);
            json!({ "name": on_shelf.name, "size": on_shelf.bytes, "loaded_as": loaded })
        });
        named.collect::<Vec<Value>>()
    });
    Ok(Json(json!({
        "object": "list",
        "data": models.iter().map(|model| described(&gateway, model)).collect::<Vec<_>>(),
        "loadable": loadable,
        "loadable_is_cut": stock.is_some_and(|stock| stock.is_cut),
        "workers": workers.iter().map(memory).collect::<Vec<_>>(),
    })))
}

/// Loads a model.
///
/// # Errors
///
/// 400 naming the field, or what is wrong with the file; 404 if there is no such model; 409 if something is in
/// the way, room for it included.
pub async fn load(
    State(gateway): State<Arc<Gateway>>,
    Extension(door): Extension<Door>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = read(&gateway, request).await?;
    let mut fields = Fields::of_bytes(&body.bytes)?;
    let source = source(&mut fields, door)?;
    let options = options(&mut fields)?;
    let wait = fields.bool("wait")?.unwrap_or(true);
    let wait_s = fields.integer("timeout_s", 1..=WAIT_S_MAX)?.unwrap_or(WAIT_S);
    fields.finish()?;
    let ask = |reply| Ask::Load { source, options, reply };
    let answer = keeper(&gateway)?.ask(ask).await.ok_or_else(shutting_down)?;
    let mut loading = answer?;
    if !wait {
        let text = format!("'{}' is being loaded.", loading.name);
        return Ok(answered(&gateway, loading.model, StatusCode::ACCEPTED, true, &text).await);
    }
    let Ok(progress) = timeout(Duration::from_secs(wait_s), loading.settled()).await else {
        let detail = gateway.engine.status(loading.model).detail;
        let text = format!("'{}' is still being loaded: {detail}", loading.name);
        return Ok(answered(&gateway, loading.model, StatusCode::ACCEPTED, false, &text).await);
    };
    match progress {
        Progress::Failed(why) => {
            let text = format!("'{}' could not be loaded: {why}", loading.name);
            Err(ApiError::new(Problem::Conflict, text).coded("load_failed"))
        }
        Progress::Unloading => {
            let text = format!("'{}' was unloaded while it was being loaded.", loading.name);
            Err(ApiError::new(Problem::Conflict, text))
        }
        Progress::Ready | Progress::Loading(_) => {
            let was_there = if loading.was_there { " was loaded already." } else { " is ready." };
            let text = format!("'{}'{was_there}", loading.name);
            Ok(answered(&gateway, loading.model, StatusCode::OK, true, &text).await)
        }
    }
}

/// Unloads a model.
///
/// # Errors
///
/// 400 naming the field, 404 if no model is called so.
pub async fn unload(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = read(&gateway, request).await?;
    let mut fields = Fields::of_bytes(&body.bytes)?;
    let name = fields.string("name", TEXT_CHARS_MAX)?;
    let name = name.ok_or_else(|| ApiError::invalid("name", "'name' is missing."))?;
    let drain_s = fields.integer("drain_s", 0..=WAIT_S_MAX)?.unwrap_or(0);
    fields.finish()?;
    let patience = Duration::from_secs(drain_s);
    let ask = |reply| Ask::Unload { name, patience, reply };
    let gone = keeper(&gateway)?.ask(ask).await.ok_or_else(shutting_down)??;
    Ok(Json(json!({
        "success": true,
        "message": format!("'{}' was unloaded.", gone.name),
        "unfinished": gone.unfinished,
    })))
}

/// What is to be loaded. A file's path is taken from this machine's own users only: over HTTP it would tell
/// strangers which files there are.
fn source(fields: &mut Fields, door: Door) -> Result<Source, ApiError> {
    let name = fields.string("name", TEXT_CHARS_MAX)?;
    let path = fields.string("path", TEXT_CHARS_MAX)?;
    match (name, path) {
        (Some(name), None) => Ok(Source::Name(name)),
        (None, Some(_)) if door == Door::Http => {
            let text = "A path is taken on the socket of the state directory only ('woolly-coordinator models load \
                        --path FILE'); over HTTP a model is loaded by its 'name' in --model-dir.";
            Err(ApiError::unsupported("path", text))
        }
        (None, Some(path)) if !path.starts_with('/') => {
            Err(ApiError::invalid("path", "'path' must begin with '/'."))
        }
        (None, Some(path)) => Ok(Source::Path(PathBuf::from(path))),
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("path", "Give one of 'name' and 'path', not both."))
        }
        (None, None) => Err(ApiError::invalid("name", "'name' is missing: what is to be loaded?")),
    }
}

fn options(fields: &mut Fields) -> Result<LoadOptions, ApiError> {
    let Some(given) = fields.take("options") else { return Ok(LoadOptions::default()) };
    let mut given = Fields::of_value(given, "options")?;
    let cache_type = given.string("cache_type", TEXT_CHARS_MAX)?.map(|text| cache_type(&text));
    let options = LoadOptions {
        ctx_size: given.integer("ctx_size", 0..=u32::MAX.into())?.map(narrow),
        cache_type: cache_type.transpose()?,
        kv_memory: given.take("kv_memory").map(kv_memory).transpose()?,
        alias: given.take("alias").map(aliases).transpose()?.unwrap_or_default(),
        workers: given.integer("workers", 1..=WORKERS_MAX)?.map(narrow),
    };
    given.finish()?;
    Ok(options)
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("the range of the field fits u32")
}

fn cache_type(text: &str) -> Result<KvType, ApiError> {
    let named = KvType::ALL.into_iter().find(|ty| ty.name() == text);
    named.ok_or_else(|| {
        let names = KvType::ALL.map(KvType::name).join("' or '");
        ApiError::invalid("options.cache_type", format!("'options.cache_type' must be '{names}'."))
    })
}

/// Bytes: a number, or as the flags have it.
fn kv_memory(value: Value) -> Result<u64, ApiError> {
    let at = "options.kv_memory";
    let bytes = match &value {
        Value::String(text) => parse_size(text).ok(),
        other => other.as_u64(),
    };
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| expected(at, "a number of bytes, or a size such as \"512MiB\"", &value))
}

/// One name or several.
fn aliases(value: Value) -> Result<Vec<String>, ApiError> {
    let at = "options.alias";
    let is_alias = |text: &str| {
        (1..=ALIAS_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
    };
    let names: Option<Vec<String>> = match &value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(several) => {
            several.iter().map(|name| name.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    };
    let names =
        names.filter(|names| names.len() <= ALIASES_MAX && names.iter().all(|name| is_alias(name)));
    names.ok_or_else(|| {
        let text =
            format!("a name or up to {ALIASES_MAX} of them, each of 1 to {ALIAS_BYTES_MAX} bytes");
        expected(at, &text, &value)
    })
}

async fn answered(
    gateway: &Gateway,
    model: ModelId,
    status: StatusCode,
    success: bool,
    message: &str,
) -> Response {
    let kept = match keeper(gateway) {
        Ok(keeper) => keeper.ask(Ask::List).await.unwrap_or_default(),
        Err(_) => Kept::default(),
    };
    let found = kept.models.iter().find(|kept| kept.model == model);
    let described = found.map(|found| described(gateway, found));
    let body = json!({ "success": success, "message": message, "model": described });
    (status, Json(body)).into_response()
}

fn described(gateway: &Gateway, model: &KeptModel) -> Value {
    let status = gateway.engine.status(model.model);
    let (state, percent) = match &model.progress {
        Progress::Loading(percent) => ("loading", *percent),
        Progress::Ready if status.ready => ("ready", 100),
        // It was served, and its pipeline is lost.
        Progress::Ready => ("waiting", status.loaded_percent),
        Progress::Unloading => ("unloading", 100),
        Progress::Failed(_) => ("failed", 0),
    };
    json!({
        "name": model.name,
        "aliases": model.aliases,
        "source": model.source,
        "state": state,
        "progress": percent,
        "detail": status.detail,
        "ctx_size": status.ctx_size,
        "kv_type": status.kv_type,
        "kv_tokens": status.kv_tokens,
        "requests_running": status.running,
        "requests_waiting": status.waiting,
    })
}

fn memory(memory: &WorkerMemory) -> Value {
    let models = memory.models.iter().map(|held| {
        json!({
            "model": held.model, "weights": held.weights, "kv": held.kv, "scratch": held.scratch,
        })
    });
    json!({
        "worker": memory.worker,
        "worker_id": memory.worker_id,
        "allowance": memory.allowance,
        "free": memory.free,
        "models": models.collect::<Vec<_>>(),
    })
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        let text = refused.to_string();
        match refused {
            Refused::NotFound(_) => ApiError::new(Problem::ModelNotFound, text).at("name"),
            Refused::Conflict(_) => ApiError::new(Problem::Conflict, text),
            Refused::Unusable(_) => ApiError::new(Problem::Invalid, text).coded("model_unusable"),
            Refused::ShuttingDown => shutting_down(),
        }
    }
}
