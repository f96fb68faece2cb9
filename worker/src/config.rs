//! Flags and environment variables, and what they mean once they are resolved and checked.

mod credentials;
mod measure;
mod metrics;
mod probe;

pub use credentials::{CredentialArgs, TokenSource};
pub use measure::MeasureArgs;
use metrics::MetricsArgs;
pub use probe::{ProbeArgs, ProbeKind};

use crate::bench::config::BenchArgs;
pub use crate::folders::Folders;
use crate::folders::absolute;
use crate::machine::simd::Simd;
use crate::machine::system::{memory_allowance, parse_threads, threads_available};
use crate::units::{parse_duration, parse_size};
use crate::weights::pages::Pages;
use crate::weights::verify::Verify;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;
use woolly_protocol::check::{is_name, name_from};

/// The port that a coordinator listens on for workers unless told otherwise.
const COORDINATOR_PORT: u16 = 7400;
/// Bytes of a token file or token line that are read at most.
pub const TOKEN_BYTES_MAX: u64 = 4096;
/// The shortest idle time-out: two heartbeats of 500 ms must fit.
const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The longest idle time-out; as the coordinator's.
pub const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// The longest wait for others to take the layers of a worker that leaves.
const LEAVE_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Computes one stage of a model for a Woolly cluster.
#[derive(Debug, Parser)]
#[command(name = "woolly-worker", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a cluster and compute the stage that its coordinator gives out
    Join(Box<JoinArgs>),
    /// Measure how fast this machine computes a model, and its limits beside it
    Bench(Box<BenchArgs>),
    /// Measure this machine as join does, as lines for the file of `woolly-coordinator plan --workers`
    Measure(MeasureArgs),
    /// Say whether the worker that runs here lives, or is ready to work: exit status 0 or 1, and one line
    Probe(ProbeArgs),
    /// Show, check or clean the slices of models that are kept on this machine
    Slices(SlicesArgs),
    /// Show or check what join would be set to: flags, variables and the file
    Config(ConfigArgs),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or that of a command, for `man -l -`
    Man {
        /// The words of the command, such as `slices list`
        command: Vec<String>,
    },
}

/// The commands that a file and variables speak to.
pub const CONFIGURED: &[&[&str]] = &[&["join"], &["config", "print"], &["config", "check"]];

/// Flags of `config`, as typed.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every option of join with its value and where that comes from; takes the flags of join
    Print(Box<JoinArgs>),
    /// Say all mistakes, or that there are none; takes the flags of join
    Check(Box<JoinArgs>),
    /// Print the table of all options in Markdown
    Docs,
}

