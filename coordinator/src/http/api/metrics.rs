//! `GET /metrics`: what is counted, as Prometheus reads it.

use crate::admin::Ask;
use crate::http::gateway::Gateway;
use crate::metrics::render_snapshot;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;

/// How long is waited for what the driver knows: figures that are counted are told whatever it does.
const SNAPSHOT_TIME: Duration = Duration::from_millis(500);

/// What Prometheus reads.
pub async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let metrics = gateway.engine.metrics();
    if let Some(certificates) = &gateway.config.certificates {
        metrics.certificate("https", certificates.until());
    }
    let mut text = metrics.render();
    if let Some(admin) = &gateway.admin {
        let asked = admin.handle.ask(Ask::Cluster);
        // Late, or the server is going down: then it is left out.
        if let Ok(Some(snapshot)) = tokio::time::timeout(SNAPSHOT_TIME, asked).await {
            render_snapshot(&mut text, &snapshot);
        }
    }
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
