//! The driver with real links on loopback; the workers are played by the test.

mod hostile;
mod lanes;
mod members;
mod odd_chats;
mod reports;

use super::*;
use crate::announce::Announcer;
use crate::cluster::{ClusterConfig, PlacementConfig, Timeouts};
use crate::config::LogFormat;
use crate::epochs::EpochCounter;
use crate::events::Events;
use crate::generation::{
    EngineHandle, FinishReason, Generation, GenerationEvent, GenerationRequest, KeyId, Refusal,
    seam,
};
use crate::guides::Pool;
use crate::links::testing::{TestCluster, hello};
use crate::models::last_plan::LastPlan;
use crate::models::{ModelFacts, ServedModel, Template};
use crate::scheduler::SchedulerConfig;
use crate::shutdown::{ShutdownTrigger, shutdown};
use crate::status::Status;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use woolly_engine::gguf::Gguf;
use woolly_engine::plan::{KvType, ModelLayout, Objective};
use woolly_engine::tokenizer::Tokenizer;
use woolly_protocol::control::{
    Assign, ForwardTiming, Heartbeat, Hello, PlanReport, Ready, StreamOpen, StreamPurpose, Welcome,
};
use woolly_protocol::forward::Forward;
use woolly_protocol::frame::{EncodedFrame, Frame};
use woolly_protocol::frame_io::{FrameReader, write_frame};
use woolly_protocol::identity::Identity;
use woolly_protocol::ids::PlanEpoch;
use woolly_protocol::kind::Kind;
use woolly_protocol::preamble::greet;
use woolly_protocol::refusal::RefusalCode;
use woolly_protocol::sampling::SamplingOptions;
use woolly_protocol::sampling::{Sampled, SampledRow, SampledToken, Sampling};

const PATIENCE: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
/// Generations that one key may have: more than any test but one asks for.
const KEY_CONCURRENCY: usize = 200;

/// A model as its lane knows it.
fn served(model: u32) -> Arc<ServedModel> {
    let metadata = crate::http::tests::support::metadata();
    let tokenizer = Arc::new(Tokenizer::from_metadata(&metadata).unwrap());
    let template = Template::of_model(&metadata, &tokenizer);
    let (names, texts) = ((format!("model-{model}"), Vec::new()), (tokenizer, template));
    Arc::new(ServedModel::new(ModelId(model), names, texts, ModelFacts::default()))
}

/// How the model of every lane is placed.
fn placement(workers_wanted: u32) -> PlacementConfig {
    let model =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models/tiny-qwen3.gguf");
    let layout = ModelLayout::new(&Gguf::open(&model).unwrap()).unwrap();
    PlacementConfig {
        name: "tiny".to_owned(),
        layout: Arc::new(layout),
        parts: vec![crate::models::model::part(&model.canonicalize().unwrap()).unwrap()],
        workers_wanted,
        objective: Objective::Balanced,
        cut: None,
        ctx_size: 64,
        rows_max: 32,
        kv_type: KvType::F16,
        extent_len: 32,
        contexts_max: 16,
        kv_memory: None,
        must_fit: false,
    }
}

/// A lane of a model, and where it is said why it ended by itself.
fn lane_of(
    model: u32,
    placement: PlacementConfig,
    status: watch::Sender<Status>,
    folder: &Path,
) -> (LaneConfig, oneshot::Receiver<String>) {
    let (ended, end) = oneshot::channel();
    let lane = LaneConfig {
        model: served(model),
        placement,
        scheduler: SchedulerConfig::default(),
        status,
        last_plan: LastPlan::new(folder.join(format!("last-plan-{model}"))),
        ready_text: String::new(),
        look: Arc::default(),
        of_command_line: model == 0,
        ended,
    };
    (lane, end)
}

/// A driver with everything around it.
struct Rig {
    cluster: TestCluster,
    engine: EngineHandle,
    /// The state of the lanes after the first.
    others: Vec<watch::Receiver<Status>>,
    ask: ShutdownTrigger,
    expire: ShutdownTrigger,
    stop: ShutdownTrigger,
    models: mpsc::Sender<(ModelId, ModelNews)>,
    lanes: mpsc::Sender<LaneCommand>,
    events: Events,
    driver: JoinHandle<Result<(), Fatal>>,
    folder: tempfile::TempDir,
}

