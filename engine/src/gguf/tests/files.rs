//! G-33 to G-38: what is on disk.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{HIDDEN, VOCAB, assert_refused, problem, small_model, weights};
use crate::gguf::write::GgufWriter;
use crate::gguf::{Gguf, HeaderPart, Problem, Value};
use crate::quant::TensorType;

#[test]
fn g_33_files_that_end_early() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    let bytes = small_model("llama", 1).to_bytes(32);
    let gguf_end = {
        fs::write(&path, &bytes).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let last = gguf.tensors().last().unwrap();
        (last.offset + last.len) as usize
    };
    for len in [gguf_end - 1, bytes.len() - 4096, bytes.len() / 2] {
        fs::write(&path, &bytes[..len]).unwrap();
        let text = problem(Gguf::open(&path));
        assert!(text.starts_with("TensorPastEnd") && text.contains("m.gguf"), "{text}");
    }
    for len in (0..4000).step_by(97) {
        fs::write(&path, &bytes[..len]).unwrap();
        problem(Gguf::open(&path));
    }
    fs::write(&path, &bytes[..gguf_end]).unwrap();
    assert!(Gguf::open(&path).is_ok(), "padding after the last tensor need not be there");
}

#[test]
fn g_34_sparse_files_are_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    small_model("llama", 1).write(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // Some file systems end below 1 TiB; then what they can hold is tried.
    let len = [1 << 40, 1 << 34].into_iter().find(|&len| file.set_len(len).is_ok()).unwrap();
    let started = Instant::now();
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.parts()[0].size, len);
    assert!(started.elapsed() < Duration::from_secs(2));
    let hole = File::create(&path).unwrap();
    hole.set_len(len).unwrap();
    assert_refused(Gguf::open(&path), "NotGguf");
}

#[test]
fn g_34_files_beyond_the_limit() {
    let bytes = small_model("llama", 1).to_bytes(32);
    for file_size in [(1 << 50) + 1, u64::MAX] {
        let part = HeaderPart { file_name: "m".into(), bytes: bytes.clone(), file_size };
        assert_refused(Gguf::from_headers(vec![part]), "Limit");
    }
}

#[test]
fn g_35_trailing_bytes_are_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    let bytes = small_model("llama", 1).to_bytes(32);
    for extra in [1, 31, 4096, 1 << 20] {
        let mut bytes = bytes.clone();
        bytes.resize(bytes.len() + extra, 0xee);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Gguf::open(&path).unwrap().parts()[0].size, bytes.len() as u64);
    }
}

#[test]
fn g_36_what_is_not_a_regular_file() {
    let directory = tempfile::tempdir().unwrap();
    let started = Instant::now();
    assert_refused(Gguf::open(directory.path()), "NotRegularFile");
    assert_refused(Gguf::open(Path::new("/dev/zero")), "NotRegularFile");
    assert_refused(Gguf::open(Path::new("/dev/full")), "NotRegularFile");
    assert_refused(Gguf::open(Path::new("/proc/self/status")), "Truncated");
    let fifo = directory.path().join("fifo.gguf");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let text = problem(Gguf::open(&fifo));
    assert!(text.contains("a pipe, expected a regular file"), "{text}");
    let circle = directory.path().join("loop.gguf");
    symlink(&circle, &circle).unwrap();
    assert_refused(Gguf::open(&circle), "Io");
    assert_refused(Gguf::open(&directory.path().join("none.gguf")), "Io");
    assert_refused(Gguf::open(&directory.path().join("line\nbreak\u{1b}.gguf")), "Io");
    assert!(started.elapsed() < Duration::from_secs(5), "nothing waits");
}

/// The small model in `count` parts, each with its share of the tensors.
pub(crate) fn parts(count: u16) -> Vec<GgufWriter> {
    let outer = ["token_embd.weight", "output_norm.weight", "output.weight"];
    let mut parts = Vec::new();
    for number in 0..count {
        let base = if number == 0 { small_model("llama", 1) } else { GgufWriter::new() };
        let mut part = base
            .set("split.no", Value::U16(number))
            .set("split.count", Value::U16(count))
            .set("split.tensors.count", Value::I32(12));
        if number == 0 {
            part = outer.iter().fold(part, |part, name| part.without_tensor(name));
        } else if number == count - 1 {
            part = weights(part, outer[0], TensorType::Q8_0, &[HIDDEN, VOCAB]);
            part = weights(part, outer[1], TensorType::F32, &[HIDDEN]);
            part = weights(part, outer[2], TensorType::Q8_0, &[HIDDEN, VOCAB]);
        }
        parts.push(part);
    }
    parts
}

