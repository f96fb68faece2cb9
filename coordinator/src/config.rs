//! The command line: every flag, its environment variable, and what they mean together.

mod access;
mod advertise;
mod cache;
mod commands;
mod door;
mod downloads;
mod journal;
mod members_command;
mod model;
mod models;
mod models_command;
mod naming;
mod objective;
mod pace;
mod plan_command;
mod probe_command;
mod queue;
mod status_command;
mod tips;

pub use access::{AccessArgs, CurlKey};
pub use advertise::Advertise;
pub use cache::CacheArgs;
pub use commands::{ConfigArgs, ConfigCommand, StateArgs, TokenArgs, TokenCommand};
pub use door::DoorArgs;
pub use downloads::{CacheDirArgs, network};
pub use journal::JournalArgs;
pub use members_command::{AllowArgs, BanArgs, RemoveArgs};
pub use model::{GOOD_MODELS, ModelArgs};
pub use models::RuntimeArgs;
pub use models_command::{LoadArgs, ModelsArgs, ModelsCommand};
pub use naming::NamingArgs;
pub use objective::ObjectiveArgs;
pub use pace::PaceArgs;
pub use plan_command::PlanArgs;
pub use probe_command::{ProbeArgs, ProbeKind};
pub use queue::QueueArgs;
pub use status_command::{PageArgs, StatusArgs, WorkersArgs};
pub use tips::tip;

use crate::bench::config::BenchArgs;
use crate::exit::Fatal;
use crate::inspect::config::InspectArgs;
use crate::units::{parse_duration, parse_size};
use advertise::{parse_address, parse_advertise};
use cache::parse_cache_type;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use woolly_protocol::limits::{CTX_MAX, STAGES_MAX};
use woolly_protocol::notify;

/// Compute threads of one local worker at most.
const THREADS_MAX: i64 = 1024;
/// The shortest idle time-out: two heartbeats of 500 ms must fit.
const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The longest idle time-out.
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// The longest wait for running generations at shutdown.
const SHUTDOWN_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

const EXAMPLES: &str = "\
Examples:
  woolly-coordinator serve model.gguf
      one machine: a local worker is started, the API is on http://127.0.0.1:8080
  woolly-coordinator serve hf:Qwen/Qwen3-4B-GGUF:Q4_K_M
      the same with a model of Hugging Face, which is downloaded once
  woolly-coordinator serve model.gguf --listen 0.0.0.0:7400 --advertise 192.168.1.10 --workers 2
      two other machines: paste the printed `woolly-worker join …` line on each of them
  woolly-coordinator config print --config woolly.toml
      what every option is set to, and by whom
  woolly-coordinator inspect model.gguf
      what the file is, what it takes, and whether it can be served
  woolly-coordinator status --watch
      workers, stages and what happened last, every 2 s
  woolly-coordinator plan model.gguf --workers deploy/machines.toml
      which machine would get which layers, how fast that would be, and what happens when one goes
  woolly-coordinator token create --ttl 1h --uses 1
      another join line, also while serve runs
  woolly-coordinator remove worker-2
      take a worker's certificate back; `ban` keeps its name and machine out, `allow` lifts that

Exit codes: 0 done, 1 failed while running, 2 wrong flags, 5 model missing, damaged or not supported,
6 the model's file holds another model than when it was opened: start again, 130 stopped by a second Ctrl-C. Logs go to stderr; WOOLLY_LOG=debug shows more, NO_COLOR=1 turns
colours off.";

