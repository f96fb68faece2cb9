//! The table of fields against the gateway, against the lists of what other packages know, and against
//! docs/api.md and /openapi.json, which are made of it.

use super::support::*;
use crate::http::api::fields::document::PLAIN;
use crate::http::api::fields::{ENDPOINTS, Endpoint, Row, Verdict};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

/// Lists in tests/fixtures/api, and the endpoint (its path, and the object inside its body) that has them.
const LISTS: [(&str, &str, &str); 11] = [
    ("openai-chat", "/v1/chat/completions", ""),
    ("llama-server", "/v1/chat/completions", ""),
    ("vllm", "/v1/chat/completions", ""),
    ("openai-completions", "/v1/completions", ""),
    ("openai-responses", "/v1/responses", ""),
    ("anthropic-messages", "/v1/messages", ""),
    ("anthropic-beta", "/v1/messages", ""),
    ("anthropic-count-tokens", "/v1/messages/count_tokens", ""),
    ("ollama-chat", "/api/chat", ""),
    ("ollama-generate", "/api/generate", ""),
    ("ollama-options", "/api/chat", "options"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The smallest body with a field of this value.
fn body(endpoint: &Endpoint, row: &Row, text: &str) -> Value {
    let mut body = value(endpoint.minimal);
    if endpoint.inside.is_empty() {
        body[row.name] = value(text);
    } else {
        body[endpoint.inside] = json!({ row.name: value(text) });
    }
    // Log-probabilities of alternatives go with the others.
    if row.name == "top_logprobs" && endpoint.path != "/v1/responses" {
        body["logprobs"] = true.into();
    }
    body
}

#[tokio::test]
async fn every_field_is_what_the_table_says() {
    let rig = Rig::saying("x");
    // Tools are told to the model in many words.
    rig.status.send_modify(|status| status.ctx_size = 4096);
    for endpoint in ENDPOINTS {
        for row in endpoint.rows() {
            let at = format!("{} {}.{}", endpoint.path, endpoint.inside, row.name);
            if row.verdict != Verdict::Refused {
                assert!(!row.accepts.is_empty(), "{at}: no value is accepted");
            }
            if !row.accepts.is_empty() {
                let answer = rig.post(endpoint.path, body(endpoint, row, row.accepts)).await;
                let status = answer.status();
                assert_eq!(status, 200, "{at} is {:?}: {}", row.verdict, read_text(answer).await);
            }
            if !row.refuses.is_empty() {
                let answer = rig.post(endpoint.path, body(endpoint, row, row.refuses)).await;
                let status = answer.status();
                let text = read_text(answer).await;
                assert_eq!(status, 400, "{at} refuses {}: {text}", row.refuses);
                assert!(text.contains(row.name), "{at} is not named: {text}");
            }
            assert!(
                row.verdict != Verdict::Refused || !row.refuses.is_empty(),
                "{at} refuses nothing"
            );
        }
    }
}

#[test]
fn every_field_of_the_lists_is_in_the_table_and_once() {
    for (list, path, inside) in LISTS {
        let file = root().join(format!("tests/fixtures/api/{list}.txt"));
        let text = std::fs::read_to_string(&file).unwrap();
        let endpoint =
            ENDPOINTS.iter().find(|one| one.path == path && one.inside == inside).unwrap();
        let mut names = BTreeSet::new();
        for row in endpoint.rows() {
            assert!(names.insert(row.name), "{path}: {} stands twice", row.name);
        }
        let missing: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !names.contains(line)).collect();
        assert!(missing.is_empty(), "{path} says nothing of {missing:?} of {list}");
        assert!(text.lines().count() > 5, "{list} is empty");
    }
}

/// The part of docs/api.md that is made of the table.
fn tables() -> String {
    let mut text = String::new();
    for endpoint in ENDPOINTS {
        writeln!(text, "### {}: `POST {}`\n", endpoint.title, endpoint.path).unwrap();
        text.push_str(
            "| field | | accepted, for instance | 400, for instance | |\n|---|---|---|---|---|\n",
        );
        for row in endpoint.rows() {
            let verdict = match row.verdict {
                Verdict::Honoured => "honoured",
                Verdict::Harmless => "harmless",
                Verdict::Refused => "refused",
            };
            let code = |json: &str| match json {
                "" => String::new(),
                json => format!("`{}`", json.replace('|', "\\|")),
            };
            let (accepts, refuses) = (code(row.accepts), code(row.refuses));
            writeln!(text, "| `{}` | {verdict} | {accepts} | {refuses} | {} |", row.name, row.note)
                .unwrap();
        }
        text.push('\n');
    }
    text
}

const MARK: &str =
    "<!-- What follows is written by the test the_document_is_what_the_table_says. -->\n\n";

#[test]
fn the_document_is_what_the_table_says() {
    let file = root().join("docs/api.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (by_hand, made) = text.split_once(MARK).expect("docs/api.md has the mark");
    let expected = tables();
    if made != expected && std::env::var_os("WOOLLY_WRITE_DOCS").is_some() {
        std::fs::write(&file, format!("{by_hand}{MARK}{expected}")).unwrap();
        return;
    }
    assert!(made == expected, "docs/api.md is old: run this test with WOOLLY_WRITE_DOCS=1");
}

#[tokio::test]
async fn the_openapi_document_names_paths_that_are_there() {
    let rig = Rig::saying("x");
    let document = read_json(rig.get("/openapi.json").await).await;
    let paths = document["paths"].as_object().unwrap();
    let generating = ENDPOINTS.iter().filter(|endpoint| endpoint.inside.is_empty()).count();
    assert_eq!(paths.len(), generating + PLAIN.len());
    // Whether a stream is there is not the path's to say.
    for (path, operations) in paths.iter().filter(|(path, _)| !path.contains('{')) {
        for method in operations.as_object().unwrap().keys() {
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(path);
            let request = request.header("content-type", "application/json");
            let answer = rig.send(request.body(Body::from("{}")).unwrap()).await;
            let status = answer.status().as_u16();
            assert!(![404, 405, 501].contains(&status), "{method} {path}: {status}");
        }
    }
    let schema =
        &paths["/v1/messages"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["required"], json!(["max_tokens", "messages"]));
    let options =
        &paths["/api/chat"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert!(options["properties"]["options"]["properties"]["num_ctx"].is_object());
    // Without messages it loads the model.
    assert_eq!(options["required"], json!([]));
}
