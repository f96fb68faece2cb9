//! `serve`: checks what was asked for, opens what is needed and puts the parts together.
//!
//! At a signal no new generations are taken (`/readyz` answers 503) and those that run may finish;
//! then the parts end in the order of [`Tasks`].

use crate::announce::{
    Announcer, host_port, join_line, loopback_hint, outward_address, ready_lines, stdout_line,
};
use crate::app::listen::Listener;
use crate::app::local_workers::{self, LocalWorkers};
use crate::app::tasks::{Ending, Task, Tasks};
use crate::cluster::{ClusterConfig, PlacementConfig, Timeouts};
use crate::config::{ServeArgs, WorkerCounts, state_dir};
use crate::driver::{Driver, DriverConfig, Inputs, LaneConfig, Outputs};
use crate::epochs::EpochCounter;
use crate::exit::Fatal;
use crate::generation::{EngineHandle, ModelId, seam};
use crate::guides::Pool;
use crate::http::GatewayConfig;
use crate::http::server::keys::ApiKeys;
use crate::http::server::places::Limits;
use crate::links::{self, EVENTS_MAX, HEARTBEAT_MS};
use crate::models::last_plan::LastPlan;
use crate::models::slices::SliceServer;
use crate::models::watch::{Reading, read_and_watch};
use crate::models::{Model, ModelFacts, NUMERICS, Registry, ServedModel, Template};
use crate::open_files;
use crate::scheduler::{ROWS_PER_STEP, SchedulerConfig};
use crate::shutdown::{Shutdown, shutdown, watch_signals};
use crate::status::Status;
use crate::trust::join_server::JoinServer;
use crate::trust::state::{StateDir, write_private};
use crate::trust::tokens::Tokens;
use anyhow::{Context, anyhow};
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::endpoint::{bind, coordinator_server};
use woolly_protocol::limits::NAME_MAX;
use woolly_protocol::machine::machine_id;
use woolly_protocol::preamble::Preamble;
use woolly_protocol::token_store::TokenStoreError;

/// Threads of the runtime at most: it moves bytes and decides; workers compute.
const RUNTIME_THREADS_MAX: usize = 2;
/// The one model that is served.
const MODEL: ModelId = ModelId(0);
/// The lifetime of the token in the printed join line.
const JOIN_TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long answers may take to reach their clients once the generations have ended.
const GATEWAY_DRAIN: Duration = Duration::from_secs(2);
/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MS as u64);

/// Serves until a signal asks for the end.
///
/// # Errors
///
/// Wrong flags, an unusable model, a port in use, local workers that keep ending.
pub fn run(args: ServeArgs) -> Result<(), Fatal> {
    crate::app::log::start(args.log_format);
    let counts = args.worker_counts()?;
    let program = (counts.local > 0).then(local_workers::find_program).transpose()?;
    let mut model = Model::open(args.model.path()?)?;
    if let Some(path) = &args.model.chat_template_file {
        model.template = Template::of_file(path, &model.tokenizer)?;
    }
    let model = Arc::new(model);
    let ctx_size = model.ctx_size(args.ctx_size)?;
    model.check_cut(args.cut.as_deref())?;
    let keys = args.access.keys()?;
    let state = StateDir::open(state_dir(args.state_dir.clone())?)?;
    let _lock = state.lock()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(runtime_threads())
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let server = Server { args, counts, program, model, ctx_size, keys, state };
    let result = runtime.block_on(server.serve());
    // Reading a large file for its fingerprint cannot be interrupted: do not wait for it.
    runtime.shutdown_background();
    result
}

/// Connections that clients may have at a time.
fn connections() -> Limits {
    let (files, wanted) = (open_files::raise(), Limits::default().connections);
    let limits = Limits::within(files);
    if limits.connections < wanted {
        tracing::warn!(
            "{files} files may be open, so {} clients can be connected at a time instead of {wanted}: \
             raise the limit (ulimit -n, LimitNOFILE=)",
            limits.connections
        );
    }
    limits
}

/// One thread on a machine with few processors, where local workers compute on all of them: two that
/// wake each other would take turns with them more often.
fn runtime_threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, RUNTIME_THREADS_MAX)
}

