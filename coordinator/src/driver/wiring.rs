//! What a driver is made from, and the channels at both of its ends.

use super::lane::LaneConfig;
use crate::announce::Announcer;
use crate::cluster::ClusterConfig;
use crate::epochs::EpochCounter;
use crate::generation::{Command, ModelId};
use crate::guides::{Answered, Pool};
use crate::links::LinkEvent;
use crate::metrics::Metrics;
use crate::models::watch::ModelNews;
use crate::shutdown::Shutdown;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use woolly_protocol::certificate::ClusterId;

/// What a driver is made from.
#[derive(Debug)]
pub struct DriverConfig {
    /// For the cluster core.
    pub cluster: ClusterConfig,
    /// Names the cluster.
    pub id: ClusterId,
    /// The lanes, which are numbered in this order.
    pub lanes: Vec<LaneConfig>,
    /// Generations that one API key may have; `None` is no limit of its own.
    pub key_concurrency: Option<usize>,
}

/// Where things happen.
#[derive(Debug)]
pub struct Inputs {
    /// Of the gateway.
    pub commands: mpsc::Receiver<Command>,
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
    /// To those who look after the models' files: a look is needed.
    pub look_at_model: Arc<Notify>,
    /// Where numbers for plans are reserved.
    pub epochs: EpochCounter,
}
