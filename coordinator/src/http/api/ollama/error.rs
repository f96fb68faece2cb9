//! Errors in Ollama's words: `{"error":"text"}`.

use crate::http::error::ApiError;
use serde_json::{Value, json};

/// The body of an answer, or the line that ends a stream.
pub fn body(error: &ApiError) -> Value {
    json!({ "error": error.message() })
}
