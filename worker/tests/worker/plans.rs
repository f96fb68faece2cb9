//! Plans come and go over what is loaded: several at once, in any order of their numbers, and nothing is
//! loaded twice.

use crate::session::{PROMPT, assign_alone, check, expected, sampled};
use crate::support::{Coordinator, Worker, prompt, score, send};
use quinn::SendStream;
use std::time::{Duration, Instant};
use woolly_protocol::control::{Assign, Heartbeat, KvType, Ready, Release, StreamPurpose};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::forward::{BlockLimits, CacheLimits};
use woolly_protocol::frame_io::FrameReader;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch};
use woolly_protocol::limits::LIVE_PLANS_MAX;

/// Time that a plan over what is loaded may take to be ready.
const AT_ONCE: Duration = Duration::from_millis(100);

/// The streams of one plan.
struct Streams {
    epoch: u32,
    forwards: SendStream,
    samplings: SendStream,
    results: FrameReader,
}

impl Streams {
    async fn open(worker: &Worker, epoch: u32) -> Streams {
        Streams {
            epoch,
            forwards: worker.open(epoch, StreamPurpose::Forwards).await,
            samplings: worker.open(epoch, StreamPurpose::Samplings).await,
            results: worker.results(epoch).await,
        }
    }

    async fn ask(&mut self, microbatch: u64) {
        let (forward, payload) = prompt(self.epoch, microbatch, &PROMPT);
        send(&mut self.forwards, &forward, &payload).await;
        send(&mut self.samplings, &score(self.epoch, microbatch), &[]).await;
    }
}

/// What was mapped and read in so far.
fn loaded(heartbeat: &Heartbeat) -> (u64, u64) {
    (heartbeat.mappings, heartbeat.populated_bytes)
}

async fn assign(worker: &mut Worker, assign: &Assign) -> Ready {
    worker.tell(assign).await;
    worker.expect().await
}

async fn release(worker: &mut Worker, epoch: u32) {
    worker.tell(&Release { epoch: PlanEpoch(epoch) }).await;
}

#[tokio::test]
async fn a_second_plan_with_the_same_layers_maps_and_reads_nothing() {
    let coordinator = Coordinator::start();
    let _process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    let first = assign_alone(&coordinator, &mut worker, 1).await;
    let heartbeat = worker.heartbeat().await;
    let (mappings, populated) = loaded(&heartbeat);
    assert!(mappings > 0 && populated >= first.mapped_bytes, "{heartbeat:?}");
    // Equal in all: the stage is taken over.
    let (mut epoch, mut fastest) = (1, Duration::MAX);
    for _ in 0..3 {
        release(&mut worker, epoch).await;
        epoch += 1;
        let started = Instant::now();
        let again = assign_alone(&coordinator, &mut worker, epoch).await;
        fastest = fastest.min(started.elapsed());
        assert_eq!((again.mapped_bytes, again.kv_bytes), (first.mapped_bytes, first.kv_bytes));
    }
    assert!(fastest <= AT_ONCE, "ready after {fastest:?}");
    let mut streams = Streams::open(&worker, epoch).await;
    streams.ask(1).await;
    check(&sampled(&mut streams.results).await, epoch, 1, &expected(&coordinator));
    // Another cache, and other sizes: a new pool over the same slices, beside the plan that goes on.
    let mut other = coordinator.assign(20);
    other.stage.caches = vec![CacheLimits::all_positions(8)];
    (other.stage.kv_type, other.stage.rows_max, other.stage.ctx_size) = (KvType::Q8_0, 16, 128);
    let started = Instant::now();
    let ready = assign(&mut worker, &other).await;
    assert!(started.elapsed() <= 3 * AT_ONCE, "ready after {:?}", started.elapsed());
    assert_eq!(ready.mapped_bytes, first.mapped_bytes);
    assert_ne!(ready.kv_bytes, first.kv_bytes);
    let heartbeat = worker.heartbeat().await;
    assert_eq!(loaded(&heartbeat), (mappings, populated));
}

#[tokio::test]
async fn a_coordinator_that_comes_back_finds_its_stage_loaded() {
    let coordinator = Coordinator::start();
    let _process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    assign_alone(&coordinator, &mut worker, 7).await;
    let before = loaded(&worker.heartbeat().await);
    worker.connection.close(0u32.into(), b"restart");
    let mut again = coordinator.welcome().await;
    let started = Instant::now();
    assign_alone(&coordinator, &mut again, 3).await;
    assert!(started.elapsed() <= 3 * AT_ONCE, "ready after {:?}", started.elapsed());
    let heartbeat = again.heartbeat().await;
    assert_eq!(loaded(&heartbeat), before);
    // Only the plan of this conversation is live.
    let live: Vec<u32> = heartbeat.plans.iter().map(|plan| plan.epoch.0).collect();
    assert_eq!(live, [3]);
    let mut streams = Streams::open(&again, 3).await;
    streams.ask(1).await;
    check(&sampled(&mut streams.results).await, 3, 1, &expected(&coordinator));
}

