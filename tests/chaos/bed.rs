//! The cluster that faults are done to: every worker behind two relays, one to the coordinator and one
//! from the other workers.

use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use woolly_tests::cluster::{Cluster, Setup};
use woolly_tests::numbers::Numbers;
use woolly_tests::process::{Process, wait_until};
use woolly_tests::relay::fate::Conditions;
use woolly_tests::relay::{BOTH, Relay};
use woolly_tests::{fixtures, http};

/// What every link takes each way. It makes a token last some milliseconds, so that a fault at a token
/// of a stream comes at that token.
const LINK_DELAY: Duration = Duration::from_micros(1500);
/// Ports that workers listen on: below those that Linux gives out by itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// The variable that lists failpoints and planted mistakes.
pub const FAILPOINTS: &str = "WOOLLY_FAILPOINTS";
/// How long a healthy cluster may take until nothing of ended requests is left.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// How long a process may take to be seen by the coordinator.
const SEEN_LIMIT: Duration = Duration::from_secs(30);

/// What a bed is made of.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Stages, each of a worker.
    pub stages: usize,
    /// The seed of all relays.
    pub seed: u64,
    /// More flags of `serve`.
    pub coordinator_flags: Vec<&'static str>,
    /// More flags of each `join`.
    pub worker_flags: Vec<&'static str>,
    /// Variables of the coordinator.
    pub coordinator_variables: Vec<(String, String)>,
    /// Variables of each worker.
    pub worker_variables: Vec<(String, String)>,
}

/// A worker with its links.
#[derive(Debug)]
pub struct Seat {
    /// Its name.
    pub name: String,
    /// The process.
    pub process: Process,
    /// Between it (who dials) and the coordinator.
    pub up: Relay,
    /// From the other workers (who dial) to it.
    pub peer: Relay,
    words: Vec<String>,
}

/// A cluster with its relays.
#[derive(Debug)]
pub struct Bed {
    /// The coordinator; its list of workers is empty.
    pub cluster: Cluster,
    /// The workers.
    pub seats: Vec<Seat>,
    vanished: Vec<Seat>,
    plan: Plan,
    started: u64,
}

impl Bed {
    /// Starts a coordinator and as many workers as there are stages, and waits until it serves.
    pub fn start(plan: Plan) -> Bed {
        let stages = plan.stages.to_string();
        let mut setup = Setup::new(fixtures::granite_tiny())
            .beside()
            .coordinator_flags(&["--workers", &stages])
            .coordinator_flags(&plan.coordinator_flags)
            .worker_flags(&plan.worker_flags);
        for (name, value) in &plan.coordinator_variables {
            setup = setup.coordinator_variable(name, value);
        }
        for (name, value) in &plan.worker_variables {
            setup = setup.worker_variable(name, value);
        }
        let cluster = setup.start_coordinator();
        let mut bed = Bed { cluster, seats: Vec::new(), vanished: Vec::new(), plan, started: 0 };
        bed.fill(bed.plan.stages);
        bed.cluster.wait_ready();
        bed
    }

    /// Starts workers until there are so many, and waits until the coordinator knows them.
    pub fn fill(&mut self, workers: usize) {
        while self.seats.len() < workers {
            self.add();
        }
        let name = |seat: &Seat| seat.name.clone();
        let names: Vec<String> = self.seats.iter().map(name).collect();
        let all_known = || {
            let text = self.metrics();
            let known = |name: &String| {
                text.contains(&format!("woolly_worker_unheard_seconds{{worker=\"{name}\"}}"))
            };
            names.iter().all(known).then_some(())
        };
        wait_until(SEEN_LIMIT, all_known, || {
            format!("{names:?} are not all known\n{}", self.logs())
        });
    }

    /// Starts one more worker.
    pub fn add(&mut self) {
        self.started += 1;
        let name = format!("w{}", self.started);
        let mut words = self.cluster.join_words();
        let coordinator: SocketAddr = words[1].parse().expect("the join line names an address");
        let seed = |link| Numbers::of(&[self.plan.seed, self.started, link]).draw();
        let listen = free_udp();
        let (up, peer) = (Relay::start(coordinator, seed(0)), Relay::start(listen, seed(1)));
        words[1] = up.address().to_string();
        words.extend(["--listen".to_owned(), listen.to_string()]);
        words.extend(["--advertise".to_owned(), peer.address().to_string()]);
        let process = self.cluster.start_worker(&name, &words);
        let seat = Seat { name, process, up, peer, words };
        seat.calm();
        self.seats.push(seat);
    }

    /// Starts one more worker that reaches this failpoint, and waits until the coordinator knows it.
    pub fn add_failing(&mut self, failpoint: &str) -> String {
        self.cluster.set_worker_variable(FAILPOINTS, failpoint);
        self.fill(self.seats.len() + 1);
        self.cluster.set_worker_variable(FAILPOINTS, "");
        self.seats.last().map(|seat| seat.name.clone()).expect("one was added")
    }

    /// Ends a worker without a chance to clean up, and lets its links go: the system says to whoever sends
    /// something that nobody is there.
    pub fn kill(&mut self, name: &str) {
        if let Some(at) = self.seats.iter().position(|seat| seat.name == name) {
            self.seats.remove(at).process.kill();
        }
    }

    /// The same with its whole machine: nothing answers in its place, not even the system.
    pub fn vanish(&mut self, name: &str) {
        if let Some(at) = self.seats.iter().position(|seat| seat.name == name) {
            let mut seat = self.seats.remove(at);
            for relay in [&seat.up, &seat.peer] {
                relay.set(&BOTH, &Conditions { cut: true, ..Conditions::default() });
            }
            seat.process.kill();
            self.vanished.push(seat);
        }
    }

