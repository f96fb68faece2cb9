//! `GET /v1/models` and `GET /v1/models/{id}`.

use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::models::ServedModel;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use std::sync::Arc;

/// The models that are loaded; one that is not ready yet has no length of its context.
pub async fn list(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    let data: Vec<Value> = gateway.models.iter().map(|model| entry(&gateway, &model)).collect();
    Json(json!({ "object": "list", "data": data }))
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
    gateway.model(Some(&name)).map(|model| Json(entry(&gateway, &model)))
}

fn entry(gateway: &Gateway, model: &ServedModel) -> Value {
    // Without a plan nobody knows how long a sequence may be.
    let ctx = Some(gateway.engine.status(model.id).ctx_size).filter(|ctx| *ctx > 0);
    json!({
        "id": model.name,
        "object": "model",
        "created": gateway.started,
        "owned_by": "woolly",
        "aliases": model.aliases,
        "max_model_len": ctx,
        "meta": {
            "architecture": model.facts.architecture,
            "file_type": model.facts.file_type,
            "n_ctx_train": model.facts.ctx_train,
            "n_ctx": ctx,
            "n_params": model.facts.parameters,
            "n_vocab": model.tokenizer.vocab_size(),
            "size": model.facts.bytes,
        },
    })
}
