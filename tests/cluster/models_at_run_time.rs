//! Models that come and go while a cluster runs: each answers as it would alone, whatever becomes of the others.

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use woolly_tests::cluster::{Cluster, READY_LIMIT, Setup};
use woolly_tests::fixtures;
use woolly_tests::http;
use woolly_tests::process::{run, wait_until};

/// The two models, by their names below the folder.
const ONE: &str = "tiny-qwen3";
const OTHER: &str = "tiny-llama3";
/// Streams on each model while one is unloaded.
const STREAMS: u64 = 4;
/// Requests of each stream at least.
const ROUNDS: u64 = 3;

/// Two workers and no model, but a folder of them.
fn empty(flags: &[&str]) -> Cluster {
    let folder = fixtures::folder().join("models").display().to_string();
    let flags = [&["--workers", "2", "--ctx-size", "256", "--model-dir", &folder], flags].concat();
    let setup = Setup::empty().coordinator_flags(&flags);
    let mut cluster = setup.start_coordinator();
    cluster.add_worker();
    cluster.add_worker();
    cluster.wait_for_joined(2);
    cluster
}

/// Runs a command about models on the cluster's server: exit code and what it said.
fn models(cluster: &Cluster, words: &[&str]) -> (Option<i32>, String) {
    let state = cluster.folder().join("coordinator").display().to_string();
    let all = [&["models"], words, &["--state-dir", &state]].concat();
    let (code, stdout, stderr) = run("woolly-coordinator", &all, cluster.folder());
    (code, stdout + &stderr)
}

/// The same, which must succeed.
fn must(cluster: &Cluster, words: &[&str]) -> String {
    let (code, said) = models(cluster, words);
    assert_eq!(code, Some(0), "{words:?}: {said}\n{}", cluster.logs());
    said
}

fn request(model: &str, seed: u64) -> Value {
    json!({
        "model": model, "prompt": format!("Number {seed} is"), "max_tokens": 40, "temperature": 0.9,
        "seed": seed, "ignore_eos": true, "logprobs": 1,
    })
}

/// Status, and what an answer says of its tokens.
fn ask(server: SocketAddr, model: &str, seed: u64) -> (u16, Value) {
    let answer = http::post(server, "/v1/completions", &request(model, seed)).unwrap();
    let status = answer.status;
    let value = answer.json().unwrap();
    (status, if status == 200 { value["choices"].clone() } else { value["error"].clone() })
}

/// The answers to all seeds, one after another.
fn answers(cluster: &Cluster, model: &str) -> Vec<Value> {
    let answer = |seed| {
        let (status, told) = ask(cluster.http, model, seed);
        assert_eq!(status, 200, "{told}\n{}", cluster.logs());
        told
    };
    (0..STREAMS * ROUNDS).map(answer).collect()
}

#[test]
fn two_models_answer_as_alone_and_one_is_unloaded_under_load() {
    let cluster = empty(&[]);
    assert_eq!(cluster.get("/v1/models")["data"], json!([]));
    assert_eq!(cluster.get("/health")["status"], "empty");
    let (status, error) = ask(cluster.http, ONE, 0);
    assert!(status == 404 && error["message"].as_str().unwrap().contains("models load"), "{error}");

    // Each of them alone.
    assert!(must(&cluster, &["load", ONE]).contains("is ready"));
    let of_one = answers(&cluster, ONE);
    assert!(must(&cluster, &["unload", ONE]).contains("was unloaded"));
    must(&cluster, &["load", OTHER]);
    let of_other = answers(&cluster, OTHER);
    assert_ne!(of_one, of_other);

    // Both, with traffic on both.
    must(&cluster, &["load", ONE]);
    let listed = must(&cluster, &["list"]);
    assert!(listed.contains(&format!("{ONE} ")) && listed.contains("of KV"), "{listed}");
    let (server, is_gone) = (cluster.http, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let stream = |model: &'static str, alone: &'static [Value], first: u64| {
            scope.spawn(move || {
                let (mut right, mut refused) = (0, 0);
                for round in 0.. {
                    let seed = first + STREAMS * (round % ROUNDS);
                    let was_gone = is_gone.load(SeqCst);
                    let (status, told) = ask(server, model, seed);
                    match status {
                        200 => {
                            assert!(model == ONE || !was_gone, "it was unloaded");
                            assert_eq!(told, alone[seed as usize], "{model}, seed {seed}");
                            right += 1;
                        }
                        404 | 503 => {
                            assert_eq!(model, OTHER, "{told}");
                            assert!(status == 404 || told["code"] == "model_unloaded", "{told}");
                            refused += 1;
                        }
                        _ => panic!("{model}: {status} {told}"),
                    }
                    if round >= 2 * ROUNDS && is_gone.load(SeqCst) && (refused > 0 || model == ONE)
                    {
                        break;
                    }
                }
                (right, refused)
            })
        };
        let (of_one, of_other) = (of_one.leak(), of_other.leak());
        let streams: Vec<_> = (0..STREAMS)
            .flat_map(|first| [stream(ONE, of_one, first), stream(OTHER, of_other, first)])
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        must(&cluster, &["unload", OTHER]);
        is_gone.store(true, SeqCst);
        let ended: Vec<_> = streams.into_iter().map(|stream| stream.join().unwrap()).collect();
        let sum = ended.iter().fold((0, 0), |sum, end| (sum.0 + end.0, sum.1 + end.1));
        assert!(sum.0 > 0 && sum.1 > 0, "{ended:?}");
    });
    assert_eq!(cluster.get("/v1/models")["data"].as_array().unwrap().len(), 1);
    wait_until(
        READY_LIMIT,
        || (cluster.metric("woolly_sequences_running") == 0.0).then_some(()),
        || format!("something runs still\n{}", cluster.metrics()),
    );
    // It comes back as it was.
    must(&cluster, &["load", OTHER]);
    let (status, _) = ask(cluster.http, OTHER, 1);
    assert_eq!(status, 200);
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_who_holds_what_and_others_go_on() {
    let mut cluster = empty(&["--load-on-demand"]);
    // A request names it, and waits.
    let (status, told) = ask(cluster.http, ONE, 1);
    assert_eq!(status, 200, "{told}\n{}", cluster.logs());
    let before = answers(&cluster, ONE);
    let path = fixtures::granite_tiny().display().to_string();
    let words = ["load", "--path", &path, "--alias", "large", "--kv-memory", "1"];
    let (code, said) = models(&cluster, &words);
    assert_eq!(code, Some(1), "{said}");
    for word in ["'large' could not be loaded", "misses", &format!("'{ONE}' holds"), "are free"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let (code, said) = models(&cluster, &["load", "../secret"]);
    assert!(code == Some(1) && said.contains("there is no model"), "{said}");
    assert_eq!(answers(&cluster, ONE), before);
    assert_eq!(cluster.get("/v1/models")["data"].as_array().unwrap().len(), 1);
    // The end is in order, and takes its socket along.
    cluster.coordinator.interrupt();
    assert!(cluster.coordinator.wait(READY_LIMIT).success(), "{}", cluster.logs());
    assert!(!cluster.folder().join("coordinator/admin.sock").exists());
}
