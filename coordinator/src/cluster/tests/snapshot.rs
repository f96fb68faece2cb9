//! What is known of the cluster at one moment, and what is told of plans when they are made.

use super::*;
use crate::snapshot::{LOST_MAX, WorkerSnapshot, WorkerState};
use woolly_protocol::control::Drain;

fn workers(cluster: &Cluster, now: Duration) -> Vec<WorkerSnapshot> {
    cluster.workers(now).into_iter().map(|(_, worker)| worker).collect()
}

/// Each with its state, in the order of the list.
fn states(cluster: &Cluster, now: Duration) -> Vec<(String, WorkerState)> {
    workers(cluster, now).into_iter().map(|worker| (worker.worker, worker.state)).collect()
}

fn named(state: WorkerState, name: &str) -> (String, WorkerState) {
    (format!("worker-{name}"), state)
}

#[test]
fn workers_are_listed_in_order_of_joining_with_what_they_do() {
    use WorkerState::{Leaving, Loading, Lost, Serving, Spare, Unreachable};
    let mut cluster = cluster_of(config(2));
    join(&mut cluster, s(0), &[C, A, B]);
    let loading = [named(Loading, "c"), named(Loading, "a"), named(Spare, "b")];
    assert_eq!(states(&cluster, s(1)), loading);
    for id in [C, A] {
        cluster.handle_ready(s(1), id, &ready(PlanEpoch(1)));
    }
    cluster.handle_drain(s(2), A, &Drain { reason: "going home".to_owned() });
    let serving = [named(Serving, "c"), named(Leaving, "a"), named(Loading, "b")];
    assert_eq!(states(&cluster, s(2)), serving);
    cluster.handle_lost(s(3), C, "its process\nis gone");
    let told = workers(&cluster, s(4));
    assert_eq!(
        told.last().map(|worker| (worker.worker.as_str(), worker.state)),
        Some(("worker-c", Lost))
    );
    let lost = told.last().unwrap();
    assert_eq!(
        (lost.reason.as_deref(), lost.lost_ms_ago),
        (Some("its process is gone"), Some(1000))
    );
    assert!(lost.memory.is_none() && lost.heard.is_none());
    // Half of the time after which silence counts.
    assert!(states(&cluster, s(500)).contains(&named(Unreachable, "b")));
    join(&mut cluster, s(5), &[C]);
    assert!(!states(&cluster, s(5)).contains(&named(Lost, "c")), "it is back");
}

#[test]
fn a_worker_is_shown_as_it_described_itself() {
    let mut cluster = serving(config(1), &[A]);
    cluster.handle_heartbeat(s(3), A, &Heartbeat { number: 1, echo: 4, ..Heartbeat::default() });
    let [told] = &workers(&cluster, s(5))[..] else { panic!() };
    let of = hello(A);
    assert_eq!((&told.address, &told.isa, &told.version), (&of.advertise, &of.isa, &of.version));
    assert_eq!((told.threads, told.read_bytes_per_s), (of.threads, of.read_bytes_per_s));
    assert_eq!((told.machine.len(), told.worker_id.as_str()), (32, "000000000000000a"));
    let heard = told.heard.as_ref().unwrap();
    assert_eq!(
        (heard.joined_ms_ago, heard.heartbeat_ms_ago, heard.hears_ms_ago),
        (5000, 2000, 2000)
    );
    assert_eq!(heard.rtt_us, None, "the core has no link");
    let memory = told.memory.as_ref().unwrap();
    let held: u64 = memory.models.iter().map(|held| held.weights + held.kv + held.scratch).sum();
    assert_eq!((held + memory.free, memory.kv_memory), (memory.allowance, None));
    assert_eq!(memory.allowance, of.memory_bytes);
}

#[test]
fn who_backs_off_says_for_how_long() {
    let mut cluster = serving(config(1), &[A]);
    cluster.handle_fault(s(1), A, &fault(PlanEpoch(1), FaultCode::ComputeFailed, "broken"));
    let [told] = &workers(&cluster, s(2))[..] else { panic!() };
    assert_eq!((told.state, told.backoff_ms), (WorkerState::BackingOff, Some(4000)));
}

#[test]
fn so_many_that_were_lost_are_remembered_and_no_more() {
    let mut cluster = empty(config(1).timeouts);
    for number in 1..=LOST_MAX as u64 + 5 {
        join(&mut cluster, s(number), &[WorkerId(number)]);
        cluster.handle_lost(s(number), WorkerId(number), "gone");
    }
    let told = workers(&cluster, s(1000));
    assert_eq!(told.len(), LOST_MAX);
    let newest = WorkerId(LOST_MAX as u64 + 5).hex();
    assert_eq!((&told[0].worker_id, &told[LOST_MAX - 1].worker_id), (&newest, &WorkerId(6).hex()));
}

