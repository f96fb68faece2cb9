//! Wire types to engine types and back: the only file that names both.

use crate::stage::timings::Times;
use crate::weights::model_files::{ModelFiles, PartFile};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use woolly_engine::batch::{Batch, ChunkRef};
use woolly_engine::kv::KvType;
use woolly_engine::plan::SliceId;
use woolly_engine::sampler::{RowRequest, RowResult, RowToken, SampleParams, TokenMask};
use woolly_engine::stage::{Input, Stage, StageConfig};
use woolly_protocol::check::text_from;
use woolly_protocol::control::{KvType as WireKvType, ModelPart, ModelSource, StageSpec};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::forward::{BlockLimits, BlockTables, CacheLimits, CacheTables, Forward};
use woolly_protocol::frame::{EncodedFrame, Frame};
use woolly_protocol::ids::{MicrobatchId, PlanEpoch};
use woolly_protocol::limits::{BLOCK_LEN, CHUNKS_PER_MICROBATCH_MAX};
use woolly_protocol::preamble::Preamble;
use woolly_protocol::sampling::{
    RowMode, SampleBy, Sampled, SampledRow, SampledToken, Sampling, SamplingParams, SamplingRow,
    TokenMask as WireMask,
};
use woolly_protocol::slices::SliceKey;

// Payloads are little-endian on the wire and used in place.
const _: () = assert!(cfg!(target_endian = "little"));
const _: () = assert!(BLOCK_LEN as usize == Stage::BLOCK_LEN);

/// A forward whose frame was read and whose epoch was checked. What can be made ready is made by the
/// task that receives it, while the one before it is computed.
#[derive(Debug)]
pub struct Work {
    forward: Forward,
    /// The frame that it was read from. Its payload is used where it was read to: token ids at the
    /// first stage, hidden states at the others.
    frame: Frame,
    /// What to do with its rows at the last stage; `None` if none is sampled or scored.
    sampling: Option<Sampling>,
    /// One of the places of its plan's forwards in flight, until its result is on its way.
    _place: OwnedSemaphorePermit,
}

/// A forward that was computed, and how long it took.
#[derive(Debug)]
pub struct Finished {
    /// Which. It is freed by who sends it, not by the compute thread.
    pub work: Work,
    /// What came of it.
    pub computed: Computed,
    /// How long it took.
    pub times: Times,
    /// When it was handed to the sender.
    pub at: Instant,
}

impl Work {
    /// A forward with the frame that it came in, with its sampling if it has one, and with its place
    /// among those in flight.
    pub fn new(
        forward: Forward,
        frame: Frame,
        sampling: Option<Sampling>,
        place: OwnedSemaphorePermit,
    ) -> Work {
        Work { forward, frame, sampling, _place: place }
    }

    /// The plan that it belongs to.
    pub fn epoch(&self) -> PlanEpoch {
        self.forward.epoch
    }

    /// The microbatch, for the heartbeat and for its timing.
    pub fn microbatch(&self) -> MicrobatchId {
        self.forward.microbatch
    }

    /// The frame that says what came of it. Made by the task that sends it, while the next one is
    /// computed.
    ///
    /// # Errors
    ///
    /// The fault to report instead: why it was not computed, or that the result fits no frame.
    pub fn encode(&self, computed: Computed) -> Result<EncodedFrame, FaultMessage> {
        let (epoch, microbatch) = (self.forward.epoch, self.forward.microbatch);
        let encoded = match computed {
            // The message goes on as it came.
            Computed::Hidden(hidden) => self.frame.with_payload(hidden),
            Computed::Rows(rows) => {
                let rows = rows.into_iter().map(sampled_row).collect();
                EncodedFrame::new(&Sampled { epoch, microbatch, rows })
            }
            Computed::Not(Failure(code, text)) => return Err(self.fault(code, &text)),
        };
        encoded.map_err(|error| {
            self.fault(FaultCode::ComputeFailed, &format!("a result cannot be sent: {error}"))
        })
    }

