//! Tests of the scheduler: one behaviour each, and a simulated cluster for all of them at once.

mod answers;
mod batching;
mod memory;
pub(crate) mod rng;
mod sampling;
mod sim;
mod toy;

use super::sequence::Phase;
use super::{PlanLimits, Scheduler, SchedulerConfig, Step};
use crate::generation::{GenerationEvent, GenerationRequest, SamplingOptions};
use std::collections::BTreeSet;
use std::time::Duration;
use woolly_protocol::ids::{PlanEpoch, SequenceId};
use woolly_protocol::sampling::{RowMode, Sampled, SampledRow};

const T0: Duration = Duration::ZERO;

/// A plan with room for everything; tests change what they are about.
fn plan() -> PlanLimits {
    PlanLimits {
        epoch: PlanEpoch(1),
        stages: 1,
        in_flight_max: 2,
        ctx_size: 1024,
        kv_blocks: 1000,
        rows_max: 256,
        chunks_max: 256,
    }
}

/// A greedy request without penalties or stop tokens.
fn greedy(prompt: Vec<u32>, max_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        prompt,
        score_prompt: false,
        max_tokens,
        top_logprobs: None,
        sampling: SamplingOptions {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 1,
            choice: 0,
            logit_bias: Vec::new(),
        },
        stop_tokens: Vec::new(),
    }
}

/// A scheduler that serves a plan.
fn serving(plan: PlanLimits) -> Scheduler {
    configured(SchedulerConfig::default(), plan)
}

fn configured(config: SchedulerConfig, plan: PlanLimits) -> Scheduler {
    let mut scheduler = Scheduler::new(config);
    scheduler.handle_plan(T0, Some(plan));
    scheduler
}

/// Submits a prompt of so many tokens.
fn submit(scheduler: &mut Scheduler, prompt: u32, max_tokens: u32) -> SequenceId {
    scheduler.handle_request(T0, greedy((0..prompt).collect(), max_tokens)).unwrap()
}

/// The next microbatch, which must be there.
fn step(scheduler: &mut Scheduler) -> Step {
    let step = scheduler.poll_step(T0).expect("a microbatch");
    assert_books_balance(scheduler);
    step
}

/// The answer to a microbatch: every sampled row gives token 7.
fn answer_of(step: &Step) -> Sampled {
    let rows = step.sampling.iter().flat_map(|sampling| &sampling.rows);
    let rows = rows.map(|row| SampledRow {
        token: match row.mode {
            RowMode::Score(target) => target,
            RowMode::Sample(_) => 7,
        },
        logprob: -0.5,
        top: (0..u32::from(row.top_logprobs)).map(|rank| (rank, -1.0)).collect(),
        non_finite: false,
    });
    Sampled { epoch: step.forward.epoch, microbatch: step.forward.microbatch, rows: rows.collect() }
}

fn answer(scheduler: &mut Scheduler, step: &Step) {
    scheduler.handle_sampled(T0, &answer_of(step)).unwrap();
    assert_books_balance(scheduler);
}

fn events(scheduler: &mut Scheduler) -> Vec<(SequenceId, GenerationEvent)> {
    std::iter::from_fn(|| scheduler.poll_event()).collect()
}

/// (sequence, position, rows, sampled rows) of every chunk.
fn chunks(step: &Step) -> Vec<(u64, u32, u32, u16)> {
    let chunks = step.forward.chunks.iter();
    chunks.map(|c| (c.sequence.0, c.position, c.token_count, c.sample_rows)).collect()
}

/// Answers everything, oldest first, until there is nothing left to do; returns the microbatches.
fn run_out(scheduler: &mut Scheduler, mut in_flight: Vec<Step>) -> Vec<Step> {
    let mut all = in_flight.clone();
    for _ in 0..100_000 {
        while let Some(step) = scheduler.poll_step(T0) {
            assert_books_balance(scheduler);
            in_flight.push(step.clone());
            all.push(step);
        }
        if in_flight.is_empty() {
            return all;
        }
        answer(scheduler, &in_flight.remove(0));
    }
    panic!("never idle: {:?}", scheduler.counts());
}

/// What must hold between any two calls.
fn assert_books_balance(scheduler: &Scheduler) {
    let s = scheduler;
    let held: Vec<_> = s.sequences.values().flat_map(|sequence| &sequence.blocks).collect();
    let distinct: BTreeSet<_> = held.iter().collect();
    assert_eq!(distinct.len(), held.len(), "a block is held by two");
    assert_eq!(held.len() + s.blocks.free(), s.blocks.count() as usize, "blocks leaked");
    let leaving = |phase| matches!(phase, Phase::Preempting | Phase::Ended);
    let leaving_blocks = s.sequences.values().filter(|q| leaving(q.phase)).map(|q| q.blocks.len());
    assert_eq!(leaving_blocks.sum::<usize>(), s.returning, "blocks on their way back");
    let preempting = s.sequences.values().filter(|q| q.phase == Phase::Preempting).count();
    assert_eq!(preempting, s.preempting, "sequences being preempted");
    for (id, sequence) in &s.sequences {
        let in_flight = s.in_flight.iter().flat_map(|f| &f.chunks).filter(|c| c.sequence == *id);
        assert_eq!(in_flight.count(), sequence.in_flight as usize, "in flight of {id}");
        let waits = sequence.phase == Phase::Waiting;
        let runs = sequence.phase == Phase::Running;
        assert_eq!(s.waiting.contains(id), waits, "{id} is {:?}", sequence.phase);
        assert_eq!(s.running.contains(id), runs, "{id} is {:?}", sequence.phase);
        assert!(!waits || (sequence.blocks.is_empty() && sequence.in_flight == 0), "{id} holds");
        let queues = usize::from(s.prefilling.contains(id))
            + s.ready.iter().filter(|ready| *ready == id).count();
        assert!(queues <= usize::from(runs), "{id} is in {queues} queues");
        assert!(!leaving(sequence.phase) || sequence.in_flight > 0, "{id} should have left");
        assert!(sequence.in_flight > 0 || queues > 0 || !runs, "{id} is forgotten");
    }
    if let (Some(youngest), Some(oldest)) = (s.running.last(), s.waiting.first()) {
        assert!(youngest < oldest, "{youngest} overtook {oldest}");
    }
    let plan = s.plan.map_or(0, |plan| plan.in_flight_max as usize);
    assert!(s.in_flight.len() <= plan && s.running.len() <= s.config.running_max);
}
