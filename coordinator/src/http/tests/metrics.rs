//! `/metrics`: what became of requests, and their tokens in time.

use super::support::*;
use crate::admin::{AdminHandle, Ask};
use crate::events::Events;
use crate::generation::{Failure, GenerationEvent, Refusal};
use crate::http::routes::admin_router;
use crate::http::server::admin::Admin;
use crate::metrics::{Way, WayStage};
use crate::snapshot::{ModelSnapshot, Snapshot};
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::json;
use std::time::Duration;
use tower::ServiceExt;

/// The values of these series in `/metrics`.
async fn values<const N: usize>(rig: &Rig, series: [&str; N]) -> [String; N] {
    let text = read_text(rig.get("/metrics").await).await;
    series.map(|name| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in\n{text}")).to_owned()
    })
}

/// Requests answered, refused, failed and abandoned.
async fn outcomes(rig: &Rig) -> [String; 4] {
    values(
        rig,
        [
            "woolly_requests_total{outcome=\"answered\"}",
            "woolly_requests_total{outcome=\"refused\"}",
            "woolly_requests_total{outcome=\"failed\"}",
            "woolly_requests_total{outcome=\"abandoned\"}",
        ],
    )
    .await
}

#[tokio::test]
async fn answers_whole_and_streamed_are_counted_with_their_tokens() {
    let rig = Rig::saying("abc");
    let response = rig.get("/metrics").await;
    let kind = &response.headers()[header::CONTENT_TYPE];
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    rig.ok("/v1/completions", completion(json!({}))).await;
    let streamed = completion(json!({"prompt": ["hi", "a"], "stream": true}));
    read_text(rig.post("/v1/completions", streamed).await).await;
    assert_eq!(outcomes(&rig).await, ["2", "0", "0", "0"]);
    // BOS and "hi" twice, BOS and "a"; three choices of three letters and EOS.
    let found = values(
        &rig,
        [
            "woolly_prompt_tokens_total",
            "woolly_completion_tokens_total",
            "woolly_time_to_first_token_seconds_count",
            "woolly_time_between_tokens_seconds_count",
        ],
    )
    .await;
    assert_eq!(found, ["8", "12", "3", "9"]);
}

#[tokio::test]
async fn refusals_failures_and_clients_that_leave_are_told_apart() {
    let rig = Rig::new(|request| match request.max_tokens {
        1 => Script::Refuse(Refusal::QueueFull { waiting: 9, retry_after: Duration::from_secs(3) }),
        2 => {
            let failure = Failure { code: "pipeline_lost", message: "it is gone".to_owned() };
            Script::Play(vec![GenerationEvent::Failed(failure)])
        }
        _ => Script::Hold(tokens("a")),
    });
    let wanted = |tokens: u32| completion(json!({"max_tokens": tokens, "stream": true}));
    assert_eq!(rig.error("/v1/completions", wanted(1)).await.0, 429);
    assert_eq!(rig.error("/v1/completions", json!({"prompt": 1})).await.0, 400);
    assert_eq!(outcomes(&rig).await, ["0", "2", "0", "0"]);
    read_text(rig.post("/v1/completions", wanted(2)).await).await;
    assert_eq!(outcomes(&rig).await, ["0", "2", "1", "0"]);
    drop(rig.post("/v1/completions", wanted(3)).await);
    assert_eq!(outcomes(&rig).await, ["0", "2", "1", "1"]);
    // A client that waits for a whole answer and goes away.
    let waiting = rig.post("/v1/completions", completion(json!({"max_tokens": 4})));
    assert!(tokio::time::timeout(Duration::from_millis(200), waiting).await.is_err());
    assert_eq!(outcomes(&rig).await, ["0", "2", "1", "2"]);
}

#[tokio::test]
async fn the_cluster_is_told_with_what_is_counted_if_it_is_known_in_time() {
    let (handle, mut asked) = AdminHandle::new(Events::default());
    let rig = Rig::administered(
        |_| {},
        |_| Script::Play(say("abc")),
        Some(Admin::new(handle, None, false)),
    );
    let answers = async {
        let Some(Ask::Cluster(reply)) = asked.recv().await else { panic!("asked for the cluster") };
        let model = ModelSnapshot {
            model: "tiny".to_owned(),
            state: "ready".to_owned(),
            ..ModelSnapshot::default()
        };
        reply.send(Snapshot { models: vec![model], ..Snapshot::default() }).unwrap();
    };
    let series = ["woolly_model_state{model=\"tiny\",state=\"ready\"}", "woolly_failovers_total"];
    let (found, ()) = tokio::join!(values(&rig, series), answers);
    assert_eq!(found, ["1", "0"]);
    // Nobody answers: what is counted is told all the same.
    let text = read_text(rig.get("/metrics").await).await;
    assert!(text.contains("woolly_failovers_total 0\n"), "{text}");
    assert!(!text.contains("woolly_workers{"), "{text}");
}

#[tokio::test]
async fn the_ways_of_the_last_requests_are_told_to_administrators() {
    let (handle, _asked) = AdminHandle::new(Events::default());
    let rig = Rig::administered(
        |_| {},
        |_| Script::Play(say("abc")),
        Some(Admin::new(handle, None, false)),
    );
    let stage = WayStage {
        plan: 2,
        stage: 0,
        worker_id: "ab".to_owned(),
        span: "cd".to_owned(),
        forwards: 3,
        queue_us: 4,
        compute_us: 5,
        wire_us: 6,
    };
    rig.gateway.engine.metrics().way(Way {
        at_ms: 1,
        model: "tiny".to_owned(),
        trace: "01".to_owned(),
        span: "02".to_owned(),
        parent: None,
        took_ms: 7,
        waited_ms: 1,
        stages: vec![stage],
    });
    let socket = admin_router(std::sync::Arc::clone(&rig.gateway));
    let request = Request::get("/admin/v1/requests").header(header::HOST, "localhost");
    let answer = socket.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let stage = json!({"plan": 2, "stage": 0, "worker_id": "ab", "span": "cd", "forwards": 3, "queue_us": 4,
                       "compute_us": 5, "wire_us": 6});
    let way = json!({"at_ms": 1, "model": "tiny", "trace": "01", "span": "02", "took_ms": 7, "waited_ms": 1,
                     "stages": [stage]});
    assert_eq!(read_json(answer).await, json!({"requests": [way]}));
    let closed = rig.get("/admin/v1/requests").await;
    assert_eq!(closed.status(), 403, "there is no admin key");
}
