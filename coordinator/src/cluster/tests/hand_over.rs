//! A worker that leaves politely keeps its stage until the next plan is ready.

use super::*;
use woolly_protocol::control::Drain;

fn drain(cluster: &mut Cluster, now: Duration, id: WorkerId) -> Vec<Action> {
    cluster.handle_drain(now, id, &Drain { reason: "going\nhome".to_owned() });
    actions(cluster)
}

fn ready_all(cluster: &mut Cluster, now: Duration, epoch: u32, ids: &[WorkerId]) -> Vec<Action> {
    for id in ids {
        cluster.handle_ready(now, *id, &ready(PlanEpoch(epoch)));
    }
    actions(cluster)
}

fn release(worker: WorkerId, epoch: u32) -> Action {
    Action::Release { worker, release: Release { epoch: PlanEpoch(epoch) } }
}

#[test]
fn the_next_plan_is_prepared_beside_the_one_that_is_served() {
    let mut cluster = serving(config(2), &[A, B]);
    join(&mut cluster, s(0), &[C]);
    let todo = drain(&mut cluster, s(1), B);
    assert_eq!(places(&todo), [(A, 0, 5), (C, 5, 8)]);
    assert!(cluster.state().ready, "the old one goes on");
    let todo = ready_all(&mut cluster, s(2), 2, &[A, C]);
    let [Action::TakeOver { lane: LANE, limits, stages }] = &todo[..] else { panic!("{todo:?}") };
    assert_eq!((limits.epoch, stages.len()), (PlanEpoch(2), 2));
    cluster.handle_taken_over(s(3), LANE, PlanEpoch(2));
    assert_eq!(actions(&mut cluster), [release(A, 1), release(B, 1)]);
    assert!(cluster.state().ready && cluster.state().stages[1].worker == "worker-c");
    // It has nothing left, and goes by itself.
    cluster.handle_lost(s(4), B, "the worker has left");
    assert_eq!(actions(&mut cluster), []);
}

#[test]
fn without_a_spare_the_others_take_over() {
    let mut cluster = serving(config(2), &[A, B]);
    let todo = drain(&mut cluster, s(1), A);
    assert_eq!(places(&todo), [(B, 0, 8)]);
    ready_all(&mut cluster, s(2), 2, &[B]);
    cluster.handle_taken_over(s(2), LANE, PlanEpoch(2));
    assert_eq!(cluster.state().stages.len(), 1);
}

#[test]
fn a_spare_that_leaves_has_nothing_to_hand_over() {
    let mut cluster = serving(config(1), &[A]);
    join(&mut cluster, s(0), &[B]);
    assert_eq!(drain(&mut cluster, s(1), B), []);
    cluster.handle_lost(s(2), B, "the worker has left");
    assert!(cluster.state().ready);
}

#[test]
fn where_nobody_can_take_over_it_goes_at_once() {
    let mut cluster = serving(config(1), &[A]);
    let todo = drain(&mut cluster, s(1), A);
    assert!(matches!(&todo[0], Action::Evict { worker: A, .. }), "{todo:?}");
    assert!(matches!(&todo[1], Action::Stopped { epoch: PlanEpoch(1), .. }), "{todo:?}");
    assert!(cluster.state().detail.contains("it leaves: going home"), "one line");
    cluster.handle_lost(s(2), A, "the worker has left");
    assert_eq!(actions(&mut cluster), []);
}

#[test]
fn if_the_one_that_leaves_dies_meanwhile_the_next_plan_is_there_already() {
    let mut cluster = serving(config(2), &[A, B]);
    join(&mut cluster, s(0), &[C]);
    drain(&mut cluster, s(1), B);
    cluster.handle_ready(s(2), A, &ready(PlanEpoch(2)));
    cluster.handle_lost(s(2), B, "killed");
    let todo = actions(&mut cluster);
    assert!(matches!(&todo[0], Action::Stopped { epoch: PlanEpoch(1), .. }), "{todo:?}");
    assert_eq!(todo[1..], [release(A, 1)], "and no third plan");
    let todo = ready_all(&mut cluster, s(3), 2, &[C]);
    assert_eq!(served(&todo).0.epoch, PlanEpoch(2));
}

#[test]
fn if_one_of_the_next_plan_dies_another_is_made_and_the_shell_hears_of_it() {
    let mut cluster = serving(config(2), &[A, B]);
    join(&mut cluster, s(0), &[C]);
    drain(&mut cluster, s(1), B);
    ready_all(&mut cluster, s(2), 2, &[A, C]);
    cluster.handle_lost(s(2), C, "killed");
    let todo = actions(&mut cluster);
    assert_eq!(todo[0], Action::Withdrawn { lane: LANE });
    assert_eq!(todo[1], release(A, 2));
    assert_eq!(places(&todo[2..]), [(A, 0, 8)]);
    // What the shell says of the one that was withdrawn does not count.
    cluster.handle_taken_over(s(3), LANE, PlanEpoch(2));
    assert_eq!(actions(&mut cluster), []);
}

#[test]
fn one_that_could_not_load_beside_its_present_stage_is_not_made_to_wait_after_it() {
    let mut cluster = serving(config(2), &[A, B]);
    drain(&mut cluster, s(1), A);
    cluster.handle_fault(s(2), B, &fault(PlanEpoch(2), FaultCode::LoadFailed, "no memory"));
    // Nobody else can: the one that leaves goes, and what it held is free.
    let todo = actions(&mut cluster);
    assert!(
        todo.iter().any(|action| matches!(action, Action::Evict { worker: A, .. })),
        "{todo:?}"
    );
    assert_eq!(places(&todo[todo.len() - 1..]), [(B, 0, 8)], "at once");
}

#[test]
fn two_that_leave_one_after_the_other_are_both_left_out() {
    let mut cluster = serving(config(2), &[A, B]);
    join(&mut cluster, s(0), &[C]);
    drain(&mut cluster, s(1), B);
    let todo = drain(&mut cluster, s(1), A);
    assert_eq!(todo[..2], [release(A, 2), release(C, 2)]);
    assert_eq!(places(&todo[2..]), [(C, 0, 8)]);
}
