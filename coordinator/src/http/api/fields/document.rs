//! The table of fields as an OpenAPI document: `GET /openapi.json`.

use super::{ENDPOINTS, Endpoint, Row, Verdict};
use axum::Json;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// What is there besides the endpoints that generate: a path, its method, and what it is for.
pub const PLAIN: &[(&str, &str, &str)] = &[
    ("/v1/models", "get", "The models that are served."),
    (
        "/v1/responses/input_tokens",
        "post",
        "The tokens of a prompt, as /v1/responses would make it.",
    ),
    (
        "/v1/streams/{id}",
        "get",
        "With --journal: a stream goes on after the event that Last-Event-ID names.",
    ),
    ("/tokenize", "post", "The tokens of a text or of a conversation."),
    ("/detokenize", "post", "The text of tokens."),
    ("/apply-template", "post", "The prompt that a chat request would be, as text."),
    ("/tokenizer_info", "get", "The tokens that begin and end texts, and the chat template."),
    ("/props", "get", "The context and the chat template."),
    ("/health", "get", "How the cluster is."),
    ("/livez", "get", "200 while the process answers."),
    ("/readyz", "get", "200 when the model can be asked."),
    ("/version", "get", "The version of this server."),
    ("/metrics", "get", "Figures for Prometheus."),
    ("/api/tags", "get", "Ollama: the models that can be asked."),
    ("/api/ps", "get", "Ollama: the models that are loaded."),
    ("/api/show", "post", "Ollama: what is known of a model."),
    ("/api/version", "get", "Ollama: the version whose API this is."),
];

/// The document.
pub async fn openapi() -> Json<&'static Value> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
    let document: &'static Value = &DOCUMENT;
    Json(document)
}

fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.inside.is_empty()) {
        let body = json!({ "required": true, "content": { "application/json": { "schema": schema(endpoint) } } });
        let post = json!({
            "summary": endpoint.title,
            "requestBody": body,
            "responses": responses("The answer, whole or as a stream."),
        });
        paths.insert(endpoint.path.to_owned(), json!({ "post": post }));
    }
    for (path, method, what) in PLAIN {
        let operation = json!({ "summary": what, "responses": responses(what) });
        paths.insert((*path).to_owned(), json!({ *method: operation }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Woolly",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Fields are obeyed or refused by name, never ignored; see docs/api.md.",
        },
        "paths": paths,
        "components": { "securitySchemes": {
            "key": { "type": "http", "scheme": "bearer" },
            "anthropic": { "type": "apiKey", "in": "header", "name": "x-api-key" },
        } },
        "security": [{ "key": [] }, { "anthropic": [] }, {}],
    })
}

fn responses(what: &str) -> Value {
    json!({
        "200": { "description": what },
        "400": { "description": "A field is not as it must be; the error names it." },
        "401": { "description": "A key is asked for, and was not sent or is another." },
        "404": { "description": "No model of this name is served." },
        "413": { "description": "The body is too long." },
        "415": { "description": "The body is not said to be JSON." },
        "429": { "description": "Too many requests wait; Retry-After says when to come again." },
        "503": { "description": "The model cannot be asked now; Retry-After says when it may." },
        "504": { "description": "The request's time was up before all of it had begun." },
    })
}

fn schema(endpoint: &Endpoint) -> Value {
    let minimal: Value = serde_json::from_str(endpoint.minimal).unwrap_or_default();
    // Ollama's API takes a request that asks nothing for one to load the model.
    let needed = (!endpoint.path.starts_with("/api/")).then(|| minimal.as_object()).flatten();
    let required: Vec<&String> = needed.into_iter().flat_map(Map::keys).collect();
    let inner =
        ENDPOINTS.iter().find(|other| other.path == endpoint.path && !other.inside.is_empty());
    let mut properties: Map<String, Value> =
        endpoint.rows().map(|row| (row.name.to_owned(), property(row))).collect();
    if let Some(inner) = inner {
        let rows = inner.rows().map(|row| (row.name.to_owned(), property(row)));
        let rows: Map<String, Value> = rows.collect();
        properties[inner.inside]["properties"] = rows.into();
    }
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": false,
        "example": minimal,
    })
}

/// A field: of which types, by its examples, and what becomes of it.
fn property(row: &Row) -> Value {
    let verdict = match row.verdict {
        Verdict::Honoured => "Obeyed.",
        Verdict::Harmless => "Accepted; it changes no answer.",
        Verdict::Refused if row.accepts.is_empty() => "Refused.",
        Verdict::Refused => "Refused, but for values that ask for what happens anyway.",
    };
    let mut text = verdict.to_owned();
    if !row.note.is_empty() {
        text.push(' ');
        text.push_str(row.note);
    }
    let mut property = json!({ "description": text });
    if let Ok(example) = serde_json::from_str::<Value>(row.accepts) {
        property["examples"] = json!([example]);
    }
    property
}
