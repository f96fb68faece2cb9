//! What clients ask for: every kind of answer that a fault could change, a few variants of each.

use serde_json::{Value, json};
use woolly_tests::numbers::Numbers;

/// Variants of each kind; they differ in their prompts, lengths and seeds.
const VARIANTS: u64 = 3;
/// Ids of prompts that are given as tokens lie between these: ordinary tokens of every fixture.
const IDS: std::ops::Range<usize> = 300..1000;
/// Tokens of a long prompt: several chunks of prefill.
const LONG: usize = 2000;
/// Tokens that the prompts of a kind have in common.
const SHARED: usize = 160;

/// A request as every client sends it, streamed or not.
#[derive(Debug)]
pub struct Request {
    /// Its kind, for reports.
    pub kind: &'static str,
    /// Where it goes.
    pub path: &'static str,
    /// Its body without `stream`.
    pub body: Value,
    /// Whether it may be streamed: an answer without tokens is not worth it.
    pub streams: bool,
    /// Tokens of its answer at most.
    pub tokens: usize,
}

/// All requests for a model; the same each time.
pub fn all(model: &str) -> Vec<Request> {
    let variants = (0..VARIANTS).flat_map(|variant| {
        let chats = CHATS.iter().map(move |chat| chatted(model, chat, variant));
        chats.chain(completions(model, variant))
    });
    variants.collect()
}

/// A kind of chat: its name, its fields, and the tokens of its answers.
struct Chat {
    kind: &'static str,
    fields: fn(u64) -> Value,
    tokens: [usize; VARIANTS as usize],
}

const CHATS: [Chat; 9] = [
    Chat {
        kind: "greedy",
        fields: |_| json!({ "temperature": 0, "ignore_eos": true }),
        tokens: [200, 96, 24],
    },
    Chat {
        kind: "seeded",
        fields: |variant| json!({ "temperature": 0.9, "top_p": 0.95, "seed": 40 + variant, "ignore_eos": true }),
        tokens: [160, 64, 200],
    },
    Chat {
        kind: "penalties",
        fields: |variant| {
            json!({
                "temperature": 0.3 * variant as f64, "seed": variant, "repetition_penalty": 1.2,
                "frequency_penalty": 0.5, "presence_penalty": 0.4, "ignore_eos": true,
            })
        },
        tokens: [120, 48, 180],
    },
    Chat {
        kind: "logit bias",
        fields: |variant| {
            json!({
                "temperature": 0.8, "top_k": 40, "seed": 7 + variant, "ignore_eos": true,
                "logit_bias": { "400": 4.0, "500": 4.0, "600": -100.0 },
            })
        },
        tokens: [64, 32, 128],
    },
    Chat {
        kind: "log-probabilities",
        fields: |_| json!({ "temperature": 0, "ignore_eos": true, "logprobs": true, "top_logprobs": 3 }),
        tokens: [200, 60, 24],
    },
    Chat {
        kind: "seeded log-probabilities",
        fields: |variant| {
            json!({
                "temperature": 1.0, "min_p": 0.02, "seed": 90 + variant, "ignore_eos": true,
                "logprobs": true, "top_logprobs": 1,
            })
        },
        tokens: [100, 200, 40],
    },
    Chat {
        kind: "long answer",
        fields: |_| json!({ "temperature": 0, "ignore_eos": true, "logprobs": true }),
        tokens: [500, 400, 300],
    },
    Chat {
        kind: "stop strings",
        fields: |_| json!({ "temperature": 0, "stop": ["ing", " value", "equal"] }),
        tokens: [200, 200, 200],
    },
    Chat {
        kind: "its own end",
        fields: |variant| json!({ "temperature": 0.7, "seed": 3 + variant }),
        tokens: [150, 150, 150],
    },
];

const QUESTIONS: [&str; VARIANTS as usize] =
    ["What is a brick?", "Tell me a story of the sea and of those who live by it.", "Begin."];

fn chatted(model: &str, chat: &Chat, variant: u64) -> Request {
    let at = variant as usize;
    let mut body = json!({
        "model": model,
        "messages": [{ "role": "user", "content": QUESTIONS[at] }],
        "max_tokens": chat.tokens[at],
    });
    add(&mut body, (chat.fields)(variant));
    let (path, tokens) = ("/v1/chat/completions", chat.tokens[at]);
    Request { kind: chat.kind, path, body, streams: true, tokens }
}

fn completions(model: &str, variant: u64) -> Vec<Request> {
    let make = |kind, prompt: Vec<usize>, tokens: usize, fields: Value| {
        let mut body =
            json!({ "model": model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": true });
        add(&mut body, fields);
        Request { kind, path: "/v1/completions", body, streams: tokens > 0, tokens }
    };
    let at = variant as usize;
    let own = |purpose: u64, len: usize| ids(&[purpose, variant], len);
    let shared = [ids(&[1], SHARED), own(2, 9)].concat();
    let seeded = json!({ "temperature": 0.8, "seed": variant, "logprobs": 2 });
    let greedy = json!({ "temperature": 0 });
    let scored = json!({ "echo": true, "logprobs": 2 });
    let echoed = json!({ "echo": true, "logprobs": 1, "temperature": 0.6, "seed": 11 + variant });
    vec![
        make("completion", own(3, 20), [80, 160, 32][at], seeded),
        make("shared prefix", shared, [48, 100, 24][at], greedy.clone()),
        make("long prompt", own(4, LONG), [24, 64, 32][at], greedy),
        make("scoring", own(5, [64, 500, 1200][at]), 0, scored),
        make("echo", own(6, [40, 200, 90][at]), [40, 24, 64][at], echoed),
    ]
}

/// Token ids that belong to these values.
fn ids(values: &[u64], len: usize) -> Vec<usize> {
    let mut numbers = Numbers::of(values);
    (0..len).map(|_| IDS.start + numbers.below(IDS.len())).collect()
}

fn add(body: &mut Value, fields: Value) {
    let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) else {
        unreachable!("both are objects");
    };
    body.extend(fields);
}