/// Runs a language model over several machines' CPUs: cuts its layers over workers, schedules their
/// work and answers OpenAI clients.
#[derive(Debug, Parser)]
#[command(name = "woolly-coordinator", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Serve models over HTTP with the workers that join; without one it starts empty
    Serve(Box<ServeArgs>),
    /// Put a load on a running gateway and measure what its clients see
    Bench(BenchArgs),
    /// Say what a model file is, what it takes, and all because of which it would be refused
    Inspect(InspectArgs),
    /// Say what serve would do with machines that you have or imagine: stages, memory, speed, losses
    Plan(Box<PlanArgs>),
    /// Download models, list and remove them; list, load and unload those of a running serve
    Models(ModelsArgs),
    /// Show the workers, plans, times and last events of a running serve
    Status(StatusArgs),
    /// List the workers of a running serve, and those that were lost
    Workers(WorkersArgs),
    /// Say whether serve lives, or is ready for requests: exit code 0 or 1, and one line
    Probe(ProbeArgs),
    /// Take a worker's certificate back: its connection is closed, and it cannot come back with it
    Remove(RemoveArgs),
    /// Keep a worker's name and machine out, also under a new token and after a reboot
    Ban(BanArgs),
    /// Lift the ban of a name or a machine
    Allow(AllowArgs),
    /// Print an address of the running server's web page, with a key that works once
    Page(PageArgs),
    /// Create, list and revoke join tokens, also while serve runs
    Token(TokenArgs),
    /// Show or check what serve would be set to: flags, variables and the file
    Config(ConfigArgs),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or that of a command, for `man -l -`
    Man {
        /// The words of the command, such as `token create`
        command: Vec<String>,
    },
}

/// The commands that a file and variables speak to.
pub const CONFIGURED: &[&[&str]] = &[&["serve"], &["config", "print"], &["config", "check"]];

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The flags of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// The model and its template.
    #[command(flatten)]
    pub model: ModelArgs,
    /// What the model is called.
    #[command(flatten)]
    pub naming: NamingArgs,
    /// Longest sequence in tokens, prompt and completion together; 0 is all that the model was
    /// trained for [default: the model's, at most 8192]
    #[arg(short, long, env = "WOOLLY_CTX_SIZE", value_name = "TOKENS", help_heading = "Model")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(CTX_MAX)))]
    pub ctx_size: Option<u32>,
    /// Read the whole model file again even if its fingerprint is known
    #[arg(long, env = "WOOLLY_VERIFY", help_heading = "Model")]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub verify: bool,

    /// Which models can be loaded while the server runs.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Where the HTTP API listens.
    #[command(flatten)]
    pub door: DoorArgs,
    /// Where workers reach the coordinator (QUIC over UDP), IP:PORT; 0.0.0.0:7400 opens it to
    /// other machines
    #[arg(long, env = "WOOLLY_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:7400")]
    #[arg(value_parser = parse_address, help_heading = "Network")]
    pub listen: SocketAddr,
    /// The host, or HOST:PORT, that workers dial and that the printed join line names [default:
    /// the address of --listen]
    #[arg(long, env = "WOOLLY_ADVERTISE", value_name = "HOST", value_parser = parse_advertise)]
    #[arg(help_heading = "Network")]
    pub advertise: Option<Advertise>,
    /// A file whose first line is a join secret: 32 random characters or more, that workers join with whose
    /// --join-secret-file says the same. For systems that start all at once; join tokens are there beside it
    #[arg(long, env = "WOOLLY_JOIN_SECRET_FILE", value_name = "FILE", help_heading = "Network")]
    pub join_secret_file: Option<PathBuf>,
    /// A worker that is silent for this long is lost: 1s to 10m
    #[arg(long, env = "WOOLLY_IDLE_TIMEOUT", value_name = "TIME", default_value = "2s")]
    #[arg(value_parser = parse_idle_timeout, help_heading = "Network")]
    pub idle_timeout: Duration,

    /// Wait for this many workers before the layers are cut, local ones counted: 1 to 64
    /// [default: the stages of --cut if given, else --local-workers, at least 1]
    #[arg(long, env = "WOOLLY_WORKERS", value_name = "N", help_heading = "Workers")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=STAGES_MAX as i64))]
    pub workers: Option<u32>,
    /// Start this many workers on this machine as child processes: 0 to 64 [default: 1; 0 when
    /// --workers or --cut is given]
    #[arg(long, env = "WOOLLY_LOCAL_WORKERS", value_name = "K", help_heading = "Workers")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=STAGES_MAX as i64))]
    pub local_workers: Option<u32>,
    /// Layers of each stage in the order of joining, such as 17,11 [default: what suits --objective]
    #[arg(long, env = "WOOLLY_CUT", value_name = "A,B,…", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(1..), help_heading = "Workers")]
    pub cut: Option<Vec<u32>>,
    /// What the layers are cut for.
    #[command(flatten)]
    pub objective: ObjectiveArgs,
    /// Compute threads of each local worker [default: this machine's cores over the local workers]
    #[arg(short, long, env = "WOOLLY_THREADS", value_name = "N", help_heading = "Workers")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX))]
    pub threads: Option<u32>,
    /// Memory that each local worker may use in all, bytes such as 4GiB [default: the local
    /// workers share 80 % of this machine's]
    #[arg(long, env = "WOOLLY_MEMORY", value_name = "BYTES", value_parser = parse_size)]
    #[arg(help_heading = "Workers")]
    pub memory: Option<u64>,
    /// Memory that each local worker may use for the KV cache, bytes such as 512MiB [default: what
    /// is left of its memory, at most 16 sequences of full length]
    #[arg(long, env = "WOOLLY_KV_MEMORY", value_name = "BYTES", value_parser = parse_size)]
    #[arg(help_heading = "Workers")]
    pub kv_memory: Option<u64>,
    /// Huge pages for the weights of each local worker: auto, force or off, as in
    /// `woolly-worker join` [default: auto]
    #[arg(long, env = "WOOLLY_HUGE_PAGES", value_name = "HOW", help_heading = "Workers")]
    #[arg(value_parser = ["auto", "force", "off"], hide_possible_values = true)]
    pub huge_pages: Option<String>,
    /// Local workers keep their weights and KV cache in memory, whatever else the machine needs
    /// memory for. The limit of locked memory (`ulimit -l`) must allow it
    #[arg(long, env = "WOOLLY_MLOCK", help_heading = "Workers")]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub mlock: bool,
    /// Local workers whose weights do not fit their memory read what does not from the disk, slowly, as in
    /// `woolly-worker join`; without it such a model is refused
    #[arg(long, env = "WOOLLY_WEIGHTS_FROM_DISK", help_heading = "Workers")]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub weights_from_disk: bool,

    /// Where downloaded models are kept.
    #[command(flatten)]
    pub downloads: CacheDirArgs,
    /// How the KV cache is held and shared.
    #[command(flatten)]
    pub cache: CacheArgs,
    /// How streams and prompts share the stages.
    #[command(flatten)]
    pub pace: PaceArgs,
    /// How many requests wait and run.
    #[command(flatten)]
    pub queue: QueueArgs,
    /// Who may use the API, how much at a time and for how long.
    #[command(flatten)]
    pub access: AccessArgs,
    /// Whether accepted requests survive a restart.
    #[command(flatten)]
    pub journal: JournalArgs,

    /// A TOML file with options, `ctx-size = 4096` for --ctx-size 4096; flags and variables beat it
    #[arg(long, env = "WOOLLY_CONFIG", value_name = "FILE", help_heading = "Process")]
    pub config: Option<PathBuf>,
    /// Where keys, tokens and fingerprints are kept; one coordinator per folder
    /// [default: $XDG_STATE_HOME/woolly/coordinator or ~/.local/state/woolly/coordinator]
    #[arg(long, env = "WOOLLY_STATE_DIR", value_name = "DIR", help_heading = "Process")]
    pub state_dir: Option<PathBuf>,
    /// How long running generations may go on after Ctrl-C or SIGTERM: 0s to 24h; a second signal
    /// ends at once
    #[arg(long, env = "WOOLLY_SHUTDOWN_TIMEOUT", value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = parse_shutdown_timeout, help_heading = "Process")]
    pub shutdown_timeout: Duration,
    /// How logs are written to stderr
    #[arg(long, env = "WOOLLY_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    #[arg(value_enum, help_heading = "Process")]
    pub log_format: LogFormat,
}

