//! Models' own chat templates, rendered as Python's jinja2 renders them.
//!
//! The expected texts are in the repository (made by `tests/scripts/make_chat_renders.py`), the
//! templates come with the vocabularies that `tests/scripts/fetch_vocabs.sh` fetches.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use woolly_engine::chat_template::{self, ChatTemplate, RenderOptions};
use woolly_engine::gguf::Gguf;
use woolly_engine::tokenizer::Tokenizer;

#[test]
fn templates_render_as_in_python() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let output = Command::new(tests.join("scripts/fetch_vocabs.sh")).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the templates could not be fetched:\n{log}");
    let fetched = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
    // A vocabulary whose BOS and EOS are `<s>` and `</s>`, as in the expected texts.
    let gguf = Gguf::open(&fetched.join("ggml-vocab-llama-spm.gguf")).unwrap();
    let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();

    let fixture = std::fs::read(tests.join("fixtures/chat/renders.json")).unwrap();
    let fixture: Value = serde_json::from_slice(&fixture).unwrap();
    let renders = fixture["renders"].as_array().unwrap();
    assert!(renders.len() >= 64);
    let mut differences = Vec::new();
    for render in renders {
        let (name, conversation) =
            (render["template"].as_str().unwrap(), render["conversation"].as_str().unwrap());
        let source =
            std::fs::read_to_string(fetched.join(format!("templates/{name}.jinja"))).unwrap();
        let template = ChatTemplate::from_source(&source, &tokenizer).unwrap();
        let given = &fixture["conversations"][conversation];
        let options = RenderOptions {
            tools: given.get("tools"),
            add_generation_prompt: true,
            unix_seconds: fixture["unix_seconds"].as_i64().unwrap(),
            ..RenderOptions::default()
        };
        let found = template.render(&given["messages"], &options);
        let marked = template.prompt(&given["messages"], &options);
        assert_eq!(found.as_ref().ok(), marked.ok().map(|m| m.text().into_owned()).as_ref());
        let expected = render["text"].as_str();
        if found.as_deref().ok() != expected {
            differences.push(format!("{name}, {conversation}:\n{expected:?}\n{found:?}\n"));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    families_are_told_apart(&fetched);
}

/// Real templates, by the names of their files.
fn families_are_told_apart(fetched: &Path) {
    let expected = [
        ("Qwen3-Coder", Some("chatml")),
        ("meta-llama-Llama-3.3-70B-Instruct", Some("llama3")),
        ("openai-gpt-oss-120b", Some("harmony")),
        ("ibm-granite-granite-4.0", Some("granite")),
        ("Mistral-Small-3.2-24B-Instruct-2506", Some("mistral")),
        ("google-gemma-2-2b-it", Some("gemma")),
        ("microsoft-Phi-3.5-mini-instruct", Some("phi")),
        ("GLM-4.6", Some("glm")),
        ("deepseek-ai-DeepSeek-V3.2", Some("deepseek")),
        ("MiniMax-M2", Some("minimax")),
        ("llama-cpp-rwkv-world", None),
    ];
    for (name, family) in expected {
        let path = fetched.join(format!("templates/{name}.jinja"));
        let source = std::fs::read_to_string(path).unwrap();
        assert_eq!(chat_template::family(&source), family, "{name}");
    }
}
