//! What each load must reach on machines of their own, with links of a rack unless said.

use super::loads::{burst_beside, long_alone, long_beside, poisson, rounds, steady};
use super::{Cluster, config};

/// Bursts that come one after the other.
const ROUNDS: [usize; 5] = [1, 4, 16, 64, 64];

#[test]
fn sixty_four_short_prompts_at_once() {
    let found = rounds(&Cluster::own(8), config(), &ROUNDS, 0.0);
    let good = found.ttft.p50() <= 7.0 && found.ttft.p99() <= 12.0 && found.tokens_per_s >= 180.0;
    assert!(good, "{found}");
    let found = rounds(&Cluster::bus(), config(), &ROUNDS, 0.0);
    let good = found.ttft.p50() <= 9.0 && found.ttft.p99() <= 15.0 && found.tokens_per_s >= 140.0;
    assert!(good, "on one bus: {found}");
}

#[test]
fn requests_by_chance_at_four_fifths_of_what_the_cluster_can_do() {
    for (stages, most) in [(4, 9.0), (8, 6.0), (16, 4.0), (32, 3.5)] {
        let found = poisson(&Cluster::own(stages), config(), 0.8);
        assert!(found.ttft.p50() <= most, "{stages} stages: {found}");
        assert!(found.itl.p99() <= 1.5, "{stages} stages: {found}");
    }
}

#[test]
fn streams_at_lower_loads_are_as_quick_as_alone() {
    for load in [0.4, 0.6] {
        let found = poisson(&Cluster::own(8), config(), load);
        let quiet = super::own(1.0, 1.0);
        assert!(found.itl.p50() <= 1.1 * quiet, "{load}: {found}");
    }
}

#[test]
fn streams_beside_a_burst_and_beside_a_long_prompt() {
    let found = burst_beside(&Cluster::own(8), config(), (64, 64));
    assert!(found.itl.p99() <= 2.3, "{found}");
    for stages in [4, 8, 16, 32] {
        let found = long_beside(&Cluster::own(stages), config(), (16, 2048));
        assert!(found.times_quiet.unwrap() <= 4.5, "{stages} stages: {found}");
    }
}

#[test]
fn steady_streams_get_what_the_stages_can_compute() {
    for stages in [4, 8, 16, 32] {
        for streams in [16, 64, 256] {
            let found = steady(&Cluster::own(stages), config(), streams);
            assert!(found.share >= 0.97, "{stages} stages, {streams} streams: {found}");
        }
    }
}

#[test]
fn a_prompt_alone_is_as_soon_computed_as_in_the_best_chunk() {
    for stages in [4, 8, 16, 32] {
        for prompt in [512, 2048, 8192] {
            let found = long_alone(&Cluster::own(stages), config(), prompt);
            assert!(found.share >= 0.95, "{prompt} tokens, {stages} stages: {found}");
        }
    }
}