impl Rig {
    fn start(workers: u32) -> Rig {
        Rig::with_lanes(workers, 1)
    }

    /// A driver of so many lanes, each of a model of its own, which wait for so many workers.
    fn with_lanes(workers: u32, lanes: u32) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = TestCluster::new();
        let links = std::mem::replace(&mut cluster.events, mpsc::channel(1).1);
        let (engine, commands, work) = seam();
        let senders = (0..lanes).map(|model| engine.statuses().add(ModelId(model)));
        let senders: Vec<_> = senders.collect();
        let others = (1..lanes).map(|model| engine.statuses().watch(ModelId(model)).unwrap());
        let others = others.collect();
        let ((ask, drain), (expire, deadline), (halt, stop)) = (shutdown(), shutdown(), shutdown());
        let (news, models) = mpsc::channel(1);
        let (pool, guides) = Pool::new(Arc::clone(engine.metrics()));
        let (to_lanes, lanes) = mpsc::channel(1);
        let inputs = Inputs { commands, lanes, links, models, guides, drain, deadline, stop };
        let events = Events::default();
        let outputs = Outputs {
            guides: pool,
            metrics: Arc::clone(engine.metrics()),
            announcer: Announcer(LogFormat::Json),
            events: events.clone(),
            work,
            epochs: EpochCounter::new(folder.path().join("epochs")),
        };
        let config = DriverConfig {
            cluster: ClusterConfig {
                machine: [1; 16],
                numerics: crate::models::NUMERICS,
                // The workers that are played send no heartbeats.
                timeouts: Timeouts { heartbeat: MINUTE, unheard: MINUTE, ..Timeouts::default() },
                epochs: 1..10_000,
            },
            id: [3; 16],
            key_concurrency: Some(KEY_CONCURRENCY),
            exclusions: Arc::clone(&cluster.exclusions),
            clock: cluster.clock.clone(),
        };
        let mut driver = Driver::new(config, outputs);
        for (model, status) in (0..).zip(senders) {
            driver.load(lane_of(model, placement(workers), status, folder.path()).0);
        }
        let driver = tokio::spawn(driver.run(inputs));
        let (models, stop, lanes) = (news, halt, to_lanes);
        Rig { cluster, engine, others, ask, expire, stop, models, lanes, events, driver, folder }
    }

    async fn know_fingerprint(&mut self) {
        for model in 0..=self.others.len() as u32 {
            let fingerprint = ModelNews::Fingerprint([5 + model as u8; 32]);
            self.models.send((ModelId(model), fingerprint)).await.unwrap();
        }
    }

    /// How the first lane's model stands.
    fn status(&self) -> Status {
        self.engine.status(ModelId(0))
    }

    async fn wait_for(&self, what: &str, wanted: impl Fn(&Status) -> bool) {
        let waiting = async {
            while !wanted(&self.status()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("{what}: {:?}", self.status()));
    }

    /// Workers that have joined, been given their stages and said that they are ready.
    async fn ready(workers: u32) -> (Rig, Vec<Player>) {
        let mut rig = Rig::start(workers);
        rig.know_fingerprint().await;
        let mut players = Vec::new();
        for _ in 0..workers {
            players.push(Player::join(&rig.cluster, &rig.cluster.identity()).await);
        }
        for player in &mut players {
            player.load().await;
        }
        rig.wait_for("all stages are ready", |status| status.ready).await;
        (rig, players)
    }
}

/// The worker's side of a link.
struct Player {
    connection: quinn::Connection,
    send: quinn::SendStream,
    reader: FrameReader,
    assign: Option<Assign>,
}

impl Player {
    async fn join(cluster: &TestCluster, identity: &Identity) -> Player {
        let connection = cluster.dial(identity).await;
        let (mut send, recv) = greet(&connection, &cluster.preamble).await.unwrap();
        let hello = EncodedFrame::new::<Hello>(&hello()).unwrap();
        write_frame(&mut send, hello).await.unwrap();
        let mut player = Player { connection, send, reader: FrameReader::new(recv), assign: None };
        let welcome = player.next(Kind::Welcome).await.message::<Welcome>().unwrap();
        assert_eq!(welcome.cluster, [3; 16]);
        player
    }

