//! Models that contradict themselves: `serve` ends at its start with a sentence that names what is wrong and
//! what is known, and nothing is tried again and again.

use std::path::{Path, PathBuf};
use woolly_engine::gguf::Value;
use woolly_engine::gguf::write::GgufWriter;
use woolly_engine::quant::TensorType;
use woolly_tests::cluster::{free_address, temporary_folder};
use woolly_tests::{fixtures, process};

/// A model, keys that are set in it, and words of the sentence that refuses it.
type Case<'a> = (&'a str, &'a [(&'a str, Value)], &'a [&'a str]);

/// Writes a changed copy of a committed model.
fn changed(folder: &Path, name: &str, change: impl Fn(GgufWriter) -> GgufWriter) -> PathBuf {
    let whole = GgufWriter::copy_of(&fixtures::committed(name)).expect("a fixture is whole");
    let path = folder.join("bad.gguf");
    change(whole).write(&path).expect("the folder is writable");
    path
}

/// Runs `serve` to its end, which must come by itself: the line of stderr that says why.
fn why_refused(model: &Path, folder: &Path, more: &[&str]) -> String {
    let model = model.display().to_string();
    let (state, http) = (folder.join("state").display().to_string(), free_address().to_string());
    let listen = ["--listen", "127.0.0.1:0", "--http", &http, "--state-dir", &state];
    let words = [&["serve", &model], &listen[..], more].concat();
    let (code, _, stderr) = process::run("woolly-coordinator", &words, folder);
    assert_eq!(code, Some(5), "{stderr}");
    let said =
        stderr.lines().filter(|line| line.starts_with("error:") || line.starts_with("caused by:"));
    said.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_contradiction_ends_serve_at_its_start_with_the_key_and_what_is_known() {
    let folder = temporary_folder();
    let number = Value::U32;
    let cases: [Case<'_>; 5] = [
        (
            "tiny-qwen3moe",
            &[("qwen3moe.expert_used_count", number(99))],
            &["expert_used_count", "is 99", "1 to 16"],
        ),
        (
            "tiny-dots1",
            &[
                ("dots1.expert_group_count", number(4)),
                ("dots1.expert_group_used_count", number(1)),
            ],
            &["dots1.expert_group_used_count", "is 1", "3 experts", "with 2 in each"],
        ),
        (
            "tiny-qwen3moe",
            &[("qwen3moe.expert_gating_func", number(77))],
            &["expert_gating_func", "is 77", "1 (softmax)"],
        ),
        (
            "tiny-dots1",
            &[("dots1.expert_gating_func", number(9))],
            &["expert_gating_func", "is 9", "2 (sigmoid)"],
        ),
        (
            "tiny-gpt-oss",
            &[("gpt-oss.expert_count", number(0))],
            &["gpt-oss.expert_count", "is 0", "1 to 1024"],
        ),
    ];
    for (name, pairs, words) in cases {
        let set = |model: GgufWriter| {
            pairs.iter().fold(model, |model, (key, value)| model.set(key, value.clone()))
        };
        let model = changed(folder.path(), name, set);
        let said = why_refused(&model, folder.path(), &["--local-workers", "0"]);
        assert!(words.iter().all(|word| said.contains(word)), "{name}: {said}");
    }
}

#[test]
fn a_tensor_that_is_missing_or_of_another_shape_ends_serve_at_its_start() {
    let folder = temporary_folder();
    let up = "blk.1.ffn_up_exps.weight";
    let model = changed(folder.path(), "tiny-qwen3moe", |model| model.without_tensor(up));
    let said = why_refused(&model, folder.path(), &["--local-workers", "0"]);
    assert!(said.contains("lacks the tensor") && said.contains(up), "{said}");

    let gate = "blk.1.ffn_gate_exps.weight";
    let shape = [32, 32, 8];
    let model = changed(folder.path(), "tiny-qwen3moe", |model| {
        let bytes = vec![0; TensorType::F32.row_bytes(32 * 32 * 8)];
        model.without_tensor(gate).tensor(gate, TensorType::F32, &shape, bytes)
    });
    let said = why_refused(&model, folder.path(), &["--local-workers", "0"]);
    assert!(said.contains(gate) && said.contains(&format!("{shape:?}")), "{said}");
    assert!(said.contains("follows from the file's metadata"), "{said}");
}

/// Weights are read by workers alone; a worker that cannot load them makes the coordinator look.
#[test]
fn a_scale_that_is_no_number_ends_serve_and_is_not_tried_for_ever() {
    let folder = temporary_folder();
    let gate = "blk.2.ffn_gate_exps.weight";
    let gguf = woolly_engine::gguf::Gguf::open(&fixtures::committed("tiny-gpt-oss")).unwrap();
    let tensor = gguf.tensor(gate).expect("it has experts");
    assert_eq!(tensor.ty, TensorType::MXFP4);
    let mut bytes = std::fs::read(fixtures::committed("tiny-gpt-oss")).unwrap();
    let block = usize::try_from(tensor.offset).unwrap() + 5 * tensor.ty.block_bytes();
    bytes[block] = 255;
    let model = folder.path().join("bad.gguf");
    std::fs::write(&model, bytes).unwrap();
    let said = why_refused(&model, folder.path(), &[]);
    assert!(said.contains(gate) && said.contains("the scale 255 in its MXFP4 block 5"), "{said}");
    assert!(said.contains("damaged or was converted wrongly"), "{said}");
    let words = ["inspect", &model.display().to_string(), "--weights"];
    let (code, stdout, _) = process::run("woolly-coordinator", &words, folder.path());
    assert!(code == Some(5) && stdout.contains("the scale 255 in its MXFP4"), "{stdout}");
}
