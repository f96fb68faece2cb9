//! Options from flags, variables and a file; what shows them, and what shells and `man` are given.

use super::support::*;
use clap::ValueEnum;
use clap_complete::Shell;
use std::process::Command;

/// Exit code, stdout, stderr, with these variables.
fn run_with(words: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = command(words);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn config_print_says_what_is_set_and_by_whom() {
    let dir = tempfile::tempdir().unwrap();
    let file = text(&dir.path().join("woolly.toml"));
    std::fs::write(
        &file,
        "ctx-size = 4096\nhttp = [\"9000\", \"[::1]:9001\"]\napi-key = \"sk-secret\"\n",
    )
    .unwrap();
    let words = ["config", "print", "--config", &file, "--workers", "2", "-m", "a.gguf"];
    let (code, stdout, stderr) = run_with(&words, &[("WOOLLY_QUEUE_MAX", "7")]);
    assert_eq!(code, Some(0), "{stderr}");
    let line = |key: &str| {
        let line = stdout.lines().find(|line| line.starts_with(key));
        line.unwrap_or_else(|| panic!("no {key} in\n{stdout}"))
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(line("ctx-size")[2..], ["4096", "#", &format!("{file}:1:1")]);
    assert_eq!(line("http")[2..4], ["[9000,", "\"[::1]:9001\"]"]);
    assert_eq!(line("queue-max")[2..], ["7", "#", "WOOLLY_QUEUE_MAX"]);
    assert_eq!(line("workers")[2..], ["2", "#", "--workers"]);
    assert_eq!(line("#listen")[2..], ["\"127.0.0.1:7400\"", "#", "default"]);
    assert!(
        !stdout.contains("sk-secret")
            && stdout.contains("#api-key = (hidden)")
            && stderr.contains("chmod 600"),
        "{stdout}{stderr}"
    );
    // What was printed is a file that says the same.
    std::fs::write(&file, &stdout).unwrap();
    let (code, again, stderr) = run(&["config", "print", "--config", &file]);
    assert_eq!(code, Some(0), "{stderr}");
    let values = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.split(" # ").next().unwrap().trim_end().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(&stdout));
}

#[test]
fn every_mistake_is_told_at_once_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = text(&dir.path().join("woolly.toml"));
    std::fs::write(&file, "wrkers = 2\nctx-size = -1\nthreads = \"many\"\n").unwrap();
    let (model, variables) =
        (tiny_model(), [("WOOLLY_HTTP", "nowhere"), ("WOOLLY_API_KEY", "sk a")]);
    let flags = ["--config", &file, "--queue-max", "0", "-m", &model];
    for command in [&["serve"][..], &["config", "check"], &["config", "print"]] {
        let (code, stdout, stderr) = run_with(&[command, &flags].concat(), &variables);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        for said in [
            &format!(
                "error: {file}:1:1: wrkers: there is no option of this name: did you mean workers?"
            ),
            &format!("error: {file}:2:1: ctx-size: "),
            &format!("error: {file}:3:1: threads: "),
            "error: WOOLLY_HTTP: http: expected IP:PORT",
            "error: WOOLLY_API_KEY: api-key: expected 1 to 512",
            "error: --queue-max: 0 is not in 1..=65536, got \"0\"",
        ] {
            assert!(stderr.lines().any(|line| line.starts_with(said)), "{said}\n{stderr}");
        }
        assert_eq!(stderr.lines().count(), 6, "{stderr}");
        assert!(!stderr.contains("sk a"), "{stderr}");
    }
    std::fs::write(&file, "workers = 2\n").unwrap();
    let (code, stdout, stderr) = run(&["config", "check", "--config", &file]);
    assert_eq!((code, stdout.as_str()), (Some(0), "no mistakes\n"), "{stderr}");
    // What contradicts itself only together.
    let words =
        ["config", "check", "--config", &file, "--local-workers", "3", "--api-key-file", "/none"];
    let (code, _, stderr) = run(&words);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--local-workers 3") && stderr.contains("/none"), "{stderr}");
}

#[test]
fn serve_does_what_the_file_says() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let file = text(&dir.path().join("woolly.toml"));
    let lines = format!(
        "model = {:?}\nstate-dir = {:?}\nworkers = 1\nhttp = 0\nlisten = \"127.0.0.1:0\"\n\
         log-format = \"json\"\n",
        tiny_model(),
        text(&state)
    );
    std::fs::write(&file, lines).unwrap();
    let mut command = command(&["serve"]);
    command.env("WOOLLY_CONFIG", &file);
    let mut serving = Serving::spawn(&state, command);
    assert!(serving.line().starts_with("woolly-worker join "), "{}", serving.log());
    let log = serving.wait_for_log("advertise");
    assert!(log.lines().all(|line| line.starts_with('{')), "not JSON:\n{log}");
    assert_eq!(serving.end().code(), Some(0));
}

#[test]
fn completions_are_what_their_shell_takes() {
    for shell in Shell::value_variants() {
        let name = shell.to_possible_value().unwrap();
        let (code, script, stderr) = run(&["completions", name.get_name()]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(script.contains("ctx-size") && script.contains("weights-from-disk"), "{shell}");
        let dir = tempfile::tempdir().unwrap();
        let file = text(&dir.path().join("script"));
        std::fs::write(&file, script).unwrap();
        // Where the shell is on this machine, it reads the script without running it.
        if let Ok(read) = Command::new(name.get_name()).args(["-n", &file]).output()
            && matches!(shell, Shell::Bash | Shell::Zsh | Shell::Fish)
        {
            assert!(read.status.success(), "{shell}: {}", String::from_utf8_lossy(&read.stderr));
        }
    }
    let (code, _, stderr) = run(&["completions", "cmd.exe"]);
    assert!(code == Some(2) && stderr.contains("bash"), "{stderr}");
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    for words in [&[][..], &["serve"], &["token", "create"], &["config", "print"]] {
        let (code, page, stderr) = run(&[&["man"], words].concat());
        assert_eq!(code, Some(0), "{stderr}");
        let title =
            ["woolly-coordinator"].iter().chain(words).copied().collect::<Vec<_>>().join("-");
        assert!(page.contains(&format!(".TH {title} 1")), "{}", &page[..page.len().min(300)]);
        assert!(page.contains(".SH NAME") && page.contains(".SH OPTIONS"), "{title}");
    }
    let (code, stdout, stderr) = run(&["man", "sreve"]);
    assert!(code == Some(2) && stdout.is_empty() && stderr.contains("serve"), "{stderr}");
}
