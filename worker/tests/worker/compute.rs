//! The compute thread with several plans: forwards are computed in the order in which they come.

use crate::session::PROMPT;
use crate::support::{Coordinator, LAYERS, prompt, score};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use woolly_engine::gguf::Gguf;
use woolly_engine::plan::ModelLayout;
use woolly_engine::weights::{Resident, Weights};
use woolly_protocol::control::StageSpec;
use woolly_protocol::frame::{Frame, encode};
use woolly_protocol::ids::PlanEpoch;
use woolly_protocol::kind::Kind;
use woolly_worker::convert::{Computed, Finished, Work, stage_config};
use woolly_worker::counters::Counters;
use woolly_worker::machine::simd::Simd;
use woolly_worker::stage::compute::{Compute, ForwardQueue};
use woolly_worker::stage::load::Loader;
use woolly_worker::stage::resident::Residents;
use woolly_worker::weights::pages::{HugePages, Pages};
use woolly_worker::weights::source::Model;

/// Loads the whole model as `spec` says and has it kept.
async fn keep(coordinator: &Coordinator, compute: &Compute, loader: &Loader, spec: &StageSpec) {
    let gguf = Gguf::open(&coordinator.model).unwrap();
    let layout = ModelLayout::new(&gguf).unwrap();
    let slices = layout.stage_slices(0..LAYERS);
    let weights = Weights::from_model(&gguf, &slices, &Resident::new()).unwrap();
    let model = Model { gguf, layout, weights, fetched_bytes: 0, files: vec![] };
    let residents = Residents::new(u64::MAX);
    let config = stage_config(spec).unwrap();
    let stage = loader.load(model, &config, |bytes| residents.reserve(bytes)).unwrap();
    let (compute, spec) = (compute.clone(), spec.clone());
    spawn_blocking(move || compute.keep(spec, stage)).await.unwrap();
}

fn push(queue: &ForwardQueue, epoch: u32, microbatch: u64) -> bool {
    let (forward, payload) = prompt(epoch, microbatch, &PROMPT);
    let bytes = encode(&forward, &payload).unwrap();
    let (frame, _) = Frame::decode(&bytes, &[Kind::Forward]).unwrap();
    let sampling = Some(score(epoch, microbatch));
    queue.push(|place| Work::new(forward, frame, sampling, place)).is_ok()
}

async fn finished(results: &mut mpsc::Receiver<Finished>) -> Finished {
    let next = timeout(crate::support::PATIENCE, results.recv()).await;
    next.expect("nothing was computed").expect("the plan is served")
}

