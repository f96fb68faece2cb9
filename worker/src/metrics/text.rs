//! The text of all that a worker tells, in the exposition format of Prometheus, version 0.0.4. `docs/metrics.md` says what each line means.

use crate::counters::Counters;
use crate::peers::dial::Dialer;
use crate::peers::traffic::{PeerTraffic, Traffic};
use crate::stage::held::{Held, HeldStage};
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use woolly_protocol::ids::PlanEpoch;

/// What this worker is, once and for all.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Its name.
    pub name: String,
    /// The instructions that it computes with.
    pub isa: String,
    /// Compute threads.
    pub threads: u32,
    /// Bytes that it may use in all.
    pub memory: u64,
}

/// All that is told.
#[derive(Debug, Default)]
pub struct Exposed {
    /// What this worker is.
    pub own: Own,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// The connections.
    pub traffic: Arc<Traffic>,
    /// The stages.
    pub held: Arc<Held>,
    /// Who has its certificate, as soon as it has one.
    pub dialer: OnceLock<Arc<Dialer>>,
}

impl Exposed {
    /// Everything at this moment.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.render_own(&mut out);
        self.render_counters(&mut out);
        render_stages(&mut out, &self.held.stages());
        render_peers(&mut out, &self.traffic.peers());
        out
    }

    fn render_own(&self, out: &mut String) {
        let Own { name, isa, threads, memory } = &self.own;
        let version = env!("CARGO_PKG_VERSION");
        let labels = format!("version=\"{version}\"");
        one(out, "woolly_build_info", "gauge", "The version of the worker", &labels, 1);
        // Names have no character that would have to be escaped.
        let labels = format!("worker=\"{name}\",isa=\"{isa}\",threads=\"{threads}\"");
        let info = "woolly_worker_process_info";
        one(out, info, "gauge", "What this worker is", &labels, 1);
        let (limit, help) = ("woolly_worker_memory_limit_bytes", "Bytes that it may use");
        one(out, limit, "gauge", help, "", memory);
        let expires = "woolly_certificate_expires_timestamp_seconds";
        describe(out, expires, "gauge", "Until when a certificate is valid");
        if let Some(dialer) = self.dialer.get() {
            let until = dialer.identity().validity().until;
            line(out, expires, "certificate=\"worker\"", until);
        }
    }

    fn render_counters(&self, out: &mut String) {
        let counters = &self.counters;
        let (done, total) = counters.load();
        for (name, help, value) in [
            (
                "connected",
                "1 while the coordinator has welcomed it",
                counters.connected.load(Relaxed),
            ),
            ("load_done_bytes", "Bytes of the load in work that are done", done),
            ("load_total_bytes", "Bytes of the load in work; 0 if there is none", total),
        ] {
            one(out, &format!("woolly_worker_{name}"), "gauge", help, "", value);
        }
        for (name, help, value) in [
            ("forwards", "Forwards computed", &counters.forwards),
            ("rows", "Rows computed", &counters.rows),
            ("plans_failed", "Plans that ended with a fault of this worker", &counters.failed),
            ("damaged_chunks", "Stored chunks that were not as before", &counters.damaged_chunks),
        ] {
            let name = format!("woolly_worker_{name}_total");
            one(out, &name, "counter", help, "", value.load(Relaxed));
        }
        for (name, help, value) in [
            ("compute", "Time inside forwards", &counters.compute_us),
            ("cpu", "CPU time of the compute thread inside forwards", &counters.cpu_us),
            ("wait", "Time in which the compute thread waited", &counters.wait_us),
        ] {
            let name = format!("woolly_worker_{name}_seconds_total");
            one(out, &name, "counter", help, "", seconds(value.load(Relaxed)));
        }
    }
}

