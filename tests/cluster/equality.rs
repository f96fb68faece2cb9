//! The same request gives the same tokens and the same printed log-probabilities on every cluster.

use super::{chat, score};
use serde_json::{Value, json};
use std::path::Path;
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::{fixtures, golden};

/// Everything that is compared, printed with every digit.
fn prints(cluster: &Cluster, model: &str) -> Value {
    let texts = &golden::by_model(false)[model];
    let scores: Vec<Value> = texts.iter().map(|text| score(cluster, &text.tokens)).collect();
    let mut greedy = chat(cluster, "Name three uses for a brick.", 24);
    greedy["logprobs"] = json!(true);
    greedy["top_logprobs"] = json!(3);
    let mut drawn = greedy.clone();
    drawn["temperature"] = json!(0.9);
    drawn["top_p"] = json!(0.95);
    drawn["repetition_penalty"] = json!(1.1);
    drawn["seed"] = json!(20);
    let answer = |body: &Value| cluster.post("/v1/chat/completions", body)["choices"].clone();
    json!({ "scores": scores, "greedy": answer(&greedy), "drawn": answer(&drawn) })
}

/// One coordinator with its own worker, then remote ones: one value.
fn compare(model: &str, path: &Path, layers: &[&[u32]]) {
    let expected = prints(&Setup::new(path).start(), model);
    let same = |what: &str, setup: Setup| {
        let cluster = setup.start();
        let found = prints(&cluster, model);
        for part in ["scores", "greedy", "drawn"] {
            assert_eq!(found[part], expected[part], "{model}, {what}: {part}\n{}", cluster.logs());
        }
    };
    same("two workers that map the file", Setup::of_two(path));
    for layers in layers {
        let setup = Setup::new(path).workers(layers.len()).cut(layers);
        same(&format!("cut {layers:?}"), setup);
    }
    let fetched = Setup::of_two(path).worker_flags(&["--no-local-files"]);
    same("two workers that fetched their slices", fetched);
    let threads = ["--local-workers", "1", "--threads", "2"];
    same("one worker with two threads", Setup::new(path).coordinator_flags(&threads));
}

#[test]
fn granite_tiny_is_the_same_on_every_cluster() {
    compare("granite-tiny", fixtures::granite_tiny(), &[&[1, 7], &[3, 2, 3], &[6, 2]]);
}

#[test]
fn smollm2_is_the_same_on_every_cluster() {
    compare("smollm2-135m", fixtures::smollm2(), &[&[29, 1], &[10, 12, 8], &[17, 13]]);
}

#[test]
fn dense_models_with_layers_of_several_kinds_are_the_same_on_every_cluster() {
    compare("tiny-gemma3", &fixtures::committed("tiny-gemma3"), &[&[2, 5]]);
    compare("tiny-phi3", &fixtures::committed("tiny-phi3"), &[]);
}

#[test]
fn mixtures_are_the_same_on_every_cluster() {
    for model in [
        "tiny-qwen3moe",
        "tiny-qwen2moe",
        "tiny-granitemoe-shared",
        "tiny-mixtral-t",
        "tiny-gpt-oss",
        "tiny-dots1",
        "tiny-ernie4_5-moe",
        "tiny-glm4moe",
        "tiny-minimax-m2",
        "tiny-bailingmoe2",
        "tiny-hunyuan-moe",
    ] {
        compare(model, &fixtures::committed(model), &[]);
    }
}
