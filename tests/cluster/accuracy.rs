//! Log-probabilities through the gateway against llama.cpp, and against the truth in f32.

use super::score;
use serde_json::Value;
use std::path::Path;
use woolly_engine::gguf::Gguf;
use woolly_engine::tokenizer::Tokenizer;
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::fixtures;
use woolly_tests::golden::{self, CLEAR_MARGIN, Golden, mean_distance};

/// How much further from the truth than llama.cpp an answer may be on average.
const TRUTH_FACTOR: f64 = 1.1;

/// What the gateway says about one text.
struct Scored {
    /// Log-probabilities of the second token on.
    next: Vec<f64>,
    /// Per position but the last, the two likeliest tokens as text, best first.
    top: Vec<Vec<(String, f64)>>,
}

fn score_text(cluster: &Cluster, tokens: &[u32]) -> Scored {
    let logprobs = score(cluster, tokens);
    let list = |name: &str| logprobs[name].as_array().expect("an array").clone();
    let next: Vec<f64> = list("token_logprobs").iter().filter_map(Value::as_f64).collect();
    assert_eq!(next.len(), tokens.len() - 1, "one value per token but the first");
    let top = list("top_logprobs").iter().filter_map(Value::as_object).map(best_first).collect();
    Scored { next, top }
}

fn best_first(map: &serde_json::Map<String, Value>) -> Vec<(String, f64)> {
    let value = |value: &Value| value.as_f64().expect("a number");
    let mut pairs: Vec<(String, f64)> =
        map.iter().map(|(text, logprob)| (text.clone(), value(logprob))).collect();
    pairs.sort_by(|a, b| b.1.total_cmp(&a.1));
    pairs
}

/// A token as the gateway writes it: its text, or its bytes if they are no text.
fn written(tokenizer: &Tokenizer, token: u32) -> String {
    let bytes = tokenizer.token_bytes(token);
    let hex = || bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    std::str::from_utf8(bytes).map_or_else(|_| format!("bytes:{}", hex()), str::to_owned)
}

fn assert_same_first_tokens(golden: &Golden, scored: &Scored, tokenizer: &Tokenizer) {
    let mut compared = 0;
    for (position, top) in scored.top.iter().enumerate() {
        let margin = top[0].1 - top[1].1;
        let first = golden.top[position][0].0;
        let expected = written(tokenizer, first);
        // The API names tokens by their text: where the actual token is written like the first one
        // (a letter and its byte token), its value stands in the other's place.
        let actual = golden.tokens[position + 1];
        let hidden = actual != first && written(tokenizer, actual) == expected;
        if margin > CLEAR_MARGIN && golden.margin(position) > CLEAR_MARGIN && !hidden {
            let at = format!("{}.{} position {position}", golden.model, golden.name);
            assert_eq!(top[0].0, expected, "first token at {at}");
            compared += 1;
        }
    }
    assert!(compared > 0, "{}.{}: no position is clear", golden.model, golden.name);
}

/// Scores every golden text of a model on two workers and holds it against llama.cpp.
fn compare(model: &str, path: &Path, tolerance: f64) {
    let texts = &golden::by_model(false)[model];
    let tokenizer = Tokenizer::from_metadata(Gguf::open(path).unwrap().metadata()).unwrap();
    let cluster = Setup::of_two(path).start();
    let scored: Vec<Scored> = texts.iter().map(|text| score_text(&cluster, &text.tokens)).collect();
    for (text, scored) in texts.iter().zip(&scored) {
        assert_same_first_tokens(text, scored, &tokenizer);
    }
    let pairs = |golden: &'_ [Golden]| -> (f64, f64) {
        mean_distance(golden.iter().zip(&scored).map(|(g, s)| (&g.next[..], &s.next[..])))
    };
    let (distance, first) = pairs(texts);
    println!("{model}: mean |Δ| to llama.cpp {distance:.4} (first positions {first:.4})");
    assert!(distance <= tolerance, "{model}: mean |Δ| {distance:.4} > {tolerance}");
    if let Some(truths) = golden::by_model(true).get(model) {
        let (ours, ours_first) = pairs(truths);
        let both = truths.iter().zip(texts).map(|(truth, text)| (&truth.next[..], &text.next[..]));
        let (theirs, theirs_first) = mean_distance(both);
        println!(
            "{model}: mean |Δ| to the truth {ours:.4}, llama.cpp's {theirs:.4}, factor {:.3} \
             (first positions {ours_first:.4}, {theirs_first:.4})",
            ours / theirs
        );
        assert!(ours <= TRUTH_FACTOR * theirs, "{model}: {ours:.4} > {TRUTH_FACTOR} × {theirs:.4}");
    }
}

#[test]
fn granite_tiny_agrees_with_llama_cpp() {
    compare("granite-tiny", fixtures::granite_tiny(), 0.3);
}

#[test]
fn smollm2_agrees_with_llama_cpp() {
    compare("smollm2-135m", fixtures::smollm2(), 0.12);
}

/// Beyond its windows, too.
#[test]
fn gemma3_agrees_with_llama_cpp() {
    compare("gemma-3-270m", fixtures::gemma3(), 0.1);
}

#[test]
fn qwen_agrees_with_llama_cpp() {
    match fixtures::qwen() {
        Some(path) => compare("qwen2.5-coder-1.5b", path, 0.15),
        None => println!("left out: WOOLLY_TEST_MODELS names no folder with the model"),
    }
}

#[test]
fn tiny_models_agree_with_llama_cpp() {
    for name in fixtures::committed_names("tiny-") {
        compare(&name, &fixtures::committed(&name), 0.3);
    }
}
