//! One process of ours under test: its output in files, its whole group ended when it is dropped.

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a command may run that does one thing and ends.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// Lines of a log that a failure shows.
const LOG_LINES_SHOWN: usize = 40;

/// A running process with its log files.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// One of our binaries: beside the test executable, where `cargo test --workspace` builds them.
pub fn binary(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("the test knows its own path");
    // target/<profile>/deps/all-… → target/<profile>
    let folder = here.ancestors().nth(2).expect("tests run in target/<profile>/deps");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace` first (`cargo test --workspace` does)",
        path.display()
    );
    path
}

impl Process {
    /// Starts one of our binaries in a group of its own, with its output and its home in `folder`.
    pub fn start(name: &str, program: &str, arguments: &[String], folder: &Path) -> Process {
        Process::spawn(name, Command::new(binary(program)).args(arguments), &[], folder)
    }

    /// As [`start`](Process::start), with environment variables of ours.
    pub fn start_with(
        name: &str,
        program: &str,
        arguments: &[String],
        variables: &[(&str, &str)],
        folder: &Path,
    ) -> Process {
        Process::spawn(name, Command::new(binary(program)).args(arguments), variables, folder)
    }

    /// A prepared command.
    pub fn start_command(name: &str, command: &mut Command, folder: &Path) -> Process {
        Process::spawn(name, command, &[], folder)
    }

    /// A prepared command with the join token in `WOOLLY_TOKEN`.
    pub fn start_with_token(
        name: &str,
        command: &mut Command,
        token: &str,
        folder: &Path,
    ) -> Process {
        Process::spawn(name, command, &[("WOOLLY_TOKEN", token)], folder)
    }

    fn spawn(
        name: &str,
        command: &mut Command,
        variables: &[(&str, &str)],
        folder: &Path,
    ) -> Process {
        let stdout = folder.join(format!("{name}.stdout"));
        let stderr = folder.join(format!("{name}.stderr"));
        let open = |path: &Path| fs::File::create(path).expect("the test's folder is writable");
        let home = folder.join("home");
        fs::create_dir_all(&home).expect("the test's folder is writable");
        for (key, _) in std::env::vars_os() {
            // A developer's WOOLLY_ variables must not change what is tested.
            if key.to_string_lossy().starts_with("WOOLLY_") {
                command.env_remove(key);
            }
        }
        let child = command
            .envs(variables.iter().copied())
            .env("HOME", &home)
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CACHE_HOME")
            .stdin(Stdio::null())
            .stdout(open(&stdout))
            .stderr(open(&stderr))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Process { name: name.to_owned(), child, stdout, stderr }
    }

    /// The process's id; also that of its group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stdout so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// The end of its logs, for a failure's message.
    pub fn log(&self) -> String {
        let text = self.stderr();
        let lines: Vec<&str> = text.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        format!("--- stderr of {} ---\n{}\n", self.name, shown.join("\n"))
    }

    /// Its exit status if it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            let late = Instant::now() >= until;
            assert!(!late, "{} runs on after {limit:?}\n{}", self.name, self.log());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for text on stderr; gives all of stderr.
    pub fn wait_for_stderr(&mut self, text: &str, limit: Duration) -> String {
        let said = |process: &Process| Some(process.stderr()).filter(|log| log.contains(text));
        self.wait_for(&format!("{text:?} on stderr"), limit, said)
    }

    /// Waits until `condition` gives a value; panics with the log when the process ends before, or
    /// when it takes longer than `limit`.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Process) -> Option<T>,
    ) -> T {
        let until = Instant::now() + limit;
        loop {
            // In this order: what it did just before its end counts.
            let ended = self.status();
            if let Some(value) = condition(self) {
                return value;
            }
            let going = ended.is_none() && Instant::now() < until;
            assert!(going, "waited for {what} ({}, ended: {ended:?})\n{}", self.name, self.log());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Kills the process alone (its children stay), without a chance to clean up.
    pub fn kill(&mut self) {
        // Already dead is as good.
        let _ = kill_process(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }

    /// Presses Ctrl-C: the terminal sends it to the whole group.
    pub fn interrupt(&self) {
        kill_process_group(self.pid(), Signal::INT).expect("the group exists");
    }

    /// Stops the process without ending it: it neither computes nor answers.
    pub fn stop(&self) {
        kill_process(self.pid(), Signal::STOP).expect("the process exists");
    }

    /// Lets a process that was stopped go on.
    pub fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).expect("the process exists");
    }

    /// Tells the process to end, as a supervisor does.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("the process exists");
    }

    /// Whether a process of the group is left.
    pub fn group_is_alive(&self) -> bool {
        test_kill_process_group(self.pid()).is_ok()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Runs one of our binaries to its end: exit code, stdout, stderr.
pub fn run(program: &str, arguments: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let mut process = Process::start("run", program, &arguments, folder);
    let status = process.wait(RUN_LIMIT);
    (status.code(), process.stdout(), process.stderr())
}

/// Waits until `condition` gives a value; panics with `explain`'s text if it does not in time.
pub fn wait_until<T>(
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
    explain: impl FnOnce() -> String,
) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        if Instant::now() >= until {
            panic!("not within {limit:?}: {}", explain());
        }
        thread::sleep(LOOK_EVERY);
    }
}
