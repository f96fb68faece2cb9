//! Whole conversations of real worker processes with a coordinator that the test plays.

use crate::support::{Coordinator, HIDDEN, LAYERS, PATIENCE, VOCAB, Worker, prompt, score, send};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use woolly_engine::batch::{Batch, ChunkRef};
use woolly_engine::gguf::Gguf;
use woolly_engine::kv::{BlockTable, KvType};
use woolly_engine::plan::ModelLayout;
use woolly_engine::pool::Pool;
use woolly_engine::sampler::{RowRequest, RowToken};
use woolly_engine::stage::{Input, Stage, StageConfig};
use woolly_engine::weights::{Resident, Weights};
use woolly_protocol::control::{Drain, Neighbour, Ready, Release, StreamPurpose};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::frame_io::FrameReader;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, WorkerId};
use woolly_protocol::kind::Kind;
use woolly_protocol::refusal::{Refusal, RefusalCode};
use woolly_protocol::sampling::{Sampled, SampledRow};
use woolly_protocol::token_store::TokenOptions;

/// Five tokens.
pub const PROMPT: [u32; 5] = [1, 7, 30, 2, 19];

/// What the engine itself says about the prompt's last row.
pub fn expected(coordinator: &Coordinator) -> RowToken {
    let gguf = Gguf::open(&coordinator.model).unwrap();
    let layout = ModelLayout::new(&gguf).unwrap();
    let slices = layout.stage_slices(0..LAYERS);
    let weights = Weights::from_model(&gguf, &slices, &Resident::new()).unwrap();
    let config = StageConfig {
        layers: 0..LAYERS,
        ctx_size: 64,
        caches: layout.equal_caches(4),
        rows_max: 32,
        chunks_max: 1,
        kv_type: KvType::F16,
    };
    let mut stage = Stage::load(&gguf, weights, &config, Pool::on_this_thread(1)).unwrap();
    let tables = [BlockTable::whole(&[0])];
    let chunks = [ChunkRef { position: 0, token_count: 5, sample_rows: 1, tables: &tables }];
    let batch = Batch::new(&chunks, stage.limits()).unwrap();
    stage.forward(&batch, Input::Tokens(&PROMPT), &AtomicU64::new(0)).unwrap();
    let mut out = Vec::new();
    stage.sample(&batch, &[RowRequest::Score { target: 3, top: 5 }], &mut out).unwrap();
    out[0].token().expect("finite logits").clone()
}

/// The next answer of a plan.
pub async fn sampled(results: &mut FrameReader) -> Sampled {
    let frame = timeout(PATIENCE, results.read(&[Kind::Sampled])).await.expect("nothing came");
    frame.unwrap().unwrap().message().unwrap()
}

/// Whether an answer is the engine's, to the bit.
pub fn check(sampled: &Sampled, epoch: u32, microbatch: u64, expected: &RowToken) {
    let (epoch, microbatch) = (PlanEpoch(epoch), MicrobatchId(microbatch));
    assert_eq!((sampled.epoch, sampled.microbatch), (epoch, microbatch));
    let [SampledRow::Token(row)] = &sampled.rows[..] else { panic!("{sampled:?}") };
    assert_eq!(row.token, 3);
    assert_eq!(row.logprob.to_bits(), expected.logprob.to_bits());
    assert_eq!(row.top, expected.top);
}

/// Assigns the whole model to one worker and waits until it is ready.
pub async fn assign_alone(coordinator: &Coordinator, worker: &mut Worker, epoch: u32) -> Ready {
    worker.tell(&coordinator.assign(epoch)).await;
    worker.expect().await
}

