//! Links that break: nobody is believed at once, pairs are remembered, the one that nobody reaches goes.

use super::*;

const D: WorkerId = WorkerId(0xd);

fn link_fault(epoch: u32, about: WorkerId) -> FaultMessage {
    let fault = fault(PlanEpoch(epoch), FaultCode::LinkFailed, "no answer");
    FaultMessage { about: Some(about), ..fault }
}

fn placed(todo: &[Action]) -> Vec<(WorkerId, u32, u32)> {
    let assigns = todo.iter().filter(|action| matches!(action, Action::Assign { .. }));
    places(&assigns.cloned().collect::<Vec<_>>())
}

fn hear(cluster: &mut Cluster, now: Duration, ids: &[WorkerId]) {
    for id in ids {
        cluster.handle_heartbeat(now, *id, &Heartbeat::default());
    }
}

/// A3 of the list of faults: `--advertise` says what nobody can dial, and good spares wait.
#[test]
fn a_worker_that_cannot_be_dialled_gives_its_seat_to_a_spare_at_once() {
    let mut cluster = cluster_of(config(2));
    join(&mut cluster, s(0), &[A, B, C]);
    assert_eq!(placed(&actions(&mut cluster)), [(A, 0, 5), (B, 5, 8)]);
    cluster.handle_fault(s(1), A, &link_fault(1, B));
    assert_eq!(placed(&actions(&mut cluster)), [(A, 0, 5), (C, 5, 8)]);
    for id in [A, C] {
        cluster.handle_ready(s(2), id, &ready(PlanEpoch(2)));
    }
    assert!(cluster.state().ready);
}

#[test]
fn without_a_spare_it_comes_first_where_nobody_dials_it() {
    let mut cluster = cluster_of(config(2));
    join(&mut cluster, s(0), &[A, B]);
    actions(&mut cluster);
    cluster.handle_fault(s(1), A, &link_fault(1, B));
    assert_eq!(placed(&actions(&mut cluster)), [(B, 0, 5), (A, 5, 8)]);
}

#[test]
fn who_fails_with_two_partners_is_to_blame() {
    let mut cluster = cluster_of(config(3));
    join(&mut cluster, s(0), &[A, B, C]);
    assert_eq!(placed(&actions(&mut cluster)), [(A, 0, 3), (B, 3, 6), (C, 6, 8)]);
    cluster.handle_fault(s(1), A, &link_fault(1, B));
    assert_eq!(placed(&actions(&mut cluster)), [(A, 0, 3), (C, 3, 6), (B, 6, 8)]);
    cluster.handle_fault(s(2), C, &link_fault(2, B));
    let mut text = announcements(&mut cluster);
    assert!(text.contains("worker worker-b fails to be reached by several others"), "{text}");
    // It is not there for five seconds, and three are waited for.
    join(&mut cluster, s(3), &[D]);
    let todo = actions(&mut cluster);
    assert!(!placed(&todo).is_empty() && placed(&todo).iter().all(|(id, ..)| *id != B), "{todo:?}");
    text = announcements(&mut cluster);
    assert!(!text.contains("worker-b fails"), "{text}");
}

#[test]
fn a_link_that_breaks_in_service_waits_until_both_ends_have_shown_life() {
    let mut cluster = serving(config(2), &[A, B]);
    join(&mut cluster, s(0), &[C]);
    cluster.handle_fault(s(1), A, &link_fault(1, B));
    assert!(placed(&actions(&mut cluster)).is_empty(), "B may be dead");
    hear(&mut cluster, s(2), &[A]);
    assert!(placed(&actions(&mut cluster)).is_empty());
    hear(&mut cluster, s(2), &[B]);
    assert_eq!(placed(&actions(&mut cluster)), [(A, 0, 5), (C, 5, 8)], "both live: the way broke");
}

#[test]
fn if_one_end_died_the_other_keeps_its_stage() {
    let mut cluster = serving(config(2), &[A, B]);
    join(&mut cluster, s(0), &[C]);
    cluster.handle_fault(s(1), A, &link_fault(1, B));
    actions(&mut cluster);
    cluster.handle_lost(s(2), B, "timed out");
    assert_eq!(placed(&actions(&mut cluster)), [(A, 0, 5), (C, 5, 8)]);
    // It comes back as another process: nothing is held against it.
    join(&mut cluster, s(9), &[B]);
    cluster.handle_lost(s(10), C, "gone");
    assert_eq!(placed(&actions(&mut cluster)), [(A, 0, 5), (B, 5, 8)]);
}

/// F-14: two workers that cannot talk, and both reach everybody else.
#[test]
fn a_pair_that_cannot_talk_is_never_planned_as_neighbours_while_others_can() {
    let mut cluster = serving(config(3), &[A, B, C]);
    cluster.handle_fault(s(1), B, &link_fault(1, C));
    hear(&mut cluster, s(2), &[A, B, C]);
    let found: Vec<_> = placed(&actions(&mut cluster)).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(found, [B, A, C]);
    for id in found {
        cluster.handle_ready(s(2), id, &ready(PlanEpoch(2)));
    }
    // The one between them dies: one of both does it alone.
    cluster.handle_lost(s(9), A, "gone");
    assert_eq!(placed(&actions(&mut cluster)), [(B, 0, 8)]);
}

#[test]
fn where_nothing_else_can_be_the_pair_is_tried_again_with_growing_pauses() {
    let mut cluster = cluster_of(config(2));
    join(&mut cluster, s(0), &[A, B]);
    actions(&mut cluster);
    cluster.handle_fault(s(1), A, &link_fault(1, B));
    assert_eq!(placed(&actions(&mut cluster)), [(B, 0, 5), (A, 5, 8)]);
    cluster.handle_fault(s(1), B, &link_fault(2, A));
    assert!(placed(&actions(&mut cluster)).is_empty());
    let mut pauses = Vec::new();
    let mut now = s(1);
    for _ in 0..8 {
        let next = cluster.poll_timeout().unwrap();
        pauses.push((next - now).as_secs());
        now = next;
        cluster.handle_timeout(now);
        // One direction, and perhaps the other as well.
        for _ in 0..2 {
            let found = placed(&actions(&mut cluster));
            let [(from, ..), (to, ..)] = found[..] else { break };
            let epoch = cluster.latest().0;
            cluster.handle_fault(now, from, &link_fault(epoch, to));
        }
        assert!(placed(&actions(&mut cluster)).is_empty(), "no hot loop");
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}