    /// The next control frame but heartbeats and the ends of earlier plans.
    async fn next(&mut self, kind: Kind) -> Frame {
        loop {
            let accept = [kind, Kind::Heartbeat, Kind::Release];
            let reading = self.reader.read(&accept);
            let frame = timeout(PATIENCE, reading).await.unwrap().unwrap().unwrap();
            if frame.kind() == kind {
                return frame;
            }
        }
    }

    async fn load(&mut self) {
        let assign = self.next(Kind::Assign).await.message::<Assign>().unwrap();
        let ready = Ready {
            epoch: assign.links.epoch,
            mapped_bytes: 1,
            kv_bytes: 1,
            scratch_bytes: 1,
            fetched_bytes: 0,
            load_ms: 1,
        };
        write_frame(&mut self.send, EncodedFrame::new(&ready).unwrap()).await.unwrap();
        self.assign = Some(assign);
    }

    /// The stream that the coordinator opens for this.
    async fn stream(&self, purpose: StreamPurpose) -> FrameReader {
        let (found, reader) = self.any_stream().await;
        assert_eq!(found, purpose);
        reader
    }

    /// The next stream of the present plan.
    async fn any_stream(&self) -> (StreamPurpose, FrameReader) {
        let recv = timeout(PATIENCE, self.connection.accept_uni()).await.unwrap().unwrap();
        let mut reader = FrameReader::new(recv);
        let frame = reader.read(&[Kind::StreamOpen]).await.unwrap().unwrap();
        let open = frame.message::<StreamOpen>().unwrap();
        assert_eq!(open.epoch, self.assign.as_ref().unwrap().links.epoch);
        (open.purpose, reader)
    }

    async fn answers(&self) -> quinn::SendStream {
        let mut send = self.connection.open_uni().await.unwrap();
        let epoch = self.assign.as_ref().unwrap().links.epoch;
        let open = StreamOpen { epoch, purpose: StreamPurpose::Results };
        write_frame(&mut send, EncodedFrame::new(&open).unwrap()).await.unwrap();
        send
    }
}

async fn read(reader: &mut FrameReader, kind: Kind) -> Frame {
    timeout(PATIENCE, reader.read(&[kind])).await.unwrap().unwrap().unwrap()
}

fn answer(forward: &Forward, token: u32) -> EncodedFrame {
    let row = SampledRow::Token(SampledToken { token, logprob: -1.0, top: Vec::new() });
    let (epoch, microbatch) = (forward.epoch, forward.microbatch);
    EncodedFrame::new(&Sampled { epoch, microbatch, rows: vec![row] }).unwrap()
}

fn request(max_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        model: ModelId(0),
        prompt: vec![1, 2, 3],
        score_prompt: false,
        max_tokens,
        top_logprobs: None,
        sampling: SamplingOptions::greedy(),
        guided: None,
        key: KeyId::default(),
        time_limit: None,
        siblings: None,
        limits: None,
        dry: None,
        stop_tokens: Arc::default(),
    }
}

async fn event(generation: &mut Generation) -> GenerationEvent {
    timeout(PATIENCE, generation.next()).await.unwrap().expect("the generation goes on")
}

/// The next event, however far the clock is moved for it.
async fn event_at_any_time(generation: &mut Generation) -> GenerationEvent {
    generation.next().await.expect("the generation goes on")
}

fn failed_with(event: GenerationEvent, code: &str) -> bool {
    matches!(event, GenerationEvent::Failed(failure) if failure.code == code)
}

