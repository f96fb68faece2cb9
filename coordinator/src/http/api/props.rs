//! What tools ask about the model's texts: `POST /apply-template` and `GET /props` in llama-server's words,
//! `GET /tokenizer_info` in vLLM's, which lm-eval's remote tokenizer reads.

use super::answer::{look, read};
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::ids::Identity;
use crate::http::input::conversation::Conversation;
use crate::http::input::fields::Fields;
use crate::http::input::job::take_model;
use crate::http::input::known::Place;
use crate::models::ServedModel;
use axum::Json;
use axum::extract::{Query, Request, State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The query of a question about a model.
#[derive(Debug, Deserialize)]
pub struct Asked {
    /// Its name; without one it is the first that is loaded.
    model: Option<String>,
}

/// The prompt that a chat request would be, as text.
///
/// # Errors
///
/// 400 naming the field, 404 for another model.
pub async fn apply_template(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = read(&gateway, request).await?;
    look(&gateway, body, prompt_of).await.map(Json)
}

fn prompt_of(gateway: &Gateway, mut fields: Fields) -> Result<Value, ApiError> {
    let (_, model) = take_model(&mut fields, gateway, None)?;
    let asked = Conversation::take(&mut fields, Place::Chat, &model, Identity::new()?)?;
    fields.finish()?;
    Ok(json!({ "prompt": asked.prompt_text(&model)? }))
}

/// The tokens that begin and end texts, and the chat template.
///
/// # Errors
///
/// 404 for another model.
pub async fn tokenizer_info(
    State(gateway): State<Arc<Gateway>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    let model = gateway.model(asked.model.as_deref())?;
    let tokenizer = &model.tokenizer;
    let text = |token: Option<u32>| token.map(|token| tokenizer.token_text(token));
    Ok(Json(json!({
        "tokenizer_class": "woolly",
        "bos_token": text(tokenizer.bos()),
        "eos_token": text(tokenizer.eos()),
        // Nothing is padded here, so there is no token for it.
        "pad_token": null,
        "add_bos_token": tokenizer.add_bos(),
        "add_eos_token": tokenizer.add_eos(),
        "vocab_size": tokenizer.vocab_size(),
        "model_max_length": context(&gateway, &model),
        "chat_template": template(&model),
    })))
}

/// What a client of llama-server asks at its start. What Woolly has no word for (slots, the model's path) is
/// left out.
///
/// # Errors
///
/// 404 for another model.
pub async fn props(
    State(gateway): State<Arc<Gateway>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    let model = gateway.model(asked.model.as_deref())?;
    let tokenizer = &model.tokenizer;
    let text = |token: Option<u32>| token.map(|token| tokenizer.token_text(token));
    Ok(Json(json!({
        "default_generation_settings": { "n_ctx": context(&gateway, &model) },
        "model_alias": model.name,
        "modalities": { "vision": false, "audio": false },
        "chat_template": template(&model),
        "bos_token": text(tokenizer.bos()),
        "eos_token": text(tokenizer.eos()),
        "build_info": concat!("woolly-", env!("CARGO_PKG_VERSION")),
    })))
}

fn template(model: &ServedModel) -> Option<&str> {
    model.template.get().map(|template| template.source())
}

/// Tokens of the context; `None` while there is no plan.
fn context(gateway: &Gateway, model: &ServedModel) -> Option<u32> {
    Some(gateway.engine.status(model.id).ctx_size).filter(|ctx| *ctx > 0)
}
