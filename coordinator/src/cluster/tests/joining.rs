//! From the first `Hello` to a plan that is served.

use super::*;
use crate::scheduler::CacheBlocks;
use woolly_engine::plan::scratch_bytes;
use woolly_protocol::forward::CacheLimits;

#[test]
fn a_plan_waits_for_the_workers_wanted() {
    let mut cluster = cluster_of(config(2));
    join(&mut cluster, s(1), &[A]);
    assert_eq!(actions(&mut cluster), []);
    assert_eq!(cluster.state().detail, "waiting for workers: 1 of 2 have joined");
    assert_eq!(cluster.latest(), PlanEpoch(0));
    join(&mut cluster, s(2), &[B]);
    let todo = actions(&mut cluster);
    assert_eq!(places(&todo), [(A, 0, 5), (B, 5, 8)]);
    assert_eq!(cluster.latest(), PlanEpoch(1));
}

#[test]
fn assignments_say_who_the_neighbours_are() {
    let mut cluster = cluster_of(config(3));
    join(&mut cluster, s(0), &[C, A, B]);
    let todo = actions(&mut cluster);
    let stages = assigned(&todo);
    let order: Vec<_> = stages.iter().map(|(id, _)| *id).collect();
    assert_eq!(order, [C, A, B], "the order of joining");
    let (_, first) = stages[0];
    assert_eq!(first.links.previous, None);
    let next = first.links.next.as_ref().unwrap();
    let (address, name) = ("10.0.0.10:7500", "worker-a");
    assert_eq!((next.worker, next.address.as_str(), next.name.as_str()), (A, address, name));
    let (_, last) = stages[2];
    assert_eq!((last.links.previous, &last.links.next), (Some(A), &None));
    for (index, (_, assign)) in stages.iter().enumerate() {
        let stage = &assign.stage;
        assert_eq!((assign.links.stage as usize, assign.links.stage_count), (index, 3));
        assert_eq!((assign.links.in_flight_max, stage.ctx_size, stage.rows_max), (11, 8192, 256));
        assert_eq!((stage.fingerprint, assign.source.machine), ([7; 32], [9; 16]));
        assert_eq!(stage.caches, first.stage.caches);
        assert_eq!(stage.hidden, layout().hidden);
    }
}

#[test]
fn a_plan_is_served_when_all_stages_are_ready() {
    let mut cluster = cluster_of(config(2));
    join(&mut cluster, s(0), &[A, B]);
    let CacheLimits::Blocks(blocks) = assigned(&actions(&mut cluster))[0].1.stage.caches[0] else {
        panic!("the model remembers positions");
    };
    let blocks = blocks.count;
    cluster.handle_ready(s(1), B, &ready(PlanEpoch(1)));
    cluster.handle_ready(s(1), B, &ready(PlanEpoch(1)));
    assert_eq!(actions(&mut cluster), []);
    assert!(cluster.state().detail.starts_with("loading: 1 of 2 stages ready, worker-a 0 %"));
    cluster.handle_ready(s(2), A, &ready(PlanEpoch(1)));
    let todo = actions(&mut cluster);
    let (limits, stages) = served(&todo);
    let expected = PlanLimits {
        epoch: PlanEpoch(1),
        stages: 2,
        in_flight_max: 10,
        ctx_size: 8192,
        caches: CacheBlocks::all_positions(blocks),
        extent_len: 32,
        rows_max: 256,
        chunks_max: 256,
        vocab: layout().vocab,
        reads: Reads::default(),
    };
    assert_eq!(limits, expected);
    assert_eq!(stages[1].layers, 5..8);
    assert_eq!(stages[0].worker, A);
    let status = cluster.state();
    assert!(status.ready);
    assert_eq!((status.kv_blocks, status.kv_tokens), (blocks, u64::from(blocks) * 32));
    assert_eq!(status.stages[1].worker_id, B.hex());
    assert_eq!(status.stages[1].mapped_bytes, 3 << 20);
    cluster.handle_ready(s(3), A, &ready(PlanEpoch(1)));
    assert_eq!(actions(&mut cluster), [], "served once");
}