#[tokio::test]
async fn a_worker_joins_computes_and_leaves() {
    let coordinator = Coordinator::start();
    let process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    let hello = &worker.hello;
    assert_eq!((hello.name.as_str(), hello.threads, hello.local), ("w1", 1, false));
    assert_eq!((hello.memory_bytes, hello.memory_is_own), (1 << 30, true));
    let ready = assign_alone(&coordinator, &mut worker, 1).await;
    assert_eq!((ready.epoch, ready.fetched_bytes), (PlanEpoch(1), 0));
    assert_eq!(ready.kv_bytes, u64::from(4 * LAYERS * 2 * 2 * 32 * 16 * 2));
    assert!(ready.mapped_bytes >= u64::from(HIDDEN * VOCAB * 4), "{ready:?}");
    let mut forwards = worker.open(1, StreamPurpose::Forwards).await;
    let mut samplings = worker.open(1, StreamPurpose::Samplings).await;
    let mut results = worker.results(1).await;
    let expected = expected(&coordinator);
    for microbatch in 1..=3 {
        let (forward, payload) = prompt(1, microbatch, &PROMPT);
        // The sampling comes first, at the same time, or long after.
        if microbatch == 1 {
            send(&mut samplings, &score(1, 1), &[]).await;
        }
        send(&mut forwards, &forward, &payload).await;
        if microbatch > 1 {
            tokio::time::sleep(Duration::from_millis(300 * (microbatch - 2))).await;
            send(&mut samplings, &score(1, microbatch), &[]).await;
        }
        check(&sampled(&mut results).await, 1, microbatch, &expected);
    }
    process.signal("TERM");
    let drain: Drain = worker.expect().await;
    assert!(drain.reason.contains("SIGTERM"), "{}", drain.reason);
    worker.tell(&Release { epoch: PlanEpoch(1) }).await;
    let (code, text) = spawn_blocking(|| process.end()).await.unwrap();
    assert_eq!(code, Some(0), "{text}");
}

#[tokio::test]
async fn two_stages_give_what_one_gives_and_the_certificate_lasts() {
    let coordinator = Coordinator::start();
    let token = coordinator.token();
    let _first = coordinator.worker("w1", &["--token", &token]);
    let mut front = coordinator.welcome().await;
    let second = coordinator.worker("w2", &["--token", &token]);
    let back = coordinator.welcome().await;
    let id = back.id;
    drop(second);
    back.connection.close(0u32.into(), b"");
    // Without a token: its certificate is in its state directory.
    let _second = coordinator.worker("w2", &[]);
    let mut back = coordinator.welcome().await;
    assert_eq!(back.id, id);
    let [to_front, to_back] = coordinator.assign_two(4, &front, &back);
    // The front stage opens its link before the back one has heard of the plan.
    front.tell(&to_front).await;
    let _: Ready = front.expect().await;
    back.tell(&to_back).await;
    let _: Ready = back.expect().await;
    let mut forwards = front.open(4, StreamPurpose::Forwards).await;
    let mut samplings = back.open(4, StreamPurpose::Samplings).await;
    let mut results = back.results(4).await;
    let expected = expected(&coordinator);
    for microbatch in 1..=2 {
        let (forward, payload) = prompt(4, microbatch, &PROMPT);
        send(&mut forwards, &forward, &payload).await;
        send(&mut samplings, &score(4, microbatch), &[]).await;
        check(&sampled(&mut results).await, 4, microbatch, &expected);
    }
}

#[tokio::test]
async fn a_stale_forward_is_answered_and_not_computed() {
    let coordinator = Coordinator::start();
    let _process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    assign_alone(&coordinator, &mut worker, 5).await;
    let mut results = worker.results(5).await;
    let mut forwards = worker.open(5, StreamPurpose::Forwards).await;
    let mut samplings = worker.open(5, StreamPurpose::Samplings).await;
    let (stale, payload) = prompt(4, 8, &PROMPT);
    send(&mut forwards, &stale, &payload).await;
    let fault: FaultMessage = worker.expect().await;
    assert_eq!((fault.code, fault.microbatch), (FaultCode::WrongEpoch, MicrobatchId(8)));
    // A stream of a plan that is not live is refused as a whole when it was held for long enough.
    let _old = worker.open(3, StreamPurpose::Forwards).await;
    let fault: FaultMessage = worker.expect().await;
    assert_eq!((fault.code, fault.epoch), (FaultCode::WrongEpoch, PlanEpoch(3)));
    // The plan in force goes on; what is not meaningful in it fails alone.
    let (bad, _) = prompt(5, 9, &PROMPT);
    send(&mut forwards, &bad, &[0, 0, 0]).await;
    send(&mut samplings, &score(5, 9), &[]).await;
    let fault: FaultMessage = worker.expect().await;
    assert_eq!((fault.code, fault.microbatch), (FaultCode::BadMessage, MicrobatchId(9)));
    let (good, payload) = prompt(5, 10, &PROMPT);
    send(&mut forwards, &good, &payload).await;
    send(&mut samplings, &score(5, 10), &[]).await;
    check(&sampled(&mut results).await, 5, 10, &expected(&coordinator));
}

