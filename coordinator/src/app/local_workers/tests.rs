//! Local workers, played by shell scripts.

use super::*;
use crate::config::LogFormat;
use crate::shutdown::shutdown;
use crate::trust::state::StateDir;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;
use tempfile::TempDir;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::token::JoinToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a program that does `script` in the child's state directory.
fn rig(script: &str) -> (TempDir, PathBuf, LocalWorkers, Tokens) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path().join("state")).unwrap();
    let ca = ClusterCa::open(&state.pki(), SystemTime::now()).unwrap();
    let tokens = Tokens::open(&state, &ca).unwrap();
    let child = state.local_worker(1);
    fs::create_dir(&child).unwrap();
    let program = dir.path().join("program");
    fs::write(&program, format!("#!/bin/sh\ncd {}\n{script}\n", child.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let config = LocalWorkers {
        count: 1,
        coordinator: "127.0.0.1:7400".to_owned(),
        threads: Some(3),
        memory: Some(1 << 30),
        kv_memory: None,
        huge_pages: Some("force".to_owned()),
        mlock: true,
        weights_from_disk: true,
        idle_timeout: Duration::from_secs(2),
        model_dir: dir.path().to_owned(),
        state_dirs: vec![child],
        announcer: Announcer(LogFormat::Text),
    };
    (dir, program, config, tokens)
}

/// Waits until the child has written a whole line to this file of its state directory.
async fn wait_for(config: &LocalWorkers, file: &str) -> String {
    let path = config.state_dirs[0].join(file);
    let until = Instant::now() + PATIENCE;
    loop {
        match fs::read_to_string(&path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => assert!(Instant::now() < until, "the child wrote no {file}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_child_gets_flags_and_a_token_and_ends_with_its_stdin() {
    let script = "read token; echo \"$*\" > flags; echo $token > token; cat; echo bye > end";
    let (_dir, program, config, tokens) = rig(script);
    let (trigger, stop) = shutdown();
    let running = tokio::spawn(run(program, config.clone(), tokens.clone(), stop));
    let token: JoinToken = wait_for(&config, "token").await.parse().unwrap();
    let stored = tokens.list().unwrap();
    assert_eq!((stored[0].id, stored[0].uses_left), (token.id, Some(1)));
    let flags = wait_for(&config, "flags").await;
    assert!(flags.starts_with("join 127.0.0.1:7400 --child --name local-1 "), "{flags}");
    assert!(flags.contains("--threads 3") && flags.contains("--memory 1073741824"), "{flags}");
    assert!(flags.contains("--huge-pages force") && flags.contains("--mlock"), "{flags}");
    assert!(flags.contains("--weights-from-disk"), "{flags}");
    assert!(!flags.contains("--kv-memory") && !flags.contains("wly1."), "{flags}");
    trigger.ask();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    assert_eq!(wait_for(&config, "end").await, "bye\n");
}

#[tokio::test]
async fn a_child_with_a_certificate_gets_no_token_until_it_fails() {
    let script =
        "read token; echo \"<$token>\" >> tokens; [ -e again ] && cat; echo > again; exit 1";
    let (_dir, program, config, tokens) = rig(script);
    fs::write(config.state_dirs[0].join(WORKER_FILE), b"").unwrap();
    let (trigger, stop) = shutdown();
    let running = tokio::spawn(run(program, config.clone(), tokens.clone(), stop));
    let until = Instant::now() + PATIENCE;
    let mut lines = String::new();
    while lines.lines().count() < 2 {
        assert!(Instant::now() < until, "the child was not started again: {lines}");
        lines = wait_for(&config, "tokens").await;
        sleep(Duration::from_millis(10)).await;
    }
    assert!(lines.starts_with("<>\n<wly1."), "{lines}");
    trigger.ask();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_child_whose_flags_are_wrong_is_not_started_again() {
    let (_dir, program, config, tokens) = rig("echo started >> starts; exit 2");
    let (_trigger, stop) = shutdown();
    let ended = timeout(PATIENCE, run(program, config.clone(), tokens, stop)).await.unwrap();
    assert!(ended.unwrap_err().to_string().contains("exit status: 2"));
    assert_eq!(wait_for(&config, "starts").await, "started\n");
}

#[tokio::test]
async fn a_child_that_does_not_end_is_killed() {
    let (_dir, program, config, tokens) = rig("echo up > up; exec sleep 600");
    let (trigger, stop) = shutdown();
    let running = tokio::spawn(run(program, config.clone(), tokens, stop));
    wait_for(&config, "up").await;
    trigger.ask();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}

#[test]
fn threads_are_split_evenly_and_nobody_gets_none() {
    assert_eq!(split_threads(8, 1), [8]);
    assert_eq!(split_threads(8, 3), [3, 3, 2]);
    assert_eq!(split_threads(2, 3), [1, 1, 1]);
}

#[test]
fn lines_are_whole_and_bounded() {
    let mut seen = Vec::new();
    let mut lines = Lines::default();
    lines.push(b"one\r\ntw", |line| seen.push(line.to_owned()));
    lines.push(b"o\n\n", |line| seen.push(line.to_owned()));
    lines.push(&vec![b'x'; LINE_MAX + 1], |line| seen.push(line.len().to_string()));
    lines.finish(|line| seen.push(line.to_owned()));
    assert_eq!(seen, ["one", "two", "8192", "x"]);
}

#[test]
fn a_missing_program_says_how_to_build_it() {
    let dir = tempfile::tempdir().unwrap();
    let error = find_program_in(Some(dir.path()), None).unwrap_err().to_string();
    assert!(error.contains("cargo build --workspace"), "{error}");
    assert!(error.contains(&dir.path().display().to_string()), "{error}");
}

#[test]
fn the_program_beside_ours_comes_first() {
    let (beside, path) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place = |dir: &Path| {
        let file = dir.join(format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX));
        fs::write(&file, b"").unwrap();
        file
    };
    let in_path = place(path.path());
    let search = || find_program_in(Some(beside.path()), Some(path.path().into())).unwrap();
    assert_eq!(search(), in_path);
    let own = place(beside.path());
    assert_eq!(search(), own);
}
