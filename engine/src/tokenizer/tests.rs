//! Hostile and odd vocabularies and texts.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::gguf::{Array, Value};

/// Time that H-34 allows; machines that run tests may be slow and busy.
const SOON: Duration = Duration::from_secs(20);

fn strings(items: &[&str]) -> Value {
    Value::Array(Array::Strings(items.iter().map(|&s| s.to_owned()).collect()))
}

fn i32s(items: Vec<i32>) -> Value {
    Value::Array(Array::I32(items))
}

/// Key-values of a tokenizer that tests change before loading it.
struct Pairs(Vec<(String, Value)>);

impl Pairs {
    fn set(mut self, key: &str, value: Value) -> Pairs {
        let key = format!("tokenizer.ggml.{key}");
        self.0.retain(|(known, _)| *known != key);
        self.0.push((key, value));
        self
    }

    fn without(mut self, key: &str) -> Pairs {
        self.0.retain(|(known, _)| *known != format!("tokenizer.ggml.{key}"));
        self
    }

    fn load(self) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_metadata(&Metadata::from_pairs(self.0))
    }
}

/// Byte-level BPE: 256 bytes, `ab`, `abab`, `Ġa`, then control, user-defined and unused tokens.
fn bpe() -> Pairs {
    let mut tokens: Vec<String> = (0..=255).map(|b| bytes::char_of(b).to_string()).collect();
    let mut types = vec![1; 256];
    for (text, kind) in [
        ("ab", 1),
        ("abab", 1),
        ("Ġa", 1),
        ("<s>", 3),
        ("<|im_end|>", 3),
        ("<|im_end|>x", 3),
        ("<think>", 4),
        ("unused", 5),
        ("aa", 1),
    ] {
        tokens.push(text.to_owned());
        types.push(kind);
    }
    Pairs(Vec::new())
        .set("model", Value::String("gpt2".into()))
        .set("pre", Value::String("gpt-2".into()))
        .set("tokens", Value::Array(Array::Strings(tokens)))
        .set("token_type", i32s(types))
        .set("merges", strings(&["a b", "ab ab", "Ġ a", "a a"]))
        .set("bos_token_id", Value::U32(259))
        .set("eos_token_id", Value::U32(260))
}

/// SPM: unknown, BOS, EOS, 256 bytes, then pieces.
fn spm() -> Pairs {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    let mut types = vec![2, 3, 3];
    for byte in 0..=255 {
        tokens.push(format!("<0x{byte:02X}>"));
        types.push(6);
    }
    let pieces = [
        "▁", "a", "b", "ab", "▁a", "▁ab", "<", "/", "s", ">", "</", "</s", "▁▁", "aa", "aaaa", "é",
    ];
    tokens.extend(pieces.map(String::from));
    types.resize(tokens.len(), 1);
    let scores = (0..tokens.len()).map(|i| -(i as f32)).collect();
    Pairs(Vec::new())
        .set("model", Value::String("llama".into()))
        .set("tokens", Value::Array(Array::Strings(tokens)))
        .set("token_type", i32s(types))
        .set("scores", Value::Array(Array::F32(scores)))
}

fn plain(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, EncodeOptions::default()).unwrap()
}

fn parsed(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let options = EncodeOptions { add_special: false, parse_special: true };
    tokenizer.encode(text, options).unwrap()
}

fn error_of(pairs: Pairs) -> String {
    pairs.load().unwrap_err().to_string()
}

#[test]
fn merges_go_by_rank() {
    let tokenizer = bpe().load().unwrap();
    assert_eq!(plain(&tokenizer, "abab"), [257]);
    assert_eq!(plain(&tokenizer, "ababab"), [257, 256]);
    assert_eq!(plain(&tokenizer, "aab"), [u32::from(b'a'), 256]);
    assert_eq!(plain(&tokenizer, " a"), [258]);
    assert_eq!(plain(&tokenizer, ""), Vec::<u32>::new());
    assert_eq!(tokenizer.longest_token(), 11);
    assert_eq!(tokenizer.token_bytes(258), b" a");
    assert_eq!(tokenizer.token_bytes(10_000), b"");
}