/// Flags of `join`, as typed.
#[derive(Args, Clone, Debug)]
pub struct JoinArgs {
    /// Where the coordinator listens for workers; the port is 7400 if left out
    #[arg(value_name = "HOST:PORT", env = "WOOLLY_COORDINATOR")]
    pub coordinator: String,
    /// A TOML file with options, `kv-memory = "4GiB"` for --kv-memory 4GiB; flags and variables beat it
    #[arg(long, value_name = "FILE", env = "WOOLLY_CONFIG")]
    pub config: Option<PathBuf>,
    /// What it shows to be let in.
    #[command(flatten)]
    pub credentials: CredentialArgs,
    /// Address (UDP) on which the worker of the previous stage reaches this one; port 0 takes a
    /// free one
    #[arg(long, value_name = "ADDR", env = "WOOLLY_LISTEN", default_value = "127.0.0.1:0")]
    pub listen: String,
    /// HOST:PORT that other workers dial to reach this one [default: the listen address; if that is
    /// 0.0.0.0 or `[::]`, the address from which this machine reaches the coordinator]
    #[arg(long, value_name = "ADDR", env = "WOOLLY_ADVERTISE")]
    pub advertise: Option<String>,
    /// Folder that may hold the model's file; the same file is mapped from there and nothing is
    /// fetched [default: none, slices are fetched from the coordinator]
    #[arg(long, value_name = "DIR", env = "WOOLLY_MODEL_DIR")]
    pub model_dir: Option<PathBuf>,
    /// Fetch slices even if this machine has the model's file, for example because it lies on a slow
    /// network drive
    #[arg(long, env = "WOOLLY_NO_LOCAL_FILES", conflicts_with = "model_dir",
          value_parser = clap::builder::BoolishValueParser::new())]
    pub no_local_files: bool,
    /// Folder for this worker's key, certificate and slices [default:
    /// $XDG_STATE_HOME/woolly/worker, slices in $XDG_CACHE_HOME/woolly/slices]
    #[arg(long, value_name = "DIR", env = "WOOLLY_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Compute threads, 1 to 1024 [default: the number of CPUs this process may use]
    #[arg(short = 't', long, value_name = "N", env = "WOOLLY_THREADS",
          value_parser = parse_threads)]
    pub threads: Option<u32>,
    /// Instruction set of the kernels: auto, scalar, avx2, avxvnni, avx512 or neon. The tokens
    /// are the same with all of them
    #[arg(long, value_name = "LEVEL", env = "WOOLLY_SIMD", default_value = "auto",
          value_parser = Simd::parse)]
    pub simd: Simd,
    /// Memory that this worker may use, in bytes or as 512MiB, 4GiB [default: 80 % of the
    /// machine's or the control group's, shared with other workers of this machine]
    #[arg(long, value_name = "BYTES", env = "WOOLLY_MEMORY", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Memory for the KV cache, in bytes or as 512MiB, 4GiB [default: what is left beside the
    /// weights, at most what 16 sequences of full length need]
    #[arg(long, value_name = "BYTES", env = "WOOLLY_KV_MEMORY", value_parser = parse_size)]
    pub kv_memory: Option<u64>,
    /// If the weights of a stage do not fit the memory, read what does not from the disk when it is needed, and
    /// say how slow that is; without it a plan that needs more is refused. Best for mixtures of experts, of
    /// which a token needs few
    #[arg(long, env = "WOOLLY_WEIGHTS_FROM_DISK",
          value_parser = clap::builder::BoolishValueParser::new())]
    pub weights_from_disk: bool,
    /// The pages of the weights.
    #[command(flatten)]
    pub pages: Pages,
    /// When slices are compared again.
    #[command(flatten)]
    pub verify: Verify,
    /// Where figures are told.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Name in logs and plans, letters, digits, `.`, `_` and `-`, at most 64 [default: host name]
    #[arg(long, value_name = "NAME", env = "WOOLLY_NAME", value_parser = parse_name)]
    pub name: Option<String>,
    /// How long a worker of the previous or next stage may be silent before the link to it counts as
    /// broken: 1s to 600s. Between coordinator and worker its own --idle-timeout counts
    #[arg(long, value_name = "TIME", env = "WOOLLY_IDLE_TIMEOUT", default_value = "2s",
          value_parser = parse_idle_timeout)]
    pub idle_timeout: Duration,
    /// How long a worker that is told to end (SIGTERM, Ctrl-C) keeps its layers until others have them: 0s to 1h. A
    /// second signal ends it at once
    #[arg(long, value_name = "TIME", env = "WOOLLY_LEAVE_TIMEOUT", default_value = "25s",
          value_parser = parse_leave_timeout)]
    pub leave_timeout: Duration,
    /// If the coordinator was never reached, give up (exit status 3) after N more attempts
    /// [default: try for ever]
    #[arg(long, value_name = "N", env = "WOOLLY_RETRY")]
    pub retry: Option<u32>,
    /// Run as the child of a coordinator: the token is the first line of stdin (may be empty), and
    /// the worker ends when stdin ends
    #[arg(long, hide = true, alias = "token-stdin", conflicts_with_all = ["token_file", "join_secret_file"])]
    pub child: bool,
}

/// Flags of `slices`, as typed.
#[derive(Args, Debug)]
pub struct SlicesArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub action: SlicesAction,
    /// The worker's state directory, if it was started with one [default: the slices in
    /// $XDG_CACHE_HOME/woolly/slices]
    #[arg(long, value_name = "DIR", env = "WOOLLY_STATE_DIR", global = true)]
    pub state_dir: Option<PathBuf>,
}

