//! What a driver is made from, and the channels at both of its ends.

use super::lane::{LaneConfig, Unloaded};
use crate::announce::Announcer;
use crate::cluster::ClusterConfig;
use crate::epochs::EpochCounter;
use crate::events::Events;
use crate::generation::{Command, ModelId};
use crate::guides::{Answered, Pool};
use crate::links::LinkEvent;
use crate::metrics::Metrics;
use crate::models::watch::ModelNews;
use crate::shutdown::Shutdown;
use crate::snapshot::Snapshot;
use crate::status::{Work, WorkerMemory};
use crate::trust::exclusions::Exclusions;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use woolly_protocol::certificate::ClusterId;
use woolly_protocol::clock::Clock;

/// What a driver is made from.
#[derive(Debug)]
pub struct DriverConfig {
    /// For the cluster core.
    pub cluster: ClusterConfig,
    /// Names the cluster.
    pub id: ClusterId,
    /// Generations that one API key may have; `None` is no limit of its own.
    pub key_concurrency: Option<usize>,
    /// Who may not be here.
    pub exclusions: Arc<Exclusions>,
    /// The time of day, which workers' clocks are held against.
    pub clock: Clock,
}

/// What the driver is asked to do with models.
#[derive(Debug)]
pub enum LaneCommand {
    /// Take generations of one more model, and compute them once its files were read: their news counts after
    /// the reply only.
    Load {
        /// The model, and everything about it.
        lane: Box<LaneConfig>,
        /// It is known.
        reply: oneshot::Sender<()>,
    },
    /// Serve a model no more.
    Unload {
        /// Which.
        model: ModelId,
        /// How long its generations may go on.
        patience: Duration,
        /// Told when it is gone; dropped if there is no such model.
        reply: oneshot::Sender<Unloaded>,
    },
    /// Say what the memory of each worker is taken by.
    Holdings(oneshot::Sender<Vec<WorkerMemory>>),
    /// Say all that is known at this moment, but the time of day and events.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Who may not be here has changed: close what is open of them, and tell the others.
    ExclusionsChanged(oneshot::Sender<()>),
}

/// Where things happen.
#[derive(Debug)]
pub struct Inputs {
    /// Of the gateway.
    pub commands: mpsc::Receiver<Command>,
    /// Of who keeps the models.
    pub lanes: mpsc::Receiver<LaneCommand>,
    /// Of the links.
    pub links: mpsc::Receiver<LinkEvent>,
    /// Of those who read and look after the models' files. A fingerprint may take a while: workers are
    /// welcome before, and get their stages after.
    pub models: mpsc::Receiver<(ModelId, ModelNews)>,
    /// What guides have answered: each generation has one answer on its way at most.
    pub guides: mpsc::Receiver<Answered>,
    /// No new generations from now on.
    pub drain: Shutdown,
    /// Those that still run end now.
    pub deadline: Shutdown,
    /// The end.
    pub stop: Shutdown,
}

/// Where the driver says what happens.
#[derive(Debug)]
pub struct Outputs {
    /// To `/metrics`.
    pub metrics: Arc<Metrics>,
    /// To people.
    pub announcer: Announcer,
    /// To the guides of generations.
    pub guides: Pool,
    /// To those who watch.
    pub events: Events,
    /// To whoever waits for the end: what is left to do.
    pub work: watch::Sender<Work>,
    /// Where numbers for plans are reserved.
    pub epochs: EpochCounter,
}
