//! What holds for every request: a bounded URI, an honest `Host`, a key, an id, and an answer in JSON
//! even to a wrong path, a wrong method or a bug.

use super::admin::{self, Door};
use super::request_log::{Entry, RequestLog, Streamed};
use crate::generation::KeyId;
use crate::http::error::{ApiError, Problem, Reason, quote};
use crate::http::gateway::Gateway;
use crate::http::ids::random;
use crate::http::usage::Usage;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::Instant;

/// Bytes of a URI.
pub const URI_MAX: usize = 2 << 10;
/// Bytes of a request id that a client may choose.
const REQUEST_ID_MAX: usize = 128;

const REQUEST_ID: &str = "x-request-id";

/// Whether a request came with a key that is known, or none is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Authorised(pub bool);

/// What the guard of one listener knows.
#[derive(Clone, Debug)]
pub struct Guard {
    /// What all listeners share.
    pub gateway: Arc<Gateway>,
    /// Which hosts this listener answers to.
    pub hosts: Hosts,
    /// Which kind of listener it is.
    pub door: Door,
}

/// Checks the URI, the host and the key, gives the answer its id, and begins the request's line in
/// the log.
pub async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let gateway = &guard.gateway;
    let (path, id) = (request.uri().path().to_owned(), request_id(request.headers()));
    let checked = check_uri(request.uri())
        .and_then(|()| guard.hosts.check(request.headers(), request.uri(), request.version()))
        .and_then(|()| {
            // Whoever reaches the socket is the server's owner.
            if admin::is_admin(&path) || guard.door == Door::Socket {
                admin::check(gateway.admin.as_ref(), guard.door, &path, request.headers())
            } else {
                gateway.config.keys.check(&path, request.headers())
            }
        });
    let log = log_of(gateway, &request, id.as_ref(), checked.as_ref().ok().copied().flatten());
    let mut response = match checked {
        Ok(key) => {
            request.extensions_mut().insert(key.unwrap_or_default());
            request.extensions_mut().insert(Authorised(key.is_some()));
            request.extensions_mut().insert(guard.door);
            request.extensions_mut().insert(log.clone());
            next.run(request).await
        }
        Err(error) => {
            super::body::discard(request).await;
            error.into_response()
        }
    };
    let reason = response.extensions().get().map(|Reason(reason)| *reason);
    log.answered(response.status().as_u16(), reason);
    if response.extensions().get::<Streamed>().is_none() {
        log.complete();
    }
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    if let Some(id) = id {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// Paths that are asked again and again, by probes and by the page.
const PROBES: [&str; 11] = [
    "/livez",
    "/readyz",
    "/health",
    "/v1/health",
    "/ping",
    "/metrics",
    "/",
    "/favicon.ico",
    "/admin/v1/cluster",
    "/admin/v1/history",
    "/admin/v1/requests",
];
/// What the page consists of.
const PAGE_FILES: &str = "/page/";

fn log_of(
    gateway: &Gateway,
    request: &Request,
    id: Option<&HeaderValue>,
    key: Option<KeyId>,
) -> RequestLog {
    let path = request.uri().path();
    let named = key.filter(|_| !gateway.config.keys.is_empty());
    let named = named.map(|key| format!("key-{}", key.0 + 1));
    let who = if admin::is_admin(path) { key.map(|_| "admin".to_owned()) } else { named };
    let entry = Entry {
        id: id.and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned(),
        key: who.unwrap_or_else(|| "-".to_owned()),
        method: quote(request.method().as_str()),
        path: quote(path),
        model: String::new(),
        usage: Usage::default(),
        arrived: Instant::now(),
        first_token: None,
        status: 0,
        reason: None,
        complete: false,
        is_probe: PROBES.contains(&path) || path.starts_with(PAGE_FILES),
    };
    RequestLog::new(entry, Arc::clone(&gateway.refusals))
}

const SERVER: &str = concat!("woolly/", env!("CARGO_PKG_VERSION"));

/// The client's id if it is short and printable, else a new one.
fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let usable = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    match headers.get(REQUEST_ID).filter(usable) {
        Some(id) => Some(id.clone()),
        None => HeaderValue::from_str(&format!("req-{:016x}", random().ok()?)).ok(),
    }
}

fn check_uri(uri: &Uri) -> Result<(), ApiError> {
    let length = uri.path_and_query().map_or(0, |path| path.as_str().len());
    if length > URI_MAX {
        let text = format!("The URI has {length} bytes; at most {URI_MAX} are allowed.");
        Err(ApiError::new(Problem::UriTooLong, text))
    } else {
        Ok(())
    }
}

