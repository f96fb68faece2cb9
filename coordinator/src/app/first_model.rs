//! What the flags of `serve` say of models: the one that is served from the start, if any, and how all are.

use crate::admin::LoadOptions;
use crate::app::get_model::local;
use crate::app::keeper::real;
use crate::app::lane_maker::{CONTEXTS_OF_SEVERAL, LaneMaker, Opened};
use crate::config::{GOOD_MODELS, ServeArgs, state_dir};
use crate::exit::Fatal;
use crate::fetch::Source;
use crate::models::shelf::Shelf;
use crate::models::{Model, Template};
use crate::scheduler::{ROWS_PER_STEP, SchedulerConfig};
use crate::trust::state::{StateDir, StateLock};
use anyhow::anyhow;
use std::path::Path;
use std::sync::Arc;
use woolly_engine::plan::KV_CTX_MAX;

/// The model that the command line names, and the state directory with its lock. A file of this machine is opened first, so
/// that a wrong one leaves no directory behind. A download may take an hour, and comes after the lock: so that probes can
/// tell that somebody is at work. Blocks.
///
/// # Errors
///
/// Those of both.
pub fn with_state(args: &ServeArgs) -> Result<(Option<Opened>, StateDir, StateLock), Fatal> {
    let is_here = matches!(args.model.source()?, None | Some(Source::File(_)));
    let here = is_here.then(|| named(args)).transpose()?;
    let state = StateDir::open(state_dir(args.state_dir.clone())?)?;
    let lock = state.lock()?;
    let model = here.map_or_else(|| named(args), Ok)?;
    Ok((model, state, lock))
}

/// The model that the command line names, if it names one: downloaded if need be, and opened. Blocks.
///
/// # Errors
///
/// It cannot be had or used; flags of a model without one.
fn named(args: &ServeArgs) -> Result<Option<Opened>, Fatal> {
    match args.model.source()? {
        Some(source) => open(&local(&source, args)?, args).map(Some),
        None => refuse_flags_of_a_model(args).map(|()| None),
    }
}

/// The model of the command line, as the flags want it. Blocks.
///
/// # Errors
///
/// What is wrong with the file, or asked of it in vain.
fn open(path: &Path, args: &ServeArgs) -> Result<Opened, Fatal> {
    if !path.exists() {
        let shown = path.display();
        return Err(Fatal::Model(anyhow!("there is no file {shown}. {GOOD_MODELS}")));
    }
    let mut model = Model::open(path)?;
    if let Some(path) = &args.model.chat_template_file {
        model.template = Template::of_file(path, &model.tokenizer)?;
    }
    let ctx_size = model.ctx_size(args.ctx_size)?;
    model.check_cut(args.cut.as_deref())?;
    Ok(Opened {
        model: Arc::new(model),
        path: real(path),
        source: None,
        options: LoadOptions { alias: args.naming.alias.clone(), ..LoadOptions::default() },
        ctx_size,
        cut: args.cut.clone(),
        of_command_line: true,
    })
}

/// Without a model there is nothing that some flags could be for.
///
/// # Errors
///
/// One of them is given.
fn refuse_flags_of_a_model(args: &ServeArgs) -> Result<(), Fatal> {
    let given = [("--cut", args.cut.is_some()), ("--alias", !args.naming.alias.is_empty())];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => Err(Fatal::usage(format!(
            "{flag} is for the model that is named, and none is: name one, or give it when one is loaded"
        ))),
    }
}

/// What people are told first.
pub fn what_is_served(model: Option<&Opened>, shelf: Option<&Shelf>) -> String {
    match (model, shelf) {
        (Some(opened), _) => opened.model.describe(),
        (None, Some(shelf)) => format!(
            "No model is loaded. Those in {} can be: woolly-coordinator models list",
            shelf.root().display()
        ),
        (None, None) => format!(
            "No model is named, and none is loaded. To load one: woolly-coordinator models load --path FILE, \
             or models load NAME. {GOOD_MODELS}"
        ),
    }
}

/// How all models are served. Where several are to be there, each takes memory for fewer sequences.
pub fn lane_maker(
    args: &ServeArgs,
    workers_wanted: u32,
    state: &StateDir,
    urls: &[String],
) -> LaneMaker {
    let is_alone = args.runtime.model_dir.is_none() && args.model.is_named();
    LaneMaker {
        workers_wanted,
        objective: args.objective.objective,
        ctx_size: args.ctx_size,
        kv_type: args.cache.cache_type,
        extent_len: args.cache.block_size,
        contexts_max: if is_alone { KV_CTX_MAX } else { CONTEXTS_OF_SEVERAL },
        scheduler: scheduler_config(args),
        state: state.clone(),
        urls: urls.to_vec(),
        key: args.access.curl_key(),
    }
}

fn scheduler_config(args: &ServeArgs) -> SchedulerConfig {
    let default = SchedulerConfig::default();
    let queue = &args.queue;
    SchedulerConfig {
        waiting_max: queue.queue_max.map_or(default.waiting_max, |most| most as usize),
        running_max: queue.running_max.map_or(default.running_max, |most| most as usize),
        rows_per_step: ROWS_PER_STEP,
        prefix_cache: args.cache.prefix_cache,
        itl_target: args.pace.itl_target,
        decode_groups: args.pace.decode_groups.0,
        failover_deadline: queue.failover_deadline,
    }
}
