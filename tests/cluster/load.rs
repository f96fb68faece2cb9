//! What a running cluster counts, and `bench` against it.

use super::chat;
use serde_json::{Value, json};
use std::time::Duration;
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::process::{run, wait_until};
use woolly_tests::{fixtures, http};

/// Workers report every 500 ms; two cores may be shared with a build.
const REPORT_LIMIT: Duration = Duration::from_secs(20);

/// The value of a series of `/metrics`; 0 if it is not there.
fn metric(cluster: &Cluster, series: &str) -> f64 {
    let answer = http::get(cluster.http, "/metrics").expect("the gateway answers");
    let text = answer.text().expect("metrics are text");
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a value is a number"))
}

#[test]
fn both_stages_report_their_forwards_and_the_gateway_its_requests() {
    let cluster = Setup::of_two(fixtures::granite_tiny()).start();
    let mut request = chat(&cluster, "Say something.", 8);
    request["ignore_eos"] = json!(true);
    cluster.post("/v1/chat/completions", &request);
    for stage in ["0", "1"] {
        let of =
            |name: &str| metric(&cluster, &format!("woolly_stage_{name}{{stage=\"{stage}\"}}"));
        // The prompt, and a token from each of the others; the last token is fed to nobody.
        let told = || (of("forwards_total") >= 8.0).then_some(());
        wait_until(REPORT_LIMIT, told, || cluster.logs());
        let (compute, cpu) = (of("compute_seconds_total"), of("cpu_seconds_total"));
        assert!(cpu > 0.0 && cpu <= 1.01 * compute, "stage {stage}: {cpu} s CPU of {compute} s");
        let count = of("forward_wait_seconds_count");
        assert_eq!(count, of("forwards_total"), "stage {stage}");
    }
    assert_eq!(metric(&cluster, "woolly_requests_total{outcome=\"answered\"}"), 1.0);
    assert_eq!(metric(&cluster, "woolly_completion_tokens_total"), 8.0);
    assert_eq!(metric(&cluster, "woolly_time_to_first_token_seconds_count"), 1.0);
    assert_eq!(metric(&cluster, "woolly_unknown_timings_total"), 0.0);
}

#[test]
fn bench_measures_a_running_cluster() {
    let cluster = Setup::of_two(fixtures::granite_tiny()).start();
    let url = format!("http://{}", cluster.http);
    let words = ["bench", "--url", &url, "--streams", "1,3", "--prompt-tokens", "20"];
    let words = [&words[..], &["--gen-tokens", "16", "--shared-prefix", "10", "--json"]].concat();
    let (code, stdout, stderr) = run("woolly-coordinator", &words, cluster.folder());
    assert_eq!(code, Some(0), "{stderr}\n{}", cluster.logs());
    let figures: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(figures.len(), 2, "{stdout}");
    for (figure, streams) in figures.iter().zip([1, 3]) {
        assert_eq!(figure["answered"], json!(streams), "{figure}");
        assert_eq!(figure["overall"]["tokens"], json!(16 * streams), "{figure}");
        for rate in ["prefill", "decode", "overall"] {
            let rate = figure[rate]["tok_s"].as_f64().expect("there is such a rate");
            assert!(rate > 0.0, "{figure}");
        }
        assert_eq!(figure["itl_ms"]["count"], json!(15 * streams), "{figure}");
        let stages = figure["stages"].as_array().expect("stages are a list");
        assert_eq!(stages.len(), 2, "{figure}");
        for stage in stages {
            let utilisation = stage["utilisation"].as_f64().expect("a number");
            assert!(utilisation > 0.0 && utilisation <= 1.0, "{figure}");
            assert!(stage["forwards"].as_f64().expect("a number") >= 16.0, "{figure}");
        }
    }
}
