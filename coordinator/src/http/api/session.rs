//! `POST /admin/v1/session`: the page at `/` exchanges the key of its address for one of its own. `POST /admin/v1/page`, on the socket
//! alone: another address with such a key.

use super::answer::read;
use crate::http::error::{ApiError, Problem};
use crate::http::gateway::Gateway;
use crate::http::input::fields::Fields;
use crate::http::server::admin::{Admin, Door};
use axum::extract::{Request, State};
use axum::{Extension, Json};
use serde_json::{Value, json};
use std::sync::Arc;

/// Characters of a key.
const KEY_CHARS_MAX: usize = 256;

/// Exchanges a key.
///
/// # Errors
///
/// 400 without a key, 401 if it is none or was used.
pub async fn session(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = read(&gateway, request).await?;
    let mut fields = Fields::of_bytes(&body.bytes)?;
    let key = fields.string("key", KEY_CHARS_MAX)?;
    fields.finish()?;
    let key = key.ok_or_else(|| ApiError::invalid("key", "'key' is missing."))?;
    match admin(&gateway)?.sessions.exchange(&key).map_err(|_| no_numbers())? {
        Some(key) => Ok(Json(json!({ "key": key }))),
        None => {
            let text = "The key of this address was used already, or is of another start of the server: \
                        'woolly-coordinator page' on the server's machine prints another.";
            Err(ApiError::new(Problem::Key, text))
        }
    }
}

/// Another address with a key that works once.
///
/// # Errors
///
/// 403 over HTTP, and where the server does not listen on loopback.
pub async fn page(
    State(gateway): State<Arc<Gateway>>,
    Extension(door): Extension<Door>,
) -> Result<Json<Value>, ApiError> {
    let closed = |text: &str| ApiError::new(Problem::AdminClosed, text);
    if door == Door::Http {
        return Err(closed(
            "Addresses with a key are given on the socket of the state directory only.",
        ));
    }
    let offered = admin(&gateway)?.sessions.offer().map_err(|_| no_numbers())?;
    let address = offered.ok_or_else(|| {
        closed(
            "This server does not listen on loopback: keys in addresses would go over the network. Start it with \
             --admin-key, and give that key to the page.",
        )
    })?;
    Ok(Json(json!({ "address": address })))
}

fn admin(gateway: &Gateway) -> Result<&Admin, ApiError> {
    let none = || ApiError::new(Problem::NotFound, "There is no admin API here.");
    gateway.admin.as_ref().ok_or_else(none)
}

fn no_numbers() -> ApiError {
    ApiError::new(Problem::Internal, "The operating system gives no random numbers.")
}