#[test]
fn spm_prefixes_a_space_and_falls_back_to_bytes() {
    let tokenizer = spm().load().unwrap();
    let id = |piece: &str| plain_id(&tokenizer, piece);
    assert!(tokenizer.add_bos());
    assert_eq!(plain(&tokenizer, "ab"), [id(" ab")]);
    assert_eq!(plain(&tokenizer, ""), Vec::<u32>::new());
    assert_eq!(plain(&tokenizer, "a媽"), [id(" a"), 3 + 0xe5, 3 + 0xaa, 3 + 0xbd]);
    assert_eq!(parsed(&tokenizer, "a</s>b"), [id(" a"), 2, id(" "), id("b")]);
    assert_eq!(tokenizer.decode(&plain(&tokenizer, " a媽 b")), " a媽 b");
    let bare = spm().set("add_space_prefix", Value::Bool(false)).load().unwrap();
    assert_eq!(plain(&bare, "ab"), [plain_id(&bare, "ab")]);
}

fn plain_id(tokenizer: &Tokenizer, text: &str) -> u32 {
    (0..tokenizer.vocab_size())
        .rfind(|&id| tokenizer.token_bytes(id) == text.as_bytes())
        .expect("the token exists")
}

#[test]
fn bos_and_eos_come_as_the_file_says() {
    let all = EncodeOptions { add_special: true, parse_special: false };
    let tokenizer = bpe().load().unwrap();
    assert_eq!(tokenizer.encode("ab", all).unwrap(), [256]);
    let tokenizer = bpe()
        .set("add_bos_token", Value::Bool(true))
        .set("add_eos_token", Value::Bool(true))
        .load()
        .unwrap();
    assert_eq!(tokenizer.encode("ab", all).unwrap(), [259, 256, 260]);
    let llama3 = bpe().set("pre", Value::String("llama-bpe".into())).load().unwrap();
    assert!(llama3.add_bos());
    let missing = bpe().set("add_bos_token", Value::Bool(true)).without("bos_token_id");
    assert!(error_of(missing).contains("bos_token_id"));
}

#[test]
fn ignored_merges_take_whole_tokens() {
    let pairs = || bpe().set("merges", strings(&["a b"]));
    let text = "abab";
    assert_eq!(plain(&pairs().load().unwrap(), text), [256, 256]);
    let whole = pairs().set("pre", Value::String("llama-bpe".into())).load().unwrap();
    assert_eq!(plain(&whole, text), [257]);
}

#[test]
fn a_model_without_pre_gets_the_default_one() {
    let tokenizer = bpe().without("pre").load().unwrap();
    assert_eq!(plain(&tokenizer, "abab"), [257]);
}

#[test]
fn end_tokens_are_found_by_text_and_id() {
    let tokenizer = bpe().set("eos_token_id", Value::U32(259)).load().unwrap();
    assert_eq!(tokenizer.end_tokens(), [259, 260]);
    assert!(tokenizer.is_end(260) && !tokenizer.is_end(261));
    let tokenizer = bpe().set("eot_token_id", Value::U32(7)).load().unwrap();
    assert_eq!(tokenizer.end_tokens(), [7, 260]);
}

#[test]
fn g_46_vocabularies_out_of_bounds_are_refused() {
    assert!(error_of(bpe().set("tokens", strings(&[]))).contains("0 entries"));
    assert!(error_of(bpe().without("tokens")).contains("tokenizer.ggml.tokens"));
    let many = Value::Array(Array::Strings(vec![String::new(); TOKENS_MAX + 1]));
    assert!(error_of(bpe().set("tokens", many).without("token_type")).contains("1048576"));
    let long = "x".repeat(64 << 20);
    assert!(error_of(bpe().set("tokens", strings(&["a", &long]))).contains("67108864 bytes long"));
    let twice = bpe().set("tokens", strings(&["a", "b", "a"])).without("token_type");
    assert!(error_of(twice).contains("tokens 0 and 2 have the same text 'a'"));
    let tokenizer = bpe().load().unwrap();
    assert!(tokenizer.check_rows(u64::from(tokenizer.vocab_size())).is_ok());
    for rows in [0, 264, 266, u64::MAX] {
        assert!(tokenizer.check_rows(rows).is_err());
    }
    // Empty tokens are allowed and never come from a text.
    let empties = spm().load().unwrap().vocab_size();
    assert!(empties > 0);
    let mut tokens: Vec<String> = (0..=255).map(|b| bytes::char_of(b).to_string()).collect();
    tokens.extend([String::new(), String::new()]);
    let holes = bpe()
        .set("tokens", Value::Array(Array::Strings(tokens)))
        .without("token_type")
        .without("bos_token_id")
        .without("eos_token_id")
        .load()
        .unwrap();
    assert_eq!(plain(&holes, "ab"), [97, 98]);
}

