//! Bodies and values that are odd in themselves: what is no JSON, conversations, prompts, stops, schemas,
//! tools, long texts.

use super::Bed;
use crate::http::tests::support::post;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
/// A text of megabytes has to be refused within this, on a busy machine too.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

fn chat(more: Value) -> Value {
    with(
        json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}),
        more,
    )
}

fn completion(more: Value) -> Value {
    with(json!({"model": "tiny", "prompt": "hi", "max_tokens": 2}), more)
}

fn with(mut body: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn h01_to_h05_bodies_that_are_no_request() {
    let bed = Bed::new(Duration::ZERO).await;
    let deep = "[".repeat(100_000);
    let deep_object = "{\"a\":".repeat(100_000);
    let keys: Vec<String> = (0..300_000).map(|key| format!("\"{key}\":0")).collect();
    let keys = format!("{{{}}}", keys.join(","));
    let utf16: Vec<u8> = "{\"model\":\"tiny\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("H-01 empty", vec![]),
        ("H-01 {", b"{".to_vec()),
        ("H-01 nul", b"nul".to_vec()),
        ("H-01 []", b"[]".to_vec()),
        ("H-01 text", b"\"x\"".to_vec()),
        ("H-01 two", b"{} {}".to_vec()),
        ("H-01 comma", b"{\"model\":\"tiny\",}".to_vec()),
        ("H-01 quotes", b"{'model':'tiny'}".to_vec()),
        ("H-01 comment", b"{\"model\":\"tiny\"/* x */}".to_vec()),
        ("H-01 BOM", b"\xef\xbb\xbf{\"model\":\"tiny\"}".to_vec()),
        ("H-01 UTF-16", utf16),
        ("H-02 0xff", b"{\"model\":\"\xff\"}".to_vec()),
        ("H-02 overlong", b"{\"model\":\"\xc0\xaf\"}".to_vec()),
        ("H-02 surrogate", b"{\"model\":\"\xed\xa0\x80\"}".to_vec()),
        ("H-03 lone surrogate", br#"{"model":"tiny","prompt":"\ud800"}"#.to_vec()),
        ("H-04 twice", br#"{"model":"tiny","prompt":"a","max_tokens":1,"max_tokens":9}"#.to_vec()),
        ("H-05 deep list", deep.into_bytes()),
        ("H-05 deep object", deep_object.into_bytes()),
        ("H-05 many keys", keys.into_bytes()),
    ];
    for (row, bytes) in cases {
        for path in [CHAT, COMPLETIONS, "/tokenize", "/v1/messages", "/v1/responses", "/api/chat"] {
            let status = bed.row(row, post(path, bytes.clone())).await;
            assert!(status >= 400, "{row} {path} was answered");
        }
    }
    let nul = completion(json!({"prompt": "a\u{0}b"}));
    assert_eq!(bed.post("H-03 NUL", COMPLETIONS, &nul).await, 200);
    bed.after("H-01 to H-05").await;
}

#[tokio::test]
async fn h11_to_h14_conversations() {
    let bed = Bed::new(Duration::ZERO).await;
    let user = json!({"role": "user", "content": "a"});
    let many = |count: usize| Value::Array(vec![user.clone(); count]);
    let parts: Vec<Value> = (0..100_000).map(|_| json!({"type": "text", "text": ""})).collect();
    let cases = [
        ("null", Value::Null),
        ("text", json!("string")),
        ("none", json!([])),
        ("number", json!([123])),
        ("empty", json!([{}])),
        ("role", json!([{"role": 123}])),
        ("content", json!([{"role": "system", "content": 123}])),
        ("unknown role", json!([{"role": "robot", "content": "a"}])),
        ("no content", json!([{"role": "user", "content": null}])),
        (
            "assistant twice",
            json!([user, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]),
        ),
        ("no parts", json!([{"role": "user", "content": []}])),
        ("unknown part", json!([{"role": "user", "content": [{"type": "smell", "smell": "x"}]}])),
        (
            "image",
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x"}}]}]),
        ),
        (
            "audio",
            json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]),
        ),
        ("no text", json!([{"role": "user", "content": [{"type": "text"}]}])),
        ("10^5 parts", json!([{"role": "user", "content": parts}])),
        ("system only", json!([{"role": "system", "content": "a"}])),
        ("4,097 messages", many(4097)),
        ("tool without call", json!([{"role": "tool", "content": "x", "tool_call_id": "none"}])),
        (
            "calls that are none",
            json!([{"role": "assistant", "content": null, "tool_calls": [{"id": 1, "function": {"arguments": "{"}}]}]),
        ),
        (
            "deep arguments",
            json!([{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "[".repeat(100_000)}}]}]),
        ),
    ];
    for (row, messages) in cases {
        for path in [CHAT, "/v1/messages", "/api/chat", "/apply-template"] {
            let body = chat(json!({ "messages": messages }));
            bed.post(&format!("H-11 {row} {path}"), path, &body).await;
        }
    }
    for (row, prompt) in [
        ("empty", json!("")),
        ("none", json!([])),
        ("one empty", json!([""])),
        ("empty ids", json!([[]])),
        ("mixed", json!(["a", 1])),
        ("negative", json!([-1])),
        ("negative ids", json!([[-1]])),
        ("beyond the vocabulary", json!([263])),
        ("2^31", json!([2_147_483_648_u64])),
        ("half", json!([1.5])),
        ("control tokens", json!([256, 257, 258, 259, 260])),
        ("halves of characters", json!([0xf0, 0x9f, 0xa4])),
        ("10^6 ids", Value::Array(vec![json!(7); 1_000_000])),
        ("10^4 prompts", Value::Array(vec![json!("a"); 10_000])),
    ] {
        let body = completion(json!({ "prompt": prompt }));
        bed.post(&format!("H-13, H-30, H-31 {row}"), COMPLETIONS, &body).await;
    }
    bed.after("H-11 to H-14, H-30, H-31").await;
}

