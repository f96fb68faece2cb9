//! What `inspect` says of models that run, and of files that do not.

use super::{read, report::Report, text};
use crate::models::Model;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use woolly_engine::gguf::write::GgufWriter;
use woolly_engine::gguf::{Array, Value};
use woolly_engine::plan::KvType;
use woolly_engine::quant::TensorType;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models")
}

fn fixture(name: &str) -> PathBuf {
    fixtures().join(format!("{name}.gguf"))
}

/// The report of a file with these bytes, and its lines.
fn of_bytes(bytes: &[u8]) -> (Report, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    of_path(&path)
}

/// The report of a file, which must agree with what `serve` does, and its lines.
fn of_path(path: &Path) -> (Report, String) {
    let report = read::report(path, None, true);
    assert_eq!(report.is_supported, Model::open(path).is_ok(), "{:?}", report.not_supported);
    let lines = text::lines(&report);
    for line in lines.iter().filter(|line| !line.contains("/")) {
        assert!(line.chars().count() <= 100, "{line}");
    }
    (report, lines.join("\n"))
}

fn changed(name: &str, change: impl Fn(GgufWriter) -> GgufWriter) -> Vec<u8> {
    change(GgufWriter::copy_of(&fixture(name)).unwrap()).to_bytes(32)
}

fn text_value(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[test]
fn every_model_of_the_fixtures_can_be_served_and_its_numbers_are_those_of_its_layout() {
    let mut seen = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        let (report, _) = of_path(&path);
        assert!(report.is_supported, "{}: {:?}", path.display(), report.not_supported);
        let layout = Model::open(&path).unwrap().layout;
        let memory = report.memory.as_ref().expect("its layout is known");
        let layers = 0..layout.layers;
        assert_eq!(report.parameters.total, layout.parameters);
        let skipped = layout.skipped;
        assert_eq!(report.layers.count, Some((layout.layers + skipped.layers).into()));
        assert_eq!(report.layers.nextn, u64::from(skipped.layers));
        let unused = (report.unused.tensors, report.unused.bytes);
        assert_eq!(unused, (skipped.tensors as u64, skipped.bytes), "{}", path.display());
        let kinds: usize = report.layers.kinds.iter().map(|kind| kind.count).sum();
        assert_eq!(kinds, layout.layers as usize);
        assert_eq!(memory.weights, layout.stage_bytes(layers.clone()));
        assert_eq!(memory.read_for_a_token, layout.stage_bytes_per_token(layers.clone()));
        let roles = &report.roles;
        let all = roles.embedding + roles.layers + roles.experts + roles.head + roles.other;
        let formats: u64 = report.formats.iter().map(|format| format.bytes).sum();
        let bytes = memory.weights + skipped.bytes;
        assert_eq!((all, formats), (bytes, bytes), "{}", path.display());
        let ctx = report.context.reckoned.unwrap();
        assert_eq!(ctx, layout.ctx_train.min(8192));
        for (cache, ty) in memory.cache.iter().zip(KvType::ALL) {
            let block = layout.kv_block_bytes(layers.clone(), ty);
            assert_eq!(cache.bytes_per_token, block / 32);
            let is_windowed = cache.groups.iter().any(|group| group.window.is_some());
            let of_all = block * u64::from(ctx.div_ceil(32));
            assert_eq!(cache.bytes_per_sequence < of_all, is_windowed);
            assert!(cache.bytes_per_sequence <= of_all);
        }
        seen += 1;
    }
    assert!(seen > 20);
}

#[test]
fn a_mixture_with_windows_is_said_in_lines() {
    let (report, lines) = of_path(&fixture("tiny-gpt-oss"));
    for line in [
        "tiny-gpt-oss: can be served",
        "architecture  gpt-oss",
        "parameters    352 K, 226 K of them for a token; Q8_0",
        "layers        4: 2 with a window of 32, 3 of 8 experts of width 32; 2 with full attention, 3 of 8",
        "              experts of width 32",
        "shape         hidden width 64, 4 heads of 32, 2 key and value heads",
        "rotary        base 150000, 32 of 32 values of a head, yarn by 4 from 64 positions",
        "context       trained for 1,024 positions; 1,024 are reckoned with below (--ctx-size)",
        "vocabulary    382 tokens, gpt2 (gpt-4o)",
        "chat          chatml template of 178 bytes",
        "              MXFP4      12 tensors    102 KiB  35.6 %",
        "weights       embedding 25.3 KiB, layers 117 KiB, experts 118 KiB, head 25.6 KiB",
        "cache         f16: 1 KiB per token, 672 KiB per sequence of 1,024 (2 layers keep 320 positions)",
    ] {
        assert!(lines.lines().any(|have| have == line), "{line}\n\n{lines}");
    }
    let groups = &report.memory.unwrap().cache[0].groups;
    let said: Vec<_> = groups.iter().map(|g| (g.layers, g.window, g.positions)).collect();
    assert_eq!(said, [(2, Some(32), 320), (2, None, 1024)]);
}

