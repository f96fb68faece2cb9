//! The command as a process, and a coordinator that waits for workers.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// A small model that is in the repository.
pub fn tiny_model() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models");
    text(&path.join("tiny-qwen3.gguf"))
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_woolly-coordinator"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WOOLLY_") {
            command.env_remove(name);
        }
    }
    command.args(words).stdin(Stdio::null());
    command
}

/// Exit code, stdout, stderr.
pub fn run(words: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// A coordinator that waits for a remote worker; killed when dropped.
pub struct Serving {
    pub child: Child,
    pub stdout: BufReader<std::process::ChildStdout>,
    state: PathBuf,
}

impl Serving {
    /// On a free port for HTTP.
    pub fn start(state: &Path, flags: &[&str]) -> Serving {
        Serving::start_at(state, &[&["--http", "127.0.0.1:0"], flags].concat())
    }

    pub fn start_at(state: &Path, flags: &[&str]) -> Serving {
        let (model, state_dir) = (tiny_model(), text(state));
        let words = ["serve", "-m", &model, "--state-dir", &state_dir, "--workers", "1"];
        Serving::spawn(state, command(&[&words[..], flags].concat()))
    }

    /// A command that logs beside `state`.
    pub fn spawn(state: &Path, mut command: Command) -> Serving {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(state.with_extension("log")).unwrap())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Serving { child, stdout, state: state.to_owned() }
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// The next line of stdout.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.state.with_extension("log")).unwrap()
    }

    pub fn wait_for_log(&self, text: &str) -> String {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.log().contains(text) {
            assert!(Instant::now() < until, "no {text:?} in\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.log()
    }

    pub fn end(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it did not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nothing listens on just now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