#[tokio::test]
async fn release_wakes_a_stage_that_waits_for_a_sampling() {
    let coordinator = Coordinator::start();
    let _process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    for epoch in 1..=3 {
        assign_alone(&coordinator, &mut worker, epoch).await;
        let mut forwards = worker.open(epoch, StreamPurpose::Forwards).await;
        for microbatch in 1..=3 {
            // No sampling ever comes for them.
            let (forward, payload) = prompt(epoch, microbatch, &PROMPT);
            send(&mut forwards, &forward, &payload).await;
        }
        let _results = worker.results(epoch).await;
        // Long enough that the stage is waiting when its plan ends.
        tokio::time::sleep(Duration::from_millis(300)).await;
        if epoch != 2 {
            // Otherwise the next assignment takes the stage back by itself.
            worker.tell(&Release { epoch: PlanEpoch(epoch) }).await;
        }
    }
}

#[tokio::test]
async fn a_link_that_cannot_be_names_both_ends() {
    let coordinator = Coordinator::start();
    let _process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    let mut assign = coordinator.assign(1);
    let address = "127.0.0.1:9".to_owned();
    let next = Neighbour { worker: WorkerId(77), address, name: "far-away".to_owned() };
    (assign.links.stage_count, assign.stage.layer_end, assign.links.next) = (2, 1, Some(next));
    worker.tell(&assign).await;
    let fault: FaultMessage = worker.expect().await;
    assert_eq!(fault.code, FaultCode::LinkFailed);
    for part in ["w1", "far-away", "127.0.0.1:9", &worker.hello.advertise, "--listen"] {
        assert!(fault.text.contains(part), "{part} is missing in: {}", fault.text);
    }
    // It stays, and works in the next plan.
    assign_alone(&coordinator, &mut worker, 2).await;
}

#[tokio::test]
async fn what_cannot_be_loaded_is_told_and_survived() {
    let coordinator = Coordinator::start();
    let _process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    let mut assign = coordinator.assign(1);
    assign.stage.layer_end = LAYERS + 1;
    worker.tell(&assign).await;
    let fault: FaultMessage = worker.expect().await;
    assert_eq!((fault.code, fault.epoch), (FaultCode::LoadFailed, PlanEpoch(1)));
    assert!(fault.text.contains("the model has 2"), "{}", fault.text);
    let mut assign = coordinator.assign(2);
    assign.stage.layer_end = 1;
    worker.tell(&assign).await;
    let fault: FaultMessage = worker.expect().await;
    assert!(fault.text.contains("are not stage 1 of 1"), "{}", fault.text);
    assign_alone(&coordinator, &mut worker, 3).await;
}

#[tokio::test]
async fn a_worker_comes_back_to_a_coordinator_that_was_gone() {
    let coordinator = Coordinator::start();
    let _process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    assign_alone(&coordinator, &mut worker, 7).await;
    worker.connection.close(0u32.into(), b"restart");
    let mut again = coordinator.welcome().await;
    assert_eq!(again.id, worker.id);
    // Epochs begin anew with a new coordinator process.
    assign_alone(&coordinator, &mut again, 1).await;
}

#[tokio::test]
async fn refusals_end_the_worker_with_their_sentence() {
    let coordinator = Coordinator::start();
    let other = Coordinator::start();
    let tokens = &coordinator.tokens;
    let (now, pin) = (SystemTime::now(), coordinator.ca.pin());
    let revoked = tokens.create(pin, TokenOptions { lifetime: None, uses: None }, now).unwrap();
    tokens.revoke(revoked.id).unwrap();
    let long_ago = now - Duration::from_secs(7200);
    let options = TokenOptions { lifetime: Some(Duration::from_secs(60)), uses: None };
    let expired = tokens.create(pin, options, long_ago).unwrap();
    for (token, says) in [
        (revoked.to_string(), "revoked"),
        (expired.to_string(), "expired"),
        (other.token(), "another cluster"),
    ] {
        let process = coordinator.worker("refused", &["--token", &token]);
        let ended = spawn_blocking(|| process.end());
        let (code, text) = tokio::select! {
            ended = ended => ended.unwrap(),
            _ = coordinator.welcome() => panic!("a worker with a token that is {says} came in"),
        };
        assert_eq!(code, Some(4), "{says}: {text}");
        assert!(text.contains(says), "expected {says:?} in: {text}");
        assert!(!text.contains(&token), "the token is in: {text}");
    }
}

#[tokio::test]
async fn a_refusal_after_the_hello_is_told_too() {
    let coordinator = Coordinator::start();
    let process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let worker = coordinator.welcome().await;
    let text = "this cluster has another version: update this worker";
    Refusal::new(RefusalCode::Protocol, text).close(&worker.connection);
    let (code, stderr) = spawn_blocking(|| process.end()).await.unwrap();
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains(text), "{stderr}");
}
