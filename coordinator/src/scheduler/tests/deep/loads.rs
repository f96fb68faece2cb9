//! Loads: who asks for what and when.

use super::super::flow::Flow;
use super::super::rng::Rng;
use super::figures::{Figures, itl, ttft};
use super::{Cluster, own};
use crate::scheduler::SchedulerConfig;
use woolly_protocol::ids::SequenceId;

/// Tokens of a prompt of a burst, and of its answer.
const SHORT: (u32, u32) = (32, 64);
/// Means of the prompts and answers of [`poisson`], which are exponential.
const MEANS: (f64, f64) = (300.0, 100.0);
/// Requests of a load that comes by chance, for each stage.
const REQUESTS: usize = 75;
/// Tokens that no stream comes to the end of.
const ENDLESS: u32 = 60_000;
/// Time between the arrivals of endless streams.
const BETWEEN: f64 = 0.05;

/// Streams that decode without end, one arriving after the other, and have found their pace.
fn streams(flow: &mut Flow, count: usize, settle: f64) -> Vec<SequenceId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(flow.submit(8, ENDLESS));
        flow.run(BETWEEN);
    }
    ids.iter().for_each(|id| flow.run_to_token(*id, 1));
    flow.run(settle);
    ids
}

/// So many endless streams over 40 s.
pub(super) fn steady(cluster: &Cluster, config: SchedulerConfig, count: usize) -> Figures {
    let mut flow = cluster.flow(config);
    let ids = streams(&mut flow, count, 20.0);
    let from = flow.now;
    let (tokens_per_s, _) = flow.measure(40.0);
    Figures {
        tokens_per_s,
        share: tokens_per_s / cluster.decode_ideal(count),
        ttft: ttft(&flow, &ids),
        itl: itl(&flow, &ids, from, flow.now),
        times_quiet: None,
    }
}

/// Bursts of short prompts, each so long after the one before is answered; the last one's figures.
pub(super) fn rounds(
    cluster: &Cluster,
    config: SchedulerConfig,
    bursts: &[usize],
    pause: f64,
) -> Figures {
    let mut flow = cluster.flow(config);
    let mut last = (Vec::new(), 0.0);
    for burst in bursts {
        let from = flow.now;
        last = (submit(&mut flow, *burst), from);
        flow.run_to_finish(flow.submitted.len());
        flow.run(pause);
    }
    of_burst(cluster, &flow, &last.0, last.1)
}

/// A burst of short prompts beside endless streams, whose gaps are shown.
pub(super) fn burst_beside(
    cluster: &Cluster,
    config: SchedulerConfig,
    (count, burst): (usize, usize),
) -> Figures {
    let mut flow = cluster.flow(config);
    let others = streams(&mut flow, count, 20.0);
    let from = flow.now;
    let ids = submit(&mut flow, burst);
    for id in &ids {
        flow.run_to_token(*id, 1);
    }
    beside(&flow, &others, from, of_burst(cluster, &flow, &ids, from))
}

/// The figures of a load that came at `from`, with the gaps of the streams beside it.
fn beside(flow: &Flow, others: &[SequenceId], from: f64, figures: Figures) -> Figures {
    let quiet = itl(flow, others, from - 10.0, from).p50();
    let itl = itl(flow, others, from, flow.now);
    Figures { times_quiet: Some(itl.p99() / quiet), itl, ..figures }
}

fn submit(flow: &mut Flow, burst: usize) -> Vec<SequenceId> {
    (0..burst).map(|_| flow.submit(SHORT.0, SHORT.1)).collect()
}

fn of_burst(cluster: &Cluster, flow: &Flow, ids: &[SequenceId], from: f64) -> Figures {
    let last = ids.iter().map(|id| flow.tokens[id][0]).fold(0.0, f64::max);
    let tokens_per_s = f64::from(SHORT.0) * ids.len() as f64 / (last - from);
    Figures {
        tokens_per_s,
        share: tokens_per_s / cluster.capacity(),
        ttft: ttft(flow, ids),
        itl: itl(flow, ids, from, flow.now),
        times_quiet: None,
    }
}

/// One prompt when nobody decodes, the third of its kind: the share is of the best fixed chunk.
pub(super) fn long_alone(cluster: &Cluster, config: SchedulerConfig, prompt: u32) -> Figures {
    let mut flow = cluster.flow(config);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = flow.submit(prompt, 1);
        flow.run_to_token(id, 1);
        flow.run(1.0);
        ids = vec![id];
    }
    let ttft = ttft(&flow, &ids);
    let tokens_per_s = f64::from(prompt) / ttft.p50();
    let share = cluster.prefill_ideal(prompt as usize) / ttft.p50();
    let itl = itl(&flow, &[], 0.0, 0.0);
    Figures { tokens_per_s, share, ttft, itl, times_quiet: None }
}

/// One prompt beside endless streams, whose gaps are shown.
pub(super) fn long_beside(
    cluster: &Cluster,
    config: SchedulerConfig,
    (count, prompt): (usize, u32),
) -> Figures {
    let mut flow = cluster.flow(config);
    let others = streams(&mut flow, count, 20.0);
    let from = flow.now;
    let id = flow.submit(prompt, 1);
    flow.run_to_token(id, 1);
    let tokens_per_s = f64::from(prompt) / (flow.now - from);
    let (share, ttft) = (tokens_per_s / cluster.capacity(), ttft(&flow, &[id]));
    let figures =
        Figures { tokens_per_s, share, ttft, itl: itl(&flow, &[], from, from), times_quiet: None };
    beside(&flow, &others, from, figures)
}

/// Requests that come by chance at a part of what the cluster can do, prompts and answers of all
/// lengths. The share is of the tokens of answers that were asked for in the time.
pub(super) fn poisson(cluster: &Cluster, config: SchedulerConfig, load: f64) -> Figures {
    come_and_go(cluster, config, load, MEANS)
}

/// The same with other mean lengths of prompts and answers.
pub(super) fn come_and_go(
    cluster: &Cluster,
    config: SchedulerConfig,
    load: f64,
    (prompt, answer): (f64, f64),
) -> Figures {
    let mut flow = cluster.flow(config);
    let mut rng = Rng(11);
    // What a request takes of the slowest stage when prompts are computed by 256 rows and answers by 8.
    let row = |rows: f64| own(rows, 1.0) / rows;
    let one = (prompt * row(256.0) + answer * row(8.0)) / cluster.stages() as f64;
    let (mut ids, mut asked) = (Vec::new(), 0.0);
    for _ in 0..REQUESTS * cluster.stages() {
        flow.run(exponential(&mut rng) * one / load);
        let prompt = (exponential(&mut rng) * prompt).ceil().clamp(1.0, 8_000.0);
        let answer = (exponential(&mut rng) * answer).ceil().clamp(1.0, 8_000.0);
        ids.push(flow.submit(prompt as u32, answer as u32));
        asked += answer;
    }
    let arrived = flow.now;
    flow.run_to_finish(ids.len());
    Figures {
        tokens_per_s: asked / flow.now,
        share: arrived / flow.now,
        ttft: ttft(&flow, &ids),
        itl: itl(&flow, &ids, 0.0, flow.now),
        times_quiet: None,
    }
}

/// Exponential with mean 1.
fn exponential(rng: &mut Rng) -> f64 {
    let unit = (rng.range(0, (1 << 32) - 1) as f64 + 0.5) / (1_u64 << 32) as f64;
    -unit.ln()
}
