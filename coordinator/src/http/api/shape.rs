//! Errors in the words of the API that was asked, wherever they come from: a wrong key, a wrong path, a
//! field.
//!
//! An error is written in OpenAI's shape and carried along with its answer ([`Told`]). One layer outside
//! all others writes it again where the path or a header belongs to another API.

use super::{messages, ollama};
use crate::http::error::{ApiError, Told};
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// Anthropic's clients send it with every request, whatever the path.
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// How the answer names the request.
const OUR_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What Anthropic's clients call it.
const THEIR_ID: HeaderName = HeaderName::from_static("request-id");

/// An API with words of its own for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Api {
    OpenAi,
    Anthropic,
    Ollama,
}

fn api_of(path: &str, headers: &HeaderMap) -> Api {
    let is_below = |root: &str| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if is_below("/v1/messages") || headers.contains_key(ANTHROPIC_VERSION) {
        Api::Anthropic
    } else if is_below("/api") {
        Api::Ollama
    } else {
        Api::OpenAi
    }
}

/// Answers a request, with errors in the shape of its API.
pub async fn errors(request: Request, next: Next) -> Response {
    let api = api_of(request.uri().path(), request.headers());
    let mut response = next.run(request).await;
    if api == Api::Anthropic
        && let Some(id) = response.headers().get(OUR_ID).cloned()
    {
        response.headers_mut().insert(THEIR_ID, id);
    }
    let Some(Told(error)) = response.extensions().get().cloned() else { return response };
    match body(api, &error, response.headers()) {
        Some(body) => with_body(response, body),
        None => response,
    }
}

fn body(api: Api, error: &ApiError, headers: &HeaderMap) -> Option<Value> {
    match api {
        Api::OpenAi => None,
        Api::Anthropic => {
            let id = headers.get(OUR_ID).and_then(|id| id.to_str().ok());
            Some(messages::error::body(error, id))
        }
        Api::Ollama => Some(ollama::error::body(error)),
    }
}

/// The answer with another body; its status and its headers stay.
fn with_body(response: Response, body: Value) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let body: Body = Json(body).into_response().into_body();
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_known_by_its_path_or_its_header() {
        let none = HeaderMap::new();
        for (path, api) in [
            ("/v1/messages", Api::Anthropic),
            ("/v1/messages/count_tokens", Api::Anthropic),
            ("/v1/messagesx", Api::OpenAi),
            ("/api/chat", Api::Ollama),
            ("/api", Api::Ollama),
            ("/apix", Api::OpenAi),
            ("/v1/chat/completions", Api::OpenAi),
        ] {
            assert_eq!(api_of(path, &none), api, "{path}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(ANTHROPIC_VERSION, "2023-06-01".parse().unwrap());
        assert_eq!(api_of("/v1/models", &headers), Api::Anthropic);
    }
}
