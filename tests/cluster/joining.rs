//! Who may join: tokens that are wrong, late or taken back, certificates, other clusters.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::fixtures;
use woolly_tests::process::{Process, binary, run};

/// How long a worker may take to be refused.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);

/// A coordinator that waits for two workers.
fn waiting_coordinator() -> Cluster {
    Setup::of_two(fixtures::granite_tiny()).start_coordinator()
}

/// Another one in the same test.
fn other_coordinator() -> Cluster {
    Setup::of_two(fixtures::granite_tiny()).beside().start_coordinator()
}

/// Runs `woolly-coordinator token …` on a cluster's state directory.
fn token(cluster: &Cluster, arguments: &[&str]) -> String {
    let state = cluster.folder().join("coordinator").display().to_string();
    let mut all = vec!["token"];
    all.extend(arguments);
    all.extend(["--state-dir", &state]);
    let (code, stdout, stderr) = run("woolly-coordinator", &all, cluster.folder());
    assert_eq!(code, Some(0), "{all:?}: {stderr}");
    stdout
}

fn join_with(cluster: &mut Cluster, name: &str, token: &str) -> Process {
    let address = cluster.join_words()[1].clone();
    let words = ["join", &address, "--token", token].map(str::to_owned);
    cluster.start_worker(name, &words)
}

/// A worker that is refused: it ends with an error that has all of these words.
fn assert_refused(mut worker: Process, words: &[&str]) {
    let status = worker.wait(REFUSAL_LIMIT);
    let stderr = worker.stderr().to_lowercase();
    assert!(!status.success(), "it ended well: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not said: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// The files under a folder that hold a private key or a token, with their permissions.
fn secrets(folder: &Path, token: &str) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let data = entry.metadata().expect("the file is there");
        if data.is_dir() {
            found.extend(secrets(&path, token));
        } else if data.is_file() && data.len() < 1 << 16 {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            if text.contains("PRIVATE KEY") || text.contains(token) {
                found.push((path, data.permissions().mode() & 0o777));
            }
        }
    }
    found
}

#[test]
fn a_wrong_token_is_refused() {
    let mut cluster = waiting_coordinator();
    let right = cluster.join_words()[3].clone();
    let garbled = join_with(&mut cluster, "garbled", "wly1.not-a-token");
    assert_refused(garbled, &["token"]);
    // One character of the secret, so that the checksum or the secret itself is wrong.
    let last = right.chars().next_back().expect("a token has characters");
    let other = if last == 'a' { 'b' } else { 'a' };
    let wrong = format!("{}{other}", &right[..right.len() - 1]);
    let worker = join_with(&mut cluster, "wrong", &wrong);
    assert_refused(worker, &["token"]);
}

#[test]
fn an_expired_token_is_refused() {
    let mut cluster = waiting_coordinator();
    cluster.join_words();
    let short = token(&cluster, &["create", "--ttl", "1s", "--quiet"]);
    std::thread::sleep(Duration::from_millis(1100));
    let worker = join_with(&mut cluster, "late", short.trim());
    assert_refused(worker, &["expired", "token create"]);
}

#[test]
fn a_revoked_token_is_refused_at_once() {
    let mut cluster = waiting_coordinator();
    cluster.join_words();
    let line = token(&cluster, &["create", "--ttl", "1h"]);
    let text = line.trim().rsplit(' ').next().expect("a line has words").to_owned();
    let id = text.split('.').nth(2).expect("wly1.PIN.ID.SECRET").to_owned();
    assert!(token(&cluster, &["list"]).contains(&id));
    token(&cluster, &["revoke", &id]);
    let worker = join_with(&mut cluster, "revoked", &text);
    assert_refused(worker, &["revoked", "token create"]);
}

#[test]
fn a_token_with_one_use_joins_one_worker() {
    let mut cluster = waiting_coordinator();
    cluster.join_words();
    let once = token(&cluster, &["create", "--uses", "1", "--quiet"]);
    let first = join_with(&mut cluster, "worker-a", once.trim());
    cluster.workers.push(first);
    cluster.wait_for_health(REFUSAL_LIMIT, "one worker of two", |health| {
        health["detail"].as_str().is_some_and(|detail| detail.contains("1 of 2"))
    });
    let second = join_with(&mut cluster, "worker-b", once.trim());
    assert_refused(second, &["token", "used"]);
}

#[test]
fn a_token_of_another_cluster_is_refused() {
    let mut ours = waiting_coordinator();
    let mut theirs = other_coordinator();
    let foreign = theirs.join_words()[3].clone();
    let worker = join_with(&mut ours, "foreign", &foreign);
    assert_refused(worker, &["cluster"]);
}

#[test]
fn a_certificate_of_another_cluster_is_refused() {
    let mut theirs = waiting_coordinator();
    theirs.add_worker();
    let words = theirs.join_words();
    let state = theirs.folder().join("worker-1");
    theirs.wait_for_health(REFUSAL_LIMIT, "a worker with state", |_| {
        fs::read_dir(&state).is_ok_and(|mut entries| entries.next().is_some())
    });
    // Let it get its certificate, then take it to another cluster without a token.
    theirs.workers[0].wait_for_stderr("joined", REFUSAL_LIMIT);
    theirs.workers.clear();
    let mut ours = other_coordinator();
    let address = ours.join_words()[1].clone();
    assert_ne!(address, words[1]);
    let arguments = ["join", &address, "--state-dir", &state.display().to_string(), "--retry", "2"];
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let worker = Process::start("stranger", "woolly-worker", &arguments, ours.folder());
    assert_refused(worker, &["cluster"]);
}

#[test]
fn no_token_and_no_certificate_says_what_to_do() {
    let mut cluster = waiting_coordinator();
    let address = cluster.join_words()[1].clone();
    let worker = cluster.start_worker("bare", &["join".to_owned(), address]);
    assert_refused(worker, &["no certificate", "token create"]);
}

#[test]
fn the_token_can_come_from_the_environment_or_a_file() {
    let mut cluster = waiting_coordinator();
    let words = cluster.join_words();
    let file = cluster.folder().join("token");
    fs::write(&file, format!("{}\n", words[3])).unwrap();
    let from_file =
        ["join", &words[1], "--token-file", &file.display().to_string()].map(str::to_owned);
    let by_file = cluster.start_worker("by-file", &from_file);
    cluster.workers.push(by_file);
    let state = cluster.folder().join("by-variable");
    let program = binary("woolly-worker");
    let mut command = Command::new(program);
    command.args(["join", &words[1], "--threads", "1", "--state-dir"]).arg(state);
    let folder = cluster.folder().to_owned();
    let by_variable = Process::start_with_token("by-variable", &mut command, &words[3], &folder);
    cluster.workers.push(by_variable);
    cluster.wait_ready();
}

#[test]
fn keys_are_private() {
    let mut cluster = Setup::of_two(fixtures::granite_tiny()).start();
    let token = cluster.join_words()[3].clone();
    for folder in ["coordinator", "worker-1", "worker-2"] {
        let secrets = secrets(&cluster.folder().join(folder), &token);
        assert!(!secrets.is_empty(), "no key in {folder}");
        for (path, mode) in secrets {
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
}