#[tokio::test]
async fn forwards_of_two_plans_are_computed_in_the_order_in_which_they_come() {
    let coordinator = Coordinator::start();
    let pages = Pages { huge_pages: HugePages::Auto, mlock: false };
    let (compute, loader) =
        Compute::start(1, Simd::default(), pages, Arc::new(Counters::default())).unwrap();
    let spec = coordinator.assign(1).stage;
    let seats = [compute.seat(PlanEpoch(8)).await, compute.seat(PlanEpoch(3)).await];
    let (first, of_first) = mpsc::channel(2);
    assert!(
        seats[0].take_over(&spec, None, first.clone()).await.is_none(),
        "nothing is loaded yet"
    );
    keep(&coordinator, &compute, &loader, &spec).await;
    assert!(seats[0].take_over(&spec, None, first).await.is_some());
    let (second, of_second) = mpsc::channel(2);
    assert!(seats[1].take_over(&spec, None, second.clone()).await.is_none(), "it is the other's");
    keep(&coordinator, &compute, &loader, &spec).await;
    assert!(seats[1].take_over(&spec, None, second).await.is_some());
    let queues = seats.each_ref().map(|seat| seat.forwards(2));
    assert!(push(&queues[0], 8, 1) && push(&queues[1], 3, 1));
    assert!(push(&queues[1], 3, 2) && push(&queues[0], 8, 2));
    // As many as may be in flight, whether they are computed or not.
    assert!(!push(&queues[0], 8, 3) && !push(&queues[1], 3, 3));
    let mut results = [of_first, of_second];
    let (mut ends, mut rows) = (Vec::new(), Vec::new());
    for plan in [0, 1, 1, 0] {
        let finished = finished(&mut results[plan]).await;
        ends.push(finished.at);
        let Computed::Rows(row) = finished.computed else { panic!("it was not computed") };
        rows.push(row);
    }
    assert!(ends.is_sorted(), "{ends:?}");
    assert!(rows.iter().all(|row| *row == rows[0]), "{rows:?}");
    let [_, mut of_second] = results;
    // One ends: what it has in the queue is passed over, and the other goes on.
    let [gone, stays] = seats;
    assert!(push(&queues[0], 8, 4) && push(&queues[1], 3, 4));
    drop(gone);
    assert!(finished(&mut of_second).await.work.epoch() == PlanEpoch(3));
    // Its stage is there for the next plan that wants the same, whatever its number.
    let next = compute.seat(PlanEpoch(1)).await;
    let (third, mut of_third) = mpsc::channel(2);
    assert!(next.take_over(&spec, None, third).await.is_some());
    let queue = next.forwards(1);
    assert!(push(&queue, 1, 1) && push(&queues[1], 3, 5));
    let Computed::Rows(row) = finished(&mut of_third).await.computed else { panic!() };
    assert_eq!(row, rows[0]);
    assert!(finished(&mut of_second).await.work.epoch() == PlanEpoch(3));
    drop(stays);
}

#[tokio::test]
async fn a_plan_shares_the_stage_of_the_one_that_it_replaces_until_its_first_forward() {
    let coordinator = Coordinator::start();
    let pages = Pages { huge_pages: HugePages::Auto, mlock: false };
    let (compute, loader) =
        Compute::start(1, Simd::default(), pages, Arc::new(Counters::default())).unwrap();
    let spec = coordinator.assign(1).stage;
    keep(&coordinator, &compute, &loader, &spec).await;
    let (old, new) = (compute.seat(PlanEpoch(8)).await, compute.seat(PlanEpoch(9)).await);
    let (first, mut of_first) = mpsc::channel(2);
    assert!(old.take_over(&spec, None, first).await.is_some());
    let (second, mut of_second) = mpsc::channel(2);
    // Only of the plan that it replaces, and only if that has the same.
    assert!(new.take_over(&spec, None, second.clone()).await.is_none());
    assert!(new.take_over(&spec, Some(PlanEpoch(7)), second.clone()).await.is_none());
    let other = StageSpec { rows_max: spec.rows_max - 1, ..spec.clone() };
    assert!(new.take_over(&other, Some(PlanEpoch(8)), second.clone()).await.is_none());
    assert!(new.take_over(&spec, Some(PlanEpoch(8)), second).await.is_some());
    let (queue, next) = (old.forwards(2), new.forwards(2));
    assert!(push(&queue, 8, 1), "it goes on meanwhile");
    assert_eq!(finished(&mut of_first).await.work.epoch(), PlanEpoch(8));
    // A forward of the old plan that is late would write where the new one's caches are.
    assert!(push(&next, 9, 2) && push(&queue, 8, 3) && push(&next, 9, 4));
    for _ in 0..2 {
        assert_eq!(finished(&mut of_second).await.work.epoch(), PlanEpoch(9));
    }
    assert!(of_first.try_recv().is_err(), "it is passed over");
    // The end of one leaves the stage to the other, and the end of that to the next.
    drop(old);
    assert!(push(&next, 9, 5));
    finished(&mut of_second).await;
    drop((new, next));
    let third = compute.seat(PlanEpoch(10)).await;
    let (results, _of_third) = mpsc::channel(2);
    assert!(third.take_over(&spec, None, results).await.is_some());
}