/// Everything that was checked before the first socket is opened.
struct Server {
    args: ServeArgs,
    counts: WorkerCounts,
    program: Option<PathBuf>,
    model: Arc<Model>,
    ctx_size: u32,
    keys: ApiKeys,
    state: StateDir,
}

impl Server {
    async fn serve(self) -> Result<(), Fatal> {
        let announcer = Announcer(self.args.log_format);
        let (ask, asked) = shutdown();
        watch_signals(ask, self.args.shutdown_timeout).context("cannot watch for signals")?;
        let (http, http_addresses) = self.bind_http().await?;
        let now = SystemTime::now();
        let ca = ClusterCa::open(&self.state.pki(), now)
            .context("cannot open the cluster's certificate authority")?;
        let endpoint = self.bind_quic(&ca)?;
        let listen = endpoint.local_addr().context("the QUIC listener has no address")?;
        let tokens = Tokens::open(&self.state, &ca).context("cannot open the join tokens")?;
        announcer.say(self.model.describe());
        self.announce_joining(&tokens, listen, announcer)?;

        let (engine, commands, status) = seam();
        let (events, link_events) = mpsc::channel(EVENTS_MAX);
        let (expire, expired) = shutdown();
        let preamble = Preamble::ours(NUMERICS);
        let ca = Arc::new(ca);
        let slices = Arc::new(SliceServer::new());
        let listener = Arc::new(Listener {
            endpoint,
            join: Arc::new(JoinServer::new(tokens.clone(), Arc::clone(&ca), preamble)),
            links: links::Shared { events, preamble },
            slices: Arc::clone(&slices),
        });
        let ending = Ending {
            asked: asked.clone(),
            patience: self.args.shutdown_timeout,
            expire,
            status: status.subscribe(),
        };
        let models = Arc::new(self.registry());
        let ready_text =
            ready_lines(&http_addresses, &models.first().name, self.args.access.curl_key());
        let (look_at_model, (news, heard)) = (Arc::<Notify>::default(), mpsc::channel(1));
        let (guides, answered) = Pool::new(Arc::clone(engine.metrics()));
        let outputs = Outputs {
            guides,
            metrics: Arc::clone(engine.metrics()),
            announcer,
            look_at_model: Arc::clone(&look_at_model),
            epochs: EpochCounter::new(self.state.epochs()),
        };
        let config = self.driver_config(&ca, &models, (status, ready_text), &outputs.epochs)?;
        let driver = Driver::new(config, outputs);
        read_and_watch(self.reading(announcer), slices, look_at_model, news);
        let local = self.local_workers(listen, announcer);
        let tasks = Tasks {
            http: Task::spawn("the HTTP server", |stopped| {
                self.gateway(http, engine, models, stopped)
            }),
            local: Task::spawn("the keeper of local workers", |stopped| {
                run_local(self.program.clone(), local, tokens, stopped)
            }),
            listener: Task::spawn("the listener for workers", |stopped| async {
                listener.run(stopped).await;
                Ok(())
            }),
            driver: Task::spawn("the driver", |stopped| {
                let (links, models) = (link_events, heard);
                let (drain, deadline, stop) = (asked, expired, stopped);
                let guides = answered;
                driver.run(Inputs { commands, links, models, guides, drain, deadline, stop })
            }),
        };
        tasks.run(ending).await
    }

    /// The model, to be read for its fingerprint.
    fn reading(&self, announcer: Announcer) -> Reading {
        Reading {
            id: MODEL,
            model: Arc::clone(&self.model),
            memory: self.state.root().to_owned(),
            verify: self.args.verify,
            announcer,
        }
    }

    /// The gateway, until it is told to end.
    fn gateway(
        &self,
        listeners: Vec<TcpListener>,
        engine: EngineHandle,
        models: Arc<Registry>,
        mut stopped: Shutdown,
    ) -> impl Future<Output = Result<(), Fatal>> + use<> {
        let config = self.gateway_config();
        async move {
            let stopped = async move { stopped.asked().await };
            crate::http::serve(listeners, config, engine, models, stopped)
                .await
                .context("the HTTP server failed")?;
            Ok(())
        }
    }