/// What to do with the slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum SlicesAction {
    /// List every slice with its size and state
    List,
    /// Read every slice and compare it with its hashes; exit status 1 if one is damaged
    Verify,
    /// Remove what no running worker uses: slices, unfinished downloads, manifests
    Prune,
}

/// Everything that `join` needs, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The coordinator's host, a name or an address. Resolved at every attempt to reach it.
    pub host: String,
    /// The coordinator's port.
    pub port: u16,
    /// Where the join token comes from.
    pub token: TokenSource,
    /// Where the previous stage reaches this worker.
    pub listen: SocketAddr,
    /// What others are told to dial; `None` to work it out.
    pub advertise: Option<SocketAddr>,
    /// A folder that may hold the model's files.
    pub model_dir: Option<PathBuf>,
    /// Fetch slices all the same.
    pub no_local_files: bool,
    /// Key, certificate, remembered fingerprints.
    pub state_dir: PathBuf,
    /// The slice store.
    pub slices_dir: PathBuf,
    /// Compute threads.
    pub threads: u32,
    /// Instruction set of the kernels.
    pub simd: Simd,
    /// `--memory` in bytes.
    pub memory: Option<u64>,
    /// `--kv-memory` in bytes.
    pub kv_memory: Option<u64>,
    /// `--weights-from-disk`.
    pub weights_from_disk: bool,
    /// `--huge-pages` and `--mlock`.
    pub pages: Pages,
    /// `--verify` and `--verify-interval`.
    pub verify: Verify,
    /// `--metrics`.
    pub metrics: Option<SocketAddr>,
    /// Name in logs and plans.
    pub name: String,
    /// Silence after which a link between workers is broken.
    pub idle_timeout: Duration,
    /// `--leave-timeout`.
    pub leave_timeout: Duration,
    /// Further attempts before giving up on a coordinator that was never reached.
    pub retry: Option<u32>,
    /// Started by a coordinator: ends with stdin.
    pub child: bool,
}

impl Config {
    /// Bytes that this worker may use in all: `--memory`, or its machine's allowance.
    pub fn allowance(&self) -> u64 {
        self.memory.or_else(memory_allowance).unwrap_or(1)
    }
}

/// The filter of the logs, `WOOLLY_LOG`; empty if it is not set.
pub fn log_filter() -> String {
    std::env::var("WOOLLY_LOG").unwrap_or_default()
}

/// A variable that an option is read from.
pub fn variable(name: &OsStr) -> Option<OsString> {
    std::env::var_os(name)
}

/// Whether a file is a credential of the service manager. It alone says who can read it, by lists that the file's mode does not show.
pub fn is_credential(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|folder| path.starts_with(folder))
}

/// Whether `NO_COLOR` asks for plain text.
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

impl Folders {
    /// Reads the environment. Relative and empty values are ignored, as the XDG rules say.
    pub fn from_environment() -> Folders {
        let read = |key| std::env::var_os(key).map(PathBuf::from).filter(|path| path.is_absolute());
        Folders {
            state_home: read("XDG_STATE_HOME"),
            cache_home: read("XDG_CACHE_HOME"),
            home: read("HOME"),
        }
    }
}

