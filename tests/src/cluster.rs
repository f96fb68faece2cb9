//! A cluster of real processes: one coordinator and its workers, in a folder of its own.

use crate::http;
use crate::process::{Process, wait_until};
use serde_json::Value;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a cluster may take to be ready: two cores may be shared with a build.
pub const READY_LIMIT: Duration = Duration::from_secs(60);
/// Clusters that run at the same time: their processes share two cores.
const CLUSTERS_AT_ONCE: usize = 2;

/// What a cluster is made of. Build it up, then [`start`](Setup::start).
#[derive(Clone, Debug)]
pub struct Setup {
    model: Option<PathBuf>,
    cut: Option<Vec<u32>>,
    workers: usize,
    coordinator_flags: Vec<String>,
    worker_flags: Vec<String>,
    coordinator_variables: Variables,
    worker_variables: Variables,
    beside: bool,
}

/// Environment variables: names and values.
type Variables = Vec<(String, String)>;

fn of_text(variables: &Variables) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (&name[..], &value[..])).collect()
}

/// A running cluster; everything ends when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// `woolly-coordinator serve`.
    pub coordinator: Process,
    /// `woolly-worker join`, in the order of joining.
    pub workers: Vec<Process>,
    /// Where the API is.
    pub http: SocketAddr,
    setup: Setup,
    folder: TempDir,
    started: usize,
    _turn: Option<Turn>,
}

impl Setup {
    /// A coordinator for `model` that awaits no remote worker yet.
    pub fn new(model: &Path) -> Setup {
        Setup { model: Some(model.to_owned()), ..Setup::empty() }
    }

    /// A coordinator that starts without a model.
    pub fn empty() -> Setup {
        Setup {
            model: None,
            cut: None,
            workers: 0,
            coordinator_flags: Vec::new(),
            worker_flags: Vec::new(),
            coordinator_variables: Vec::new(),
            worker_variables: Vec::new(),
            beside: false,
        }
    }

    /// Two workers, the usual case.
    pub fn of_two(model: &Path) -> Setup {
        Setup::new(model).workers(2)
    }

    /// So many worker processes that join with the printed token.
    pub fn workers(mut self, workers: usize) -> Setup {
        self.workers = workers;
        self
    }

    /// Layers per stage.
    pub fn cut(mut self, layers: &[u32]) -> Setup {
        self.cut = Some(layers.to_vec());
        self
    }

