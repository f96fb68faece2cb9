//! What holds for every request: a bounded URI, an honest `Host`, a key, an id, and an answer in JSON
//! even to a wrong path, a wrong method or a bug.

use super::Gateway;
use super::error::{ApiError, Problem, quote};
use super::prepare::random;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of a URI.
pub const URI_MAX: usize = 2 << 10;
/// Bytes of a request id that a client may choose.
const REQUEST_ID_MAX: usize = 128;

const REQUEST_ID: &str = "x-request-id";

/// Checks the URI, the host and the key, and gives the answer its id.
pub async fn guard(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = request_id(request.headers());
    let checked = check_uri(request.uri())
        .and_then(|()| gateway.hosts.check(request.headers(), request.uri()))
        .and_then(|()| gateway.config.keys.check(&path, request.headers()));
    let mut response = match checked {
        Ok(key) => {
            request.extensions_mut().insert(key);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    let (status, ms) = (response.status().as_u16(), start.elapsed().as_millis());
    tracing::debug!(%method, path = quote(&path), ?id, status, ms, "answered");
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    if let Some(id) = id {
        headers.insert(REQUEST_ID, id);
    }
    response
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
    match length > URI_MAX {
        true => {
            let text = format!("The URI has {length} bytes; at most {URI_MAX} are allowed.");
            Err(ApiError::new(Problem::UriTooLong, text))
        }
        false => Ok(()),
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

    fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
        let Some(allowed) = &self.allowed else { return Ok(()) };
        let named = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("?"));
        let named = named.chain(uri.authority().map(|authority| authority.as_str()));
        for host in named {
            let name = host_name(host);
            let mut names = allowed.iter();
            if !is_this_machine(name) && !names.any(|other| other.eq_ignore_ascii_case(name)) {
                let text = format!(
                    "This server listens on loopback and answers to localhost, not to '{}'. \
                     Listen on another address to be reached by other names.",
                    quote(name)
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
pub async fn not_found(method: Method, uri: Uri) -> ApiError {
    let text = format!("There is no {method} {} here.", quote(uri.path()));
    ApiError::new(Problem::NotFound, text)
}

/// The answer to a method that a path does not have.
pub async fn wrong_method(method: Method, uri: Uri) -> ApiError {
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
        hosts.check(&headers, &Uri::from_static("/health")).is_ok()
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
        assert!(hosts.check(&HeaderMap::new(), &uri).is_err());
        let uri = Uri::from_static("http://localhost:8080/health");
        assert!(hosts.check(&HeaderMap::new(), &uri).is_ok());
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
