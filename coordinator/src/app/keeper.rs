//! Keeps the models: loads them, watches over them until they are gone, and knows which there are.
//!
//! A model is known to requests as soon as its header was read: they are told that it is not ready. The driver
//! has its lane, a task of its own looks after its files, and another tells how far it is. All of that ends with
//! it, whether somebody unloads it or it cannot be served.
//!
//! At most [`MODELS_MAX`] models are there at a time, and one header is read at a time.

pub mod members;
#[cfg(test)]
mod tests;

use super::lane_maker::{Ends, LaneMaker, Opened};
use crate::admin::{Ask, Gone, Kept, KeptModel, LoadOptions, Loading, Progress, Refused, Source};
use crate::announce::Announcer;
use crate::config::NamingArgs;
use crate::driver::LaneCommand;
use crate::events::{Event, Events, Happening, unix_ms};
use crate::exit::Fatal;
use crate::generation::{ModelId, Statuses};
use crate::models::shelf::Shelf;
use crate::models::slices::SliceServer;
use crate::models::watch::{ModelNews, Reading, read_and_watch};
use crate::models::{Model, ModelFacts, Registry, ServedModel};
use crate::shutdown::Shutdown;
use crate::snapshot::{EVENTS_SHOWN, Snapshot};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use woolly_protocol::limits::{LIVE_PLANS_MAX, NAME_MAX};

/// Models that may be there at a time: a worker takes the plans of so many, each with the next one beside it.
pub const MODELS_MAX: usize = LIVE_PLANS_MAX / 2;
/// A load on demand that failed is not tried again for this long: each try reads a header.
const FAILED_FOR: Duration = Duration::from_secs(10);
/// Failures that are remembered for that.
const FAILED_MAX: usize = 64;

/// What a keeper is made of.
#[derive(Debug)]
pub struct Keeper {
    /// How models are served.
    pub maker: LaneMaker,
    /// The folder of `--model-dir`.
    pub shelf: Option<Shelf>,
    /// Read files whatever is remembered of them.
    pub verify: bool,
    /// Where requests find models.
    pub registry: Arc<Registry>,
    /// Where their status is found.
    pub statuses: Statuses,
    /// Where slices are served.
    pub slices: Arc<SliceServer>,
    /// To the driver.
    pub lanes: mpsc::Sender<LaneCommand>,
    /// To the driver, of files.
    pub news: mpsc::Sender<(ModelId, ModelNews)>,
    /// To those who watch.
    pub events: Events,
    /// To people.
    pub announcer: Announcer,
    /// Who may belong to the cluster.
    pub gate: members::Gate,
    /// What it keeps.
    pub kept: Models,
}

/// The models that a keeper has, and what it remembers of others.
#[derive(Debug, Default)]
pub struct Models {
    next: AtomicU32,
    /// Held while a header is read and its model becomes known.
    loading: tokio::sync::Mutex<()>,
    table: Mutex<BTreeMap<ModelId, Entry>>,
    failed: Mutex<Vec<(String, Instant, Refused)>>,
}

/// A model that is there.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) served: Arc<ServedModel>,
    path: PathBuf,
    pub(super) source: Option<String>,
    options: LoadOptions,
    pub(super) progress: watch::Sender<Progress>,
    /// Ends those who look after its files.
    pub(super) unloaded: CancellationToken,
}

impl Models {
    pub(super) fn table(&self) -> MutexGuard<'_, BTreeMap<ModelId, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, Vec<(String, Instant, Refused)>> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|(_, at, _)| at.elapsed() < FAILED_FOR);
        failed
    }
}

impl Keeper {
    /// Answers what is asked until `stop`.
    ///
    /// # Errors
    ///
    /// None: it is a task of `serve`.
    pub async fn run(
        self: Arc<Keeper>,
        mut asked: mpsc::Receiver<Ask>,
        mut stop: Shutdown,
    ) -> Result<(), Fatal> {
        loop {
            let ask = tokio::select! {
                () = stop.asked() => return Ok(()),
                Some(ask) = asked.recv() => ask,
            };
            tokio::spawn(Arc::clone(&self).answer(ask));
        }
    }

    /// Nobody may wait for an answer any more, which changes nothing of what is done.
    async fn answer(self: Arc<Keeper>, ask: Ask) {
        match ask {
            Ask::Load { source, options, reply } => {
                drop(reply.send(self.load(source, options, false).await));
            }
            Ask::LoadOnDemand { name, reply } => drop(reply.send(self.load_on_demand(name).await)),
            Ask::Unload { name, patience, reply } => {
                drop(reply.send(self.unload(&name, patience).await));
            }
            Ask::List(reply) => drop(reply.send(self.list().await)),
            Ask::Cluster(reply) => {
                if let Some(snapshot) = self.snapshot().await {
                    let _ = reply.send(snapshot);
                }
            }
            Ask::Member(ask) => self.answer_of_members(ask).await,
        }
    }

