//! The tokens of the golden files: llama.cpp's for the same model and text, to be matched exactly.
//!
//! Files of models that are neither in the repository nor in the folder that the environment
//! variable `WOOLLY_TEST_MODELS` names are left out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use woolly_engine::chat_template::{ChatTemplate, RenderOptions};
use woolly_engine::gguf::Gguf;
use woolly_engine::tokenizer::{EncodeOptions, Tokenizer};

/// Name of a model in golden files, and its file.
const MODELS: [(&str, &str); 3] = [
    ("granite-tiny", "granite-tiny.gguf"),
    ("smollm2-135m", "smollm2-135m-q4_1.gguf"),
    ("qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-q4_k_m.gguf"),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn find_model(file: &str) -> Option<PathBuf> {
    let named = std::env::var_os("WOOLLY_TEST_MODELS").map(|dir| PathBuf::from(dir).join(file));
    let committed = fixtures().join("models").join(file);
    [Some(committed), named].into_iter().flatten().find(|path| path.is_file())
}

/// Compares all golden files of a model; returns how many there were.
fn check_model(name: &str, path: &Path) -> usize {
    let gguf = Gguf::open(path).unwrap();
    let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
    let mut checked = 0;
    for entry in std::fs::read_dir(fixtures().join("golden")).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(rest) = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) else {
            continue;
        };
        let golden: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let expected: Vec<u32> = serde_json::from_value(golden["tokens"].clone()).unwrap();
        let options = EncodeOptions { add_special: true, parse_special: rest.starts_with("chat") };
        let text = golden["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, options).unwrap(), expected, "{file}");
        if rest.starts_with("chat.") {
            check_rendering(&gguf, &tokenizer, text, &expected);
        }
        let shown: Vec<u32> =
            expected.iter().copied().filter(|&id| Some(id) != tokenizer.bos()).collect();
        if !options.parse_special {
            assert_eq!(tokenizer.decode(&shown), text, "{file} back to text");
        }
        checked += 1;
    }
    checked
}

/// The golden conversation, rendered by the model's own template and tokenized safely.
fn check_rendering(gguf: &Gguf, tokenizer: &Tokenizer, text: &str, expected: &[u32]) {
    let template = ChatTemplate::from_metadata(gguf.metadata(), tokenizer).unwrap().unwrap();
    let messages = serde_json::json!([
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Name three uses for a brick."},
    ]);
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let prompt = template.prompt(&messages, &options).unwrap();
    assert_eq!(prompt.text(), text);
    assert_eq!(tokenizer.encode_chat(&prompt).unwrap(), expected);
}

#[test]
fn tokens_equal_the_golden_files() {
    let mut checked = Vec::new();
    for (name, file) in MODELS {
        if let Some(path) = find_model(file) {
            let files = check_model(name, &path);
            assert!(files > 0, "no golden files for {name}");
            checked.push(name);
        }
    }
    assert!(checked.contains(&"granite-tiny"), "the committed model was not found");
}
