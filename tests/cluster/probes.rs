//! What probes say of real processes over their lives.

use woolly_tests::cluster::{Cluster, READY_LIMIT, Setup};
use woolly_tests::fixtures;
use woolly_tests::process::{run, wait_until};

/// What a probe says: whether its exit status is 0, and its line.
fn probe(cluster: &Cluster, program: &str, folder: &str, what: &str) -> (bool, String) {
    let state = cluster.folder().join(folder).display().to_string();
    let arguments = ["probe", what, "--state-dir", &state, "--timeout", "20s"];
    let (code, stdout, stderr) = run(program, &arguments, cluster.folder());
    assert!(code == Some(0) || code == Some(1), "{code:?}: {stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}{stderr}");
    (code == Some(0), stdout)
}

fn of_coordinator(cluster: &Cluster, what: &str) -> (bool, String) {
    probe(cluster, "woolly-coordinator", "coordinator", what)
}

/// Waits until both probes of a worker say so.
fn wait_for_worker(cluster: &Cluster, name: &str, state: &str, live: bool, ready: bool) {
    let as_said = || {
        let (is_live, line) = probe(cluster, "woolly-worker", name, "live");
        let (is_ready, _) = probe(cluster, "woolly-worker", name, "ready");
        let found = line.starts_with(&format!("{state}: ")) && (is_live, is_ready) == (live, ready);
        found.then_some(())
    };
    wait_until(READY_LIMIT, as_said, || {
        let told = probe(cluster, "woolly-worker", name, "ready");
        format!("{name} is not {state} but {told:?}\n{}", cluster.logs())
    });
}

#[test]
fn probes_follow_both_programs_from_start_to_end() {
    let mut cluster = Setup::of_two(fixtures::granite_tiny()).start_coordinator();
    cluster.join_words();
    let answers = || {
        let (live, line) = of_coordinator(&cluster, "live");
        assert!(live, "{line}");
        line.starts_with("loading: ").then_some(())
    };
    wait_until(READY_LIMIT, answers, || format!("{:?}", of_coordinator(&cluster, "live")));
    assert!(!of_coordinator(&cluster, "ready").0, "nothing is served");

    cluster.add_worker();
    wait_for_worker(&cluster, "worker-1", "spare", true, true);
    cluster.add_worker();
    cluster.wait_ready();
    for worker in ["worker-1", "worker-2"] {
        wait_for_worker(&cluster, worker, "serving", true, true);
    }
    let (ready, line) = of_coordinator(&cluster, "ready");
    assert!(ready && line.starts_with("serving: "), "{line}");

    cluster.workers[1].kill();
    wait_for_worker(&cluster, "worker-2", "ended", false, false);
    cluster.coordinator.kill();
    assert!(of_coordinator(&cluster, "live").1.starts_with("ended: "));
    wait_for_worker(&cluster, "worker-1", "joining", true, false);
}
