//! Flags, exit codes, what stands on stdout and what on stderr.

use super::support::*;
use std::io::{BufRead, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn help_and_version_go_to_stdout() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(help.contains("serve") && help.contains("token") && help.contains("Exit codes"));
    let (code, help, _) = run(&["serve", "--help"]);
    assert_eq!(code, Some(0));
    for word in ["--model", "--http", "--listen", "--cut", "WOOLLY_MODEL", "127.0.0.1:8080", "8192"]
    {
        assert!(help.contains(word), "`serve --help` does not mention {word}:\n{help}");
    }
    let (code, version, _) = run(&["--version"]);
    let expected = concat!("woolly-coordinator ", env!("CARGO_PKG_VERSION"));
    assert_eq!((code, version.trim()), (Some(0), expected));
}

#[test]
fn wrong_flags_end_with_2_and_say_why_on_stderr() {
    let model = tiny_model();
    let lines: [&[&str]; 21] = [
        &[],
        &["serve", "--cut", "1,1"],
        &["serve", "--alias", "mine"],
        &["serve", "--chat-template-file", "t.jinja"],
        &["serve", "--load-on-demand"],
        &["serve", "--model-dir", "/nowhere/at/all"],
        &["serve", "--admin-key", "short"],
        &["models"],
        &["models", "load"],
        &["models", "load", "a", "--path", "b.gguf"],
        &["sing"],
        &["serve", "-m", &model, "--wrkers", "2"],
        &["serve", "-m", &model, "--http", "127.0.0.1:65536"],
        &["serve", "-m", &model, "--workers"],
        &["serve", "-m", &model, "--workers", "1", "--workers", "2"],
        &["serve", "-m", &model, "--workers", "1", "--local-workers", "2"],
        &["serve", "-m", &model, "--cut", "99"],
        &["serve", "-m", &model, "--objective", "speed"],
        &["serve", "-m", &model, "--objective", "latency", "--cut", "1,1"],
        &["serve", "-m", &model, "--ctx-size", "1000000", "--local-workers", "0"],
        &["token", "revoke", "not-an-id"],
    ];
    for words in lines {
        let (code, stdout, stderr) = run(words);
        assert_eq!(code, Some(2), "{words:?}: {stderr}");
        assert!(stdout.is_empty() && !stderr.is_empty(), "{words:?}: {stdout}");
    }
}

#[test]
fn a_model_that_cannot_be_served_is_one_error_and_exit_code_5() {
    let dir = tempfile::tempdir().unwrap();
    let damaged = text(&dir.path().join("damaged model.gguf"));
    std::fs::write(&damaged, b"GGUF, but not really").unwrap();
    let state = text(&dir.path().join("state"));
    for model in [text(&dir.path().join("missing.gguf")), damaged, text(dir.path())] {
        let words = ["serve", "-m", &model, "--local-workers", "0", "--state-dir", &state];
        let (code, stdout, stderr) = run(&words);
        assert_eq!((code, stdout.as_str()), (Some(5), ""), "{stderr}");
        let errors = stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert!(errors == 1 && stderr.lines().next().unwrap().contains(&model), "{stderr}");
        assert!(!Path::new(&state).exists(), "a wrong model left a state directory behind");
    }
}

#[test]
fn models_are_asked_of_a_server_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let state = text(&dir.path().join("state"));
    let words: [&[&str]; 3] = [&["list"], &["load", "tiny"], &["unload", "tiny"]];
    for words in words {
        let (code, stdout, stderr) = run(&[&["models"], words, &["--state-dir", &state]].concat());
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains("admin.sock") && stderr.contains("serve"), "{stderr}");
    }
}

#[test]
fn the_cluster_is_asked_of_a_server_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let state = text(&dir.path().join("state"));
    for words in [&["status"][..], &["status", "--watch", "--json"], &["workers"]] {
        let (code, stdout, stderr) = run(&[words, &["--state-dir", &state]].concat());
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains("admin.sock") && stderr.contains("serve"), "{stderr}");
    }
    let wrong =
        [&["status", "--watch=1ms"][..], &["status", "--watch=soon"], &["workers", "remove"]];
    for words in wrong {
        let (code, _, stderr) = run(words);
        assert_eq!(code, Some(2), "{words:?}: {stderr}");
    }
    let mut serving = Serving::start(&dir.path().join("state"), &["--listen", "127.0.0.1:0"]);
    serving.line();
    // It is there a moment after the line that joins workers.
    let (socket, begun) = (dir.path().join("state/admin.sock"), Instant::now());
    while !socket.exists() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let ask = |words: &[&str]| {
        let (code, stdout, stderr) = run(&[words, &["--state-dir", &state]].concat());
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{words:?}: {stderr}");
        stdout
    };
    let shown = ask(&["status"]);
    let head = concat!("woolly-coordinator ", env!("CARGO_PKG_VERSION"), ", up ");
    assert!(shown.starts_with(head) && shown.contains(": 0 workers, 0 lost, 1 model"), "{shown}");
    assert!(shown.contains("tiny-qwen3 is loading: ") && shown.contains("WORKER"), "{shown}");
    let told: serde_json::Value = serde_json::from_str(&ask(&["status", "--json"])).unwrap();
    assert_eq!(
        (&told["workers"], &told["models"][0]["state"]),
        (&serde_json::json!([]), &"loading".into())
    );
    assert_eq!(ask(&["workers"]).lines().count(), 1, "the head alone");
    assert_eq!(ask(&["workers", "--json"]).trim(), "[]");

    // Line by line until the server is gone.
    let words = ["status", "--json", "--watch=200ms", "--state-dir", &state];
    let mut watching =
        command(&words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(watching.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let told: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(told["up_ms"].as_u64().is_some(), "{told}");
    }
    assert_eq!(serving.end().code(), Some(0), "{}", serving.log());
    assert_eq!(watching.wait().unwrap().code(), Some(1));
}

