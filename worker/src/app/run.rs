//! `join`: credentials, then conversations with the coordinator until this worker is told to end.

use crate::app::exit::{EXIT_ERROR, EXIT_REFUSED, EXIT_USAGE, Failure, error};
use crate::app::join::{self, Credentials, CredentialsError};
use crate::app::probe;
use crate::app::retry::Attempts;
use crate::config::{Config, TokenSource, variable};
use crate::coordinator::context::Context;
use crate::coordinator::renewal;
use crate::coordinator::session::{Ended, converse};
use crate::counters::Counters;
use crate::machine::system;
use crate::metrics::server;
use crate::metrics::text::{Exposed, Own};
use crate::peers::accept::accept_peers;
use crate::peers::arrivals::Arrivals;
use crate::peers::dial::{DialFailure, Dialer, Greeted, resolve};
use crate::peers::removed::RemovedWorkers;
use crate::peers::traffic::Traffic;
use crate::shutdown::{self, Order, Shutdown, Teller};
use crate::stage::compute::Compute;
use crate::stage::load::Measured;
use crate::stage::resident::Residents;
use crate::stage::timings::Timings;
use crate::standing::Standing;
use crate::units::show_size;
use crate::weights::slice_store::SliceStore;
use crate::weights::source::Places;
use quinn::{Connection, Endpoint};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;
use woolly_protocol::endpoint::{bind, worker_server};
use woolly_protocol::identity::Identity;
use woolly_protocol::joining::Ticket;
use woolly_protocol::machine::{host_id, machine_id};
use woolly_protocol::notify::Notifier;

/// By how much leaving politely may take longer than `--leave-timeout` says, which conversations keep to.
const LEAVE_MORE: Duration = Duration::from_secs(3);
/// Time that closing the connection may take.
const STOP_TIME: Duration = Duration::from_secs(2);
/// The file in the state directory that a running worker holds a lock on.
const LOCK_FILE: &str = "worker.lock";

/// The runtime for sockets and timers: this thread alone. Computing has threads of its own, and on a
/// machine with one core two threads that wake each other would take turns with it more often.
///
/// # Errors
///
/// If the system gives none.
pub fn network_runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Joins the cluster and works for it until a signal, or for a child the end of stdin, ends it.
///
/// # Errors
///
/// With the exit status and the sentence to print.
pub async fn run(config: Config) -> Result<(), Failure> {
    let (teller, mut shutdown) = Shutdown::new();
    shutdown::listen_for_signals(teller.clone()).map_err(error)?;
    let notifier = Notifier::new(variable);
    tokio::spawn(notifier.clone().beats());
    let ticket = read_ticket(&config, teller).await?;
    let leave_timeout = config.leave_timeout;
    let _lock = lock_state(&config.state_dir)?;
    // It goes before the lock does: the socket of whoever holds that next is not ours to remove.
    let socket = probe::listen(&config.state_dir);
    let store = SliceStore::open(&config.slices_dir).map_err(error)?;
    check_memory(&config)?;
    let exposed = expose(&config).await?;
    let counters = Arc::clone(&exposed.counters);
    let (compute, loader) =
        Compute::start(config.threads, config.simd, config.pages, Arc::clone(&counters))
            .map_err(|why| error(format!("cannot start the compute thread: {why}")))?;
    tracing::info!("computing with {} threads, {}", config.threads, config.simd.name());
    let mut told = shutdown.clone();
    let standing = Arc::new(Standing::default());
    let probes =
        probe::answer(socket, Arc::clone(&standing), Arc::clone(&counters), shutdown.clone());
    let work = async {
        let ended = || error("the compute thread has ended");
        let measured = compute.measure().await.ok_or_else(ended)?;
        let mut attempts = Attempts::new(&config, notifier.clone());
        let credentials = credentials(&config, ticket)?;
        // A worker may be started before its coordinator: to look for it is what it is for.
        notifier.ready();
        notifier.status(&format!("looking for the coordinator at {}:{}", config.host, config.port));
        let identity = match credentials {
            Credentials::Certificate(identity) => *identity,
            Credentials::Ticket(ticket) => tokio::select! {
                obtained = obtain(&ticket, &config, &mut attempts, &standing) => obtained?,
                _ = told.ordered() => return Ok(()),
            },
        };
        let (arrivals, removed) = (Arc::default(), Arc::default());
        let endpoint = listen(&identity, &config, (&arrivals, &removed, &exposed.traffic))?;
        let dialer = Arc::new(Dialer::new(identity, config.idle_timeout));
        // It is the only one.
        let _ = exposed.dialer.set(Arc::clone(&dialer));
        let context = Arc::new(Context {
            machine: machine_id(),
            host: host_id(),
            counters: Arc::clone(&counters),
            standing,
            traffic: Arc::clone(&exposed.traffic),
            held: Arc::clone(&exposed.held),
            timings: Timings::default(),
            compute: compute.clone(),
            loader,
            residents: Arc::new(Mutex::new(Residents::new(config.allowance()))),
            arrivals,
            removed,
            endpoint,
            dialer,
            places: places(&config, store, &counters),
            notifier: notifier.clone(),
            config: config.clone(),
        });
        serve(&context, measured, &mut attempts, &mut told).await
    };
    let ended = tokio::select! {
        // In this order: a service manager hears how long the end may take before the work ends.
        biased;
        () = told_while_idle(&mut shutdown, leave_timeout, &notifier) => Ok(()),
        done = work => done,
        () = compute.ended() => Err(error("the compute thread has failed; see the lines above")),
        () = probes => Err(error("the answers to probes have ended")),
    };
    notifier.stopping(STOP_TIME);
    ended
}

