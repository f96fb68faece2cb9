//! `serve`: checks what was asked for, opens what is needed and puts the parts together.
//!
//! At a signal no new generations are taken (`/readyz` answers 503) and those that run may finish;
//! then the parts end in the order of [`Tasks`].

use crate::admin::AdminHandle;
use crate::announce::Announcer;
use crate::app::door;
use crate::app::first_model::{lane_maker, what_is_served, with_state};
use crate::app::joining;
use crate::app::journal;
use crate::app::keeper::members::Gate;
use crate::app::keeper::{Keeper, Models};
use crate::app::lane_maker::Opened;
use crate::app::listen::Listener;
use crate::app::local_workers::{self, LocalWorkers};
use crate::app::service;
use crate::app::tasks::{Ending, Task, Tasks};
use crate::cluster::{ClusterConfig, Timeouts};
use crate::config::{ServeArgs, WorkerCounts, variable};
use crate::driver::{Driver, DriverConfig, Inputs, LaneCommand, Outputs};
use crate::epochs::EpochCounter;
use crate::events::Events;
use crate::exit::Fatal;
use crate::generation::{EngineHandle, ModelId, seam};
use crate::guides::Pool;
use crate::http::output::streams::Streams;
use crate::http::server::admin::Admin;
use crate::http::server::certificates::Certificates;
use crate::http::server::keys::ApiKeys;
use crate::http::server::local_socket::LocalSocket;
use crate::http::server::places::Limits;
use crate::http::server::sessions::Sessions;
use crate::http::{Gateway, GatewayConfig};
use crate::journal::Journal;
use crate::links::{self, EVENTS_MAX, HEARTBEAT_MS};
use crate::models::shelf::Shelf;
use crate::models::slices::SliceServer;
use crate::models::watch::ModelNews;
use crate::models::{NUMERICS, Registry};
use crate::open_files;
use crate::shutdown::{Shutdown, shutdown, watch_signals};
use crate::trust::exclusions::Exclusions;
use crate::trust::renewals::{OwnCertificate, Renewals};
use crate::trust::state::StateDir;
use crate::trust::tokens::Tokens;
use anyhow::Context;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::clock::Clock;
use woolly_protocol::endpoint::bind;
use woolly_protocol::hidden::Hidden;
use woolly_protocol::join_secret::JoinSecret;
use woolly_protocol::machine::{host_id, machine_id};
use woolly_protocol::notify::Notifier;
use woolly_protocol::preamble::Preamble;

/// Threads of the runtime at most: it moves bytes and decides; workers compute.
const RUNTIME_THREADS_MAX: usize = 2;
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
    let notifier = Notifier::new(variable);
    let (shelf, admin_key) = (args.runtime.shelf()?, args.runtime.admin_key()?);
    let program = (counts.local > 0).then(local_workers::find_program).transpose()?;
    let (keys, secret) = (args.access.keys()?, joining::secret(&args)?);
    let certificates = args.door.certificates()?;
    notifier.status("getting the model");
    let (model, state, _lock) = with_state(&args)?;
    let journal = journal::open(&args.journal)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(runtime_threads())
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let server = Server {
        args,
        counts,
        program,
        shelf,
        admin_key,
        keys,
        secret,
        certificates,
        state,
        journal,
    };
    let result = runtime.block_on(server.serve(model, notifier));
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
    shelf: Option<Shelf>,
    admin_key: Option<Hidden>,
    keys: ApiKeys,
    secret: Option<JoinSecret>,
    certificates: Option<Arc<Certificates>>,
    state: StateDir,
    journal: Option<(Journal, journal::Opened)>,
}

/// What is open before anything runs.
struct Open {
    http: Vec<TcpListener>,
    urls: Vec<String>,
    sessions: Sessions,
    renewals: Renewals,
    endpoint: quinn::Endpoint,
    own: OwnCertificate,
    listen: SocketAddr,
    tokens: Tokens,
}

