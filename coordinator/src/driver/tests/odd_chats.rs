//! Odd requests through the gateway into a driver: whatever a client sends and whatever the model's
//! template makes of it, the answer is an answer or a 4xx, and the next client is served.
//!
//! Every request follows from its number, so a number reproduces a failure. `WOOLLY_ODD_REQUESTS`
//! sets how many there are.

use super::{Player, Rig, read};
use crate::generation::EngineHandle;
use crate::http::server::keys::ApiKeys;
use crate::http::server::places::Limits;
use crate::http::tests::support::{BOS, EOS, VOCAB, metadata_pairs, post, read_json};
use crate::http::{Gateway, GatewayConfig, router};
use crate::ids::ModelId;
use crate::models::Template;
use crate::models::{ModelFacts, Registry, ServedModel};
use axum::Router;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;
use woolly_engine::gguf::{Metadata, Value as Kv};
use woolly_engine::tokenizer::Tokenizer;
use woolly_protocol::control::{Heartbeat, StreamPurpose};
use woolly_protocol::forward::Forward;
use woolly_protocol::frame::EncodedFrame;
use woolly_protocol::frame_io::write_frame;
use woolly_protocol::kind::Kind;
use woolly_protocol::sampling::{
    RowMode, Sampled, SampledRow, SampledToken, Sampling, SamplingRow, TokenMask,
};

/// Requests unless `WOOLLY_ODD_REQUESTS` says another number.
const REQUESTS: u64 = 2000;

/// What real files and odd ones have as a template.
pub(super) const TEMPLATES: [&str; 22] = [
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
    "",
    "{{ '   \n ' | trim }}",
    "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
     {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}",
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\
     {{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}",
    "{{ raise_exception('never') }}",
    "{{ messages[-1].content }}",
    "{{ messages[0].content[0] }}",
    "{{ messages[1].content.strip() }}",
    "{% for m in messages if m.role == 'tool' %}{{ m.content }}{% endfor %}",
    " \n\t ",
    "{{ bos_token }}",
    "{{ eos_token }}{{ bos_token }}{{ bos_token }}",
    "{{ strftime_now('%d %b %Y') }}",
    "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = m.content %}{% endfor %}\
     {{ ns.s }}",
    "{{ messages[-1].content.split('</think>')[-1] }}",
    "{% macro say(m) %}{{ m.content }}{% endmacro %}{{ say(messages[0]) }}",
    "{{ messages | tojson }}",
    "{{ messages[0].nothing.at.all }}",
];

/// Numbers that follow from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.roll(list.len())].clone()
    }

    fn text(&mut self) -> String {
        let texts = [
            "",
            " ",
            "\n",
            "hi",
            "a\u{0}b",
            "<|im_end|>",
            "<s>",
            "</s>",
            "{{ 1 }}",
            "é🤗",
            "</think>",
            "\u{202e}x",
            "the quick brown fox",
            "\t\t",
        ];
        self.pick(&texts).to_owned()
    }

    /// Any JSON value.
    fn value(&mut self, depth: usize) -> Value {
        match self.roll(if depth == 0 { 12 } else { 14 }) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(false),
            3 => json!(0),
            4 => json!(-1),
            5 => json!(self.pick(&[1, 2, 16, 64, 1_000_000])),
            6 => json!(self.pick(&[0.0, 0.5, 1.0, 4.0, -2.5, 1e300])),
            7 => json!(self.text()),
            8 => json!([]),
            9 => json!({}),
            10 => json!("none"),
            11 => json!(self.pick(&[u64::MAX, 1 << 53, 1 << 32])),
            12 => (0..self.roll(3)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let key = self.pick(&["type", "text", "enable_thinking", "name", "x"]);
                json!({ key: self.value(depth - 1) })
            }
        }
    }

    fn message(&mut self) -> Value {
        let roles = [
            "user",
            "user",
            "user",
            "system",
            "assistant",
            "tool",
            "developer",
            "function",
            "robot",
            "",
        ];
        let content = match self.roll(8) {
            0 => self.value(2),
            1 => json!([{"type": "text", "text": self.text()}]),
            _ => json!(self.text()),
        };
        let mut message = json!({"role": self.pick(&roles), "content": content});
        if self.roll(6) == 0 {
            let name = self.pick(&[
                "name",
                "tool_calls",
                "refusal",
                "annotations",
                "reasoning_content",
                "type",
                "audio",
                "cache_control",
                "tool_call_id",
                "prefix",
                "odd",
            ]);
            message[name] = self.value(2);
        }
        message
    }

    fn field(&mut self, body: &mut Value) {
        let name = self.pick(&[
            "max_tokens",
            "max_completion_tokens",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "seed",
            "stop",
            "stream",
            "stream_options",
            "logprobs",
            "top_logprobs",
            "logit_bias",
            "echo",
            "n",
            "tools",
            "tool_choice",
            "response_format",
            "chat_template_kwargs",
            "continue_final_message",
            "add_generation_prompt",
            "reasoning_effort",
            "think",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "ignore_eos",
            "model",
            "store",
            "metadata",
            "user",
            "suffix",
            "mirostat_tau",
            "samplers",
            "repeat_last_n",
            "cache_prompt",
            "odd",
            "prompt",
            "messages",
        ]);
        body[name] = self.value(2);
    }

    /// A path and a body.
    fn request(&mut self) -> (&'static str, Value) {
        let mut body = json!({"model": "tiny", "max_tokens": self.pick(&[1, 2, 3])});
        let path = match self.roll(5) {
            0 => {
                body["prompt"] = match self.roll(4) {
                    0 => self.value(2),
                    1 => (0..self.roll(6)).map(|_| json!(self.roll(300))).collect(),
                    2 => (0..self.roll(5)).map(|_| json!(self.text())).collect(),
                    _ => json!(self.text()),
                };
                "/v1/completions"
            }
            1 => "/tokenize",
            _ => "/v1/chat/completions",
        };
        if path != "/v1/completions" {
            body["messages"] = (0..self.roll(5)).map(|_| self.message()).collect();
        }
        for _ in 0..self.pick(&[0, 0, 0, 1, 1, 2]) {
            self.field(&mut body);
        }
        (path, body)
    }
}

