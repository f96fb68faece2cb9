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

#[test]
fn a_lane_that_is_gone_is_released_and_the_other_goes_on() {
    let mut cluster = two_lanes();
    let held = |cluster: &Cluster| cluster.holdings()[0].models.len();
    let free = cluster.holdings()[0].free;
    assert_eq!(held(&cluster), 2);
    cluster.handle_lane_gone(s(1), OTHER);
    let release = Action::Release { worker: A, release: Release { epoch: PlanEpoch(2) } };
    assert_eq!(actions(&mut cluster), [release], "nobody is told that it stopped");
    assert!(cluster.state().ready && held(&cluster) == 1 && cluster.holdings()[0].free > free);
    // What its worker still says of it changes nothing.
    cluster.handle_ready(s(1), A, &ready(PlanEpoch(2)));
    cluster.handle_fault(s(1), A, &fault(PlanEpoch(2), FaultCode::ComputeFailed, "late"));
    assert_eq!((actions(&mut cluster), cluster.stale_faults()), (Vec::new(), 1));
    cluster.handle_lane_gone(s(2), OTHER);
    assert!(actions(&mut cluster).is_empty());
}

#[test]
fn a_lane_that_is_gone_while_it_loads_makes_room_for_one_that_waits() {
    let mut cluster = empty(config(1).timeouts);
    join(&mut cluster, s(0), &[A]);
    let of_one = over_one(4 * GIB);
    let memory_bytes = of_one.holdings()[0].allowance - of_one.holdings()[0].free + (1 << 20);
    let mut small = over_one(memory_bytes);
    small.handle_lane(s(0), OTHER, placement(1), [8; 32], Vec::new());
    assert!(actions(&mut small).is_empty(), "there is no room");
    small.handle_lane_gone(s(1), LANE);
    let todo = actions(&mut small);
    assert!(matches!(todo[0], Action::Release { worker: A, .. }), "{todo:?}");
    assert_eq!(assigned(&todo[1..])[0].1.stage.fingerprint, [8; 32]);
}

/// A worker with so much memory, and one lane on it.
fn over_one(memory_bytes: u64) -> Cluster {
    let mut cluster = empty(config(1).timeouts);
    cluster.handle_hello(s(0), A, &Hello { memory_bytes, ..hello(A) }).unwrap();
    cluster.handle_lane(s(0), LANE, placement(1), [7; 32], Vec::new());
    actions(&mut cluster);
    cluster
}

#[test]
fn what_has_to_fit_and_does_not_is_told_and_who_holds_what() {
    let of_one = over_one(4 * GIB).holdings().remove(0);
    let mut cluster = over_one(of_one.allowance - of_one.free + (1 << 20));
    let must_fit =
        |name: &str| PlacementConfig { name: name.to_owned(), must_fit: true, ..placement(1) };
    cluster.handle_lane(s(0), OTHER, must_fit("other"), [8; 32], Vec::new());
    let todo = actions(&mut cluster);
    let [Action::NoRoom { lane: OTHER, reason }] = &todo[..] else { panic!("{todo:?}") };
    assert!(reason.contains("misses") && reason.contains("--memory"), "{reason}");
    let held = cluster.holdings_text();
    let of_granite = &of_one.models[0];
    for word in [
        "worker worker-a may use ".to_owned(),
        "'granite' holds ".to_owned(),
        format!("{} of weights", crate::units::show_size(of_granite.weights)),
        format!("{} of KV", crate::units::show_size(of_granite.kv)),
        "1 MiB are free".to_owned(),
    ] {
        assert!(held.contains(&word), "{word}: {held}");
    }
    cluster.handle_lane_gone(s(0), OTHER);
    assert!(actions(&mut cluster).is_empty(), "the other keeps all that it has");
    // Without workers it waits for them.
    let mut waiting = empty(config(1).timeouts);
    waiting.handle_lane(s(0), OTHER, must_fit("other"), [8; 32], Vec::new());
    assert!(actions(&mut waiting).is_empty());
}

#[test]
fn each_lane_has_kv_memory_of_its_own() {
    let kv_bytes = |change: &dyn Fn(&mut PlacementConfig), kv_memory_bytes: u64| {
        let mut cluster = empty(config(1).timeouts);
        cluster.handle_hello(s(0), A, &Hello { kv_memory_bytes, ..hello(A) }).unwrap();
        let mut placement = placement(1);
        change(&mut placement);
        cluster.handle_lane(s(0), LANE, placement, [7; 32], Vec::new());
        cluster.holdings()[0].models[0].kv
    };
    let alone = kv_bytes(&|_| {}, 0);
    let of_four = kv_bytes(&|placement| placement.contexts_max = 4, 0);
    assert_eq!(alone, 4 * of_four, "16 contexts alone, 4 among several");
    let asked = kv_bytes(&|placement| placement.kv_memory = Some(alone / 2), 0);
    assert_eq!(asked, alone / 2);
    // A worker that says how much means each model.
    let said = |placement: &mut PlacementConfig| placement.contexts_max = 4;
    assert_eq!(kv_bytes(&said, alone / 2), alone / 2);
}
