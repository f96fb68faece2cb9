//! What the cluster is at this moment, for Prometheus: who is here and how, what each machine has left, which models are served, who went.
//!
//! All but the departures is of a [`Snapshot`], which the driver puts together when it is asked: nothing here is kept, so nothing grows.

use super::Metrics;
use super::histogram::{describe, escaped, line, seconds};
use crate::snapshot::{Snapshot, WorkerSnapshot, WorkerState};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How a worker went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Nobody had asked for it.
    Lost,
    /// It had said that it leaves.
    Left,
    /// Its certificate was taken back, or its name banned.
    Removed,
}

impl Departure {
    /// All of them, in the order of their numbers.
    pub const ALL: [Departure; 3] = [Departure::Lost, Departure::Left, Departure::Removed];

    fn label(self) -> &'static str {
        match self {
            Departure::Lost => "lost",
            Departure::Left => "left",
            Departure::Removed => "removed",
        }
    }
}

/// What a worker can be at one moment, with its label.
const STATES: [(WorkerState, &str); 7] = [
    (WorkerState::Lost, "lost"),
    (WorkerState::Leaving, "leaving"),
    (WorkerState::Unreachable, "unreachable"),
    (WorkerState::Serving, "serving"),
    (WorkerState::Loading, "loading"),
    (WorkerState::BackingOff, "backing_off"),
    (WorkerState::Spare, "spare"),
];

/// What a model can be at one moment, as `/admin/v1/models` says it.
const MODEL_STATES: [&str; 4] = ["loading", "ready", "waiting", "unloading"];

impl Metrics {
    /// A worker is gone.
    pub fn gone(&self, how: Departure) {
        self.departures[how as usize].fetch_add(1, Relaxed);
    }

    /// Until when a certificate is valid, in seconds since 1970. There are few: each is named in the program.
    pub fn certificate(&self, name: &'static str, until: i64) {
        let mut certificates = self.certificates.lock().expect("no one panics with the lock held");
        certificates.insert(name, until);
    }

    pub(super) fn render_cluster(&self, out: &mut String) {
        let (name, version) = ("woolly_build_info", env!("CARGO_PKG_VERSION"));
        describe(out, name, "gauge", "The version of the coordinator");
        line(out, format_args!("{name}{{version=\"{version}\"}} 1"));
        let name = "woolly_workers_gone_total";
        describe(out, name, "counter", "Workers that went, by how");
        for how in Departure::ALL {
            let (label, count) = (how.label(), self.departures[how as usize].load(Relaxed));
            line(out, format_args!("{name}{{how=\"{label}\"}} {count}"));
        }
        let name = "woolly_certificate_expires_timestamp_seconds";
        describe(out, name, "gauge", "Until when a certificate is valid");
        let certificates = self.certificates.lock().expect("no one panics with the lock held");
        for (certificate, until) in certificates.iter() {
            line(out, format_args!("{name}{{certificate=\"{certificate}\"}} {until}"));
        }
    }
}

/// Appends what a snapshot says.
pub fn render_snapshot(out: &mut String, snapshot: &Snapshot) {
    let name = "woolly_workers";
    describe(out, name, "gauge", "Workers by what they do");
    for (state, label) in STATES {
        let count = snapshot.workers.iter().filter(|worker| worker.state == state).count();
        line(out, format_args!("{name}{{state=\"{label}\"}} {count}"));
    }
    render_workers(out, &snapshot.workers);
    let name = "woolly_model_state";
    describe(out, name, "gauge", "1 for the state that a model is in, 0 for the others");
    for model in &snapshot.models {
        let named = escaped(&model.model);
        for state in MODEL_STATES {
            let value = u8::from(model.state == state);
            line(out, format_args!("{name}{{model=\"{named}\",state=\"{state}\"}} {value}"));
        }
    }
}