/// Which `Host` headers are answered.
///
/// A web page can make its own name point to 127.0.0.1 and then talk to a server on loopback as its
/// own origin (DNS rebinding); only the `Host` header gives it away.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// `None` answers every host.
    allowed: Option<Vec<String>>,
}

impl Hosts {
    /// On a loopback address only this machine's names and `more` are answered, otherwise all.
    pub fn new(bound: IpAddr, more: &[String]) -> Hosts {
        let allowed = bound.is_loopback().then(|| more.to_vec());
        Hosts { allowed }
    }

    /// Every host is answered.
    pub fn all() -> Hosts {
        Hosts { allowed: None }
    }

    /// HTTP/1.1 asks for a `Host`, which a proxy in front may look at and this server must not do
    /// without.
    fn check(&self, headers: &HeaderMap, uri: &Uri, version: Version) -> Result<(), ApiError> {
        let absent = !headers.contains_key(header::HOST) && uri.authority().is_none();
        if absent && version == Version::HTTP_11 {
            let text = "The header 'Host' is missing, which HTTP/1.1 asks for.";
            return Err(ApiError::new(Problem::Invalid, text));
        }
        let Some(allowed) = &self.allowed else { return Ok(()) };
        let named = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("?"));
        let named = named.chain(uri.authority().map(|authority| authority.as_str()));
        for host in named {
            let name = &quote(host_name(host));
            let mut names = allowed.iter();
            if !is_this_machine(name) && !names.any(|other| other.eq_ignore_ascii_case(name)) {
                let text = format!(
                    "This server listens on loopback and answers to localhost, not to '{name}'. If a \
                     proxy in front of it is called so, start it with --allow-host {name}."
                );
                return Err(ApiError::new(Problem::Host, text));
            }
        }
        Ok(())
    }
}

/// A host without its port and brackets.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or("?", |(name, _)| name);
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

fn is_this_machine(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The answer to a path that does not exist.
pub async fn not_found(method: Method, uri: Uri, request: Request) -> ApiError {
    super::body::discard(request).await;
    let text = format!("There is no {method} {} here.", quote(uri.path()));
    ApiError::new(Problem::NotFound, text)
}

/// The answer to a method that a path does not have.
pub async fn wrong_method(method: Method, uri: Uri, request: Request) -> ApiError {
    super::body::discard(request).await;
    let text = format!("{} does not answer {method}; see the 'allow' header.", quote(uri.path()));
    ApiError::new(Problem::Method, text)
}

/// The answer after a panic: a bug of ours that costs one request only.
pub fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response {
    ApiError::new(Problem::Internal, "An internal error: see the server's log.").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bound: &str, host: &str) -> bool {
        let hosts = Hosts::new(bound.parse().unwrap(), &["llm.example".to_owned()]);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        hosts.check(&headers, &Uri::from_static("/health"), Version::HTTP_11).is_ok()
    }

    #[test]
    fn a_loopback_server_answers_to_this_machine_only() {
        for good in [
            "localhost",
            "localhost:8080",
            "LOCALHOST:1",
            "127.0.0.1:8080",
            "127.1.2.3",
            "[::1]:80",
            "[::1]",
            "llm.example:8080",
        ] {
            assert!(check("127.0.0.1", good), "{good}");
            assert!(check("::1", good), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.0.1",
            "",
            "[::2]",
            "[::1",
            "0.0.0.0",
        ] {
            assert!(!check("127.0.0.1", bad), "{bad}");
            assert!(check("0.0.0.0", bad), "{bad}");
        }
    }

    #[test]
    fn an_absolute_uri_counts_as_a_host() {
        let hosts = Hosts::new("127.0.0.1".parse().unwrap(), &[]);
        let uri = Uri::from_static("http://evil.example/health");
        assert!(hosts.check(&HeaderMap::new(), &uri, Version::HTTP_11).is_err());
        let uri = Uri::from_static("http://localhost:8080/health");
        assert!(hosts.check(&HeaderMap::new(), &uri, Version::HTTP_11).is_ok());
    }

    #[test]
    fn http_1_1_needs_a_host() {
        let hosts = Hosts::new("0.0.0.0".parse().unwrap(), &[]);
        let uri = Uri::from_static("/health");
        let check = |version| hosts.check(&HeaderMap::new(), &uri, version).is_ok();
        assert!(!check(Version::HTTP_11) && check(Version::HTTP_10));
    }

    #[test]
    fn request_ids_are_kept_if_they_are_harmless() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            request_id(&headers).unwrap()
        };
        assert_eq!(id("abc-1"), "abc-1");
        for bad in ["", "a b", "é", &"x".repeat(REQUEST_ID_MAX + 1)] {
            assert_ne!(id(bad), bad);
            assert!(id(bad).as_bytes().starts_with(b"req-"));
        }
    }
}
