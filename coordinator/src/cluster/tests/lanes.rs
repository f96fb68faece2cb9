//! Several lanes over the same workers.

use super::*;

const OTHER: LaneId = LaneId(1);

/// One worker that holds the whole model of two lanes, which are served.
fn two_lanes() -> Cluster {
    let mut cluster = serving(config(1), &[A]);
    cluster.handle_lane(s(0), OTHER, placement(1), [8; 32], Vec::new());
    let todo = actions(&mut cluster);
    let [(worker, assign)] = assigned(&todo)[..] else { panic!("{todo:?}") };
    assert_eq!((worker, assign.links.epoch, assign.stage.fingerprint), (A, PlanEpoch(2), [8; 32]));
    cluster.handle_ready(s(0), A, &ready(PlanEpoch(2)));
    let todo = actions(&mut cluster);
    assert!(matches!(todo[..], [Action::Serving { lane: OTHER, .. }]), "{todo:?}");
    cluster
}

#[test]
fn members_are_here_before_any_lane_and_lanes_find_them() {
    let mut cluster = empty(config(1).timeouts);
    join(&mut cluster, s(0), &[A, B]);
    let detail = "reading the model for its fingerprint; 2 workers have joined";
    assert_eq!(cluster.state().detail, detail);
    actions(&mut cluster);
    cluster.handle_lane(s(1), LANE, placement(2), [7; 32], Vec::new());
    assert_eq!(places(&actions(&mut cluster)), [(A, 0, 5), (B, 5, 8)]);
}

#[test]
fn what_ends_one_lanes_plan_disturbs_nothing_of_the_other() {
    let mut cluster = two_lanes();
    cluster.handle_fault(s(1), A, &fault(PlanEpoch(2), FaultCode::ComputeFailed, "broken"));
    let todo = actions(&mut cluster);
    let Action::Stopped { lane: OTHER, epoch: PlanEpoch(2), .. } = &todo[0] else {
        panic!("{todo:?}");
    };
    let release = Action::Release { worker: A, release: Release { epoch: PlanEpoch(2) } };
    assert_eq!(todo[1..], [release]);
    assert!(cluster.state().ready && !cluster.status(OTHER).ready);
    // Its worker backs off, and is then given the stage again under a number of its own.
    cluster.handle_timeout(s(6));
    let todo = actions(&mut cluster);
    assert_eq!(assigned(&todo)[0].1.links.epoch, PlanEpoch(3));
    assert!(cluster.state().ready);
}

#[test]
fn a_worker_that_is_lost_ends_the_plans_of_all_its_lanes() {
    let mut cluster = two_lanes();
    cluster.handle_lost(s(1), A, "gone");
    let todo = actions(&mut cluster);
    let stopped = todo.iter().filter_map(|action| match action {
        Action::Stopped { lane, .. } => Some(*lane),
        _ => None,
    });
    assert_eq!(stopped.collect::<Vec<_>>(), [LANE, OTHER]);
}

#[test]
fn a_lane_has_the_memory_that_the_others_leave() {
    let kv_bytes = |cluster: &Cluster, lane: LaneId| {
        let plan = cluster.placements[&lane].plan.as_ref().unwrap();
        plan.cut.stages[0].kv_bytes
    };
    let over = |memory_bytes: u64| {
        let mut cluster = empty(config(1).timeouts);
        cluster.handle_hello(s(0), A, &Hello { memory_bytes, ..hello(A) }).unwrap();
        for lane in [LANE, OTHER] {
            cluster.handle_lane(s(0), lane, placement(1), [7; 32], Vec::new());
        }
        cluster
    };
    let large = over(4 * GIB);
    assert_eq!(kv_bytes(&large, LANE), kv_bytes(&large, OTHER), "there is room for both");
    let both = 4 * GIB - large.members.with_free_memory(A, None).memory_bytes;
    // Room for one and a part of the other.
    let small = over(both / 4 * 3);
    let (first, second) = (kv_bytes(&small, LANE), kv_bytes(&small, OTHER));
    assert!(second < first, "{second} bytes after {first}");
}

#[test]
fn without_numbers_there_is_no_plan_until_more_are_reserved() {
    let mut cluster = empty(config(1).timeouts);
    cluster.epochs = super::super::epochs::Epochs::new(5..6);
    join(&mut cluster, s(0), &[A]);
    assert!(actions(&mut cluster).contains(&Action::ReserveEpochs), "few are left");
    for lane in [LANE, OTHER] {
        cluster.handle_lane(s(0), lane, placement(1), [7; 32], Vec::new());
    }
    let todo = actions(&mut cluster);
    assert_eq!(assigned(&todo)[0].1.links.epoch, PlanEpoch(5));
    assert_eq!(todo.len(), 1, "the other lane waits");
    cluster.handle_epochs(s(1), 900..2000);
    assert_eq!(assigned(&actions(&mut cluster))[0].1.links.epoch, PlanEpoch(900));
}
