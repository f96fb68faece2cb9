//! The admin API against a scripted keeper: who may ask, what is asked, and what is answered.

use super::support::{Rig, Script, chat, error_of, read_json, say, served};
use crate::admin::{
    AdminHandle, Ask, Gone, Kept, KeptModel, LoadOptions, Loading, Progress, Refused, Source,
};
use crate::events::{Events, Happening};
use crate::http::routes::admin_router;
use crate::http::server::admin::Admin;
use crate::http::server::keys::ApiKeys;
use crate::ids::ModelId;
use crate::models::shelf::{OnShelf, Stock};
use crate::snapshot::{ModelSnapshot, PlanSnapshot, Snapshot};
use crate::status::{Holding, WorkerMemory};
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tower::ServiceExt;
use woolly_engine::plan::KvType;

const KEY: &str = "admin-key-of-the-test";

/// What was asked of the keeper to load, and how its models stand.
#[derive(Default)]
struct Played {
    loads: Vec<(Source, LoadOptions)>,
    demands: Vec<String>,
    unloads: Vec<(String, Duration)>,
    progress: Vec<watch::Sender<Progress>>,
}

/// A gateway with an admin API, behind which a test plays the keeper.
pub(super) struct Bed {
    rig: Rig,
    kept: Arc<Mutex<Played>>,
    events: Events,
}

fn loading(progress: &watch::Sender<Progress>, was_there: bool) -> Loading {
    let progress = progress.subscribe();
    Loading { model: ModelId(0), name: "tiny".to_owned(), was_there, progress }
}

fn answer(kept: &Mutex<Played>, begins: &Result<Progress, Refused>, ask: Ask) {
    let mut kept = kept.lock().unwrap();
    let mut load = || {
        begins.clone().map(|progress| {
            let progress = watch::Sender::new(progress);
            let loading = loading(&progress, false);
            kept.progress.push(progress);
            loading
        })
    };
    match ask {
        Ask::Load { source, options, reply } => {
            let _ = reply.send(load());
            kept.loads.push((source, options));
        }
        Ask::LoadOnDemand { name, reply } => {
            let is_there = name == "other" || name == "tiny";
            let _ = reply.send(is_there.then(load));
            kept.demands.push(name);
        }
        Ask::Unload { name, patience, reply } => {
            let gone = match name.as_str() {
                "tiny" => Ok(Gone { name: name.clone(), unfinished: 2 }),
                _ => Err(Refused::NotFound(format!("no model that is loaded is called '{name}'"))),
            };
            let _ = reply.send(gone);
            kept.unloads.push((name, patience));
        }
        Ask::List(reply) => {
            let progress =
                kept.progress.last().map_or(Progress::Ready, |progress| progress.borrow().clone());
            let model = KeptModel {
                model: ModelId(0),
                name: "tiny".to_owned(),
                aliases: vec!["gpt-4".to_owned()],
                source: Some("org/tiny".to_owned()),
                progress,
            };
            let on_shelf = |name: &str| OnShelf { name: name.to_owned(), bytes: 7 };
            let models = vec![on_shelf("org/other"), on_shelf("org/tiny")];
            let held = Holding { model: "tiny".to_owned(), weights: 3, kv: 4, scratch: 5 };
            let worker = WorkerMemory {
                worker: "w".to_owned(),
                worker_id: "0a".to_owned(),
                allowance: 100,
                free: 88,
                models: vec![held],
            };
            let stock = Some(Stock { models, is_cut: false });
            let _ = reply.send(Kept { models: vec![model], stock, workers: vec![worker] });
        }
        Ask::Cluster(reply) => {
            let plan = PlanSnapshot { plan: 7, ..PlanSnapshot::default() };
            let model =
                ModelSnapshot { model: "tiny".to_owned(), plan: Some(plan), ..Default::default() };
            let _ = reply.send(Snapshot { at_ms: 5, models: vec![model], ..Snapshot::default() });
        }
        Ask::Member(ask) => super::members::answer(ask),
    }
}

impl Bed {
    /// A keeper whose loads begin so.
    pub(super) fn new(
        key: Option<&str>,
        on_demand: bool,
        begins: Result<Progress, Refused>,
    ) -> Bed {
        let events = Events::default();
        let (handle, mut asked) = AdminHandle::new(events.clone());
        let kept = Arc::<Mutex<Played>>::default();
        let shared = Arc::clone(&kept);
        tokio::spawn(async move {
            while let Some(ask) = asked.recv().await {
                answer(&shared, &begins, ask);
            }
        });
        let admin = Admin::new(handle, key, on_demand);
        let keys = |config: &mut crate::http::GatewayConfig| config.keys = ApiKeys::new(["sk-a"]);
        let open = |_: &mut crate::http::GatewayConfig| {};
        let script = |_: &_| Script::Play(say("ok"));
        let rig = match key {
            Some(_) => Rig::administered(keys, script, Some(admin)),
            None => Rig::administered(open, script, Some(admin)),
        };
        Bed { rig, kept, events }
    }

