//! What breaks while requests run: a pause, and then the same tokens as if nothing had been.

use super::chat;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::fixtures;
use woolly_tests::http::Events;
use woolly_tests::process::wait_until;

/// Tokens of an answer that a fault interrupts.
const TOKENS: u32 = 120;
/// How long a stream may stand still for a fault here: other tests share the machine.
const STALL_MAX: Duration = Duration::from_secs(20);

/// A chat whose answer has so many tokens, with everything that can be told of them.
fn asked(cluster: &Cluster, seed: u32) -> Value {
    let mut body = chat(cluster, "What is a brick?", TOKENS);
    body["ignore_eos"] = json!(true);
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(2);
    body["stream_options"] = json!({ "include_usage": true });
    if seed > 0 {
        body["temperature"] = json!(0.9);
        body["seed"] = json!(seed);
        body["frequency_penalty"] = json!(0.3);
    }
    body
}

/// A stream that has begun.
fn begun(cluster: &Cluster, seed: u32, events: usize) -> (Events, Vec<Value>) {
    let mut stream = cluster.stream("/v1/chat/completions", &asked(cluster, seed));
    let parsed = |event: Option<std::io::Result<String>>| {
        serde_json::from_str(&event.expect("tokens come").unwrap()).unwrap()
    };
    let begun = (0..events).map(|_| parsed(stream.next())).collect();
    (stream, begun)
}

/// All that a stream says of its answer, and the longest pause in the rest of it.
fn finish((stream, mut events): (Events, Vec<Value>), cluster: &Cluster) -> (Value, Duration) {
    let (mut longest, mut last, mut done) = (Duration::ZERO, Instant::now(), false);
    for event in stream {
        let event = event.unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
        longest = longest.max(last.elapsed());
        last = Instant::now();
        done = event == "[DONE]";
        if !done {
            events.push(serde_json::from_str(&event).unwrap());
        }
    }
    assert!(done, "the stream ends in order: {:?}\n{}", events.last(), cluster.logs());
    (told(&events), longest)
}

/// Text, tokens with their log-probabilities, end and usage of a stream.
fn told(events: &[Value]) -> Value {
    let choices = events.iter().flat_map(|event| event["choices"].as_array().into_iter().flatten());
    let (mut text, mut tokens, mut end) = (String::new(), Vec::new(), Value::Null);
    for choice in choices {
        text += choice["delta"]["content"].as_str().unwrap_or_default();
        tokens.extend(choice["logprobs"]["content"].as_array().into_iter().flatten().cloned());
        if !choice["finish_reason"].is_null() {
            end = choice["finish_reason"].clone();
        }
    }
    let usage = events.iter().map(|event| &event["usage"]).find(|usage| !usage.is_null());
    let error = events.iter().map(|event| &event["error"]).find(|error| !error.is_null());
    json!({
        "text": text, "tokens": tokens, "end": end, "error": error,
        "completion_tokens": usage.map(|usage| &usage["completion_tokens"]),
    })
}

/// Breaks a worker in the middle of streams and of a request that is not streamed; all of them, and one that
/// comes meanwhile, end as if nothing had been.
fn lose(workers: usize, index: usize, break_it: impl FnOnce(&mut Cluster)) -> Cluster {
    lose_of(fixtures::granite_tiny(), workers, index, break_it)
}

/// The same with this model.
fn lose_of(
    model: &Path,
    workers: usize,
    index: usize,
    break_it: impl FnOnce(&mut Cluster),
) -> Cluster {
    let mut cluster = Setup::of_two(model).workers(workers).start_with(2);
    let expected: Vec<Value> =
        (0..3).map(|seed| finish(begun(&cluster, seed, 2), &cluster).0).collect();
    assert_eq!(expected[0]["tokens"].as_array().map(Vec::len), Some(TOKENS as usize));
    let whole = asked(&cluster, 1);
    let answer = cluster.post("/v1/chat/completions", &whole)["choices"].clone();
    let streams: Vec<_> = (0..3).map(|seed| begun(&cluster, seed, 9)).collect();
    break_it(&mut cluster);
    let meanwhile = cluster.post("/v1/chat/completions", &whole);
    for (seed, stream) in streams.into_iter().enumerate() {
        let (found, longest) = finish(stream, &cluster);
        assert_eq!(found, expected[seed], "seed {seed}\n{}", cluster.logs());
        assert!(longest < STALL_MAX, "a pause of {longest:?}\n{}", cluster.logs());
    }
    assert_eq!(meanwhile["choices"], answer);
    cluster.wait_ready();
    let health = cluster.get("/health");
    assert_eq!((&health["requests_running"], &health["requests_waiting"]), (&json!(0), &json!(0)));
    drop(cluster.workers.remove(index));
    cluster
}

