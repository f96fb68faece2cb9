//! One conversation with the coordinator: hello, heartbeats, plans, until one side ends it.

use super::assignment::Plan;
use super::context::{Context, Coordinator};
use super::renewal::Renewal;
use crate::convert;
use crate::counters::Counters;
use crate::peers::accept::receive_streams;
use crate::peers::arrivals::Peer;
use crate::peers::dial::{DialFailure, Greeted};
use crate::peers::outbox::{Outbox, fault};
use crate::shutdown::{Order, Shutdown};
use crate::stage::load::Measured;
use quinn::{SendStream, VarInt};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use woolly_protocol::control::{
    Assign, Drain, ForwardTiming, Heartbeat, Hello, PlanReport, Release, Welcome,
};
use woolly_protocol::fault::FaultCode;
use woolly_protocol::frame::{EncodedFrame, Frame, FrameError};
use woolly_protocol::frame_io::{FrameReader, write_frame};
use woolly_protocol::gone::{GONE, gone};
use woolly_protocol::ids::{MicrobatchId, PlanEpoch};
use woolly_protocol::join::Removed;
use woolly_protocol::kind::Kind;
use woolly_protocol::limits::LIVE_PLANS_MAX;
use woolly_protocol::rate::FrameRate;

/// Time in which the coordinator must have answered the hello.
const WELCOME_TIME: Duration = Duration::from_secs(10);
/// Time for the last words on the control stream.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// How a conversation ended.
#[derive(Debug)]
pub enum Ended {
    /// This worker was told to end.
    Shutdown,
    /// The other side is gone, or was never there.
    Lost {
        /// What happened, as a sentence.
        why: DialFailure,
        /// Whether the coordinator had welcomed this worker.
        was_welcome: bool,
    },
}

/// Converses with the coordinator at `address` until something ends it. The plans in work end with it;
/// what was loaded for them stays.
pub async fn converse(
    context: &Arc<Context>,
    greeted: Greeted,
    address: SocketAddr,
    own: (SocketAddr, Measured),
    shutdown: &mut Shutdown,
) -> Ended {
    let lost = |why: DialFailure, was_welcome| Ended::Lost { why, was_welcome };
    let (advertise, measured) = own;
    let Greeted { connection, mut send, recv } = greeted;
    let mut reader = FrameReader::new(recv);
    context.arrivals.clear();
    // The coordinator tells it anew.
    context.removed.set(Vec::new());
    let hello = hello(context, advertise, measured);
    let welcome = tokio::select! {
        welcome = introduce(&mut send, &mut reader, &hello) => welcome,
        _ = shutdown.ordered() => return Ended::Shutdown,
    };
    let welcome = match welcome {
        Ok(welcome) => welcome,
        Err(error) => return lost(error.into(), false),
    };
    if welcome.cluster != context.dialer.identity().cluster() {
        let why = "the coordinator names another cluster than its certificate".to_owned();
        return lost(DialFailure::Untrusted(why), false);
    }
    let _counted = context.traffic.count("coordinator".to_owned(), &connection);
    context.counters.connected.store(1, Relaxed);
    tracing::info!("joined the cluster of {address} as {}", context.config.name);
    context.standing.joined();
    context.notifier.status(&format!("in the cluster of {address} as {}", context.config.name));
    let (outbox, queued) = Outbox::new();
    let mut writer = tokio::spawn(write_all(send, queued));
    let coordinator =
        Coordinator { connection: connection.clone(), address, outbox: outbox.clone(), advertise };
    // Those of the conversation before are nobody's.
    context.timings.take();
    let (plans, renewal) = (BTreeMap::new(), Renewal::default());
    let mut session = Session { context, coordinator, plans, renewal, beats: 0, heard: 0 };
    let beat = Duration::from_millis(welcome.heartbeat_ms.into());
    let (from, arrivals) = (Peer::Coordinator, &context.arrivals);
    let ended = tokio::select! {
        error = session.run(&mut reader, beat, shutdown) => match error {
            None => Ended::Shutdown,
            Some(error) => lost(error.into(), true),
        },
        written = &mut writer => match written {
            Ok(error) => lost(error.unwrap_or(FrameError::WriteStalled(0)).into(), true),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        },
        error = receive_streams(&connection, from, arrivals, Some(&outbox)) => {
            lost(FrameError::Connection(error).into(), true)
        }
        () = gone(&connection) => lost(DialFailure::Unreachable(GONE.to_owned()), true),
    };
    context.counters.connected.store(0, Relaxed);
    session.end_all().await;
    drop((session, outbox));
    if matches!(ended, Ended::Shutdown) {
        // The writer ends when it has written what is queued. The coordinator may be gone already;
        // then there is nobody to say good-bye to.
        let _ = timeout(FAREWELL_TIME, &mut writer).await;
    }
    writer.abort();
    connection.close(VarInt::from_u32(0), b"");
    ended
}

