//! Decides what the pipeline computes next, and nothing else.
//!
//! The scheduler is a state machine without clock, threads or I/O. What happened is told to it by
//! `handle_*` methods; what should be done is asked with `poll_*` methods. Time is the [`Duration`]
//! since the start of the program. Given the same calls it gives the same answers, which is how
//! `tests/sim.rs` runs hours of cluster time in a second.
//!
//! After any `handle_*`, call until each returns `None`:
//!
//! 1. [`poll_step`](Scheduler::poll_step): a microbatch for stage 0 and its `Sampling`;
//! 2. [`poll_event`](Scheduler::poll_event): a token, an end or a failure for a generation;
//! 3. [`poll_question`](Scheduler::poll_question): what a generation's guide is to be asked.
//!
//! # Policy
//!
//! Decode first: each running sequence has at most one decode row in flight, and the rows travel in
//! as many groups as give the most tokens per second by each stage's measured time. Prefill takes
//! what is left of a budget of rows that keeps the gaps of running streams short, oldest request
//! first, in chunks; the chunks of one prompt follow each other through the stages. While prompts
//! wait to be computed, decode leaves them a quarter. `docs/scheduling.md` has the arithmetic.
//!
//! Blocks are taken as sequences grow, of each cache group (`caches.rs`). When none is left the youngest running sequence is
//! preempted: it gives its blocks back, waits at the front, and is later computed again from its
//! token log, without sampling anything that was sampled before. When a pipeline is lost this happens to
//! all of them, see `failover.rs`.
//!
//! # Nobody starves
//!
//! A sequence gets a rank when it first starts, and keeps it. Blocks are taken from those of higher
//! rank only, and preempted ones start again before any new one, in order of rank: those who run
//! always have a lower rank than those who have run and wait, and the lowest gets every block that
//! it asks for. So it runs to its end, and then the next is the lowest: whoever has started ends.
//!
//! New sequences start key by key in turn, each key's in order of arrival, and nobody overtakes one
//! whose turn it is and who waits for blocks. As those who run come to their end, it starts, at the
//! latest when it is alone; after as many starts as there are keys it is the key's turn again, and
//! the queue in front of a request is bounded: whoever was accepted starts.
//!
//! A sequence starts only when more blocks are free than it needs at once, one for each that runs,
//! and twice as many after each preemption, so that little is computed in vain.
//!
//! # Bounds
//!
//! At most `waiting_max` new requests wait and `running_max` sequences run (preempted sequences wait in
//! addition); at most `in_flight_max` microbatches are in flight. Events are bounded by the rows of
//! one answer if they are polled after each call.

mod account;
mod backlog;
mod blocks;
mod caches;
mod failover;
mod guided;
mod limits;
mod memory;
mod pace;
mod policy;
mod prefix;
mod prefix_key;
mod queue;
mod round_trips;
mod running;
mod sampled_error;
mod sequence;
mod step;
mod tally;
#[cfg(test)]
pub(crate) mod tests;

pub use limits::{CacheBlocks, ItlTarget, PlanLimits, ROWS_PER_STEP, Reads, SchedulerConfig};
pub use pace::StageTiming;
pub use prefix_key::PrefixCache;
pub use round_trips::Awaited;
pub use sampled_error::SampledError;
pub use step::Step;

use crate::generation::{Failure, FinishReason, GenerationEvent, GenerationRequest, Refusal};
use crate::status::{Counts, Recovered};
use backlog::Backlog;
use caches::Caches;
use failover::{Hold, Replay};
use pace::Pace;
use queue::Waiting;
use round_trips::RoundTrips;
use running::Running;
use rustc_hash::FxHashMap;
use sequence::{Phase, Rank, Sequence, has_penalties};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use step::{InFlight, StepBuilder};
use tally::Tally;
use woolly_protocol::failpoint::planted;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, SequenceId};

/// The scheduler. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    plan: Option<PlanLimits>,
    /// A plan was lost, and the next is waited for.
    hold: Option<Hold>,
    /// Another plan is about to take over: nothing is sent.
    hands_over: bool,
    replay: Replay,
    round_trips: RoundTrips,
    /// When the last answer came.
    answered_at: Duration,
    caches: Caches,
    /// Looked up several times per token; what it is iterated for does not depend on the order.
    sequences: FxHashMap<SequenceId, Sequence>,
    waiting: Waiting,
    running: Running,
    /// In the order sent, which is the order of the answers.
    in_flight: VecDeque<InFlight>,
    /// Blocks of sequences that only wait for what is in flight to give them back.
    draining: usize,
    /// Sequences in [`Phase::Preempting`].
    preempting: usize,
    /// Extents that running sequences will still take for what they had to compute when
    /// they started, of the group that remembers all positions.
    reserved: usize,
    /// When those that have not ended fail, soonest first.
    deadlines: BTreeSet<(Duration, SequenceId)>,
    backlog: Backlog,
    events: VecDeque<(SequenceId, GenerationEvent)>,
    /// What guides are to be asked.
    questions: VecDeque<(SequenceId, u32)>,
    recovered: VecDeque<Recovered>,
    /// Numbers are never used again, not even under another plan.
    next_sequence: SequenceId,
    next_microbatch: MicrobatchId,
    next_rank: Rank,
    tally: Tally,
    pace: Pace,
    builder: StepBuilder,
}