#[test]
fn a_server_starts_empty_and_loads_what_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let state = text(&dir.path().join("state"));
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let flags = ["--http", &http.to_string(), "--listen", "127.0.0.1:0", "--local-workers", "0"];
    let mut serve = command(&[&["serve"], &flags[..], &["--state-dir", &state]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let models = |words: &[&str]| run(&[&["models"], words, &["--state-dir", &state]].concat());
    let until = Instant::now() + Duration::from_secs(30);
    let listed = loop {
        let (code, listed, stderr) = models(&["list"]);
        if code == Some(0) {
            break listed;
        }
        assert!(Instant::now() < until, "{stderr}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(listed.starts_with("MODEL") && listed.lines().count() == 1, "{listed}");
    // There is no worker to load it, so that nobody waits for it here.
    let (code, _, said) = models(&["load", "--path", &tiny_model(), "--no-wait", "-a", "mine"]);
    assert!(code == Some(0) && said.contains("'mine' is being loaded"), "{said}");
    let (_, listed, _) = models(&["list"]);
    let line = listed.lines().nth(1).unwrap();
    assert!(line.starts_with("mine ") && line.contains("loading"), "{listed}");
    let (code, _, said) = models(&["load", "--path", &tiny_model(), "--ctx-size", "64"]);
    assert!(code == Some(1) && said.contains("other options"), "{said}");
    let (code, _, said) = models(&["load", "mine"]);
    assert!(code == Some(1) && said.contains("--model-dir"), "{said}");
    let damaged = text(&dir.path().join("damaged.gguf"));
    std::fs::write(&damaged, b"GGUF, but not really").unwrap();
    let (code, _, said) = models(&["load", "--path", &damaged]);
    assert!(code == Some(1) && said.contains("damaged.gguf"), "{said}");
    let (code, _, said) = models(&["unload", "mine"]);
    assert!(code == Some(0) && said.contains("'mine' was unloaded"), "{said}");
    assert_eq!(models(&["unload", "mine"]).0, Some(1));
    serve.kill().unwrap();
    serve.wait().unwrap();
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let state = text(&dir.path().join("state"));
    let token = |words: &[&str]| run(&[&["token"], words, &["--state-dir", &state]].concat());
    let (code, line, notes) = token(&["create", "--ttl", "1h", "--uses", "2"]);
    assert_eq!(code, Some(0), "{notes}");
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    assert_eq!(words[..4], ["woolly-worker", "join", "127.0.0.1:7400", "--token"]);
    assert!(words.len() == 5 && words[4].starts_with("wly1."), "{line}");
    assert_eq!(line.lines().count(), 1, "more than the join line is on stdout");
    let (_, quiet, _) = token(&["create", "-q"]);
    assert!(quiet.starts_with("wly1.") && quiet.lines().count() == 1, "{quiet}");

    let id = words[4].split('.').nth(2).unwrap();
    let (code, list, _) = token(&["list"]);
    let row = |list: &str| list.lines().find(|row| row.starts_with(id)).unwrap().to_owned();
    assert!(code == Some(0) && row(&list).contains("usable"), "{list}");
    assert!(!list.contains(words[4].split('.').nth(3).unwrap()), "the list shows a secret");
    assert_eq!(token(&["revoke", id]).0, Some(0));
    assert!(row(&token(&["list"]).1).contains("revoked"));
    assert_eq!(token(&["revoke", "00000000"]).0, Some(1), "an unknown id was revoked");
}

#[test]
fn a_broken_token_file_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokens"), b"woolly-tokens 99\n").unwrap();
    let (code, _, stderr) = run(&["token", "list", "--state-dir", &text(dir.path())]);
    assert!(code == Some(1) && stderr.contains("tokens"), "{stderr}");
}

#[test]
fn serve_prints_the_join_line_alone_on_stdout_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut serving = Serving::start(&state, &["--listen", "127.0.0.1:0"]);
    let line = serving.line();
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    assert_eq!(words[..2], ["woolly-worker", "join"], "{line} {}", serving.log());
    let address: SocketAddr = words[2].parse().unwrap();
    assert!(address.port() != 0 && words[3] == "--token" && words.len() == 5, "{line}");
    let log = serving.wait_for_log("--advertise");
    assert!(!line.contains('\u{1b}') && !log.contains(words[4]), "{log}");

    // `token create` knows the address, also while `serve` runs.
    let (_, made, _) = run(&["token", "create", "--state-dir", &text(&state)]);
    assert!(made.starts_with(&format!("woolly-worker join {address} --token wly1.")), "{made}");
    // A second coordinator may not use the same folder.
    let second =
        run(&["serve", "-m", &tiny_model(), "--workers", "1", "--state-dir", &text(&state)]);
    assert!(second.0 == Some(1) && second.2.contains("another coordinator"), "{second:?}");

    let status = serving.end();
    assert_eq!(status.code(), Some(0), "{}", serving.log());
    let mut rest = String::new();
    serving.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "stdout holds more than the join line");
    assert!(!serving.log().contains("error"), "{}", serving.log());
}

