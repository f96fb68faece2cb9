//! Files as they are found in the wild: linked, split, with odd ids, with a template that does not
//! compile, with shapes that contradict themselves.

use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use woolly_engine::gguf::write::GgufWriter;
use woolly_engine::gguf::{Array, Value};
use woolly_engine::quant::TensorType;
use woolly_tests::cluster::{Cluster, Setup, free_address, temporary_folder};
use woolly_tests::process;

const HIDDEN: u64 = 64;
const FFN: u64 = 96;

/// A llama of one layer with a byte vocabulary and ChatML's marks; what it says means nothing.
fn model() -> GgufWriter {
    // GPT-2 writes bytes as printable characters: those that are keep theirs, others come from 256 on.
    let mut tokens = Vec::new();
    let mut next = 256;
    for byte in 0..=255_u32 {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let code = if printable { byte } else { next };
        next += u32::from(!printable);
        tokens.push(char::from_u32(code).expect("a character").to_string());
    }
    tokens.extend(["<|im_start|>", "<|im_end|>"].map(str::to_owned));
    let vocab = tokens.len() as u64;
    let kinds = (0..vocab).map(|id| if id >= 256 { 3 } else { 1 }).collect();
    let text = |text: &str| Value::String(text.to_owned());
    let mut writer = GgufWriter::new()
        .kv("general.architecture", text("llama"))
        .kv("general.name", text("wild"))
        .kv("llama.block_count", Value::U32(1))
        .kv("llama.context_length", Value::U32(256))
        .kv("llama.embedding_length", Value::U32(HIDDEN as u32))
        .kv("llama.feed_forward_length", Value::U32(FFN as u32))
        .kv("llama.attention.head_count", Value::U32(4))
        .kv("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
        .kv("tokenizer.ggml.model", text("gpt2"))
        .kv("tokenizer.ggml.pre", text("gpt-2"))
        .kv("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)))
        .kv("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)))
        .kv("tokenizer.ggml.merges", Value::Array(Array::Strings(vec!["h e".to_owned()])))
        .kv("tokenizer.ggml.eos_token_id", Value::U32(257));
    for (name, shape) in [
        ("token_embd.weight", vec![HIDDEN, vocab]),
        ("blk.0.attn_norm.weight", vec![HIDDEN]),
        ("blk.0.attn_q.weight", vec![HIDDEN, HIDDEN]),
        ("blk.0.attn_k.weight", vec![HIDDEN, HIDDEN]),
        ("blk.0.attn_v.weight", vec![HIDDEN, HIDDEN]),
        ("blk.0.attn_output.weight", vec![HIDDEN, HIDDEN]),
        ("blk.0.ffn_norm.weight", vec![HIDDEN]),
        ("blk.0.ffn_gate.weight", vec![HIDDEN, FFN]),
        ("blk.0.ffn_up.weight", vec![HIDDEN, FFN]),
        ("blk.0.ffn_down.weight", vec![FFN, HIDDEN]),
        ("output_norm.weight", vec![HIDDEN]),
    ] {
        writer = tensor(writer, name, &shape);
    }
    writer
}

/// Adds a tensor of small numbers that differ.
fn tensor(writer: GgufWriter, name: &str, shape: &[u64]) -> GgufWriter {
    let count: u64 = shape.iter().product();
    let seed = name.bytes().map(u64::from).sum::<u64>();
    let value = |at: u64| ((at * 37 + seed) % 101) as f32 / 500.0 - 0.1;
    let bytes = (0..count).flat_map(|at| value(at).to_le_bytes()).collect();
    writer.tensor(name, TensorType::F32, shape, bytes)
}

fn write(folder: &Path, name: &str, writer: &GgufWriter) -> PathBuf {
    let path = folder.join(name);
    writer.write(&path).expect("the folder is writable");
    path
}

fn completion(cluster: &Cluster) -> serde_json::Value {
    let body = json!({"prompt": "he said", "max_tokens": 8, "temperature": 0});
    cluster.post("/v1/completions", &body)["choices"].clone()
}

fn chat(cluster: &Cluster) -> (u16, serde_json::Value) {
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4});
    cluster.try_post("/v1/chat/completions", &body)
}

/// Runs `serve` to its end: exit code and stderr.
fn refused(model: &Path, folder: &Path, more: &[&str]) -> (Option<i32>, String) {
    let model = model.display().to_string();
    let (state, http) = (folder.join("state").display().to_string(), free_address().to_string());
    let flags = ["serve", &model, "--http", &http, "--state-dir", &state, "--local-workers", "0"];
    let (code, _, stderr) = process::run("woolly-coordinator", &[&flags, more].concat(), folder);
    (code, stderr)
}

/// As Hugging Face's cache has it: names of parts that lead to files with other names.
#[test]
fn a_split_model_behind_links_is_served_as_the_same_one_in_plain_files() {
    let folder = temporary_folder();
    let single = write(folder.path(), "single.gguf", &model());
    let expected = completion(&Setup::new(&single).start());
    let (blobs, snapshot) = (folder.path().join("blobs"), folder.path().join("snapshot"));
    std::fs::create_dir(&blobs).unwrap();
    std::fs::create_dir(&snapshot).unwrap();
    // The first part has the metadata, the second the tensors of the layer.
    let (first, second) = split(&model());
    for (number, part) in [(1, first), (2, second)] {
        let blob = write(&blobs, &format!("{number:064x}"), &part);
        symlink(&blob, snapshot.join(format!("wild-{number:05}-of-00002.gguf"))).unwrap();
    }
    for flags in [&[][..], &["--local-workers", "0", "--workers", "1"]] {
        let setup = Setup::new(&snapshot.join("wild-00001-of-00002.gguf")).coordinator_flags(flags);
        let remote = !flags.is_empty();
        let cluster = if remote { setup.workers(0).start_coordinator() } else { setup.start() };
        let mut cluster = cluster;
        if remote {
            cluster.add_worker();
            cluster.wait_ready();
        }
        assert_eq!(completion(&cluster), expected, "{}", cluster.logs());
    }
    // One link to one file.
    let link = folder.path().join("linked.gguf");
    symlink(&single, &link).unwrap();
    assert_eq!(completion(&Setup::new(&link).start()), expected);
}

/// A model in two parts: all keys and the tensors outside the layer, then the layer's.
fn split(whole: &GgufWriter) -> (GgufWriter, GgufWriter) {
    let names = [
        "attn_norm",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_norm",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    ];
    let (mut first, mut second) = (whole.clone(), GgufWriter::new());
    for name in names {
        let name = format!("blk.0.{name}.weight");
        first = first.without_tensor(&name);
        let shape = match name.as_str() {
            "blk.0.ffn_gate.weight" | "blk.0.ffn_up.weight" => vec![HIDDEN, FFN],
            "blk.0.ffn_down.weight" => vec![FFN, HIDDEN],
            name if name.contains("norm") => vec![HIDDEN],
            _ => vec![HIDDEN, HIDDEN],
        };
        second = tensor(second, &name, &shape);
    }
    let numbered = |writer: GgufWriter, number: u16| {
        writer
            .kv("split.no", Value::U16(number))
            .kv("split.count", Value::U16(2))
            .kv("split.tensors.count", Value::I32(11))
    };
    (numbered(first, 0), numbered(second, 1))
}

#[test]
fn odd_special_ids_and_biases_of_zero_change_no_answer() {
    let folder = temporary_folder();
    let plain = write(folder.path(), "plain.gguf", &model());
    let expected = completion(&Setup::new(&plain).start());
    let odd = model()
        .kv("tokenizer.ggml.padding_token_id", Value::U32(u32::MAX))
        .kv("tokenizer.ggml.bos_token_id", Value::I32(-1))
        .kv("tokenizer.ggml.eot_token_id", Value::U32(32_000));
    let zeros = |writer: GgufWriter, name: &str, len: u64| {
        writer.tensor(name, TensorType::F32, &[len], vec![0; 4 * len as usize])
    };
    let odd = zeros(odd, "blk.0.ffn_gate.bias", FFN);
    let odd = zeros(zeros(odd, "blk.0.ffn_up.bias", FFN), "blk.0.ffn_down.bias", HIDDEN);
    let odd = write(folder.path(), "odd.gguf", &odd);
    let cluster = Setup::new(&odd).start();
    assert_eq!(completion(&cluster), expected);
    let log = cluster.coordinator.stderr();
    assert!(log.contains("padding_token_id is 4294967295"), "{log}");
}

#[test]
fn a_template_that_does_not_compile_leaves_completions_and_can_be_replaced() {
    let folder = temporary_folder();
    let broken = model().kv("tokenizer.chat_template", Value::String("{% for %}".to_owned()));
    let broken = write(folder.path(), "broken.gguf", &broken);
    let cluster = Setup::new(&broken).start();
    completion(&cluster);
    let (status, answer) = chat(&cluster);
    let text = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(status == 400 && text.contains("does not compile"), "{status} {answer}");
    assert!(text.contains("--chat-template-file"), "{text}");
    drop(cluster);
    let file = folder.path().join("template.jinja");
    std::fs::write(&file, "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    let file = file.display().to_string();
    let cluster = Setup::new(&broken).coordinator_flags(&["--chat-template-file", &file]).start();
    assert_eq!(chat(&cluster).0, 200);
    drop(cluster);
    std::fs::write(&file, "{% for %}").unwrap();
    let (code, stderr) = refused(&broken, folder.path(), &["--chat-template-file", &file]);
    assert!(code == Some(2) && stderr.contains(&file), "{code:?} {stderr}");
}

#[test]
fn shapes_that_contradict_the_metadata_are_refused_at_the_start() {
    let folder = temporary_folder();
    let wrong = model().set("llama.feed_forward_length", Value::U32(31));
    let wrong = write(folder.path(), "wrong.gguf", &wrong);
    let (code, stderr) = refused(&wrong, folder.path(), &[]);
    assert_eq!(code, Some(5), "{stderr}");
    for word in ["blk.0.ffn_gate.weight", "[64, 96]", "[64, 31]"] {
        assert!(stderr.contains(word), "{word} is missing: {stderr}");
    }
}
