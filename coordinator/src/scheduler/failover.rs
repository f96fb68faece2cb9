//! The pipeline is gone, or another takes its place: what was computed is lost, and nothing that was said.
//!
//! A sequence's token log is the truth (see [`Sequence`](super::sequence::Sequence)). When a plan ends, its
//! live sequences go back to waiting with rank, log, scores, deadline and key, and the next plan computes
//! their logs again, oldest first: a replay is what a preempted sequence does, and samples nothing that was
//! sampled before. What was in flight is never accounted, so no token comes twice. One
//! with which plan after plan is lost and that never gets on fails at last: it may be what kills them.
//!
//! # Without a plan
//!
//! From the loss until `failover_deadline` has passed the scheduler *holds*: requests come into the same
//! bounded queue, by the limits of the plan that was. The next plan ends that; at the deadline all that is
//! held fails, and requests are refused until there is a plan. Only the search for a plan counts, not the
//! replay; a loss during the replay is the same case again.
//!
//! # Hand-over
//!
//! Where the next plan is ready before the present one ends nothing is lost that was on its way:
//! [`handle_hand_over`](Scheduler::handle_hand_over) lets the answers in flight come in and sends nothing
//! more; when [`is_drained`](Scheduler::is_drained) says so, the next plan takes over with
//! [`handle_plan`](Scheduler::handle_plan).

use super::Scheduler;
use super::caches::Caches;
use super::limits::{PlanLimits, Reads};
use super::sequence::Phase;
use crate::generation::{Failure, GenerationEvent};
use crate::status::{Failover, Recovered};
use std::time::Duration;
use woolly_protocol::ids::SequenceId;

/// A sequence with which so many plans were lost one after the other may be what kills whoever computes it:
/// it fails, so that others go on.
const LOSSES_MAX: u32 = 16;

/// A plan has ended and no other is there yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// What the plan allowed. Context and blocks' size are the same in the next one.
    pub(super) limits: PlanLimits,
    since: Duration,
    /// When those that are held fail.
    pub(super) until: Duration,
}

/// Those that compute what was lost.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Sequences that have not gone on yet.
    left: usize,
    since: Duration,
    /// Sequences that had to when the plan ended, and the tokens of their logs.
    sequences: usize,
    tokens: u64,
    /// When a plan was lost whose failover was not told yet.
    lost_at: Option<Duration>,
    /// How long the search for the present one took.
    search: Duration,
}

impl Scheduler {
    /// A plan is served from now on. If another was served, it is over: with
    /// [`handle_pipeline_lost`](Self::handle_pipeline_lost), or just now in a hand-over.
    ///
    /// # Panics
    ///
    /// If a limit is zero or beyond the protocol's.
    pub fn handle_plan(&mut self, now: Duration, plan: PlanLimits) {
        plan.assert_valid();
        self.set_back();
        if let Some(hold) = self.hold.take() {
            self.replay.search = now.saturating_sub(hold.since);
            self.recovered.push_back(Recovered::Plan(self.replay.search));
        }
        self.forget_names(Caches::new(&plan, self.config.rows_per_step));
        self.plan = Some(plan);
        self.hands_over = false;
        self.pace.begin(now, plan.stages, plan.reads);
        self.replay.since = now;
        self.fail_those_too_long(now, &plan);
        if self.replay.left == 0 {
            self.tell_failover(None);
        }
        self.admit(now);
    }

    /// The plan has ended: all KV bytes of it are gone, and what was in flight is never answered. Its
    /// sequences wait for the next one. Without a plan nothing happens.
    pub fn handle_pipeline_lost(&mut self, now: Duration) {
        let Some(limits) = self.plan.take() else { return };
        self.set_back();
        self.forget_names(Caches::default());
        self.pace.begin(now, 0, Reads::default());
        self.hands_over = false;
        self.tally.failovers += 1;
        self.replay.lost_at.get_or_insert(now);
        let until = now + self.config.failover_deadline;
        self.hold = Some(Hold { limits, since: now, until });
        for id in self.all() {
            if self.sequence(id).losses >= LOSSES_MAX {
                let message = format!("{LOSSES_MAX} times the workers that computed it were lost");
                self.lose(now, id, message);
            }
        }
    }

    /// Another plan is about to take over: nothing more is sent under this one.
    pub fn handle_hand_over(&mut self) {
        self.hands_over = self.plan.is_some();
    }

    /// It does not take over, after all.
    pub fn handle_withdrawn(&mut self, now: Duration) {
        self.hands_over = false;
        self.admit(now);
    }