/// What is told at `--metrics`, and the address opened if there is one.
async fn expose(config: &Config) -> Result<Arc<Exposed>, Failure> {
    let own = Own {
        name: config.name.clone(),
        isa: config.simd.name().to_owned(),
        threads: config.threads,
        memory: config.allowance(),
    };
    let exposed = Arc::new(Exposed { own, ..Exposed::default() });
    if let Some(address) = config.metrics {
        let fail = |why: std::io::Error| {
            error(format!("cannot listen on {address} for metrics: {why}; change --metrics"))
        };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let bound = listener.local_addr().map_err(fail)?;
        tracing::info!("metrics on http://{bound}/metrics");
        tokio::spawn(server::serve(listener, Arc::clone(&exposed)));
    }
    Ok(exposed)
}

fn places(config: &Config, store: SliceStore, counters: &Arc<Counters>) -> Places {
    Places {
        model_dir: config.model_dir.clone(),
        no_local_files: config.no_local_files,
        memory_dir: config.state_dir.clone(),
        boot: machine_id(),
        verify: config.verify.verify,
        store: store.verifying(config.verify, counters),
    }
}

/// A conversation leaves by itself when it is told to; this ends the process if it takes too long.
async fn told_while_idle(shutdown: &mut Shutdown, leave_timeout: Duration, notifier: &Notifier) {
    let order = shutdown.ordered().await;
    notifier.stopping(leave_timeout + LEAVE_MORE + STOP_TIME);
    notifier.status("leaving the cluster");
    if let Order::Drain(_) = order {
        tokio::select! {
            () = tokio::time::sleep(leave_timeout + LEAVE_MORE) => {}
            () = shutdown.stopped() => {}
        }
    }
    tokio::time::sleep(STOP_TIME).await;
}

