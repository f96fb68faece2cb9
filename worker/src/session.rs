//! One conversation with the coordinator: hello, heartbeats, plans, until one side ends it.

use crate::arrivals::Peer;
use crate::assignment::{Context, Coordinator, Plan};
use crate::compute::Measured;
use crate::convert;
use crate::dial::{DialFailure, Greeted};
use crate::link;
use crate::outbox::Outbox;
use crate::shutdown::{Order, Shutdown};
use crate::system;
use crate::timings::Timings;
use quinn::{SendStream, VarInt};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use woolly_protocol::control::{Assign, Drain, Heartbeat, Hello, Release, Welcome};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::frame::{EncodedFrame, Frame, FrameError};
use woolly_protocol::frame_io::{FrameReader, write_frame};
use woolly_protocol::ids::{MicrobatchId, PlanEpoch};
use woolly_protocol::kind::Kind;
use woolly_protocol::rate::FrameRate;

/// Time in which the coordinator must have answered the hello.
const WELCOME_TIME: Duration = Duration::from_secs(10);
/// Time that the coordinator has to take the stage back when this worker leaves.
const DRAIN_TIME: Duration = Duration::from_secs(5);
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

/// Converses with the coordinator at `address` until something ends it. The plan in work ends with
/// it.
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
    tracing::info!("joined the cluster of {address} as {}", context.config.name);
    let (outbox, queued) = Outbox::new();
    let mut writer = tokio::spawn(write_all(send, queued));
    let coordinator =
        Coordinator { connection: connection.clone(), address, outbox: outbox.clone(), advertise };
    let mut session = Session { context, coordinator, plan: None, newest: PlanEpoch(0) };
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
        error = link::receive_streams(&connection, from, arrivals, Some(&outbox)) => {
            lost(FrameError::Connection(error).into(), true)
        }
    };
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
        memory_bytes: config.memory.or_else(system::memory_allowance).unwrap_or(1),
        memory_is_own: config.memory.is_some(),
        kv_memory_bytes: config.kv_memory.unwrap_or(0),
        read_bytes_per_s: measured.read_bytes_per_s,
        macs_per_s: measured.macs_per_s,
        isa: config.simd.name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        local: config.child,
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
    plan: Option<Plan>,
    /// The newest epoch that the coordinator has named.
    newest: PlanEpoch,
}

impl Session<'_> {
    /// Reads and beats until the stream breaks (the error) or this worker has left (`None`).
    async fn run(
        &mut self,
        reader: &mut FrameReader,
        beat: Duration,
        shutdown: &mut Shutdown,
    ) -> Option<FrameError> {
        const ACCEPT: [Kind; 4] = [Kind::Assign, Kind::Release, Kind::Heartbeat, Kind::Drain];
        let mut beats = interval(beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rate = FrameRate::default();
        let mut leaving = None;
        let mut stop = shutdown.clone();
        loop {
            if leaving.is_some() && self.plan.is_none() {
                return None;
            }
            let timings = self.plan.as_ref().map(|plan| Arc::clone(&plan.timings));
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
                _ = beats.tick() => self.beat(),
                () = enough(timings) => self.beat(),
                order = shutdown.ordered(), if leaving.is_none() => {
                    let Order::Drain(reason) = order else { return None };
                    self.coordinator.outbox.send(&Drain { reason: reason.to_owned() }).await;
                    leaving = Some(Box::pin(tokio::time::sleep(DRAIN_TIME)));
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
            Kind::Drain => {
                let drain: Drain = frame.message()?;
                tracing::info!("the coordinator leaves: {}", drain.reason);
            }
            _ => {
                // Its coming is all that counts, and the connection's idle time-out watches that.
                let _: Heartbeat = frame.message()?;
            }
        }
        Ok(())
    }

    async fn assign(&mut self, assign: Assign) {
        if assign.epoch <= self.newest {
            let text = format!("plan {} was assigned after plan {}", assign.epoch, self.newest);
            let (code, microbatch) = (FaultCode::WrongEpoch, MicrobatchId(0));
            let fault = FaultMessage { code, epoch: assign.epoch, microbatch, text };
            self.coordinator.outbox.fault(fault).await;
            return;
        }
        self.newest = assign.epoch;
        let sender = assign.previous.map_or(Peer::Coordinator, Peer::Worker);
        self.context.arrivals.begin(assign.epoch, sender);
        if let Some(plan) = self.plan.take() {
            plan.end().await;
        }
        let context = Arc::clone(self.context);
        self.plan = Some(Plan::start(assign, context, self.coordinator.clone()));
    }

    async fn release(&mut self, release: Release) {
        if let Some(plan) = self.plan.take_if(|plan| plan.epoch <= release.epoch) {
            tracing::info!("plan {} is over", release.epoch);
            plan.end().await;
        }
        self.newest = self.newest.max(release.epoch);
        self.context.arrivals.retire_before(PlanEpoch(self.newest.0.saturating_add(1)));
    }

    fn beat(&self) {
        self.coordinator.outbox.try_send(|| self.heartbeat());
    }

    fn heartbeat(&self) -> Heartbeat {
        let counters = &self.context.counters;
        let (load_done, load_total) = counters.load();
        Heartbeat {
            epoch: self.plan.as_ref().map_or(PlanEpoch(0), |plan| plan.epoch),
            microbatch: MicrobatchId(counters.microbatch.load(Relaxed)),
            progress: counters.pulse(),
            load_done,
            load_total,
            forwards: counters.forwards.load(Relaxed),
            timings: self.plan.as_ref().map(|plan| plan.timings.take()).unwrap_or_default(),
        }
    }
}

/// Waits until a plan has timings for a heartbeat of their own.
async fn enough(timings: Option<Arc<Timings>>) {
    match timings {
        Some(timings) => timings.enough().await,
        None => std::future::pending().await,
    }
}

async fn wait(sleep: &mut Option<std::pin::Pin<Box<tokio::time::Sleep>>>) {
    match sleep {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}