#[tokio::test]
async fn a_generation_runs_through_the_pipeline_and_outlives_its_loss() {
    let (rig, mut players) = Rig::ready(2).await;
    let (last, first) = (players.pop().unwrap(), &mut players[0]);
    assert!(first.assign.as_ref().unwrap().links.next.is_some());
    let mut forwards = first.stream(StreamPurpose::Forwards).await;
    let mut samplings = last.stream(StreamPurpose::Samplings).await;
    let mut answers = last.answers().await;
    let mut generation = rig.engine.submit(request(2)).await.unwrap();
    for (token, fed) in [(7u32, vec![1u32, 2, 3]), (8, vec![7])] {
        let frame = read(&mut forwards, Kind::Forward).await;
        let bytes: Vec<u8> = fed.iter().flat_map(|token| token.to_le_bytes()).collect();
        assert_eq!(frame.payload(), bytes);
        let forward = frame.message::<Forward>().unwrap();
        let sampling = read(&mut samplings, Kind::Sampling).await.message::<Sampling>().unwrap();
        assert_eq!((sampling.microbatch, sampling.rows.len()), (forward.microbatch, 1));
        write_frame(&mut answers, answer(&forward, token)).await.unwrap();
        let GenerationEvent::Token(found) = event(&mut generation).await else { panic!() };
        assert_eq!((found.token, found.logprob), (token, -1.0));
    }
    let end = GenerationEvent::Finished { reason: FinishReason::Length, cached_tokens: 0 };
    assert_eq!(event(&mut generation).await, end);

    let mut generation = rig.engine.submit(request(2)).await.unwrap();
    let forward = read(&mut forwards, Kind::Forward).await.message::<Forward>().unwrap();
    write_frame(&mut answers, answer(&forward, 7)).await.unwrap();
    assert!(matches!(event(&mut generation).await, GenerationEvent::Token(_)));
    last.connection.close(0u32.into(), b"");
    // The survivor is given all layers, and the log: prompt and what was sampled.
    first.load().await;
    let links = &first.assign.as_ref().unwrap().links;
    assert_eq!((links.epoch, links.stage_count), (PlanEpoch(2), 1));
    assert!(rig.status().ready, "meanwhile it is only slow");
    let mut streams = BTreeMap::new();
    for _ in 0..2 {
        let (purpose, reader) = first.any_stream().await;
        streams.insert(purpose == StreamPurpose::Forwards, reader);
    }
    let frame = read(streams.get_mut(&true).unwrap(), Kind::Forward).await;
    let fed: Vec<u8> = [1u32, 2, 3, 7].iter().flat_map(|token| token.to_le_bytes()).collect();
    assert_eq!(frame.payload(), fed);
    let mut answers = first.answers().await;
    let forward = frame.message::<Forward>().unwrap();
    write_frame(&mut answers, answer(&forward, 8)).await.unwrap();
    assert!(
        matches!(event(&mut generation).await, GenerationEvent::Token(found) if found.token == 8)
    );
    assert_eq!(event(&mut generation).await, end);
    assert_eq!(rig.engine.metrics().render().matches("woolly_failovers_total 1").count(), 1);
}

#[tokio::test]
async fn without_another_plan_in_time_generations_are_told() {
    let (rig, players) = Rig::ready(1).await;
    let mut generation = rig.engine.submit(request(2)).await.unwrap();
    tokio::time::pause();
    players[0].connection.close(0u32.into(), b"");
    assert!(failed_with(event_at_any_time(&mut generation).await, "pipeline_lost"));
    rig.wait_for("the loss is seen", |status| !status.ready).await;
    let refused = rig.engine.submit(request(2)).await.unwrap_err();
    assert!(matches!(refused, Refusal::NotReady { detail } if detail.contains("0 of 1")));
}

#[tokio::test]
async fn workers_are_welcome_before_the_fingerprint_is_known() {
    let mut rig = Rig::start(1);
    let mut player = Player::join(&rig.cluster, &rig.cluster.identity()).await;
    rig.wait_for("it waits", |status| status.detail.contains("fingerprint; 1")).await;
    rig.know_fingerprint().await;
    player.load().await;
    assert_eq!(player.assign.as_ref().unwrap().stage.fingerprint, [5; 32]);
    rig.wait_for("it is ready", |status| status.ready && status.stages.len() == 1).await;
}

#[tokio::test]
async fn a_model_that_cannot_be_read_ends_the_driver() {
    let rig = Rig::start(1);
    let error = Fatal::Model(anyhow::anyhow!("no such file"));
    rig.models.send((ModelId(0), ModelNews::Unusable(error))).await.unwrap();
    let ended = timeout(PATIENCE, rig.driver).await.unwrap().unwrap();
    assert!(matches!(ended, Err(Fatal::Model(_))));
}

