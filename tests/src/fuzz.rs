//! What reads strangers' bytes, as functions of those bytes: they may refuse them, and nothing else. A fuzzer
//! drives them (`tests/fuzz/`), and a plain test replays the inputs that it kept (`tests/fuzz.rs`).
//!
//! An input ends the process only by a panic; time and memory are the fuzzer's to watch.

use crate::fixtures::committed;
use clap::{Arg, CommandFactory};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use tower::ServiceExt;
use woolly_coordinator::config::Cli;
use woolly_coordinator::generation::{
    Command, FinishReason, GenerationEvent, GenerationId, LaneId, TokenEvent, seam,
};
use woolly_coordinator::guides::{Grammar, Guides, Next};
use woolly_coordinator::http::server::keys::ApiKeys;
use woolly_coordinator::http::server::places::Limits;
use woolly_coordinator::http::{Gateway, GatewayConfig, router};
use woolly_coordinator::ids::ModelId;
use woolly_coordinator::models::{ModelFacts, Registry, ServedModel, Template};
use woolly_engine::chat_template::{ChatTemplate, RenderOptions};
use woolly_engine::gguf::{Gguf, HeaderPart};
use woolly_engine::plan::ModelLayout;
use woolly_engine::tokenizer::{EncodeOptions, Tokenizer};
use woolly_protocol::frame::{EncodedFrame, Frame, Message};
use woolly_protocol::ids::SequenceId;
use woolly_protocol::kind::Kind;
use woolly_protocol::preamble::{PREAMBLE_LEN, Preamble};
use woolly_protocol::sampling::TokenMask;
use woolly_protocol::settings::file::ConfigFile;
use woolly_protocol::token::JoinToken;

/// Bytes of a file whose header is read: tensors lie behind the header, and nobody reads them.
const MODEL_FILE: u64 = 1 << 30;

/// A name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("gguf", gguf),
    ("frames", frames),
    ("request", request),
    ("template", template),
    ("tokenizer", tokenizer),
    ("settings", settings),
    ("gbnf", gbnf),
    ("schema", schema),
];

/// The header of a model file: keys, tensors, the layout, the vocabulary and the template that they describe.
pub fn gguf(data: &[u8]) {
    let part =
        HeaderPart { file_name: "m.gguf".to_owned(), bytes: data.to_vec(), file_size: MODEL_FILE };
    let Ok(model) = Gguf::from_headers(vec![part]) else { return };
    if let Ok(layout) = ModelLayout::new(&model) {
        assert!(!layout.architecture.is_empty());
    }
    if let Ok(tokenizer) = Tokenizer::from_metadata(model.metadata()) {
        let _ = tokenizer.encode("a b\n1 \u{e9}", EncodeOptions::default());
        let _ = ChatTemplate::from_metadata(model.metadata(), &tokenizer);
    }
}

/// Whatever a peer sends first or later: preambles, frames of every kind, tokens.
pub fn frames(data: &[u8]) {
    let bytes = data.get(..PREAMBLE_LEN).map(<[u8; PREAMBLE_LEN]>::try_from);
    if let Some(Ok(bytes)) = bytes
        && let Ok(preamble) = Preamble::from_bytes(&bytes)
    {
        assert_eq!(preamble.to_bytes()[..8], bytes[..8]);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = text.parse::<JoinToken>();
    }
    let Ok((frame, used)) = Frame::decode(data, &Kind::ALL) else { return };
    assert!(used <= data.len());
    messages(&frame);
}

