//! `GET /admin/v1/history`: the last quarter of an hour in samples. `GET /admin/v1/requests`: the ways of the last requests.

use crate::http::gateway::Gateway;
use crate::metrics::{INTERVAL, Sample, Way};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;

/// The samples, the oldest first; at most 180.
#[derive(Debug, Serialize)]
pub struct Told {
    interval_ms: u128,
    samples: Vec<Sample>,
}

/// Tells them.
pub async fn history(State(gateway): State<Arc<Gateway>>) -> Json<Told> {
    let samples = gateway.engine.metrics().samples();
    Json(Told { interval_ms: INTERVAL.as_millis(), samples })
}

/// The ways of the last requests.
#[derive(Debug, Serialize)]
pub struct Requests {
    requests: Vec<Way>,
}

/// Tells them, the newest first; at most 64.
pub async fn requests(State(gateway): State<Arc<Gateway>>) -> Json<Requests> {
    Json(Requests { requests: gateway.engine.metrics().ways() })
}
