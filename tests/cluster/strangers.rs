//! What strangers may see and do: no secret stands in a log, and no failure of others shuts anyone out.

use std::io::{Read, Write};
use std::net::TcpStream;
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::fixtures;
use woolly_tests::process::Process;

/// An API key that stands nowhere else.
const KEY: &str = "sk-never-to-be-logged-4711";

/// A cluster that logs all that it can, with an API key.
fn talkative(format: &str) -> Setup {
    let flags = ["--log-format", format, "--api-key", KEY];
    Setup::new(fixtures::granite_tiny()).coordinator_flags(&flags).log_filter("trace")
}

/// Asks once with the right key and once with another.
fn ask_with_key(cluster: &Cluster) {
    for (key, expected) in [(KEY, "200"), ("sk-wrong-never-logged", "401")] {
        let mut stream = TcpStream::connect(cluster.http).expect("the gateway listens");
        let request = format!(
            "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the gateway reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the gateway answers");
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{answer}");
    }
}

/// No log of the cluster holds the secret part of a token, or a key.
fn assert_no_secret(cluster: &Cluster, token: &str) {
    let secret = token.split('.').nth(3).expect("a token has five parts");
    for process in std::iter::once(&cluster.coordinator).chain(&cluster.workers) {
        let log = process.stderr();
        assert!(log.len() > 1000, "it logs: {log}");
        for hidden in [secret, "wly1.", KEY, "sk-wrong-never-logged"] {
            let line = log.lines().find(|line| line.contains(hidden));
            assert!(line.is_none(), "{hidden} is logged: {line:?}");
        }
    }
}

#[test]
fn a19_no_secret_is_logged_by_a_coordinator_and_workers() {
    for format in ["text", "json"] {
        let mut cluster = talkative(format).workers(2).start();
        let token = cluster.join_words()[3].clone();
        ask_with_key(&cluster);
        assert_no_secret(&cluster, &token);
    }
}

#[test]
fn a19_no_secret_is_logged_by_local_workers() {
    for format in ["text", "json"] {
        let setup = talkative(format).coordinator_flags(&["--local-workers", "2"]);
        let mut cluster = setup.start();
        let token = cluster.join_words()[3].clone();
        ask_with_key(&cluster);
        assert_no_secret(&cluster, &token);
    }
}

/// A wrong token that looks right: another cluster's pin is no matter, its checksum fits.
#[test]
fn a14_a_right_token_joins_after_many_failures_from_its_address() {
    let mut cluster = Setup::of_two(fixtures::granite_tiny()).start_coordinator();
    let words = cluster.join_words();
    let state = cluster.folder().join("coordinator").display().to_string();
    let make = ["token", "create", "--state-dir", &state];
    let (code, printed, log) =
        woolly_tests::process::run("woolly-coordinator", &make, cluster.folder());
    assert_eq!(code, Some(0), "{log}");
    let revoked = printed.split_whitespace().find(|word| word.starts_with("wly1.")).unwrap();
    let id = revoked.split('.').nth(2).expect("a token has an id");
    // The store forgets it as if it had never been: its secret is now a guess.
    let file = cluster.folder().join("coordinator").join("tokens");
    let text = std::fs::read_to_string(&file).expect("the tokens are kept");
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains(id)).collect();
    std::fs::write(&file, kept.join("\n") + "\n").expect("the file is ours");
    let mut wrong: Vec<Process> = Vec::new();
    for number in 0..14 {
        let words = ["join", &words[1], "--token", revoked].map(str::to_owned);
        wrong.push(cluster.start_worker(&format!("wrong-{number}"), &words));
    }
    for process in &mut wrong {
        let status = process.wait(std::time::Duration::from_secs(60));
        assert_eq!(status.code(), Some(4), "{}", process.stderr());
    }
    cluster.add_worker();
    cluster.add_worker();
    cluster.wait_ready();
    let log = cluster.coordinator.stderr();
    assert!(log.matches("could not join").count() <= 12, "lines are bounded: {log}");
}