    async fn load_on_demand(self: &Arc<Keeper>, name: String) -> Option<Result<Loading, Refused>> {
        let known = self.kept.failed().iter().find(|(failed, _, _)| *failed == name).cloned();
        if let Some((_, _, refused)) = known {
            return Some(Err(refused));
        }
        match self.load(Source::Name(name.clone()), LoadOptions::default(), true).await {
            Err(Refused::NotFound(_)) => None,
            Err(refused) => {
                self.remember_failure(&name, &refused);
                Some(Err(refused))
            }
            Ok(loading) => Some(Ok(loading)),
        }
    }

    pub(super) fn remember_failure(&self, name: &str, refused: &Refused) {
        let mut failed = self.kept.failed();
        if failed.len() == FAILED_MAX {
            failed.remove(0);
        }
        failed.push((name.to_owned(), Instant::now(), refused.clone()));
    }

    /// Loads a model, or finds that it is there: for a request on demand that is enough, otherwise it must have
    /// been loaded with the same options.
    async fn load(
        self: &Arc<Keeper>,
        source: Source,
        options: LoadOptions,
        on_demand: bool,
    ) -> Result<Loading, Refused> {
        let _turn = self.kept.loading.lock().await;
        let keeper = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || keeper.find(&source)).await;
        let (path, named) =
            found.unwrap_or_else(|error| Err(Refused::Unusable(error.to_string())))?;
        if let Some(there) = self.is_there(&path, &options, on_demand)? {
            return Ok(there);
        }
        let keeper = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || keeper.open(path, named, options)).await;
        let opened = opened.unwrap_or_else(|error| Err(Refused::Unusable(error.to_string())))?;
        self.begin(opened).await
    }

    /// The file that is meant, and its name in the folder if it was found by that. Blocks.
    fn find(&self, source: &Source) -> Result<(PathBuf, Option<String>), Refused> {
        let (path, named) = match (source, &self.shelf) {
            (Source::Path(path), _) => (path.clone(), None),
            (Source::Name(name), Some(shelf)) => {
                let (name, path) = shelf.find(name).ok_or_else(|| {
                    let folder = shelf.root().display();
                    Refused::NotFound(format!("there is no model '{name}' in --model-dir {folder}"))
                })?;
                (path, Some(name))
            }
            (Source::Name(name), None) => {
                let text = format!(
                    "there is no folder to find '{name}' in: the server was started without --model-dir; \
                     name a file instead ('woolly-coordinator models load --path FILE')"
                );
                return Err(Refused::NotFound(text));
            }
        };
        if path.is_file() {
            return Ok((path, named));
        }
        Err(Refused::NotFound(format!("there is no file {}", path.display())))
    }

    /// The model of this file, if it is there.
    fn is_there(
        &self,
        path: &Path,
        options: &LoadOptions,
        on_demand: bool,
    ) -> Result<Option<Loading>, Refused> {
        let (real, table) = (real(path), self.kept.table());
        let Some((id, entry)) = table.iter().find(|(_, entry)| entry.path == real) else {
            return Ok(None);
        };
        let name = entry.served.name.clone();
        if *entry.progress.borrow() == Progress::Unloading {
            return Err(Refused::Conflict(format!(
                "'{name}' is being unloaded: load it again then"
            )));
        }
        if !on_demand && *options != LoadOptions::default() && *options != entry.options {
            return Err(Refused::Conflict(format!(
                "'{name}' is loaded with other options: unload it first"
            )));
        }
        let progress = entry.progress.subscribe();
        Ok(Some(Loading { model: *id, name, was_there: true, progress }))
    }

    /// Reads the header. Blocks.
    fn open(
        &self,
        path: PathBuf,
        source: Option<String>,
        options: LoadOptions,
    ) -> Result<Opened, Refused> {
        let unusable = |fatal: Fatal| Refused::Unusable(fatal.line());
        let model = Model::open(&path).map_err(unusable)?;
        let ctx_size = self.maker.ctx_size(&model, &options).map_err(unusable)?;
        let (model, path) = (Arc::new(model), real(&path));
        let (cut, of_command_line) = (None, false);
        Ok(Opened { model, path, source, options, ctx_size, cut, of_command_line })
    }

    /// Makes a model known and has it loaded.
    ///
    /// # Errors
    ///
    /// Its name is taken, there are too many models, or the server is going down.
    pub async fn begin(self: &Arc<Keeper>, opened: Opened) -> Result<Loading, Refused> {
        if self.kept.table().len() >= MODELS_MAX {
            let text =
                format!("{MODELS_MAX} models are loaded, as many as may be: unload one first");
            return Err(Refused::Conflict(text));
        }
        let served = Arc::new(self.served(&opened)?);
        let (id, name) = (served.id, served.name.clone());
        let (ended, end) = oneshot::channel();
        let (look, unloaded) = (Arc::<Notify>::default(), CancellationToken::new());
        let ends = Ends { status: self.statuses.add(id), look: Arc::clone(&look), ended };
        let status = self.statuses.watch(id);
        let lane = Box::new(self.maker.lane(&opened, Arc::clone(&served), ends));
        let (reply, is_known) = oneshot::channel();
        let sent = self.lanes.send(LaneCommand::Load { lane, reply }).await;
        if sent.is_err() || is_known.await.is_err() {
            return Err(Refused::ShuttingDown);
        }
        let progress = watch::Sender::new(Progress::Loading(0));
        let loading = Loading {
            model: id,
            name: name.clone(),
            was_there: false,
            progress: progress.subscribe(),
        };
        let Opened { model, path, source, options, .. } = opened;
        self.events.say(Happening::ModelLoading { model: name, progress: 0 });
        let reading = Reading {
            id,
            model,
            memory: self.maker.state.root().to_owned(),
            verify: self.verify,
            announcer: self.announcer,
            look,
            unloaded: unloaded.clone(),
        };
        let entry =
            Entry { served: Arc::clone(&served), path, source, options, progress, unloaded };
        self.kept.table().insert(id, entry);
        self.registry.add(served);
        read_and_watch(reading, Arc::clone(&self.slices), self.news.clone());
        if let Some(status) = status {
            tokio::spawn(Arc::clone(self).watch_over(id, status, end));
        }
        Ok(loading)
    }

    /// A model as requests see it.
    fn served(&self, opened: &Opened) -> Result<ServedModel, Refused> {
        let Opened { model, source, options, .. } = opened;
        let layout = &model.layout;
        let title: String =
            layout.name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
        let own = source.clone().unwrap_or_else(|| model.file_stem());
        let naming = NamingArgs { alias: options.alias.clone(), any_model: false };
        let (name, mut aliases) = naming.names(own, title);
        for asked in options.alias.iter().chain([&name]) {
            if let Some(other) = self.registry.called(asked) {
                return Err(Refused::Conflict(format!(
                    "the name '{asked}' is taken by the model '{}': give this one another with an alias",
                    other.name
                )));
            }
        }
        // Those that nobody asked for give way.
        aliases.retain(|alias| self.registry.called(alias).is_none());
        let facts = ModelFacts {
            architecture: layout.architecture.clone(),
            file_type: layout.file_type.clone(),
            ctx_train: layout.ctx_train,
            parameters: layout.parameters,
            bytes: layout.file_bytes,
        };
        let id = ModelId(self.kept.next.fetch_add(1, Relaxed));
        let texts = (Arc::clone(&model.tokenizer), model.template.clone());
        Ok(ServedModel::new(id, (name, aliases), texts, facts))
    }

    async fn unload(&self, name: &str, patience: Duration) -> Result<Gone, Refused> {
        let id = self.find_kept(name).ok_or_else(|| {
            Refused::NotFound(format!("no model that is loaded is called '{name}'"))
        })?;
        // New requests do not find it any more.
        self.registry.remove(id);
        if let Some(entry) = self.kept.table().get(&id) {
            entry.progress.send_replace(Progress::Unloading);
        }
        let (reply, gone) = oneshot::channel();
        let command = LaneCommand::Unload { model: id, patience, reply };
        self.lanes.send(command).await.map_err(|_| Refused::ShuttingDown)?;
        let unfinished = gone.await.map_or(0, |gone| gone.unfinished);
        let Some(entry) = self.forget(id) else {
            return Err(Refused::NotFound(format!("the model '{name}' was gone before")));
        };
        let model = entry.served.name.clone();
        self.announcer.say(format_args!("The model '{model}' was unloaded"));
        self.events.say(Happening::ModelUnloaded { model: model.clone(), unfinished });
        Ok(Gone { name: model, unfinished })
    }

    /// The model with this name: one that requests find, or one that is being unloaded.
    fn find_kept(&self, name: &str) -> Option<ModelId> {
        let served = self.registry.called(name).map(|model| model.id);
        let of_table = || {
            let table = self.kept.table();
            let named =
                |entry: &Entry| entry.served.name == name || entry.source.as_deref() == Some(name);
            table.iter().find(|(_, entry)| named(entry)).map(|(id, _)| *id)
        };
        served.or_else(of_table)
    }

    async fn list(self: Arc<Keeper>) -> Kept {
        let (reply, holdings) = oneshot::channel();
        let workers = match self.lanes.send(LaneCommand::Holdings(reply)).await {
            Ok(()) => holdings.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let shelf = self.shelf.clone();
        let listed = tokio::task::spawn_blocking(move || shelf.map(|shelf| shelf.list())).await;
        let table = self.kept.table();
        let models = table.iter().map(|(id, entry)| KeptModel {
            model: *id,
            name: entry.served.name.clone(),
            aliases: entry.served.aliases.clone(),
            source: entry.source.clone(),
            progress: entry.progress.borrow().clone(),
        });
        Kept { models: models.collect(), stock: listed.unwrap_or_default(), workers }
    }
}

impl Keeper {
    /// All that is known of the cluster; `None` if the driver has ended.
    async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, told) = oneshot::channel();
        self.lanes.send(LaneCommand::Snapshot(reply)).await.ok()?;
        let mut snapshot = told.await.ok()?;
        snapshot.at_ms = unix_ms();
        self.show_excluded(&mut snapshot);
        snapshot.events = self.events.newest(EVENTS_SHOWN).iter().map(Event::json).collect();
        Some(snapshot)
    }
}

/// The file itself, links followed.
pub fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