    /// Whether nothing is on its way.
    pub fn is_drained(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether requests are taken although there is no plan.
    pub fn holds(&self) -> bool {
        self.hold.is_some()
    }

    /// What failovers took since this was last asked, for metrics. At most one for each sequence and plan, and
    /// three more for each plan.
    pub fn poll_recovered(&mut self) -> Option<Recovered> {
        self.recovered.pop_front()
    }

    /// Fails all that is held if the deadline has passed.
    pub(super) fn end_hold(&mut self, now: Duration) {
        let Some(hold) = self.hold.filter(|hold| hold.until <= now) else { return };
        self.hold = None;
        self.replay.lost_at = None;
        let waited = now.saturating_sub(hold.since).as_secs();
        let message = format!(
            "the workers that compute this model were lost, and none took their place within {waited} s; \
             send the request again"
        );
        for id in self.all() {
            self.lose(now, id, message.clone());
        }
    }

    /// Puts all that computes back to waiting. Blocks and what is in flight are of no plan any more.
    fn set_back(&mut self) {
        self.in_flight.clear();
        self.running.clear();
        (self.draining, self.preempting, self.reserved) = (0, 0, 0);
        (self.replay.left, self.replay.tokens) = (0, 0);
        for id in self.all() {
            let sequence = self.sequence_mut(id);
            let (phase, sent) = (sequence.phase, sequence.set_back());
            let (key, rank) = (sequence.request.key, sequence.rank);
            let replays = sequence.replays_since.is_some();
            let tokens = if replays { sequence.compute_end() as u64 } else { 0 };
            match phase {
                Phase::Ended => {
                    self.sequences.remove(&id);
                    continue;
                }
                Phase::Waiting => {}
                Phase::Running | Phase::Preempting => {
                    self.tally.recomputed_tokens += sent as u64;
                    self.waiting.add(id, key, rank);
                }
            }
            self.replay.left += usize::from(replays);
            self.replay.tokens += tokens;
        }
        self.replay.sequences = self.replay.left;
    }

    /// A sequence has gone on after a replay, or it never will.
    pub(super) fn note_replayed(&mut self, now: Duration, id: SequenceId, goes_on: bool) {
        let Some(since) = self.sequence_mut(id).replays_since.take() else { return };
        if goes_on {
            self.tell_failover(Some(now));
            self.recovered.push_back(Recovered::Stream(now.saturating_sub(since)));
        }
        self.replay.left -= 1;
        if let Some(plan) = self.plan.filter(|_| self.replay.left == 0) {
            self.tell_failover(None);
            let (epoch, tokens) = (plan.epoch, self.replay.tokens);
            let took = now.saturating_sub(self.replay.since);
            self.recovered.push_back(Recovered::Replay { epoch, took, tokens });
        }
    }

    /// The first stream went on at this moment, or none will; told once for each failover.
    fn tell_failover(&mut self, went_on: Option<Duration>) {
        let Some(plan) = self.plan else { return };
        let Some(lost_at) = self.replay.lost_at.take() else { return };
        let Replay { sequences, tokens, search, .. } = self.replay;
        let first_token = went_on.map(|now| now.saturating_sub(lost_at));
        let failover = Failover { epoch: plan.epoch, sequences, tokens, search, first_token };
        self.recovered.push_back(Recovered::Failover(failover));
    }

    /// A plan whose context is smaller than that of the one before would be a planner's mistake; its
    /// sequences must not wait for ever.
    fn fail_those_too_long(&mut self, now: Duration, plan: &PlanLimits) {
        let longest = plan.positions_max();
        for id in self.all() {
            if self.sequence(id).compute_end() > longest {
                let message = format!("the context has {longest} positions now; send it again");
                self.lose(now, id, message);
            }
        }
    }

    /// What the blocks of the plan before held is gone, whatever its name was.
    fn forget_names(&mut self, caches: Caches) {
        #[cfg(debug_assertions)]
        if woolly_protocol::failpoint::planted("keep-old-prefix-names") {
            return self.caches.keep_names(caches);
        }
        self.caches = caches;
    }

    fn lose(&mut self, now: Duration, id: SequenceId, message: String) {
        let failure = Failure { code: "pipeline_lost", message };
        self.events.push_back((id, GenerationEvent::Failed(failure)));
        self.end(now, id);
    }

    /// In order of arrival.
    fn all(&self) -> Vec<SequenceId> {
        let mut all: Vec<_> = self.sequences.keys().copied().collect();
        all.sort_unstable();
        all
    }
}
