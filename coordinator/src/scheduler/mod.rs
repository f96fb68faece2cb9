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
//! 2. [`poll_event`](Scheduler::poll_event): a token, an end or a failure for a generation.
//!
//! # Policy
//!
//! Decode first: each running sequence has at most one decode row in flight, and the rows are
//! spread evenly over as many microbatches as there are stages, so that every stage has work and a
//! step of one sequence never waits for all others. Prefill takes what is left of the row budget,
//! oldest request first, in chunks; the chunks of one prompt follow each other through the stages.
//! While prompts wait to be computed, decode leaves them a quarter.
//!
//! Blocks are taken as sequences grow. When none is left the youngest running sequence is
//! preempted: it gives its blocks back, waits at the front, and is later computed again from its
//! token log, without sampling anything that was sampled before.
//!
//! # Nobody starves
//!
//! Age counts from arrival and is never renewed. Sequences start in order of age, and blocks are
//! taken from younger ones only: those who run are always older than those who wait, and the oldest
//! gets every block that it asks for. So it runs to its end, and then the next is the oldest. A
//! sequence starts only when more blocks are free than it needs at once, one for each that runs, and
//! twice as many after each preemption, so that little is computed in vain.
//!
//! # Bounds
//!
//! At most `waiting_max` requests wait and `running_max` sequences run (preempted sequences wait in
//! addition); at most `in_flight_max` microbatches are in flight. Events are bounded by the rows of
//! one answer if they are polled after each call.

mod account;
mod blocks;
mod budget;
mod curve;
mod grouping;
mod limits;
mod memory;
mod policy;
mod sequence;
mod step;
#[cfg(test)]
pub(crate) mod tests;
mod times;
mod timing;

pub use account::SampledError;
pub use limits::{Counts, ItlTarget, PlanLimits, SchedulerConfig};
pub use step::Step;
pub use timing::StageTiming;

use crate::generation::{Failure, FinishReason, GenerationEvent, GenerationRequest, Refusal};
use blocks::Blocks;
use budget::Budget;
use grouping::Grouping;
use sequence::{Phase, Sequence, has_penalties};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use step::InFlight;
use times::StageTimes;
use timing::Traffic;
use woolly_protocol::ids::{MicrobatchId, SequenceId};