impl Server {
    async fn serve(mut self, model: Option<Opened>, notifier: Notifier) -> Result<(), Fatal> {
        let announcer = Announcer(self.args.log_format);
        let (ask, asked) = shutdown();
        watch_signals(ask, self.args.shutdown_timeout, door::reload(&self.certificates))
            .context("cannot watch for signals")?;
        let Open { http, urls, sessions, renewals, endpoint, own, listen, tokens } =
            self.open().await?;
        announcer.say(what_is_served(model.as_ref(), self.shelf.as_ref()));
        let join_address = joining::announce(&self.args, &self.state, &tokens, listen, announcer)?;
        door::announce_page(&sessions, announcer)?;

        let (engine, commands, work) = seam();
        let (preamble, patience) = (Preamble::ours(NUMERICS), self.args.shutdown_timeout);
        tokio::spawn(service::tell(notifier, engine.clone(), asked.clone(), patience));
        let streams = self.journal.take();
        let streams = streams.map(|it| journal::streams(it, &self.args.journal, engine.metrics()));
        let ((events, link_events), (expire, expired)) = (mpsc::channel(EVENTS_MAX), shutdown());
        let ending = Ending { asked: asked.clone(), patience, expire, work: work.subscribe() };
        let (guides, answered) = Pool::new(Arc::clone(engine.metrics()));
        let outputs = Outputs {
            guides,
            metrics: Arc::clone(engine.metrics()),
            announcer,
            events: Events::default(),
            work,
            epochs: EpochCounter::new(self.state.epochs()),
        };
        let ((news, models), (lanes, asked_of_lanes)) = (mpsc::channel(1), mpsc::channel(1));
        let (slices, to_driver) = (Arc::new(SliceServer::new()), (lanes, news));
        let keeper = self.keeper(
            &engine,
            &slices,
            to_driver,
            &urls,
            (outputs.events.clone(), gate(&renewals, &tokens, join_address)),
        );
        let (admin, asked_of_keeper) = AdminHandle::new(keeper.events.clone());
        let driver = Driver::new(self.driver_config(&renewals, &outputs.epochs)?, outputs);
        let join = joining::server(&tokens, &renewals, preamble, self.secret.as_ref());
        let listener = Arc::new(Listener {
            endpoint,
            join,
            links: links::Shared { events, preamble, renewals },
            slices,
            metrics: Arc::clone(engine.metrics()),
        });
        let local = self.local_workers(listen, model.as_ref(), announcer);
        let driver = Task::spawn("the driver", |stopped| {
            let (links, lanes, guides) = (link_events, asked_of_lanes, answered);
            let (drain, deadline, stop) = (asked, expired, stopped);
            driver.run(Inputs { commands, lanes, links, models, guides, drain, deadline, stop })
        });
        if let Some(model) = model {
            keeper.begin(model).await.map_err(anyhow::Error::new)?;
        }
        let registry = Arc::clone(&keeper.registry);
        let tasks = Tasks {
            http: Task::spawn("the HTTP server", |stopped| {
                self.gateway(http, (engine, registry, admin, sessions), streams, stopped)
            }),
            keeper: Task::spawn("the keeper of models", |stop| keeper.run(asked_of_keeper, stop)),
            local: Task::spawn("the keeper of local workers", |stop| {
                run_local(self.program.clone(), local, tokens, stop)
            }),
            listener: Task::spawn("the listener for workers", |stop| {
                listen_for(listener, own, stop)
            }),
            driver,
        };
        tasks.run(ending).await
    }

    /// Opens all that strangers can dial, and what says whom to let in.
    async fn open(&self) -> Result<Open, Fatal> {
        let (http, addresses) = door::bind(&self.args.door, &self.keys).await?;
        let urls = door::urls(&addresses, &self.certificates);
        let sessions = door::sessions(&addresses, &urls);
        let ca = ClusterCa::open(&self.state.pki(), SystemTime::now())
            .context("cannot open the cluster's certificate authority")?;
        let (ca, clock) = (Arc::new(ca), Clock::default());
        let exclusions = Arc::new(Exclusions::open(self.state.members())?);
        let (endpoint, own) = self.bind_quic(&ca, &clock)?;
        let listen = endpoint.local_addr().context("the QUIC listener has no address")?;
        let tokens = Tokens::open(&self.state, &ca).context("cannot open the join tokens")?;
        let renewals = Renewals { ca, exclusions, clock };
        Ok(Open { http, urls, sessions, renewals, endpoint, own, listen, tokens })
    }

