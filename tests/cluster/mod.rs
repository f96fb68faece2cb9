//! Clusters of real processes over real QUIC: what a user sees, and what happens when things break.

mod accuracy;
mod answers;
mod bad_models;
mod downloads;
mod equality;
mod faults;
mod guided;
mod joining;
mod journal;
mod load;
mod members;
mod memory;
mod model_file;
mod models_at_run_time;
mod operating;
mod probes;
mod service;
mod sharing;
mod start;
mod strangers;
mod wild_files;
mod windows;

use serde_json::{Value, json};
use woolly_tests::cluster::Cluster;

/// A chat request for the only model of a cluster.
fn chat(cluster: &Cluster, question: &str, max_tokens: u32) -> Value {
    json!({
        "model": model_id(cluster),
        "messages": [{ "role": "user", "content": question }],
        "max_tokens": max_tokens,
        "temperature": 0,
    })
}

/// The id of the only model of a cluster.
fn model_id(cluster: &Cluster) -> String {
    cluster.get("/v1/models")["data"][0]["id"].as_str().expect("a model is listed").to_owned()
}

/// The log-probabilities of a text, as `/v1/completions` prints them.
fn score(cluster: &Cluster, tokens: &[u32]) -> Value {
    let body = json!({
        "model": model_id(cluster),
        "prompt": tokens,
        "max_tokens": 0,
        "echo": true,
        "logprobs": 2,
    });
    let answer = cluster.post("/v1/completions", &body);
    assert_eq!(answer["usage"]["prompt_tokens"], tokens.len());
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    answer["choices"][0]["logprobs"].clone()
}