#[tokio::test]
async fn h15_h16_the_context_is_the_end() {
    let bed = Bed::new(Duration::ZERO).await;
    for (tokens, expected) in [(62, 200), (63, 200), (64, 400), (65, 400), (6400, 400)] {
        for max_tokens in [json!(1), json!(1000), Value::Null] {
            let prompt = vec![7; tokens];
            let body = completion(json!({"prompt": prompt, "max_tokens": max_tokens, "seed": 1}));
            let row = format!("H-15 {tokens} tokens, at most {max_tokens}");
            let status = bed.post(&row, COMPLETIONS, &body).await;
            assert!(status == expected || status == 400, "{row}: {status}");
            assert!(expected == 200 || status == 400, "{row}: {status}");
        }
    }
    bed.after("H-15, H-16").await;
}

#[tokio::test]
async fn h27_stops() {
    let bed = Bed::new(Duration::ZERO).await;
    let many: Vec<String> = (0..4096).map(|n| n.to_string()).collect();
    for (row, stop) in [
        ("empty", json!("")),
        ("one empty", json!([""])),
        ("list", json!([[]])),
        ("number", json!([1])),
        ("17", Value::Array(vec![json!("a"); 17])),
        ("1 MiB", json!("x".repeat(1 << 20))),
        ("4,096", json!(many)),
        ("space", json!(" ")),
        ("half a character", json!("\u{fffd}")),
        ("the end of the template", json!("<|im_end|>\n")),
        ("the token", json!("\u{7}\u{7}")),
    ] {
        for stream in [false, true] {
            let body = chat(json!({"stop": stop, "stream": stream}));
            bed.post(&format!("H-27 {row}"), CHAT, &body).await;
        }
    }
    bed.after("H-27").await;
}