/// Slices that a worker mapped and bytes that it read in, since its start.
fn loaded(cluster: &Cluster, worker: &str) -> Vec<String> {
    let of = |line: &&str| {
        let loads = ["slice_mappings", "populated_bytes"];
        let named =
            loads.iter().any(|what| line.starts_with(&format!("woolly_worker_{what}_total{{")));
        named && line.contains(&format!("\"{worker}\""))
    };
    cluster.metrics().lines().filter(of).map(str::to_owned).collect()
}

#[test]
fn a_killed_first_worker_is_replaced_by_a_spare() {
    let mut before = Vec::new();
    let cluster = lose(3, 0, |cluster| {
        // With the next heartbeat all is told that was loaded at the start.
        std::thread::sleep(Duration::from_secs(1));
        before = loaded(cluster, "worker-2");
        cluster.workers[0].kill();
    });
    assert_eq!(before.len(), 2);
    assert_eq!(loaded(&cluster, "worker-2"), before, "it kept its layers, and loaded nothing");
}

#[test]
fn a_killed_last_worker_leaves_its_layers_to_the_other() {
    lose(2, 1, |cluster| cluster.workers[1].kill());
}

#[test]
fn layers_of_every_kind_go_on_too() {
    let mixtures = ["qwen2moe", "granitemoe-shared", "glm4moe", "minimax-m2", "bailingmoe2"];
    for model in mixtures.into_iter().chain(["hunyuan-moe", "gpt-oss", "gemma3", "phi3"]) {
        let model = fixtures::committed(&format!("tiny-{model}"));
        lose_of(&model, 3, 1, |cluster| cluster.workers[1].kill());
    }
}

#[test]
fn a_silent_worker_is_lost_and_may_come_back() {
    let mut cluster = lose(3, 2, |cluster| {
        cluster.workers[1].stop();
        std::thread::sleep(Duration::from_secs(4));
        cluster.workers[1].resume();
    });
    // The zombie joins again, and is the only one left when the other is killed.
    cluster.workers[0].kill();
    let (found, _) = finish(begun(&cluster, 1, 1), &cluster);
    assert_eq!(found["tokens"].as_array().map(Vec::len), Some(TOKENS as usize), "{found}");
}

#[test]
fn a_worker_that_is_told_to_end_hands_its_layers_over() {
    lose(3, 0, |cluster| {
        cluster.workers[0].terminate();
        let status = cluster.workers[0].wait(Duration::from_secs(30));
        assert_eq!(status.code(), Some(0), "{}", cluster.logs());
        let failovers = cluster.metric("woolly_failovers_total");
        assert_eq!(failovers, 0.0, "nothing was lost\n{}", cluster.logs());
    });
}

#[test]
fn a_worker_that_dies_in_the_middle_of_a_forward_costs_a_pause() {
    let mut cluster = Setup::of_two(fixtures::granite_tiny()).start_coordinator();
    cluster.add_worker();
    cluster.set_worker_variable("WOOLLY_FAILPOINTS", "worker.forward=20:kill");
    cluster.add_worker();
    cluster.wait_ready();
    let (found, _) = finish(begun(&cluster, 1, 1), &cluster);
    let status = cluster.workers[1].wait(Duration::from_secs(10));
    assert_eq!(status.code(), None, "a signal ended it: {status}");
    let (again, _) = finish(begun(&cluster, 1, 1), &cluster);
    assert_eq!(found, again, "as without it\n{}", cluster.logs());
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
