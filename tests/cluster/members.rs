//! Workers that are removed and banned in a cluster of real processes.

use super::chat;
use serde_json::{Value, json};
use woolly_tests::cluster::{Cluster, READY_LIMIT, Setup};
use woolly_tests::fixtures;
use woolly_tests::process::{Process, run, wait_until};

/// What the worker exits with when it is refused.
const EXIT_REFUSED: i32 = 4;
/// Tokens of the answer that the removal interrupts.
const TOKENS: u32 = 400;

/// Asks on the socket of the state directory; exit code and what was said.
fn asked(cluster: &Cluster, words: &[&str]) -> (Option<i32>, String, String) {
    let state = cluster.folder().join("coordinator").display().to_string();
    run("woolly-coordinator", &[words, &["--state-dir", &state]].concat(), cluster.folder())
}

fn done(cluster: &Cluster, words: &[&str]) -> String {
    let (code, stdout, stderr) = asked(cluster, words);
    assert_eq!(code, Some(0), "{words:?}: {stderr}\n{}", cluster.logs());
    format!("{stdout}{stderr}")
}

/// Waits until a worker is here.
fn wait_here(cluster: &Cluster, name: &str) {
    let is_here = || {
        let told: Value = serde_json::from_str(&done(cluster, &["workers", "--json"])).unwrap();
        let mut workers = told.as_array().unwrap().iter();
        workers.any(|it| it["worker"] == name && it["state"] != "lost").then_some(())
    };
    wait_until(READY_LIMIT, is_here, || format!("{name} does not come\n{}", cluster.logs()));
}

/// Waits until a worker has ended because it was refused with this.
fn refused(worker: &mut Process, text: &str) {
    let status = worker.wait(READY_LIMIT);
    assert_eq!(status.code(), Some(EXIT_REFUSED), "{}", worker.log());
    assert!(worker.stderr().contains(text), "{}", worker.log());
}

#[test]
fn a_removed_worker_ends_and_a_banned_name_is_refused_while_streams_go_on() {
    let mut cluster = Setup::of_two(fixtures::granite_tiny()).start_with(2);
    let mut body = chat(&cluster, "What is a brick?", TOKENS);
    body["ignore_eos"] = json!(true);
    let mut stream = cluster.stream("/v1/chat/completions", &body);
    for _ in 0..9 {
        stream.next().expect("tokens come").unwrap();
    }
    let said = done(&cluster, &["remove", "worker-2"]);
    assert!(said.contains("Worker worker-2 (") && said.contains("is removed"), "{said}");
    refused(&mut cluster.workers[1], "was removed from the cluster");
    let rest: Vec<String> = stream.map(Result::unwrap).collect();
    assert_eq!(rest.last().map(String::as_str), Some("[DONE]"), "{}", cluster.logs());
    // With its certificate it cannot come back, whatever token it has.
    let words = cluster.join_words();
    refused(&mut cluster.start_worker("worker-2", &words), "was removed from the cluster");
    let (code, _, said) = asked(&cluster, &["remove", "nobody"]);
    assert!(code == Some(1) && said.contains("no worker is known"), "{said}");

    // All machines are this one here, which is the server's own: it is the name that is banned.
    let mut other = cluster.start_worker("worker-3", &words);
    wait_here(&cluster, "worker-3");
    let said = done(&cluster, &["ban", "worker-3"]);
    assert!(said.contains("The name worker-3 is banned, but no machine"), "{said}");
    refused(&mut other, "are banned from this cluster");
    let shown = done(&cluster, &["workers"]);
    assert!(shown.contains("worker-3: banned ") && shown.contains(") was removed "), "{shown}");
    std::fs::rename(cluster.folder().join("worker-3"), cluster.folder().join("kept")).unwrap();
    refused(&mut cluster.start_worker("worker-3", &words), "are banned from this cluster");
    done(&cluster, &["allow", "worker-3"]);
    let _back = cluster.start_worker("worker-3", &words);
    wait_here(&cluster, "worker-3");

    let state = cluster.folder().join("coordinator").join("members");
    let kept: Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    assert_eq!((&kept["removed"][0]["name"], &kept["bans"]), (&json!("worker-2"), &json!([])));
}
