//! What the admin API asks of the one who keeps the models, and what it is told: the seam between HTTP and
//! `serve`. It knows no socket, no JSON, no lane and no worker.

pub mod members;

use crate::events::Events;
use crate::generation::ModelId;
use crate::models::shelf::Stock;
use crate::snapshot::Snapshot;
use crate::status::WorkerMemory;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use woolly_engine::plan::KvType;

/// Questions that wait at a time; who asks more waits to ask.
const ASKED_MAX: usize = 64;

/// Which model is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A name of `--model-dir`.
    Name(String),
    /// A file of the server's machine.
    Path(PathBuf),
}

/// How a model is to be loaded; what is `None` or empty is as the flags of `serve` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Positions of a sequence; 0 is all that the model was trained for.
    pub ctx_size: Option<u32>,
    /// How the KV cache holds its values.
    pub cache_type: Option<KvType>,
    /// Bytes of KV cache on each worker.
    pub kv_memory: Option<u64>,
    /// Names in the API; the first is the one that lists show.
    pub alias: Vec<String>,
    /// Workers to wait for.
    pub workers: Option<u32>,
}

/// A model that is being loaded, or is there.
#[derive(Clone, Debug)]
pub struct Loading {
    /// Its number.
    pub model: ModelId,
    /// The name that lists show.
    pub name: String,
    /// Whether it was loaded, or being loaded, before.
    pub was_there: bool,
    /// How far it is.
    pub progress: watch::Receiver<Progress>,
}

impl Loading {
    /// Waits until the model is ready or will not be. May be dropped and called again.
    pub async fn settled(&mut self) -> Progress {
        let is_settled = |progress: &Progress| !matches!(progress, Progress::Loading(_));
        match self.progress.wait_for(is_settled).await {
            Ok(progress) => progress.clone(),
            // Who keeps it is gone, and the model with it.
            Err(_) => Progress::Unloading,
        }
    }
}

/// How far a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Its file is read, its stages are loaded (percent), or workers are waited for.
    Loading(u8),
    /// It was served.
    Ready,
    /// It could not be loaded, or cannot be served any more: why.
    Failed(String),
    /// Somebody unloads it.
    Unloading,
}

/// A model, for lists.
#[derive(Clone, Debug)]
pub struct KeptModel {
    /// Its number.
    pub model: ModelId,
    /// The name that lists show.
    pub name: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// Its name below `--model-dir`, if it was loaded by that.
    pub source: Option<String>,
    /// How far it is.
    pub progress: Progress,
}

/// All models.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Those that are loaded or being loaded.
    pub models: Vec<KeptModel>,
    /// Those that can be loaded by name; `None` without `--model-dir`.
    pub stock: Option<Stock>,
    /// What the memory of each worker is taken by.
    pub workers: Vec<WorkerMemory>,
}

/// A model that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The name that lists showed.
    pub name: String,
    /// Generations that were ended with it.
    pub unfinished: usize,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such model.
    #[error("{0}")]
    NotFound(String),
    /// Another one is in the way: its name, its file, or too many.
    #[error("{0}")]
    Conflict(String),
    /// The file, or what was asked of it, is of no use.
    #[error("{0}")]
    Unusable(String),
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// What is asked.
#[derive(Debug)]
pub enum Ask {
    /// Load a model.
    Load {
        /// Which.
        source: Source,
        /// How.
        options: LoadOptions,
        /// Told as soon as its file was looked at.
        reply: oneshot::Sender<Result<Loading, Refused>>,
    },
    /// Load a model because a request names it, unless that failed a moment ago.
    LoadOnDemand {
        /// A name of `--model-dir`.
        name: String,
        /// As for `Load`; `None` if there is no such model.
        reply: oneshot::Sender<Option<Result<Loading, Refused>>>,
    },
    /// Unload a model.
    Unload {
        /// Any of its names.
        name: String,
        /// How long its generations may go on.
        patience: Duration,
        /// Told when it is gone.
        reply: oneshot::Sender<Result<Gone, Refused>>,
    },
    /// Say which models there are.
    List(oneshot::Sender<Kept>),
    /// Say all that is known of the cluster; not answered if the server is going down.
    Cluster(oneshot::Sender<Snapshot>),
    /// Change who belongs to the cluster.
    Member(members::MemberAsk),
}

/// The way to who keeps the models.
#[derive(Clone, Debug)]
pub struct AdminHandle {
    asks: mpsc::Sender<Ask>,
    events: Events,
}

impl AdminHandle {
    /// A handle, and what arrives through it.
    pub fn new(events: Events) -> (AdminHandle, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(ASKED_MAX);
        (AdminHandle { asks, events }, asked)
    }

    /// What happens.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Asks, and waits for the answer; `None` if the server is going down.
    pub async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.ok()?;
        answer.await.ok()
    }
}
