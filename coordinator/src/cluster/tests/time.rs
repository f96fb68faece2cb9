//! Slow is not dead: who is lost by silence or by standing still, and who is not.

use super::*;
use woolly_protocol::control::ForwardTiming;

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
    let timeouts = Timeouts { heartbeat: s(10), unheard: s(1000), ..Timeouts::default() };
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

/// A microbatch that was sent at a second, where answers usually take so long.
fn awaited(microbatch: u64, since: u64, usual_ms: u64) -> Option<Awaited> {
    let usual = Some(Duration::from_millis(usual_ms));
    Some(Awaited { microbatch: MicrobatchId(microbatch), rows: 1, since: s(since), usual })
}

/// A heartbeat of a worker that computed forwards up to this one.
fn computed(epoch: u32, progress: u64, microbatch: u64) -> Heartbeat {
    let timing = ForwardTiming { microbatch: MicrobatchId(microbatch), ..Default::default() };
    let plan = PlanReport { epoch: PlanEpoch(epoch), timings: vec![timing] };
    Heartbeat { plans: vec![plan], progress, ..Heartbeat::default() }
}

#[test]
fn who_lives_and_computes_nothing_loses_its_seat() {
    let mut cluster = serving(config(2), &[A, B]);
    join(&mut cluster, s(1), &[C]);
    actions(&mut cluster);
    cluster.handle_heartbeat(s(10), A, &computed(1, 9, 4));
    cluster.handle_awaited(LANE, awaited(4, 10, 50));
    assert_eq!(cluster.poll_timeout(), Some(s(12)));
    // It beats, and nothing moves.
    cluster.handle_heartbeat(s(11), A, &beat(1, 9, 0));
    cluster.handle_heartbeat(s(11), B, &beat(1, 0, 0));
    cluster.handle_timeout(s(12) - Duration::from_millis(1));
    assert_eq!(actions(&mut cluster), []);
    cluster.handle_timeout(s(12));
    let todo = actions(&mut cluster);
    let Action::Stopped { reason, silent, .. } = &todo[0] else { panic!("{todo:?}") };
    let why = "worker worker-b (stage 1) lives, but has not computed microbatch 4 for 2.0 s";
    assert_eq!((reason.as_str(), *silent), (why, s(2)));
    assert_eq!(places(&todo[3..]), [(A, 0, 5), (C, 5, 8)]);
}

#[test]
fn an_answer_that_all_stages_have_computed_is_owed_by_the_last() {
    let mut cluster = serving(config(2), &[A, B]);
    for id in [A, B] {
        cluster.handle_heartbeat(s(10), id, &computed(1, 9, 4));
    }
    cluster.handle_awaited(LANE, awaited(4, 10, 50));
    cluster.handle_timeout(s(12));
    let todo = actions(&mut cluster);
    assert!(matches!(&todo[0], Action::Stopped { reason, .. } if reason.contains("worker-b")));
    assert_eq!(places(&todo[3..]), [(A, 0, 8)], "the others compute all meanwhile");
}

#[test]
fn slow_is_not_dead() {
    let mut cluster = serving(config(1), &[A]);
    // Answers take a second: eight of them may pass without a sign.
    cluster.handle_awaited(LANE, awaited(4, 10, 1000));
    assert_eq!(cluster.poll_timeout(), Some(s(18)));
    // As long as it moves, thirty.
    for second in 11..40 {
        cluster.handle_heartbeat(s(second), A, &beat(1, second, 4));
        cluster.handle_timeout(s(second));
        assert_eq!(actions(&mut cluster), [], "at {second} s");
    }
    cluster.handle_timeout(s(40));
    let todo = actions(&mut cluster);
    assert!(matches!(todo[0], Action::Stopped { silent, .. } if silent == s(30)), "{todo:?}");
    assert_eq!(todo.len(), 2, "there is nobody else");
    cluster.handle_timeout(s(45));
    assert_eq!(places(&actions(&mut cluster)), [(A, 0, 8)], "it is tried again after a rest");
}