#[test]
fn the_answer_to_another_plan_is_no_readiness() {
    let mut cluster = cluster_of(config(1));
    join(&mut cluster, s(0), &[A]);
    actions(&mut cluster);
    cluster.handle_ready(s(0), A, &ready(PlanEpoch(2)));
    cluster.handle_ready(s(0), B, &ready(PlanEpoch(1)));
    assert_eq!(actions(&mut cluster), []);
    assert!(!cluster.state().ready);
}

#[test]
fn a_cut_is_kept_in_the_order_of_joining() {
    let cut = Some(vec![5, 3]);
    // Fewer workers than stages cannot have been meant.
    let mut cluster = cluster_of(config(1).cut(cut));
    join(&mut cluster, s(0), &[B]);
    assert_eq!(actions(&mut cluster), []);
    join(&mut cluster, s(0), &[A]);
    assert_eq!(places(&actions(&mut cluster)), [(B, 0, 5), (A, 5, 8)]);
}

#[test]
fn who_joins_later_is_a_spare() {
    let mut cluster = serving(config(1), &[A]);
    join(&mut cluster, s(1), &[B]);
    assert_eq!(actions(&mut cluster), []);
    assert!(cluster.state().ready);
}

#[test]
fn a_plan_is_announced() {
    let mut cluster = cluster_of(config(2).cut(Some(vec![7, 1])));
    join(&mut cluster, s(0), &[A, B]);
    let text = announcements(&mut cluster);
    assert!(text.contains("Worker worker-a (10.0.0.10:7500, 4 threads, scalar, 4 GiB) joined"));
    assert!(text.contains("Plan 1: 8 layers in 2 stages"), "{text}");
    assert!(text.contains("stage 0: layers 0 to 6 on worker-a (10.0.0.10:7500)"), "{text}");
    assert!(text.contains("stage 1: layer 7 on worker-b"), "{text}");
    assert!(text.contains("131,072 tokens"), "16 sequences of 8192: {text}");
    cluster.handle_ready(s(1), A, &ready(PlanEpoch(1)));
    cluster.handle_ready(s(1), B, &Ready { fetched_bytes: 5 << 20, ..ready(PlanEpoch(1)) });
    let text = announcements(&mut cluster);
    assert!(text.contains("stage 0: worker-a, layers 0 to 6, 3 MiB mapped"), "{text}");
    assert!(text.contains("nothing to fetch, loaded in 1.2 s"), "{text}");
    assert!(text.contains("5 MiB fetched"), "{text}");
}

#[test]
fn the_stage_that_limits_the_kv_cache_is_named() {
    let mut cluster = cluster_of(config(2));
    cluster.handle_hello(s(0), A, &hello(A)).unwrap();
    let small = Hello { kv_memory_bytes: 40 << 20, ..hello(B) };
    cluster.handle_hello(s(0), B, &small).unwrap();
    let text = announcements(&mut cluster);
    assert!(text.contains("limited by the memory of stage 1 (worker-b)"), "{text}");
}

#[test]
fn a_model_too_big_for_the_workers_is_said_once_and_helped_by_another() {
    let mut cluster = cluster_of(config(1));
    let small = |id| Hello { memory_bytes: 24 << 20, ..hello(id) };
    cluster.handle_hello(s(0), A, &small(A)).unwrap();
    let text = announcements(&mut cluster);
    assert!(text.contains("no plan is possible: stage 0"), "{text}");
    assert!(cluster.state().detail.contains("Add a worker or memory"));
    cluster.handle_timeout(s(1));
    assert_eq!(announcements(&mut cluster), "");
    cluster.handle_hello(s(2), B, &hello(B)).unwrap();
    let todo = actions(&mut cluster);
    assert!(places(&todo).iter().any(|(id, ..)| *id == B), "{todo:?}");
}

#[test]
fn a_worker_that_may_read_from_its_disk_is_told_when_it_has_to() {
    let layout = layout();
    let kv = 256 * layout.kv_block_bytes(0..8, KvType::F16);
    let needs = layout.stage_bytes(0..8) + scratch_bytes(&layout, &(0..8), 256) + kv;
    let told = |memory_bytes| {
        let mut cluster = cluster_of(config(1));
        let hello = Hello { memory_bytes, weights_from_disk: true, ..hello(A) };
        cluster.handle_hello(s(0), A, &hello).unwrap();
        let (mut from_disk, mut said) = (None, String::new());
        while let Some(action) = cluster.poll_action() {
            match action {
                Action::Assign { assign, .. } => from_disk = Some(assign.stage.from_disk),
                Action::Announce(line) => said += &line,
                _ => {}
            }
        }
        (from_disk, said.contains("stay on its disk"))
    };
    assert_eq!(told(needs), (Some(false), false));
    assert_eq!(told(needs - (1 << 20)), (Some(true), true));
}