/// The frame's message, as the type of its kind.
fn messages(frame: &Frame) {
    use woolly_protocol::{control, fault, forward, join, sampling, slices};
    fn read<M: Message>(frame: &Frame) {
        // A message that was taken can be sent on.
        if let Ok(message) = frame.message::<M>() {
            EncodedFrame::new(&message).expect("what was taken can be sent on");
        }
    }
    match frame.kind() {
        Kind::Hello => read::<control::Hello>(frame),
        Kind::Welcome => read::<control::Welcome>(frame),
        Kind::Assign => read::<control::Assign>(frame),
        Kind::Ready => read::<control::Ready>(frame),
        Kind::Heartbeat => read::<control::Heartbeat>(frame),
        Kind::Release => read::<control::Release>(frame),
        Kind::Drain => read::<control::Drain>(frame),
        Kind::Fault => read::<fault::FaultMessage>(frame),
        Kind::StreamOpen => read::<control::StreamOpen>(frame),
        Kind::Forward => read::<forward::Forward>(frame),
        Kind::Sampling => read::<sampling::Sampling>(frame),
        Kind::Sampled => read::<sampling::Sampled>(frame),
        Kind::JoinRequest => read::<join::JoinRequest>(frame),
        Kind::JoinAccepted => read::<join::JoinAccepted>(frame),
        Kind::RenewalRequest => read::<join::RenewalRequest>(frame),
        Kind::Removed => read::<join::Removed>(frame),
        Kind::SliceManifestRequest => read::<slices::SliceManifestRequest>(frame),
        Kind::SliceManifest => read::<slices::SliceManifest>(frame),
        Kind::SliceChunkRequest => read::<slices::SliceChunkRequest>(frame),
        Kind::SliceChunk => read::<slices::SliceChunk>(frame),
    }
}

/// A tokenizer of a model in the repository.
fn vocabulary(name: &str) -> Arc<Tokenizer> {
    let model = Gguf::open(&committed(name)).expect("a fixture is whole");
    Arc::new(Tokenizer::from_metadata(model.metadata()).expect("a fixture has a vocabulary"))
}

static QWEN: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| vocabulary("tiny-qwen3"));
static LLAMA: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| vocabulary("tiny-llama3"));
static SPM: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| vocabulary("tiny-spm"));

/// A text through several vocabularies and back; the first byte says how.
pub fn tokenizer(data: &[u8]) {
    let Some((how, text)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let options = EncodeOptions { add_special: how & 1 != 0, parse_special: how & 2 != 0 };
    for tokenizer in [&*QWEN, &*LLAMA, &*SPM] {
        let Ok(ids) = tokenizer.encode(&text, options) else { continue };
        assert!(ids.iter().all(|id| *id < tokenizer.vocab_size()));
        assert!(ids.len() <= 2 * text.len() + 3, "{} tokens of {} bytes", ids.len(), text.len());
        tokenizer.decode(&ids);
    }
    // Any ids can be written as text.
    let ids: Vec<u32> = data.iter().map(|byte| u32::from(*byte)).collect();
    for tokenizer in [&*QWEN, &*SPM] {
        let known = ids.iter().copied().filter(|id| *id < tokenizer.vocab_size());
        tokenizer.decode(&known.collect::<Vec<_>>());
    }
}

/// A chat template and, behind a NUL, the messages for it.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (source, messages) = text.split_once('\0').unwrap_or((text, "[]"));
    let Ok(template) = ChatTemplate::from_source(source, &QWEN) else { return };
    let messages = serde_json::from_str(messages).unwrap_or(serde_json::Value::Null);
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let _ = template.render(&messages, &options);
    if let Ok(prompt) = template.prompt(&messages, &options) {
        let _ = QWEN.encode_chat(&prompt);
    }
}

/// A file of options for `serve`.
pub fn settings(data: &[u8]) {
    static SERVE: OnceLock<clap::Command> = OnceLock::new();
    let Ok(text) = std::str::from_utf8(data) else { return };
    let serve = SERVE.get_or_init(|| {
        let cli = Cli::command();
        cli.find_subcommand("serve").expect("there is a serve").clone()
    });
    let options: Vec<&Arg> = serve.get_arguments().collect();
    let file = ConfigFile::of_text(text, "c.toml", &options);
    for mistake in file.mistakes {
        assert!(mistake.starts_with("c.toml:") && !mistake.contains('\n'), "{mistake:?}");
    }
}

/// A grammar in llama.cpp's notation.
pub fn gbnf(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    follow(&Grammar::Gbnf(text.to_owned()));
}

