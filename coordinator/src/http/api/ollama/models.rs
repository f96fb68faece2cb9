//! What Ollama's clients ask about models: `/api/tags`, `/api/show`, `/api/ps`, `/api/version`; and what they
//! may ask in vain.

use crate::http::api::answer::read;
use crate::http::api::health::rfc3339;
use crate::http::error::{ApiError, Problem, quote};
use crate::http::gateway::Gateway;
use crate::http::input::fields::Fields;
use crate::http::input::job::take_model;
use crate::http::server::body;
use crate::models::ServedModel;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::Arc;

/// The version of Ollama whose API this is. Clients compare it with what they need.
const OLLAMA_VERSION: &str = "0.12.11";
/// A model stays loaded until its operator unloads it.
const NEVER: &str = "9999-12-31T23:59:59Z";
/// Characters of a text that has no effect.
const TEXT_CHARS_MAX: usize = usize::MAX;

/// The models, those that are still loading included.
pub async fn tags(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    let modified = rfc3339(gateway.started);
    let entry = |model: Arc<ServedModel>| {
        let mut entry = entry(&model);
        entry["modified_at"] = modified.clone().into();
        entry
    };
    Json(json!({ "models": gateway.models.iter().map(entry).collect::<Vec<_>>() }))
}

/// The models that can be asked now.
pub async fn ps(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    let entry = |model: Arc<ServedModel>| {
        let status = gateway.engine.status(model.id);
        let mut entry = entry(&model);
        entry["expires_at"] = NEVER.into();
        entry["size_vram"] = 0.into();
        entry["context_length"] = status.ctx_size.into();
        status.ready.then_some(entry)
    };
    Json(json!({ "models": gateway.models.iter().filter_map(entry).collect::<Vec<_>>() }))
}

/// Which of Ollama's versions this server is like, and its own.
pub async fn version() -> Json<Value> {
    Json(json!({ "version": OLLAMA_VERSION, "woolly": env!("CARGO_PKG_VERSION") }))
}

/// What is known of a model.
///
/// # Errors
///
/// 400 naming the field, 404 for another model.
pub async fn show(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = read(&gateway, request).await?;
    let mut fields = Fields::of_bytes(&body.bytes)?;
    if let Some(name) = fields.take("name") {
        fields.put("model", name)?;
    }
    let (_, model) = take_model(&mut fields, &gateway, None)?;
    // All that is known is shown either way.
    fields.bool("verbose")?;
    for name in ["system", "template"] {
        if fields.string(name, TEXT_CHARS_MAX)?.is_some_and(|text| !text.is_empty()) {
            let text = format!("Models are shown as they are: leave '{name}' out.");
            return Err(ApiError::unsupported(name, text));
        }
    }
    fields.take("options");
    fields.finish()?;
    Ok(Json(shown(&gateway, &model)))
}

fn shown(gateway: &Gateway, model: &ServedModel) -> Value {
    let facts = &model.facts;
    let ctx = gateway.engine.status(model.id).ctx_size;
    // A model whose template writes no tools is told of them in a message.
    let mut capabilities = vec!["completion", "tools"];
    if model.format.can_think() {
        capabilities.push("thinking");
    }
    let mut info = Map::new();
    info.insert("general.architecture".into(), facts.architecture.clone().into());
    info.insert("general.parameter_count".into(), facts.parameters.into());
    info.insert(format!("{}.context_length", facts.architecture), facts.ctx_train.into());
    info.insert(format!("{}.vocab_size", facts.architecture), model.tokenizer.vocab_size().into());
    json!({
        "modified_at": rfc3339(gateway.started),
        "modelfile": "",
        "parameters": format!("num_ctx {ctx}"),
        "template": model.template.get().map_or("", |template| template.source()),
        "details": details(model),
        "model_info": info,
        "capabilities": capabilities,
    })
}

fn entry(model: &ServedModel) -> Value {
    let name = tagged(&model.name);
    let digest = model.fingerprint.get().map(|bytes| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes everything");
            text
        })
    });
    json!({
        "name": name,
        "model": name,
        "size": model.facts.bytes,
        "digest": digest.unwrap_or_default(),
        "details": details(model),
    })
}

fn details(model: &ServedModel) -> Value {
    let facts = &model.facts;
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": facts.architecture,
        "families": [facts.architecture],
        "parameter_size": parameter_size(facts.parameters),
        "quantization_level": facts.file_type,
    })
}

/// A number of parameters in thousands, millions or billions.
fn parameter_size(count: u64) -> String {
    let count = count as f64;
    match count {
        1e9.. => format!("{:.1}B", count / 1e9),
        1e6.. => format!("{:.2}M", count / 1e6),
        1e3.. => format!("{:.2}K", count / 1e3),
        _ => count.to_string(),
    }
}

/// A model's name as Ollama's clients know it.
fn tagged(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// What changes the models, or asks for what is no text.
///
/// # Errors
///
/// 501, always.
pub async fn unsupported(method: Method, uri: Uri, request: Request) -> ApiError {
    body::discard(request).await;
    let path = quote(uri.path());
    let why = match uri.path() {
        "/api/embed" | "/api/embeddings" => "it makes no embeddings yet",
        _ => "its operator loads and unloads models (docs/models_at_run_time.md)",
    };
    ApiError::new(Problem::NotSupported, format!("Woolly does not answer {method} {path}: {why}."))
}

#[cfg(test)]
mod tests {
    use super::{parameter_size, tagged};

    #[test]
    fn parameters_are_counted_in_words() {
        for (count, text) in [(7, "7"), (134_515_008, "134.52M"), (8_030_261_248, "8.0B")] {
            assert_eq!(parameter_size(count), text);
        }
    }

    #[test]
    fn a_name_without_a_tag_is_the_latest() {
        for (name, expected) in [
            ("tiny", "tiny:latest"),
            ("org/tiny", "org/tiny:latest"),
            ("tiny:7b", "tiny:7b"),
            ("host:80/tiny", "host:80/tiny:latest"),
        ] {
            assert_eq!(tagged(name), expected);
        }
    }
}