    /// Who keeps the models; none yet.
    fn keeper(
        &self,
        engine: &EngineHandle,
        slices: &Arc<SliceServer>,
        (lanes, news): (mpsc::Sender<LaneCommand>, mpsc::Sender<(ModelId, ModelNews)>),
        urls: &[String],
        (events, gate): (Events, Gate),
    ) -> Arc<Keeper> {
        Arc::new(Keeper {
            maker: lane_maker(&self.args, self.counts.awaited, &self.state, urls),
            shelf: self.shelf.clone(),
            verify: self.args.verify,
            registry: Arc::new(Registry::new(Vec::new(), self.args.naming.any_model)),
            statuses: engine.statuses().clone(),
            slices: Arc::clone(slices),
            lanes,
            news,
            events,
            announcer: Announcer(self.args.log_format),
            gate,
            kept: Models::default(),
        })
    }

    /// The gateway, until it is told to end.
    fn gateway(
        &self,
        listeners: Vec<TcpListener>,
        (engine, models, admin, sessions): (EngineHandle, Arc<Registry>, AdminHandle, Sessions),
        streams: Option<Streams>,
        mut stopped: Shutdown,
    ) -> impl Future<Output = Result<(), Fatal>> + use<> {
        let (key, on_demand) = (self.admin_key.as_ref(), self.args.runtime.load_on_demand);
        let admin = Admin::new(admin, key.map(Hidden::reveal), on_demand);
        let admin = admin.with_sessions(Arc::new(sessions));
        let gateway = Gateway::new(self.gateway_config(), engine, models).with_admin(admin);
        let gateway = match streams {
            Some(streams) => gateway.with_streams(streams),
            None => gateway,
        };
        let socket = self.admin_socket();
        async move {
            let stopped = async move { stopped.asked().await };
            crate::http::serve(listeners, socket, Arc::new(gateway), stopped)
                .await
                .context("the HTTP server failed")?;
            Ok(())
        }
    }

    /// The socket of the admin API. A path that is too long for one is no reason not to serve.
    fn admin_socket(&self) -> Option<LocalSocket> {
        let path = self.state.admin_socket();
        let bound = LocalSocket::bind(&path);
        let say = |error: &std::io::Error| {
            tracing::warn!(
                "no admin API on {}: {error}; a shorter --state-dir may help",
                path.display()
            );
        };
        bound.inspect_err(say).ok()
    }

    fn bind_quic(
        &self,
        ca: &Arc<ClusterCa>,
        clock: &Clock,
    ) -> Result<(quinn::Endpoint, OwnCertificate), Fatal> {
        let (clock, secret) = (clock.clone(), self.secret.clone());
        let made = OwnCertificate::new(Arc::clone(ca), clock, secret, self.args.idle_timeout);
        let (own, config) = made.context("cannot make the coordinator's certificate")?;
        let address = self.args.listen;
        let bound = bind(address, Some(config)).with_context(|| {
            format!("cannot listen on {address} for workers: --listen chooses another address")
        })?;
        if let Some(warning) = bound.warning {
            tracing::warn!("{warning}");
        }
        Ok((bound.endpoint, own))
    }

    fn driver_config(
        &self,
        renewals: &Renewals,
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
        Ok(DriverConfig {
            cluster,
            id: renewals.ca.cluster(),
            key_concurrency: self.key_concurrency(),
            exclusions: Arc::clone(&renewals.exclusions),
            clock: renewals.clock.clone(),
        })
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

    fn gateway_config(&self) -> GatewayConfig {
        GatewayConfig {
            allowed_hosts: self.args.door.allow_host.clone(),
            cors_origins: self.args.door.cors_origin.clone(),
            connections: connections(),
            drain: GATEWAY_DRAIN,
            keys: self.keys.clone(),
            key_concurrency: self.key_concurrency(),
            request_timeout: self.args.access.request_timeout,
            certificates: self.certificates.clone(),
        }
    }

    fn local_workers(
        &self,
        listen: SocketAddr,
        model: Option<&Opened>,
        announcer: Announcer,
    ) -> LocalWorkers {
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
        let of_model = model.and_then(|opened| opened.model.paths.first()?.parent());
        let folder = of_model.or(self.shelf.as_ref().map(Shelf::root));
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

/// Accepts workers until the end.
async fn listen_for(
    listener: Arc<Listener>,
    own: OwnCertificate,
    stopped: Shutdown,
) -> Result<(), Fatal> {
    listener.run(own, stopped).await;
    Ok(())
}

/// Who says whom the cluster lets in.
fn gate(renewals: &Renewals, tokens: &Tokens, join_address: String) -> Gate {
    Gate {
        exclusions: Arc::clone(&renewals.exclusions),
        tokens: tokens.clone(),
        join_address,
        own_host: host_id(),
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
