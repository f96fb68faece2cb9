//! The small endpoints, wrong paths and methods, headers.

use super::support::*;
use crate::http::error::ApiError;
use crate::http::routes::guarded;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::routing::get;
use serde_json::{Value, json};
use tower::ServiceExt;

#[tokio::test]
async fn models_by_id_and_alias() {
    let rig = Rig::saying("x");
    let list = read_json(rig.get("/v1/models").await).await;
    assert_eq!(list["object"], "list");
    let model = &list["data"][0];
    assert_eq!(model["id"], "tiny");
    assert_eq!(model["object"], "model");
    assert_eq!(model["owned_by"], "woolly");
    assert_eq!(model["max_model_len"], CTX);
    assert_eq!(model["meta"]["n_ctx_train"], 128);
    assert_eq!(model["meta"]["n_vocab"], VOCAB);
    for name in ["tiny", "gpt-4", "org/tiny"] {
        assert_eq!(&read_json(rig.get(&format!("/v1/models/{name}")).await).await, model);
    }
    let (status, error) = error_of(rig.get("/v1/models/other").await).await;
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn tools_learn_about_the_models_texts() {
    let rig = Rig::saying("x");
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let prompt = rig.ok("/apply-template", body.clone()).await;
    assert_eq!(prompt, json!({"prompt": "<|im_start|>u:hi<|im_end|><|im_start|>a:"}));
    let (status, error) = rig.error("/apply-template", json!({"messages": [], "x": 1})).await;
    assert_eq!((status, &error["param"]), (400, &json!("messages")));
    let info = read_json(rig.get("/tokenizer_info").await).await;
    assert_eq!((&info["bos_token"], &info["eos_token"]), (&json!("<s>"), &json!("</s>")));
    assert!(info["chat_template"].as_str().unwrap().contains("<|im_start|>"));
    let props = read_json(rig.get("/props?model=gpt-4").await).await;
    assert_eq!(props["default_generation_settings"]["n_ctx"], CTX);
    assert_eq!(props["model_alias"], "tiny");
    assert_eq!(error_of(rig.get("/props?model=other").await).await.0, 404);
}

#[tokio::test]
async fn health_shows_the_stages_and_readiness_the_plan() {
    let rig = Rig::saying("x");
    let health = read_json(rig.get("/health").await).await;
    assert_eq!(health["status"], "ok");
    assert_eq!(health["service"], "woolly");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["timestamp"].as_str().unwrap().ends_with('Z'));
    let stage = json!({
        "stage": 1, "worker": "b", "worker_id": "00", "layers": [17, 28], "mapped_bytes": 1000,
        "kv_blocks": 8, "ready": true,
    });
    assert_eq!(health["stages"][1], stage);
    assert_eq!(rig.get("/readyz").await.status(), 200);
    let version = read_json(rig.get("/version").await).await;
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));

    rig.status.send_modify(|status| status.ready = false);
    let response = rig.get("/readyz").await;
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(error_of(response).await.0, 503);
    assert_eq!(rig.get("/livez").await.status(), 200);
    assert_eq!(rig.get("/ping").await.status(), 200);
    assert_eq!(rig.get("/v1/health").await.status(), 200);
    let response = rig.get("/health").await;
    assert_eq!(response.status(), 200);
    assert_eq!(read_json(response).await["status"], "starting");

    rig.status.send_modify(|status| status.ready = true);
    rig.gateway.draining.cancel();
    assert_eq!(error_of(rig.get("/readyz").await).await.1["code"], "shutting_down");
    assert_eq!(read_json(rig.get("/health").await).await["status"], "stopping");
}

#[tokio::test]
async fn tokenize_and_back() {
    let rig = Rig::saying("x");
    let tokens = |body: Value, expected: Value| {
        let rig = &rig;
        async move {
            let value = rig.ok("/tokenize", body).await;
            assert_eq!(value["tokens"], expected);
            assert_eq!(value["count"], expected.as_array().unwrap().len());
            assert_eq!(value["max_model_len"], CTX);
        }
    };
    tokens(json!({"prompt": "hel"}), json!([BOS, HEL])).await;
    tokens(json!({"prompt": "hel", "add_special_tokens": false}), json!([HEL])).await;
    tokens(json!({"content": "hex"}), json!([HE, 120])).await;
    tokens(json!({"content": "h", "add_special_tokens": true}), json!([BOS, 104])).await;
    tokens(json!({"content": "", "model": "gpt-4"}), json!([])).await;
    tokens(json!({"content": "<s>"}), json!([BOS])).await;
    tokens(json!({"content": "<s>", "parse_special": false}), json!([60, 115, 62])).await;
    tokens(
        json!({"content": "é", "with_pieces": true}),
        json!([{"id": 195, "piece": "bytes:\\xc3"}, {"id": 169, "piece": "bytes:\\xa9"}]),
    )
    .await;
    tokens(
        json!({"messages": [{"role": "user", "content": "a"}]}),
        json!([BOS, IM_START, 117, 58, 97, IM_END, IM_START, 97, 58]),
    )
    .await;
    let value = rig.ok("/detokenize", json!({"tokens": [BOS, HEL, 195, 169, 195]})).await;
    let text = "<s>helé\u{fffd}";
    assert_eq!(value, json!({ "prompt": text, "content": text }));
    for (path, body, param) in [
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({"prompt": 1}), "prompt"),
        ("/tokenize", json!({"prompt": "a", "content": "a"}), "content"),
        ("/tokenize", json!({"prompt": "a", "more": 1}), "more"),
        ("/tokenize", json!({"prompt": "a", "model": "other"}), "model"),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({"tokens": "a"}), "tokens"),
        ("/detokenize", json!({"tokens": [-1]}), "tokens"),
        ("/detokenize", json!({"tokens": [VOCAB]}), "tokens"),
    ] {
        let (_, error) = rig.error(path, body.clone()).await;
        assert_eq!(error["param"], json!(param), "{path} {body}");
    }
}