/// How many workers are awaited and how many of them this process starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Workers that a plan needs.
    pub awaited: u32,
    /// Children of this process among them.
    pub local: u32,
}

impl ServeArgs {
    /// What `--workers`, `--local-workers` and `--cut` mean together.
    ///
    /// # Errors
    ///
    /// [`Fatal::Usage`] when they contradict each other, or when a flag for local workers is given
    /// and there are none.
    pub fn worker_counts(&self) -> Result<WorkerCounts, Fatal> {
        let stages = self.cut.as_ref().map(|cut| u32::try_from(cut.len()).unwrap_or(u32::MAX));
        if stages.is_some_and(|stages| stages as usize > STAGES_MAX) {
            return Err(Fatal::usage(format!("--cut names more than {STAGES_MAX} stages")));
        }
        let alone = self.workers.is_none() && stages.is_none();
        let local = self.local_workers.unwrap_or(u32::from(alone));
        let awaited = self.workers.or(stages).unwrap_or(local.max(1));
        if let Some(stages) = stages.filter(|stages| *stages > awaited) {
            return Err(Fatal::usage(format!(
                "--cut names {stages} stages and --workers waits for {awaited} workers only: each \
                 stage needs one"
            )));
        }
        if local > awaited {
            return Err(Fatal::usage(format!(
                "--local-workers {local} are more than the {awaited} workers that --workers or \
                 --cut asks for: local workers are counted among them"
            )));
        }
        if local == 0 {
            self.refuse_flags_of_local_workers()?;
        }
        Ok(WorkerCounts { awaited, local })
    }

