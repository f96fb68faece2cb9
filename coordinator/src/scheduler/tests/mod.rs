//! Tests of the scheduler: one behaviour each, and a simulated cluster for all of them at once.

mod answers;
pub(crate) mod arrivals;
mod batching;
mod choices;
mod deep;
mod failover;
mod flow;
mod guided;
mod limits;
mod memory;
mod prefix;
pub(crate) mod rng;
mod sampling;
mod sim;
mod sim_clients;
mod sim_happenings;
mod speed;
pub(crate) mod toy;
mod toy_guide;
mod turns;
mod windows;

use super::caches::Table;
use super::sequence::Phase;
use super::{CacheBlocks, PlanLimits, PrefixCache, Reads, Scheduler, SchedulerConfig, Step};
use crate::generation::{GenerationEvent, GenerationRequest, KeyId, ModelId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use woolly_protocol::forward::{BlockTables, CacheTables, Forward};
use woolly_protocol::ids::{BlockId, PlanEpoch, SequenceId};
use woolly_protocol::sampling::{RowMode, Sampled, SampledRow, SampledToken, SamplingOptions};

const T0: Duration = Duration::ZERO;

/// A plan with room for everything; tests change what they are about.
fn plan() -> PlanLimits {
    PlanLimits {
        epoch: PlanEpoch(1),
        stages: 1,
        in_flight_max: 2,
        ctx_size: 1024,
        caches: CacheBlocks::all_positions(1000),
        extent_len: 32,
        rows_max: 256,
        chunks_max: 256,
        vocab: 1 << 17,
        reads: Reads::default(),
    }
}

/// A greedy request without penalties or stop tokens.
fn greedy(prompt: Vec<u32>, max_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        model: ModelId(0),
        prompt,
        score_prompt: false,
        max_tokens,
        top_logprobs: None,
        sampling: SamplingOptions::greedy(),
        guided: None,
        stop_tokens: Arc::default(),
        key: KeyId(0),
        time_limit: None,
        siblings: None,
        limits: None,
        dry: None,
    }
}

/// A scheduler that serves a plan, without a prefix cache: the prompts of many tests are alike.
fn serving(plan: PlanLimits) -> Scheduler {
    let prefix_cache = PrefixCache::Off;
    configured(SchedulerConfig { prefix_cache, ..SchedulerConfig::default() }, plan)
}

fn configured(config: SchedulerConfig, plan: PlanLimits) -> Scheduler {
    let mut scheduler = Scheduler::new(config);
    scheduler.handle_plan(T0, plan);
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
    let rows = rows.map(|row| {
        let token = match row.mode {
            RowMode::Score(target) => target,
            RowMode::Sample(_) => 7,
        };
        let top = (0..u32::from(row.top_logprobs)).map(|rank| (rank, -1.0)).collect();
        SampledRow::Token(SampledToken { token, logprob: -0.5, top })
    });
    Sampled { epoch: step.forward.epoch, microbatch: step.forward.microbatch, rows: rows.collect() }
}

fn answer(scheduler: &mut Scheduler, step: &Step) {
    scheduler.handle_sampled(T0, answer_of(step)).unwrap();
    assert_books_balance(scheduler);
}

/// The token of a row of an answer.
fn token(row: &mut SampledRow) -> &mut SampledToken {
    let SampledRow::Token(token) = row else { panic!("{row:?}") };
    token
}

/// The tables of a cache group.
fn tables(forward: &Forward, group: usize) -> &BlockTables {
    let CacheTables::Blocks(tables) = &forward.caches[group] else { panic!("{forward:?}") };
    tables
}