#[test]
fn before_any_answer_the_prediction_says_what_is_usual() {
    let mut cluster = serving(config(1), &[A]);
    let first = Awaited { microbatch: MicrobatchId(1), rows: 4096, since: s(10), usual: None };
    cluster.handle_awaited(LANE, Some(first));
    let predicted: u64 =
        cluster.placements[&LANE].plan.as_ref().unwrap().cut.predicted_ns.iter().sum();
    let eight = Duration::from_nanos(8 * 4096 * predicted).max(s(2));
    assert_eq!(cluster.poll_timeout(), Some(s(10) + eight));
}

#[test]
fn without_work_in_flight_nobody_has_to_move() {
    let mut cluster = serving(config(1), &[A]);
    cluster.handle_awaited(LANE, awaited(1, 1, 10));
    cluster.handle_awaited(LANE, None);
    cluster.handle_timeout(s(900));
    assert_eq!(actions(&mut cluster), []);
}

#[test]
fn who_does_not_hear_us_is_lost() {
    let timeouts = Timeouts { unheard: s(3), heartbeat: s(5), ..Timeouts::default() };
    let mut cluster = serving(config(1).timeouts(timeouts), &[A]);
    for second in 1..4 {
        let heartbeat = Heartbeat { echo: second, ..beat(1, 0, 0) };
        cluster.handle_heartbeat(s(second), A, &heartbeat);
    }
    for second in 4..6 {
        let heartbeat = Heartbeat { echo: 3, ..beat(1, 0, 0) };
        cluster.handle_heartbeat(s(second), A, &heartbeat);
        assert_eq!(evicted(&mut cluster, s(second)), []);
    }
    let why = "it has not heard us for 3 s".to_owned();
    assert_eq!(evicted(&mut cluster, s(6)), [(A, why)]);
}

#[test]
fn after_a_sleep_of_our_own_nobody_was_silent() {
    let timeouts = Timeouts { unheard: s(3), heartbeat: s(5), ..Timeouts::default() };
    let mut cluster = serving(config(1).timeouts(timeouts), &[A]);
    cluster.handle_awaited(LANE, awaited(4, 1, 50));
    assert_eq!(cluster.poll_timeout(), Some(s(3)));
    cluster.handle_timeout(s(63));
    assert_eq!(actions(&mut cluster), [], "what came meanwhile is still to be read");
    // From now on it counts again.
    let beats = Heartbeat { echo: 9, ..beat(1, 1, 0) };
    cluster.handle_heartbeat(s(63), A, &beats);
    assert_eq!(cluster.poll_timeout(), Some(s(65)));
}

/// A back-off that ended while nobody waited for it is not taken for a sleep of our own.
#[test]
fn the_end_of_an_old_back_off_pardons_nobody() {
    let timeouts = Timeouts { heartbeat: s(5000), unheard: s(5000), ..Timeouts::default() };
    let mut cluster = cluster_of(config(2).timeouts(timeouts));
    join(&mut cluster, s(0), &[A, B, C]);
    cluster.handle_fault(s(10), B, &fault(PlanEpoch(1), FaultCode::LoadFailed, "disk full"));
    for id in [A, C] {
        cluster.handle_ready(s(10), id, &ready(PlanEpoch(2)));
    }
    let about = Some(C);
    let broken = fault(PlanEpoch(2), FaultCode::LinkFailed, "no answer");
    cluster.handle_fault(s(1000), A, &FaultMessage { about, ..broken });
    actions(&mut cluster);
    assert!(cluster.poll_timeout() > Some(s(1000)), "{:?}", cluster.poll_timeout());
    cluster.handle_heartbeat(s(1001), A, &Heartbeat::default());
    assert_eq!(actions(&mut cluster), [], "it is still to show whether C lives");
}

#[test]
fn workers_lost_together_are_not_placed_again_meanwhile() {
    let timeouts = Timeouts { heartbeat: s(10), unheard: s(1000), ..Timeouts::default() };
    let mut cluster = serving(config(1).timeouts(timeouts), &[A]);
    join(&mut cluster, s(0), &[B]);
    cluster.handle_timeout(s(10));
    let todo = actions(&mut cluster);
    assert!(!todo.iter().any(|action| matches!(action, Action::Assign { .. })), "{todo:?}");
}
