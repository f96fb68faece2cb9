//! `GET /metrics`: what is counted, as Prometheus reads it.

use crate::http::gateway::Gateway;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// What Prometheus reads.
pub async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], gateway.engine.metrics().render()).into_response()
}