async fn send(rig: &Rig, method: Method, path: &str) -> axum::response::Response {
    rig.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn wrong_paths_and_methods_are_answered_in_json() {
    let rig = Rig::saying("x");
    for path in [
        "/v1",
        "/v1/",
        "/v2/models",
        "/v1/./chat/completions",
        "/V1/chat/completions",
        "/v1/chat%2fcompletions",
        "/v1/..;/health",
    ] {
        let (status, error) = error_of(rig.post_text(path, "{}").await).await;
        assert_eq!((status, &error["code"]), (404, &json!("not_found")), "{path}");
    }
    for (method, path, allow) in [
        (Method::GET, "/v1/chat/completions", "POST"),
        (Method::PUT, "/v1/completions", "POST"),
        (Method::TRACE, "/tokenize", "POST"),
        (Method::OPTIONS, "/v1/chat/completions", "POST"),
        (Method::DELETE, "/v1/models", "GET,HEAD"),
        (Method::POST, "/health", "GET,HEAD"),
        (Method::POST, "/metrics", "GET,HEAD"),
        (Method::POST, "/", "GET,HEAD"),
        (Method::POST, "/metrics/", "GET,HEAD"),
    ] {
        let response = send(&rig, method.clone(), path).await;
        assert_eq!(response.headers()[header::ALLOW], allow);
        assert!(!response.headers().contains_key("access-control-allow-origin"));
        assert_eq!(error_of(response).await.0, 405, "{method} {path}");
    }
    let response = send(&rig, Method::HEAD, "/v1/chat/completions").await;
    assert_eq!(response.status(), 405);
    for path in ["/health", "/livez", "/v1/models", "/v1/models/", "//v1//models/tiny/", "/"] {
        let response = send(&rig, Method::HEAD, path).await;
        assert_eq!(response.status(), 200);
        assert_eq!(read_text(response).await, "");
    }
}

#[tokio::test]
async fn headers_of_every_answer() {
    let rig = Rig::saying("x");
    let request =
        |id: &str| Request::get("/livez").header("x-request-id", id).body(Body::empty()).unwrap();
    let response = rig.send(request("mine-7")).await;
    assert_eq!(response.headers()["x-request-id"], "mine-7");
    let server = response.headers()[header::SERVER].to_str().unwrap();
    assert!(server.starts_with("woolly/"));
    let response = rig.get("/nowhere").await;
    assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req-"));
}

#[tokio::test]
async fn hosts_uris_and_media_types() {
    let rig = Rig::saying("x");
    let host = |host: &str| {
        Request::get("/health").header(header::HOST, host).body(Body::empty()).unwrap()
    };
    assert_eq!(rig.send(host("localhost:8080")).await.status(), 200);
    let (status, error) = error_of(rig.send(host("evil.example")).await).await;
    assert_eq!((status, &error["type"]), (403, &json!("permission_error")));
    let (status, _) = error_of(rig.get(&format!("/{}", "a".repeat(2048))).await).await;
    assert_eq!(status, 414);
    let typed = |name: &str, value: &str| {
        let body = Body::from(completion(json!({})).to_string());
        Request::post("/v1/completions").header(name, value).body(body).unwrap()
    };
    assert_eq!(rig.send(typed("x-nothing", "")).await.status(), 200);
    assert_eq!(rig.send(typed("content-type", "application/json")).await.status(), 200);
    assert_eq!(error_of(rig.send(typed("content-type", "text/plain")).await).await.0, 415);
    assert_eq!(error_of(rig.send(typed("content-encoding", "gzip")).await).await.0, 415);
    let large = vec![b' '; (8 << 20) + 1];
    assert_eq!(error_of(rig.post_text("/v1/completions", large).await).await.0, 413);
}

#[tokio::test]
async fn a_bug_costs_one_request_and_is_answered() {
    async fn bug() -> Result<(), ApiError> {
        panic!("a bug")
    }
    let rig = Rig::saying("x");
    let router: Router = guarded(
        Router::new().route("/bug", get(bug)),
        rig.gateway.clone(),
        "127.0.0.1".parse().unwrap(),
    );
    let request = Request::get("/bug").header(header::HOST, "localhost");
    let request = request.body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert!(response.headers().contains_key("x-request-id"));
    let (status, error) = error_of(response).await;
    assert_eq!((status, &error["type"]), (500, &json!("server_error")));
    assert!(!error["message"].as_str().unwrap().contains("a bug"));
    let failed = rig.gateway.blocking(|_| -> Result<(), ApiError> { panic!("a bug") }).await;
    assert_eq!(failed.unwrap_err().status(), 500);
    rig.ok("/v1/completions", completion(json!({}))).await;
}