#[test]
fn g_47_arrays_of_another_length_or_type_are_refused() {
    for length in [0, 264, 266] {
        assert!(error_of(bpe().set("token_type", i32s(vec![1; length]))).contains("token_type"));
        let scores = Value::Array(Array::F32(vec![0.0; length]));
        assert!(error_of(spm().set("scores", scores)).contains("scores"));
    }
    assert!(bpe().set("token_type", strings(&["1"])).load().is_err());
    assert!(spm().set("scores", strings(&["1"])).load().is_err());
    assert!(error_of(spm().without("scores")).contains("scores"));
    for odd in [f32::NAN, f32::INFINITY] {
        let scores = Value::Array(Array::F32(vec![odd; 275]));
        assert!(error_of(spm().set("scores", scores)).contains("finite"));
    }
    let mut types = vec![1; 265];
    types[3] = 6;
    assert!(error_of(bpe().set("token_type", i32s(types))).contains("<0x0A>"));
}

#[test]
fn g_48_special_ids_out_of_bounds_are_as_if_they_were_not_there() {
    let keys = ["bos", "eos", "eot", "eom", "unknown", "padding", "fim_pad"];
    for key in keys.map(|key| format!("{key}_token_id")) {
        let without = bpe().without(&key).set("add_bos_token", Value::Bool(false)).load().unwrap();
        for value in [
            Value::I32(-1),
            Value::U32(265),
            Value::U32(u32::MAX),
            Value::U64(1 << 32),
            Value::I64(i64::MIN),
            Value::U8(255),
        ] {
            let is_inside = matches!(value, Value::U8(_));
            let odd = bpe().set(&key, value).set("add_bos_token", Value::Bool(false));
            let odd = odd.load().unwrap();
            let same = odd.end_tokens() == without.end_tokens()
                && (odd.bos(), odd.eos()) == (without.bos(), without.eos());
            assert!(same || is_inside, "{key}");
        }
        assert!(bpe().set(&key, Value::String("1".into())).load().is_err(), "{key}");
        assert!(bpe().set(&key, Value::U32(264)).load().is_ok(), "{key}");
    }
    // What such an id was to be put before or behind every text is left out, too.
    let odd = bpe().set("bos_token_id", Value::I32(-1)).set("add_bos_token", Value::Bool(true));
    let odd = odd.set("eos_token_id", Value::I32(-1)).set("add_eos_token", Value::Bool(true));
    let options = EncodeOptions { add_special: true, parse_special: true };
    assert_eq!(odd.load().unwrap().encode("ab", options).unwrap(), [256]);
}

#[test]
fn g_49_odd_merges_cost_linear_time_or_are_refused() {
    for odd in ["ab", "", "a ", " "] {
        assert!(error_of(bpe().set("merges", strings(&["a b", odd]))).contains("merge 1"));
    }
    assert!(error_of(bpe().without("merges")).contains("merges"));
    let many = Value::Array(Array::Strings(vec![String::new(); MERGES_MAX + 1]));
    assert!(error_of(bpe().set("merges", many)).contains("4194304"));
    // Duplicates, cycles and absent tokens: the text still comes back.
    let odd = ["a b", "a b", "b a", "ab a", "a ba", "x y", "xy z", "ab ab"];
    let tokenizer = bpe().set("merges", strings(&odd)).load().unwrap();
    for text in ["abab", "xyz", "abababababa", "xyzzyx"] {
        assert_eq!(tokenizer.decode(&plain(&tokenizer, text)), text);
    }
    let start = Instant::now();
    let absent = (0..300_000).map(|i| format!("q{i} r{i}")).collect();
    let tokenizer = bpe().set("merges", Value::Array(Array::Strings(absent))).load().unwrap();
    assert_eq!(plain(&tokenizer, "ab"), [97, 98]);
    assert!(start.elapsed() < SOON);
    let error = error_of(bpe().set("pre", Value::String("nonsense".into())));
    assert!(error.contains("'nonsense'") && error.contains("qwen2"), "{error}");
    let error = error_of(bpe().set("model", Value::String("bert".into())));
    assert!(error.contains("'bert'"), "{error}");
}

