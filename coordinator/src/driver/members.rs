//! The workers as the driver sees them: each one's link, and the cluster core that decides.

use super::pipeline::{Broken, Pipeline};
use crate::cluster::{Action, Cluster, ClusterConfig};
use crate::events::Happening;
use crate::links::{HEARTBEAT_MS, Link, LinkEvent, News, SendError};
use crate::metrics::Departure;
use crate::snapshot::WorkerSnapshot;
use crate::trust::exclusions::{Exclusions, Known};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use woolly_protocol::certificate::ClusterId;
use woolly_protocol::clock::{CLOCKS_APART, Clock, show_utc};
use woolly_protocol::control::{Heartbeat, Hello, Welcome};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::frame::Message;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, WorkerId};
use woolly_protocol::refusal::{Refusal, RefusalCode};
use woolly_protocol::sampling::Sampled;

/// A worker that was silent for three heartbeats gives way to one with the same certificate: it was
/// restarted, and its old connection has not timed out yet.
const GIVES_WAY_AFTER: Duration = Duration::from_millis(3 * HEARTBEAT_MS as u64);

/// Links and the cluster core.
#[derive(Debug)]
pub struct Members {
    id: ClusterId,
    links: BTreeMap<WorkerId, Member>,
    pub(super) cluster: Cluster,
    /// Who came and went, to be told.
    news: Vec<Happening>,
    /// How workers went, to be counted.
    departures: Vec<Departure>,
    exclusions: Arc<Exclusions>,
    clock: Clock,
}

/// A worker's link, and when something was last heard on it.
#[derive(Debug)]
struct Member {
    link: Link,
    name: String,
    host: [u8; 16],
    heard_at: Duration,
    /// How far its clock is ahead of ours in milliseconds, if that is too far.
    clock_ahead_ms: Option<i64>,
}

/// What a worker says to a lane.
#[derive(Debug)]
pub enum Report {
    /// The answer of the last stage.
    Sampled(WorkerId, Sampled),
    /// How it is, and how long forwards of its plans took.
    Heartbeat(WorkerId, Heartbeat),
}

impl Members {
    /// No workers yet.
    pub fn new(
        config: ClusterConfig,
        id: ClusterId,
        exclusions: Arc<Exclusions>,
        clock: Clock,
    ) -> Members {
        let (links, news, departures) = (BTreeMap::new(), Vec::new(), Vec::new());
        let cluster = Cluster::new(config);
        Members { id, links, cluster, news, departures, exclusions, clock }
    }

    /// Takes in what a link tells. What is for a lane is given back.
    pub fn handle_event(&mut self, now: Duration, event: LinkEvent) -> Option<Report> {
        let LinkEvent { link, worker, news } = event;
        if let News::Hello { hello, link } = news {
            self.handle_hello(now, *hello, link);
            return None;
        }
        let member = self.links.get_mut(&worker).filter(|known| known.link.id() == link);
        // Nothing counts that comes from a connection that was refused or closed before.
        member?.heard_at = now;
        match news {
            News::Lost(why) => self.lose(now, worker, &why),
            News::Ready(ready) => self.cluster.handle_ready(now, worker, &ready),
            News::Heartbeat(heartbeat) => {
                self.cluster.handle_heartbeat(now, worker, &heartbeat);
                return Some(Report::Heartbeat(worker, heartbeat));
            }
            News::Fault(fault) => self.cluster.handle_fault(now, worker, &fault),
            News::Drain(drain) => self.cluster.handle_drain(now, worker, &drain),
            News::Sampled(sampled) => return Some(Report::Sampled(worker, sampled)),
            News::Hello { .. } => {}
        }
        None
    }