fn hello(context: &Context, advertise: SocketAddr, measured: Measured) -> Hello {
    let config = &context.config;
    Hello {
        name: config.name.clone(),
        machine: context.machine,
        advertise: advertise.to_string(),
        numerics: convert::numerics(),
        threads: config.threads,
        memory_bytes: config.allowance(),
        memory_is_own: config.memory.is_some(),
        kv_memory_bytes: config.kv_memory.unwrap_or(0),
        read_bytes_per_s: measured.read_bytes_per_s,
        macs_per_s: measured.macs_per_s,
        isa: config.simd.name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        local: config.child,
        weights_from_disk: config.weights_from_disk,
        host: context.host,
        time_ms: context.dialer.identity().clock().unix_ms(),
    }
}

async fn introduce(
    send: &mut SendStream,
    reader: &mut FrameReader,
    hello: &Hello,
) -> Result<Welcome, FrameError> {
    write_frame(send, EncodedFrame::new(hello)?).await?;
    match timeout(WELCOME_TIME, reader.read(&[Kind::Welcome])).await {
        Ok(Ok(Some(frame))) => frame.message(),
        Ok(Ok(None)) => Err(FrameError::Truncated { expected: 1, found: 0 }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(FrameError::ReadStalled(WELCOME_TIME.as_secs())),
    }
}

/// Writes what is queued until nobody can queue any more (`None`) or the stream breaks.
async fn write_all(
    mut send: SendStream,
    mut queued: mpsc::Receiver<EncodedFrame>,
) -> Option<FrameError> {
    while let Some(frame) = queued.recv().await {
        if let Err(error) = write_frame(&mut send, frame).await {
            return Some(error);
        }
    }
    if send.finish().is_ok() {
        // Until the other side has it all; the caller does not wait for long.
        let _ = send.stopped().await;
    }
    None
}

struct Session<'a> {
    context: &'a Arc<Context>,
    coordinator: Coordinator,
    plans: BTreeMap<PlanEpoch, Plan>,
    renewal: Renewal,
    /// Heartbeats sent.
    beats: u64,
    /// The number of the coordinator's last heartbeat; 0 before the first.
    heard: u64,
}

