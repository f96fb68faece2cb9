//! Two lanes over one worker: each sequence gets the tokens that it would get alone, whatever becomes of
//! the other lane.

use super::*;
use crate::events::{Happening, Heard};
use crate::scheduler::tests::toy::{self, ToyStage};
use std::collections::BTreeMap;
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::ids::MicrobatchId;

/// The context of every lane in these tests.
const CTX: usize = 64;

/// A request whose tokens are the toy model's.
fn toy_request(model: u32, seed: u64) -> GenerationRequest {
    let mut asked = request(20);
    asked.model = ModelId(model);
    asked.prompt = (0..3 + seed as u32 % 5).map(|i| (i * 7 + seed as u32) % 40).collect();
    // Seeds that the toy model never answers with values that are not finite.
    asked.sampling.seed = 1 + 7 * seed;
    asked
}

/// The streams of one plan, by purpose.
type Streams = BTreeMap<(PlanEpoch, bool), FrameReader>;

/// Takes the streams of forwards (`true`) and samplings of so many plans.
async fn streams(connection: &quinn::Connection, plans: usize) -> Streams {
    let mut found = Streams::new();
    while found.len() < 2 * plans {
        let recv = timeout(PATIENCE, connection.accept_uni()).await.unwrap().unwrap();
        let mut reader = FrameReader::new(recv);
        let open: StreamOpen = read(&mut reader, Kind::StreamOpen).await.message().unwrap();
        found.insert((open.epoch, open.purpose == StreamPurpose::Forwards), reader);
    }
    found
}

/// Computes one plan's forwards with the toy model.
async fn compute(
    connection: quinn::Connection,
    (mut forwards, mut samplings): (FrameReader, FrameReader),
    (epoch, blocks): (PlanEpoch, u32),
) {
    let mut answers = connection.open_uni().await.unwrap();
    let open = StreamOpen { epoch, purpose: StreamPurpose::Results };
    write_frame(&mut answers, EncodedFrame::new(&open).unwrap()).await.unwrap();
    let mut stage = ToyStage::new(0..toy::LAYERS, blocks);
    while let Ok(Some(frame)) = forwards.read(&[Kind::Forward]).await {
        let forward: Forward = frame.message().unwrap();
        assert_eq!(forward.epoch, epoch);
        let tokens: Vec<u64> = frame
            .payload()
            .chunks_exact(4)
            .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()).into())
            .collect();
        let hidden = stage.forward(&forward, &tokens);
        let sampling: Option<Sampling> = match forward.sample_rows() {
            0 => None,
            _ => Some(read(&mut samplings, Kind::Sampling).await.message().unwrap()),
        };
        let sampled = toy::sampled(&forward, sampling.as_ref(), &hidden);
        let sampled = EncodedFrame::new(&sampled).unwrap();
        if write_frame(&mut answers, sampled).await.is_err() {
            return;
        }
    }
}

impl Rig {
    /// Loads a model beside those that are there, and says what it is.
    async fn load(&self, model: u32, placement: PlacementConfig) -> oneshot::Receiver<String> {
        let status = self.engine.statuses().add(ModelId(model));
        let (lane, end) = lane_of(model, placement, status, self.folder.path());
        let (reply, known) = oneshot::channel();
        self.lanes.send(LaneCommand::Load { lane: Box::new(lane), reply }).await.unwrap();
        known.await.unwrap();
        let fingerprint = ModelNews::Fingerprint([5 + model as u8; 32]);
        self.models.send((ModelId(model), fingerprint)).await.unwrap();
        end
    }

    async fn unload(&self, model: u32, patience: Duration) -> oneshot::Receiver<Unloaded> {
        let (reply, gone) = oneshot::channel();
        let unload = LaneCommand::Unload { model: ModelId(model), patience, reply };
        self.lanes.send(unload).await.unwrap();
        gone
    }

    /// Waits until a model is ready.
    async fn ready_one(&self, model: u32) {
        let mut status = self.engine.statuses().watch(ModelId(model)).unwrap();
        timeout(PATIENCE, status.wait_for(|status| status.ready)).await.unwrap().unwrap();
    }
}

/// The plan that a worker was given last is computed with the toy model from now on.
async fn compute_the_next(player: &mut Player) -> PlanEpoch {
    player.load().await;
    let assign = player.assign.as_ref().unwrap();
    let woolly_protocol::forward::CacheLimits::Blocks(blocks) = assign.stage.caches[0] else {
        panic!("{assign:?}");
    };
    let epoch = assign.links.epoch;
    let mut found = streams(&player.connection, 1).await;
    let of_plan = (found.remove(&(epoch, true)).unwrap(), found.remove(&(epoch, false)).unwrap());
    tokio::spawn(compute(player.connection.clone(), of_plan, (epoch, blocks.count)));
    epoch
}