    fn handle_hello(&mut self, now: Duration, hello: Hello, link: Link) {
        let worker = link.worker();
        if let Some(refusal) = self.refusal(worker, &hello.name, hello.host) {
            tracing::warn!("refused worker {} ({}): {refusal}", hello.name, link.remote());
            link.close(&refusal);
            return;
        }
        let known = self.links.get(&worker).map(|member| now.saturating_sub(member.heard_at));
        if known.is_some_and(|silent| silent >= GIVES_WAY_AFTER) {
            self.lose(now, worker, "it has connected anew");
        } else if known.is_some() {
            let text = format!(
                "a worker with the id {} is connected already: give each worker a --state-dir of \
                 its own; after a restart it can join again when the old connection is seen to be dead",
                worker.hex()
            );
            tracing::warn!("refused worker {} ({}): {text}", hello.name, link.remote());
            link.close(&Refusal::new(RefusalCode::AlreadyConnected, &text));
            return;
        }
        let welcome = Welcome { cluster: self.id, heartbeat_ms: HEARTBEAT_MS };
        let (name, host) = (hello.name.clone(), hello.host);
        let clock_ahead_ms = self.compare_clocks(&hello);
        self.links.insert(worker, Member { link, name, host, heard_at: now, clock_ahead_ms });
        // What the cluster core asks for in return is done later: the welcome is sent first.
        match self.cluster.handle_hello(now, worker, &hello) {
            Ok(()) => {
                self.note(Known { worker, name: hello.name.clone(), host });
                self.news
                    .push(Happening::WorkerJoined { worker: hello.name, worker_id: worker.hex() });
                self.send(now, worker, &welcome);
                let removed = self.exclusions.told();
                if !removed.workers.is_empty() {
                    self.send(now, worker, &removed);
                }
            }
            Err(text) => self.refuse(worker, &Refusal::new(RefusalCode::Malformed, &text)),
        }
    }

    fn refusal(&self, worker: WorkerId, name: &str, host: [u8; 16]) -> Option<Refusal> {
        let exclusions = &self.exclusions;
        exclusions.refusal(worker).or_else(|| exclusions.refusal_of(name, host))
    }

