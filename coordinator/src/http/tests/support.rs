//! A fake engine at the other end of the seam, a tiny vocabulary, and ways to send a request.

use crate::generation::{
    Command, EngineHandle, FinishReason, GenerationEvent, GenerationId, GenerationRequest, LaneId,
    Refusal, TokenEvent, seam,
};
use crate::http::output::streams::Streams;
use crate::http::server::admin::Admin;
use crate::http::server::keys::ApiKeys;
use crate::http::server::places::Limits;
use crate::http::{Gateway, GatewayConfig, router};
use crate::ids::ModelId;
use crate::models::{ModelFacts, Registry, ServedModel, Template};
use crate::status::{StageStatus, Status};
use crate::trace::Trace;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;
use woolly_engine::gguf::{Array, Metadata, Value as Kv};
use woolly_engine::tokenizer::Tokenizer;
use woolly_protocol::ids::SequenceId;

/// Context length of the fake engine's plan.
pub const CTX: u32 = 64;
/// Tokens of the vocabulary: 256 bytes, 5 control tokens, 2 merges.
pub const VOCAB: u32 = 263;
pub const BOS: u32 = 256;
pub const EOS: u32 = 257;
pub const IM_START: u32 = 258;
pub const IM_END: u32 = 259;
/// "he" and "hel" as one token each.
pub const HE: u32 = 261;
pub const HEL: u32 = 262;

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'ipython' %}{{ raise_exception('no \
                        python here') }}{% endif %}<|im_start|>{{ m.role[:1] }}:{{ m.content }}\
                        <|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>a:\
                        {% endif %}";

/// A byte-level vocabulary in which token `b` is the byte `b`.
pub fn metadata() -> Metadata {
    Metadata::from_pairs(metadata_pairs())
}

