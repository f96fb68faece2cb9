//! Text between two others: `suffix`, and llama-server's `/infill`.

use super::support::*;
use serde_json::{Value, json};
use woolly_engine::gguf::{Array, Metadata, Value as Kv};

const PRE: u32 = VOCAB;
const SUF: u32 = VOCAB + 1;
const MID: u32 = VOCAB + 2;
const REPO: u32 = VOCAB + 3;
const FILE: u32 = VOCAB + 4;

/// An engine that says this, of a model for code.
fn coder(text: &'static str) -> Rig {
    let mut pairs = metadata_pairs();
    for (key, value) in &mut pairs {
        match (key.as_str(), value) {
            ("tokenizer.ggml.tokens", Kv::Array(Array::Strings(tokens))) => {
                let texts = [
                    "<|fim_prefix|>",
                    "<|fim_suffix|>",
                    "<|fim_middle|>",
                    "<|repo_name|>",
                    "<|file_sep|>",
                ];
                tokens.extend(texts.map(str::to_owned));
            }
            ("tokenizer.ggml.token_type", Kv::Array(Array::I32(kinds))) => kinds.extend([1; 5]),
            _ => {}
        }
    }
    Rig::of(&Metadata::from_pairs(pairs), move |_| Script::Play(say(text)))
}

fn prompt(rig: &Rig) -> Vec<u32> {
    rig.requests().last().unwrap().prompt.clone()
}

#[tokio::test]
async fn a_suffix_puts_both_texts_around_what_is_asked_for() {
    let rig = coder("x");
    let value = rig.ok("/v1/completions", completion(json!({"prompt": "a", "suffix": "b"}))).await;
    assert_eq!(value["choices"][0]["text"], "x");
    assert_eq!(prompt(&rig), [BOS, PRE, 97, SUF, 98, MID]);
    let body = json!({"prompt": [97], "suffix": "b", "echo": true});
    let value = rig.ok("/v1/completions", completion(body)).await;
    assert_eq!(value["choices"][0]["text"], "ax");
    assert_eq!(prompt(&rig), [BOS, PRE, 97, SUF, 98, MID]);
    rig.ok("/v1/completions", completion(json!({"prompt": "a", "suffix": ""}))).await;
    assert_eq!(prompt(&rig), [BOS, 97], "an empty suffix asks for nothing");
}

#[tokio::test]
async fn what_looks_like_a_mark_in_a_clients_text_is_text() {
    let rig = coder("x");
    let body = json!({"prompt": "<|fim_suffix|>", "suffix": "<|fim_middle|></s>"});
    rig.ok("/v1/completions", completion(body)).await;
    let prompt = prompt(&rig);
    let marks: Vec<u32> = prompt.iter().copied().filter(|token| *token > 255).collect();
    assert_eq!(marks, [BOS, PRE, SUF, MID]);
}

#[tokio::test]
async fn a_model_without_the_tokens_says_so() {
    let rig = Rig::saying("x");
    let (status, error) = rig.error("/v1/completions", completion(json!({"suffix": "b"}))).await;
    assert_eq!((status, &error["param"]), (400, &json!("suffix")));
    let body = json!({"input_prefix": "a", "input_suffix": "b"});
    let (status, error) = rig.error("/infill", body).await;
    assert_eq!((status, &error["param"]), (400, &json!("input_suffix")));
    assert!(error["message"].as_str().unwrap().contains("cannot fill text in"), "{error}");
}

#[tokio::test]
async fn infill_answers_in_llama_servers_words() {
    let rig = coder("x");
    let body = json!({"input_prefix": "a", "input_suffix": "b", "prompt": "c", "n_predict": 9});
    let value = rig.ok("/infill", body.clone()).await;
    assert_eq!(prompt(&rig), [BOS, PRE, 97, 99, SUF, 98, MID]);
    assert_eq!((&value["content"], &value["stop"]), (&json!("x"), &json!(true)));
    assert_eq!((&value["stop_type"], &value["tokens_predicted"]), (&json!("eos"), &json!(2)));
    assert_eq!(
        (&value["tokens_evaluated"], &value["timings"]["predicted_n"]),
        (&json!(7), &json!(2))
    );
    let mut body = body;
    body["stream"] = json!(true);
    body["stop"] = json!("x");
    let text = read_text(rig.post("/infill", body).await).await;
    let last = text.trim_end().rsplit("data: ").next().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!((&last["stop_type"], &last["stopping_word"]), (&json!("word"), &json!("x")));
}

#[tokio::test]
async fn other_files_stand_before_with_their_names() {
    let rig = coder("x");
    let body = json!({"input_prefix": "a", "input_suffix": "b",
        "input_extra": [{"filename": "f", "text": "t"}, {"text": "u"}]});
    rig.ok("/infill", body).await;
    let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<u32>>();
    let expected = [
        &[BOS, REPO][..],
        &bytes("myproject\n"),
        &[FILE],
        &bytes("f\n"),
        &bytes("t"),
        &[FILE],
        &bytes("tmp\n"),
        &bytes("u"),
        &[FILE],
        &bytes("filename\n"),
        &[PRE, 97, SUF, 98, MID],
    ];
    assert_eq!(prompt(&rig), expected.concat());
    assert!(rig.requests()[0].stop_tokens.contains(&FILE), "another file is not asked for");
}

#[tokio::test]
async fn mistakes_are_named() {
    let rig = coder("x");
    let texts = json!({"input_prefix": "a", "input_suffix": "b"});
    for (key, value, param) in [
        ("input_prefix", json!(null), "input_prefix"),
        ("input_suffix", json!(7), "input_suffix"),
        ("input_extra", json!({}), "input_extra"),
        ("input_extra", json!([{"filename": "f"}]), "input_extra[0]"),
        ("input_extra", json!([{"text": 7}]), "input_extra[0].text"),
        ("input_extra", json!([{"text": "a", "more": 1}]), "input_extra[0].more"),
        ("n", json!(2), "n"),
        ("n_predict", json!(0), "n_predict"),
        ("nonsense", json!(1), "nonsense"),
    ] {
        let mut body = texts.clone();
        body[key] = value;
        let (status, error) = rig.error("/infill", body).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
    }
    let long = "a".repeat(500);
    let (status, error) =
        rig.error("/infill", json!({"input_prefix": long, "input_suffix": ""})).await;
    assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
    assert!(rig.requests().is_empty());
}
