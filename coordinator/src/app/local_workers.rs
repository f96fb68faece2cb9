//! Workers that `serve` starts on its own machine: children that join like any other worker.
//!
//! A child without a certificate gets a one-use token on stdin, which stays open: a child whose coordinator ends, however
//! that ends, reads the end of its stdin and ends too. A child that ends by itself is reported and
//! started again, with growing pauses; one that keeps ending ends `serve`.

use crate::announce::Announcer;
use crate::config::{search_path, variables_to_hide};
use crate::shutdown::Shutdown;
use crate::trust::tokens::Tokens;
use anyhow::{Context, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use woolly_protocol::identity::WORKER_FILE;

/// The worker's program.
const PROGRAM: &str = "woolly-worker";
/// Times that a child may end within [`STEADY`] of its start, one after another.
const FAILURES_MAX: u32 = 5;
/// A child that ran for so long has started well.
const STEADY: Duration = Duration::from_secs(60);
/// The pause before the first restart; doubles with every failure.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a child may take to end after its stdin has.
const END_TIME: Duration = Duration::from_secs(5);
/// How long the last words of a child that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The lifetime of a child's token: it is used within seconds.
const TOKEN_TTL: Duration = Duration::from_secs(600);
/// Bytes of one line of a child; longer ones are shown in pieces.
const LINE_MAX: usize = 8 << 10;
/// What the worker exits with when its flags are wrong: starting it again would not help.
const EXIT_USAGE: i32 = 2;

/// What local workers are started with.
#[derive(Clone, Debug)]
pub struct LocalWorkers {
    /// How many.
    pub count: u32,
    /// Where they dial the coordinator, `HOST:PORT`.
    pub coordinator: String,
    /// Compute threads of each; `None` splits the machine's.
    pub threads: Option<u32>,
    /// `--memory` of each, bytes.
    pub memory: Option<u64>,
    /// `--kv-memory` of each, bytes.
    pub kv_memory: Option<u64>,
    /// `--huge-pages` of each.
    pub huge_pages: Option<String>,
    /// `--mlock` of each.
    pub mlock: bool,
    /// `--weights-from-disk` of each.
    pub weights_from_disk: bool,
    /// `--idle-timeout` of each, for links to its neighbours.
    pub idle_timeout: Duration,
    /// The folder of the model's file.
    pub model_dir: PathBuf,
    /// The state directories, in order.
    pub state_dirs: Vec<PathBuf>,
    /// Passes their lines on.
    pub announcer: Announcer,
}

/// Finds the worker's program beside our own, then in `PATH`.
///
/// # Errors
///
/// When it is in neither: says how to build it.
pub fn find_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().ok();
    find_program_in(own.as_deref().and_then(Path::parent), search_path())
}

fn find_program_in(beside: Option<&Path>, path: Option<OsString>) -> anyhow::Result<PathBuf> {
    let name = format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX);
    let folders = path.as_deref().map(std::env::split_paths).into_iter().flatten();
    beside
        .map(Path::to_owned)
        .into_iter()
        .chain(folders)
        .map(|dir| dir.join(&name))
        .find(|file| file.is_file())
        .with_context(|| {
            let beside =
                beside.map_or_else(String::new, |dir| format!(" in {} nor", dir.display()));
            format!(
                "cannot find {PROGRAM}, neither{beside} in PATH: `cargo build --workspace` makes \
                 it, and --local-workers 0 does without"
            )
        })
}

/// Compute threads of each local worker: the machine's, split as evenly as they go, at least 1.
fn split_threads(available: u32, count: u32) -> Vec<u32> {
    let (each, rest) = (available / count, available % count);
    (0..count).map(|index| (each + u32::from(index < rest)).max(1)).collect()
}

/// Starts the workers and keeps them running until `stop`; then ends them and waits for it.
///
/// # Errors
///
/// When a worker cannot be started or keeps ending.
pub async fn run(
    program: PathBuf,
    config: LocalWorkers,
    tokens: Tokens,
    stop: Shutdown,
) -> anyhow::Result<()> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let split = split_threads(u32::try_from(available).unwrap_or(u32::MAX), config.count.max(1));
    let mut children = JoinSet::new();
    for (number, (state_dir, threads)) in
        (1..=config.count).zip(config.state_dirs.iter().zip(split))
    {
        let keeper = Keeper {
            number,
            program: program.clone(),
            arguments: arguments(&config, number, state_dir, config.threads.unwrap_or(threads)),
            certificate: state_dir.join(WORKER_FILE),
            tokens: tokens.clone(),
            announcer: config.announcer,
            stop: stop.clone(),
        };
        children.spawn(keeper.keep());
    }
    while let Some(ended) = children.join_next().await {
        ended.context("the task of a local worker failed")??;
    }
    Ok(())
}

