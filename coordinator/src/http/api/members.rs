//! `POST /admin/v1/remove | ban | allow | tokens`: who belongs to the cluster.

use super::admin::keeper;
use super::answer::read;
use crate::admin::Ask;
use crate::admin::members::{Excluded, Lifted, MemberAsk, Named, NotDone};
use crate::http::error::{ApiError, Problem, shutting_down};
use crate::http::gateway::Gateway;
use crate::http::input::fields::Fields;
use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Characters of a name, an id or a machine.
const TEXT_CHARS_MAX: usize = 64;
/// How long a token is good for, in seconds, unless the request says otherwise.
const TTL_S: u64 = 24 * 3600;
/// How long at most.
const TTL_S_MAX: u64 = 3650 * 86_400;

/// Takes a worker's certificate back.
///
/// # Errors
///
/// 400 naming the field, 404 `worker_not_found`, 409 if several are meant or it is the server's own.
pub async fn remove(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    exclude(&gateway, request, |worker, reply| MemberAsk::Remove { worker, reply }).await
}

/// Bans a worker's name and machine.
///
/// # Errors
///
/// As [`remove`].
pub async fn ban(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    exclude(&gateway, request, |worker, reply| MemberAsk::Ban { worker, reply }).await
}

async fn exclude(
    gateway: &Gateway,
    request: Request,
    ask: impl FnOnce(String, oneshot::Sender<Result<Excluded, NotDone>>) -> MemberAsk,
) -> Result<Json<Value>, ApiError> {
    let body = read(gateway, request).await?;
    let mut fields = Fields::of_bytes(&body.bytes)?;
    let worker = required(&mut fields, "worker")?;
    fields.finish()?;
    let asked = keeper(gateway)?.ask(|reply| Ask::Member(ask(worker, reply))).await;
    let Excluded { workers, machine, message } = asked.ok_or_else(shutting_down)??;
    let named = |it: &Named| json!({ "worker": it.worker, "worker_id": it.worker_id });
    let workers: Vec<Value> = workers.iter().map(named).collect();
    Ok(Json(json!({ "success": true, "message": message, "workers": workers, "machine": machine })))
}

/// Lifts the bans of a name or of a machine.
///
/// # Errors
///
/// 400 naming the field, 404 if nothing is banned by it.
pub async fn allow(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = read(&gateway, request).await?;
    let mut fields = Fields::of_bytes(&body.bytes)?;
    let who = required(&mut fields, "who")?;
    fields.finish()?;
    let ask = |reply| Ask::Member(MemberAsk::Allow { who, reply });
    let lifted = keeper(&gateway)?.ask(ask).await.ok_or_else(shutting_down)??;
    let text = |it: &Lifted| match &it.machine {
        Some(machine) => format!("{} and machine {machine}", it.name),
        None => it.name.clone(),
    };
    let texts: Vec<String> = lifted.iter().map(text).collect();
    let bans: Vec<Value> =
        lifted.iter().map(|it| json!({ "name": it.name, "machine": it.machine })).collect();
    let message = format!("No longer banned: {}.", texts.join(", "));
    Ok(Json(json!({ "success": true, "message": message, "bans": bans })))
}

/// Makes a join token.
///
/// # Errors
///
/// 400 naming the field, 409 if there are too many.
pub async fn token(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = read(&gateway, request).await?;
    let mut fields = Fields::of_bytes(&body.bytes)?;
    let ttl_s = fields.integer("ttl_s", 1..=TTL_S_MAX)?.unwrap_or(TTL_S);
    let uses = fields.integer("uses", 1..=u32::MAX.into())?;
    fields.finish()?;
    let uses = uses.map(|uses| u32::try_from(uses).expect("the range of the field fits u32"));
    let ttl = Duration::from_secs(ttl_s);
    let ask = |reply| Ask::Member(MemberAsk::Token { ttl, uses, reply });
    let made = keeper(&gateway)?.ask(ask).await.ok_or_else(shutting_down)??;
    Ok(Json(json!({
        "id": made.id,
        "token": made.token.reveal(),
        "join": made.join.reveal(),
        "ttl_s": made.ttl.as_secs(),
        "uses": made.uses,
    })))
}

fn required(fields: &mut Fields, name: &str) -> Result<String, ApiError> {
    let given = fields.string(name, TEXT_CHARS_MAX)?.filter(|text| !text.is_empty());
    given.ok_or_else(|| ApiError::invalid(name, format!("'{name}' is missing.")))
}

impl From<NotDone> for ApiError {
    fn from(why: NotDone) -> ApiError {
        let text = why.to_string();
        match why {
            NotDone::Unknown(_) => ApiError::new(Problem::NotFound, text).coded("worker_not_found"),
            NotDone::Conflict(_) => ApiError::new(Problem::Conflict, text),
            NotDone::Failed(_) => ApiError::new(Problem::Internal, text),
            NotDone::ShuttingDown => shutting_down(),
        }
    }
}
