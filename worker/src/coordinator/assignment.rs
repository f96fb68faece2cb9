//! One plan on this worker: link to the next stage, a stage to serve it with, ready, forwards until it is
//! taken back.

use crate::blocking::blocking;
use crate::config::Config;
use crate::convert::{Finished, model_files, stage_config};
use crate::coordinator::fetch::SliceClient;
use crate::counters::Counters;
use crate::peers::arrivals::{Arrivals, Peer};
use crate::peers::dial::{Dialer, Greeted};
use crate::peers::forwards::{receive_forwards, receive_samplings};
use crate::peers::outbox::{Outbox, fault};
use crate::peers::results::{open_stream, send_results};
use crate::peers::samplings::Samplings;
use crate::stage::compute::{Compute, ForwardQueue, Seat};
use crate::stage::load::{Loader, StageFacts, memory_needed};
use crate::stage::progress;
use crate::stage::resident::Residents;
use crate::stage::timings::Timings;
use crate::units::show_size;
use crate::weights::model_files::ModelFiles;
use crate::weights::source::{self, Model, Places, SourceError};
use quinn::{Connection, SendStream};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio::task::JoinHandle;
use woolly_protocol::control::{Assign, PlanLinks, Ready, StageSpec, StreamPurpose};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::ids::PlanEpoch;
use woolly_protocol::windows::{forward_window, set_window};

/// How often the next stage is dialled before the link counts as failed: its worker listens since
/// before it joined, so one lost handshake is all that is to be expected.
const DIALS_MAX: u32 = 2;
/// Between two of them.
const DIAL_PAUSE: Duration = Duration::from_millis(500);

/// What every plan of this process works with.
#[derive(Debug)]
pub struct Context {
    /// The flags.
    pub config: Config,
    /// This machine, as in the hello.
    pub machine: [u8; 16],
    /// What is counted.
    pub counters: Arc<Counters>,
    /// How long forwards take.
    pub timings: Timings,
    /// The compute thread.
    pub compute: Compute,
    /// Makes stages for it.
    pub loader: Loader,
    /// What is in memory. Who loads holds the lock, so that one loads at a time: what is read beside
    /// each other disturbs the system's read-ahead.
    pub residents: Arc<Mutex<Residents>>,
    /// Streams from other workers and the coordinator.
    pub arrivals: Arc<Arrivals>,
    /// Connections to others.
    pub dialer: Arc<Dialer>,
    /// Where weights may be.
    pub places: Places,
}

/// The coordinator of the present conversation.
#[derive(Clone, Debug)]
pub struct Coordinator {
    /// The connection for control and forwards.
    pub connection: Connection,
    /// The address that was dialled.
    pub address: SocketAddr,
    /// What is written to the control stream.
    pub outbox: Outbox,
    /// What others dial to reach this worker.
    pub advertise: SocketAddr,
}

/// A plan in work. Dropping it empties its queues and wakes whoever waits for them; its stage is kept for
/// the next plan that wants the same.
#[derive(Debug)]
pub struct Plan {
    epoch: PlanEpoch,
    context: Arc<Context>,
    task: JoinHandle<()>,
}

impl Drop for Plan {
    fn drop(&mut self) {
        self.task.abort();
        self.context.arrivals.end(self.epoch);
        let compute = self.context.compute.clone();
        tokio::spawn(async move {
            let old = compute.outlived().await;
            blocking(move || drop(old)).await;
        });
    }
}

impl Plan {
    /// Begins to work on an assignment. Faults go to the coordinator's outbox.
    pub fn start(assign: Assign, context: Arc<Context>, coordinator: Coordinator) -> Plan {
        let epoch = assign.links.epoch;
        let sender = assign.links.previous.map_or(Peer::Coordinator, Peer::Worker);
        context.arrivals.begin(epoch, sender);
        let shared = Arc::clone(&context);
        let task = tokio::spawn(async move {
            let (Ok(fault) | Err(fault)) = serve(&assign, &shared, &coordinator).await;
            match fault.code {
                // The other end may have left in good order; the coordinator knows.
                FaultCode::LinkFailed => tracing::warn!("plan {epoch}: {}", fault.text),
                _ => tracing::error!("plan {epoch}: {}", fault.text),
            }
            coordinator.outbox.fault(fault).await;
        });
        Plan { epoch, context, task }
    }

    /// Whether it has failed and said so.
    pub fn has_failed(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends it and waits until its task has let go of everything; the compute thread may still be in
    /// the middle of a forward.
    pub async fn end(mut self) {
        self.task.abort();
        // That it was cancelled is what was wanted.
        let _ = (&mut self.task).await;
    }
}

/// Ends the display and the count of a load however it ends.
struct Loading<'a> {
    counters: &'a Counters,
    _watch: progress::Watch,
}

