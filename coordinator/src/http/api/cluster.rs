//! `GET /admin/v1/cluster`: all that is known of the cluster at one moment.

use super::admin::keeper;
use crate::admin::Ask;
use crate::http::error::{ApiError, shutting_down};
use crate::http::gateway::Gateway;
use crate::snapshot::Snapshot;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

/// The workers, the models with their plans, and the last events.
///
/// # Errors
///
/// 503 while the server goes down.
pub async fn cluster(State(gateway): State<Arc<Gateway>>) -> Result<Json<Snapshot>, ApiError> {
    let snapshot = keeper(&gateway)?.ask(Ask::Cluster).await;
    snapshot.map(Json).ok_or_else(shutting_down)
}