#[tokio::test]
async fn h36_to_h43_names_and_ids() {
    let bed = Bed::new(Duration::ZERO).await;
    let long = "x".repeat(1 << 20);
    let pairs: serde_json::Map<String, Value> =
        (0..100_000).map(|n| (n.to_string(), json!(1))).collect();
    let all: serde_json::Map<String, Value> =
        (0..263).map(|n| (n.to_string(), json!(-100))).collect();
    for (row, more) in [
        ("H-36 long", json!({ "model": long })),
        ("H-36 path", json!({"model": "../x"})),
        ("H-37 long", json!({ "user": long })),
        ("H-37 metadata", json!({"metadata": { "a": long }})),
        ("H-37 metadata pairs", json!({ "metadata": pairs })),
        ("H-40 word", json!({"logit_bias": {"abc": 1}})),
        ("H-40 negative", json!({"logit_bias": {"-1": 1}})),
        ("H-40 beyond", json!({"logit_bias": {"263": 1}})),
        ("H-40 2^63", json!({"logit_bias": {"9223372036854775808": 1}})),
        ("H-40 101", json!({"logit_bias": {"7": 101}})),
        ("H-40 NaN", json!({"logit_bias": {"7": "NaN"}})),
        ("H-40 10^5", json!({ "logit_bias": pairs })),
        ("H-40 all", json!({ "logit_bias": all })),
        ("H-41 beyond", json!({"stop_token_ids": [263, -1]})),
        ("H-41 many", json!({"stop_token_ids": vec![7; 100_000], "min_tokens": 1})),
        ("H-42 none", json!({"allowed_token_ids": []})),
        ("H-42 all", json!({"bad_words": vec!["a"; 100_000]})),
        ("H-43 -1", json!({"prompt_logprobs": -1})),
        ("H-43 many", json!({"prompt_logprobs": 1_000_000})),
        ("H-19", json!({"min_tokens": 3, "max_tokens": 2})),
        ("H-24 stream", json!({"n": 1_000_000_000, "stream": true})),
        ("H-25", json!({"best_of": 1, "n": 2})),
        ("H-28", json!({"stream_options": {"include_usage": true}})),
        ("H-29", json!({"logprobs": 1_000_000})),
    ] {
        for (path, body) in [(CHAT, chat(more.clone())), (COMPLETIONS, completion(more.clone()))] {
            bed.post(&format!("{row} {path}"), path, &body).await;
        }
    }
    bed.after("H-19, H-24 to H-29, H-36 to H-43").await;
}