/// A gateway in front of the driver for a model with this template.
fn gateway(engine: &EngineHandle, template: &str, add_bos: bool) -> Router {
    let (config, models) = parts(template, add_bos);
    let bound: std::net::IpAddr = "127.0.0.1".parse().unwrap();
    router(Arc::new(Gateway::new(config, engine.clone(), models)), bound)
}

/// What it consists of beside the driver.
pub(super) fn parts(template: &str, add_bos: bool) -> (GatewayConfig, Arc<Registry>) {
    let mut pairs = metadata_pairs();
    for (key, value) in &mut pairs {
        match key.as_str() {
            "tokenizer.chat_template" => *value = Kv::String(template.to_owned()),
            "tokenizer.ggml.add_bos_token" => *value = Kv::Bool(add_bos),
            _ => {}
        }
    }
    let metadata = Metadata::from_pairs(pairs);
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    let template = Template::of_model(&metadata, &tokenizer);
    assert!(template.get().is_some());
    let (names, texts) = (("tiny".to_owned(), Vec::new()), (Arc::new(tokenizer), template));
    let served = ServedModel::new(ModelId(0), names, texts, ModelFacts::default());
    let config = GatewayConfig {
        allowed_hosts: Vec::new(),
        cors_origins: Vec::new(),
        connections: Limits::default(),
        drain: Duration::ZERO,
        keys: ApiKeys::default(),
        key_concurrency: None,
        request_timeout: None,
        certificates: None,
    };
    (config, Arc::new(Registry::new(vec![Arc::new(served)], false)))
}