#[test]
fn the_json_has_the_names_that_are_documented() {
    let (report, _) = of_path(&fixture("tiny-dots1"));
    let json: Json = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(json["format"], 1);
    assert_eq!(json["is_supported"], true);
    assert_eq!(json["architecture"], "dots1");
    assert_eq!(json["layers"]["kinds"][0]["experts"], 0);
    assert_eq!(json["layers"]["kinds"][1]["experts"], 8);
    assert_eq!(json["layers"]["kinds"][1]["experts_used"], 3);
    assert_eq!(json["layers"]["kinds"][1]["shared_width"], 64);
    assert_eq!(json["tokenizer"]["pre"], "qwen2");
    assert_eq!(json["chat_template"]["family"], "chatml");
    assert_eq!(json["memory"]["cache"][1]["cache_type"], "q8_0");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/models.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for name in json.as_object().unwrap().keys() {
        assert!(docs.contains(&format!("`{name}`")), "docs/models.md does not explain {name}");
    }
}

#[test]
fn of_an_architecture_that_is_not_known_the_rest_is_said() {
    let bytes =
        changed("tiny-qwen3", |model| model.set("general.architecture", text_value("mamba9")));
    let (report, lines) = of_bytes(&bytes);
    assert_eq!(report.not_supported.len(), 1, "{:?}", report.not_supported);
    assert!(report.not_supported[0].contains("\"mamba9\", expected one of llama, "), "{lines}");
    assert!(report.tokenizer.is_supported && report.memory.is_none());
    assert!(report.parameters.total > 0 && !report.formats.is_empty());
    assert!(lines.contains("cannot be served") && lines.contains("layers        ?"), "{lines}");
}

/// Q3_K and IQ3_S have blocks of equal length.
fn with_iq3_s(bytes: &mut [u8]) -> usize {
    let mut found = 0;
    for at in 0..bytes.len() - 48 {
        let Some(rest) = bytes[at..].strip_prefix(b".weight") else { continue };
        let dims = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        if !(1..=4).contains(&dims) {
            continue;
        }
        let ty = at + 7 + 4 + 8 * dims;
        if bytes[ty..ty + 4] == 11_u32.to_le_bytes() {
            bytes[ty..ty + 4].copy_from_slice(&21_u32.to_le_bytes());
            found += 1;
        }
    }
    found
}

#[test]
fn a_type_that_is_not_computed_is_counted_and_everything_else_is_said() {
    let mut bytes = std::fs::read(fixture("tiny-qwen3")).unwrap();
    let count = with_iq3_s(&mut bytes);
    assert!(count > 0);
    let (report, lines) = of_bytes(&bytes);
    let [why] = &report.not_supported[..] else { panic!("{:?}", report.not_supported) };
    assert!(why.contains("the type IQ3_S, which Woolly does not compute with"), "{why}");
    assert!(why.starts_with(&count.to_string()), "{why}");
    let format = report.formats.iter().find(|format| format.format == "IQ3_S").unwrap();
    assert!(!format.is_supported && format.bytes > 0 && format.tensors == count as u64);
    let whole = read::report(&fixture("tiny-qwen3"), None, false);
    let (memory, of_whole) = (report.memory.unwrap(), whole.memory.unwrap());
    assert_eq!(memory.weights, of_whole.weights, "its bytes are known all the same");
    assert!(lines.contains("not supported"), "{lines}");
}

#[test]
fn all_that_is_wrong_is_listed() {
    let bytes = changed("tiny-qwen3moe", |model| {
        model
            .set("qwen3moe.expert_gating_func", Value::U32(77))
            .set("qwen3moe.expert_weights_scale", Value::F32(f32::NAN))
            .set("tokenizer.ggml.pre", text_value("nobody's"))
            .set("tokenizer.chat_template", text_value("{% if %}"))
    });
    let (report, _) = of_bytes(&bytes);
    let all = report.not_supported.join("\n");
    assert_eq!(report.not_supported.len(), 3, "{all}");
    for word in ["expert_gating_func", "expert_weights_scale", "nobody's"] {
        assert!(all.contains(word), "{all}");
    }
    // Tensors are looked at where the metadata are right.
    let bytes = changed("tiny-qwen3moe", |model| {
        let names = ["blk.0.ffn_up_exps.weight", "blk.1.ffn_up_exps.weight", "output_norm.weight"];
        let more = vec![0; 4 * 32];
        let model = names.iter().fold(model, |model, name| model.without_tensor(name));
        model.tensor("blk.2.strange.weight", TensorType::F32, &[32], more)
    });
    let (report, _) = of_bytes(&bytes);
    let all = report.not_supported.join("\n");
    assert_eq!(report.not_supported.len(), 3, "{all}");
    assert!(all.contains("lacks the tensor \"blk.N.ffn_up_exps.weight\" (N is 0 to 1)"), "{all}");
    assert!(all.contains("\"blk.2.strange.weight\" is not one"), "{all}");
    assert!(all.contains("\"output_norm.weight\""), "{all}");
}