#[tokio::test]
async fn a_model_that_became_another_one_ends_the_driver() {
    let (rig, _players) = Rig::ready(1).await;
    let other = Fatal::Changed(anyhow::anyhow!("other bytes"));
    rig.models.send((ModelId(0), ModelNews::Unusable(other))).await.unwrap();
    let ended = timeout(PATIENCE, rig.driver).await.unwrap().unwrap();
    assert!(matches!(&ended, Err(fatal) if fatal.code() == 6), "{ended:?}");
}

#[tokio::test]
async fn shutting_down_lets_generations_finish_and_tells_those_that_do_not() {
    let (rig, _players) = Rig::ready(1).await;
    let mut generation = rig.engine.submit(request(2)).await.unwrap();
    rig.ask.ask();
    rig.wait_for("it is not ready any more", |status| !status.ready).await;
    assert_eq!(rig.engine.submit(request(2)).await.unwrap_err(), Refusal::ShuttingDown);
    assert_eq!(rig.status().running, 1);
    rig.expire.ask();
    assert!(failed_with(event(&mut generation).await, "shutting_down"));
    rig.wait_for("nothing runs", |status| status.running == 0).await;
    rig.stop.ask();
    timeout(PATIENCE, rig.driver).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_plan() {
    let (rig, mut players) = Rig::ready(2).await;
    let mut forwards = players[0].stream(StreamPurpose::Forwards).await;
    let _samplings = players[1].stream(StreamPurpose::Samplings).await;
    let generation = rig.engine.submit(request(2)).await.unwrap();
    let forward = read(&mut forwards, Kind::Forward).await.message::<Forward>().unwrap();
    // From the first stage, which samples nothing.
    let mut answers = players[0].answers().await;
    write_frame(&mut answers, answer(&forward, 7)).await.unwrap();
    // It is to blame, and the other one computes all layers.
    let (_, last) = (players.remove(0), &mut players[0]);
    last.load().await;
    assert_eq!(last.assign.as_ref().unwrap().links.stage_count, 1);
    let stream = last.any_stream().await;
    drop((stream, generation));
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_sequence() {
    let (rig, _players) = Rig::ready(1).await;
    let generation = rig.engine.submit(request(2)).await.unwrap();
    rig.wait_for("it runs", |status| status.running == 1).await;
    drop(generation);
    rig.wait_for("it is gone", |status| status.running == 0).await;
}

#[tokio::test]
async fn a_key_has_as_many_generations_as_it_may_and_no_more() {
    let (rig, _players) = Rig::ready(1).await;
    let of = |key| GenerationRequest { key: KeyId(key), ..request(2) };
    let mut held = Vec::new();
    for _ in 0..KEY_CONCURRENCY {
        held.push(rig.engine.submit(of(1)).await.unwrap());
    }
    let refused = rig.engine.submit(of(1)).await.unwrap_err();
    let limit = KEY_CONCURRENCY;
    assert!(matches!(refused, Refusal::KeyBusy { limit: found, .. } if found == limit));
    rig.engine.submit(of(2)).await.unwrap();
    drop(held.pop());
    held.push(rig.engine.submit(of(1)).await.unwrap());
    assert!(rig.engine.submit(of(1)).await.is_err());
}

#[tokio::test]
async fn a_second_worker_with_the_same_certificate_is_refused() {
    let rig = Rig::start(2);
    let identity = rig.cluster.identity();
    let _first = Player::join(&rig.cluster, &identity).await;
    let connection = rig.cluster.dial(&identity).await;
    let (mut send, _recv) = greet(&connection, &rig.cluster.preamble).await.unwrap();
    write_frame(&mut send, EncodedFrame::new(&hello()).unwrap()).await.unwrap();
    let closed = timeout(PATIENCE, connection.closed()).await.unwrap();
    let refusal = woolly_protocol::refusal::Refusal::from_connection(&closed).unwrap();
    assert_eq!(refusal.code, RefusalCode::AlreadyConnected);
    assert!(refusal.text.contains("--state-dir"), "{refusal}");
}
