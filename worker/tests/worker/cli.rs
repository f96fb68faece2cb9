//! The binary from outside: help, bad flags, refusals, and its exit statuses.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

fn worker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_woolly-worker"));
    command.args(arguments).stdin(Stdio::null()).env("NO_COLOR", "1");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WOOLLY_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    worker(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_explains_every_flag() {
    let output = run(&["join", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for flag in [
        "--token",
        "--token-file",
        "--listen",
        "--advertise",
        "--model-dir",
        "--state-dir",
        "--threads",
        "--simd",
        "--memory",
        "--kv-memory",
        "--name",
        "--retry",
        "--idle-timeout",
        "WOOLLY_TOKEN",
        "WOOLLY_LISTEN",
        "WOOLLY_SIMD",
        "WOOLLY_KV_MEMORY",
    ] {
        assert!(help.contains(flag), "{flag} is missing in:\n{help}");
    }
    assert!(!help.contains("--child"), "the flag for children is not for people:\n{help}");
}

#[test]
fn secrets_do_not_show_in_help() {
    let output = worker(&["join", "--help"]).env("WOOLLY_TOKEN", "wly1.secret").output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("wly1.secret"));
}

#[test]
fn mistakes_in_flags_end_with_status_2_and_name_the_flag() {
    for (arguments, named) in [
        (&[][..], "Usage"),
        (&["join"], "HOST:PORT"),
        (&["join", "h:1", "--no-such-flag"], "--no-such-flag"),
        (&["join", "h:1", "--threads", "0"], "--threads"),
        (&["join", "h:1", "--memory", "1e3"], "--memory"),
        (&["join", "h:1", "--memory"], "--memory"),
        (&["join", "h:1", "--name", "a", "--name", "b"], "--name"),
        (&["join", "h:99999"], "HOST:PORT"),
        (&["join", "h:1", "--listen", "nowhere", "--advertise", "0.0.0.0:5"], "--advertise"),
        (&["slices"], "Usage"),
    ] {
        let output = run(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(named), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_token_that_is_none_and_no_token_are_refused_with_status_4() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_str().unwrap();
    for (token, says) in [
        (&[][..], "token create"),
        (&["--token", "hello"], "wly1."),
        (&["--token", "wly1.abc"], "cut off"),
    ] {
        let arguments = [&["join", "127.0.0.1:9", "--state-dir", state][..], token].concat();
        let output = run(&arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{token:?}: {text}");
        assert!(text.contains(says), "{token:?}: {text}");
    }
}

#[test]
fn a_token_file_that_cannot_be_read_is_named() {
    let output = run(&["join", "127.0.0.1:9", "--token-file", "/no/such/token"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/no/such/token"), "{}", stderr(&output));
}

#[test]
fn an_unreachable_coordinator_is_given_up_with_status_3_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let token = woolly_protocol::token::JoinToken::random([7; 32]).to_string();
    let state = dir.path().to_str().unwrap();
    let output = worker(&["join", "127.0.0.1:9", "--state-dir", state, "--retry", "0"])
        .args(["-t", "1"])
        .env("WOOLLY_TOKEN", &token)
        .output()
        .unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("127.0.0.1:9") && !text.contains(&token), "{text}");
}

#[test]
fn a_child_ends_with_its_stdin() {
    let dir = tempfile::tempdir().unwrap();
    let token = woolly_protocol::token::JoinToken::random([7; 32]).to_string();
    let state = dir.path().to_str().unwrap();
    let mut child = worker(&["join", "127.0.0.1:9", "--child", "--state-dir", state, "-t", "1"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{token}").unwrap();
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_empty_store_is_listed_without_being_made() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    for action in ["list", "verify", "prune"] {
        let output = run(&["slices", action, "--state-dir", state.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("no slices"));
    }
    assert!(!state.exists());
}

fn tiny_model() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/models/granite-tiny.gguf").to_owned()
}

#[test]
fn bench_prints_a_table_and_takes_the_level_from_the_environment() {
    let model = tiny_model();
    let arguments = ["bench", "--model", &model, "-p", "0", "-n", "1", "--repetitions", "1"];
    let output = worker(&arguments).env("WOOLLY_SIMD", "scalar").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("granite-tiny") && lines[0].contains("scalar"), "{text}");
    assert!(lines[1].contains("tokens/s") && lines[2].contains("tg"), "{text}");
}

#[test]
fn what_bench_cannot_do_is_refused() {
    let model = tiny_model();
    for (arguments, status, named) in [
        (&["bench"][..], 2, "--model"),
        (&["bench", "--model", "/no/such.gguf"], 1, "/no/such.gguf"),
        (&["bench", "--model", &model, "--kv", "q4_0"], 2, "--kv"),
        (&["bench", "--model", &model, "-p", "0", "-n", "0"], 2, "nothing to measure"),
        (&["bench", "--model", &model, "--simd", "mmx"], 2, "expected auto, scalar"),
        (&["bench", "--model", &model, "-b", "512", "--depth", "1048576"], 1, "are free"),
    ] {
        let output = run(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
        assert!(text.contains(named), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty());
    }
    let output = worker(&["join", "h:1"]).env("WOOLLY_SIMD", "mmx").output().unwrap();
    assert!(stderr(&output).contains("WOOLLY_SIMD: simd: "), "{}", stderr(&output));
}

#[test]
fn a_model_that_is_truncated_while_it_is_computed_ends_the_worker_with_status_70() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.gguf");
    fs::copy(tiny_model(), &model).unwrap();
    let path = model.to_str().unwrap();
    let case = ["-p", "0", "-n", "1,200", "--threads", "1", "--repetitions", "50"];
    let arguments = [&["bench", "--model", path][..], &case].concat();
    let mut bench = worker(&arguments);
    let mut child = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The head, and the first figures: the second ones are being measured now.
    assert_eq!(lines.take(3).filter(Result::is_ok).count(), 3);
    fs::File::options().write(true).open(&model).unwrap().set_len(4096).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(70), "{text}");
    assert!(text.contains("error: a mapped model file became shorter"), "{text}");
}

#[test]
fn options_come_from_a_file_a_variable_or_a_flag_and_all_mistakes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.toml");
    let config = file.to_str().unwrap();
    fs::write(
        &file,
        "coordinator = \"of-file:1\"\nthreads = 2\nmlock = true\ntoken = \"wly1.secret\"\n",
    )
    .unwrap();
    let print = ["config", "print", "--config", config, "--name", "n"];
    let output = worker(&print).env("WOOLLY_THREADS", "3").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for (key, value, origin) in [
        ("coordinator", "\"of-file:1\"", "worker.toml:1:1"),
        ("threads", "3", "# WOOLLY_THREADS"),
        ("mlock", "true", "worker.toml:3:1"),
        ("name", "\"n\"", "# --name"),
        ("#simd", "\"auto\"", "# default"),
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("{key} = ")));
        let line = line.unwrap_or_else(|| panic!("no {key} in\n{text}"));
        assert!(line.contains(value) && line.trim_end().ends_with(origin), "{line}");
    }
    assert!(!text.contains("wly1.secret") && stderr(&output).contains("chmod 600"), "{text}");
    fs::write(&file, "theads = 2\nsimd = \"mmx\"\nlisten = 5.5\n").unwrap();
    let output = worker(&["join", "--config", config, "--memory", "x"]).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for said in
        ["worker.toml:1:1: theads", "did you mean threads", "worker.toml:2:1: simd", "--memory: "]
    {
        assert!(text.contains(said), "{said}\n{text}");
    }
    let output = run(&["config", "check", "h:1"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no mistakes\n", "{}", stderr(&output));
}

#[test]
fn completions_and_manual_pages_are_printed() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}: {}", stderr(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("token-file"), "{shell}");
    }
    let output = run(&["man", "slices", "list"]);
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(page.contains(".TH woolly-worker-slices-list 1"), "{page}");
    assert_eq!(run(&["man", "nothing"]).status.code(), Some(2));
}