#[test]
fn a_plan_is_shown_while_it_is_loaded_and_when_it_is_served() {
    let mut cluster = cluster_of(config(2));
    assert_eq!(cluster.placed(s(0), LANE), crate::cluster::Placed::default());
    join(&mut cluster, s(0), &[A, B]);
    cluster.handle_ready(s(1), A, &ready(PlanEpoch(1)));
    let placed = cluster.placed(s(2), LANE);
    let plan = placed.plan.unwrap();
    assert_eq!((plan.plan, plan.served_ms, placed.has_served), (1, None, false));
    let shown = |stage: &crate::snapshot::StageSnapshot| {
        (stage.worker.clone(), stage.layer_first, stage.layer_end, stage.loaded_percent)
    };
    let stages: Vec<_> = plan.stages.iter().map(shown).collect();
    assert_eq!(stages, [("worker-a".to_owned(), 0, 5, 100), ("worker-b".to_owned(), 5, 8, 0)]);
    assert_eq!((plan.stages[0].mapped, plan.stages[1].mapped), (Some(3 << 20), None));
    assert!(plan.stages.iter().all(|stage| stage.weights > 0 && stage.kv > 0));
    cluster.handle_ready(s(3), B, &ready(PlanEpoch(1)));
    let placed = cluster.placed(s(5), LANE);
    assert_eq!((placed.plan.unwrap().served_ms, placed.has_served), (Some(2000), true));
    cluster.handle_drain(s(6), B, &Drain { reason: "going home".to_owned() });
    let next = cluster.placed(s(6), LANE).next.unwrap();
    assert_eq!((next.plan, next.served_ms), (2, None));
    assert_eq!(next.reason, "worker worker-b: it leaves: going home");
}

#[test]
fn a_plan_is_told_with_the_one_before_it_and_why() {
    let mut cluster = cluster_of(config(2));
    join(&mut cluster, s(0), &[A, B]);
    let first = PlanMade {
        epoch: PlanEpoch(1),
        cut: "worker-a 0-4, worker-b 5-7".to_owned(),
        old: None,
        reason: "the first plan: of 2 workers, 2 were waited for".to_owned(),
    };
    assert_eq!(made(&mut cluster), [(LANE, first.clone())]);
    // It was never served, and is followed by another all the same.
    cluster.handle_lost(s(1), B, "its process is gone");
    join(&mut cluster, s(2), &[C]);
    let second = PlanMade {
        epoch: PlanEpoch(2),
        cut: "worker-a 0-4, worker-c 5-7".to_owned(),
        old: Some((PlanEpoch(1), first.cut)),
        reason: "worker worker-b is lost: its process is gone".to_owned(),
    };
    assert_eq!(made(&mut cluster), [(LANE, second.clone())]);
    for id in [A, C] {
        cluster.handle_ready(s(3), id, &ready(PlanEpoch(2)));
    }
    cluster.handle_drain(s(4), C, &Drain { reason: "going home".to_owned() });
    let third = PlanMade {
        epoch: PlanEpoch(3),
        cut: "worker-a 0-7".to_owned(),
        old: Some((PlanEpoch(2), second.cut)),
        reason: "worker worker-c: it leaves: going home".to_owned(),
    };
    assert_eq!(made(&mut cluster), [(LANE, third)]);
}

#[test]
fn plans_are_announced_with_their_model_where_there_are_several() {
    let mut cluster = cluster_of(config(1));
    join(&mut cluster, s(0), &[A]);
    let text = announcements(&mut cluster);
    assert!(text.contains("Plan 1: 8 layers in 1 stage"), "{text}");
    let other = PlacementConfig { name: "other".to_owned(), ..placement(1) };
    cluster.handle_lane(s(1), LaneId(1), other, [8; 32], Vec::new());
    cluster.handle_ready(s(1), A, &ready(PlanEpoch(1)));
    let text = announcements(&mut cluster);
    assert!(text.contains("Plan 2 of 'other': 8 layers in 1 stage"), "{text}");
    let name = placement(1).name;
    assert!(text.contains(&format!("Plan 1 of '{name}' is ready: 1 stage")), "{text}");
    cluster.handle_lane_gone(s(2), LANE);
    cluster.handle_ready(s(2), A, &ready(PlanEpoch(2)));
    assert!(announcements(&mut cluster).contains("Plan 2 is ready: 1 stage"));
}
