//! `GET /v1/models` and `GET /v1/models/{id}`.

use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use std::sync::Arc;

/// The one model that is served.
pub async fn list(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [model(&gateway)] }))
}

/// The model by its id or an alias.
///
/// # Errors
///
/// 404 for any other name.
pub async fn one(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if gateway.config.serves(&name) {
        Ok(Json(model(&gateway)))
    } else {
        Err(ApiError::model_not_found(&name, &gateway.config.model_id))
    }
}

fn model(gateway: &Gateway) -> Value {
    let config = &gateway.config;
    // Without a plan nobody knows how long a sequence may be.
    let ctx = Some(gateway.engine.status().ctx_size).filter(|ctx| *ctx > 0);
    json!({
        "id": config.model_id,
        "object": "model",
        "created": gateway.started,
        "owned_by": "woolly",
        "aliases": config.aliases,
        "max_model_len": ctx,
        "meta": {
            "architecture": config.model.architecture,
            "file_type": config.model.file_type,
            "n_ctx_train": config.model.ctx_train,
            "n_ctx": ctx,
            "n_params": config.model.parameters,
            "n_vocab": gateway.tokenizer.vocab_size(),
            "size": config.model.bytes,
        },
    })
}
