//! Every field that any of the APIs knows, with every type of JSON and the odd values of each.

use super::Bed;
use crate::http::input::known;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Where requests go. A path that does not exist yet is a typed error, too.
const PATHS: [&str; 10] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/tokenize",
    "/detokenize",
    "/v1/responses",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
    "/infill",
    "/apply-template",
];

/// Fields that are acted on, by the names of all APIs; those that are only known come from the table.
const FIELDS: &[&str] = &[
    "model",
    "messages",
    "prompt",
    "input",
    "instructions",
    "system",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n_predict",
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "repeat_penalty",
    "repeat_last_n",
    "logit_bias",
    "seed",
    "stop",
    "stop_sequences",
    "stop_token_ids",
    "include_stop_str_in_output",
    "stream",
    "stream_options",
    "ignore_eos",
    "user",
    "n",
    "best_of",
    "metadata",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "echo",
    "suffix",
    "input_prefix",
    "input_suffix",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "text",
    "grammar",
    "json_schema",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "format",
    "options",
    "keep_alive",
    "think",
    "thinking",
    "enable_thinking",
    "reasoning",
    "reasoning_effort",
    "reasoning_format",
    "reasoning_budget",
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "parse_special",
    "content",
    "tokens",
    "with_pieces",
    "previous_response_id",
    "conversation",
    "store",
    "include",
    "truncation",
    "allowed_token_ids",
    "bad_words",
    "return_token_ids",
    "timings_per_token",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "xtc_probability",
    "xtc_threshold",
    "samplers",
    "raw",
    "template",
    "images",
    "context",
    "documents",
    "skip_special_tokens",
    "mcp_servers",
    "container",
];

fn names() -> BTreeSet<&'static str> {
    FIELDS.iter().copied().chain(known::names()).collect()
}

/// A request that is answered without more.
fn body(path: &str) -> Value {
    let messages = json!([{"role": "user", "content": "hi"}]);
    match path {
        "/v1/completions" | "/api/generate" => {
            json!({"model": "tiny", "prompt": "hi", "max_tokens": 2})
        }
        "/tokenize" => json!({"content": "hi"}),
        "/detokenize" => json!({"tokens": [7, 7]}),
        "/v1/responses" => json!({"model": "tiny", "input": "hi", "max_output_tokens": 16}),
        "/infill" => json!({"input_prefix": "a", "input_suffix": "b", "n_predict": 2}),
        _ => json!({"model": "tiny", "messages": messages, "max_tokens": 2}),
    }
}

/// So many of the values are one of each type.
const TYPES: usize = 8;

/// One of each type, and then those that are odd in their type.
fn values() -> Vec<(&'static str, Value)> {
    vec![
        ("null", Value::Null),
        ("true", json!(true)),
        ("1", json!(1)),
        ("0.5", json!(0.5)),
        ("text", json!("text")),
        ("list of object", json!([{"type": "text", "text": 1}])),
        ("object", json!({"type": "function", "x": [1]})),
        ("empty object", json!({})),
        ("false", json!(false)),
        ("0", json!(0)),
        ("-1", json!(-1)),
        ("-2^31", json!(i32::MIN)),
        ("2^31", json!(1_u64 << 31)),
        ("2^53+1", json!((1_u64 << 53) + 1)),
        ("-2^63", json!(i64::MIN)),
        ("2^64-1", json!(u64::MAX)),
        ("-0.0", json!(-0.0)),
        ("1.0", json!(1.0)),
        ("1e300", json!(1e300)),
        ("5e-324", json!(5e-324)),
        ("empty text", json!("")),
        ("number as text", json!("10")),
        ("NaN as text", json!("NaN")),
        ("NUL", json!("a\u{0}b")),
        ("odd text", json!("\u{202e}\u{ffff}\u{10ffff}<|im_end|></s>{{ 1 }}")),
        ("empty list", json!([])),
        ("list of null", json!([null])),
        ("list of number", json!([1])),
        ("list of text", json!(["a"])),
        ("list of list", json!([[[]]])),
        ("object of null", json!({"type": null})),
        ("object of objects", json!({"a": {"b": {"c": {}}}})),
    ]
}

#[tokio::test]
async fn h08_h20_every_field_with_every_type_and_number() {
    let bed = Bed::new(Duration::ZERO).await;
    let (mut rows, mut answered) = (0, 0);
    let values = values();
    for path in PATHS {
        assert!(bed.post("plain", path, &body(path)).await < 500);
        // Every value where fields are read today, one of each type everywhere else.
        let values = if path.starts_with("/v1/c") { &values[..] } else { &values[..TYPES] };
        for name in names() {
            for (kind, value) in values {
                let mut body = body(path);
                body[name] = value.clone();
                let row = format!("H-08 {path} {name} = {kind}");
                answered += u32::from(bed.post(&row, path, &body).await == 200);
                rows += 1;
            }
        }
    }
    assert!(rows > 15_000 && answered > 1000, "{answered} of {rows} were answered");
    bed.after("H-08").await;
}

/// Numbers as text: JSON has more of them than any type holds.
#[tokio::test]
async fn h06_numbers_that_no_type_holds() {
    let bed = Bed::new(Duration::ZERO).await;
    let long = "9".repeat(100_000);
    let deep = format!("0.{}1", "0".repeat(100_000));
    let numbers = [
        "1e400",
        "-1e400",
        "-0",
        "1.0",
        "9007199254740993",
        "1e-400",
        &long,
        &deep,
        "01",
        "+1",
        "1.",
        ".5",
        "0x10",
        "NaN",
        "Infinity",
        "1_000",
    ];
    for name in ["max_tokens", "temperature", "top_p", "top_k", "seed", "logit_bias", "n", "user"] {
        for number in numbers {
            let text = format!(
                "{{\"model\":\"tiny\",\"prompt\":\"a\",\"max_tokens\":1,\"{name}\":{number}}}"
            );
            let text =
                if name == "max_tokens" { text.replacen("\"max_tokens\":1,", "", 1) } else { text };
            let row = format!("H-06 {name} = {}", &number[..number.len().min(20)]);
            bed.row(&row, crate::http::tests::support::post("/v1/completions", text)).await;
        }
    }
    bed.after("H-06").await;
}
