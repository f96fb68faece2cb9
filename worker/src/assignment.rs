//! One plan on this worker: link to the next stage, load, say ready, compute until it is taken back.

use crate::arrivals::{Arrivals, Peer};
use crate::compute::{Compute, Load, Loaded};
use crate::config::Config;
use crate::convert::{model_files, stage_config};
use crate::counters::Counters;
use crate::dial::{Dialer, Greeted};
use crate::fetch::SliceClient;
use crate::link;
use crate::outbox::{Outbox, fault};
use crate::progress;
use crate::samplings::Samplings;
use crate::source::{self, Places, SourceError};
use crate::timings::Timings;
use crate::units::show_size;
use quinn::{Connection, SendStream};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use woolly_protocol::control::{Assign, Ready, StreamPurpose};
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
    /// The compute thread.
    pub compute: Compute,
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

/// A plan in work. Dropping it empties its queues, wakes whoever waits for them and has the stage
/// unloaded.
#[derive(Debug)]
pub struct Plan {
    /// Its epoch.
    pub epoch: PlanEpoch,
    /// How long its forwards take.
    pub timings: Arc<Timings>,
    live: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Plan {
    fn drop(&mut self) {
        self.live.store(false, SeqCst);
        self.task.abort();
    }
}

impl Plan {
    /// Ends it and waits until its task has let go of everything; the compute thread may still be in
    /// the middle of a forward.
    pub async fn end(mut self) {
        self.live.store(false, SeqCst);
        self.task.abort();
        // That it was cancelled is what was wanted.
        let _ = (&mut self.task).await;
    }

    /// Begins to work on an assignment. Faults go to the coordinator's outbox.
    pub fn start(assign: Assign, context: Arc<Context>, coordinator: Coordinator) -> Plan {
        let epoch = assign.epoch;
        let live = Arc::new(AtomicBool::new(true));
        let held = Arc::clone(&live);
        let timings = Arc::new(Timings::default());
        let measured = Arc::clone(&timings);
        let task = tokio::spawn(async move {
            let fault = match hold(&assign, &context, &coordinator, &measured, &held).await {
                Ok(fault) | Err(fault) => fault,
            };
            // Nothing more is computed for this plan, whatever is still queued.
            held.store(false, SeqCst);
            match fault.code {
                // The other end may have left in good order; the coordinator knows.
                FaultCode::LinkFailed => tracing::warn!("plan {epoch}: {}", fault.text),
                _ => tracing::error!("plan {epoch}: {}", fault.text),
            }
            coordinator.outbox.fault(fault).await;
        });
        Plan { epoch, timings, live, task }
    }
}

/// Ends the display and the count of a load however it ends.
struct Loading<'a> {
    counters: &'a Counters,
    _watch: progress::Watch,
}