    /// Ends a worker and starts it again on the same state directory and links, with `between` done while
    /// it is down.
    pub fn restart(&mut self, name: &str, between: impl FnOnce(&Path)) {
        let at = self.seats.iter().position(|seat| seat.name == name).expect("it is there");
        self.seats[at].process.kill();
        between(&self.cluster.folder().join(name));
        let process = self.cluster.start_worker(name, &self.seats[at].words);
        self.seats[at].process = process;
    }

    /// The seat of a worker that is there.
    pub fn seat(&self, name: &str) -> &Seat {
        self.seats.iter().find(|seat| seat.name == name).expect("the worker is there")
    }

    /// The same to change it.
    pub fn seat_mut(&mut self, name: &str) -> &mut Seat {
        self.seats.iter_mut().find(|seat| seat.name == name).expect("the worker is there")
    }

    /// The workers of the stages that are served, in their order.
    pub fn stages(&self) -> Vec<String> {
        let health = self.health();
        let stages = health["stages"].as_array().into_iter().flatten();
        stages.filter_map(|stage| Some(stage["worker"].as_str()?.to_owned())).collect()
    }

    /// `/health`, null if there is no answer.
    pub fn health(&self) -> Value {
        let answer = http::get(self.cluster.http, "/health").and_then(http::Answer::json);
        answer.unwrap_or_default()
    }

    /// `/metrics`, empty if there is no answer.
    pub fn metrics(&self) -> String {
        let answer = http::get(self.cluster.http, "/metrics").and_then(http::Answer::text);
        answer.unwrap_or_default()
    }

    /// The value of a series of `/metrics` without labels.
    pub fn figure(&self, name: &str) -> Option<f64> {
        figure(&self.metrics(), name)
    }

    /// Plans that were lost, and the seconds in which their causes had shown no life, since the start.
    pub fn losses(&self) -> (u64, f64) {
        let value = |name: &str| self.figure(name).unwrap_or_default();
        let count = value("woolly_failover_detection_seconds_count") as u64;
        (count, value("woolly_failover_detection_seconds_sum"))
    }

    /// Makes all links as they were at first.
    pub fn calm(&self) {
        self.seats.iter().for_each(Seat::calm);
    }

    /// What is wrong with a cluster that should have nothing to do: requests, blocks that are not free, a
    /// panic in a log, the coordinator's end.
    pub fn check_idle(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(status) = self.cluster.coordinator.status() {
            wrong.push(format!("the coordinator has ended: {status}"));
        }
        let until = Instant::now() + IDLE_LIMIT;
        while let Some(what) = self.left_behind() {
            if Instant::now() >= until {
                wrong.push(what);
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        wrong.extend(self.panics());
        wrong
    }

    /// What ended requests have left behind, as the figures say it.
    fn left_behind(&self) -> Option<String> {
        let (health, metrics) = (self.health(), self.metrics());
        let figure = |name: &str| figure(&metrics, name);
        let (blocks, free) = (figure("woolly_kv_blocks"), figure("woolly_kv_blocks_free"));
        let count = |name: &str| health[name].as_u64();
        let counts = (count("requests_running"), count("requests_waiting"));
        let is_idle = counts == (Some(0), Some(0)) && blocks.is_some() && blocks == free;
        (!is_idle).then(|| {
            let state = &health["detail"];
            format!("running, waiting: {counts:?}; blocks {blocks:?}, free {free:?}; {state}")
        })
    }

    /// Lines of any process's log, ended ones included, that tell of a panic.
    fn panics(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cluster.folder()).into_iter().flatten().flatten();
        let logs = entries.map(|entry| entry.path()).filter(|path| is_log(path));
        let said = logs.flat_map(|path| {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
            let lines: Vec<String> = text
                .lines()
                .filter(|line| line.contains("panicked"))
                .map(|line| format!("{}: {line}", path.display()))
                .collect();
            lines
        });
        said.collect()
    }

    /// Copies the logs of all processes to a folder.
    pub fn keep_logs(&self, folder: &Path) {
        fs::create_dir_all(folder).expect("the build's folder is writable");
        let entries = fs::read_dir(self.cluster.folder()).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| is_log(path)) {
            let to = folder.join(path.file_name().expect("a file has a name"));
            fs::copy(&path, to).expect("a log can be copied");
        }
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let workers: String = self.seats.iter().map(|seat| seat.process.log()).collect();
        self.cluster.coordinator.log() + &workers
    }
}

impl Seat {
    /// Makes its links as they were at first.
    pub fn calm(&self) {
        for relay in [&self.up, &self.peer] {
            relay.set(&BOTH, &Conditions::delayed(LINK_DELAY));
        }
    }
}

/// The value of a series without labels.
fn figure(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "stderr")
}

/// A free UDP port of loopback below those that the system gives out by itself: sockets that are opened
/// before the worker has it cannot take it.
fn free_udp() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two runs at a time begin at different ports.
    let own = (std::process::id() % 64) as u16 * 128;
    let free = (0..PORTS.len() as u16).find_map(|_| {
        let next = own.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + next % PORTS.len() as u16;
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?.local_addr().ok()
    });
    free.expect("loopback has a free port")
}

/// How the calm links are, for faults that add to it.
pub fn calm_conditions() -> Conditions {
    Conditions::delayed(LINK_DELAY)
}