fn refusal(hello: &Hello) -> String {
    let mut cluster = cluster_of(config(5));
    join(&mut cluster, s(0), &[B]);
    let text = cluster.handle_hello(s(0), A, hello).unwrap_err();
    assert!(cluster.state().detail.contains("1 of 5"), "the refused one is not known");
    text
}

#[test]
fn another_order_of_operations_is_refused() {
    let text = refusal(&Hello { numerics: 4, ..hello(A) });
    assert!(text.contains("order of operations 4, the cluster in 3"), "{text}");
}

#[test]
fn an_address_that_nobody_can_dial_is_refused() {
    for address in ["0.0.0.0:7500", "[::]:7500", "10.0.0.1:0", "somewhere"] {
        let text = refusal(&Hello { advertise: address.to_owned(), ..hello(A) });
        assert!(text.contains("--advertise"), "{text}");
    }
}

#[test]
fn an_id_that_is_connected_is_refused() {
    let mut cluster = serving(config(1), &[A]);
    let text = cluster.handle_hello(s(1), A, &hello(A)).unwrap_err();
    assert!(text.contains("--state-dir"), "{text}");
    assert!(cluster.state().ready, "the known one is not disturbed");
    cluster.handle_lost(s(2), A, "gone");
    cluster.handle_hello(s(3), A, &hello(A)).unwrap();
}

#[test]
fn workers_are_bounded() {
    let mut cluster = cluster_of(config(1));
    let last = super::super::WORKERS_MAX as u64;
    for id in 0..last {
        cluster.handle_hello(s(0), WorkerId(id), &hello(WorkerId(id))).unwrap();
    }
    let text = cluster.handle_hello(s(0), WorkerId(last), &hello(A)).unwrap_err();
    assert!(text.contains("1024 workers have joined"), "{text}");
}

#[test]
fn wrong_measurements_are_bounded() {
    let wild = Hello { read_bytes_per_s: u64::MAX, ..hello(A) };
    let mut cluster = cluster_of(config(2));
    cluster.handle_hello(s(0), A, &wild).unwrap();
    join(&mut cluster, s(0), &[B]);
    let todo = actions(&mut cluster);
    assert_eq!(places(&todo).len(), 2, "the other one still takes part");
}

#[test]
fn workers_of_the_last_plan_keep_their_places_in_the_next_start() {
    let seats = vec![(B, 5), (A, 3)];
    let config_of = |cut| Setup { seats: seats.clone(), ..config(2).cut(cut) };
    for cut in [None, Some(vec![5, 3])] {
        let mut cluster = cluster_of(config_of(cut));
        join(&mut cluster, s(0), &[A, B]);
        assert_eq!(places(&actions(&mut cluster)), [(B, 0, 5), (A, 5, 8)]);
    }
    let mut cluster = cluster_of(config_of(Some(vec![6, 2])));
    join(&mut cluster, s(0), &[A, B]);
    assert_eq!(places(&actions(&mut cluster)), [(A, 0, 6), (B, 6, 8)], "in order of joining");
}

#[test]
fn rows_fit_a_frame_and_a_second_of_the_slowest_stage() {
    let rows = |macs_per_s: u64| {
        let mut setup = config(1);
        setup.placement.rows_max = u32::MAX;
        let mut cluster = cluster_of(setup);
        cluster.handle_hello(s(0), A, &Hello { macs_per_s, ..hello(A) }).unwrap();
        assigned(&actions(&mut cluster))[0].1.stage.rows_max
    };
    assert_eq!(rows(u64::MAX), 2048);
    assert_eq!(rows(1), 16, "however slow");
    let between = rows(10 * GIB);
    assert!((17..2048).contains(&between), "{between}");
}
