//! Errors in Anthropic's words: `{"type":"error","error":{"type","message"},"request_id"}`.

use crate::http::error::ApiError;
use serde_json::{Value, json};

/// The body of an answer or the event that ends a stream.
pub fn body(error: &ApiError, request_id: Option<&str>) -> Value {
    let error = json!({ "type": kind(error), "message": error.message() });
    let mut body = json!({ "type": "error", "error": error });
    if let Some(id) = request_id {
        body["request_id"] = id.into();
    }
    body
}

/// Anthropic's word for an error, by its status; the status itself is the gateway's.
fn kind(error: &ApiError) -> &'static str {
    match error.status().as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        status if status < 500 => "invalid_request_error",
        _ => "api_error",
    }
}