fn check_memory(config: &Config) -> Result<(), Failure> {
    match (config.memory, system::memory_limit()) {
        (None, None) => Err(Failure::new(
            EXIT_USAGE,
            "the system does not say how much memory there is: set --memory",
        )),
        (Some(given), Some(limit)) if given > limit => {
            let (given, limit) = (show_size(given), show_size(limit));
            tracing::warn!("--memory is {given}, but this process may use {limit} at most");
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn read_ticket(config: &Config, teller: Teller) -> Result<Option<Ticket>, Failure> {
    let mut line = None;
    if config.child || config.token == TokenSource::Stdin {
        let read = shutdown::line_from_stdin(config.child, teller).await;
        line = Some(read.map_err(|why| error(format!("cannot read the token from stdin: {why}")))?);
    }
    join::ticket(config, line.as_deref()).map_err(without_credentials)
}

fn credentials(config: &Config, ticket: Option<Ticket>) -> Result<Credentials, Failure> {
    let found = join::credentials(&config.state_dir, ticket, SystemTime::now());
    found.map_err(without_credentials)
}

fn without_credentials(why: CredentialsError) -> Failure {
    let code = match why {
        CredentialsError::Nothing(_) | CredentialsError::Ticket(_) => EXIT_REFUSED,
        CredentialsError::Unreadable(_) | CredentialsError::Identity(_) => EXIT_ERROR,
    };
    Failure::new(code, why.to_string())
}

/// Makes the state directory (mode 0700) and holds its lock: two workers with one certificate would
/// take each other's place.
fn lock_state(dir: &Path) -> Result<File, Failure> {
    let fail = |why: std::io::Error| error(format!("cannot use {}: {why}", dir.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
    let mut options = fs::OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(dir.join(LOCK_FILE));
    let file = file.map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(why)) => Err(fail(why)),
        Err(TryLockError::WouldBlock) => Err(error(format!(
            "another worker runs with the state in {}: give this one its own --state-dir",
            dir.display()
        ))),
    }
}

fn listen(
    identity: &Identity,
    config: &Config,
    (arrivals, removed, traffic): (&Arc<Arrivals>, &Arc<RemovedWorkers>, &Arc<Traffic>),
) -> Result<Endpoint, Failure> {
    let address = config.listen;
    let server = worker_server(identity, config.idle_timeout).map_err(error)?;
    let bound = bind(address, Some(server))
        .map_err(|why| error(format!("cannot listen on {address}: {why}; change --listen")))?;
    if let Some(warning) = bound.warning {
        tracing::warn!("{warning}");
    }
    let (arrivals, removed, traffic) =
        (Arc::clone(arrivals), Arc::clone(removed), Arc::clone(traffic));
    tokio::spawn(accept_peers(bound.endpoint.clone(), arrivals, removed, traffic));
    Ok(bound.endpoint)
}

/// Exchanges the token or the secret for a certificate, for as long as the coordinator cannot be reached.
async fn obtain(
    ticket: &Ticket,
    config: &Config,
    attempts: &mut Attempts,
    standing: &Standing,
) -> Result<Identity, Failure> {
    loop {
        let mut failure = None;
        match resolve(&config.host, config.port).await {
            Ok(addresses) => {
                for address in addresses {
                    match join::exchange(ticket, address, config).await {
                        Ok(identity) => return Ok(identity),
                        Err(why) => failure = Some(why),
                    }
                }
            }
            Err(why) => failure = Some(why),
        }
        let failure = failure.expect("every way here leaves a failure");
        standing.parted(&failure);
        attempts.failed(&failure, false).await?;
    }
}

/// Converses again and again.
async fn serve(
    context: &Arc<Context>,
    measured: Measured,
    attempts: &mut Attempts,
    shutdown: &mut Shutdown,
) -> Result<(), Failure> {
    loop {
        if shutdown.order() != Order::Run {
            return Ok(());
        }
        let reached = tokio::select! {
            reached = reach(context) => reached,
            _ = shutdown.ordered() => return Ok(()),
        };
        let (why, was_welcome) = match reached {
            Ok((greeted, address)) => {
                let advertise = advertised(context, &greeted.connection)?;
                let own = (advertise, measured);
                match converse(context, greeted, address, own, shutdown).await {
                    Ended::Shutdown => return Ok(()),
                    Ended::Lost { why, was_welcome } => (why, was_welcome),
                }
            }
            Err(why) => (why, false),
        };
        context.standing.parted(&why);
        tokio::select! {
            failed = attempts.failed(&why, was_welcome) => failed?,
            _ = shutdown.ordered() => return Ok(()),
        }
    }
}

/// Dials the coordinator's addresses until one answers.
async fn reach(context: &Context) -> Result<(Greeted, SocketAddr), DialFailure> {
    let mut failure = None;
    for address in resolve(&context.config.host, context.config.port).await? {
        match renewal::reach(context, address).await {
            Ok(greeted) => return Ok((greeted, address)),
            Err(why) => failure = Some(why),
        }
    }
    Err(failure.expect("a name has at least one address"))
}

/// What other workers are told to dial.
fn advertised(context: &Context, coordinator: &Connection) -> Result<SocketAddr, Failure> {
    let bound = context.endpoint.local_addr().map_err(error)?;
    let mut address = context.config.advertise.unwrap_or(bound);
    if address.port() == 0 {
        address.set_port(bound.port());
    }
    if address.ip().is_unspecified() {
        let Some(own) = own_address(coordinator) else {
            return Err(Failure::new(
                EXIT_USAGE,
                "cannot tell by which address others reach this machine: set --advertise",
            ));
        };
        address.set_ip(own.to_canonical());
    }
    if address.ip().is_loopback() && !coordinator.remote_address().ip().to_canonical().is_loopback()
    {
        tracing::warn!(
            "this worker is reached on {address}, which other machines cannot dial; start it with \
             --listen 0.0.0.0:7401 unless it is the only stage or the first one"
        );
    }
    Ok(address)
}

/// From which address this machine reaches the coordinator. Not every system says it of a connection, those in containers
/// for one; then the way to the coordinator does.
fn own_address(coordinator: &Connection) -> Option<IpAddr> {
    let told = coordinator.local_ip().filter(|ip| !ip.is_unspecified());
    told.or_else(|| on_the_way_to(coordinator.remote_address()).ok())
}

/// The address with which packets to `far` leave; none is sent.
fn on_the_way_to(far: SocketAddr) -> std::io::Result<IpAddr> {
    let ip = far.ip().to_canonical();
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((ip, far.port()))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_cannot_share_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_state(dir.path()).unwrap();
        assert!(lock_state(dir.path()).unwrap_err().text.contains("--state-dir"));
        drop(held);
        assert!(lock_state(dir.path()).is_ok());
    }

    #[test]
    fn the_way_to_this_machine_leaves_with_its_own_address() {
        for far in ["127.0.0.1:9", "[::ffff:127.0.0.1]:9"] {
            let own = on_the_way_to(far.parse().unwrap()).unwrap();
            assert_eq!(own, IpAddr::from(Ipv4Addr::LOCALHOST), "{far}");
        }
    }
}
