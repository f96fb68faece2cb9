//! How a model is served: the flags of `serve`, and what was asked for this one model, as a lane.

use crate::admin::LoadOptions;
use crate::announce::ready_lines;
use crate::cluster::PlacementConfig;
use crate::config::CurlKey;
use crate::driver::LaneConfig;
use crate::exit::Fatal;
use crate::models::last_plan::LastPlan;
use crate::models::model::positions;
use crate::models::{Model, ServedModel};
use crate::scheduler::{ROWS_PER_STEP, SchedulerConfig};
use crate::status::Status;
use crate::trust::state::StateDir;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot, watch};
use woolly_engine::plan::{KvType, Objective};

/// Sequences of full length for which a model takes memory, where several are to have room.
pub const CONTEXTS_OF_SEVERAL: u64 = 4;

/// What all models have in common.
#[derive(Clone, Debug)]
pub struct LaneMaker {
    /// Workers to wait for before layers are placed.
    pub workers_wanted: u32,
    /// What a cut is to be best for.
    pub objective: Objective,
    /// Positions of a sequence, if the flags say.
    pub ctx_size: Option<u32>,
    /// How the KV cache holds its values.
    pub kv_type: KvType,
    /// Positions of the KV cache that are given out together.
    pub extent_len: u32,
    /// Sequences of full length for which a model takes memory at most.
    pub contexts_max: u64,
    /// How requests are scheduled.
    pub scheduler: SchedulerConfig,
    /// Where last plans are kept.
    pub state: StateDir,
    /// Where the API is.
    pub urls: Vec<String>,
    /// How the example comes by a key.
    pub key: CurlKey,
}

/// A model whose files were looked at.
#[derive(Debug)]
pub struct Opened {
    /// Everything about it but its weights.
    pub model: Arc<Model>,
    /// Its first file, links followed: the same file has one lane.
    pub path: PathBuf,
    /// Its name below `--model-dir`, if it was found by that.
    pub source: Option<String>,
    /// What was asked for it.
    pub options: LoadOptions,
    /// Positions of a sequence.
    pub ctx_size: u32,
    /// Layers of each stage, if they are fixed.
    pub cut: Option<Vec<u32>>,
    /// Whether it is the model of the command line.
    pub of_command_line: bool,
}

/// The channels of a lane's keeper.
#[derive(Debug)]
pub struct Ends {
    /// Where its status is told.
    pub status: watch::Sender<Status>,
    /// Asks for a look at its files.
    pub look: Arc<Notify>,
    /// Told why it ended by itself.
    pub ended: oneshot::Sender<String>,
}

impl LaneMaker {
    /// Positions of a sequence: what was asked for this model must be possible; what the flags say is for all
    /// models, and those that were trained for fewer have fewer.
    ///
    /// # Errors
    ///
    /// More positions were asked for than the model was trained for.
    pub fn ctx_size(&self, model: &Model, options: &LoadOptions) -> Result<u32, Fatal> {
        match options.ctx_size {
            None => Ok(positions(model.layout.ctx_train, self.ctx_size)),
            asked => model.ctx_size(asked),
        }
    }

    /// The lane of a model.
    pub fn lane(&self, opened: &Opened, served: Arc<ServedModel>, ends: Ends) -> LaneConfig {
        let Opened { model, options, ctx_size, cut, of_command_line, .. } = opened;
        let placement = PlacementConfig {
            name: served.name.clone(),
            layout: Arc::clone(&model.layout),
            parts: model.parts.clone(),
            workers_wanted: options.workers.unwrap_or(self.workers_wanted),
            objective: self.objective,
            cut: cut.clone(),
            ctx_size: *ctx_size,
            rows_max: ROWS_PER_STEP as u32,
            kv_type: options.cache_type.unwrap_or(self.kv_type),
            extent_len: self.extent_len,
            contexts_max: self.contexts_max,
            kv_memory: options.kv_memory,
            must_fit: !of_command_line,
        };
        let last_plan = if *of_command_line {
            self.state.last_plan()
        } else {
            self.state.last_plan_of(&opened.path)
        };
        let Ends { status, look, ended } = ends;
        LaneConfig {
            ready_text: ready_lines(&self.urls, &served.name, self.key.clone()),
            model: served,
            placement,
            scheduler: self.scheduler,
            status,
            last_plan: LastPlan::new(last_plan),
            look,
            of_command_line: *of_command_line,
            ended,
        }
    }
}
