//! How a plan gets its stage: it takes over one that is here, or has one loaded. Knows no stream.

use super::context::{Context, Coordinator};
use super::fetch::SliceClient;
use crate::convert::{Finished, model_files, stage_config};
use crate::counters::Counters;
use crate::peers::outbox::fault;
use crate::stage::compute::Seat;
use crate::stage::load::{StageFacts, memory_needed};
use crate::stage::on_disk;
use crate::stage::progress;
use crate::stage::resident::Residents;
use crate::units::show_size;
use crate::weights::model_files::ModelFiles;
use crate::weights::source::{self, Model, SourceError};
use std::sync::Arc;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::task::spawn_blocking;
use woolly_protocol::control::{Assign, PlanLinks, StageSpec};
use woolly_protocol::fault::{FaultCode, FaultMessage};

/// Ends the display and the count of a load however it ends.
struct Loading<'a> {
    counters: &'a Counters,
    _watch: progress::Watch,
}

impl<'a> Loading<'a> {
    fn begin(links: &PlanLinks, counters: &'a Arc<Counters>) -> Loading<'a> {
        counters.begin_load(0);
        let what = format!("stage {} of {}", links.stage + 1, links.stage_count);
        Loading { counters, _watch: progress::watch(what, counters) }
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.counters.end_load();
    }
}

/// Has the plan served with a stage that is here, or else with one that is loaded; returns what it is and
/// how many bytes were fetched for it.
///
/// # Errors
///
/// The fault to report: what cannot be found, fetched or loaded.
pub async fn stage_for(
    assign: &Assign,
    context: &Context,
    coordinator: &Coordinator,
    seat: &Seat,
    results: mpsc::Sender<Finished>,
) -> Result<(StageFacts, u64), FaultMessage> {
    let (mut residents, mut fetched_bytes) = (None, 0);
    loop {
        // First at once, then when this plan may load: another may have loaded the same meanwhile.
        if let Some(facts) =
            seat.take_over(&assign.stage, assign.links.replaces, results.clone()).await
        {
            return Ok((facts, fetched_bytes));
        }
        residents = Some(match residents.take() {
            None => Arc::clone(&context.residents).lock_owned().await,
            Some(residents) => {
                let loaded = load(assign, context, coordinator, residents).await?;
                fetched_bytes += loaded.1;
                loaded.0
            }
        });
    }
}

/// Loads a stage and puts it where plans take it over. Goes on to its end once it reads in, even if the
/// plan ends: the next one may want it.
async fn load(
    assign: &Assign,
    context: &Context,
    coordinator: &Coordinator,
    mut residents: OwnedMutexGuard<Residents>,
) -> Result<(OwnedMutexGuard<Residents>, u64), FaultMessage> {
    let Assign { source, stage: spec, links } = assign;
    let failed = |code, text: &str| fault(code, links.epoch, context.named(text));
    let load_failed = |text: String| failed(FaultCode::LoadFailed, &text);
    let config = stage_config(spec).map_err(load_failed)?;
    let _loading = Loading::begin(links, &context.counters);
    let files = model_files(spec.fingerprint, source, &context.machine);
    let mut model =
        open(&files, spec, context, coordinator, &residents).await.map_err(|error| {
            let code = match error {
                SourceError::Model(_) => FaultCode::LoadFailed,
                SourceError::Slice(_) => FaultCode::SliceFailed,
            };
            failed(code, &error.to_string())
        })?;
    model.leave_on_disk(spec.from_disk);
    context.counters.extend_load(model.weights.bytes_to_populate());
    let needed = memory_needed(&model, &config);
    // What is locked counts against a limit that is not known here: nothing else is kept beside it.
    let short = if context.loader.locks() { u64::MAX } else { residents.shortage(needed) };
    let given = context.compute.give_away(short).await;
    let (loader, compute) = (context.loader.clone(), context.compute.clone());
    let (spec, fetched_bytes) = (spec.clone(), model.fetched_bytes);
    let allowance = context.config.allowance();
    let loaded = spawn_blocking(move || {
        drop(given);
        let short = residents.make_room(needed);
        if short > 0 {
            tracing::warn!("this stage takes {} more than there may be", show_size(short));
        }
        if model.weights.is_on_disk() {
            tracing::warn!("{}", on_disk::warning(&model, &config, allowance));
        }
        let files = std::mem::take(&mut model.files);
        let stage = loader.load(model, &config, |bytes| residents.reserve(bytes))?;
        residents.hold(spec.fingerprint, stage.weights(), files);
        compute.keep(spec, stage);
        // Its plan may have ended meanwhile.
        compute.forget_later();
        Ok((residents, fetched_bytes))
    });
    // It panics if the system gives no memory; that ends this plan and nothing else.
    let panicked = |_| Err("the load failed; the worker's log says where".to_owned());
    loaded.await.unwrap_or_else(panicked).map_err(load_failed)
}

async fn open(
    files: &ModelFiles,
    spec: &StageSpec,
    context: &Context,
    coordinator: &Coordinator,
    residents: &Residents,
) -> Result<Model, SourceError> {
    let Context { dialer, places, counters, .. } = context;
    let slices = SliceClient::new(Arc::clone(dialer), coordinator.address, spec.fingerprint);
    let (slices, held) = (Arc::new(slices), residents.of(&spec.fingerprint));
    source::open(files, spec.layer_first..spec.layer_end, places, &slices, counters, &held).await
}
