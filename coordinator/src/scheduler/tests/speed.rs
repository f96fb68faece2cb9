//! What the policy makes of stages with given times: tokens per second, busy stages, gaps, prefill.

use super::flow::{Cost, Flow};
use crate::scheduler::{ItlTarget, SchedulerConfig};

const LINK: f64 = 0.000_2;

/// Time in milliseconds that grows with the rows from the first on, as on machines of their own.
fn own_machine(rows: f64, _: f64) -> f64 {
    (6.0 + rows) * 2e-3
}

/// Reading the weights takes all, and all stages together have one memory.
fn one_bus(rows: f64, at_work: f64) -> f64 {
    (20.0 * at_work + 0.1 * rows) * 1e-3
}

/// The memory is shared and counts as long as the multiplications take less.
fn roofline(rows: f64, at_work: f64) -> f64 {
    (10.0 + 6.0 * (at_work - 1.0)).max(2.5 * rows) * 1e-3
}

/// Flat up to 8 rows.
fn wide(rows: f64, _: f64) -> f64 {
    10f64.max(1.25 * rows) * 1e-3
}

/// In proportion to the rows: splitting is free.
fn proportional(rows: f64, _: f64) -> f64 {
    rows * 3e-3
}

/// Half as fast as [`own_machine`].
fn slow(rows: f64, at_work: f64) -> f64 {
    2.0 * own_machine(rows, at_work)
}

/// A tiny model: links count.
fn tiny(rows: f64, _: f64) -> f64 {
    (0.4 + 0.05 * rows) * 1e-3
}

const SHAPES: [(&str, [Cost; 2]); 7] = [
    ("own machine", [own_machine, own_machine]),
    ("one bus", [one_bus, one_bus]),
    ("roofline", [roofline, roofline]),
    ("wide", [wide, wide]),
    ("proportional", [proportional, proportional]),
    ("uneven", [own_machine, slow]),
    ("tiny", [tiny, tiny]),
];

fn with_groups(decode_groups: Option<u32>) -> SchedulerConfig {
    SchedulerConfig { decode_groups, ..SchedulerConfig::default() }
}

/// So many streams that decode without end, one arriving every 50 ms.
fn decoding(config: SchedulerConfig, costs: &[Cost], streams: usize) -> Flow {
    let mut flow = Flow::new(config, costs, LINK);
    for _ in 0..streams {
        flow.submit(8, 60_000);
        flow.run(0.05);
    }
    flow
}

#[test]
fn every_stage_is_busy_with_eight_streams() {
    let four: &[Cost] = &[own_machine as Cost; 4];
    for costs in [&four[..2], four] {
        let mut flow = decoding(with_groups(None), costs, 8);
        flow.run(5.0);
        let (_, busy) = flow.measure(20.0);
        assert!(busy.iter().all(|busy| *busy >= 0.95), "{busy:?}");
    }
}

#[test]
fn on_one_bus_that_gives_no_more_all_decode_together() {
    let mut flow = decoding(with_groups(None), &[one_bus, one_bus], 8);
    flow.run(10.0);
    let from = flow.now;
    flow.run(20.0);
    let late: Vec<_> = flow.sent.iter().filter(|sent| sent.0 > from).collect();
    let together = late.iter().filter(|sent| sent.1 == 8).count();
    assert!(together * 100 >= late.len() * 95, "{together} of {}", late.len());
}

#[test]
fn its_own_choice_is_as_good_as_the_better_of_one_and_two_groups() {
    for (name, costs) in SHAPES {
        for streams in [2, 4, 8, 16] {
            let speed = |groups| {
                let mut flow = decoding(with_groups(groups), &costs, streams);
                flow.run(3.0);
                flow.measure(20.0).0
            };
            let (own, one, two) = (speed(None), speed(Some(1)), speed(Some(2)));
            assert!(own >= 0.97 * one.max(two), "{name}, {streams} streams: {own}");
        }
    }
}

#[test]
fn the_first_seconds_of_a_plan_lose_little_to_tries() {
    for (name, costs) in SHAPES {
        for streams in [2, 4, 8, 16] {
            let speed = |groups| decoding(with_groups(groups), &costs, streams).measure(10.0).0;
            let (own, one, two) = (speed(None), speed(Some(1)), speed(Some(2)));
            assert!(own >= 0.95 * one.max(two), "{name}, {streams} streams: {own}, {one}, {two}");
        }
    }
}