    /// Remembers that a worker is here, so that it can be named later; away from this task, which never waits.
    fn note(&self, known: Known) {
        if !self.exclusions.note(known) {
            return;
        }
        let exclusions = Arc::clone(&self.exclusions);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = exclusions.write_noted() {
                tracing::warn!("{error}");
            }
        });
    }

    /// How far a worker's clock is ahead of ours, in milliseconds; `None` if that is no matter.
    fn compare_clocks(&self, hello: &Hello) -> Option<i64> {
        let ms = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        let (theirs, ours) = (ms(hello.time_ms), ms(self.clock.unix_ms()));
        let ahead = theirs - ours;
        if Duration::from_millis(ahead.unsigned_abs()) <= CLOCKS_APART {
            return None;
        }
        tracing::warn!(
            "the clock of worker {} says {} and this machine's {}: set the one that is wrong, before certificates \
             seem to have expired or not to have begun",
            hello.name,
            show_utc(theirs / 1000),
            show_utc(ours / 1000)
        );
        Some(ahead)
    }

    /// Who may not be here has changed: closes the connections of those that are, and tells the others.
    pub fn handle_exclusions(&mut self, now: Duration) {
        let refused: Vec<(WorkerId, Refusal)> = self
            .links
            .iter()
            .filter_map(|(id, it)| Some((*id, self.refusal(*id, &it.name, it.host)?)))
            .collect();
        for (worker, refusal) in refused {
            let why = match refusal.code {
                RefusalCode::Removed => "it was removed",
                _ => "it was banned",
            };
            if let Some(Member { link, name, .. }) = self.links.remove(&worker) {
                link.close(&refusal);
                self.note_lost((worker, name), why, Departure::Removed);
            }
            self.cluster.handle_lost(now, worker, why);
        }
        let removed = self.exclusions.told();
        for worker in self.links.keys().copied().collect::<Vec<_>>() {
            self.send(now, worker, &removed);
        }
    }

    /// A worker's name for people, if it is here.
    pub fn name(&self, worker: WorkerId) -> Option<&str> {
        self.links.get(&worker).map(|member| member.name.as_str())
    }

    /// What is known of each worker, here or lost.
    pub fn snapshot(&self, now: Duration) -> Vec<WorkerSnapshot> {
        let with_rtt = |(id, mut told): (WorkerId, WorkerSnapshot)| {
            told.clock_ahead_ms = self.links.get(&id).and_then(|member| member.clock_ahead_ms);
            if let (Some(heard), Some(member)) = (&mut told.heard, self.links.get(&id)) {
                let rtt = member.link.round_trip().as_micros();
                heard.rtt_us = Some(u64::try_from(rtt).unwrap_or(u64::MAX));
            }
            told
        };
        self.cluster.workers(now).into_iter().map(with_rtt).collect()
    }

    fn refuse(&mut self, worker: WorkerId, refusal: &Refusal) {
        if let Some(Member { link, .. }) = self.links.remove(&worker) {
            tracing::warn!("refused worker {} ({}): {refusal}", worker.hex(), link.remote());
            link.close(refusal);
        }
    }

    /// A worker's link is of no use any more.
    pub fn lose(&mut self, now: Duration, worker: WorkerId, why: &str) {
        if let Some(Member { link, name, .. }) = self.links.remove(&worker) {
            link.close(&Refusal::new(RefusalCode::Internal, why));
            let leaves = self.cluster.is_leaving(worker);
            let how = if leaves { Departure::Left } else { Departure::Lost };
            self.note_lost((worker, name), why, how);
        }
        self.cluster.handle_lost(now, worker, why);
    }

    /// The cluster core knows a worker no more.
    pub fn evict(&mut self, worker: WorkerId, text: &str) {
        if let Some(Member { link, name, .. }) = self.links.remove(&worker) {
            link.close(&Refusal::new(RefusalCode::Internal, text));
            self.note_lost((worker, name), text, Departure::Lost);
        }
    }

    fn note_lost(&mut self, (id, worker): (WorkerId, String), why: &str, how: Departure) {
        self.departures.push(how);
        let (worker_id, reason) = (id.hex(), why.to_owned());
        self.news.push(Happening::WorkerLost { worker, worker_id, reason });
    }

    /// How workers went since this was last asked.
    pub fn take_departures(&mut self) -> impl Iterator<Item = Departure> + use<> {
        std::mem::take(&mut self.departures).into_iter()
    }

    /// Who came and went since this was last asked.
    pub fn take_news(&mut self) -> impl Iterator<Item = Happening> + use<> {
        std::mem::take(&mut self.news).into_iter()
    }

    /// A worker answered what was not asked.
    pub fn handle_nonsense(
        &mut self,
        now: Duration,
        worker: WorkerId,
        (epoch, microbatch): (PlanEpoch, MicrobatchId),
        text: &str,
    ) {
        let (code, text) = (FaultCode::BadMessage, text.to_owned());
        let fault = FaultMessage { code, epoch, microbatch, about: None, text };
        self.cluster.handle_fault(now, worker, &fault);
    }

    /// Sends a control message; a worker that takes none is lost.
    pub fn send<M: Message>(&mut self, now: Duration, worker: WorkerId, message: &M) {
        // A worker that was lost since: the core hears of it by itself.
        let Some(Member { link, .. }) = self.links.get(&worker) else { return };
        if let Err(error) = link.send(message) {
            self.lose(now, worker, &error.to_string());
        }
    }

    /// Opens the streams of a plan whose stages these workers hold, in order.
    ///
    /// # Errors
    ///
    /// Which worker cannot be reached, and why.
    pub fn open_pipeline(
        &self,
        epoch: PlanEpoch,
        workers: Vec<WorkerId>,
    ) -> Result<Pipeline, Broken> {
        let link = |worker| {
            self.links
                .get(&worker)
                .map(|member| &member.link)
                .ok_or(Broken { worker, error: SendError::Gone })
        };
        let ends = workers.first().zip(workers.last());
        let (first, last) = ends.expect("a plan has at least one stage");
        let (first, last) = (link(*first)?, link(*last)?);
        Pipeline::open(epoch, workers, first, last)
    }

    /// What the cluster core wants done.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.cluster.poll_action()
    }
}
