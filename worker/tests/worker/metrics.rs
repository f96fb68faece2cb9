//! `--metrics` of a real worker process: what it tells before it has joined, while it serves a plan, and afterwards.

use crate::session::{PROMPT, assign_alone, sampled};
use crate::support::{Coordinator, LAYERS, PATIENCE, prompt, score, send};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use woolly_protocol::control::{Release, StreamPurpose};
use woolly_protocol::ids::PlanEpoch;

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn told(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: w\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200 OK\r\n").then_some(answer)
}

/// Asks until all of these lines are told.
fn wait_for(address: SocketAddr, lines: &[&str]) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = told(address).unwrap_or_default();
        let missing = lines.iter().find(|line| !text.lines().any(|found| found == **line));
        let Some(missing) = missing else { return text };
        assert!(Instant::now() < until, "{missing} in\n{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn value(text: &str, series: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_tells_what_it_computes_and_what_travels() {
    let coordinator = Coordinator::start();
    let address = free_address();
    let token = coordinator.token();
    let _process =
        coordinator.worker("w1", &["--token", &token, "--metrics", &address.to_string()]);
    wait_for(address, &["woolly_worker_connected 0", "woolly_worker_forwards_total 0"]);
    let mut worker = coordinator.welcome().await;
    assign_alone(&coordinator, &mut worker, 3).await;
    let stage = format!(
        "woolly_worker_stage_info{{plan=\"3\",stage=\"0\",layer_first=\"0\",layer_end=\"{LAYERS}\"}} 1"
    );
    wait_for(address, &["woolly_worker_connected 1", &stage]);
    let mut forwards = worker.open(3, StreamPurpose::Forwards).await;
    let mut samplings = worker.open(3, StreamPurpose::Samplings).await;
    let mut results = worker.results(3).await;
    let (forward, payload) = prompt(3, 1, &PROMPT);
    send(&mut forwards, &forward, &payload).await;
    send(&mut samplings, &score(3, 1), &[]).await;
    sampled(&mut results).await;
    let text = wait_for(
        address,
        &[
            "woolly_worker_forwards_total 1",
            "woolly_worker_rows_total 5",
            "woolly_worker_stage_kv_blocks{plan=\"3\"} 4",
            "woolly_worker_stage_forwards_in_flight{plan=\"3\"} 0",
            "woolly_worker_plans_failed_total 0",
        ],
    );
    assert!(value(&text, "woolly_worker_compute_seconds_total") > 0.0);
    assert!(value(&text, "woolly_worker_stage_weights_bytes{plan=\"3\"}") > 10_000.0);
    for what in ["sent_bytes_total", "received_bytes_total", "round_trip_seconds"] {
        let series = format!("woolly_worker_link_{what}{{peer=\"coordinator\"}}");
        assert!(value(&text, &series) > 0.0, "{series} in\n{text}");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let expires = "woolly_certificate_expires_timestamp_seconds{certificate=\"worker\"}";
    let left = value(&text, expires) - now.as_secs_f64();
    assert!((80.0 * 86_400.0..100.0 * 86_400.0).contains(&left), "{left} s");
    worker.tell(&Release { epoch: PlanEpoch(3) }).await;
    let until = Instant::now() + PATIENCE;
    while told(address).unwrap().contains(&stage) {
        assert!(Instant::now() < until, "the plan is over and still told");
    }
    // What travelled stays when the connection ends.
    let sent = "woolly_worker_link_sent_bytes_total{peer=\"coordinator\"}";
    let before = value(&text, sent);
    worker.connection.close(0u32.into(), b"");
    let text = wait_for(address, &["woolly_worker_connected 0"]);
    assert!(value(&text, sent) >= before);
}

#[test]
fn an_address_that_is_taken_is_said_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let coordinator = Coordinator::start();
        let token = coordinator.token();
        let process = coordinator.worker("w1", &["--metrics", &address, "--token", &token]);
        tokio::task::spawn_blocking(|| process.end()).await.unwrap()
    });
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("cannot listen on {address} for metrics")), "{text}");
    assert!(text.contains("change --metrics"), "{text}");
}