#[test]
fn a_file_without_a_template_or_tokenizer_says_so() {
    let bytes = changed("tiny-spm", |model| model.without("tokenizer.chat_template"));
    let (report, _) = of_bytes(&bytes);
    assert!(report.is_supported, "{:?}", report.not_supported);
    let template = (report.chat_template.family.as_str(), report.chat_template.is_supported);
    assert_eq!((template, report.warnings.len()), (("none", false), 1), "{:?}", report.warnings);
    let bytes = changed("tiny-qwen3", |model| model.without("tokenizer.ggml.model"));
    let (report, _) = of_bytes(&bytes);
    assert!(report.not_supported[0].contains("tokenizer.ggml.model"), "{:?}", report.not_supported);
    let none = Value::Array(Array::Strings(Vec::new()));
    let bytes = changed("tiny-qwen3", |model| model.set("tokenizer.ggml.tokens", none.clone()));
    assert!(!of_bytes(&bytes).0.is_supported);
}

#[test]
fn a_file_that_is_cut_off_is_read_up_to_the_cut() {
    let whole = std::fs::read(fixture("tiny-qwen3")).unwrap();
    let mut with_tensors = 0;
    for cut in (0..whole.len()).step_by(997) {
        let (report, lines) = of_bytes(&whole[..cut]);
        assert!(!report.is_supported && !report.not_supported.is_empty());
        let all = report.not_supported.join("\n");
        assert!(!all.contains("lacks") && report.not_supported.len() == 1, "at {cut}: {all}");
        assert!(lines.contains("cannot be served"));
        with_tensors += u32::from(report.memory.is_some());
    }
    assert!(with_tensors > 10, "of those that lack weights alone");
}

/// `of_path` compares each with what `serve` says of it.
#[test]
fn headers_with_a_wrong_byte_are_judged_as_serve_judges_them() {
    let path = fixture("tiny-qwen3");
    let whole = std::fs::read(&path).unwrap();
    let header = Model::open(&path).unwrap().gguf.parts()[0].data_start as usize;
    let (mut refused, mut taken) = (0, 0);
    for (round, at) in (0..header).step_by(61).enumerate() {
        let mut bytes = whole.clone();
        bytes[at] ^= [1, 0x80, 0xff][round % 3];
        let (report, _) = of_bytes(&bytes);
        *if report.is_supported { &mut taken } else { &mut refused } += 1;
    }
    assert!(refused > 20 && taken > 20, "{refused} were refused, {taken} taken");
}

#[test]
fn what_is_no_model_file_is_told_in_a_sentence() {
    let (report, lines) = of_bytes(b"[workspace]\nmembers = []\n");
    assert_eq!(report.not_supported.len(), 1);
    assert!(lines.contains("is not a GGUF file") && !lines.contains("layers"), "{lines}");
    let (report, _) = of_path(Path::new("/nowhere/model.gguf"));
    assert!(report.not_supported[0].contains("cannot be read") && report.files.is_empty());
    let (report, _) = of_path(&fixtures());
    assert!(report.not_supported[0].contains("a directory"), "{:?}", report.not_supported);
}

#[test]
fn parts_of_a_split_model_are_read_together_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let numbered = |model: GgufWriter, number: u16, tensors: i32| {
        model
            .set("split.no", Value::U16(number))
            .set("split.count", Value::U16(2))
            .set("split.tensors.count", Value::I32(tensors))
    };
    let whole = GgufWriter::copy_of(&fixture("tiny-qwen3")).unwrap();
    let last = "output_norm.weight";
    let norm = vec![0; 4 * 128];
    let tensors = Model::open(&fixture("tiny-qwen3")).unwrap().gguf.tensors().len() as i32;
    let paths = [1, 2].map(|n| folder.path().join(format!("m-{n:05}-of-00002.gguf")));
    numbered(whole.without_tensor(last), 0, tensors).write(&paths[0]).unwrap();
    let second = GgufWriter::new().tensor(last, TensorType::F32, &[128], norm);
    numbered(second, 1, tensors).write(&paths[1]).unwrap();
    let (report, _) = of_path(&paths[1]);
    assert!(report.is_supported && report.files.len() == 2, "{:?}", report.not_supported);
    std::fs::remove_file(&paths[1]).unwrap();
    let (report, _) = of_path(&paths[0]);
    assert_eq!(report.not_supported.len(), 1, "{:?}", report.not_supported);
    assert!(report.not_supported[0].contains("m-00002-of-00002.gguf"));
}