impl<'a> Loading<'a> {
    fn begin(assign: &Assign, counters: &'a Arc<Counters>) -> Loading<'a> {
        counters.begin_load(0);
        let what = format!("stage {} of {}", assign.stage + 1, assign.stage_count);
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
async fn hold(
    assign: &Assign,
    context: &Context,
    coordinator: &Coordinator,
    timings: &Timings,
    live: &Arc<AtomicBool>,
) -> Result<FaultMessage, FaultMessage> {
    let started = Instant::now();
    let (layers, epoch) = (assign.layer_first..assign.layer_end, assign.epoch);
    tracing::info!(
        "plan {epoch}: stage {} of {}, layers {} to {}",
        assign.stage + 1,
        assign.stage_count,
        layers.start,
        layers.end - 1
    );
    // First, so that a link that cannot be is known before anything is fetched.
    let (send, _next) = open_out(assign, context, coordinator).await?;
    let loading = Loading::begin(assign, &context.counters);
    let files = model_files(assign, &context.machine);
    let slices =
        SliceClient::new(Arc::clone(&context.dialer), coordinator.address, assign.fingerprint);
    let slices = Arc::new(slices);
    let model = source::open(&files, layers, &context.places, &slices, &context.counters)
        .await
        .map_err(|error| {
            let code = match error {
                SourceError::Model(_) => FaultCode::LoadFailed,
                SourceError::Slice(_) => FaultCode::SliceFailed,
            };
            fault(code, epoch, format!("{}: {error}", context.config.name))
        })?;
    drop(slices);
    let in_flight = assign.in_flight_max as usize;
    let (work, work_queue) = mpsc::channel(in_flight);
    let (results, results_queue) = mpsc::channel(in_flight);
    let (loaded, is_loaded) = oneshot::channel();
    let fetched_bytes = model.fetched_bytes;
    let (config, live) = (stage_config(assign), Arc::clone(live));
    let pages = context.config.pages;
    let load = Load { model, config, pages, work: work_queue, results, loaded, live };
    context.compute.load(load).await;
    let loaded = is_loaded
        .await
        .unwrap_or_else(|_| Err("the compute thread has ended".to_owned()))
        .and_then(|loaded| check_loaded(assign, loaded))
        .map_err(|text| {
            fault(FaultCode::LoadFailed, epoch, format!("{}: {text}", context.config.name))
        })?;
    drop(loading);
    let load_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Loaded { mapped_bytes, huge_bytes, kv_bytes, scratch_bytes, .. } = loaded;
    let ready = Ready { epoch, mapped_bytes, kv_bytes, scratch_bytes, fetched_bytes, load_ms };
    tracing::info!(
        "plan {epoch}: ready after {load_ms} ms ({} mapped, {} of it in huge pages, {} KV, {} fetched)",
        show_size(mapped_bytes),
        huge_bytes.map_or("an unknown part".to_owned(), show_size),
        show_size(kv_bytes),
        show_size(fetched_bytes)
    );
    coordinator.outbox.send(&ready).await;
    let samplings = Samplings::new(assign.in_flight_max);
    let outbox = &coordinator.outbox;
    Ok(tokio::select! {
        fault = forwards(assign, context, coordinator, &samplings, work) => fault,
        fault = collect_samplings(assign, context, coordinator, &samplings) => fault,
        fault = link::send_results(send, results_queue, assign, timings, outbox) => fault,
    })
}

/// The coordinator's arithmetic and the file must agree about what this stage is.
fn check_loaded(assign: &Assign, loaded: Loaded) -> Result<Loaded, String> {
    let (first, last) = (assign.stage == 0, assign.stage + 1 == assign.stage_count);
    if (loaded.is_first, loaded.is_last) != (first, last) {
        return Err(format!(
            "layers {} to {} are not stage {} of {}: they begin or end elsewhere in the model",
            assign.layer_first,
            assign.layer_end - 1,
            assign.stage + 1,
            assign.stage_count
        ));
    }
    if loaded.hidden != assign.hidden as usize {
        return Err(format!(
            "the model's hidden states have {} values, the plan says {}",
            loaded.hidden, assign.hidden
        ));
    }
    Ok(loaded)
}

/// Opens the stream that results go to; the connection to the next stage lives with what is
/// returned beside it.
async fn open_out(
    assign: &Assign,
    context: &Context,
    coordinator: &Coordinator,
) -> Result<(SendStream, Option<Greeted>), FaultMessage> {
    let failed = |text: String| fault(FaultCode::LinkFailed, assign.epoch, text);
    let window = forward_window(assign.rows_max, assign.hidden, assign.in_flight_max);
    let Some(next) = &assign.next else {
        let connection = &coordinator.connection;
        let send = link::open_stream(connection, assign.epoch, StreamPurpose::Results).await;
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
    let send = link::open_stream(&greeted.connection, assign.epoch, StreamPurpose::Forwards).await;
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
    work: mpsc::Sender<crate::convert::Work>,
) -> FaultMessage {
    let from = assign.previous.map_or(Peer::Coordinator, Peer::Worker);
    let stream = context.arrivals.take(assign.epoch, StreamPurpose::Forwards, from).await;
    let width = if assign.stage == 0 { 1 } else { assign.hidden };
    set_window(&stream.connection, forward_window(assign.rows_max, width, assign.in_flight_max));
    link::receive_forwards(stream, assign, samplings, work, &coordinator.outbox).await
}

async fn collect_samplings(
    assign: &Assign,
    context: &Context,
    coordinator: &Coordinator,
    samplings: &Samplings,
) -> FaultMessage {
    if assign.next.is_some() {
        return std::future::pending().await;
    }
    let purpose = StreamPurpose::Samplings;
    let stream = context.arrivals.take(assign.epoch, purpose, Peer::Coordinator).await;
    link::receive_samplings(stream, assign.epoch, samplings, &coordinator.outbox).await
}
