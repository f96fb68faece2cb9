//! What goes wrong around a process: words, files, ports, signals, the environment. One rule for all rows:
//! the documented success, or one clear error and its exit code; never a panic.
//!
//! Rows have the numbers of the catalogue of hostile situations. Those that are held elsewhere: C-07 and C-17
//! (coordinators that are not there, tokens of all kinds) in `worker/tests/worker/cli.rs` and
//! `protocol/tests/protocol/tokens.rs`; C-11 (two on one folder) and a port in use in `commands.rs`; C-14
//! (processors) in the golden tests; C-16 has no command here; C-18 is the refusal of other versions in
//! `protocol/tests/protocol/greeting.rs`.

use super::support::*;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A row: its name, words after `serve -m MODEL --workers 1`, exit code, what stderr must say.
type Row<'a> = (&'a str, &'a [&'a str], i32, &'a str);

/// Runs rows that end before anything is served.
fn refused(rows: &[Row<'_>]) {
    let dir = tempfile::tempdir().unwrap();
    let (model, state) = (tiny_model(), text(&dir.path().join("state")));
    for (row, flags, code, said) in rows {
        let words = ["serve", "-m", &model, "--workers", "1", "--state-dir", &state];
        let (found, stdout, stderr) = run(&[&words[..], flags].concat());
        assert_eq!((found, stdout.as_str()), (Some(*code), ""), "{row} {flags:?}: {stderr}");
        assert!(stderr.contains(said), "{row} {flags:?}: no {said:?} in {stderr}");
        decent(row, &stderr);
    }
    assert!(!Path::new(&state).join("pki").exists(), "something was served");
}

fn decent(row: &str, stderr: &str) {
    assert!(!stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"), "{row}: {stderr}");
}

#[test]
fn c01_words() {
    refused(&[
        ("C-01 unknown flag", &["--wrkers", "2"], 2, "--workers"),
        ("C-01 missing value", &["--http"], 2, "--http"),
        ("C-01 flag twice", &["--queue-max", "1", "--queue-max", "2"], 2, "--queue-max"),
        ("C-01 port 65536", &["--port", "65536"], 2, "--port"),
        ("C-01 port -1", &["--port=-1"], 2, "--port"),
        ("C-01 port abc", &["--port", "abc"], 2, "--port"),
        ("C-01 port with space", &["--port", "80 "], 2, "--port"),
        ("C-01 empty value", &["--http="], 2, "--http"),
        ("C-01 stray word", &["and", "more"], 2, "unexpected"),
    ]);
}

#[test]
fn c02_models() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(5000);
    let odd = text(&dir.path().join("mödel with\nnewline 媽.gguf"));
    std::fs::write(&odd, b"").unwrap();
    let missing = text(&dir.path().join("missing.gguf"));
    let long = text(&dir.path().join(long));
    let pipe = text(&dir.path().join("pipe"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for model in [&missing, &text(dir.path()), &odd, &long, "/dev/null", "/dev/zero", &pipe] {
        let state = text(&dir.path().join("state"));
        let words = ["serve", "-m", model, "--workers", "1", "--state-dir", &state];
        let (code, stdout, stderr) = run(&words);
        let row = format!("C-02 {}", &model[..model.len().min(60)]);
        assert_eq!((code, stdout.as_str()), (Some(5), ""), "{row}: {stderr}");
        assert_eq!(
            stderr.lines().filter(|line| line.starts_with("error: ")).count(),
            1,
            "{row}: {stderr}"
        );
        decent(&row, &stderr);
    }
}

#[test]
fn c03_addresses() {
    refused(&[
        ("C-03 a name", &["--http", "example.com:80"], 2, "expected IP:PORT"),
        ("C-03 IPv6 without brackets", &["--http", "::1"], 2, "--http"),
        ("C-03 unspecified to dial", &["--advertise", "0.0.0.0"], 2, "0.0.0.0"),
        ("C-03 a path as a port", &["--http", "/tmp/socket"], 2, "expected IP:PORT"),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let state = text(&dir.path().join("state"));
    for flags in [["--http", "192.0.2.1:8080"], ["--listen", "192.0.2.1:7400"]] {
        let model = tiny_model();
        let words = ["serve", "-m", &model, "--workers", "1", "--state-dir", &state];
        let other = if flags[0] == "--http" { "--listen" } else { "--http" };
        let (code, _, stderr) = run(&[&words[..], &flags, &[other, "127.0.0.1:0"]].concat());
        assert!(code == Some(1) && stderr.contains(flags[1]), "C-03 not ours: {stderr}");
    }
}

#[test]
fn c04_files_of_options() {
    let dir = tempfile::tempdir().unwrap();
    let big = format!("#{}\n", "x".repeat(2 << 20));
    let cases: [(&str, &[u8], &str); 10] = [
        ("syntax", b"workers = \n", ":1:"),
        ("unknown key", b"\n\nwrkers = 1\n", ":3:1: wrkers"),
        ("wrong type", b"workers = true\n", ":1:1: workers: expected a text or a number"),
        ("duplicate key", b"ctx-size = 1\nctx-size = 2\n", ":2:1"),
        ("duplicate table", b"[a]\n[a]\n", ":2:"),
        ("dotted", b"a.b.c = 1\n", "there are no tables"),
        ("too long", big.as_bytes(), "at most 1048576 bytes"),
        ("not UTF-8", b"alias = \"\xff\"\n", "line 1"),
        ("deep", &[b'['; 100_000], ":1:"),
        ("NUL", b"alias = \"a\0b\"\n", ":1:"),
    ];
    for (row, bytes, said) in cases {
        let file = text(&dir.path().join("woolly.toml"));
        std::fs::write(&file, bytes).unwrap();
        let (code, stdout, stderr) = run(&["config", "check", "--config", &file]);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "C-04 {row}: {stderr}");
        assert!(stderr.contains(said), "C-04 {row}: no {said:?} in {stderr}");
        decent(row, &stderr);
    }
    for (row, bytes) in [
        ("BOM", &b"\xef\xbb\xbfctx-size = 64\n"[..]),
        ("CRLF", b"ctx-size = 64\r\nworkers = 1\r\n"),
        ("empty", b""),
        ("comment without end", b"# only this"),
    ] {
        let file = text(&dir.path().join("woolly.toml"));
        std::fs::write(&file, bytes).unwrap();
        let (code, _, stderr) = run(&["config", "check", "--config", &file]);
        assert_eq!(code, Some(0), "C-04 {row}: {stderr}");
    }
    let (code, _, stderr) = run(&["config", "check", "--config", &text(dir.path())]);
    assert!(code == Some(2) && stderr.contains("directory"), "C-04 a folder: {stderr}");
}

#[test]
fn c05_numbers() {
    refused(&[
        ("C-05 negative", &["--ctx-size=-1"], 2, "--ctx-size"),
        ("C-05 exponent", &["--queue-max", "1e3"], 2, "--queue-max"),
        ("C-05 overflow", &["--queue-max", "99999999999999999999"], 2, "--queue-max"),
        ("C-05 no workers", &["--workers", "0"], 2, "--workers"),
        ("C-05 unit", &["--failover-deadline", "10 parsecs"], 2, "--failover-deadline"),
    ]);
    for flags in [
        ["--threads", "0"],
        ["--threads", "1000000"],
        ["--memory", "4XB"],
        ["--memory", "99999999TiB"],
    ] {
        let model = tiny_model();
        let (code, _, stderr) = run(&[&["serve", "-m", &model], &flags[..]].concat());
        assert!(code == Some(2) && stderr.contains(flags[0]), "C-05 {flags:?}: {stderr}");
    }
}

#[test]
fn c06_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let keys = text(&dir.path().join("keys"));
    std::fs::write(&keys, "").unwrap();
    refused(&[
        ("C-06 empty key", &["--api-key", ""], 2, "--api-key"),
        ("C-06 key with newline", &["--api-key", "sk-a\nsk-b"], 2, "--api-key"),
        ("C-06 no key in the file", &["--api-key-file", &keys], 2, "holds no API key"),
        ("C-06 no file", &["--api-key-file", "/no/such"], 1, "/no/such"),
    ]);
    let mut serving = Serving::start(
        &dir.path().join("state"),
        &["--listen", "127.0.0.1:0", "--api-key", "sk-shown-in-ps"],
    );
    let log = serving.wait_for_log("--api-key shows its keys");
    assert!(!log.contains("sk-shown"), "C-06: {log}");
    assert_eq!(serving.end().code(), Some(0));
}

#[test]
fn c08_signals_and_closed_ends() {
    let dir = tempfile::tempdir().unwrap();
    for signal in ["INT", "TERM", "HUP"] {
        let state = dir.path().join(signal);
        let mut serving = Serving::start(&state, &["--listen", "127.0.0.1:0"]);
        serving.line();
        serving.signal(signal);
        assert_eq!(serving.wait().code(), Some(0), "C-08 {signal}: {}", serving.log());
        decent(signal, &serving.log());
    }
    // A closed stdout and stderr, as behind `| head -0`: it serves on and ends as ever.
    let state = dir.path().join("closed");
    let (model, state_dir) = (tiny_model(), text(&state));
    let words = ["serve", "-m", &model, "--state-dir", &state_dir, "--workers", "1"];
    let words = [&words[..], &["--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"]].concat();
    let mut child = command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !state.join("join-address").exists() {
        assert!(child.try_wait().unwrap().is_none(), "C-08: it ended with its stdout");
        assert!(std::time::Instant::now() < until, "C-08: it does not serve");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let kill = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0), "C-08 closed ends");
    // Output that nobody reads, or that a full disk does not take.
    for words in ["serve --help", "config docs", "completions bash", "man serve", "--version"] {
        let program = env!("CARGO_BIN_EXE_woolly-coordinator");
        let script = format!("{program} {words} | head -c 0");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        decent(words, &String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn c09_an_environment_that_lacks_everything() {
    let model = tiny_model();
    let words = ["serve", "-m", &model, "--workers", "1"];
    let words = [&words[..], &["--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"]].concat();
    let output = command(&words).env_remove("HOME").env_remove("XDG_STATE_HOME").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(2) && stderr.contains("--state-dir"),
        "C-09 HOME: {stderr}"
    );
    // A folder that cannot be made, whoever asks.
    let output = command(&words).args(["--state-dir", "/dev/null/state"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && stderr.contains("/dev/null/state"),
        "C-09: {stderr}"
    );
    // Words that are not UTF-8: a path may be anything, a number not.
    let odd = OsStr::from_bytes(b"/no/such/\xff.gguf");
    let output = command(&["serve", "--workers", "1", "-m"]).arg(odd).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(5) && stderr.contains("/no/such/"), "C-09 path: {stderr}");
    let output =
        command(&["serve", "--queue-max"]).arg(OsStr::from_bytes(b"\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "C-09 number");
    decent("C-09", &String::from_utf8_lossy(&output.stderr));
    // Few files may be open: it says so and serves.
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (program, state_dir) = (env!("CARGO_BIN_EXE_woolly-coordinator"), text(&state));
    let script = format!("ulimit -n 64; umask 077; exec {program} \"$@\"");
    let mut few = Command::new("sh");
    few.args(["-c", &script, "sh"]).args(&words).args(["--state-dir", &state_dir]);
    few.env("LC_ALL", "C").env("TZ", "Nowhere/Never").stdin(Stdio::null());
    let mut serving = Serving::spawn(&state, few);
    assert!(serving.line().starts_with("woolly-worker join"), "C-09: {}", serving.log());
    serving.wait_for_log("64 files may be open");
    assert_eq!(serving.end().code(), Some(0));
}

/// The local addresses of the sockets of a process, as the system writes them.
fn local_addresses(process: u32) -> Vec<String> {
    let links = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let inodes: Vec<String> = links
        .filter_map(|link| std::fs::read_link(link.ok()?.path()).ok())
        .filter_map(|to| {
            to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "udp", "tcp6", "udp6"] {
        let text =
            std::fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.get(9).is_some_and(|inode| inodes.iter().any(|ours| ours == inode)) {
                found.push(words[1].split(':').next().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn c10_nothing_listens_beyond_this_machine_unless_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--listen", "127.0.0.1:0"];
    let mut serving = Serving::start(&dir.path().join("state"), &flags);
    serving.line();
    let found = local_addresses(serving.child.id());
    assert!(found.len() >= 2, "C-10: the sockets were not found: {found:?}");
    assert!(found.iter().all(|address| address == "0100007F"), "C-10: {found:?}");
    assert_eq!(serving.end().code(), Some(0));
}

#[test]
fn c12_state_that_is_damaged_is_refused_or_made_again() {
    for (file, bytes) in [
        ("tokens", &b""[..]),
        ("tokens", b"woolly-tokens 99\n"),
        ("tokens", b"\xff\xfe"),
        ("epochs", b""),
        ("epochs", b"not a number"),
        ("last-plan", b""),
        ("last-plan", b"{\"version\": 99"),
        ("join-address", b"\0\0\0"),
        ("lock", b"half"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let mut first = Serving::start(&state, &["--listen", "127.0.0.1:0"]);
        first.line();
        assert_eq!(first.end().code(), Some(0));
        std::fs::write(state.join(file), bytes).unwrap();
        let mut serving = Serving::start(&state, &["--listen", "127.0.0.1:0"]);
        let row = format!("C-12 {file} {bytes:?}");
        if serving.line().starts_with("woolly-worker join ") {
            assert_eq!(serving.end().code(), Some(0), "{row}: {}", serving.log());
        } else {
            assert_eq!(serving.wait().code(), Some(1), "{row}: {}", serving.log());
            assert!(serving.log().contains(&format!("state/{file}")), "{row}: {}", serving.log());
        }
        decent(&row, &serving.log());
    }
}

#[test]
fn c15_logs() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--workers", "1"];
    let (model, state) = (tiny_model(), dir.path().join("state"));
    let state_dir = text(&state);
    let words = ["serve", "-m", &model, "--state-dir", &state_dir];
    let mut garbage = command(&[&words[..], &flags].concat());
    garbage.env("WOOLLY_LOG", "=,=][loud").env("RUST_LOG", "garbage=[[");
    let mut serving = Serving::spawn(&state, garbage);
    serving.line();
    serving.wait_for_log("is not a log filter");
    assert_eq!(serving.end().code(), Some(0), "C-15 filter");
    // A full disk under the log.
    let state = dir.path().join("full");
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let state_dir = text(&state);
    let words = ["serve", "-m", &model, "--state-dir", &state_dir];
    let mut child =
        command(&[&words[..], &flags].concat()).stdout(Stdio::null()).stderr(full).spawn().unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !state.join("join-address").exists() && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(child.try_wait().unwrap().is_none(), "C-15: it ended with its log");
    let kill = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0), "C-15 full disk");
}