impl Scheduler {
    /// A scheduler without a plan: it refuses requests until it has one.
    pub fn new(config: SchedulerConfig) -> Self {
        let config = SchedulerConfig {
            waiting_max: config.waiting_max.max(1),
            running_max: config.running_max.max(1),
            rows_per_step: config.rows_per_step.max(1),
            decode_groups: config.decode_groups.map(|groups| groups.max(1)),
            ..config
        };
        Self {
            config,
            plan: None,
            hold: None,
            hands_over: false,
            replay: Replay::default(),
            round_trips: RoundTrips::default(),
            answered_at: Duration::ZERO,
            caches: Caches::default(),
            sequences: FxHashMap::default(),
            waiting: Waiting::default(),
            running: Running::default(),
            in_flight: VecDeque::new(),
            draining: 0,
            preempting: 0,
            reserved: 0,
            deadlines: BTreeSet::new(),
            backlog: Backlog::default(),
            events: VecDeque::new(),
            questions: VecDeque::new(),
            recovered: VecDeque::new(),
            next_sequence: SequenceId(1),
            next_microbatch: MicrobatchId(1),
            next_rank: Rank(0),
            tally: Tally::default(),
            pace: Pace::default(),
            builder: StepBuilder::default(),
        }
    }

    /// Whether a request can be taken.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotReady`] without a plan, unless one was lost of late; [`Refusal::QueueFull`] when
    /// `waiting_max` new ones wait; [`Refusal::TooLong`] when the prompt and one new token cannot fit;
    /// [`Refusal::NoTokens`] for a prompt without tokens, which has nothing to continue.
    pub fn check_request(
        &mut self,
        now: Duration,
        request: &GenerationRequest,
    ) -> Result<(), Refusal> {
        if request.prompt.is_empty() {
            return Err(Refusal::NoTokens);
        }
        let Some(plan) = self.plan.or(self.hold.map(|hold| hold.limits)) else {
            return Err(Refusal::NotReady { detail: "the pipeline is not complete".to_owned() });
        };
        let positions_max = plan.positions_max_with(has_penalties(request));
        let prompt_tokens = request.prompt.len();
        if prompt_tokens + usize::from(request.max_tokens > 0) > positions_max {
            return Err(Refusal::TooLong { prompt_tokens, positions_max });
        }
        let waiting = self.waiting.len() - self.waiting.preempted();
        if waiting >= self.config.waiting_max {
            let retry_after = self.backlog.refused(now, waiting);
            return Err(Refusal::QueueFull { waiting, retry_after });
        }
        Ok(())
    }

    /// When a key with `own` sequences, all that it may have, should come again.
    pub fn key_retry_after(&self, now: Duration, own: usize) -> Duration {
        self.backlog.busy(now, own, self.sequences.len())
    }

    /// A request has been tokenised. A completion that reaches the end of the context before
    /// `max_tokens` ends with [`FinishReason::Length`].
    ///
    /// # Errors
    ///
    /// As [`check_request`](Self::check_request).
    pub fn handle_request(
        &mut self,
        now: Duration,
        request: GenerationRequest,
    ) -> Result<SequenceId, Refusal> {
        self.check_request(now, &request)?;
        let (key, prompt_tokens) = (request.key, request.prompt.len());
        let id = self.next_sequence;
        self.next_sequence.0 += 1;
        let sequence = Sequence::new(request, now);
        let wants_tokens = sequence.request.max_tokens > 0;
        let guided = sequence.request.guided.as_ref().filter(|_| wants_tokens);
        let guided = guided.map(|guided| guided.first().clone());
        if sequence.request.score_prompt && sequence.score_end == 0 {
            self.events.push_back((id, GenerationEvent::Scored(Vec::new())));
        }
        if sequence.compute_end() == 0 {
            // One token to score and none to generate: there is nothing to compute.
            let reason = FinishReason::Length;
            self.events.push_back((id, GenerationEvent::Finished { reason, cached_tokens: 0 }));
            return Ok(id);
        }
        self.tally.prompt_tokens += prompt_tokens as u64;
        if let Some(deadline) = sequence.deadline {
            self.deadlines.insert((deadline, id));
        }
        self.sequences.insert(id, sequence);
        self.waiting.add(id, key, None);
        match guided {
            Some(first) => self.take_next(now, id, first),
            None => _ = self.allow(now, id, None),
        }
        self.admit(now);
        Ok(id)
    }

