//! All loads on all clusters: one line each, as the table in `docs/scheduling.md`.
//!
//! `WOOLLY_SCENARIOS=all` at compile time runs every cluster; `--nocapture` shows the lines; without it two stages and
//! the odd ones of eight are enough to see that every load is served.

use super::figures::Figures;
use super::loads::{burst_beside, come_and_go, long_alone, long_beside, poisson, rounds, steady};
use super::{ATTENTION, Cluster, JITTER, LINKS, config, with_target};
use crate::scheduler::SchedulerConfig;
use crate::test_report::line;

/// A load, and the share of the ideal that it must have at least.
type Load = (&'static str, f64, fn(&Cluster, SchedulerConfig) -> Figures);

const LOADS: [Load; 12] = [
    ("16 streams", 0.9, |cluster, config| steady(cluster, config, 16)),
    ("64 streams", 0.9, |cluster, config| steady(cluster, config, 64)),
    ("256 streams", 0.85, |cluster, config| steady(cluster, config, 256)),
    ("rounds 1 4 16 64 64", 0.3, |cluster, config| {
        rounds(cluster, config, &[1, 4, 16, 64, 64], 0.0)
    }),
    ("burst of 64 beside 64", 0.2, |cluster, config| burst_beside(cluster, config, (64, 64))),
    ("512 alone", 0.85, |cluster, config| long_alone(cluster, config, 512)),
    ("2048 alone", 0.85, |cluster, config| long_alone(cluster, config, 2048)),
    ("2048 beside 16", 0.25, |cluster, config| long_beside(cluster, config, (16, 2048))),
    ("Poisson 0.4", 0.7, |cluster, config| poisson(cluster, config, 0.4)),
    ("Poisson 0.6", 0.7, |cluster, config| poisson(cluster, config, 0.6)),
    ("Poisson 0.8", 0.5, |cluster, config| poisson(cluster, config, 0.8)),
    ("come and go 0.5", 0.5, |cluster, config| come_and_go(cluster, config, 0.5, (30.0, 200.0))),
];

/// Clusters with a name.
fn clusters(all: bool) -> Vec<(String, Cluster)> {
    let mut found = Vec::new();
    for stages in [2, 4, 8, 16, 32] {
        for link in LINKS {
            if all || (link == LINKS[0] && stages == 2) {
                let name = format!("{stages} own, {} ms", link * 1e3);
                found.push((name, Cluster::own(stages).with_link(link)));
            }
        }
    }
    found.push(("8 on a bus".to_owned(), Cluster::bus()));
    let eight = || Cluster::own(8);
    found.push(("8, one 20 % slower".to_owned(), eight().with_a_slow_stage()));
    found.push(("8, jitter".to_owned(), Cluster { jitter: JITTER, ..eight() }));
    found.push(("8, attention".to_owned(), Cluster { attention: ATTENTION, ..eight() }));
    found
}

#[test]
fn every_load_is_served_on_every_cluster() {
    let all = option_env!("WOOLLY_SCENARIOS") == Some("all");
    for (name, cluster) in clusters(all) {
        for (load, least, run) in LOADS {
            let found = run(&cluster, config());
            line(format_args!("{name:18} | {load:21} | {found}"));
            assert!(found.share >= least, "{name}, {load}: {found}");
            let calm =
                !load.starts_with("2048") || found.times_quiet.is_none_or(|times| times <= 6.5);
            assert!(calm, "{name}, {load}: {found}");
        }
    }
}

/// What other targets and the rules of other servers would give, eight stages. vLLM fills every
/// microbatch up to its budget of rows, Sarathi up to a smaller one; neither looks at gaps.
#[test]
fn other_rules_lose_what_the_default_gains() {
    let rows = |rows_per_step| SchedulerConfig { rows_per_step, ..with_target(100_000) };
    let rules = [
        ("2x", with_target(200)),
        ("3x", with_target(300)),
        ("4x, the default", config()),
        ("6x", with_target(600)),
        ("as Sarathi, 64 rows", rows(64)),
        ("as vLLM, 256 rows", rows(256)),
    ];
    let mut found = Vec::new();
    for (name, config) in rules {
        let cluster = Cluster::own(8);
        let poisson = poisson(&cluster, config, 0.8);
        let burst = burst_beside(&cluster, config, (64, 64));
        line(format_args!("{name:20} | Poisson 0.8      | {poisson}"));
        line(format_args!("{name:20} | burst beside 64  | {burst}"));
        found.push((poisson, burst));
    }
    let (twice, default, vllm) = (&found[0], &found[2], &found[5]);
    assert!(default.0.ttft.p50() <= 0.5 * twice.0.ttft.p50(), "sooner than with 2x");
    assert!(default.0.itl.p99() <= 0.5 * vllm.0.itl.p99(), "smoother than without a target");
}
