//! The keeper with a driver that is played: which models there may be, under which names, and how they go.

mod members;
mod played;

use super::*;
use crate::app::lane_maker::CONTEXTS_OF_SEVERAL;
use crate::config::{CurlKey, LogFormat};
use crate::driver::{LaneConfig, Unloaded};
use crate::events::{Heard, Reader};
use crate::scheduler::SchedulerConfig;
use crate::status::Status;
use crate::trust::state::StateDir;
use tokio::time::timeout;
use woolly_engine::plan::{KvType, Objective};

const PATIENCE: Duration = Duration::from_secs(20);

/// The lanes that the driver was given and that it has.
type Lanes = Arc<Mutex<BTreeMap<ModelId, Box<LaneConfig>>>>;

/// A keeper, and what is around it.
struct Bed {
    keeper: Arc<Keeper>,
    lanes: Lanes,
    events: Reader,
    _news: mpsc::Receiver<(ModelId, ModelNews)>,
    _folder: tempfile::TempDir,
}

async fn drive(mut commands: mpsc::Receiver<LaneCommand>, lanes: Lanes) {
    while let Some(command) = commands.recv().await {
        match command {
            LaneCommand::Load { lane, reply } => {
                lanes.lock().unwrap().insert(lane.model.id, lane);
                reply.send(()).unwrap();
            }
            LaneCommand::Unload { model, reply, .. } => {
                lanes.lock().unwrap().remove(&model);
                reply.send(Unloaded { unfinished: 3 }).unwrap();
            }
            LaneCommand::Holdings(reply) => reply.send(Vec::new()).unwrap(),
            LaneCommand::Snapshot(reply) => {
                let workers = played::workers();
                reply.send(Snapshot { up_ms: 7, workers, ..Snapshot::default() }).unwrap();
            }
            LaneCommand::ExclusionsChanged(reply) => reply.send(()).unwrap(),
        }
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models")
}

impl Bed {
    fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let (lanes, commands) = mpsc::channel(1);
        let (news, read) = mpsc::channel(64);
        let held = Lanes::default();
        tokio::spawn(drive(commands, Arc::clone(&held)));
        let events = Events::default();
        let maker = LaneMaker {
            workers_wanted: 1,
            objective: Objective::Balanced,
            ctx_size: Some(1 << 20),
            kv_type: KvType::F16,
            extent_len: 32,
            contexts_max: CONTEXTS_OF_SEVERAL,
            scheduler: SchedulerConfig::default(),
            state: StateDir::open(folder.path().join("state")).unwrap(),
            urls: vec!["http://127.0.0.1:1".to_owned()],
            key: CurlKey::None,
        };
        let keeper = Keeper {
            maker,
            shelf: Some(Shelf::open(&fixtures()).unwrap()),
            verify: false,
            registry: Arc::new(Registry::new(Vec::new(), false)),
            statuses: Statuses::default(),
            slices: Arc::new(SliceServer::new()),
            lanes,
            news,
            events: events.clone(),
            announcer: Announcer(LogFormat::Json),
            gate: played::gate(folder.path()),
            kept: Models::default(),
        };
        let (keeper, events) = (Arc::new(keeper), events.reader(None));
        Bed { keeper, lanes: held, events, _news: read, _folder: folder }
    }

    async fn load(&self, name: &str, options: LoadOptions) -> Result<Loading, Refused> {
        self.keeper.load(Source::Name(name.to_owned()), options, false).await
    }

    async fn heard(&mut self, wanted: impl Fn(&Happening) -> bool) -> Happening {
        loop {
            let heard = timeout(PATIENCE, self.events.next()).await.unwrap().unwrap();
            if let Heard::Event(event) = heard
                && wanted(&event.what)
            {
                return event.what;
            }
        }
    }
}

fn called(alias: &[&str]) -> LoadOptions {
    let alias = alias.iter().map(|name| (*name).to_owned()).collect();
    LoadOptions { alias, ..LoadOptions::default() }
}