pub(crate) fn part_path(directory: &Path, number: usize, count: usize) -> PathBuf {
    directory.join(format!("m-{number:05}-of-{count:05}.gguf"))
}

pub(crate) fn write_parts(directory: &Path, parts: &[GgufWriter]) {
    for (at, part) in parts.iter().enumerate() {
        part.write(&part_path(directory, at + 1, parts.len())).unwrap();
    }
}

#[test]
fn g_38_any_part_opens_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    write_parts(directory.path(), &parts(3));
    for number in 1..=3 {
        let gguf = Gguf::open(&part_path(directory.path(), number, 3)).unwrap();
        assert_eq!(gguf.tensors().len(), 12);
        assert_eq!(gguf.parts().len(), 3);
        assert_eq!(gguf.tensor("output.weight").unwrap().part, 2);
        assert_eq!(gguf.metadata().str("general.name").unwrap(), "small");
        assert!(crate::plan::ModelLayout::new(&gguf).is_ok());
    }
    let headers: Vec<HeaderPart> = (1..=3)
        .map(|number| fs::read(part_path(directory.path(), number, 3)).unwrap())
        .map(|bytes| HeaderPart { file_name: "m".into(), file_size: bytes.len() as u64, bytes })
        .collect();
    assert_eq!(Gguf::from_headers(headers.clone()).unwrap().tensors().len(), 12);
    let swapped = vec![headers[0].clone(), headers[2].clone(), headers[1].clone()];
    assert_refused(Gguf::from_headers(swapped), "PartNumber");
    assert_refused(Gguf::from_headers(headers[..2].to_vec()), "PartCount");
    assert_refused(Gguf::from_headers(headers[..1].to_vec()), "PartCount");
}

#[test]
fn g_38_parts_that_do_not_belong_together() {
    let check = |change: &dyn Fn(&Path, &mut Vec<GgufWriter>), kind: &str| {
        let directory = tempfile::tempdir().unwrap();
        let mut parts = parts(3);
        write_parts(directory.path(), &parts);
        change(directory.path(), &mut parts);
        let text = problem(Gguf::open(&part_path(directory.path(), 1, 3)));
        assert!(text.starts_with(kind), "{text}");
    };
    let path = |directory: &Path, number| part_path(directory, number, 3);
    check(&|directory, _| fs::remove_file(path(directory, 2)).unwrap(), "Io");
    check(
        &|directory, _| {
            fs::rename(path(directory, 2), directory.join("x")).unwrap();
            fs::rename(path(directory, 3), path(directory, 2)).unwrap();
            fs::rename(directory.join("x"), path(directory, 3)).unwrap();
        },
        "PartNumber",
    );
    let rewrite = |directory: &Path, number: usize, part: GgufWriter| {
        part.write(&path(directory, number)).unwrap();
    };
    check(
        &|directory, parts| {
            rewrite(directory, 2, parts[1].clone().set("split.count", Value::U16(4)));
        },
        "PartCount",
    );
    check(
        &|directory, parts| rewrite(directory, 2, parts[1].clone().without("split.no")),
        "MissingKey",
    );
    check(
        &|directory, parts| {
            let part = weights(parts[1].clone(), "output.weight", TensorType::F32, &[8]);
            rewrite(directory, 2, part);
        },
        "DuplicateTensor",
    );
    check(
        &|directory, parts| {
            let part = weights(parts[1].clone(), "one.more", TensorType::F32, &[8]);
            rewrite(directory, 2, part);
        },
        "PartTensors",
    );
}

#[test]
fn g_38_a_part_under_another_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("renamed.gguf");
    parts(2)[0].write(&path).unwrap();
    let error = Gguf::open(&path).unwrap_err();
    assert!(matches!(error.problem(), Problem::PartName { count: 2 }), "{error}");
    let many = small_model("llama", 1).set("split.count", Value::U16(u16::MAX));
    many.write(&path).unwrap();
    assert_refused(Gguf::open(&path), "Limit");
}