/// The blocks of a chunk's sequence in the first cache group.
fn table(forward: &Forward, chunk: usize) -> &[BlockId] {
    tables(forward, 0).tables().nth(chunk).expect("one table per chunk")
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
    assert_blocks_balance(s);
    let leaving = |phase| matches!(phase, Phase::Preempting | Phase::Ended);
    let preempting = s.sequences.values().filter(|q| q.phase == Phase::Preempting).count();
    assert_eq!(preempting, s.preempting, "sequences being preempted");
    for (id, sequence) in &s.sequences {
        let in_flight = s.in_flight.iter().flat_map(|f| &f.chunks).filter(|c| c.sequence == *id);
        assert_eq!(in_flight.count(), sequence.in_flight as usize, "in flight of {id}");
        let waits = sequence.phase == Phase::Waiting;
        let runs = sequence.phase == Phase::Running;
        assert_eq!(s.waiting.contains(*id), waits, "{id} is {:?}", sequence.phase);
        let by_rank = sequence.rank.and_then(|rank| s.running.of_rank(rank));
        assert_eq!(by_rank == Some(*id), runs, "{id} is {:?}", sequence.phase);
        assert!(!waits || (sequence.tables.is_empty() && sequence.in_flight == 0), "{id} holds");
        let prefills = s.running.prefills().filter(|prefills| prefills == id).count();
        let queues = prefills + s.running.times_ready(*id);
        assert!(queues <= usize::from(runs), "{id} is in {queues} queues");
        assert!(!leaving(sequence.phase) || sequence.in_flight > 0, "{id} should have left");
        let asks = sequence.awaits_guide();
        assert!(sequence.in_flight > 0 || queues > 0 || asks || !runs, "{id} is forgotten");
        let timed = sequence.deadline.is_some_and(|at| s.deadlines.contains(&(at, *id)));
        let wanted = sequence.phase != Phase::Ended;
        assert_eq!(timed, wanted && sequence.deadline.is_some(), "the deadline of {id}");
    }
    assert_eq!(s.running.len() + s.waiting.len() + s.counts().leaving, s.sequences.len());
    if let (Some(youngest), Some(oldest)) = (s.running.last_rank(), s.waiting.first_rank()) {
        assert!(youngest < oldest, "{youngest:?} overtook {oldest:?}");
    }
    let plan = s.plan.map_or(0, |plan| plan.in_flight_max as usize);
    assert!(s.in_flight.len() <= plan && s.running.len() <= s.config.running_max);
}

/// Every extent of each group is held by whom it is counted for, or idle, or free; what is open belongs
/// to one sequence; and what was reserved or claimed is what is missing.
fn assert_blocks_balance(s: &Scheduler) {
    let (mut draining, mut reserved) = (0, 0);
    for (id, sequence) in &s.sequences {
        let ends: Vec<_> = sequence.tables.iter().map(Table::end).collect();
        assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{id} has tables to {ends:?}");
        if matches!(sequence.phase, Phase::Preempting | Phase::Ended) {
            draining += sequence.blocks_held();
        }
        reserved += sequence.reserved;
    }
    assert_eq!(draining, s.draining, "blocks on their way back");
    assert_eq!(reserved, s.reserved, "extents that were reserved");
    (0..s.caches.groups().len()).for_each(|index| assert_group_balances(s, index));
}

fn assert_group_balances(s: &Scheduler, index: usize) {
    let (group, per_extent) = (&s.caches.groups()[index], s.caches.per_extent());
    let mut holders: BTreeMap<_, Vec<(SequenceId, usize)>> = BTreeMap::new();
    let mut claimed = 0;
    for (id, sequence) in &s.sequences {
        let Some(table) = sequence.tables.get(index) else { continue };
        claimed += table.claimed;
        let is_whole = |blocks: usize| blocks.is_multiple_of(per_extent);
        assert!(is_whole(table.blocks.len()), "{id} holds part of an extent");
        assert!(is_whole(table.first) && (table.first == 0 || group.window.is_some()));
        let extents = table.blocks.len() / per_extent;
        assert!(group.window.is_none() || extents <= table.claimed, "{id} holds more than claimed");
        for (at, blocks) in table.blocks.chunks_exact(per_extent).enumerate() {
            let extent = group.blocks.extent_of(blocks[0]);
            let ids = group.blocks.ids(extent);
            assert!(ids.eq(blocks.iter().copied()), "an extent in another order");
            holders.entry(extent).or_default().push((*id, table.first / per_extent + at));
        }
    }
    assert_eq!(claimed, group.claimed, "extents that are claimed");
    assert!(claimed <= group.blocks.count() as usize, "more is claimed than there is");
    for (extent, held) in &holders {
        let end = |index: &usize| (index + 1) * per_extent * 32;
        let content = |(id, index): &(SequenceId, usize)| {
            let sequence = &s.sequences[id];
            assert!(
                held.len() == 1 || sequence.sent >= end(index),
                "{extent:?} is open and shared"
            );
            sequence.tokens.get(..end(index))
        };
        let mut contents = held.iter().map(content);
        let first = contents.next().unwrap();
        assert!(contents.all(|other| other == first), "{extent:?} has two contents");
    }
    let counted: BTreeMap<_, _> =
        holders.iter().map(|(extent, held)| (*extent, held.len() as u32)).collect();
    group.blocks.assert_consistent(&counted);
}