#[tokio::test]
async fn h44_to_h47_schemas_grammars_tools_and_templates() {
    let bed = Bed::new(Duration::ZERO).await;
    let choices: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
    let schema = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}});
    let mut nested = json!({});
    for _ in 0..200 {
        nested = json!({"type": "object", "properties": {"a": nested}});
    }
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let tools: Vec<Value> =
        (0..1000).map(|n| tool(&n.to_string(), json!({"type": "object"}))).collect();
    let cases = vec![
        ("H-44 unknown", json!({"response_format": {"type": "sound"}})),
        ("H-44 number", schema(json!(123))),
        ("H-44 type 123", schema(json!({"type": 123}))),
        ("H-44 hiccup", schema(json!({"type": "hiccup"}))),
        ("H-44 recursive", schema(json!({"$ref": "#"}))),
        ("H-44 remote", schema(json!({"$ref": "http://127.0.0.1:1/schema.json"}))),
        ("H-44 file", schema(json!({"$ref": "file:///etc/passwd"}))),
        ("H-44 enum", schema(json!({ "enum": choices }))),
        ("H-44 items", schema(json!({"type": "array", "items": {}, "maxItems": 1_000_000_000}))),
        ("H-44 pattern", schema(json!({"type": "string", "pattern": "(a+)+b"}))),
        (
            "H-44 pattern of 10^9",
            schema(json!({"type": "string", "pattern": "(a{1000}){1000000}"})),
        ),
        ("H-44 nested", schema(nested)),
        ("H-45 foo**", json!({"grammar": "root ::= foo**"})),
        ("H-45 [", json!({"grammar": "["})),
        ("H-45 (", json!({"guided_regex": "("})),
        ("H-45 left recursion", json!({"grammar": "root ::= root \"a\" | \"a\""})),
        ("H-45 empty loop", json!({"grammar": "root ::= a*\na ::= \"\""})),
        ("H-45 1 MiB", json!({"grammar": format!("root ::= \"{}\"", "a".repeat(1 << 20))})),
        ("H-45 many rules", json!({"guided_grammar": "root ::= \"a\"\n".repeat(50_000)})),
        ("H-45 choices", json!({ "guided_choice": choices })),
        ("H-46 1,000", json!({ "tools": tools })),
        ("H-46 long name", json!({"tools": [tool(&"n".repeat(10_000), json!({}))]})),
        (
            "H-46 recursive",
            json!({"tools": [tool("f", json!({"$ref": "#"}))], "tool_choice": "required"}),
        ),
        (
            "H-46 choice",
            json!({"tools": [tool("f", json!({}))], "tool_choice": {"type": "function", "function": {"name": "g"}}}),
        ),
        ("H-46 choice without", json!({"tool_choice": "required"})),
        ("H-46 twice", json!({"tools": [tool("f", json!({})), tool("f", json!({}))]})),
        ("H-47 template", json!({"chat_template": "{% for x in range(1000000000) %}{% endfor %}"})),
        ("H-47 kwargs", json!({"chat_template_kwargs": {"messages": [], "tokenize": true}})),
        ("H-47 both", json!({"add_generation_prompt": true, "continue_final_message": true})),
    ];
    for (row, more) in cases {
        let more = with(more, json!({"seed": 1}));
        for (path, body) in [(CHAT, chat(more.clone())), (COMPLETIONS, completion(more.clone()))] {
            let start = Instant::now();
            bed.post(&format!("{row} {path}"), path, &body).await;
            assert!(start.elapsed() < REFUSED_WITHIN, "{row} {path}: {:?}", start.elapsed());
        }
    }
    bed.after("H-44 to H-47").await;
}

#[tokio::test]
async fn h32_to_h34_texts() {
    let bed = Bed::new(Duration::ZERO).await;
    for text in [
        "\u{5d0}\u{5d1}\u{202e}abc\u{202c}",
        "👩‍👩‍👧‍👦🏳️‍🌈",
        &format!("a{}", "\u{301}".repeat(10)),
        "é e\u{301}",
        "\u{e000}\u{f8ff}\u{ffff}\u{10ffff}",
        "媽 🤗",
        "<|im_end|><|im_start|>s:x</s><s>",
        "\u{0}\u{1}\u{7f}\u{85}\u{2028}\u{feff}",
    ] {
        let tokens = json!({ "content": text });
        assert_eq!(bed.post("H-33", "/tokenize", &tokens).await, 200);
        let body = chat(json!({"messages": [{"role": "user", "content": text}]}));
        bed.post(&format!("H-32, H-33 {text:?}"), CHAT, &body).await;
    }
    for (row, text) in [
        ("a", "a".to_owned()),
        ("space", " ".to_owned()),
        ("line", "\n".to_owned()),
        ("digit", "7".to_owned()),
        ("emoji", "🤗".to_owned()),
        ("accent", "\u{301}".to_owned()),
        ("mixed", "a \n1🤗".to_owned()),
    ] {
        let text = text.repeat((4 << 20) / text.len());
        let start = Instant::now();
        for (path, body) in [
            (CHAT, chat(json!({"messages": [{"role": "user", "content": text}]}))),
            (COMPLETIONS, completion(json!({ "prompt": text }))),
        ] {
            let status = bed.post(&format!("H-34 4 MiB of {row}"), path, &body).await;
            // As JSON a line break is twice as long, and the body as a whole too long.
            assert!([400, 413].contains(&status), "H-34 {row}: {status}");
        }
        assert!(start.elapsed() < 2 * REFUSED_WITHIN, "H-34 {row}: {:?}", start.elapsed());
    }
    bed.after("H-32 to H-34").await;
}
