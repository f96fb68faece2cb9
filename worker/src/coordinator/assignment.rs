//! One plan on this worker: link to the next stage, a stage to serve it with, ready, forwards until it is
//! taken back.

use super::context::{Context, Coordinator};
use super::loading::stage_for;
use crate::convert::stage_config;
use crate::peers::arrivals::Peer;
use crate::peers::dial::Greeted;
use crate::peers::forwards::{receive_forwards, receive_samplings};
use crate::peers::outbox::{fault, link_fault};
use crate::peers::results::{open_stream, send_results};
use crate::peers::samplings::Samplings;
use crate::stage::compute::ForwardQueue;
use crate::stage::held::HeldStage;
use crate::stage::load::StageFacts;
use crate::units::show_size;
use quinn::SendStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;
use woolly_protocol::control::{Assign, Neighbour, PlanLinks, Ready, StreamPurpose};
use woolly_protocol::failpoint;
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::forward::CacheLimits;
use woolly_protocol::ids::PlanEpoch;
use woolly_protocol::windows::{forward_window, set_window};

/// How long the next stage is dialled before the link counts as failed: its worker listens since before it
/// joined, and others may do what it was to do.
const DIAL_TIME: Duration = Duration::from_millis(2500);
/// Between two of them.
const DIAL_PAUSE: Duration = Duration::from_millis(500);

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
        self.context.standing.over(self.epoch);
        self.context.compute.forget_later();
    }
}

impl Plan {
    /// Begins to work on an assignment. Faults go to the coordinator's outbox.
    pub fn start(assign: Assign, context: Arc<Context>, coordinator: Coordinator) -> Plan {
        let epoch = assign.links.epoch;
        let sender = assign.links.previous.map_or(Peer::Coordinator, Peer::Worker);
        context.arrivals.begin(epoch, sender);
        context.standing.assigned(&assign.stage, &assign.links);
        let shared = Arc::clone(&context);
        let task = tokio::spawn(async move {
            let (Ok(fault) | Err(fault)) = serve(&assign, &shared, &coordinator).await;
            shared.standing.over(epoch);
            match fault.code {
                // The other end may have left in good order; the coordinator knows.
                FaultCode::LinkFailed => tracing::warn!("plan {epoch}: {}", fault.text),
                _ => tracing::error!("plan {epoch}: {}", fault.text),
            }
            shared.counters.failed.fetch_add(1, Relaxed);
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
    let failed = |text: String| fault(FaultCode::LoadFailed, epoch, context.named(&text));
    stage_config(spec).map_err(failed)?;
    // Before anything is fetched, so that a link that cannot be is known.
    let (send, next) = open_out(assign, context, coordinator).await?;
    let _counted = next
        .as_ref()
        .zip(links.next.as_ref())
        .map(|(greeted, next)| context.traffic.count(next.worker.hex(), &greeted.connection));
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
    failpoint::hit("worker.loaded");
    context.standing.loaded(epoch);
    coordinator.outbox.send(&ready).await;
    let (samplings, outbox) = (Samplings::new(links.in_flight_max), &coordinator.outbox);
    let queue = seat.forwards(links.in_flight_max);
    let _held = context.held.begin(epoch, held(assign, facts, &queue));
    Ok(tokio::select! {
        fault = forwards(assign, context, coordinator, &samplings, &queue) => fault,
        fault = collect_samplings(links, context, coordinator, &samplings) => fault,
        fault = send_results(send, results_queue, links, &context.timings, outbox) => fault,
    })
}

/// What is told of the stage while it serves.
fn held(assign: &Assign, facts: StageFacts, queue: &ForwardQueue) -> HeldStage {
    let Assign { stage: spec, links, .. } = assign;
    let blocks = spec.caches.iter().map(|cache| match cache {
        CacheLimits::Blocks(limits) => u64::from(limits.count),
        CacheLimits::Slots(_) => 0,
    });
    HeldStage {
        stage: links.stage,
        layers: (spec.layer_first, spec.layer_end),
        weights_bytes: facts.mapped_bytes,
        kv_bytes: facts.kv_bytes,
        kv_blocks: blocks.sum(),
        places: (queue.places(), links.in_flight_max as usize),
    }
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
    let about = links.next.as_ref().map(|next| next.worker);
    let failed = |text: String| link_fault(about, links.epoch, text);
    let window = forward_window(spec.rows_max, spec.hidden, links.in_flight_max);
    let Some(next) = &links.next else {
        let connection = &coordinator.connection;
        let send = open_stream(connection, links.epoch, StreamPurpose::Results).await;
        let send = send.map_err(|error| failed(format!("the coordinator is gone: {error}")))?;
        return Ok((send, None));
    };
    let greeted = dial(next, context).await.map_err(|why| {
        let (ours, theirs) = (&context.config.name, &next.name);
        failed(format!(
            "worker {ours} ({}) cannot reach worker {theirs} ({}), the next stage: {why}; start {theirs} \
             with --listen and --advertise set to an address that {ours} reaches, and let UDP through \
             to it",
            coordinator.advertise, next.address
        ))
    })?;
    set_window(&greeted.connection, window);
    let send = open_stream(&greeted.connection, links.epoch, StreamPurpose::Forwards).await;
    let send = send.map_err(|error| {
        failed(format!("the link to worker {} ({}) broke: {error}", next.name, next.address))
    })?;
    Ok((send, Some(greeted)))
}

/// Dials the next stage until it answers, for [`DIAL_TIME`] at most; the error says what came of it.
async fn dial(next: &Neighbour, context: &Context) -> Result<Greeted, String> {
    let until = tokio::time::Instant::now() + DIAL_TIME;
    let mut why = None;
    loop {
        match timeout_at(until, context.dialer.next_stage(next)).await {
            Ok(Ok(greeted)) => return Ok(greeted),
            Ok(Err(error)) => why = Some(error.to_string()),
            Err(_) => {
                let silence = format!("no answer within {} s", DIAL_TIME.as_secs_f32());
                return Err(why.unwrap_or(silence));
            }
        }
        tokio::time::sleep(DIAL_PAUSE).await;
    }
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