/// Says that the worker is there, for a test that is longer than the silence that is allowed.
async fn beat(mut player: Player) {
    let heartbeat = || EncodedFrame::new(&Heartbeat { number: 1, ..Heartbeat::default() }).unwrap();
    while write_frame(&mut player.send, heartbeat()).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The likely token if a mask allows it, else the first that it does.
fn allowed(mask: &TokenMask, likely: u32) -> u32 {
    let is_allowed = |id: &u32| match mask {
        TokenMask::Only(ids) => ids.contains(id),
        TokenMask::AllBut(ids) => !ids.contains(id),
        TokenMask::Bits(words) => words[*id as usize / 64] >> (id % 64) & 1 == 1,
    };
    if is_allowed(&likely) { likely } else { (0..VOCAB).find(is_allowed).unwrap() }
}

/// Plays a worker that holds the whole model and computes a forward in `pause`: every token is 7, or the end.
pub(super) async fn compute(player: Player, pause: Duration) {
    let mut forwards = player.stream(StreamPurpose::Forwards).await;
    let mut samplings = player.stream(StreamPurpose::Samplings).await;
    let mut answers = player.answers().await;
    tokio::spawn(beat(player));
    while let Ok(Some(frame)) = forwards.read(&[Kind::Forward]).await {
        let forward = frame.message::<Forward>().unwrap();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let asks = forward.chunks.iter().any(|chunk| chunk.sample_rows > 0);
        let (params, rows, masks) = if asks {
            let sampling: Sampling = read(&mut samplings, Kind::Sampling).await.message().unwrap();
            (sampling.params, sampling.rows, sampling.masks)
        } else {
            (Vec::new(), Vec::new(), Vec::new())
        };
        let ends = |by: u32| params[by as usize].options.seed.is_multiple_of(4);
        let row = |row: SamplingRow| {
            let token = match row.mode {
                RowMode::Score(target) => target,
                RowMode::Sample(by) => {
                    let likely = [7, EOS][usize::from(ends(by.params))];
                    by.mask.map_or(likely, |mask| allowed(&masks[mask as usize], likely))
                }
            };
            let top = (0..u32::from(row.top_logprobs)).map(|id| (id, -2.0)).collect();
            SampledRow::Token(SampledToken { token, logprob: -1.0, top })
        };
        let rows = rows.into_iter().map(row).collect();
        let sampled = Sampled { epoch: forward.epoch, microbatch: forward.microbatch, rows };
        if write_frame(&mut answers, EncodedFrame::new(&sampled).unwrap()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn no_request_and_no_template_ends_the_server() {
    let (rig, mut players) = Rig::ready(1).await;
    tokio::spawn(compute(players.remove(0), Duration::ZERO));
    let gateways: Vec<Router> = TEMPLATES
        .iter()
        .flat_map(|template| [true, false].map(|bos| gateway(&rig.engine, template, bos)))
        .collect();
    let plain = json!({"model": "tiny", "prompt": [BOS, 7], "max_tokens": 2, "temperature": 0});
    let count = std::env::var("WOOLLY_ODD_REQUESTS").ok().map_or(REQUESTS, |n| n.parse().unwrap());
    let mut answered = 0;
    for number in 0..count {
        let mut dice = Dice(number);
        let gateway = &gateways[dice.roll(gateways.len())];
        let (path, body) = dice.request();
        let response = gateway.clone().oneshot(post(path, body.to_string())).await.unwrap();
        let status = response.status().as_u16();
        // A stream is read to its end, too.
        let text = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!((200..500).contains(&status), "request {number}: {status} {text}\n{path} {body}");
        assert!(!text.contains("server_error"), "request {number}: {text}\n{path} {body}");
        assert!(!rig.driver.is_finished(), "request {number} ended the driver: {path} {body}");
        answered += u64::from(status == 200);
        if number.is_multiple_of(64) {
            let request = post("/v1/completions", plain.to_string());
            let response = gateway.clone().oneshot(request).await.unwrap();
            let body = read_json(response).await;
            assert_eq!(body["usage"]["prompt_tokens"], 2, "after request {number}: {body}");
        }
    }
    assert!(answered * 10 > count, "only {answered} of {count} were answered: the test is too odd");
}

#[tokio::test]
async fn a_chat_without_tokens_is_a_400_that_names_the_messages() {
    let (rig, mut players) = Rig::ready(1).await;
    tokio::spawn(compute(players.remove(0), Duration::ZERO));
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": ""}]});
    for (template, bos, expected) in
        [(TEMPLATES[0], false, 400), (TEMPLATES[2], false, 400), (TEMPLATES[0], true, 200)]
    {
        let request = post("/v1/chat/completions", chat.to_string());
        let response = gateway(&rig.engine, template, bos).oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{template:?}");
        if expected == 400 {
            let body = read_json(response).await;
            assert_eq!(body["error"]["param"], "messages");
        }
    }
}