#[test]
fn a_port_in_use_is_one_error_that_names_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let state = text(&dir.path().join("state"));
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = [
        ("--http", tcp.local_addr().unwrap().to_string(), "--listen"),
        ("--listen", udp.local_addr().unwrap().to_string(), "--http"),
    ];
    for (flag, address, other) in taken {
        let model = tiny_model();
        let words = ["serve", "-m", &model, "--workers", "1", "--state-dir", &state];
        let words = [&words[..], &[flag, &address, other, "127.0.0.1:0"]].concat();
        let (code, stdout, stderr) = run(&words);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        let error = stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.contains(flag) && error.contains(&address), "{stderr}");
    }
}

#[test]
fn words_of_other_servers_get_a_tip() {
    let model = tiny_model();
    let lines: [(&[&str], &str); 6] = [
        (&["serve", &model, "-ngl", "99"], "computes on CPUs"),
        (&["serve", &model, "--parallel", "4"], "--running-max"),
        (&["serve", &model, "--chat-template", "chatml"], "--chat-template-file"),
        (&["serve", "-hf", "org/model"], "downloads a model"),
        (&["serve", &model, "--served-model-name", "x"], "--alias"),
        (&["run", "llama3"], "serve -m FILE"),
    ];
    for (words, tip) in lines {
        let (code, stdout, stderr) = run(words);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{words:?}: {stderr}");
        let line = stderr.lines().find(|line| line.contains("tip: '")).unwrap_or_default();
        assert!(line.contains(tip), "{words:?}: {stderr}");
    }
}

#[test]
fn who_has_no_model_is_told_where_models_come_from() {
    for words in [&["serve", "llama3:8b"][..], &["serve", "-m", "smollm2"]] {
        let (code, _, stderr) = run(words);
        assert_eq!(code, Some(2), "{words:?}: {stderr}");
        assert!(stderr.contains("GGUF") && stderr.contains("hf:Qwen/"), "{words:?}: {stderr}");
    }
}

#[test]
fn the_model_may_stand_alone_and_host_and_port_be_given_apart() {
    let dir = tempfile::tempdir().unwrap();
    let state = text(&dir.path().join("state"));
    let model = tiny_model();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    // It comes as far as the port, which is in use.
    for flags in [&["--port", &port][..], &["--host", "127.0.0.1", "--port", &port]] {
        let words = ["serve", &model, "--workers", "1", "--listen", "127.0.0.1:0"];
        let words = [&words[..], &["--state-dir", &state], flags].concat();
        let (code, _, stderr) = run(&words);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(&format!("127.0.0.1:{port}")), "{stderr}");
    }
    let (code, _, stderr) = run(&["serve", &model, "-m", &model]);
    assert_eq!(code, Some(2), "{stderr}");
}

#[test]
fn a_key_file_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "sk-a-key-of-someone\n").unwrap();
    for (mode, is_warned) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(mode)).unwrap();
        let state = dir.path().join(format!("state-{mode:o}"));
        let flags = ["--listen", "127.0.0.1:0", "--api-key-file", &text(&keys)];
        let mut serving = Serving::start(&state, &flags);
        serving.line();
        let log = serving.log();
        assert_eq!(
            log.contains("others on this machine may read it"),
            is_warned,
            "{mode:o}: {log}"
        );
        assert!(!log.contains("sk-a-key"), "{log}");
    }
}
