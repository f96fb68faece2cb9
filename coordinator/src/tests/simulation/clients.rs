//! What is asked of the simulated cluster, and what its clients were told.

use super::{Event, MS, SECOND, Scale, Time, World};
use crate::generation::{Failure, GenerationEvent, GenerationRequest, Refusal};
use crate::scheduler::tests::arrivals;
use crate::scheduler::tests::rng::{Rng, mix};
use crate::scheduler::tests::toy;
use std::collections::BTreeMap;
use woolly_protocol::ids::SequenceId;

/// The first request comes after so long.
const FIRST: Time = SECOND;
/// A request that was refused without a plan comes again after so long.
const AGAIN: Time = 200 * MS;

/// A request and what became of it.
struct Client {
    request: GenerationRequest,
    arrives: Time,
    leaves: Option<Time>,
    id: Option<SequenceId>,
    is_done: bool,
    is_cancelled: bool,
    events: Vec<GenerationEvent>,
}

/// All clients.
pub(super) struct Clients {
    clients: Vec<Client>,
    by_id: BTreeMap<SequenceId, usize>,
    left: usize,
    /// Those that were told that no plan came in time, until that is judged.
    pub(super) lost: usize,
}

impl Clients {
    pub(super) fn draw(rng: &mut Rng, scale: Scale) -> Clients {
        let mut more = Rng(mix(rng.next()));
        let mut client = |_| {
            let mut request = arrivals::request(rng, &mut more);
            request.time_limit = None;
            if scale.is_large {
                request.prompt.truncate(12);
                request.max_tokens = request.max_tokens.clamp(20, 120);
            }
            let arrives = FIRST + rng.range(0, scale.arrivals);
            let leaves = rng.one_in(8).then(|| arrives + rng.range(0, 3 * SECOND));
            Client {
                request,
                arrives,
                leaves,
                id: None,
                is_done: false,
                is_cancelled: false,
                events: Vec::new(),
            }
        };
        let clients: Vec<_> = (0..scale.requests).map(&mut client).collect();
        Clients { left: clients.len(), clients, by_id: BTreeMap::new(), lost: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// When one arrives, and when it goes away if it does.
    pub(super) fn times(&self, index: usize) -> (Time, Option<Time>) {
        (self.clients[index].arrives, self.clients[index].leaves)
    }

    pub(super) fn are_done(&self) -> bool {
        self.left == 0
    }

    fn end(&mut self, index: usize) {
        if !std::mem::replace(&mut self.clients[index].is_done, true) {
            self.left -= 1;
        }
    }

    pub(super) fn tell(&mut self, id: SequenceId, event: GenerationEvent) {
        let index = self.by_id[&id];
        let client = &mut self.clients[index];
        assert!(!client.is_cancelled, "an event after the cancel of {id}");
        assert!(!client.is_done, "an event after the end of {id}");
        let lost =
            matches!(&event, GenerationEvent::Failed(failure) if failure.code == "pipeline_lost");
        self.lost += usize::from(lost);
        let ends = matches!(event, GenerationEvent::Finished { .. } | GenerationEvent::Failed(_));
        client.events.push(event);
        if ends {
            self.end(index);
        }
    }
}

impl World {
    pub(super) fn arrive(&mut self, index: usize) {
        if self.clients.clients[index].is_cancelled {
            return;
        }
        let (now, request) = (self.clock(), self.clients.clients[index].request.clone());
        match self.shell.scheduler.handle_request(now, request) {
            Ok(id) => {
                self.clients.clients[index].id = Some(id);
                self.clients.by_id.insert(id, index);
            }
            Err(Refusal::NotReady { .. }) => self.at(self.now + AGAIN, Event::Arrival(index)),
            Err(Refusal::TooLong { .. }) => self.clients.end(index),
            Err(other) => panic!("{other:?}"),
        }
    }

    pub(super) fn cancel(&mut self, index: usize) {
        let now = self.clock();
        let client = &mut self.clients.clients[index];
        if client.is_done {
            return;
        }
        client.is_cancelled = true;
        if let Some(id) = client.id {
            self.shell.scheduler.handle_cancel(now, id);
        }
        self.met.cancelled += 1;
        self.clients.end(index);
    }

    /// Compares what every client was told with what it would have been told alone, and looks whether anything
    /// is still held.
    pub(super) fn judge(&mut self) {
        // What was cancelled last may still be on its way.
        for _ in 0..100_000 {
            if self.shell.scheduler.counts().leaving == 0 {
                break;
            }
            let Some(((time, _), event)) = self.agenda.pop_first() else { break };
            self.now = time;
            self.happen(event);
            self.settle();
        }
        let counts = self.shell.scheduler.counts();
        assert_eq!((counts.waiting, counts.running, counts.leaving), (0, 0, 0), "{counts:?}");
        assert_eq!(counts.kv_blocks_free, counts.kv_blocks, "blocks leaked");
        self.met.failovers += counts.failovers;
        self.met.recomputed += counts.recomputed_tokens;
        self.met.stale += counts.stale_answers;
        self.met.lost += self.clients.lost as u64;
        let clients = &self.clients.clients;
        let ctx = self.shell.scale.ctx_size as usize;
        self.met.tokens += clients.iter().map(|client| client.judge(ctx)).sum::<u64>();
    }
}

impl Client {
    /// Returns how many tokens were right.
    fn judge(&self, ctx: usize) -> u64 {
        let Some(_) = self.id else { return 0 };
        let told: Vec<_> = self.events.iter().filter_map(as_if_alone).collect();
        let alone = toy::expected(&self.request, ctx);
        let lost = told.last() == Some(&toy::failed("pipeline_lost"));
        let agrees = match (lost, self.is_cancelled) {
            (true, _) => alone.starts_with(&told[..told.len() - 1]),
            (false, true) => alone.starts_with(&told),
            (false, false) => alone == told,
        };
        assert!(agrees, "{:?} was told {told:?}, alone it would be {alone:?}", self.request);
        told.iter().filter(|event| matches!(event, GenerationEvent::Token(_))).count() as u64
    }
}

/// An event without what may differ: texts, and what a cache held.
fn as_if_alone(event: &GenerationEvent) -> Option<GenerationEvent> {
    Some(match event {
        GenerationEvent::Prefilled { .. } => return None,
        GenerationEvent::Finished { reason, .. } => {
            GenerationEvent::Finished { reason: *reason, cached_tokens: 0 }
        }
        GenerationEvent::Failed(Failure { code, .. }) => toy::failed(code),
        other => other.clone(),
    })
}
