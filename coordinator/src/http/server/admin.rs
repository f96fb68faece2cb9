//! Who may use the admin API: whoever reaches its socket, and over HTTP whoever has its key.
//!
//! The page at `/` has keys of its own where `serve` gave it some (`sessions.rs`).
//!
//! A page of another origin may not, whatever key its browser holds: it sends an `Origin` that is not this
//! server, and is refused.

use super::keys::ApiKeys;
use super::sessions::Sessions;
use crate::admin::AdminHandle;
use crate::generation::KeyId;
use crate::http::error::{ApiError, Problem};
use axum::http::{HeaderMap, header};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who read events at a time.
const READERS_MAX: usize = 64;

/// Where the page exchanges the key of its address for one of its own.
const EXCHANGE: &str = "/admin/v1/session";

/// By which door a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A listener of the HTTP API.
    Http,
    /// The socket in the state directory, which only its owner can use.
    Socket,
}

/// The admin API of a gateway.
#[derive(Clone, Debug)]
pub struct Admin {
    /// To who keeps the models.
    pub handle: AdminHandle,
    /// Load models when requests name them.
    pub on_demand: bool,
    /// Its key over HTTP; empty if it does not answer there.
    key: ApiKeys,
    readers: Arc<Semaphore>,
    /// Keys of the page.
    pub sessions: Arc<Sessions>,
}

impl Admin {
    /// An admin API that answers on the socket, and with a `key` over HTTP.
    pub fn new(handle: AdminHandle, key: Option<&str>, on_demand: bool) -> Admin {
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        let sessions = Arc::default();
        Admin { handle, on_demand, key: ApiKeys::new(key), readers, sessions }
    }

    /// The page at `/` may have keys, too.
    pub fn with_sessions(self, sessions: Arc<Sessions>) -> Admin {
        Admin { sessions, ..self }
    }

    /// A place for one who reads events; `None` if there are too many.
    pub fn place_to_read(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.readers).try_acquire_owned().ok()
    }
}

/// Whether a path is of the admin API.
pub fn is_admin(path: &str) -> bool {
    path == "/admin" || path.starts_with("/admin/")
}

/// Whether a request to the admin API is allowed.
///
/// # Errors
///
/// 401 without the key or with another one; 403 for a page of another origin, and over HTTP where there is no
/// key.
pub fn check(
    admin: Option<&Admin>,
    door: Door,
    path: &str,
    headers: &HeaderMap,
) -> Result<Option<KeyId>, ApiError> {
    if is_foreign(headers, door) {
        let text = "Pages of other origins may not use the admin API.";
        return Err(ApiError::new(Problem::AdminClosed, text));
    }
    let key = admin.map(|admin| &admin.key).filter(|key| !key.is_empty());
    let sessions = admin.map(|admin| &admin.sessions).filter(|sessions| sessions.are_open());
    if sessions.is_some_and(|sessions| path == EXCHANGE || sessions.knows(headers)) {
        return Ok(Some(KeyId::default()));
    }
    match (door, key) {
        (Door::Socket, _) => Ok(Some(KeyId::default())),
        (Door::Http, None) if sessions.is_some() => {
            let text = "The admin API asks for a key: 'woolly-coordinator page' on the server's machine prints an address \
                        of this page with one that works once; --admin-key sets one that stays.";
            Err(ApiError::new(Problem::Key, text))
        }
        (Door::Http, Some(key)) => key.check(path, headers),
        (Door::Http, None) => {
            let text = "The admin API answers on the socket 'admin.sock' in the server's state directory \
                        ('woolly-coordinator models …' uses it); over HTTP only if the server was started with \
                        --admin-key.";
            Err(ApiError::new(Problem::AdminClosed, text))
        }
    }
}

/// Whether a browser says that a page of another origin asks. Programs say nothing.
fn is_foreign(headers: &HeaderMap, door: Door) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
    if origins.peek().is_none() {
        return false;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_own = |origin: &str| {
        let place = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
        place.zip(host).is_some_and(|(place, host)| place.eq_ignore_ascii_case(host))
    };
    door == Door::Socket || !origins.all(|origin| origin.to_str().is_ok_and(is_own))
}