    /// The client is gone: no more events. Blocks are freed when nothing of the sequence is in
    /// flight any more. A sequence that has ended is ignored.
    pub fn handle_cancel(&mut self, now: Duration, id: SequenceId) {
        if self.sequences.get(&id).is_some_and(|sequence| sequence.phase != Phase::Ended) {
            self.running.leave_ready(id);
            if planted("leak-block-on-cancel") {
                let extent = self.caches.per_extent();
                for table in &mut self.sequence_mut(id).tables {
                    table.blocks.truncate(table.blocks.len().saturating_sub(extent));
                }
            }
            self.end(now, id);
            self.admit(now);
        }
    }

    /// Fails the sequences whose time is up, and all if no plan came in time. See
    /// [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(&(_, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            self.tally.expired += 1;
            let sequence = self.sequence(id);
            let waited = now.saturating_sub(sequence.arrived);
            let (made, wanted) = (sequence.output_len(), sequence.request.max_tokens);
            let failure = Failure {
                code: "request_timeout",
                message: format!(
                    "the request's time is up after {} s, with {made} of at most {wanted} tokens",
                    waited.as_secs()
                ),
            };
            self.events.push_back((id, GenerationEvent::Failed(failure)));
            self.running.leave_ready(id);
            self.end(now, id);
        }
        self.end_hold(now);
        self.admit(now);
    }

    /// A stage has reported how long it took for a microbatch. Reports of another plan, of unknown
    /// stages and of microbatches that are no longer remembered are counted and not used.
    pub fn handle_timing(
        &mut self,
        now: Duration,
        epoch: PlanEpoch,
        stage: usize,
        timing: &StageTiming,
    ) {
        let known = self.plan.is_some_and(|plan| plan.epoch == epoch);
        if !known || !self.pace.observe(now, stage, timing) {
            self.tally.unknown_timings += 1;
        }
    }

    /// A microbatch was sent: what it was made of is used for the next. Nothing depends on it but how
    /// much is allocated.
    pub fn take_back(&mut self, step: Step) {
        self.builder.take_back(step);
    }

    /// What a generation should be told, oldest first.
    pub fn poll_event(&mut self) -> Option<(SequenceId, GenerationEvent)> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout): the first deadline of a sequence, or the one
    /// for a new plan.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let first = self.deadlines.first().map(|(deadline, _)| *deadline);
        first.into_iter().chain(self.hold.map(|hold| hold.until)).min()
    }

    /// The answer that is due next, if anything is in flight.
    pub fn awaited(&self) -> Option<Awaited> {
        let InFlight { microbatch, rows, sent_at, .. } = *self.in_flight.front()?;
        let since = sent_at.max(self.answered_at);
        Some(Awaited { microbatch, rows, since, usual: self.round_trips.usual(rows) })
    }

    /// What is held at this moment.
    pub fn counts(&self) -> Counts {
        let oldest = self.waiting.oldest().map(|id| self.sequences[&id].arrived);
        let tally = &self.tally;
        Counts {
            waiting: self.waiting.len() + self.preempting,
            waiting_preempted: self.waiting.preempted() + self.preempting,
            running: self.running.len(),
            prefilling: self.running.prefilling(),
            leaving: self.sequences.len() - self.running.len() - self.waiting.len(),
            in_flight: self.in_flight.len(),
            in_flight_since: self.in_flight.front().map(|in_flight| in_flight.sent_at),
            waiting_since: oldest,
            kv_blocks_free: self.caches.blocks(blocks::Blocks::free),
            kv_blocks_cached: self.caches.blocks(blocks::Blocks::idle),
            kv_blocks: self.caches.blocks(|blocks| limits::to_usize(blocks.count())),
            preemptions: tally.preemptions,
            evictions: self.caches.evictions(),
            prefix_hit_tokens: tally.prefix_hit_tokens,
            prompt_tokens: tally.prompt_tokens,
            expired: tally.expired,
            failovers: tally.failovers,
            recomputed_tokens: tally.recomputed_tokens,
            stale_answers: tally.stale_answers,
            // The cluster's to say.
            stale_faults: 0,
            unknown_timings: tally.unknown_timings,
            decode_groups: self.pace.decode_groups(),
            rows_beside_decode: self.pace.rows_beside_decode(),
            rows: tally.rows,
            mask_bytes: tally.mask_bytes,
        }
    }

    fn sequence(&self, id: SequenceId) -> &Sequence {
        self.sequences.get(&id).expect("every queue holds known sequences only")
    }

    fn sequence_mut(&mut self, id: SequenceId) -> &mut Sequence {
        self.sequences.get_mut(&id).expect("every queue holds known sequences only")
    }
}
