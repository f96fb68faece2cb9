//! What can be held against llama.cpp without a cluster: token ids of every golden file, to text
//! and back, and from a conversation.

use serde_json::json;
use std::collections::BTreeSet;
use woolly_engine::arch::families::FAMILIES;
use woolly_engine::chat_template::{ChatTemplate, RenderOptions};
use woolly_engine::gguf::Gguf;
use woolly_engine::plan::ModelLayout;
use woolly_engine::quant::TensorType;
use woolly_engine::tokenizer::{EncodeOptions, Tokenizer};
use woolly_tests::{fixtures, golden};

#[test]
fn token_ids_of_every_golden_file_are_equal() {
    let mut files = 0;
    for (model, texts) in golden::by_model(false) {
        let Some(path) = fixtures::model_of_golden(&model) else { continue };
        let gguf = Gguf::open(&path).unwrap();
        let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
        for text in texts {
            let options = EncodeOptions { add_special: true, parse_special: text.parses_special() };
            let tokens = tokenizer.encode(&text.text, options).unwrap();
            assert_eq!(tokens, text.tokens, "{model}.{}", text.name);
            if !text.parses_special() {
                let begin = usize::from(tokens.first().copied() == tokenizer.bos());
                let decoded = tokenizer.decode(&tokens[begin..]);
                // Some vocabularies put a space in front.
                let is_same = |found: &str| found == text.text;
                let is_back = is_same(&decoded) || decoded.strip_prefix(' ').is_some_and(is_same);
                assert!(is_back, "{model}.{} comes back as {decoded:?}", text.name);
            }
            files += 1;
        }
    }
    // 7 tiny models with 3 texts each, granite-tiny with 3, smollm2 with 4; qwen has 4 more.
    assert!(files >= 28, "only {files} golden files were compared");
}

#[test]
fn a_conversation_becomes_the_golden_tokens() {
    let messages = json!([
        { "role": "system", "content": "You are a helpful assistant." },
        { "role": "user", "content": "Name three uses for a brick." },
    ]);
    let mut compared = 0;
    for (model, texts) in golden::by_model(false) {
        let is_it = |text: &&golden::Golden| text.text.contains("You are a helpful assistant.");
        let Some(text) = texts.iter().find(is_it) else { continue };
        let Some(path) = fixtures::model_of_golden(&model) else { continue };
        let gguf = Gguf::open(&path).unwrap();
        let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
        let template = ChatTemplate::from_metadata(gguf.metadata(), &tokenizer).unwrap().unwrap();
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        let prompt = template.prompt(&messages, &options).unwrap();
        assert_eq!(prompt.text(), text.text, "{model}");
        assert_eq!(tokenizer.encode_chat(&prompt).unwrap(), text.tokens, "{model}");
        compared += 1;
    }
    assert!(compared > 0, "smollm2 at least has the conversation");
}

#[test]
fn the_truth_is_about_the_same_tokens() {
    let ours = golden::by_model(false);
    for (model, truths) in golden::by_model(true) {
        for truth in truths {
            let text = ours[&model].iter().find(|text| text.name == truth.name);
            let text = text.unwrap_or_else(|| panic!("{model}.{}.json is missing", truth.name));
            assert_eq!(text.tokens, truth.tokens, "{model}.{}", truth.name);
        }
    }
}

#[test]
fn the_committed_models_use_every_weight_format() {
    let mut used = BTreeSet::new();
    let mut architectures = BTreeSet::new();
    for name in fixtures::committed_names("") {
        let gguf = Gguf::open(&fixtures::committed(&name)).unwrap();
        let layout = ModelLayout::new(&gguf).unwrap_or_else(|error| panic!("{name}: {error}"));
        architectures.insert(layout.architecture);
        used.extend(gguf.tensors().iter().filter(|t| t.shape.len() > 1).map(|tensor| tensor.ty));
    }
    let missing: Vec<_> = TensorType::ALL.iter().filter(|ty| !used.contains(ty)).collect();
    assert!(missing.is_empty(), "no committed model has a matrix in {missing:?}");
    let known: BTreeSet<String> = FAMILIES.map(|family| family.architecture.to_owned()).into();
    assert_eq!(architectures, known, "one model at least of each architecture");
}