impl JoinArgs {
    /// Resolves and checks the flags.
    ///
    /// # Errors
    ///
    /// All mistakes, one line each with the name of its flag.
    pub fn resolve(self, folders: &Folders, host_name: &str) -> Result<Config, String> {
        let mut mistakes = Vec::new();
        let mut note = |flag: &str, error: String| mistakes.push(format!("{flag}: {error}"));
        let coordinator = split_host(&self.coordinator);
        let listen = resolve_address(&self.listen);
        let advertise = self.advertise.as_deref().map(resolve_address).transpose();
        let state_dir = folders.state_dir(self.state_dir.as_deref());
        let slices_dir = folders.slices_dir(self.state_dir.as_deref());
        let model_dir = self.model_dir.as_deref().map(model_dir).transpose();
        let token = self.credentials.source(self.child);
        let (host, port) =
            coordinator.unwrap_or_else(|e| (note("HOST:PORT", e), Default::default()).1);
        let unset = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let listen = listen.unwrap_or_else(|e| (note("--listen", e), unset).1);
        let advertise = advertise.unwrap_or_else(|e| (note("--advertise", e), None).1);
        if advertise.is_some_and(|address| address.ip().is_unspecified()) {
            note("--advertise", "0.0.0.0 is no address that others can dial".to_owned());
        }
        let state_dir = state_dir.unwrap_or_else(|e| (note("--state-dir", e), PathBuf::new()).1);
        let slices_dir = slices_dir.unwrap_or_else(|e| (note("--state-dir", e), PathBuf::new()).1);
        let model_dir = model_dir.unwrap_or_else(|e| (note("--model-dir", e), None).1);
        if let (Some(memory), Some(kv_memory)) = (self.memory, self.kv_memory)
            && kv_memory > memory
        {
            note("--kv-memory", format!("{kv_memory} bytes are more than --memory ({memory})"));
        }
        if self.weights_from_disk && self.pages.mlock {
            let text = "--mlock keeps in memory what this leaves on the disk: give one of both";
            note("--weights-from-disk", text.to_owned());
        }
        if !mistakes.is_empty() {
            return Err(mistakes.join("\n"));
        }
        Ok(Config {
            host,
            port,
            token,
            listen,
            advertise,
            model_dir,
            no_local_files: self.no_local_files,
            state_dir,
            slices_dir,
            threads: self.threads.unwrap_or_else(threads_available),
            simd: self.simd,
            memory: self.memory,
            kv_memory: self.kv_memory,
            weights_from_disk: self.weights_from_disk,
            pages: self.pages,
            verify: self.verify,
            metrics: self.metrics.metrics,
            name: self.name.unwrap_or_else(|| name_from(host_name)),
            idle_timeout: self.idle_timeout,
            leave_timeout: self.leave_timeout,
            retry: self.retry,
            child: self.child,
        })
    }
}

fn model_dir(path: &Path) -> Result<PathBuf, String> {
    match path.metadata() {
        Ok(data) if data.is_dir() => absolute(path),
        Ok(_) => Err(format!("{} is not a folder; give the folder of the file", path.display())),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// `HOST:PORT`, `HOST`, `[v6]:PORT` or a bare IPv6 address.
fn split_host(text: &str) -> Result<(String, u16), String> {
    let expected = || format!("expected HOST:PORT such as 192.168.1.10:7400, got {text:?}");
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text.to_owned(), COORDINATOR_PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| expected())?),
        None => (text, COORDINATOR_PORT),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || port == 0 || host.len() > 255 || !host.chars().all(ok) {
        return Err(expected());
    }
    Ok((host.to_owned(), port))
}

/// An address to listen on or to tell others: `IP:PORT` or `NAME:PORT`; IPv4 is preferred.
fn resolve_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong =
        |error| format!("expected ADDRESS:PORT such as 0.0.0.0:7401, got {text:?}: {error}");
    let found: Vec<SocketAddr> =
        text.to_socket_addrs().map_err(|error| wrong(error.to_string()))?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first()).copied();
    first.ok_or_else(|| wrong("the name has no address".to_owned()))
}

fn parse_idle_timeout(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if (IDLE_TIMEOUT_MIN..=IDLE_TIMEOUT_MAX).contains(&time) {
        Ok(time)
    } else {
        Err("expected a time from 1s to 600s".to_owned())
    }
}

fn parse_leave_timeout(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time <= LEAVE_TIMEOUT_MAX { Ok(time) } else { Err("expected at most 1h".to_owned()) }
}

fn parse_name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 letters, digits, `.`, `_` or `-`".to_owned())
    }
}

#[cfg(test)]
mod tests;