    fn refuse_flags_of_local_workers(&self) -> Result<(), Fatal> {
        let given = [
            ("--threads", self.threads.is_some()),
            ("--memory", self.memory.is_some()),
            ("--kv-memory", self.kv_memory.is_some()),
            ("--huge-pages", self.huge_pages.is_some()),
            ("--mlock", self.mlock),
            ("--weights-from-disk", self.weights_from_disk),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => Err(Fatal::usage(format!(
                "{flag} is for local workers and there are none: give it to `woolly-worker join`, \
                 or add --local-workers"
            ))),
        }
    }
}

/// The state directory: the flag, else under XDG, else under the home directory.
///
/// # Errors
///
/// [`Fatal::Usage`] when neither the flag nor `XDG_STATE_HOME` nor `HOME` says where.
pub fn state_dir(flag: Option<PathBuf>) -> Result<PathBuf, Fatal> {
    state_dir_from(flag, std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"))
}

fn state_dir_from(
    flag: Option<PathBuf>,
    xdg: Option<OsString>,
    home: Option<OsString>,
) -> Result<PathBuf, Fatal> {
    if let Some(path) = flag {
        return Ok(path);
    }
    // The XDG specification tells programs to ignore a relative path.
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    xdg.and_then(absolute)
        .or_else(|| home.and_then(absolute).map(|home| home.join(".local/state")))
        .map(|base| base.join("woolly").join("coordinator"))
        .ok_or_else(|| {
            Fatal::usage("neither XDG_STATE_HOME nor HOME is set: say where with --state-dir DIR")
        })
}

/// The filter of the logs, `WOOLLY_LOG`; empty if it is not set.
pub fn log_filter() -> String {
    std::env::var("WOOLLY_LOG").unwrap_or_default()
}

/// A variable that an option is read from.
pub fn variable(name: &OsStr) -> Option<OsString> {
    std::env::var_os(name)
}

/// Whether `NO_COLOR` asks for plain text.
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Where programs are looked for, `PATH`.
pub fn search_path() -> Option<OsString> {
    std::env::var_os("PATH")
}

/// Our own variables that a child worker must not see: they speak to the coordinator, and the
/// worker has flags of the same names. Some are meant for both.
pub fn variables_to_hide() -> Vec<OsString> {
    const FOR_BOTH: [&str; 2] = ["WOOLLY_LOG", "WOOLLY_SIMD"];
    let ours = |name: &OsString| {
        name.to_str().is_some_and(|name| name.starts_with("WOOLLY_") && !FOR_BOTH.contains(&name))
    };
    // The service manager speaks to this process alone.
    let of_manager = notify::VARIABLES.map(OsString::from);
    std::env::vars_os().map(|(name, _)| name).filter(ours).chain(of_manager).collect()
}

/// Whether a file is a credential of the service manager. It alone says who can read it, by lists that the file's mode does not show.
fn is_credential(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|folder| path.starts_with(folder))
}

fn parse_idle_timeout(text: &str) -> Result<Duration, String> {
    within(parse_duration(text)?, IDLE_TIMEOUT_MIN, IDLE_TIMEOUT_MAX, "1s to 10m")
}

fn parse_shutdown_timeout(text: &str) -> Result<Duration, String> {
    within(parse_duration(text)?, Duration::ZERO, SHUTDOWN_TIMEOUT_MAX, "0s to 24h")
}

fn within(time: Duration, min: Duration, max: Duration, range: &str) -> Result<Duration, String> {
    if time < min || time > max { Err(format!("expected {range}")) } else { Ok(time) }
}

#[cfg(test)]
mod tests;
