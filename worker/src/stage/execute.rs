//! Runs one forward on a stage. Knows no queue and no wire type: what it needs of a forward is asked for.

use crate::convert::{Computed, Failure, Work};
use bytes::Bytes;
use std::sync::atomic::AtomicU64;
use woolly_engine::batch::Batch;
use woolly_engine::sampler::RowResult;
use woolly_engine::stage::{Input, Stage};

/// Computes one forward on the stage; `progress` grows with every layer.
pub fn compute(stage: &mut Stage, work: &Work, progress: &AtomicU64) -> Computed {
    run(stage, work, progress).unwrap_or_else(Computed::Not)
}

fn run(stage: &mut Stage, work: &Work, progress: &AtomicU64) -> Result<Computed, Failure> {
    let tables = work.tables()?;
    let chunks = work.chunks(&tables);
    let batch = Batch::new(&chunks, stage.limits()).map_err(Failure::bad_message)?;
    work.check_sampling(stage.vocab())?;
    let payload = work.payload();
    let input = if stage.is_first() {
        Input::Tokens(bytemuck::try_cast_slice(payload).map_err(Failure::bad_message)?)
    } else {
        Input::Hidden(bytemuck::try_cast_slice(payload).map_err(Failure::bad_message)?)
    };
    stage.check_unchanged().map_err(Failure::load_failed)?;
    let is_last = stage.is_last();
    let hidden = stage.forward(&batch, input, progress).map_err(Failure::bad_message)?;
    if !is_last {
        return Ok(Computed::Hidden(Bytes::copy_from_slice(bytemuck::cast_slice(hidden))));
    }
    sample(stage, &batch, work).map(Computed::Rows)
}

fn sample(stage: &mut Stage, batch: &Batch<'_>, work: &Work) -> Result<Vec<RowResult>, Failure> {
    let params = work.params();
    let requests = work.requests(&params);
    let mut results = Vec::with_capacity(requests.len());
    if !requests.is_empty() {
        stage.sample(batch, &requests, &mut results).map_err(Failure::bad_message)?;
    }
    Ok(results)
}
