//! Slow is not dead: who is lost by silence or by standing still, and who is not.

use super::*;

fn beat(epoch: u32, progress: u64, microbatch: u64) -> Heartbeat {
    let plan = PlanReport { epoch: PlanEpoch(epoch), timings: Vec::new() };
    Heartbeat {
        plans: if epoch == 0 { Vec::new() } else { vec![plan] },
        microbatch: MicrobatchId(microbatch),
        progress,
        ..Heartbeat::default()
    }
}

fn evicted(cluster: &mut Cluster, now: Duration) -> Vec<(WorkerId, String)> {
    cluster.handle_timeout(now);
    let evicted = actions(cluster).into_iter().filter_map(|action| match action {
        Action::Evict { worker, text } => Some((worker, text)),
        _ => None,
    });
    evicted.collect()
}

#[test]
fn a_silent_worker_is_lost() {
    let timeouts = Timeouts { heartbeat: s(10), ..Timeouts::default() };
    let mut cluster = serving(config(1).timeouts(timeouts), &[A]);
    join(&mut cluster, s(3), &[B]);
    assert_eq!(cluster.poll_timeout(), Some(s(10)));
    cluster.handle_heartbeat(s(5), A, &beat(1, 0, 0));
    assert_eq!(cluster.poll_timeout(), Some(s(13)));
    assert_eq!(evicted(&mut cluster, s(12)), []);
    assert_eq!(evicted(&mut cluster, s(13)), [(B, "no heartbeat for 10 s".to_owned())]);
    assert!(cluster.state().ready);
    assert_eq!(evicted(&mut cluster, s(15)), [(A, "no heartbeat for 10 s".to_owned())]);
    assert!(!cluster.state().ready);
    assert_eq!(cluster.poll_timeout(), None);
}

#[test]
fn loading_may_take_long_but_not_stand_still() {
    let mut cluster = cluster_of(config(1));
    join(&mut cluster, s(0), &[A]);
    for second in 0..200 {
        // Ten minutes for the pages, a little every three seconds.
        let load_done = second;
        let heartbeat = Heartbeat { load_done, load_total: 400, ..beat(1, 0, 0) };
        cluster.handle_heartbeat(s(3 * second), A, &heartbeat);
        assert_eq!(evicted(&mut cluster, s(3 * second)), []);
    }
    assert!(cluster.state().detail.contains("worker-a 49 %"), "{}", cluster.state().detail);
    let last = 3 * 199;
    let heartbeat = Heartbeat { load_done: 199, load_total: 400, ..beat(1, 0, 0) };
    cluster.handle_heartbeat(s(last + 29), A, &heartbeat);
    assert_eq!(evicted(&mut cluster, s(last + 29)), []);
    let why = "no progress for 30 s while loading its stage".to_owned();
    assert_eq!(evicted(&mut cluster, s(last + 30)), [(A, why)]);
}

#[test]
fn an_assignment_that_is_never_heard_of_is_no_progress() {
    let mut cluster = cluster_of(config(1));
    join(&mut cluster, s(0), &[A]);
    for second in 1..30 {
        // It lives, but speaks of no plan.
        cluster.handle_heartbeat(s(second), A, &beat(0, second, 0));
    }
    assert_eq!(cluster.poll_timeout(), Some(s(30)));
    assert_eq!(evicted(&mut cluster, s(30)).len(), 1);
}

#[test]
fn computing_may_take_long_but_not_stand_still() {
    let mut cluster = serving(config(2), &[A, B]);
    for second in 0..300 {
        cluster.handle_heartbeat(s(second), A, &beat(1, second, 4));
        cluster.handle_heartbeat(s(second), B, &beat(1, 0, 0));
        assert_eq!(evicted(&mut cluster, s(second)), [], "one moves and the other has no work");
    }
    for second in 300..359 {
        cluster.handle_heartbeat(s(second), A, &beat(1, 299, 4));
        assert_eq!(evicted(&mut cluster, s(second)), []);
    }
    let why = "no progress for 60 s while computing a microbatch".to_owned();
    assert_eq!(evicted(&mut cluster, s(359)), [(A, why)]);
}

#[test]
fn the_next_microbatch_is_progress() {
    let mut cluster = serving(config(1), &[A]);
    cluster.handle_heartbeat(s(50), A, &beat(1, 7, 4));
    cluster.handle_heartbeat(s(100), A, &beat(1, 7, 5));
    assert_eq!(evicted(&mut cluster, s(159)), []);
    assert_eq!(evicted(&mut cluster, s(160)).len(), 1);
}

#[test]
fn a_pipeline_in_which_nobody_is_at_work_is_made_anew() {
    let mut cluster = serving(config(2), &[A, B]);
    cluster.handle_heartbeat(s(1), A, &beat(1, 5, 0));
    cluster.handle_in_flight(s(10), LANE, true);
    cluster.handle_in_flight(s(20), LANE, true);
    cluster.handle_heartbeat(s(15), B, &beat(1, 9, 0));
    assert_eq!(cluster.poll_timeout(), Some(s(75)));
    assert_eq!(evicted(&mut cluster, s(74)), []);
    cluster.handle_timeout(s(75));
    let todo = actions(&mut cluster);
    assert!(matches!(&todo[0], Action::Stopped { epoch: PlanEpoch(1), .. }), "{todo:?}");
    assert_eq!(places(&todo[3..]), [(A, 0, 5), (B, 5, 8)], "the same workers, the next plan");
}

#[test]
fn without_work_in_flight_nobody_has_to_move() {
    let mut cluster = serving(config(1), &[A]);
    cluster.handle_in_flight(s(1), LANE, true);
    cluster.handle_in_flight(s(2), LANE, false);
    cluster.handle_timeout(s(900));
    assert_eq!(actions(&mut cluster), []);
}

#[test]
fn workers_lost_together_are_not_placed_again_meanwhile() {
    let timeouts = Timeouts { heartbeat: s(10), ..Timeouts::default() };
    let mut cluster = serving(config(1).timeouts(timeouts), &[A]);
    join(&mut cluster, s(0), &[B]);
    cluster.handle_timeout(s(10));
    let todo = actions(&mut cluster);
    assert!(!todo.iter().any(|action| matches!(action, Action::Assign { .. })), "{todo:?}");
}
