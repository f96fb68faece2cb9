//! Workers that cannot do what they were asked: a named reason, a rest, no hot loop.

use super::*;

const CODES: [FaultCode; 5] = [
    FaultCode::BadMessage,
    FaultCode::LoadFailed,
    FaultCode::SliceFailed,
    FaultCode::LinkFailed,
    FaultCode::ComputeFailed,
];

#[test]
fn a_failed_load_is_tried_again_after_a_back_off() {
    let mut cluster = cluster_of(config(1));
    join(&mut cluster, s(100), &[A]);
    actions(&mut cluster);
    let mut now = s(100);
    for rest in [5, 10, 20, 40, 60, 60] {
        let epoch = cluster.latest();
        cluster.handle_fault(now, A, &fault(epoch, FaultCode::LoadFailed, "no such\nfile"));
        let text = announcements(&mut cluster);
        assert!(text.contains("worker worker-a (stage 0) could not load its stage: no such file"));
        assert!(text.contains(&format!("tried again in {rest} s")), "{text}");
        assert!(cluster.state().detail.contains("no such file"));
        assert_eq!(cluster.poll_timeout(), Some(now + s(rest)));
        now += s(rest);
        cluster.handle_timeout(now - Duration::from_millis(1));
        assert_eq!(actions(&mut cluster), [], "not before");
        cluster.handle_timeout(now);
        assert_eq!(places(&actions(&mut cluster)), [(A, 0, 8)]);
        assert_eq!(cluster.latest().0, epoch.0 + 1);
    }
}

#[test]
fn a_spare_replaces_a_failed_worker_at_once() {
    let mut cluster = cluster_of(config(2));
    join(&mut cluster, s(0), &[A, B, C]);
    actions(&mut cluster);
    cluster.handle_fault(s(1), B, &fault(PlanEpoch(1), FaultCode::SliceFailed, "disk full"));
    let todo = actions(&mut cluster);
    let released = todo.iter().filter(|action| matches!(action, Action::Release { .. }));
    assert_eq!(released.count(), 2);
    assert_eq!(places(&todo[2..]), [(A, 0, 5), (C, 5, 8)]);
    assert_eq!(cluster.poll_timeout(), Some(s(31)), "nobody waits for the end of its rest");
}

#[test]
fn every_fault_of_a_served_plan_ends_it() {
    for code in CODES {
        let mut cluster = serving(config(2), &[A, B]);
        cluster.handle_fault(s(1), B, &fault(PlanEpoch(1), code, "broken"));
        let mut todo = actions(&mut cluster);
        match code {
            FaultCode::LoadFailed => assert_eq!(todo.pop(), Some(Action::LookAtModel(LANE))),
            // Its end of the link to us is in doubt, and it is waited for.
            FaultCode::LinkFailed => {}
            // It rests, and the other one computes all meanwhile.
            _ => assert_eq!(todo.pop().map(|last| places(&[last])), Some(vec![(A, 0, 8)])),
        }
        let reason = match &todo[0] {
            Action::Stopped { epoch: PlanEpoch(1), reason, .. } => reason,
            other => panic!("expected the end of the plan, not {other:?}"),
        };
        assert!(reason.contains("worker-b (stage 1)") && reason.ends_with("broken"), "{reason}");
        assert_eq!(todo.len(), 3, "and two releases: {todo:?}");
        if code == FaultCode::LoadFailed {
            let parts = cluster.placements[&LANE].config.parts.clone();
            cluster.handle_model_verified(s(6), LANE, parts);
        }
        cluster.handle_timeout(s(6));
        if matches!(code, FaultCode::LoadFailed | FaultCode::LinkFailed) {
            assert_eq!(places(&actions(&mut cluster)), [(A, 0, 5), (B, 5, 8)]);
        }
    }
}

#[test]
fn a_long_service_forgives() {
    let mut cluster = serving(config(1), &[A]);
    let mut fail = |now: u64, rest: u64| {
        let epoch = cluster.latest();
        cluster.handle_fault(s(now), A, &fault(epoch, FaultCode::ComputeFailed, "oops"));
        let text = announcements(&mut cluster);
        assert!(text.contains(&format!("tried again in {rest} s")), "at {now}: {text}");
        cluster.handle_timeout(s(now + rest));
        cluster.handle_ready(s(now + rest), A, &ready(cluster.latest()));
        announcements(&mut cluster);
    };
    fail(1, 5);
    fail(7, 10);
    fail(18, 20);
    fail(200, 5);
}

#[test]
fn faults_of_other_plans_are_counted_only() {
    let mut cluster = serving(config(1), &[A]);
    join(&mut cluster, s(0), &[B]);
    actions(&mut cluster);
    cluster.handle_fault(s(1), A, &fault(PlanEpoch(7), FaultCode::ComputeFailed, "late"));
    cluster.handle_fault(s(1), A, &fault(PlanEpoch(1), FaultCode::WrongEpoch, "late"));
    cluster.handle_fault(s(1), B, &fault(PlanEpoch(1), FaultCode::LoadFailed, "a spare"));
    cluster.handle_fault(s(1), C, &fault(PlanEpoch(1), FaultCode::LoadFailed, "unknown"));
    assert_eq!(actions(&mut cluster), []);
    assert_eq!(cluster.stale_faults(), 4);
}

#[test]
fn a_model_that_was_written_to_is_verified_and_placed_again_at_once() {
    let mut cluster = serving(config(1), &[A]);
    let text = "model.gguf changed since its header was read";
    cluster.handle_fault(s(1), A, &fault(PlanEpoch(1), FaultCode::LoadFailed, text));
    assert_eq!(actions(&mut cluster).last(), Some(&Action::LookAtModel(LANE)));
    cluster.handle_timeout(s(9));
    assert_eq!(
        actions(&mut cluster),
        [],
        "nobody is placed before it is known what the files hold"
    );
    let parts = cluster.placements[&LANE].config.parts.clone();
    cluster.handle_model_verified(s(9), LANE, parts);
    assert_eq!(places(&actions(&mut cluster)), [(A, 0, 8)]);
    cluster.handle_ready(s(9), A, &ready(PlanEpoch(2)));
    actions(&mut cluster);
    // Once more so soon is no coincidence: it rests.
    cluster.handle_fault(s(10), A, &fault(PlanEpoch(2), FaultCode::LoadFailed, text));
    assert!(announcements(&mut cluster).contains("tried again in 5 s"));
}

#[test]
fn a_plan_in_force_goes_on_while_the_model_is_read_again() {
    let mut cluster = serving(config(1), &[A]);
    cluster.handle_model_unsure(LANE);
    assert!(cluster.state().ready);
    let parts = cluster.placements[&LANE].config.parts.clone();
    cluster.handle_model_verified(s(1), LANE, parts);
    assert_eq!(actions(&mut cluster), []);
}