/// Its keys and values, to be changed.
pub fn metadata_pairs() -> Vec<(String, Kv)> {
    // GPT-2 writes bytes as printable characters: those that are keep theirs, the others come
    // from 256 on.
    let mut tokens = Vec::new();
    let mut next = 256;
    for byte in 0..=255_u32 {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let code = if printable { byte } else { next };
        next += u32::from(!printable);
        tokens.push(char::from_u32(code).unwrap().to_string());
    }
    for text in ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<unk>", "he", "hel"] {
        tokens.push(text.to_owned());
    }
    let kinds = (0..VOCAB as i32).map(|id| if (256..=260).contains(&id) { 3 } else { 1 });
    let text = |text: &str| Kv::String(text.to_owned());
    let pairs = [
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", Kv::Array(Array::Strings(tokens))),
        ("tokenizer.ggml.token_type", Kv::Array(Array::I32(kinds.collect()))),
        ("tokenizer.ggml.merges", Kv::Array(Array::Strings(vec!["h e".into(), "he l".into()]))),
        ("tokenizer.ggml.bos_token_id", Kv::U32(BOS)),
        ("tokenizer.ggml.eos_token_id", Kv::U32(EOS)),
        ("tokenizer.ggml.add_bos_token", Kv::Bool(true)),
        ("tokenizer.chat_template", text(TEMPLATE)),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A model of the tiny vocabulary.
pub fn served(id: u32, names: (String, Vec<String>)) -> ServedModel {
    served_of(&metadata(), id, names)
}

fn tiny_names() -> (String, Vec<String>) {
    ("tiny".to_owned(), vec!["gpt-4".to_owned(), "org/tiny".to_owned()])
}

fn served_of(metadata: &Metadata, id: u32, names: (String, Vec<String>)) -> ServedModel {
    let tokenizer = Tokenizer::from_metadata(metadata).unwrap();
    let template = Template::of_model(metadata, &tokenizer);
    assert!(tokenizer.vocab_size() >= VOCAB);
    let facts = ModelFacts { ctx_train: 128, parameters: 7, ..ModelFacts::default() };
    ServedModel::new(ModelId(id), names, (Arc::new(tokenizer), template), facts)
}

/// What the fake engine does with a request.
pub enum Script {
    Refuse(Refusal),
    /// Sends these events and ends.
    Play(Vec<GenerationEvent>),
    /// Sends these events and then waits, until the test sends more or the client is gone.
    Hold(Vec<GenerationEvent>),
}

/// What the fake engine has seen.
#[derive(Default)]
pub struct Seen {
    pub requests: Vec<GenerationRequest>,
    /// Of each of them.
    pub traces: Vec<Option<Trace>>,
    pub cancelled: Vec<u64>,
    pub held: Vec<mpsc::Sender<GenerationEvent>>,
}

/// A gateway with a fake engine behind it.
pub struct Rig {
    pub router: Router,
    pub gateway: Arc<Gateway>,
    pub seen: Arc<Mutex<Seen>>,
    pub status: watch::Sender<Status>,
}

impl Rig {
    /// An engine that follows `script` for every request.
    pub fn new(script: impl Fn(&GenerationRequest) -> Script + Send + 'static) -> Rig {
        Rig::with(|_| {}, script)
    }

    /// The same with another configuration.
    pub fn with(
        configure: impl FnOnce(&mut GatewayConfig),
        script: impl Fn(&GenerationRequest) -> Script + Send + 'static,
    ) -> Rig {
        let tiny = served(0, tiny_names());
        Rig::serving(tiny, configure, script, None)
    }

    /// A model with this template, a context that holds tools, and an engine that answers everything with
    /// this text.
    pub fn templated(template: &str, text: &'static str) -> Rig {
        Rig::templated_script(template, move |_| Script::Play(say(text)))
    }

    /// The same with an engine that follows a script.
    pub fn templated_script(
        template: &str,
        script: impl Fn(&GenerationRequest) -> Script + Send + 'static,
    ) -> Rig {
        let mut pairs = metadata_pairs();
        pairs.retain(|(key, _)| key != "tokenizer.chat_template");
        pairs.push(("tokenizer.chat_template".to_owned(), Kv::String(template.to_owned())));
        let model = served_of(&Metadata::from_pairs(pairs), 0, tiny_names());
        let rig = Rig::serving(model, |_| {}, script, None);
        rig.status.send_modify(|status| status.ctx_size = 8192);
        rig
    }

    /// The same as `with`, with an admin API.
    pub fn administered(
        configure: impl FnOnce(&mut GatewayConfig),
        script: impl Fn(&GenerationRequest) -> Script + Send + 'static,
        admin: Option<Admin>,
    ) -> Rig {
        Rig::serving(served(0, tiny_names()), configure, script, admin)
    }

    /// An engine of a model with another vocabulary.
    pub fn of(
        metadata: &Metadata,
        script: impl Fn(&GenerationRequest) -> Script + Send + 'static,
    ) -> Rig {
        Rig::serving(served_of(metadata, 0, tiny_names()), |_| {}, script, None)
    }

    fn serving(
        served: ServedModel,
        configure: impl FnOnce(&mut GatewayConfig),
        script: impl Fn(&GenerationRequest) -> Script + Send + 'static,
        admin: Option<Admin>,
    ) -> Rig {
        Rig::journalled(served, configure, script, admin, |_| None)
    }

    /// The tiny model, with a template of its own if there is one.
    pub fn tiny(template: Option<&str>) -> ServedModel {
        let mut pairs = metadata_pairs();
        if let Some(template) = template {
            pairs.retain(|(key, _)| key != "tokenizer.chat_template");
            pairs.push(("tokenizer.chat_template".to_owned(), Kv::String(template.to_owned())));
        }
        served_of(&Metadata::from_pairs(pairs), 0, tiny_names())
    }

    /// A gateway whose streams can be continued.
    pub fn journalled(
        served: ServedModel,
        configure: impl FnOnce(&mut GatewayConfig),
        script: impl Fn(&GenerationRequest) -> Script + Send + 'static,
        admin: Option<Admin>,
        streams: impl FnOnce(&EngineHandle) -> Option<Streams>,
    ) -> Rig {
        let (engine, commands, _work) = seam();
        let status = engine.statuses().add(ModelId(0));
        status.send_replace(ready_status());
        let seen = Arc::new(Mutex::new(Seen::default()));
        tokio::spawn(play(commands, script, seen.clone()));
        let mut config = GatewayConfig {
            allowed_hosts: Vec::new(),
            cors_origins: Vec::new(),
            connections: Limits::default(),
            drain: Duration::from_millis(200),
            keys: ApiKeys::default(),
            key_concurrency: None,
            request_timeout: None,
            certificates: None,
        };
        configure(&mut config);
        let bound: std::net::IpAddr = "127.0.0.1".parse().unwrap();
        let models = Arc::new(Registry::new(vec![Arc::new(served)], false));
        let streams = streams(&engine);
        let gateway = Gateway::new(config, engine, models);
        let gateway = match streams {
            Some(streams) => gateway.with_streams(streams),
            None => gateway,
        };
        let gateway = match admin {
            Some(admin) => gateway.with_admin(admin),
            None => gateway,
        };
        let gateway = Arc::new(gateway);
        Rig { router: router(gateway.clone(), bound), gateway, seen, status }
    }

    /// An engine that answers everything with this text, one token per byte, and EOS.
    pub fn saying(text: &'static str) -> Rig {
        Rig::new(move |_| Script::Play(say(text)))
    }

    /// As if its model had been unloaded.
    pub fn unload(&self) {
        self.gateway.models.remove(ModelId(0));
        self.gateway.engine.statuses().remove(ModelId(0));
    }

    /// Sends a request; one that names no host asks for this machine.
    pub async fn send(&self, mut request: Request<Body>) -> Response {
        name_host(&mut request);
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        self.post_text(path, body.to_string()).await
    }

    pub async fn post_text(&self, path: &str, body: impl Into<Body>) -> Response {
        self.send(post(path, body)).await
    }

    /// Posts and expects 200 with JSON.
    pub async fn ok(&self, path: &str, body: Value) -> Value {
        let response = self.post(path, body.clone()).await;
        let status = response.status();
        let value = read_json(response).await;
        assert_eq!(status, StatusCode::OK, "{body} gave {value}");
        value
    }

    /// Posts and expects an error in OpenAI's shape: its status and its `error`.
    pub async fn error(&self, path: &str, body: Value) -> (u16, Value) {
        error_of(self.post(path, body).await).await
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// The text of the last prompt, control tokens left out.
    pub fn prompt(&self) -> String {
        let requests = self.requests();
        let model = self.gateway.models.first().expect("one is served");
        model.tokenizer.decode(&requests.last().expect("one came").prompt)
    }

    pub fn requests(&self) -> Vec<GenerationRequest> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// Waits until the engine was told to cancel these, in any order.
    pub async fn cancelled(&self, expected: &[u64]) {
        let wait = async {
            loop {
                let mut cancelled = self.seen.lock().unwrap().cancelled.clone();
                cancelled.sort_unstable();
                if cancelled == expected {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("nothing was cancelled");
    }
}

pub fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    let mut request = request.body(body.into()).unwrap();
    name_host(&mut request);
    request
}

fn name_host(request: &mut Request<Body>) {
    let host = request.headers_mut().entry(header::HOST);
    host.or_insert(axum::http::HeaderValue::from_static("localhost"));
}

async fn play(
    mut commands: mpsc::Receiver<Command>,
    script: impl Fn(&GenerationRequest) -> Script,
    seen: Arc<Mutex<Seen>>,
) {
    let mut id = 0;
    while let Some(command) = commands.recv().await {
        let (request, events, reply) = match command {
            Command::Submit { request, events, trace, reply } => {
                seen.lock().unwrap().traces.push(trace);
                (*request, events, reply)
            }
            Command::Cancel { id } => {
                seen.lock().unwrap().cancelled.push(id.sequence.0);
                continue;
            }
        };
        let script = script(&request);
        seen.lock().unwrap().requests.push(request);
        let (list, hold) = match script {
            Script::Refuse(refusal) => {
                let _ = reply.send(Err(refusal));
                continue;
            }
            Script::Play(list) => (list, false),
            Script::Hold(list) => (list, true),
        };
        let named = GenerationId { lane: LaneId(0), sequence: SequenceId(id) };
        let _ = reply.send(Ok(named));
        id += 1;
        for event in list {
            let _ = events.try_send(event);
        }
        if hold {
            seen.lock().unwrap().held.push(events);
        }
    }
}

/// The status of a plan of two ready stages.
pub fn ready_status() -> Status {
    let stage = |worker: &str, layer_first, layer_end| StageStatus {
        worker: worker.into(),
        worker_id: "00".into(),
        layer_first,
        layer_end,
        mapped_bytes: 1000,
        kv_blocks: 8,
        ready: true,
    };
    Status {
        ready: true,
        detail: "serving tiny".into(),
        stages: vec![stage("a", 0, 17), stage("b", 17, 28)],
        kv_tokens: 256,
        ctx_size: CTX,
        kv_blocks: 8,
        kv_blocks_free: 8,
        ..Status::default()
    }
}

/// A token that was chosen with this log-probability.
pub fn token(token: u32, logprob: f32) -> TokenEvent {
    TokenEvent { token, logprob, top: Vec::new() }
}

pub fn tokens(text: &str) -> Vec<GenerationEvent> {
    text.bytes().map(|byte| GenerationEvent::Token(token(byte.into(), -0.5))).collect()
}

pub fn finished(reason: FinishReason) -> GenerationEvent {
    GenerationEvent::Finished { reason, cached_tokens: 3 }
}

/// A text, EOS and the end.
pub fn say(text: &str) -> Vec<GenerationEvent> {
    let mut events = tokens(text);
    events.push(GenerationEvent::Token(token(EOS, -0.25)));
    events.push(finished(FinishReason::Stop));
    events
}

pub fn chat(more: Value) -> Value {
    with(json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}), more)
}

pub fn completion(more: Value) -> Value {
    with(json!({"model": "tiny", "prompt": "hi"}), more)
}

fn with(mut body: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

pub async fn read_text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub async fn read_json(response: Response) -> Value {
    let text = read_text(response).await;
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"))
}

/// The status and the `error` of an answer in OpenAI's shape.
pub async fn error_of(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = read_json(response).await;
    let error = body["error"].clone();
    assert!(error["message"].is_string() && error["type"].is_string(), "{status} {body}");
    let keys: Vec<&String> = error.as_object().unwrap().keys().collect();
    assert_eq!(keys[..4], ["message", "type", "param", "code"]);
    (status, error)
}