/// What is known of each worker that is here.
fn render_workers(out: &mut String, workers: &[WorkerSnapshot]) {
    type Of = fn(&WorkerSnapshot) -> Option<String>;
    let gauges: [(&str, &str, Of); 4] = [
        ("memory_bytes", "Bytes that a worker may use", |worker| {
            Some(worker.memory.as_ref()?.allowance.to_string())
        }),
        ("memory_free_bytes", "Those that no plan takes", |worker| {
            Some(worker.memory.as_ref()?.free.to_string())
        }),
        ("heartbeat_age_seconds", "Since its last heartbeat", |worker| {
            Some(seconds(Duration::from_millis(worker.heard.as_ref()?.heartbeat_ms_ago)))
        }),
        ("round_trip_seconds", "From the coordinator to a worker and back", |worker| {
            Some(seconds(Duration::from_micros(worker.heard.as_ref()?.rtt_us?)))
        }),
    ];
    for (what, help, of) in gauges {
        let name = format!("woolly_worker_{what}");
        describe(out, &name, "gauge", help);
        for worker in workers {
            let Some(value) = of(worker) else { continue };
            let named = escaped(&worker.worker);
            line(out, format_args!("{name}{{worker=\"{named}\"}} {value}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{HeardSnapshot, MemorySnapshot, ModelSnapshot};

    fn worker(name: &str, state: WorkerState) -> WorkerSnapshot {
        WorkerSnapshot::named(name, name.to_owned(), state)
    }

    #[test]
    fn workers_are_counted_by_state_and_what_is_not_known_is_left_out() {
        let memory = MemorySnapshot {
            allowance: 10,
            free: 4,
            is_own: true,
            kv_memory: None,
            models: vec![],
        };
        let heard = HeardSnapshot {
            joined_ms_ago: 9,
            heartbeat_ms_ago: 250,
            hears_ms_ago: 1,
            rtt_us: None,
        };
        let here = WorkerSnapshot {
            memory: Some(memory),
            heard: Some(heard),
            ..worker("a\"", WorkerState::Serving)
        };
        let model = ModelSnapshot {
            model: "m".to_owned(),
            state: "waiting".to_owned(),
            ..ModelSnapshot::default()
        };
        let snapshot = Snapshot {
            workers: vec![here, worker("b", WorkerState::Lost), worker("c", WorkerState::Lost)],
            models: vec![model],
            ..Snapshot::default()
        };
        let mut text = String::new();
        render_snapshot(&mut text, &snapshot);
        for line in [
            "woolly_workers{state=\"serving\"} 1",
            "woolly_workers{state=\"lost\"} 2",
            "woolly_workers{state=\"backing_off\"} 0",
            "woolly_worker_memory_bytes{worker=\"a\\\"\"} 10",
            "woolly_worker_memory_free_bytes{worker=\"a\\\"\"} 4",
            "woolly_worker_heartbeat_age_seconds{worker=\"a\\\"\"} 0.25",
            "woolly_model_state{model=\"m\",state=\"waiting\"} 1",
            "woolly_model_state{model=\"m\",state=\"ready\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("round_trip_seconds{"), "{text}");
        assert!(!text.contains("worker=\"b\""), "{text}");
    }

    #[test]
    fn departures_and_certificates_are_told() {
        let metrics = Metrics::default();
        for (number, how) in Departure::ALL.into_iter().enumerate() {
            assert_eq!(how as usize, number);
        }
        metrics.gone(Departure::Left);
        metrics.gone(Departure::Left);
        metrics.certificate("ca", 100);
        metrics.certificate("ca", 200);
        let text = metrics.render();
        assert!(text.contains("woolly_workers_gone_total{how=\"left\"} 2\n"), "{text}");
        assert!(text.contains("woolly_workers_gone_total{how=\"lost\"} 0\n"), "{text}");
        let until = "woolly_certificate_expires_timestamp_seconds{certificate=\"ca\"} ";
        assert!(text.contains(&format!("{until}200\n")) && !text.contains(&format!("{until}100")));
    }
}