    fn fault(&self, code: FaultCode, text: &str) -> FaultMessage {
        let (epoch, microbatch) = (self.forward.epoch, self.forward.microbatch);
        FaultMessage { code, epoch, microbatch, text: text_from(text) }
    }
}

/// What came of a forward.
#[derive(Debug)]
pub enum Computed {
    /// At every stage but the last: `f32`, `[rows, hidden]`. The one copy of what stands in the
    /// stage's buffers, which the next forward uses again.
    Hidden(Bytes),
    /// At the last: what was sampled and scored.
    Rows(Vec<RowResult>),
    /// It could not be computed.
    Not(Failure),
}

/// What this program says first on every connection.
pub fn preamble() -> Preamble {
    Preamble::ours(woolly_engine::NUMERICS)
}

/// The version of the order of operations.
pub fn numerics() -> u32 {
    woolly_engine::NUMERICS
}

/// A slice by its name on the wire.
pub fn slice_key(slice: SliceId) -> SliceKey {
    match slice {
        SliceId::Header(part) => SliceKey::Header(part),
        SliceId::Embedding => SliceKey::Embedding,
        SliceId::Layer(layer) => SliceKey::Layer(layer),
        SliceId::Head => SliceKey::Head,
    }
}

/// What a stage of a plan must hold.
///
/// # Errors
///
/// The sentence to print: the cache groups are not those that the engine computes.
pub fn stage_config(spec: &StageSpec) -> Result<StageConfig, String> {
    let [CacheLimits::Blocks(BlockLimits { count, window: None })] = spec.caches[..] else {
        let groups: Vec<String> = spec.caches.iter().map(cache_name).collect();
        return Err(format!(
            "this worker's version computes stages with one cache group, of blocks that remember all \
             positions; the plan has {}: update this worker",
            groups.join(" and ")
        ));
    };
    Ok(StageConfig {
        layers: spec.layer_first..spec.layer_end,
        ctx_size: spec.ctx_size,
        kv_blocks: count,
        rows_max: spec.rows_max as usize,
        chunks_max: CHUNKS_PER_MICROBATCH_MAX,
        kv_type: match spec.kv_type {
            WireKvType::F16 => KvType::F16,
            WireKvType::Q8_0 => KvType::Q8_0,
        },
    })
}

fn cache_name(cache: &CacheLimits) -> String {
    match cache {
        CacheLimits::Blocks(BlockLimits { count, window: None }) => format!("{count} blocks"),
        CacheLimits::Blocks(BlockLimits { count, window: Some(window) }) => {
            format!("{count} blocks with a window of {window} positions")
        }
        CacheLimits::Slots(count) => format!("{count} state slots"),
    }
}

/// The model's files as the coordinator sees them; `machine` is this worker's.
pub fn model_files(fingerprint: [u8; 32], source: &ModelSource, machine: &[u8; 16]) -> ModelFiles {
    let part = |part: &ModelPart| PartFile {
        file_name: part.file_name.clone(),
        path: PathBuf::from(&part.path),
        size: part.size,
        stat: part.stat,
    };
    ModelFiles {
        fingerprint,
        same_machine: source.machine == *machine,
        parts: source.parts.iter().map(part).collect(),
    }
}

/// Computes one forward on the stage.
pub fn compute(stage: &mut Stage, work: &Work, progress: &AtomicU64) -> Computed {
    run(stage, work, progress).unwrap_or_else(Computed::Not)
}

/// Why a forward was not computed.
#[derive(Debug)]
pub struct Failure(FaultCode, String);

fn bad_message(error: impl std::fmt::Display) -> Failure {
    Failure(FaultCode::BadMessage, format!("a forward cannot be computed: {error}"))
}