#[tokio::test]
async fn two_live_plans_answer_as_each_alone_and_one_that_ends_disturbs_no_other() {
    let coordinator = Coordinator::start();
    let _process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    let expected = expected(&coordinator);
    // The order of the numbers means nothing.
    assign_alone(&coordinator, &mut worker, 9).await;
    let mut nine = Streams::open(&worker, 9).await;
    assign_alone(&coordinator, &mut worker, 2).await;
    let mut two = Streams::open(&worker, 2).await;
    for microbatch in 1..=3 {
        nine.ask(microbatch).await;
        two.ask(microbatch).await;
    }
    for microbatch in 1..=3 {
        check(&sampled(&mut two.results).await, 2, microbatch, &expected);
        check(&sampled(&mut nine.results).await, 9, microbatch, &expected);
    }
    let heartbeat = worker.heartbeat().await;
    let live: Vec<u32> = heartbeat.plans.iter().map(|plan| plan.epoch.0).collect();
    assert_eq!(live, [2, 9]);
    // One waits for a sampling that never comes, and ends; the other goes on meanwhile.
    let (forward, payload) = prompt(9, 4, &PROMPT);
    send(&mut nine.forwards, &forward, &payload).await;
    two.ask(4).await;
    check(&sampled(&mut two.results).await, 2, 4, &expected);
    release(&mut worker, 9).await;
    for microbatch in 5..=7 {
        two.ask(microbatch).await;
        check(&sampled(&mut two.results).await, 2, microbatch, &expected);
    }
    // A plan that was over long ago is over once more.
    release(&mut worker, 9).await;
    assign_alone(&coordinator, &mut worker, 1).await;
}

#[tokio::test]
async fn the_stream_of_an_unknown_plan_is_held_for_a_time() {
    let coordinator = Coordinator::start();
    let _process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    let mut forwards = worker.open(5, StreamPurpose::Forwards).await;
    let mut samplings = worker.open(5, StreamPurpose::Samplings).await;
    let (forward, payload) = prompt(5, 1, &PROMPT);
    send(&mut forwards, &forward, &payload).await;
    send(&mut samplings, &score(5, 1), &[]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assign_alone(&coordinator, &mut worker, 5).await;
    let mut results = worker.results(5).await;
    check(&sampled(&mut results).await, 5, 1, &expected(&coordinator));
    let opened = Instant::now();
    let _never = worker.open(4, StreamPurpose::Forwards).await;
    let fault: FaultMessage = worker.expect().await;
    assert_eq!((fault.code, fault.epoch), (FaultCode::WrongEpoch, PlanEpoch(4)));
    assert_eq!(fault.microbatch, MicrobatchId(0));
    assert!(opened.elapsed() > Duration::from_secs(4), "{:?}", opened.elapsed());
}

#[tokio::test]
async fn slices_that_no_plan_needs_go_when_memory_is_short() {
    let coordinator = Coordinator::start();
    let token = coordinator.token();
    // Two models, as far as anybody can tell from their names.
    let of_model = |epoch: u32, model: u8| {
        let mut assign = coordinator.assign(epoch);
        assign.stage.fingerprint = [model; 32];
        // Each another stage, so that none is taken over.
        assign.stage.ctx_size = 32 + epoch;
        assign
    };
    let mut memory = None;
    for (name, is_short) in [("enough", false), ("short", true)] {
        let given = memory.map_or("1GiB".to_owned(), |bytes: u64| bytes.to_string());
        let _process = coordinator.worker(name, &["--token", &token, "--memory", &given]);
        let mut worker = coordinator.welcome().await;
        let ready = assign(&mut worker, &of_model(1, 1)).await;
        let first = worker.heartbeat().await.mappings;
        release(&mut worker, 1).await;
        assign(&mut worker, &of_model(2, 2)).await;
        assert_eq!(worker.heartbeat().await.mappings, 2 * first);
        release(&mut worker, 2).await;
        assign(&mut worker, &of_model(3, 1)).await;
        let mapped = worker.heartbeat().await.mappings;
        assert_eq!(mapped > 2 * first, is_short, "memory: {name}, {mapped} mappings");
        // Room for one stage with half of another's slices.
        let own = ready.kv_bytes + ready.scratch_bytes;
        memory = Some(own + ready.mapped_bytes * 3 / 2);
        worker.connection.close(0u32.into(), b"");
    }
}

#[tokio::test]
async fn assignments_that_cannot_be_taken_are_refused() {
    let coordinator = Coordinator::start();
    let _process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    assign_alone(&coordinator, &mut worker, 1).await;
    worker.tell(&coordinator.assign(1)).await;
    let fault: FaultMessage = worker.expect().await;
    assert_eq!((fault.code, fault.epoch), (FaultCode::BadMessage, PlanEpoch(1)));
    let window = CacheLimits::Blocks(BlockLimits { count: 4, window: Some(32) });
    let all = CacheLimits::all_positions(4);
    for (caches, says) in [
        (vec![window], "the plan has blocks for a window of 32 positions"),
        (vec![all, CacheLimits::Slots(3)], "4 blocks and 3 state slots"),
    ] {
        let mut assign = coordinator.assign(2);
        assign.stage.caches = caches;
        worker.tell(&assign).await;
        let fault: FaultMessage = worker.expect().await;
        assert_eq!((fault.code, fault.epoch), (FaultCode::LoadFailed, PlanEpoch(2)));
        assert!(fault.text.contains(says), "{says} is missing in: {}", fault.text);
        release(&mut worker, 2).await;
    }
    let most = u32::try_from(LIVE_PLANS_MAX).unwrap();
    for epoch in 2..=most {
        assign_alone(&coordinator, &mut worker, epoch).await;
    }
    worker.tell(&coordinator.assign(most + 1)).await;
    let fault: FaultMessage = worker.expect().await;
    assert_eq!((fault.code, fault.epoch), (FaultCode::LoadFailed, PlanEpoch(most + 1)));
    // The plans that are there go on, and one that ends makes room.
    let mut streams = Streams::open(&worker, 1).await;
    streams.ask(1).await;
    check(&sampled(&mut streams.results).await, 1, 1, &expected(&coordinator));
    for epoch in 2..=4 {
        release(&mut worker, epoch).await;
        // A connection has as many streams as a worker has plans; quinn gives back some at a time.
        drop(worker.results(epoch).await);
    }
    assign_alone(&coordinator, &mut worker, most + 1).await;
}