/// The scheduler. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    plan: Option<PlanLimits>,
    blocks: Blocks,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// In order of age; preempted ones are older than those that never ran.
    waiting: BTreeSet<SequenceId>,
    /// In order of age.
    running: BTreeSet<SequenceId>,
    /// Running sequences that have more than the newest token to send.
    prefilling: BTreeSet<SequenceId>,
    /// Running sequences whose newest token is not sent yet; those that waited longest first.
    ready: VecDeque<SequenceId>,
    /// In the order sent, which is the order of the answers.
    in_flight: VecDeque<InFlight>,
    /// Blocks of sequences that only wait for what is in flight to give them back.
    returning: usize,
    /// Sequences in [`Phase::Preempting`].
    preempting: usize,
    events: VecDeque<(SequenceId, GenerationEvent)>,
    /// Numbers are never used again, not even under another plan.
    next_sequence: SequenceId,
    next_microbatch: MicrobatchId,
    preemptions: u64,
    stale_answers: u64,
    unknown_timings: u64,
    rows: u64,
    /// What was sent of late.
    traffic: Traffic,
    times: StageTimes,
    grouping: Grouping,
    budget: Budget,
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
            blocks: Blocks::new(0),
            sequences: BTreeMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            prefilling: BTreeSet::new(),
            ready: VecDeque::new(),
            in_flight: VecDeque::new(),
            returning: 0,
            preempting: 0,
            events: VecDeque::new(),
            next_sequence: SequenceId(1),
            next_microbatch: MicrobatchId(1),
            preemptions: 0,
            stale_answers: 0,
            unknown_timings: 0,
            rows: 0,
            traffic: Traffic::default(),
            times: StageTimes::default(),
            grouping: Grouping::default(),
            budget: Budget::default(),
        }
    }

    /// A plan is served from now on, or (`None`) the pipeline is lost. All KV bytes of the plan
    /// before are gone, and with them every sequence.
    ///
    /// # Panics
    ///
    /// If a limit is zero or beyond the protocol's.
    pub fn handle_plan(&mut self, now: Duration, plan: Option<PlanLimits>) {
        if let Some(plan) = &plan {
            plan.assert_valid();
        }
        self.lose_pipeline(now);
        self.blocks = Blocks::new(plan.map_or(0, |plan| plan.kv_blocks));
        self.plan = plan;
        self.times = StageTimes::new(plan.map_or(0, |plan| plan.stages));
        self.grouping = Grouping::default();
        self.budget = Budget::default();
    }

    /// What becomes of the sequences when a pipeline is lost: they fail. A replay from the token
    /// logs would go here and nowhere else.
    fn lose_pipeline(&mut self, now: Duration) {
        self.in_flight.clear();
        self.traffic.clear(now);
        self.waiting.clear();
        self.running.clear();
        self.prefilling.clear();
        self.ready.clear();
        self.returning = 0;
        self.preempting = 0;
        for (id, sequence) in std::mem::take(&mut self.sequences) {
            if sequence.phase != Phase::Ended {
                let failure = Failure {
                    code: "pipeline_lost",
                    message: "a worker of the pipeline was lost; send the request again".to_owned(),
                };
                self.events.push_back((id, GenerationEvent::Failed(failure)));
            }
        }
    }

    /// A request has been checked and tokenised.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotReady`] without a plan; [`Refusal::QueueFull`] when `waiting_max` wait;
    /// [`Refusal::TooLong`] when the prompt and one new token cannot fit. A completion that reaches
    /// the end of the context before `max_tokens` ends with [`FinishReason::Length`].
    ///
    /// # Panics
    ///
    /// If the prompt is empty, which the gateway refuses.
    pub fn handle_request(
        &mut self,
        now: Duration,
        request: GenerationRequest,
    ) -> Result<SequenceId, Refusal> {
        assert!(!request.prompt.is_empty(), "the gateway refuses empty prompts");
        let Some(plan) = self.plan else {
            return Err(Refusal::NotReady { detail: "the pipeline is not complete".to_owned() });
        };
        let positions_max = plan.positions_max_with(has_penalties(&request));
        let prompt_tokens = request.prompt.len();
        if prompt_tokens + usize::from(request.max_tokens > 0) > positions_max {
            return Err(Refusal::TooLong { prompt_tokens, positions_max });
        }
        if self.waiting.len() >= self.config.waiting_max {
            return Err(Refusal::QueueFull { waiting: self.waiting.len() });
        }
        let id = self.next_sequence;
        self.next_sequence.0 += 1;
        let sequence = Sequence::new(request, now);
        if sequence.request.score_prompt && sequence.score_end() == 0 {
            self.events.push_back((id, GenerationEvent::Scored(Vec::new())));
        }
        if sequence.compute_end() == 0 {
            // One token to score and none to generate: there is nothing to compute.
            let reason = FinishReason::Length;
            self.events.push_back((id, GenerationEvent::Finished { reason, cached_tokens: 0 }));
            return Ok(id);
        }
        self.sequences.insert(id, sequence);
        self.waiting.insert(id);
        self.admit();
        Ok(id)
    }

    /// The client is gone: no more events. Blocks are freed when nothing of the sequence is in
    /// flight any more. A sequence that has ended is ignored.
    pub fn handle_cancel(&mut self, _now: Duration, id: SequenceId) {
        if self.sequences.get(&id).is_some_and(|sequence| sequence.phase != Phase::Ended) {
            self.end(id);
            self.admit();
        }
    }

    /// What a generation should be told, oldest first.
    pub fn poll_event(&mut self) -> Option<(SequenceId, GenerationEvent)> {
        self.events.pop_front()
    }

    /// When to call again at the latest. Always `None`: every decision of the scheduler follows from
    /// a request or an answer, never from time alone.
    pub fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    /// What is held at this moment.
    pub fn counts(&self) -> Counts {
        let oldest = self.waiting.first().map(|id| self.sequences[id].arrived);
        Counts {
            waiting: self.waiting.len() + self.preempting,
            running: self.running.len(),
            in_flight: self.in_flight.len(),
            in_flight_since: self.in_flight.front().map(|in_flight| in_flight.sent_at),
            waiting_since: oldest,
            kv_blocks_free: limits::to_u32(self.blocks.free()),
            kv_blocks: self.blocks.count(),
            preemptions: self.preemptions,
            stale_answers: self.stale_answers,
            unknown_timings: self.unknown_timings,
            rows: self.rows,
        }
    }

    fn sequence(&self, id: SequenceId) -> &Sequence {
        self.sequences.get(&id).expect("every queue holds known sequences only")
    }

    fn sequence_mut(&mut self, id: SequenceId) -> &mut Sequence {
        self.sequences.get_mut(&id).expect("every queue holds known sequences only")
    }
}