/// A driver of two lanes, and the worker that computes both.
async fn two_lanes() -> (Rig, Player, [PlanEpoch; 2]) {
    let mut rig = Rig::with_lanes(1, 2);
    rig.know_fingerprint().await;
    let mut player = Player::join(&rig.cluster, &rig.cluster.identity()).await;
    let mut plans = Vec::new();
    for _ in 0..2 {
        player.load().await;
        let assign = player.assign.as_ref().unwrap();
        let [woolly_protocol::forward::CacheLimits::Blocks(blocks)] = assign.stage.caches[..]
        else {
            panic!("{assign:?}");
        };
        plans.push((assign.links.epoch, blocks.count, assign.stage.fingerprint[0]));
    }
    assert_eq!([plans[0].2, plans[1].2], [5, 6], "each lane has its model");
    let mut found = streams(&player.connection, 2).await;
    for (epoch, blocks, _) in &plans {
        let mut take = |forwards| found.remove(&(*epoch, forwards)).unwrap();
        let streams = (take(true), take(false));
        tokio::spawn(compute(player.connection.clone(), streams, (*epoch, *blocks)));
    }
    let second = rig.others[0].wait_for(|status| status.ready);
    timeout(PATIENCE, second).await.unwrap().unwrap();
    rig.wait_for("the first lane is ready", |status| status.ready).await;
    (rig, player, [plans[0].0, plans[1].0])
}