impl Session<'_> {
    /// Reads and beats until the stream breaks (the error) or this worker has left (`None`).
    async fn run(
        &mut self,
        reader: &mut FrameReader,
        beat: Duration,
        shutdown: &mut Shutdown,
    ) -> Option<FrameError> {
        const ACCEPT: [Kind; 6] = [
            Kind::Assign,
            Kind::Release,
            Kind::Heartbeat,
            Kind::Drain,
            Kind::Removed,
            Kind::JoinAccepted,
        ];
        let mut beats = interval(beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rate = FrameRate::default();
        let mut leaving = None;
        let mut stop = shutdown.clone();
        loop {
            if leaving.is_some() && self.plans.is_empty() {
                return None;
            }
            let timings = &self.context.timings;
            tokio::select! {
                read = reader.read(&ACCEPT) => match read {
                    Ok(Some(frame)) => {
                        if let Err(error) = rate.count(Instant::now()) {
                            return Some(error);
                        }
                        if let Err(error) = self.handle(&frame).await {
                            return Some(error);
                        }
                    }
                    Ok(None) => return Some(FrameError::Truncated { expected: 1, found: 0 }),
                    Err(error) => return Some(error),
                },
                _ = beats.tick() => {
                    self.beat();
                    let Session { renewal, context, coordinator, .. } = self;
                    renewal.ask_if_due(context, &coordinator.outbox).await;
                }
                () = timings.enough() => self.beat(),
                order = shutdown.ordered(), if leaving.is_none() => {
                    let Order::Drain(reason) = order else { return None };
                    self.coordinator.outbox.send(&Drain { reason: reason.to_owned() }).await;
                    leaving = Some(Box::pin(tokio::time::sleep(self.context.config.leave_timeout)));
                }
                () = stop.stopped() => return None,
                () = wait(&mut leaving) => return None,
            }
        }
    }

    async fn handle(&mut self, frame: &Frame) -> Result<(), FrameError> {
        match frame.kind() {
            Kind::Assign => self.assign(frame.message()?).await,
            Kind::Release => self.release(frame.message()?).await,
            Kind::Removed => self.context.removed.set(frame.message::<Removed>()?.workers),
            Kind::JoinAccepted => self.renewal.answered(self.context, &frame.message()?).await,
            Kind::Drain => {
                let drain: Drain = frame.message()?;
                tracing::info!("the coordinator leaves: {}", drain.reason);
            }
            _ => {
                // Of its coming the connection's idle time-out takes care.
                let heartbeat: Heartbeat = frame.message()?;
                self.heard = heartbeat.number;
            }
        }
        Ok(())
    }

    async fn assign(&mut self, assign: Assign) {
        // Those that have failed are over, whether the coordinator has said so yet or not.
        self.plans.retain(|_, plan| !plan.has_failed());
        let epoch = assign.links.epoch;
        let refusal = if self.plans.contains_key(&epoch) {
            Some((FaultCode::BadMessage, format!("plan {epoch} was assigned twice")))
        } else if self.plans.len() >= LIVE_PLANS_MAX {
            let text = format!("this worker has {LIVE_PLANS_MAX} plans, as many as it takes");
            Some((FaultCode::LoadFailed, text))
        } else {
            None
        };
        if let Some((code, text)) = refusal {
            self.coordinator.outbox.fault(fault(code, epoch, text)).await;
            return;
        }
        let context = Arc::clone(self.context);
        self.plans.insert(epoch, Plan::start(assign, context, self.coordinator.clone()));
    }

    async fn release(&mut self, release: Release) {
        if let Some(plan) = self.plans.remove(&release.epoch) {
            tracing::info!("plan {} is over", release.epoch);
            plan.end().await;
            let context = Arc::clone(self.context);
            // Who loads holds the lock: not in the way of what comes next.
            tokio::spawn(async move { context.keep_within_allowance().await });
        }
    }

    async fn end_all(&mut self) {
        while let Some((_, plan)) = self.plans.pop_first() {
            plan.end().await;
        }
    }

    fn beat(&mut self) {
        let Self { context, plans, beats, heard, coordinator, .. } = self;
        coordinator.outbox.try_send(|| {
            plans.retain(|_, plan| !plan.has_failed());
            *beats += 1;
            let live = plans.keys().copied();
            heartbeat(&context.counters, (*beats, *heard), reports(live, context.timings.take()))
        });
    }
}

/// What is said of the plans that are live; timings of others are nobody's.
fn reports(
    live: impl Iterator<Item = PlanEpoch>,
    timings: Vec<(PlanEpoch, ForwardTiming)>,
) -> Vec<PlanReport> {
    let mut reports: Vec<PlanReport> =
        live.map(|epoch| PlanReport { epoch, timings: Vec::new() }).collect();
    for (epoch, timing) in timings {
        if let Some(report) = reports.iter_mut().find(|report| report.epoch == epoch) {
            report.timings.push(timing);
        }
    }
    reports
}

fn heartbeat(counters: &Counters, (number, echo): (u64, u64), plans: Vec<PlanReport>) -> Heartbeat {
    let (load_done, load_total) = counters.load();
    Heartbeat {
        number,
        echo,
        microbatch: MicrobatchId(counters.microbatch.load(Relaxed)),
        progress: counters.pulse(),
        load_done,
        load_total,
        forwards: counters.forwards.load(Relaxed),
        mappings: counters.mappings.load(Relaxed),
        populated_bytes: counters.populated.load(Relaxed),
        plans,
    }
}

async fn wait(sleep: &mut Option<std::pin::Pin<Box<tokio::time::Sleep>>>) {
    match sleep {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}