fn run(stage: &mut Stage, work: &Work, progress: &AtomicU64) -> Result<Computed, Failure> {
    let tables = block_tables(&work.forward)?;
    let chunks: Vec<ChunkRef<'_>> = (work.forward.chunks.iter().zip(tables.tables()))
        .map(|(chunk, blocks)| ChunkRef {
            position: chunk.position,
            token_count: chunk.token_count,
            sample_rows: u32::from(chunk.sample_rows),
            block_table: bytemuck::cast_slice(blocks),
        })
        .collect();
    let batch = Batch::new(&chunks, stage.limits()).map_err(bad_message)?;
    if let Some(sampling) = &work.sampling {
        let vocab = u32::try_from(stage.vocab()).map_err(bad_message)?;
        sampling.check_against(work.forward.sample_rows(), vocab).map_err(bad_message)?;
    }
    let payload = work.frame.payload();
    let input = if stage.is_first() {
        Input::Tokens(bytemuck::try_cast_slice(payload).map_err(bad_message)?)
    } else {
        Input::Hidden(bytemuck::try_cast_slice(payload).map_err(bad_message)?)
    };
    stage.check_unchanged().map_err(|error| Failure(FaultCode::LoadFailed, error.to_string()))?;
    let is_last = stage.is_last();
    let hidden = stage.forward(&batch, input, progress).map_err(bad_message)?;
    if !is_last {
        return Ok(Computed::Hidden(Bytes::copy_from_slice(bytemuck::cast_slice(hidden))));
    }
    sample(stage, &batch, work.sampling.as_ref()).map(Computed::Rows)
}

/// The tables of the one cache group that a stage has.
fn block_tables(forward: &Forward) -> Result<&BlockTables, Failure> {
    match &forward.caches[..] {
        [CacheTables::Blocks(tables)] => Ok(tables),
        caches => Err(bad_message(format_args!(
            "expected one cache group of blocks, found {} groups",
            caches.len()
        ))),
    }
}

fn sample(
    stage: &mut Stage,
    batch: &Batch<'_>,
    sampling: Option<&Sampling>,
) -> Result<Vec<RowResult>, Failure> {
    let Some(sampling) = sampling else { return Ok(Vec::new()) };
    let params: Vec<Option<SampleParams<'_>>> =
        sampling.rows.iter().map(|row| sample_params(sampling, row)).collect();
    let requests: Vec<RowRequest<'_>> = (sampling.rows.iter().zip(&params))
        .map(|(row, params)| {
            let top = usize::from(row.top_logprobs);
            match (&row.mode, params) {
                (_, Some(params)) => RowRequest::Sample { params, top },
                (RowMode::Score(target), None) => RowRequest::Score { target: *target, top },
                (RowMode::Sample(_), None) => unreachable!("parameters were made for it above"),
            }
        })
        .collect();
    let mut results = Vec::with_capacity(requests.len());
    stage.sample(batch, &requests, &mut results).map_err(bad_message)?;
    Ok(results)
}

/// How the token of a row is chosen; `None` if it is scored. Its indices were checked with the message.
fn sample_params<'a>(sampling: &'a Sampling, row: &SamplingRow) -> Option<SampleParams<'a>> {
    let RowMode::Sample(SampleBy { params, position, mask }) = row.mode else { return None };
    let SamplingParams { options, prompt_counts, output_counts } =
        &sampling.params[params as usize];
    Some(SampleParams {
        temperature: options.temperature,
        top_k: options.top_k,
        top_p: options.top_p,
        min_p: options.min_p,
        repetition_penalty: options.repetition_penalty,
        frequency_penalty: options.frequency_penalty,
        presence_penalty: options.presence_penalty,
        seed: options.seed,
        choice: options.choice,
        position,
        logit_bias: &options.logit_bias,
        prompt_counts,
        output_counts,
        mask: mask.map(|mask| token_mask(&sampling.masks[mask as usize])),
    })
}

fn token_mask(mask: &WireMask) -> TokenMask<'_> {
    match mask {
        WireMask::Only(ids) => TokenMask::Only(ids),
        WireMask::AllBut(ids) => TokenMask::AllBut(ids),
        WireMask::Bits(words) => TokenMask::Bits(words),
    }
}

fn sampled_row(result: RowResult) -> SampledRow {
    match result {
        RowResult::Token(RowToken { token, logprob, top }) => {
            SampledRow::Token(SampledToken { token, logprob, top })
        }
        RowResult::NonFinite => SampledRow::NonFinite,
        RowResult::NothingAllowed => SampledRow::NothingAllowed,
    }
}