async fn all_events(mut generation: Generation) -> Vec<GenerationEvent> {
    let mut events = Vec::new();
    while let Some(event) = timeout(PATIENCE, generation.next()).await.unwrap() {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn two_lanes_at_once_give_every_sequence_its_tokens_as_alone() {
    let (rig, _player, _) = two_lanes().await;
    let mut running = Vec::new();
    for seed in 0..12 {
        let asked = toy_request(seed as u32 % 2, seed);
        running.push((rig.engine.submit(asked.clone()).await.unwrap(), asked));
    }
    for (generation, asked) in running {
        assert_eq!(all_events(generation).await, toy::expected(&asked, CTX), "{asked:?}");
    }
}

#[tokio::test]
async fn ending_one_lanes_plan_disturbs_nothing_of_the_other() {
    let (rig, mut player, [_, second]) = two_lanes().await;
    let asked = [0, 1].map(|model| toy_request(model, 4 + u64::from(model)));
    let mut held = Vec::new();
    for asked in &asked {
        held.push(rig.engine.submit(asked.clone()).await.unwrap());
    }
    let microbatch = MicrobatchId(0);
    let fault = FaultMessage::new(FaultCode::ComputeFailed, second, microbatch, "broken");
    write_frame(&mut player.send, EncodedFrame::new(&fault).unwrap()).await.unwrap();
    let (lost, kept) = (held.pop().unwrap(), held.pop().unwrap());
    assert_eq!(all_events(kept).await, toy::expected(&asked[0], CTX));
    // The lane that goes on takes more; the other's wait until the worker has rested.
    let more = rig.engine.submit(toy_request(0, 9)).await.unwrap();
    assert_eq!(all_events(more).await, toy::expected(&toy_request(0, 9), CTX));
    let meanwhile = rig.engine.submit(toy_request(1, 9)).await.unwrap();
    compute_the_next(&mut player).await;
    assert_eq!(all_events(lost).await, toy::expected(&asked[1], CTX));
    assert_eq!(all_events(meanwhile).await, toy::expected(&toy_request(1, 9), CTX));
    let unknown = rig.engine.submit(toy_request(2, 9)).await.unwrap_err();
    assert_eq!(unknown, Refusal::Unloaded);
}

#[tokio::test]
async fn a_model_is_unloaded_under_load_and_the_others_tokens_are_as_alone() {
    let (rig, mut player, [_, second]) = two_lanes().await;
    let mut running = Vec::new();
    for seed in 0..12 {
        let asked = toy_request(seed as u32 % 2, seed);
        running.push((rig.engine.submit(asked.clone()).await.unwrap(), asked));
    }
    let gone = rig.unload(1, Duration::ZERO).await;
    let (mut finished, mut ended) = (0, 0);
    for (generation, asked) in running {
        let (events, alone) = (all_events(generation).await, toy::expected(&asked, CTX));
        if asked.model == ModelId(0) || events.last() == alone.last() {
            finished += 1;
            assert_eq!(events, alone, "{asked:?}");
        } else {
            ended += 1;
            let (last, before) = events.split_last().unwrap();
            assert!(failed_with(last.clone(), "model_unloaded") && alone.starts_with(before));
        }
    }
    assert!(finished >= 6);
    assert_eq!(gone.await.unwrap(), Unloaded { unfinished: ended });
    assert_eq!(rig.engine.submit(toy_request(1, 9)).await.unwrap_err(), Refusal::Unloaded);
    let release: woolly_protocol::control::Release = loop {
        let reading = player.reader.read(&[Kind::Release, Kind::Heartbeat]);
        let frame = timeout(PATIENCE, reading).await.unwrap().unwrap().unwrap();
        if frame.kind() == Kind::Release {
            break frame.message().unwrap();
        }
    };
    assert_eq!(release.epoch, second);
    // The one that stays takes more, and nothing is left of the other: its keys may have as many as before.
    let more = rig.engine.submit(toy_request(0, 9)).await.unwrap();
    assert_eq!(all_events(more).await, toy::expected(&toy_request(0, 9), CTX));
    assert!(!rig.engine.metrics().render().contains("model=\"model-1\""));
    rig.wait_for("nothing runs", |status| status.running == 0).await;
    assert!(rig.unload(1, Duration::ZERO).await.await.is_err(), "it is gone already");
}

#[tokio::test]
async fn what_runs_may_finish_before_a_model_goes() {
    let (rig, _player, _) = two_lanes().await;
    let asked = toy_request(1, 3);
    let running = rig.engine.submit(asked.clone()).await.unwrap();
    let gone = rig.unload(1, MINUTE).await;
    assert_eq!(all_events(running).await, toy::expected(&asked, CTX));
    assert_eq!(timeout(PATIENCE, gone).await.unwrap().unwrap(), Unloaded { unfinished: 0 });
    assert_eq!(rig.engine.submit(asked).await.unwrap_err(), Refusal::Unloaded);
}

#[tokio::test]
async fn what_runs_for_too_long_ends_when_its_time_is_over() {
    let (rig, players) = Rig::ready(1).await;
    let mut running = rig.engine.submit(request(2)).await.unwrap();
    let gone = rig.unload(0, Duration::from_millis(50)).await;
    assert!(failed_with(event(&mut running).await, "model_unloaded"));
    assert_eq!(gone.await.unwrap(), Unloaded { unfinished: 1 });
    drop(players);
}

#[tokio::test]
async fn a_model_is_loaded_while_another_serves() {
    let (rig, mut player, _) = two_lanes().await;
    let mut events = rig.events.reader(None);
    let end = rig.load(7, placement(1)).await;
    let epoch = compute_the_next(&mut player).await;
    assert_eq!(player.assign.as_ref().unwrap().stage.fingerprint, [12; 32]);
    rig.ready_one(7).await;
    for model in [0, 7, 1] {
        let asked = toy_request(model, 4);
        let running = rig.engine.submit(asked.clone()).await.unwrap();
        assert_eq!(all_events(running).await, toy::expected(&asked, CTX), "model {model}");
    }
    let serving = Happening::PlanServing { model: "model-7".to_owned(), plan: epoch.0, stages: 1 };
    let Some(Heard::Event(made)) = events.next().await else { panic!() };
    assert!(matches!(&made.what, Happening::PlanMade { plan, .. } if *plan == epoch.0), "{made:?}");
    let heard = events.next().await;
    assert!(matches!(heard, Some(Heard::Event(event)) if event.what == serving));
    assert!(rig.engine.metrics().render().contains("model=\"model-7\""));
    drop(end);
}

#[tokio::test]
async fn a_model_without_room_ends_with_who_holds_what_and_nobody_else_notices() {
    let (rig, _player, _) = two_lanes().await;
    let too_much = PlacementConfig { must_fit: true, kv_memory: Some(1), ..placement(1) };
    let why = timeout(PATIENCE, rig.load(7, too_much).await).await.unwrap().unwrap();
    assert!(why.contains("misses") && why.contains("'tiny' holds"), "{why}");
    let asked = GenerationRequest { model: ModelId(7), ..request(2) };
    assert_eq!(rig.engine.submit(asked).await.unwrap_err(), Refusal::Unloaded);
    let running = rig.engine.submit(toy_request(0, 4)).await.unwrap();
    assert_eq!(all_events(running).await, toy::expected(&toy_request(0, 4), CTX));
}

#[tokio::test]
async fn a_model_whose_file_is_of_no_use_ends_alone() {
    let (rig, _player, _) = two_lanes().await;
    let fatal = |model| {
        let fatal = Fatal::Changed(anyhow::anyhow!("other bytes in {model}"));
        (ModelId(model), ModelNews::Unusable(fatal))
    };
    // That of the command line, too, as long as there is another.
    rig.models.send(fatal(0)).await.unwrap();
    let refused = async {
        while !matches!(rig.engine.submit(request(2)).await, Err(Refusal::Unloaded)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    let running = rig.engine.submit(toy_request(1, 4)).await.unwrap();
    assert_eq!(all_events(running).await, toy::expected(&toy_request(1, 4), CTX));
    assert!(!rig.driver.is_finished());
}