    /// More flags for `serve`.
    pub fn coordinator_flags(mut self, flags: &[&str]) -> Setup {
        self.coordinator_flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// More flags for each `join`.
    pub fn worker_flags(mut self, flags: &[&str]) -> Setup {
        self.worker_flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// What all processes log, as `WOOLLY_LOG` says it.
    pub fn log_filter(self, filter: &str) -> Setup {
        self.coordinator_variable("WOOLLY_LOG", filter).worker_variable("WOOLLY_LOG", filter)
    }

    /// An environment variable of the coordinator.
    pub fn coordinator_variable(mut self, name: &str, value: &str) -> Setup {
        self.coordinator_variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// An environment variable of each worker.
    pub fn worker_variable(mut self, name: &str, value: &str) -> Setup {
        self.worker_variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A second cluster of one test: it takes no turn of its own, so that two such tests cannot wait
    /// for each other.
    pub fn beside(mut self) -> Setup {
        self.beside = true;
        self
    }

    /// Starts the processes and waits until the API is ready.
    pub fn start(self) -> Cluster {
        let workers = self.workers;
        let mut cluster = self.start_coordinator();
        for _ in 0..workers {
            cluster.add_worker();
        }
        cluster.wait_ready();
        cluster
    }

    /// Starts more workers than the plan has stages: the first `stages` to join have them, in this order, and the
    /// others are spares.
    pub fn start_with(mut self, stages: usize) -> Cluster {
        let workers = std::mem::replace(&mut self.workers, stages);
        let mut cluster = self.start_coordinator();
        for joined in 1..=workers {
            cluster.add_worker();
            cluster.wait_for_joined(joined);
        }
        cluster.wait_ready();
        cluster
    }

    /// Starts the coordinator alone.
    pub fn start_coordinator(self) -> Cluster {
        let turn = (!self.beside).then(Turn::take);
        let folder = temporary_folder();
        let http = free_address();
        let coordinator = self.serve(http, folder.path());
        let workers = Vec::new();
        Cluster { coordinator, workers, http, setup: self, folder, started: 0, _turn: turn }
    }

    fn serve(&self, http: SocketAddr, folder: &Path) -> Process {
        let arguments = self.serve_arguments(http, folder);
        let variables = of_text(&self.coordinator_variables);
        Process::start_with("coordinator", "woolly-coordinator", &arguments, &variables, folder)
    }

    /// The arguments of `serve`.
    pub fn serve_arguments(&self, http: SocketAddr, folder: &Path) -> Vec<String> {
        let mut arguments = vec!["serve".to_owned()];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        if let Some(model) = &self.model {
            flag("--model", model.display().to_string());
        }
        flag("--http", http.to_string());
        flag("--listen", "127.0.0.1:0".to_owned());
        flag("--state-dir", folder.join("coordinator").display().to_string());
        if self.workers > 0 {
            flag("--workers", self.workers.to_string());
        }
        if let Some(cut) = &self.cut {
            let layers: Vec<String> = cut.iter().map(u32::to_string).collect();
            flag("--cut", layers.join(","));
        }
        arguments.extend(self.coordinator_flags.iter().cloned());
        arguments
    }
}

impl Cluster {
    /// The folder of the cluster: logs, state of every process.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The slices that a worker has stored; none if it uses the model's own files.
    pub fn slices(&self, worker: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder().join(worker).join("slices"));
        let files =
            entries.into_iter().flatten().map(|entry| entry.expect("a folder is read").path());
        files.filter(|path| path.extension().is_some_and(|end| end == "slice")).collect()
    }

    /// The words of the printed join line, without the program: `join`, the address, `--token`, …
    pub fn join_words(&mut self) -> Vec<String> {
        self.coordinator.wait_for("the join line on stdout", READY_LIMIT, |coordinator| {
            let text = coordinator.stdout();
            let line = text.lines().find(|line| line.starts_with("woolly-worker join "))?;
            Some(line.split(' ').skip(1).map(str::to_owned).collect())
        })
    }

    /// Sets an environment variable of the workers that are started from now on: of one among several.
    pub fn set_worker_variable(&mut self, name: &str, value: &str) {
        self.setup.worker_variables.retain(|(set, _)| set != name);
        self.setup.worker_variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts one more worker with the setup's flags, a state directory of its own and the printed
    /// token.
    pub fn add_worker(&mut self) {
        let words = self.join_words();
        self.started += 1;
        let worker = self.start_worker(&format!("worker-{}", self.started), &words);
        self.workers.push(worker);
    }

    /// A worker process with the setup's flags, whose state directory has its name; the caller
    /// keeps it.
    pub fn start_worker(&self, name: &str, words: &[String]) -> Process {
        let state = self.folder.path().join(name).display().to_string();
        let mut arguments = words.to_vec();
        let flags = ["--name", name, "--threads", "1", "--state-dir", &state];
        arguments.extend(flags.map(str::to_owned));
        arguments.extend(self.setup.worker_flags.iter().cloned());
        let variables = of_text(&self.setup.worker_variables);
        Process::start_with(name, "woolly-worker", &arguments, &variables, self.folder.path())
    }

    /// Ends all processes and starts them again on the same state directories; the workers get no
    /// token this time.
    pub fn restart(&mut self) {
        let count = self.workers.len();
        self.workers.clear();
        self.coordinator.interrupt();
        self.coordinator.wait(READY_LIMIT);
        self.start_again(count);
    }

    /// The same, and the coordinator is not asked: it is killed (SIGKILL) while its workers run.
    pub fn restart_killed(&mut self) {
        self.coordinator.kill();
        let count = self.workers.len();
        self.workers.clear();
        self.start_again(count);
    }

    fn start_again(&mut self, count: usize) {
        self.coordinator = self.setup.serve(self.http, self.folder.path());
        // join HOST:PORT, without --token TOKEN
        let words: Vec<String> = self.join_words().into_iter().take(2).collect();
        for number in 1..=count {
            let worker = self.start_worker(&format!("worker-{number}"), &words);
            self.workers.push(worker);
        }
        self.wait_ready();
    }

    /// Waits until `/readyz` says so.
    pub fn wait_ready(&mut self) {
        self.wait_for_readyz(200);
    }

    /// Waits until `/readyz` answers with this status.
    pub fn wait_for_readyz(&mut self, status: u16) {
        let until = Instant::now() + READY_LIMIT;
        while http::get(self.http, "/readyz").map_or(0, |answer| answer.status) != status {
            let ended = self.coordinator.status();
            let going = ended.is_none() && Instant::now() < until;
            assert!(going, "/readyz does not answer {status} ({ended:?})\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `GET path` as JSON, whatever its status.
    pub fn get(&self, path: &str) -> Value {
        let answer = http::get(self.http, path).and_then(http::Answer::json);
        answer.unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.logs()))
    }

    /// `POST path` that is answered with 200 and JSON.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.try_post(path, body);
        assert_eq!(answer.0, 200, "POST {path} {body}: {}\n{}", answer.1, self.logs());
        answer.1
    }

    /// `POST path`: status and JSON.
    pub fn try_post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = http::post(self.http, path, body);
        let answer = answer.and_then(|answer| Ok((answer.status, answer.json()?)));
        answer.unwrap_or_else(|error| panic!("POST {path} {body}: {error}\n{}", self.logs()))
    }

    /// `POST path` with an API key: status and text.
    pub fn post_with_key(&self, path: &str, key: &str, body: &Value) -> (u16, String) {
        let answer = http::post_with_key(self.http, path, key, body);
        let answer = answer.and_then(|answer| Ok((answer.status, answer.text()?)));
        answer.unwrap_or_else(|error| panic!("POST {path} {body}: {error}\n{}", self.logs()))
    }

    /// `POST path` with `stream: true`, answered with 200: its events.
    pub fn stream(&self, path: &str, body: &Value) -> http::Events {
        let mut body = body.clone();
        body["stream"] = true.into();
        let answer = http::post(self.http, path, &body);
        let answer = answer.unwrap_or_else(|error| panic!("POST {path}: {error}\n{}", self.logs()));
        if answer.status != 200 {
            panic!("POST {path} {body}: {:?}\n{}", answer.text(), self.logs());
        }
        let kind = answer.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/event-stream"), "content-type {kind:?}");
        answer.events()
    }

    /// Waits until a value under `/health` is what the caller wants.
    pub fn wait_for_health(&self, limit: Duration, what: &str, wanted: impl Fn(&Value) -> bool) {
        wait_until(
            limit,
            || wanted(&self.get("/health")).then_some(()),
            || format!("{what}: {}\n{}", self.get("/health"), self.logs()),
        );
    }

    /// Waits until so many workers were heard of, those included that have gone since.
    pub fn wait_for_joined(&mut self, workers: usize) {
        let what = format!("{workers} workers that are heard");
        let count = |metrics: &str| {
            let heard = metrics.lines().filter(|line| line.starts_with("woolly_worker_unheard"));
            heard.count()
        };
        wait_until(
            READY_LIMIT,
            || (count(&self.metrics()) >= workers).then_some(()),
            || format!("{what}\n{}", self.logs()),
        );
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let answer = http::get(self.http, "/metrics").and_then(http::Answer::text);
        answer.unwrap_or_else(|error| panic!("GET /metrics: {error}\n{}", self.logs()))
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        let value = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
        value.unwrap_or_else(|| panic!("no metric {name} in\n{text}"))
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let workers: String = self.workers.iter().map(Process::log).collect();
        self.coordinator.log() + &workers
    }
}

/// A folder that is removed when it is dropped.
pub fn temporary_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("woolly-test-").tempdir();
    folder.expect("the system has a folder for temporary files")
}

/// A free TCP port of this machine. Another process could take it before it is used; the kernel
/// hands out ephemeral ports far apart, so that this does not happen in practice.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address")
}

/// One of the few clusters that run at the same time.
#[derive(Debug)]
struct Turn;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

fn running() -> MutexGuard<'static, usize> {
    // A test that failed while it held the lock left a right number behind.
    RUNNING.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Turn {
    fn take() -> Turn {
        let mut count = running();
        while *count >= CLUSTERS_AT_ONCE {
            count = RUNNING.1.wait(count).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *count += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *running() -= 1;
        RUNNING.1.notify_one();
    }
}