#[tokio::test]
async fn a_file_is_loaded_once_and_a_name_is_one_models() {
    let bed = Bed::new();
    let first = bed.load("tiny-qwen3", LoadOptions::default()).await.unwrap();
    assert_eq!((first.name.as_str(), first.was_there), ("tiny-qwen3", false));
    {
        let lanes = bed.lanes.lock().unwrap();
        let placement = &lanes[&first.model].placement;
        assert!(placement.must_fit && placement.contexts_max == 4 && placement.kv_memory.is_none());
        // The flag is for all models: those that were trained for less have less.
        assert_eq!(placement.ctx_size, placement.layout.ctx_train);
    }
    let again = bed.load("tiny-qwen3.gguf", LoadOptions::default()).await.unwrap();
    assert_eq!((again.model, again.was_there), (first.model, true));
    let by_path = Source::Path(fixtures().join("tiny-qwen3.gguf"));
    let by_path = bed.keeper.load(by_path, LoadOptions::default(), false).await.unwrap();
    assert_eq!((by_path.model, by_path.was_there), (first.model, true));
    let other = bed.load("tiny-qwen3", called(&["mine"])).await.unwrap_err();
    assert!(matches!(&other, Refused::Conflict(text) if text.contains("other options")), "{other}");
    let taken = bed.load("tiny-llama3", called(&["mine", "Tiny-Qwen3"])).await.unwrap_err();
    assert!(matches!(&taken, Refused::Conflict(text) if text.contains("is taken")), "{taken}");
    let second = bed.load("tiny-llama3", called(&["mine"])).await.unwrap();
    assert_eq!(bed.keeper.registry.called("tiny-llama3").unwrap().id, second.model);
    assert_eq!(bed.lanes.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_loaded_is_refused_and_leaves_nothing() {
    let bed = Bed::new();
    for name in ["none", "../models/tiny-qwen3", "README"] {
        let refused = bed.load(name, LoadOptions::default()).await.unwrap_err();
        assert!(matches!(refused, Refused::NotFound(_)), "{refused}");
    }
    let long = LoadOptions { ctx_size: Some(1 << 30), ..LoadOptions::default() };
    let refused = bed.load("tiny-qwen3", long).await.unwrap_err();
    assert!(matches!(&refused, Refused::Unusable(text) if text.contains("trained")), "{refused}");
    let readme = Source::Path(fixtures().join("../README.md"));
    let refused = bed.keeper.load(readme, LoadOptions::default(), false).await.unwrap_err();
    assert!(matches!(&refused, Refused::Unusable(text) if text.contains("README.md")), "{refused}");
    assert!(bed.keeper.kept.table().is_empty() && bed.keeper.registry.first().is_none());
    assert_eq!(
        bed.keeper.unload("none", Duration::ZERO).await.unwrap_err().to_string(),
        "no model that is loaded is called 'none'"
    );
}

#[tokio::test]
async fn so_many_models_and_no_more() {
    let bed = Bed::new();
    let stock = bed.keeper.shelf.as_ref().unwrap().list().models;
    let small = stock.iter().filter(|model| model.name.ends_with("-f32"));
    let names: Vec<&str> = small.map(|model| model.name.as_str()).take(MODELS_MAX + 1).collect();
    let (last, first) = names.split_last().unwrap();
    for name in first {
        bed.load(name, LoadOptions::default()).await.unwrap();
    }
    let refused = bed.load(last, LoadOptions::default()).await.unwrap_err();
    assert!(matches!(&refused, Refused::Conflict(text) if text.contains("8 models")), "{refused}");
    let gone = bed.keeper.unload(first[0], Duration::ZERO).await.unwrap();
    assert_eq!(gone, Gone { name: first[0].to_owned(), unfinished: 3 });
    bed.load(last, LoadOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_model_is_watched_over_until_it_is_gone() {
    let mut bed = Bed::new();
    let mut loading = bed.load("tiny-qwen3", LoadOptions::default()).await.unwrap();
    bed.heard(|what| matches!(what, Happening::ModelLoading { progress: 0, .. })).await;
    let tell = |change: fn(&mut Status)| {
        bed.lanes.lock().unwrap()[&loading.model].status.send_modify(change);
    };
    tell(|status| status.loaded_percent = 40);
    bed.heard(|what| matches!(what, Happening::ModelLoading { progress: 40, .. })).await;
    bed.lanes.lock().unwrap()[&loading.model].status.send_modify(|status| status.ready = true);
    bed.heard(|what| matches!(what, Happening::ModelReady { .. })).await;
    assert_eq!(timeout(PATIENCE, loading.settled()).await.unwrap(), Progress::Ready);
    let kept = Arc::clone(&bed.keeper).list().await;
    assert_eq!(kept.models[0].source.as_deref(), Some("tiny-qwen3"));
    // Its file turns out to be of no use.
    let lane = bed.lanes.lock().unwrap().remove(&loading.model).unwrap();
    lane.ended.send("other bytes".to_owned()).unwrap();
    let failed = bed.heard(|what| matches!(what, Happening::ModelFailed { .. })).await;
    let reason = "other bytes".to_owned();
    assert_eq!(failed, Happening::ModelFailed { model: "tiny-qwen3".to_owned(), reason });
    assert!(bed.keeper.registry.first().is_none() && bed.keeper.kept.table().is_empty());
    assert!(bed.keeper.statuses.watch(loading.model).is_none());
    // Requests do not have it read again and again; who asks for it by hand does.
    let refused = bed.keeper.load_on_demand("tiny-qwen3".to_owned()).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("other bytes"), "{refused}");
    assert!(bed.keeper.load_on_demand("none".to_owned()).await.is_none());
    bed.load("tiny-qwen3", LoadOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_has_the_time_and_the_newest_events() {
    let bed = Bed::new();
    for number in 0..EVENTS_SHOWN + 2 {
        let model = format!("m{number}");
        bed.keeper.events.say(Happening::ModelReady { model });
    }
    let snapshot = bed.keeper.snapshot().await.unwrap();
    assert!(snapshot.up_ms == 7 && snapshot.at_ms > 1_700_000_000_000);
    assert_eq!(snapshot.events.len(), EVENTS_SHOWN);
    assert_eq!(
        (&snapshot.events[0]["id"], &snapshot.events[0]["model"]),
        (&3.into(), &"m2".into())
    );
}
