//! A worker is lost: the plan ends, and the next one keeps what it can.

use super::*;
use woolly_protocol::control::Release;

fn stopped(action: &Action) -> PlanEpoch {
    match action {
        Action::Stopped { epoch, .. } => *epoch,
        other => panic!("expected the end of a plan, not {other:?}"),
    }
}

fn release(worker: WorkerId, epoch: u32) -> Action {
    Action::Release { worker, release: Release { epoch: PlanEpoch(epoch) } }
}

/// Workers of which two can hold the model, and one cannot.
fn tight(id: WorkerId) -> Hello {
    let serves = |memory_bytes: u64, workers: u32, ids: &[WorkerId]| {
        let mut cluster = cluster_of(config(workers));
        for id in ids {
            cluster.handle_hello(s(0), *id, &Hello { memory_bytes, ..hello(*id) }).unwrap();
        }
        !cluster.state().stages.is_empty()
    };
    let enough = (1..64).map(|mib| mib << 20).find(|bytes| serves(*bytes, 2, &[A, B])).unwrap();
    assert!(!serves(enough, 1, &[A]));
    Hello { memory_bytes: enough, ..hello(id) }
}

#[test]
fn the_survivors_compute_all_layers_where_they_can() {
    let mut cluster = serving(config(3), &[A, B, C]);
    cluster.handle_lost(s(5), B, "connection timed out");
    let todo = actions(&mut cluster);
    assert_eq!(stopped(&todo[0]), PlanEpoch(1));
    assert_eq!(todo[1..3], [release(A, 1), release(C, 1)]);
    assert_eq!(places(&todo[3..]), [(A, 0, 5), (C, 5, 8)], "in the order that they had");
    assert!(!cluster.state().ready);
    cluster.handle_lost(s(6), A, "gone");
    assert_eq!(places(&actions(&mut cluster)[1..]), [(C, 0, 8)]);
    cluster.handle_ready(s(6), C, &ready(PlanEpoch(3)));
    assert_eq!(served(&actions(&mut cluster)).0.stages, 1);
}

#[test]
fn a_cut_that_was_given_holds_while_there_are_workers_for_it() {
    let mut cluster = serving(config(2).cut(Some(vec![2, 6])), &[A, B]);
    join(&mut cluster, s(1), &[C]);
    cluster.handle_lost(s(5), A, "gone");
    assert_eq!(places(&actions(&mut cluster)[2..]), [(C, 0, 2), (B, 2, 8)]);
    cluster.handle_lost(s(6), C, "gone");
    assert_eq!(places(&actions(&mut cluster)[1..]), [(B, 0, 8)], "better than none");
}

#[test]
fn before_the_first_plan_workers_are_waited_for() {
    let mut cluster = cluster_of(config(2));
    join(&mut cluster, s(0), &[A, B]);
    actions(&mut cluster);
    cluster.handle_lost(s(1), A, "gone");
    assert_eq!(actions(&mut cluster), [release(B, 1)]);
    let detail = cluster.state().detail;
    assert!(detail.contains("1 of 2 have joined; worker worker-a is lost: gone"), "{detail}");
}

#[test]
fn the_plan_stops_and_waits_for_a_replacement_where_survivors_are_too_small() {
    let mut cluster = cluster_of(config(2));
    for id in [A, B] {
        cluster.handle_hello(s(0), id, &tight(id)).unwrap();
    }
    for id in [A, B] {
        cluster.handle_ready(s(0), id, &ready(PlanEpoch(1)));
    }
    actions(&mut cluster);
    cluster.handle_lost(s(5), A, "connection timed out");
    let todo = actions(&mut cluster);
    assert_eq!(stopped(&todo[0]), PlanEpoch(1));
    assert_eq!(todo[1..], [release(B, 1)]);
    let detail = cluster.state().detail;
    assert!(detail.contains("1 of 2 have joined"), "{detail}");
    assert!(!cluster.state().ready);

    cluster.handle_hello(s(9), C, &tight(C)).unwrap();
    let todo = actions(&mut cluster);
    // The survivor keeps its layers although it joined first of the two.
    let found = places(&todo);
    assert_eq!((found[0].0, found[1].0), (C, B));
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
    // A spare a little faster than the one before: not worth loading other layers.
    let mut cluster = serving(config(2), &[A, B]);
    let faster = Hello { read_bytes_per_s: 14 * GIB, ..hello(C) };
    cluster.handle_hello(s(4), C, &faster).unwrap();
    cluster.handle_lost(s(5), B, "gone");
    assert_eq!(places(&actions(&mut cluster)[2..]), [(A, 0, 5), (C, 5, 8)]);

    // Much faster: worth it.
    let faster = Hello { read_bytes_per_s: 100 * GIB, ..hello(B) };
    cluster.handle_hello(s(6), B, &faster).unwrap();
    cluster.handle_lost(s(7), C, "gone");
    let places = places(&actions(&mut cluster)[1..]);
    assert!(places[0].2 < 5, "{places:?}");
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
fn no_epoch_comes_again() {
    let mut cluster = serving(config(1), &[A]);
    for epoch in 1..20 {
        assert_eq!(cluster.latest(), PlanEpoch(epoch));
        cluster.handle_lost(s(1), A, "gone");
        join(&mut cluster, s(1), &[A]);
    }
}
