//! `plan`: answers for people and programs, and what is wrong with a file of machines.

use super::support::*;
use std::path::Path;

fn machines(dir: &Path, text: &str) -> String {
    let path = dir.join("machines.toml");
    std::fs::write(&path, text).unwrap();
    self::text(&path)
}

const TWO: &str = "[[machine]]\nname = 'desk'\ncount = 2\nmemory = '1GiB'\nthreads = 4\nread = '30GB/s'\n\
                   multiply = '400G/s'\n";

#[test]
fn a_plan_has_stages_speeds_and_losses() {
    let dir = tempfile::tempdir().unwrap();
    let (model, file) = (tiny_model(), machines(dir.path(), TWO));
    let (code, said, stderr) = run(&["plan", &model, "--workers", &file, "--ctx-size", "256"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{said}");
    for word in
        ["2 machines", "desk-1", "desk-2", "KV cache for", "64 streams", "When one machine goes"]
    {
        assert!(said.contains(word), "no {word:?} in\n{said}");
    }
    let words = [
        "plan",
        "-m",
        &model,
        "--workers",
        &file,
        "--ctx-size",
        "256",
        "--objective",
        "latency",
        "--json",
    ];
    let (code, said, _) = run(&words);
    let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &answer["format"]), (Some(0), &1.into()));
    assert_eq!(answer["objective"], "latency");
    assert_eq!(answer["plan"]["stages"][1]["machine"], "desk-2");
    assert_eq!(answer["losses"].as_array().unwrap().len(), 2);
    assert!(answer["plan"]["prediction"]["decode"][0]["tokens_per_s"].as_f64().unwrap() > 0.0);
    let words = ["plan", &model, "--workers", &file, "--cut", "1,2", "--json", "--ctx-size", "64"];
    let (code, said, stderr) = run(&words);
    let answer: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
    // The tiny model has three layers.
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(answer["plan"]["stages"][0]["layer_last"], 0);
}

#[test]
fn a_plan_that_is_not_possible_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let file = machines(dir.path(), &TWO.replace("1GiB", "64KiB"));
    let (code, said, stderr) = run(&["plan", &tiny_model(), "--workers", &file]);
    assert!(code == Some(1) && stderr.contains("no plan is possible"), "{stderr}");
    assert!(said.contains("No plan is possible.") && said.contains("misses"), "{said}");
    let (code, said, _) = run(&["plan", &tiny_model(), "--workers", &file, "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(code == Some(1) && answer["plan"].is_null(), "{said}");
    assert!(answer["refused"]["missing_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn mistakes_are_told_all_at_once_with_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let file = machines(dir.path(), &TWO.replace("30GB/s", "fast").replace("threads", "treads"));
    let (code, said, stderr) = run(&["plan", &tiny_model(), "--workers", &file]);
    assert_eq!((code, said.as_str()), (Some(2), ""));
    let errors: Vec<&str> = stderr.lines().collect();
    assert_eq!(errors.len(), 3, "{stderr}");
    assert!(
        errors.iter().all(|line| line.starts_with("error: ") && line.contains("machines.toml:"))
    );
    assert!(
        stderr.contains("did you mean threads?") && stderr.contains("read: expected"),
        "{stderr}"
    );
    let fine = machines(dir.path(), TWO);
    let lines: [&[&str]; 5] = [
        &["--wait-for", "3"],
        &["--wait-for", "1", "--cut", "1,2"],
        &["--cut", "5,5"],
        &["--objective", "speed"],
        &["--ctx-size", "10000000"],
    ];
    for words in lines {
        let (code, said, stderr) =
            run(&[&["plan", &tiny_model(), "--workers", &fine], words].concat());
        assert_eq!((code, said.as_str()), (Some(2), ""), "{words:?}: {stderr}");
    }
    let (code, _, stderr) = run(&["plan", "--workers", &fine]);
    assert!(code == Some(2) && stderr.contains("FILE"), "{stderr}");
    let (code, _, stderr) = run(&["plan", "/nowhere/at/all.gguf", "--workers", &fine]);
    assert!(code == Some(5) && stderr.contains("/nowhere/at/all.gguf"), "{stderr}");
}

#[test]
fn without_a_file_this_machine_is_measured_by_the_worker() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("woolly-worker");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = measure ] && cat <<END\n{}END\n",
        TWO.replace("count = 2\n", "")
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    // The worker beside the coordinator comes first: so this one stands beside it.
    let coordinator = dir.path().join("woolly-coordinator");
    std::fs::copy(env!("CARGO_BIN_EXE_woolly-coordinator"), &coordinator).unwrap();
    let command = command(&["plan", &tiny_model(), "--ctx-size", "64"]);
    let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut beside = std::process::Command::new(coordinator);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => beside.env(name, value),
            None => beside.env_remove(name),
        };
    }
    let output = beside.args(words).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 machine:") && said.contains("nothing is possible"), "{said}");
}
