//! What breaks while requests run: the request is told, the cluster mends, nothing else is lost.

use super::chat;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::fixtures;
use woolly_tests::http::Events;
use woolly_tests::process::wait_until;

/// A stream that has begun and would go on for long.
fn long_stream(cluster: &Cluster) -> Events {
    let mut body = chat(cluster, "Begin.", 6000);
    body["ignore_eos"] = json!(true);
    let mut events = cluster.stream("/v1/chat/completions", &body);
    for _ in 0..4 {
        events.next().expect("tokens come").unwrap();
    }
    events
}

/// The rest of a stream whose pipeline broke: an error event, then the end.
fn assert_broken(events: Events, cluster: &Cluster) {
    let rest: Vec<String> = events.map(|event| event.expect("the stream ends in order")).collect();
    let (done, before) = rest.split_last().expect("something follows");
    assert_eq!(done, "[DONE]");
    let error: Value = serde_json::from_str(before.last().expect("an error event")).unwrap();
    assert_eq!(error["error"]["code"], "pipeline_lost", "{error}\n{}", cluster.logs());
    assert!(error["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
}

/// Breaks a worker in the middle of a stream; then a replacement joins and the answers are the same.
fn lose(index: usize, break_it: impl FnOnce(&mut Cluster)) {
    let mut cluster = Setup::of_two(fixtures::granite_tiny()).start();
    let body = chat(&cluster, "What is a brick?", 12);
    let expected = cluster.post("/v1/chat/completions", &body)["choices"].clone();
    let stream = long_stream(&cluster);
    break_it(&mut cluster);
    assert_broken(stream, &cluster);
    cluster.wait_for_readyz(503);
    let (status, answer) = cluster.try_post("/v1/chat/completions", &body);
    assert_eq!(status, 503, "{answer}");
    drop(cluster.workers.remove(index));
    cluster.add_worker();
    cluster.wait_ready();
    assert_eq!(cluster.post("/v1/chat/completions", &body)["choices"], expected);
    let health = cluster.get("/health");
    assert_eq!(health["requests_running"], 0, "{health}");
}

#[test]
fn a_killed_first_worker_is_replaced() {
    lose(0, |cluster| cluster.workers[0].kill());
}

#[test]
fn a_killed_last_worker_is_replaced() {
    lose(1, |cluster| cluster.workers[1].kill());
}

#[test]
fn a_silent_worker_is_lost() {
    lose(1, |cluster| cluster.workers[1].stop());
}

#[test]
fn a_worker_that_leaves_politely_is_replaced() {
    lose(0, |cluster| cluster.workers[0].interrupt());
}

#[test]
fn a_worker_that_dies_before_it_computes_breaks_the_stream_in_order() {
    let mut cluster = Setup::of_two(fixtures::granite_tiny()).start_coordinator();
    cluster.add_worker();
    cluster.set_worker_variable("WOOLLY_FAILPOINTS", "worker.forward=20:kill");
    cluster.add_worker();
    cluster.wait_ready();
    assert_broken(long_stream(&cluster), &cluster);
    let status = cluster.workers[1].wait(Duration::from_secs(10));
    assert_eq!(status.code(), None, "a signal ended it: {status}");
}

/// The kernel says that a process is gone; its silence is not waited for.
#[test]
fn a_killed_process_is_noticed_at_once() {
    let mut cluster = Setup::of_two(fixtures::granite_tiny()).start();
    // A connection's first second is another matter.
    std::thread::sleep(Duration::from_millis(1500));
    let mut lost = |of: &str, kill: &mut dyn FnMut(&mut Cluster)| {
        let killed = Instant::now();
        kill(&mut cluster);
        let log = |cluster: &Cluster| match of {
            "worker" => cluster.coordinator.stderr(),
            _ => cluster.workers[0].stderr(),
        };
        let said = || log(&cluster).contains("its process is gone").then_some(());
        wait_until(Duration::from_secs(5), said, || cluster.logs());
        println!("a {of} that was killed was noticed after {:?}", killed.elapsed());
    };
    lost("worker", &mut |cluster| cluster.workers[1].kill());
    lost("coordinator", &mut |cluster| cluster.coordinator.kill());
}