#[test]
fn h_31_any_tokens_give_whole_utf8() {
    for tokenizer in [bpe().load().unwrap(), spm().load().unwrap()] {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let ids = proptest::collection::vec(0..tokenizer.vocab_size() + 5, 0..40);
        runner
            .run(&ids, |ids| {
                let mut detokenizer = Detokenizer::continuing().showing_control();
                let mut streamed = String::new();
                for &id in &ids {
                    streamed.push_str(&detokenizer.push(&tokenizer, id));
                }
                streamed.push_str(&detokenizer.finish());
                let bytes: Vec<u8> =
                    ids.iter().flat_map(|&id| tokenizer.token_bytes(id)).copied().collect();
                prop_assert_eq!(streamed, String::from_utf8_lossy(&bytes));
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn h_31_characters_are_held_back_until_they_are_whole() {
    let tokenizer = bpe().load().unwrap();
    let mut detokenizer = Detokenizer::new(&tokenizer);
    let pieces: Vec<String> =
        "é🤗".bytes().map(|byte| detokenizer.push(&tokenizer, u32::from(byte))).collect();
    assert_eq!(pieces, ["", "é", "", "", "", "🤗"]);
    // Half a character, then something else; and a control token gives nothing.
    assert_eq!(detokenizer.push(&tokenizer, 0xf0), "");
    assert_eq!(detokenizer.push(&tokenizer, 260), "");
    assert_eq!(detokenizer.push(&tokenizer, 0x61), "\u{fffd}a");
    assert_eq!(detokenizer.push(&tokenizer, 0xe2), "");
    assert_eq!(detokenizer.finish(), "\u{fffd}");
    assert_eq!(detokenizer.finish(), "");
}

#[test]
fn h_32_control_texts_are_text_unless_asked_for() {
    let tokenizer = bpe().load().unwrap();
    assert_eq!(parsed(&tokenizer, "a<|im_end|>b"), [97, 260, 98]);
    assert_eq!(parsed(&tokenizer, "<|im_end|>x"), [261]);
    assert_eq!(parsed(&tokenizer, "<think>"), [262]);
    assert_eq!(plain(&tokenizer, "<think>"), [262]);
    for text in ["a<|im_end|>b", "<s>", "<|im_end|>x"] {
        let tokens = plain(&tokenizer, text);
        assert!(tokens.iter().all(|&id| !tokenizer.is_control(id)), "{text}");
        assert_eq!(tokenizer.decode(&tokens), text);
    }
    // SPM's scores and BPE's merges would compose control tokens.
    let tokenizer = spm().load().unwrap();
    assert!(!plain(&tokenizer, "</s>").contains(&2));
    let composing = ["< s", "<s >"];
    let tokenizer = bpe().set("merges", strings(&composing)).load().unwrap();
    assert_eq!(plain(&tokenizer, "<s>"), [60, 115, 62]);
}

#[test]
fn h_33_unicode_torture_comes_back() {
    let torture = [
        "\u{202e}abc\u{202c}",
        "👩‍👩‍👧‍👦🏳️‍🌈",
        &"\u{301}".repeat(10_000),
        "é e\u{301}",
        "\u{e000}\u{f0000}\u{10fffd}",
        "\u{ffff}\u{10ffff}\u{fffe}\0",
        "媽 🤗",
    ];
    for tokenizer in [bpe().load().unwrap(), spm().load().unwrap()] {
        for text in torture {
            assert_eq!(tokenizer.decode(&plain(&tokenizer, text)), text);
        }
    }
}

#[test]
fn h_34_megabytes_of_one_character_take_linear_time() {
    let named = |name: &str| bpe().set("pre", Value::String(name.into())).load().unwrap();
    let tokenizers = [
        (bpe().load().unwrap(), vec!["a", " ", "\n", "7", "🤗", "ab", "é"]),
        (named("qwen2"), vec![" ", "7", "A"]),
        (named("tekken"), vec!["a", "A"]),
        (named("deepseek-llm"), vec![" "]),
        (spm().load().unwrap(), vec!["a", " ", "🤗"]),
    ];
    for (tokenizer, units) in &tokenizers {
        for unit in units {
            let text = unit.repeat(TEXT_BYTES_MAX / unit.len());
            let start = Instant::now();
            let tokens = plain(tokenizer, &text);
            assert!(start.elapsed() < SOON, "{unit:?} took {:?}", start.elapsed());
            assert_eq!(tokenizer.decode(&tokens), text);
        }
    }
    let long = "a".repeat(TEXT_BYTES_MAX + 1);
    let error = tokenizers[0].0.encode(&long, EncodeOptions::default()).unwrap_err().to_string();
    assert!(error.contains("4194305 bytes"), "{error}");
}

proptest! {
    #[test]
    fn texts_come_back(text in "\\PC{0,60}|[ab<>/s|im_end\n \t]{0,60}") {
        for tokenizer in [bpe().load().unwrap(), spm().load().unwrap()] {
            let tokens = plain(&tokenizer, &text);
            prop_assert!(tokens.iter().all(|&id| !tokenizer.is_control(id)));
            prop_assert_eq!(tokenizer.decode(&tokens), text.as_str());
        }
    }
}