#[test]
fn sequences_regroup_when_their_number_changes() {
    // Up to 8 rows cost the same: one group of 4, but two of 8.
    let mut flow = decoding(with_groups(None), &[wide, wide], 16);
    flow.run(5.0);
    let (_, busy) = flow.measure(5.0);
    assert!(busy.iter().all(|busy| *busy >= 0.95), "{busy:?}");
    let sizes: Vec<_> = flow.sent.iter().rev().take(10).map(|sent| sent.1).collect();
    assert_eq!(sizes, [8; 10]);
}

/// Targets in percent of the undisturbed gap, and how many times as long as that the p99 of the gaps is
/// at most: twice, and the default.
const TARGETS: [(u32, f64); 2] = [(200, 2.5), (400, 4.5)];
/// The same where a forward may take twice its time.
const TARGETS_WITH_JITTER: [(u32, f64); 2] = [(200, 2.5), (400, 5.0)];

#[test]
fn running_streams_hardly_notice_a_long_prompt() {
    for (name, costs) in SHAPES {
        for target in TARGETS {
            a_long_prompt_beside_four_streams(name, &costs, 0.0, target);
        }
    }
}

#[test]
fn nor_do_they_where_a_forward_may_take_twice_its_time() {
    // The curves know the usual time; only the gaps themselves tell how much times vary.
    for (name, cost) in
        [("own machine", own_machine as Cost), ("roofline", roofline), ("tiny", tiny)]
    {
        for target in TARGETS_WITH_JITTER {
            a_long_prompt_beside_four_streams(name, &[cost, cost], 1.0, target);
        }
    }
}

fn a_long_prompt_beside_four_streams(
    name: &str,
    costs: &[Cost],
    jitter: f64,
    (percent, most): (u32, f64),
) {
    let config = SchedulerConfig { itl_target: ItlTarget::Percent(percent), ..with_groups(None) };
    let mut flow = decoding(config, costs, 4);
    flow.jitter = jitter;
    flow.run(5.0);
    let quiet_from = flow.now;
    flow.run(5.0);
    let quiet_to = flow.now;
    let long = flow.submit(4096, 1);
    flow.run_to_token(long, 1);
    let streams: Vec<_> = flow.tokens.keys().copied().filter(|id| *id != long).collect();
    let all = |from, to| {
        let mut all: Vec<_> = streams.iter().flat_map(|id| flow.gaps(*id, from, to)).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let quiet = all(quiet_from, quiet_to);
    let (quiet, beside) = (quiet[quiet.len() / 2], all(quiet_to, flow.now));
    let p99 = beside[beside.len() * 99 / 100];
    let took = flow.now - quiet_to;
    let ratio = p99 / quiet;
    assert!(ratio <= most, "{name}: p99 {ratio:.2} x with a target of {percent} %");
    if percent == 400 {
        // What the streams give up of their time goes into the prompt.
        let given = (p99 / quiet - 1.0) * quiet * beside.len() as f64 / 4.0;
        assert!(given >= 0.4 * took, "{name}: {given:.2} of {took:.2} s");
    }
}

#[test]
fn a_target_in_time_is_kept() {
    let time = std::time::Duration::from_millis(100);
    let config = SchedulerConfig { itl_target: ItlTarget::Time(time), ..with_groups(None) };
    let mut flow = decoding(config, &[own_machine, own_machine], 4);
    flow.run(5.0);
    let from = flow.now;
    let long = flow.submit(4096, 1);
    flow.run_to_token(long, 1);
    let first = *flow.tokens.keys().next().unwrap();
    let gaps = flow.gaps(first, from, flow.now);
    let p99 = gaps[gaps.len() * 99 / 100];
    assert!((0.05..=0.11).contains(&p99), "{p99}");
}

#[test]
fn a_long_prompt_keeps_both_stages_busy() {
    for cost in [own_machine as Cost, proportional, roofline] {
        // What one process with the threads of both would take, in chunks of 512.
        let ideal = 4.0 * cost(512.0, 2.0);
        let mut flow = Flow::new(with_groups(None), &[cost, cost], LINK);
        for prompt in 0..3 {
            let from = flow.now;
            let id = flow.submit(2048, 1);
            flow.run_to_token(id, 1);
            let part = ideal / (flow.now - from);
            assert!(part >= 0.86, "prompt {prompt}: {part}");
            flow.run(1.0);
        }
    }
}

#[test]
fn one_stream_alone_waits_for_nothing() {
    let mut flow = decoding(with_groups(None), &[own_machine, own_machine], 1);
    flow.run(2.0);
    let (tokens, _) = flow.measure(10.0);
    let sum = 2.0 * own_machine(1.0, 1.0);
    assert!(1.0 / tokens <= 1.03 * sum + 3.0 * LINK, "{tokens} tokens/s, {sum} s");
}
