//! Starting, stopping and starting again; and what a start says when it cannot.

use super::chat;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use woolly_tests::cluster::{Cluster, READY_LIMIT, Setup, temporary_folder};
use woolly_tests::fixtures;
use woolly_tests::process::{Process, run, wait_until};

/// How long a process may take to end when asked to.
const END_LIMIT: Duration = Duration::from_secs(15);

/// Runs `serve` and expects it to fail: exit code and stderr.
fn failing_serve(flags: &[&str]) -> (Option<i32>, String) {
    let folder = temporary_folder();
    let state = folder.path().join("state").display().to_string();
    let mut arguments = vec!["serve", "--state-dir", &state];
    arguments.extend(flags);
    let (code, stdout, stderr) = run("woolly-coordinator", &arguments, folder.path());
    assert_ne!(code, Some(0), "{flags:?} was accepted: {stdout}");
    assert!(stderr.contains("error"), "{flags:?}: {stderr}");
    (code, stderr)
}

/// Every file of a folder with its inode and time: changed when it was written again.
fn inventory(folder: &Path) -> BTreeSet<(PathBuf, u64, i64)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let data = entry.metadata().expect("files of a stopped worker stay");
        if data.is_dir() {
            found.extend(inventory(&entry.path()));
        } else if data.len() > 0 {
            found.insert((entry.path(), data.ino(), data.mtime_nsec()));
        }
    }
    found
}

#[test]
fn serve_alone_is_a_working_server() {
    let cluster = Setup::new(fixtures::granite_tiny()).start();
    let answer = cluster.post("/v1/chat/completions", &chat(&cluster, "Hello!", 4));
    assert!(answer["usage"]["completion_tokens"].as_u64() > Some(0));
    let health = cluster.get("/health");
    assert_eq!((&health["status"], &health["service"]), (&"ok".into(), &"woolly".into()));
    assert!(health["version"].is_string() && health["timestamp"].is_string());
}

#[test]
fn the_join_line_stands_alone_on_stdout() {
    let mut cluster = Setup::of_two(fixtures::granite_tiny()).start();
    let words = cluster.join_words();
    let stdout = cluster.coordinator.stdout();
    assert_eq!(words.len(), 4, "join HOST:PORT --token TOKEN: {stdout:?}");
    assert_eq!((words[0].as_str(), words[2].as_str()), ("join", "--token"));
    let lines: Vec<&str> = stdout.lines().filter(|line| line.contains("--token")).collect();
    assert_eq!(lines, [format!("woolly-worker {}", words.join(" "))]);
    assert!(!stdout.contains('\u{1b}'), "no colour codes: {stdout:?}");
    assert!(!cluster.logs().contains(&words[3]), "the token is in a log");
}

#[test]
fn ctrl_c_leaves_no_process() {
    let mut cluster = Setup::new(fixtures::granite_tiny()).start();
    cluster.coordinator.interrupt();
    let status = cluster.coordinator.wait(END_LIMIT);
    assert!(status.success(), "{status}\n{}", cluster.logs());
    let gone = || (!cluster.coordinator.group_is_alive()).then_some(());
    wait_until(END_LIMIT, gone, || "the local worker is still there".to_owned());
}

#[test]
fn a_killed_coordinator_takes_its_local_worker_along() {
    let mut cluster = Setup::new(fixtures::granite_tiny()).start();
    cluster.coordinator.kill();
    let gone = || (!cluster.coordinator.group_is_alive()).then_some(());
    wait_until(END_LIMIT, gone, || "the local worker is still there".to_owned());
}

#[test]
fn an_interrupted_worker_ends_and_the_other_has_its_layers() {
    let mut cluster = Setup::of_two(fixtures::granite_tiny()).start();
    cluster.workers[1].interrupt();
    let status = cluster.workers[1].wait(END_LIMIT);
    assert!(status.success(), "{status}\n{}", cluster.logs());
    let one =
        |health: &serde_json::Value| health["stages"].as_array().is_some_and(|s| s.len() == 1);
    cluster.wait_for_health(END_LIMIT, "one stage", one);
    cluster.wait_ready();
}

#[test]
fn a_second_start_needs_no_token_and_fetches_nothing() {
    // Speeds measured while other tests run differ by more than the planner takes for equal.
    let setup =
        Setup::of_two(fixtures::smollm2()).cut(&[17, 13]).worker_flags(&["--no-local-files"]);
    let mut cluster = setup.start();
    let slices = |cluster: &Cluster| -> BTreeSet<(PathBuf, u64, i64)> {
        let folder = |number| cluster.folder().join(format!("worker-{number}/slices"));
        (1..=2).flat_map(|number| inventory(&folder(number))).collect()
    };
    let before = slices(&cluster);
    let bytes: u64 = before.iter().filter_map(|(path, ..)| Some(path.metadata().ok()?.len())).sum();
    assert!(bytes > 90 << 20, "the slices of a model of 98 MB have {bytes} bytes");
    let body = chat(&cluster, "What is a brick?", 8);
    let answer = cluster.post("/v1/chat/completions", &body)["choices"].clone();
    cluster.restart();
    assert_eq!(cluster.post("/v1/chat/completions", &body)["choices"], answer);
    let after = slices(&cluster);
    assert_eq!(before, after, "something was fetched\n{}", cluster.logs());
}

#[test]
fn a_port_in_use_is_named() {
    let mut cluster = Setup::new(fixtures::granite_tiny()).start();
    let model = fixtures::granite_tiny().display().to_string();
    let http = cluster.http.to_string();
    let (code, stderr) =
        failing_serve(&["--model", &model, "--http", &http, "--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&http) && stderr.contains("--http"), "{stderr}");
    let listen = cluster.join_words()[1].clone();
    let (code, stderr) =
        failing_serve(&["--model", &model, "--http", "127.0.0.1:0", "--listen", &listen]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&listen) && stderr.contains("--listen"), "{stderr}");
}

#[test]
fn a_missing_or_damaged_model_is_named() {
    let folder = temporary_folder();
    let at = folder.path().join("model.gguf");
    let path = at.display().to_string();
    let flags = ["--model", &path, "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let (code, stderr) = failing_serve(&flags);
    assert!(code == Some(5) && stderr.contains(&path), "missing: {code:?} {stderr}");
    let whole = fs::read(fixtures::granite_tiny()).unwrap();
    for (what, bytes) in [
        ("cut short", &whole[..whole.len() / 2]),
        ("cut in the header", &whole[..1000]),
        ("no GGUF", &b"this is a text, not a model"[..]),
        ("empty", &[]),
    ] {
        fs::write(&at, bytes).unwrap();
        let (code, stderr) = failing_serve(&flags);
        assert_eq!(code, Some(5), "{what}: {stderr}");
        assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    }
}

#[test]
fn a_state_directory_has_one_coordinator() {
    let cluster = Setup::new(fixtures::granite_tiny()).start();
    let state = cluster.folder().join("coordinator").display().to_string();
    let model = fixtures::granite_tiny().display().to_string();
    let arguments = ["serve", "--model", &model, "--state-dir", &state];
    let arguments: Vec<String> = arguments
        .iter()
        .chain(&["--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"])
        .map(|argument| (*argument).to_owned())
        .collect();
    let mut second = Process::start("second", "woolly-coordinator", &arguments, cluster.folder());
    let status = second.wait(READY_LIMIT);
    assert!(!status.success() && second.stderr().contains(&state), "{}", second.log());
}
