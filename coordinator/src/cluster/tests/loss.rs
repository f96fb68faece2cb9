//! A worker is lost: the plan ends, and the next one keeps what it can.

use super::*;
use woolly_protocol::control::{Drain, Release};

fn stopped(action: &Action) -> PlanEpoch {
    match action {
        Action::Stopped { epoch, .. } => *epoch,
        other => panic!("expected the end of a plan, not {other:?}"),
    }
}

fn release(worker: WorkerId, epoch: u32) -> Action {
    Action::Release { worker, release: Release { epoch: PlanEpoch(epoch) } }
}

#[test]
fn the_plan_stops_and_waits_for_a_replacement() {
    let mut cluster = serving(config(2), &[A, B]);
    cluster.handle_lost(s(5), A, "connection timed out");
    let todo = actions(&mut cluster);
    assert_eq!(stopped(&todo[0]), PlanEpoch(1));
    assert_eq!(todo[1..], [release(B, 1)]);
    let detail = cluster.state().detail;
    assert!(detail.contains("1 of 2 have joined; worker worker-a is lost: connection timed out"));
    assert!(!cluster.state().ready);

    join(&mut cluster, s(9), &[C]);
    let todo = actions(&mut cluster);
    // The survivor keeps its layers although it joined first of the two.
    assert_eq!(places(&todo), [(C, 0, 5), (B, 5, 8)]);
    assert_eq!(assigned(&todo)[0].1.links.epoch, PlanEpoch(2));
    cluster.handle_ready(s(9), B, &ready(PlanEpoch(1)));
    cluster.handle_ready(s(9), C, &ready(PlanEpoch(2)));
    assert_eq!(actions(&mut cluster), [], "readiness for the old plan does not count");
    cluster.handle_ready(s(9), B, &ready(PlanEpoch(2)));
    assert_eq!(served(&actions(&mut cluster)).0.epoch, PlanEpoch(2));
}

#[test]
fn a_spare_takes_the_place_at_once() {
    let mut cluster = serving(config(2), &[A, B]);
    join(&mut cluster, s(1), &[C]);
    cluster.handle_lost(s(5), B, "gone");
    let todo = actions(&mut cluster);
    assert_eq!(stopped(&todo[0]), PlanEpoch(1));
    assert_eq!(todo[1], release(A, 1));
    assert_eq!(places(&todo[2..]), [(A, 0, 5), (C, 5, 8)]);
}

#[test]
fn the_previous_cut_is_preferred() {
    // A worker a little faster than the one before: not worth loading other layers.
    let mut cluster = serving(config(2), &[A, B]);
    cluster.handle_lost(s(5), B, "gone");
    actions(&mut cluster);
    let faster = Hello { read_bytes_per_s: 14 * GIB, ..hello(C) };
    cluster.handle_hello(s(6), C, &faster).unwrap();
    assert_eq!(places(&actions(&mut cluster)), [(A, 0, 5), (C, 5, 8)]);

    // Much faster: worth it.
    cluster.handle_lost(s(7), C, "gone");
    actions(&mut cluster);
    let faster = Hello { read_bytes_per_s: 100 * GIB, ..hello(C) };
    cluster.handle_hello(s(8), C, &faster).unwrap();
    let places = places(&actions(&mut cluster));
    assert!(places[0].2 < 5, "{places:?}");
}

#[test]
fn a_plan_that_was_not_served_does_not_stop() {
    let mut cluster = cluster_of(config(2));
    join(&mut cluster, s(0), &[A, B]);
    actions(&mut cluster);
    cluster.handle_lost(s(1), A, "gone");
    assert_eq!(actions(&mut cluster), [release(B, 1)]);
    join(&mut cluster, s(2), &[A]);
    assert_eq!(places(&actions(&mut cluster)), [(A, 0, 5), (B, 5, 8)]);
    assert_eq!(cluster.latest(), PlanEpoch(2));
}

#[test]
fn a_spare_that_leaves_disturbs_nobody() {
    let mut cluster = serving(config(1), &[A]);
    join(&mut cluster, s(1), &[B]);
    cluster.handle_lost(s(2), B, "gone");
    cluster.handle_lost(s(2), B, "gone");
    cluster.handle_lost(s(2), C, "never known");
    assert_eq!(actions(&mut cluster), []);
    assert!(cluster.state().ready);
}

#[test]
fn a_polite_leave_closes_the_connection() {
    let mut cluster = serving(config(1), &[A]);
    cluster.handle_drain(s(1), A, &Drain { reason: "going\nhome".to_owned() });
    let todo = actions(&mut cluster);
    assert!(matches!(&todo[0], Action::Evict { worker: A, .. }), "{todo:?}");
    assert_eq!(stopped(&todo[1]), PlanEpoch(1));
    assert!(cluster.state().detail.contains("it leaves: going home"), "one line");
    cluster.handle_lost(s(2), A, "the worker has left");
    assert_eq!(actions(&mut cluster), []);
}

#[test]
fn no_epoch_comes_again() {
    let mut cluster = serving(config(1), &[A]);
    for epoch in 1..20 {
        assert_eq!(cluster.latest(), PlanEpoch(epoch));
        cluster.handle_lost(s(1), A, "gone");
        join(&mut cluster, s(1), &[A]);
    }
}