fn arguments(config: &LocalWorkers, number: u32, state_dir: &Path, threads: u32) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        vec!["join".into(), (&config.coordinator).into(), "--child".into()];
    let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
    add("--name", format!("local-{number}").into());
    add("--state-dir", state_dir.into());
    add("--model-dir", (&config.model_dir).into());
    add("--threads", threads.to_string().into());
    add("--idle-timeout", format!("{}ms", config.idle_timeout.as_millis()).into());
    if let Some(bytes) = config.memory {
        add("--memory", bytes.to_string().into());
    }
    if let Some(bytes) = config.kv_memory {
        add("--kv-memory", bytes.to_string().into());
    }
    if let Some(how) = &config.huge_pages {
        add("--huge-pages", how.into());
    }
    let given = [("--mlock", config.mlock), ("--weights-from-disk", config.weights_from_disk)];
    arguments.extend(given.iter().filter(|(_, given)| *given).map(|(flag, _)| (*flag).into()));
    arguments
}

/// Keeps one child running.
struct Keeper {
    number: u32,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Where the child keeps its certificate.
    certificate: PathBuf,
    tokens: Tokens,
    announcer: Announcer,
    stop: Shutdown,
}

impl Keeper {
    async fn keep(mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let Some(status) = self.run_once(failures > 0).await? else { return Ok(()) };
            if started.elapsed() >= STEADY {
                failures = 0;
            }
            failures += 1;
            if status.code() == Some(EXIT_USAGE) || failures >= FAILURES_MAX {
                bail!(
                    "local worker {} ended with {status}, {failures} times in a row: its last \
                     lines above say why",
                    self.number
                );
            }
            let pause = PAUSE * 2u32.pow(failures - 1);
            tracing::warn!("local worker {} ended with {status}; starting it again", self.number);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.asked() => return Ok(()),
            }
        }
    }

    /// Runs the child until it ends (its status) or until it was asked to end (`None`).
    async fn run_once(&mut self, failed: bool) -> anyhow::Result<Option<ExitStatus>> {
        if self.stop.is_asked() {
            return Ok(None);
        }
        let (mut child, stdin, stderr) = self.start(failed).await?;
        let mut lines = tokio::spawn(pass_on(stderr, self.number, self.announcer));
        let ended = tokio::select! {
            status = child.wait() => Some(status.context("cannot wait for a local worker")?),
            () = self.stop.asked() => None,
        };
        drop(stdin);
        if ended.is_none() && timeout(END_TIME, child.wait()).await.is_err() {
            tracing::warn!("local worker {} does not end; killing it", self.number);
            child.kill().await.context("cannot kill a local worker")?;
        }
        // A grandchild could hold the pipe open: its words are not waited for.
        let _ = timeout(LAST_WORDS, &mut lines).await;
        lines.abort();
        Ok(ended)
    }

    /// The line that the child reads first: a token, or nothing if it has a certificate, which is
    /// in doubt after a failure.
    async fn token_line(&self, failed: bool) -> anyhow::Result<String> {
        let what = "cannot make a token for a local worker";
        let (tokens, certificate) = (self.tokens.clone(), self.certificate.clone());
        let make = move || {
            if failed || !certificate.exists() {
                tokens.create(TOKEN_TTL, Some(1)).map(|token| format!("{token}\n"))
            } else {
                Ok("\n".to_owned())
            }
        };
        tokio::task::spawn_blocking(make).await.context(what)?.context(what)
    }

    async fn start(&self, failed: bool) -> anyhow::Result<(Child, ChildStdin, ChildStderr)> {
        let token_line = self.token_line(failed).await?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        for name in variables_to_hide() {
            command.env_remove(name);
        }
        // A group of its own: Ctrl-C on the terminal is for the coordinator, which lets running
        // generations finish before it ends its children.
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        // A child that ends before it reads is reported by its status.
        let _ = stdin.write_all(token_line.as_bytes()).await;
        Ok((child, stdin, stderr))
    }
}

/// Passes on what a child says, line by line, until it closes its stderr.
async fn pass_on(mut stderr: ChildStderr, number: u32, announcer: Announcer) {
    let mut lines = Lines::default();
    let mut buffer = [0; 4096];
    loop {
        match stderr.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(len) => lines.push(&buffer[..len], |line| {
                announcer.say(format_args!("local-{number} | {line}"))
            }),
        }
    }
    lines.finish(|line| announcer.say(format_args!("local-{number} | {line}")));
}

/// Cuts a stream of bytes into lines of at most [`LINE_MAX`] bytes.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' || self.partial.len() == LINE_MAX {
                self.finish(&mut line);
            }
            if byte != b'\n' {
                self.partial.push(byte);
            }
        }
    }

    fn finish(&mut self, mut line: impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.partial);
        let text = text.trim_end_matches('\r');
        if !text.is_empty() {
            line(text);
        }
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests;