impl<'a> Loading<'a> {
    fn begin(links: &PlanLinks, counters: &'a Arc<Counters>) -> Loading<'a> {
        counters.begin_load(0);
        let what = format!("stage {} of {}", links.stage + 1, links.stage_count);
        Loading { counters, _watch: progress::watch(what, counters) }
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.counters.end_load();
    }
}

/// Works on an assignment until something ends it: the error if it never was ready, the value if it
/// was.
async fn serve(
    assign: &Assign,
    context: &Context,
    coordinator: &Coordinator,
) -> Result<FaultMessage, FaultMessage> {
    let started = Instant::now();
    let Assign { stage: spec, links, .. } = assign;
    let epoch = links.epoch;
    tracing::info!(
        "plan {epoch}: stage {} of {}, layers {} to {}",
        links.stage + 1,
        links.stage_count,
        spec.layer_first,
        spec.layer_end - 1
    );
    let failed = |text: String| fault(FaultCode::LoadFailed, epoch, named(context, &text));
    stage_config(spec).map_err(failed)?;
    // Before anything is fetched, so that a link that cannot be is known.
    let (send, _next) = open_out(assign, context, coordinator).await?;
    let seat = context.compute.seat(epoch).await;
    let (results, results_queue) = mpsc::channel(links.in_flight_max as usize);
    let (facts, fetched_bytes) = stage_for(assign, context, coordinator, &seat, results).await?;
    check_loaded(assign, facts).map_err(failed)?;
    let load_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let StageFacts { mapped_bytes, huge_bytes, kv_bytes, scratch_bytes, .. } = facts;
    let ready = Ready { epoch, mapped_bytes, kv_bytes, scratch_bytes, fetched_bytes, load_ms };
    tracing::info!(
        "plan {epoch}: ready after {load_ms} ms ({} mapped, {} of it in huge pages, {} KV, {} fetched)",
        show_size(mapped_bytes),
        huge_bytes.map_or("an unknown part".to_owned(), show_size),
        show_size(kv_bytes),
        show_size(fetched_bytes)
    );
    coordinator.outbox.send(&ready).await;
    let (samplings, outbox) = (Samplings::new(links.in_flight_max), &coordinator.outbox);
    let queue = seat.forwards(links.in_flight_max);
    Ok(tokio::select! {
        fault = forwards(assign, context, coordinator, &samplings, &queue) => fault,
        fault = collect_samplings(links, context, coordinator, &samplings) => fault,
        fault = send_results(send, results_queue, links, &context.timings, outbox) => fault,
    })
}

/// A text that says which worker speaks.
fn named(context: &Context, text: &str) -> String {
    format!("{}: {text}", context.config.name)
}

/// Has the plan served with a stage that is here, or else with one that is loaded; returns what it is and
/// how many bytes were fetched for it.
async fn stage_for(
    assign: &Assign,
    context: &Context,
    coordinator: &Coordinator,
    seat: &Seat,
    results: mpsc::Sender<Finished>,
) -> Result<(StageFacts, u64), FaultMessage> {
    let (mut residents, mut fetched_bytes) = (None, 0);
    loop {
        // First at once, then when this plan may load: another may have loaded the same meanwhile.
        if let Some(facts) = seat.take_over(&assign.stage, results.clone()).await {
            return Ok((facts, fetched_bytes));
        }
        residents = Some(match residents.take() {
            None => Arc::clone(&context.residents).lock_owned().await,
            Some(residents) => {
                let loaded = load(assign, context, coordinator, residents).await?;
                fetched_bytes += loaded.1;
                loaded.0
            }
        });
    }
}

/// Loads a stage and puts it where plans take it over. Goes on to its end once it reads in, even if the
/// plan ends: the next one may want it.
async fn load(
    assign: &Assign,
    context: &Context,
    coordinator: &Coordinator,
    mut residents: OwnedMutexGuard<Residents>,
) -> Result<(OwnedMutexGuard<Residents>, u64), FaultMessage> {
    let Assign { source, stage: spec, links } = assign;
    let failed = |code, text: &str| fault(code, links.epoch, named(context, text));
    let load_failed = |text: String| failed(FaultCode::LoadFailed, &text);
    let config = stage_config(spec).map_err(load_failed)?;
    let _loading = Loading::begin(links, &context.counters);
    let files = model_files(spec.fingerprint, source, &context.machine);
    let mut model =
        open(&files, spec, context, coordinator, &residents).await.map_err(|error| {
            let code = match error {
                SourceError::Model(_) => FaultCode::LoadFailed,
                SourceError::Slice(_) => FaultCode::SliceFailed,
            };
            failed(code, &error.to_string())
        })?;
    let needed = memory_needed(&model, &config);
    // What is locked counts against a limit that is not known here: nothing else is kept beside it.
    let short = if context.loader.locks() { u64::MAX } else { residents.shortage(needed) };
    let given = context.compute.give_away(short).await;
    let (loader, compute) = (context.loader.clone(), context.compute.clone());
    let (spec, fetched_bytes) = (spec.clone(), model.fetched_bytes);
    blocking(move || {
        drop(given);
        let short = residents.make_room(needed);
        if short > 0 {
            tracing::warn!("this stage takes {} more than there may be", show_size(short));
        }
        let files = std::mem::take(&mut model.files);
        let stage = loader.load(model, &config, |bytes| residents.reserve(bytes))?;
        residents.hold(spec.fingerprint, stage.weights(), files);
        compute.keep(spec, stage);
        Ok((residents, fetched_bytes))
    })
    .await
    .map_err(load_failed)
}

async fn open(
    files: &ModelFiles,
    spec: &StageSpec,
    context: &Context,
    coordinator: &Coordinator,
    residents: &Residents,
) -> Result<Model, SourceError> {
    let Context { dialer, places, counters, .. } = context;
    let slices = SliceClient::new(Arc::clone(dialer), coordinator.address, spec.fingerprint);
    let (slices, held) = (Arc::new(slices), residents.of(&spec.fingerprint));
    source::open(files, spec.layer_first..spec.layer_end, places, &slices, counters, &held).await
}

/// The coordinator's arithmetic and the file must agree about what this stage is.
fn check_loaded(assign: &Assign, facts: StageFacts) -> Result<(), String> {
    let Assign { stage: spec, links, .. } = assign;
    if (facts.is_first, facts.is_last) != (links.is_first(), links.is_last()) {
        return Err(format!(
            "layers {} to {} are not stage {} of {}: they begin or end elsewhere in the model",
            spec.layer_first,
            spec.layer_end - 1,
            links.stage + 1,
            links.stage_count
        ));
    }
    if facts.hidden != spec.hidden as usize {
        return Err(format!(
            "the model's hidden states have {} values, the plan says {}",
            facts.hidden, spec.hidden
        ));
    }
    Ok(())
}

/// Opens the stream that results go to; the connection to the next stage lives with what is
/// returned beside it.
async fn open_out(
    assign: &Assign,
    context: &Context,
    coordinator: &Coordinator,
) -> Result<(SendStream, Option<Greeted>), FaultMessage> {
    let Assign { stage: spec, links, .. } = assign;
    let failed = |text: String| fault(FaultCode::LinkFailed, links.epoch, text);
    let window = forward_window(spec.rows_max, spec.hidden, links.in_flight_max);
    let Some(next) = &links.next else {
        let connection = &coordinator.connection;
        let send = open_stream(connection, links.epoch, StreamPurpose::Results).await;
        let send = send.map_err(|error| failed(format!("the coordinator is gone: {error}")))?;
        return Ok((send, None));
    };
    let mut attempt = 1;
    let greeted = loop {
        match context.dialer.next_stage(next).await {
            Ok(greeted) => break greeted,
            Err(_) if attempt < DIALS_MAX => tokio::time::sleep(DIAL_PAUSE).await,
            Err(error) => {
                return Err(failed(format!(
                    "worker {} ({}) cannot reach worker {} ({}), the next stage: {error}; start {} \
                     with --listen and --advertise set to an address that {} reaches, and let UDP \
                     through to it",
                    context.config.name,
                    coordinator.advertise,
                    next.name,
                    next.address,
                    next.name,
                    context.config.name
                )));
            }
        }
        attempt += 1;
    };
    set_window(&greeted.connection, window);
    let send = open_stream(&greeted.connection, links.epoch, StreamPurpose::Forwards).await;
    let send = send.map_err(|error| {
        failed(format!("the link to worker {} ({}) broke: {error}", next.name, next.address))
    })?;
    Ok((send, Some(greeted)))
}

async fn forwards(
    assign: &Assign,
    context: &Context,
    coordinator: &Coordinator,
    samplings: &Samplings,
    queue: &ForwardQueue,
) -> FaultMessage {
    let Assign { stage: spec, links, .. } = assign;
    let from = links.previous.map_or(Peer::Coordinator, Peer::Worker);
    let stream = context.arrivals.take(links.epoch, StreamPurpose::Forwards, from).await;
    let width = if links.is_first() { 1 } else { spec.hidden };
    set_window(&stream.connection, forward_window(spec.rows_max, width, links.in_flight_max));
    receive_forwards(stream, assign, samplings, queue, &coordinator.outbox).await
}

async fn collect_samplings(
    links: &PlanLinks,
    context: &Context,
    coordinator: &Coordinator,
    samplings: &Samplings,
) -> FaultMessage {
    if links.next.is_some() {
        return std::future::pending().await;
    }
    let purpose = StreamPurpose::Samplings;
    let stream = context.arrivals.take(links.epoch, purpose, Peer::Coordinator).await;
    receive_samplings(stream, links.epoch, samplings, &coordinator.outbox).await
}