    /// The listeners of the HTTP API and their addresses.
    async fn bind_http(&self) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), Fatal> {
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for address in self.args.door.addresses()? {
            let listener = TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address} for HTTP: --http chooses another address")
            })?;
            if !address.ip().is_loopback() && self.keys.is_empty() {
                tracing::warn!(
                    "the HTTP API on {address} can be used by everyone who reaches it: it asks for no \
                     key (--api-key-file)"
                );
            }
            addresses.push(listener.local_addr().context("the HTTP listener has no address")?);
            listeners.push(listener);
        }
        Ok((listeners, addresses))
    }

    fn bind_quic(&self, ca: &ClusterCa) -> Result<quinn::Endpoint, Fatal> {
        let identity = ca
            .issue_coordinator(SystemTime::now())
            .context("cannot make the coordinator's certificate")?;
        let config = coordinator_server(&identity, self.args.idle_timeout)
            .context("cannot use the coordinator's certificate")?;
        let address = self.args.listen;
        let bound = bind(address, Some(config)).with_context(|| {
            format!("cannot listen on {address} for workers: --listen chooses another address")
        })?;
        if let Some(warning) = bound.warning {
            tracing::warn!("{warning}");
        }
        Ok(bound.endpoint)
    }

    /// Makes a token and prints the line that joins a worker, alone on stdout.
    fn announce_joining(
        &self,
        tokens: &Tokens,
        listen: SocketAddr,
        announcer: Announcer,
    ) -> Result<(), Fatal> {
        let address = self.join_address(listen)?;
        let path = self.state.join_address();
        write_private(&path, format!("{address}\n").as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        announcer.say("To add a worker, run this where it is to compute (the token is a secret):");
        match tokens.create(JOIN_TOKEN_TTL, None) {
            Ok(token) => stdout_line(join_line(&address, &token.to_string())),
            // Those that are there can be used: no reason not to serve.
            Err(error @ TokenStoreError::Full) => tracing::warn!("no join line: {error}"),
            Err(error) => return Err(Fatal::from(anyhow!(error).context("no join token"))),
        }
        let guessed = listen.ip().is_unspecified() && self.args.advertise.is_none();
        if guessed {
            announcer.say(format_args!(
                "Workers dial {address}, which this machine calls its own; --advertise names \
                 another address"
            ));
        } else if let Some(hint) = loopback_hint(listen) {
            announcer.say(hint);
        }
        Ok(())
    }

    /// `HOST:PORT` that workers dial.
    fn join_address(&self, listen: SocketAddr) -> Result<String, Fatal> {
        if let Some(advertise) = &self.args.advertise {
            return Ok(host_port(&advertise.host, advertise.port.unwrap_or(listen.port())));
        }
        let mut ip = listen.ip();
        if ip.is_unspecified() {
            ip = outward_address(listen).context(
                "cannot find out this machine's address: say what workers dial with --advertise",
            )?;
        }
        Ok(host_port(&ip.to_string(), listen.port()))
    }

    /// The driver of the one lane that serves the one model.
    fn driver_config(
        &self,
        ca: &ClusterCa,
        models: &Registry,
        (status, ready_text): (watch::Sender<Status>, String),
        epochs: &EpochCounter,
    ) -> Result<DriverConfig, Fatal> {
        let path = self.state.epochs();
        let epochs = epochs
            .reserve()
            .with_context(|| format!("cannot number plans: cannot use {}", path.display()))?;
        let cluster = ClusterConfig {
            machine: machine_id(),
            numerics: NUMERICS,
            timeouts: self.timeouts(),
            epochs,
        };
        let placement = PlacementConfig {
            layout: Arc::clone(&self.model.layout),
            parts: self.model.parts.clone(),
            workers_wanted: self.counts.awaited,
            objective: self.args.objective.objective,
            cut: self.args.cut.clone(),
            ctx_size: self.ctx_size,
            rows_max: ROWS_PER_STEP as u32,
            kv_type: self.args.cache.cache_type,
            extent_len: self.args.cache.block_size,
        };
        let lane = LaneConfig {
            model: Arc::clone(models.first()),
            placement,
            scheduler: self.scheduler_config(),
            status,
            last_plan: LastPlan::new(self.state.last_plan()),
            ready_text,
        };
        let key_concurrency = self.key_concurrency();
        Ok(DriverConfig { cluster, id: ca.cluster(), lanes: vec![lane], key_concurrency })
    }

    fn scheduler_config(&self) -> SchedulerConfig {
        let default = SchedulerConfig::default();
        let queue = &self.args.queue;
        SchedulerConfig {
            waiting_max: queue.queue_max.map_or(default.waiting_max, |most| most as usize),
            running_max: queue.running_max.map_or(default.running_max, |most| most as usize),
            rows_per_step: ROWS_PER_STEP,
            prefix_cache: self.args.cache.prefix_cache,
            itl_target: self.args.pace.itl_target,
            decode_groups: self.args.pace.decode_groups.0,
            failover_deadline: queue.failover_deadline,
        }
    }

    fn key_concurrency(&self) -> Option<usize> {
        self.args.access.key_concurrency.map(|most| usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// A worker is never given less time than `--idle-timeout` says; that it does not hear us shows two
    /// heartbeats later.
    fn timeouts(&self) -> Timeouts {
        let (default, idle) = (Timeouts::default(), self.args.idle_timeout);
        let unheard = default.unheard.max(idle + 2 * HEARTBEAT);
        Timeouts { heartbeat: default.heartbeat.max(idle + 2 * HEARTBEAT), unheard, ..default }
    }

    /// The one model that is served, under its names.
    fn registry(&self) -> Registry {
        let layout = &self.model.layout;
        let title = layout.name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
        let (name, aliases) = self.args.naming.names(self.model.file_stem(), title);
        let texts = (Arc::clone(&self.model.tokenizer), self.model.template.clone());
        let facts = ModelFacts {
            architecture: layout.architecture.clone(),
            file_type: layout.file_type.clone(),
            ctx_train: layout.ctx_train,
            parameters: layout.parameters,
            bytes: layout.file_bytes,
        };
        let served = ServedModel::new(MODEL, (name, aliases), texts, facts);
        Registry::new(vec![Arc::new(served)], self.args.naming.any_model)
    }

    fn gateway_config(&self) -> GatewayConfig {
        GatewayConfig {
            allowed_hosts: self.args.door.allow_host.clone(),
            cors_origins: self.args.door.cors_origin.clone(),
            connections: connections(),
            drain: GATEWAY_DRAIN,
            keys: self.keys.clone(),
            key_concurrency: self.key_concurrency(),
            request_timeout: self.args.access.request_timeout,
        }
    }

    fn local_workers(&self, listen: SocketAddr, announcer: Announcer) -> LocalWorkers {
        // Children are on this machine: loopback reaches a listener on all addresses too.
        let dial = match listen {
            SocketAddr::V4(at) if at.ip().is_unspecified() => {
                SocketAddr::from((Ipv4Addr::LOCALHOST, at.port()))
            }
            SocketAddr::V6(at) if at.ip().is_unspecified() => {
                SocketAddr::from((Ipv6Addr::LOCALHOST, at.port()))
            }
            address => address,
        };
        let folder = self.model.paths.first().and_then(|path| path.parent());
        LocalWorkers {
            count: self.counts.local,
            coordinator: dial.to_string(),
            threads: self.args.threads,
            memory: self.args.memory,
            kv_memory: self.args.kv_memory,
            huge_pages: self.args.huge_pages.clone(),
            mlock: self.args.mlock,
            weights_from_disk: self.args.weights_from_disk,
            idle_timeout: self.args.idle_timeout,
            model_dir: folder.unwrap_or(Path::new("/")).to_owned(),
            state_dirs: (1..=self.counts.local).map(|n| self.state.local_worker(n)).collect(),
            announcer,
        }
    }
}

/// Keeps the local workers running; without any, waits for the end.
async fn run_local(
    program: Option<PathBuf>,
    config: LocalWorkers,
    tokens: Tokens,
    mut stopped: Shutdown,
) -> Result<(), Fatal> {
    match program {
        Some(program) => Ok(local_workers::run(program, config, tokens, stopped).await?),
        None => {
            stopped.asked().await;
            Ok(())
        }
    }
}