    /// Asks over the socket.
    pub(super) async fn local(&self, request: Request<Body>) -> Response {
        admin_router(Arc::clone(&self.rig.gateway)).oneshot(request).await.unwrap()
    }

    async fn load(&self, body: Value) -> Response {
        self.local(post("/admin/v1/models/load", &body)).await
    }

    /// As soon as something is being loaded: how far it is from now on.
    async fn goes_on(&self, progress: Progress) {
        loop {
            if let Some(sender) = self.kept.lock().unwrap().progress.last() {
                sender.send_replace(progress);
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub(super) fn post(path: &str, body: &Value) -> Request<Body> {
    let request = Request::post(path).header(header::HOST, "localhost");
    let request = request.header(header::CONTENT_TYPE, "application/json");
    request.body(Body::from(body.to_string())).unwrap()
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get(path).header(header::HOST, "localhost:8080");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn over_http_the_admin_api_asks_for_a_key_of_its_own() {
    let list = |headers: &[(&str, &str)]| get("/admin/v1/models", headers);
    let closed = Bed::new(None, false, Ok(Progress::Ready));
    let (status, error) = error_of(closed.rig.send(list(&[])).await).await;
    assert_eq!((status, &error["code"]), (403, &json!("admin_closed")));
    assert!(error["message"].as_str().unwrap().contains("admin.sock"), "{error}");
    assert_eq!(closed.local(list(&[])).await.status(), 200, "the socket is open");

    let bed = Bed::new(Some(KEY), false, Ok(Progress::Ready));
    let bearer = format!("Bearer {KEY}");
    for (given, expected) in [
        (None, 401),
        (Some("Bearer sk-a"), 401),
        (Some("Bearer wrong"), 401),
        (Some(bearer.as_str()), 200),
    ] {
        let headers: Vec<(&str, &str)> =
            given.map(|key| ("authorization", key)).into_iter().collect();
        for path in ["/admin/v1/models", "//admin//v1/models/"] {
            let status = bed.rig.send(get(path, &headers)).await.status();
            assert_eq!(status.as_u16(), expected, "{given:?} {path}");
        }
    }
    // Nor does the admin key open the API, nor an admin path that does not exist without one.
    let chat = bed.rig.send(get("/v1/models", &[("authorization", &bearer)])).await;
    assert_eq!(chat.status(), 401);
    assert_eq!(bed.rig.send(get("/admin/none", &[])).await.status(), 401);
    assert_eq!(bed.rig.send(get("/admin/none", &[("authorization", &bearer)])).await.status(), 404);
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let bed = Bed::new(Some(KEY), false, Ok(Progress::Ready));
    let bearer = format!("Bearer {KEY}");
    for (origin, expected) in [
        ("http://localhost:8080", 200),
        ("https://evil.example", 403),
        ("http://localhost:8081", 403),
        ("null", 403),
        ("", 403),
    ] {
        let headers = [("authorization", bearer.as_str()), ("origin", origin)];
        let response = bed.rig.send(get("/admin/v1/models", &headers)).await;
        assert_eq!(response.status().as_u16(), expected, "{origin}");
        let local = bed.local(get("/admin/v1/models", &headers)).await;
        assert_eq!(local.status(), 403, "no page can reach the socket");
    }
}

#[tokio::test]
async fn a_load_is_answered_when_the_model_is_ready() {
    let bed = Bed::new(None, false, Ok(Progress::Loading(10)));
    let options = json!({
        "ctx_size": 4096, "cache_type": "q8_0", "kv_memory": "1MiB", "alias": "mine", "workers": 2,
    });
    let body = json!({"name": "org/tiny", "options": options});
    let (response, ()) = tokio::join!(bed.load(body), bed.goes_on(Progress::Ready));
    assert_eq!(response.status(), 200);
    let value = read_json(response).await;
    assert_eq!((&value["success"], &value["message"]), (&json!(true), &json!("'tiny' is ready.")));
    assert_eq!(
        (&value["model"]["name"], &value["model"]["state"]),
        (&json!("tiny"), &json!("ready"))
    );
    let asked = LoadOptions {
        ctx_size: Some(4096),
        cache_type: Some(KvType::Q8_0),
        kv_memory: Some(1 << 20),
        alias: vec!["mine".to_owned()],
        workers: Some(2),
    };
    assert_eq!(bed.kept.lock().unwrap().loads, [(Source::Name("org/tiny".to_owned()), asked)]);
}

#[tokio::test]
async fn who_does_not_wait_is_told_that_it_is_being_loaded() {
    let bed = Bed::new(None, false, Ok(Progress::Loading(10)));
    let response = bed.load(json!({"path": "/models/a.gguf", "wait": false})).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let value = read_json(response).await;
    assert_eq!((&value["success"], &value["model"]["state"]), (&json!(true), &json!("loading")));
    assert_eq!(value["model"]["progress"], 10);
    let loads = bed.kept.lock().unwrap().loads.clone();
    assert_eq!(loads[0], (Source::Path("/models/a.gguf".into()), LoadOptions::default()));
    let late = bed.load(json!({"name": "a", "timeout_s": 1})).await;
    assert_eq!(late.status(), StatusCode::ACCEPTED);
    assert_eq!(read_json(late).await["success"], false);
}

#[tokio::test]
async fn what_cannot_be_loaded_says_why() {
    let refused = |refused| Bed::new(None, false, Err(refused));
    for (why, status, code) in [
        (Refused::NotFound("no 'a'".into()), 404, "model_not_found"),
        (Refused::Conflict("8 are loaded".into()), 409, "conflict"),
        (Refused::Unusable("not a GGUF file".into()), 400, "model_unusable"),
        (Refused::ShuttingDown, 503, "shutting_down"),
    ] {
        let text = why.to_string();
        let (found, error) = error_of(refused(why).load(json!({"name": "a"})).await).await;
        assert_eq!((found, &error["code"]), (status, &json!(code)), "{error}");
        assert!(status == 503 || error["message"] == text, "{error}");
    }
    let bed = Bed::new(None, false, Ok(Progress::Loading(0)));
    let failed = Progress::Failed("there is no room".to_owned());
    let (response, ()) = tokio::join!(bed.load(json!({"name": "a"})), bed.goes_on(failed));
    let (status, error) = error_of(response).await;
    assert_eq!((status, &error["code"]), (409, &json!("load_failed")));
    assert!(error["message"].as_str().unwrap().contains("there is no room"), "{error}");
}

#[tokio::test]
async fn every_field_is_checked() {
    let bed = Bed::new(Some(KEY), false, Ok(Progress::Ready));
    for (body, param) in [
        (json!({}), "name"),
        (json!({"name": 1}), "name"),
        (json!({"name": "a", "path": "/a"}), "path"),
        (json!({"path": "a.gguf"}), "path"),
        (json!({"name": "a", "wait": "yes"}), "wait"),
        (json!({"name": "a", "timeout_s": 0}), "timeout_s"),
        (json!({"name": "a", "more": 1}), "more"),
        (json!({"name": "a", "options": []}), "options"),
        (json!({"name": "a", "options": {"ctx_size": -1}}), "options.ctx_size"),
        (json!({"name": "a", "options": {"cache_type": "f64"}}), "options.cache_type"),
        (json!({"name": "a", "options": {"kv_memory": "much"}}), "options.kv_memory"),
        (json!({"name": "a", "options": {"alias": ["b", 1]}}), "options.alias"),
        (json!({"name": "a", "options": {"alias": "b\nc"}}), "options.alias"),
        (json!({"name": "a", "options": {"workers": 0}}), "options.workers"),
        (json!({"name": "a", "options": {"gpu_layers": 9}}), "options.gpu_layers"),
    ] {
        let (status, error) = error_of(bed.load(body.clone()).await).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{body}: {error}");
    }
    // A path is for the socket alone.
    let mut request = post("/admin/v1/models/load", &json!({"path": "/etc/passwd"}));
    let bearer = format!("Bearer {KEY}").parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    let (status, error) = error_of(bed.rig.send(request).await).await;
    assert_eq!((status, &error["param"]), (400, &json!("path")), "{error}");
    assert!(bed.kept.lock().unwrap().loads.is_empty());
}

#[tokio::test]
async fn models_are_unloaded_and_listed() {
    let bed = Bed::new(None, false, Ok(Progress::Ready));
    let unload = |body: Value| bed.local(post("/admin/v1/models/unload", &body));
    let value = read_json(unload(json!({"name": "tiny", "drain_s": 30})).await).await;
    let expected = json!({"success": true, "message": "'tiny' was unloaded.", "unfinished": 2});
    assert_eq!(value, expected);
    let unloads = bed.kept.lock().unwrap().unloads.clone();
    assert_eq!(unloads, [("tiny".to_owned(), Duration::from_secs(30))]);
    assert_eq!(error_of(unload(json!({"name": "none"})).await).await.0, 404);
    assert_eq!(error_of(unload(json!({})).await).await.1["param"], "name");
    let listed = read_json(bed.local(get("/admin/v1/models", &[])).await).await;
    assert_eq!(listed["data"][0]["name"], "tiny");
    assert_eq!(listed["data"][0]["ctx_size"], super::support::CTX);
    let loadable = json!([
        {"name": "org/other", "size": 7, "loaded_as": null},
        {"name": "org/tiny", "size": 7, "loaded_as": "tiny"},
    ]);
    assert_eq!(listed["loadable"], loadable);
    let worker = &listed["workers"][0];
    assert_eq!((&worker["allowance"], &worker["free"]), (&json!(100), &json!(88)));
    let held = json!([{"model": "tiny", "weights": 3, "kv": 4, "scratch": 5}]);
    assert_eq!(worker["models"], held);
}

#[tokio::test]
async fn the_cluster_is_told_to_whoever_may_use_the_admin_api() {
    let bed = Bed::new(Some(KEY), false, Ok(Progress::Ready));
    let ask = |headers: &[(&str, &str)]| get("/admin/v1/cluster", headers);
    assert_eq!(bed.rig.send(ask(&[])).await.status(), 401);
    let bearer = format!("Bearer {KEY}");
    let over_http = bed.rig.send(ask(&[("authorization", &bearer)])).await;
    for response in [over_http, bed.local(ask(&[])).await] {
        assert_eq!(response.status(), 200);
        let told = read_json(response).await;
        let model = &told["models"][0];
        assert_eq!((&told["at_ms"], &model["plan"]["plan"]), (&json!(5), &json!(7)));
        // What is not known is left out.
        assert!(model.get("next").is_none() && model.get("kv_blocks").is_none(), "{told}");
        assert_eq!((&told["workers"], &told["events"]), (&json!([]), &json!([])));
    }
    let written = bed.local(post("/admin/v1/cluster", &json!({}))).await;
    assert_eq!(written.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn events_are_streamed_with_their_numbers_and_losses() {
    let bed = Bed::new(None, false, Ok(Progress::Ready));
    let ready = |model: &str| Happening::ModelReady { model: model.to_owned() };
    bed.events.say(ready("a"));
    bed.events.say(Happening::WorkerJoined { worker: "w".into(), worker_id: "0a".into() });
    let from_the_first = [("last-event-id", "1")];
    let response = bed.local(get("/admin/v1/events", &from_the_first)).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    let mut next = async || {
        let part = tokio::time::timeout(Duration::from_secs(5), body.next()).await;
        String::from_utf8(part.unwrap().unwrap().unwrap().to_vec()).unwrap()
    };
    assert_eq!(next().await, ": ping\n\n", "the head comes at once");
    let joined = next().await;
    assert!(joined.starts_with("id: 2\nevent: worker_joined\ndata: {\"id\":2,"), "{joined}");
    assert!(joined.contains("\"worker\":\"w\"") && joined.ends_with("}\n\n"), "{joined}");
    for _ in 0..crate::events::EVENTS_MAX + 5 {
        bed.events.say(ready("b"));
    }
    assert_eq!(next().await, "event: lost\ndata: {\"kind\":\"lost\",\"lost\":5}\n\n");
    assert!(next().await.starts_with("id: 8\nevent: model_ready\n"));
    // The server does not wait for readers.
    bed.rig.gateway.draining.cancel();
    while body.next().await.is_some() {}
}

#[tokio::test]
async fn a_model_that_is_not_there_is_loaded_when_a_request_names_it() {
    let bed = Bed::new(None, true, Ok(Progress::Loading(0)));
    let asked = bed.rig.post("/v1/chat/completions", chat(json!({"model": "other"})));
    let loaded = async {
        loop {
            if !bed.kept.lock().unwrap().demands.is_empty() {
                let names = ("other".to_owned(), Vec::new());
                bed.rig.gateway.models.add(Arc::new(served(0, names)));
                break bed.goes_on(Progress::Ready).await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let (response, ()) = tokio::join!(asked, loaded);
    assert_eq!(response.status(), 200);
    assert_eq!(read_json(response).await["model"], "other");
    let unknown = bed.rig.error("/v1/chat/completions", chat(json!({"model": "none"}))).await;
    assert_eq!(unknown.0, 404);
    assert_eq!(bed.kept.lock().unwrap().demands, ["other", "none"]);
    bed.rig.ok("/v1/chat/completions", chat(json!({}))).await;
    assert_eq!(bed.kept.lock().unwrap().demands.len(), 2, "what is ready is not asked for");
}

#[tokio::test]
async fn a_load_on_demand_that_fails_is_told_to_the_request() {
    let bed = Bed::new(None, true, Err(Refused::Conflict("8 models are loaded".into())));
    let response = bed.rig.post("/v1/chat/completions", chat(json!({"model": "other"}))).await;
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let (status, error) = error_of(response).await;
    assert_eq!((status, &error["code"]), (503, &json!("load_failed")));
    assert!(error["message"].as_str().unwrap().contains("8 models are loaded"), "{error}");
    // Without the flag nobody is asked.
    let bed = Bed::new(None, false, Ok(Progress::Ready));
    let (status, error) =
        bed.rig.error("/v1/chat/completions", chat(json!({"model": "other"}))).await;
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
    assert!(bed.kept.lock().unwrap().demands.is_empty());
}

#[tokio::test]
async fn without_a_model_requests_are_told_how_to_load_one() {
    for (on_demand, ready) in [(false, 503), (true, 200)] {
        let bed = Bed::new(None, on_demand, Ok(Progress::Ready));
        bed.rig.gateway.models.remove(ModelId(0));
        bed.rig.gateway.engine.statuses().remove(ModelId(0));
        let rig = &bed.rig;
        let (status, error) = rig.error("/v1/chat/completions", chat(json!({"model": "x"}))).await;
        assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
        assert!(error["message"].as_str().unwrap().contains("models load"), "{error}");
        let (status, error) = rig.error("/v1/chat/completions", chat(json!({"model": null}))).await;
        assert_eq!((status, &error["code"]), (503, &json!("no_model")));
        assert_eq!(read_json(rig.get("/v1/models").await).await["data"], json!([]));
        assert_eq!(read_json(rig.get("/health").await).await["status"], "empty");
        assert_eq!(rig.get("/readyz").await.status().as_u16(), ready);
        assert_eq!(rig.get("/").await.status(), 200);
        assert_eq!(rig.get("/v1/models/tiny").await.status(), 404);
    }
}

#[tokio::test]
async fn each_model_has_its_own_status_and_one_that_is_ready_is_enough() {
    let bed = Bed::new(None, false, Ok(Progress::Ready));
    let rig = &bed.rig;
    let second = rig.gateway.engine.statuses().add(ModelId(1));
    rig.gateway.models.add(Arc::new(served(1, ("second".to_owned(), Vec::new()))));
    second.send_modify(|status| status.detail = "loading: 0 of 1 stage ready".to_owned());
    let (status, error) = rig.error("/v1/chat/completions", chat(json!({"model": "second"}))).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_pipeline")));
    assert!(error["message"].as_str().unwrap().contains("0 of 1"), "{error}");
    rig.ok("/v1/chat/completions", chat(json!({}))).await;
    assert_eq!(rig.get("/readyz").await.status(), 200);
    let health = read_json(rig.get("/health").await).await;
    assert_eq!((&health["status"], &health["model"]), (&json!("ok"), &json!("tiny")));
    assert_eq!(health["detail"], "1 of 2 models are ready");
    assert_eq!(health["models"][1]["model"], "second");
    assert_eq!(health["models"][1]["ready"], false);
    let data = read_json(rig.get("/v1/models").await).await["data"].clone();
    assert_eq!((&data[0]["id"], &data[1]["id"]), (&json!("tiny"), &json!("second")));
    assert_eq!(data[1]["max_model_len"], Value::Null);
    // None of several is ready.
    rig.status.send_modify(|status| status.ready = false);
    assert_eq!(rig.get("/readyz").await.status(), 503);
    assert_eq!(read_json(rig.get("/health").await).await["status"], "starting");
}

#[tokio::test]
async fn what_is_unloaded_under_a_request_is_told_as_such() {
    use crate::generation::{Failure, GenerationEvent, Refusal};
    let message = "the model was unloaded".to_owned();
    let failure = Failure { code: "model_unloaded", message };
    let rig = Rig::new(move |_| Script::Play(vec![GenerationEvent::Failed(failure.clone())]));
    let (status, error) = rig.error("/v1/chat/completions", chat(json!({}))).await;
    assert_eq!((status, &error["code"]), (503, &json!("model_unloaded")));
    let late = Rig::new(|_| Script::Refuse(Refusal::Unloaded));
    let (status, error) = late.error("/v1/chat/completions", chat(json!({}))).await;
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
}