/// A JSON schema; what is no JSON is a regular expression.
pub fn schema(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match serde_json::from_str(text) {
        Ok(schema) => follow(&Grammar::JsonSchema(schema)),
        Err(_) => follow(&Grammar::Regex(text.to_owned())),
    }
}

static GUIDES: LazyLock<Guides> =
    LazyLock::new(|| Guides::new(Arc::clone(&QWEN), &[]).expect("the vocabulary is small"));

/// The first tokens of an answer that a grammar allows.
fn follow(grammar: &Grammar) {
    const TOKENS: usize = 12;
    let Ok(guided) = GUIDES.guide(grammar, None) else { return };
    let mut next = guided.first().clone();
    let Some(mut guide) = guided.take() else { return };
    for _ in 0..TOKENS {
        let Next::Goes { mask: Some(mask), .. } = next else { return };
        let token = match &*mask {
            TokenMask::Only(ids) => ids.last().copied(),
            TokenMask::AllBut(ids) => (0..QWEN.vocab_size()).find(|id| !ids.contains(id)),
            TokenMask::Bits(words) => {
                let set = |id: &u32| words[*id as usize / 64] >> (id % 64) & 1 == 1;
                (0..QWEN.vocab_size()).find(set)
            }
        };
        next = guide.next(token.expect("a mask allows something"));
    }
}

/// A gateway in front of an engine that answers with two tokens.
struct Bench {
    runtime: Runtime,
    router: axum::Router,
}

thread_local! {
    static BENCH: Bench = Bench::new();
}

impl Bench {
    fn new() -> Bench {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        let inside = runtime.enter();
        let (engine, mut commands, work) = seam();
        let status = engine.statuses().add(ModelId(0));
        status.send_modify(|status| {
            (status.ready, status.ctx_size, status.kv_tokens) = (true, 256, 4096);
        });
        tokio::spawn(async move {
            // They live as long as the engine.
            let _told = (work, status);
            while let Some(command) = commands.recv().await {
                let Command::Submit { events, reply, .. } = command else { continue };
                let id = GenerationId { lane: LaneId(0), sequence: SequenceId(1) };
                let _ = reply.send(Ok(id));
                for token in [40, 41] {
                    let token = TokenEvent { token, logprob: -1.0, top: Vec::new() };
                    let _ = events.try_send(GenerationEvent::Token(token));
                }
                let reason = FinishReason::Length;
                let _ = events.try_send(GenerationEvent::Finished { reason, cached_tokens: 0 });
            }
        });
        let template = Template::Ready(Arc::new(
            ChatTemplate::from_source(
                "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}",
                &QWEN,
            )
            .expect("the template compiles"),
        ));
        let names = ("tiny".to_owned(), Vec::new());
        let texts = (Arc::clone(&QWEN), template);
        let model = ServedModel::new(ModelId(0), names, texts, ModelFacts::default());
        let config = GatewayConfig {
            allowed_hosts: Vec::new(),
            cors_origins: Vec::new(),
            connections: Limits::default(),
            drain: Duration::ZERO,
            keys: ApiKeys::default(),
            key_concurrency: None,
            request_timeout: Some(Duration::from_secs(2)),
            certificates: None,
        };
        let models = Arc::new(Registry::new(vec![Arc::new(model)], true));
        let gateway = Arc::new(Gateway::new(config, engine, models));
        let router = router(gateway, IpAddr::from([127, 0, 0, 1]));
        drop(inside);
        Bench { runtime, router }
    }
}

/// A path in the first line and a body behind it.
pub fn request(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (path, body) = data.split_at(at);
    let body = body.get(1..).unwrap_or_default().to_vec();
    let Ok(path) = std::str::from_utf8(path) else { return };
    let request = axum::http::Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(axum::body::Body::from(body));
    let Ok(request) = request else { return };
    BENCH.with(|bench| {
        bench.runtime.block_on(async {
            let Ok(response) = bench.router.clone().oneshot(request).await;
            let status = response.status().as_u16();
            let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await;
            let bytes = bytes.expect("an answer has an end");
            assert!(status < 500, "{status}: {}", String::from_utf8_lossy(&bytes));
        });
    });
}