fn render_stages(out: &mut String, stages: &[(PlanEpoch, HeldStage)]) {
    let name = "woolly_worker_stage_info";
    describe(out, name, "gauge", "The stages that plans are served with");
    for (plan, HeldStage { stage, layers: (first, end), .. }) in stages {
        let labels = format!(
            "plan=\"{plan}\",stage=\"{stage}\",layer_first=\"{first}\",layer_end=\"{end}\""
        );
        line(out, name, &labels, 1);
    }
    type Of = fn(&HeldStage) -> u64;
    let gauges: [(&str, &str, Of); 4] = [
        ("weights_bytes", "Bytes of the model that are mapped", |stage| stage.weights_bytes),
        ("kv_bytes", "Bytes of the KV cache", |stage| stage.kv_bytes),
        ("kv_blocks", "Blocks of the KV cache", |stage| stage.kv_blocks),
        ("forwards_in_flight", "Forwards that came and are not sent on", |stage| {
            stage.in_flight() as u64
        }),
    ];
    for (what, help, of) in gauges {
        let name = format!("woolly_worker_stage_{what}");
        describe(out, &name, "gauge", help);
        for (plan, stage) in stages {
            line(out, &name, &format!("plan=\"{plan}\""), of(stage));
        }
    }
}

/// Appends what is known of peers.
pub fn render_peers(out: &mut String, peers: &[PeerTraffic]) {
    type Of = fn(&PeerTraffic) -> u64;
    let counters: [(&str, &str, &str, Of); 4] = [
        ("sent_bytes_total", "counter", "Bytes sent", |peer| peer.travelled.sent),
        ("received_bytes_total", "counter", "Bytes received", |peer| peer.travelled.received),
        ("lost_packets_total", "counter", "Packets that did not arrive", |peer| {
            peer.travelled.lost
        }),
        ("connections", "gauge", "Connections that are open", |peer| peer.connections as u64),
    ];
    for (what, kind, help, of) in counters {
        let name = format!("woolly_worker_link_{what}");
        describe(out, &name, kind, help);
        for peer in peers {
            line(out, &name, &format!("peer=\"{}\"", peer.peer), of(peer));
        }
    }
    let name = "woolly_worker_link_round_trip_seconds";
    describe(out, name, "gauge", "The round trip of the newest connection");
    for PeerTraffic { peer, round_trip, .. } in peers {
        let Some(round_trip) = round_trip else { continue };
        let us = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        line(out, name, &format!("peer=\"{peer}\""), seconds(us));
    }
}

/// A metric of one series.
fn one(out: &mut String, name: &str, kind: &str, help: &str, labels: &str, value: impl Display) {
    describe(out, name, kind, help);
    line(out, name, labels, value);
}

fn describe(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{name}{braces} {value}");
}

fn seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    #[test]
    fn what_is_held_and_counted_is_told_while_it_is() {
        let own = Own { name: "w".to_owned(), isa: "avx2".to_owned(), threads: 3, memory: 9 };
        let exposed = Exposed { own, ..Exposed::default() };
        exposed.counters.compute_us.fetch_add(1_500_000, Relaxed);
        exposed.counters.rows.fetch_add(7, Relaxed);
        let places = Arc::new(Semaphore::new(3));
        let _taken = Arc::clone(&places).try_acquire_owned().unwrap();
        let stage = HeldStage {
            stage: 1,
            layers: (4, 8),
            weights_bytes: 10,
            kv_bytes: 20,
            kv_blocks: 30,
            places: (places, 3),
        };
        let holding = exposed.held.begin(PlanEpoch(5), stage);
        let text = exposed.render();
        for expected in [
            "woolly_worker_process_info{worker=\"w\",isa=\"avx2\",threads=\"3\"} 1",
            "woolly_worker_compute_seconds_total 1.5",
            "woolly_worker_rows_total 7",
            "woolly_worker_stage_info{plan=\"5\",stage=\"1\",layer_first=\"4\",layer_end=\"8\"} 1",
            "woolly_worker_stage_kv_blocks{plan=\"5\"} 30",
            "woolly_worker_stage_forwards_in_flight{plan=\"5\"} 1",
        ] {
            assert!(text.lines().any(|found| found == expected), "{expected} in\n{text}");
        }
        drop(holding);
        assert!(!exposed.render().contains("plan=\"5\""));
    }
}
