//! Mistakes that were found in deep pipelines, each by its name.

use super::super::flow::Flow;
use super::loads::{burst_beside, long_alone, long_beside, rounds, steady};
use super::{Cluster, LINKS, config, with_target};
use crate::scheduler::{ItlTarget, SchedulerConfig};
use std::time::Duration;

/// A decode curve that is flat up to four rows was believed to be flat for 64: all streams went into one
/// group, prompts trickled, and nothing measured otherwise. Whether it happened was a matter of when
/// reports came.
#[test]
fn a_burst_after_a_few_streams_does_not_collapse() {
    for cluster in [Cluster::own(4), Cluster::own(8), Cluster::bus()] {
        for pause in [0.0, 0.1, 0.2, 0.3, 0.4] {
            for bursts in [&[1, 4, 16, 64, 64][..], &[1, 4, 64, 64], &[1, 4, 16, 64], &[4, 64]] {
                let found = rounds(&cluster, config(), bursts, pause);
                let stages = cluster.stages();
                assert!(found.share >= 0.5, "{stages} stages, {bursts:?}, {pause} s: {found}");
            }
        }
    }
}

/// A target of twice the quiet gap left prompts two fifths of the cluster, whatever waited.
#[test]
fn the_default_target_leaves_prompts_most_of_the_cluster() {
    for stages in [8, 16, 32] {
        let found = burst_beside(&Cluster::own(stages), config(), (64, 64));
        let twice = burst_beside(&Cluster::own(stages), with_target(200), (64, 64));
        let more = found.tokens_per_s / twice.tokens_per_s;
        assert!(more >= 1.15, "{stages} stages: {found}, {twice}");
    }
}

/// One stream held 63 prompts to nine rows a microbatch.
#[test]
fn one_stream_does_not_hold_up_a_queue() {
    let cluster = Cluster::own(8);
    let (one, none) =
        (burst_beside(&cluster, config(), (1, 64)), rounds(&cluster, config(), &[64], 0.0));
    assert!(one.tokens_per_s >= 0.9 * none.tokens_per_s, "{one}, {none}");
    // A target that is a time is kept whoever waits.
    let time = Duration::from_millis(500);
    let strict = SchedulerConfig { itl_target: ItlTarget::Time(time), ..config() };
    let found = burst_beside(&cluster, strict, (16, 64));
    assert!(found.itl.p99() <= 0.55, "{found}");
}

/// 32 rows were the least of a chunk: too many for a prompt of 512 in 16 stages.
#[test]
fn short_prompts_go_through_deep_pipelines_in_small_chunks() {
    for stages in [16, 32] {
        let found = long_alone(&Cluster::own(stages), config(), 512);
        assert!(found.share >= 0.95, "{stages} stages: {found}");
    }
}

/// Small chunks keep no stage busy if few of them may be on long links.
#[test]
fn chunks_count_what_links_take() {
    for (stages, link) in [(32, LINKS[2]), (8, LINKS[3])] {
        let found = long_alone(&Cluster::own(stages).with_link(link), config(), 2048);
        assert!(found.share >= 0.95, "{stages} stages, {link} s: {found}");
    }
}

/// One microbatch on its way beside one for each stage leaves stages idle where links are slow.
#[test]
fn slow_links_carry_more_microbatches() {
    for (stages, streams, link, least) in [(32, 256, LINKS[2], 0.93), (8, 64, LINKS[3], 0.97)] {
        let found = steady(&Cluster::own(stages).with_link(link), config(), streams);
        assert!(found.share >= least, "{stages} stages, {link} s: {found}");
    }
}

/// Streams that decode alone come back soon. When each was sent out again with as much prefill as a full
/// pipeline bears, they queued before the first stage: a gap of twice the target for each new prompt.
#[test]
fn the_first_chunks_beside_streams_are_smaller() {
    for stages in [2, 4, 8, 16, 32] {
        for prompt in [64, 256, 2048] {
            let found = long_beside(&Cluster::own(stages), config(), (16, prompt));
            assert!(found.times_quiet.unwrap() <= 4.5, "{prompt} tokens, {stages} stages: {found}");
        }
    }
}

/// While prompts wait every microbatch has prefill, and the gap that decoding would have alone, of which
/// the target is a multiple, was what it had been before.
#[test]
fn decodes_are_measured_while_prompts_wait() {
    let cluster = Cluster::own(4);
    let mut flow: Flow = cluster.flow(config());
    for _ in 0..16 {
        flow.submit(8, 60_000);
    }
    flow.run(10.0);
    let prompts: Vec<_> = (0..20).map(|_| flow.submit(4096, 1)).collect();
    flow.run_to_token(prompts[0], 1);
    let from = flow.now;
    flow.run(200.0);
    assert!(!flow.tokens.contains_key(&prompts[19]), "prompts waited all the time");
    let late = flow.sent.iter().filter(|sent| sent.0 > from && sent.1 > 0);
    let (all, alone) =
        late.fold((0, 0), |(all, alone), sent| (all + 1, alone + usize::from(sent.2 == 0)));
    assert!(alone >= 2, "{alone} of {all}");
    assert!(alone * 50 <= all, "{alone} of {all}");
}
