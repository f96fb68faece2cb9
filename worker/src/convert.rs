//! Wire types to engine types and back: the only file that names both.

use crate::source::{ModelFiles, PartFile};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use woolly_engine::batch::{Batch, ChunkRef};
use woolly_engine::kv::KvType;
use woolly_engine::plan::SliceId;
use woolly_engine::sampler::{RowRequest, RowResult, SampleParams};
use woolly_engine::stage::{Input, Stage, StageConfig};
use woolly_protocol::check::text_from;
use woolly_protocol::control::{Assign, KvType as WireKvType};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::forward::Forward;
use woolly_protocol::frame::{EncodedFrame, Frame};
use woolly_protocol::ids::{MicrobatchId, PlanEpoch};
use woolly_protocol::limits::{BLOCK_LEN, CHUNKS_PER_MICROBATCH_MAX};
use woolly_protocol::preamble::Preamble;
use woolly_protocol::sampling::{RowMode, Sampled, SampledRow, Sampling, SamplingParams};
use woolly_protocol::slices::SliceKey;

// Payloads are little-endian on the wire and used in place.
const _: () = assert!(cfg!(target_endian = "little"));
const _: () = assert!(BLOCK_LEN as usize == Stage::BLOCK_LEN);

/// A forward whose frame was read and whose epoch was checked.
#[derive(Debug)]
pub struct Work {
    /// What is to be computed.
    pub forward: Forward,
    /// The frame that it was read from. Its payload is used where it was read to: token ids at the
    /// first stage, hidden states at the others.
    pub frame: Frame,
    /// What to do with its rows at the last stage; `None` if none is sampled or scored.
    pub sampling: Option<Sampling>,
}

impl Work {
    /// The microbatch, for the heartbeat and for its timing.
    pub fn microbatch(&self) -> MicrobatchId {
        self.forward.microbatch
    }
}

/// What came of a forward. It is encoded by the task that sends it, while the next one is computed.
#[derive(Debug)]
pub enum Computed {
    /// For the next stage: the `Forward` as it came, with the hidden states of this stage.
    Hidden {
        /// The frame that was read.
        frame: Frame,
        /// `f32`, `[rows, hidden]`: the one copy of what stands in the stage's buffers, which the
        /// next forward uses again.
        hidden: Bytes,
    },
    /// For the coordinator: what the last stage sampled.
    Sampled(Sampled),
    /// It could not be computed; nothing else comes for it.
    Fault(FaultMessage),
}

impl Computed {
    /// The frame to send on.
    ///
    /// # Errors
    ///
    /// The fault to report instead: its own, or that the result fits no frame.
    pub fn encode(
        self,
        epoch: PlanEpoch,
        microbatch: MicrobatchId,
    ) -> Result<EncodedFrame, FaultMessage> {
        let encoded = match self {
            Computed::Hidden { frame, hidden } => frame.with_payload(hidden),
            Computed::Sampled(sampled) => EncodedFrame::new(&sampled),
            Computed::Fault(fault) => return Err(fault),
        };
        encoded.map_err(|error| {
            let text = text_from(&format!("a result cannot be sent: {error}"));
            FaultMessage { code: FaultCode::ComputeFailed, epoch, microbatch, text }
        })
    }
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

/// What the stage of an assignment must hold.
pub fn stage_config(assign: &Assign) -> StageConfig {
    StageConfig {
        layers: assign.layer_first..assign.layer_end,
        ctx_size: assign.ctx_size,
        kv_blocks: assign.kv_blocks,
        rows_max: assign.rows_max as usize,
        chunks_max: CHUNKS_PER_MICROBATCH_MAX,
        kv_type: match assign.kv_type {
            WireKvType::F16 => KvType::F16,
            WireKvType::Q8_0 => KvType::Q8_0,
        },
    }
}

/// The model's files as the coordinator sees them; `machine` is this worker's.
pub fn model_files(assign: &Assign, machine: &[u8; 16]) -> ModelFiles {
    let part = |part: &woolly_protocol::control::ModelPart| PartFile {
        file_name: part.file_name.clone(),
        path: PathBuf::from(&part.path),
        size: part.size,
        stat: part.stat,
    };
    ModelFiles {
        fingerprint: assign.fingerprint,
        same_machine: assign.machine == *machine,
        parts: assign.parts.iter().map(part).collect(),
    }
}

/// Computes one forward on the stage.
pub fn compute(stage: &mut Stage, work: Work, progress: &AtomicU64) -> Computed {
    let (epoch, microbatch) = (work.forward.epoch, work.forward.microbatch);
    match run(stage, &work, progress) {
        Ok(Output::Hidden(hidden)) => Computed::Hidden { frame: work.frame, hidden },
        Ok(Output::Rows(rows)) => {
            let rows = rows.into_iter().map(sampled_row).collect();
            Computed::Sampled(Sampled { epoch, microbatch, rows })
        }
        Err(Failure(code, text)) => {
            Computed::Fault(FaultMessage { code, epoch, microbatch, text: text_from(&text) })
        }
    }
}

/// What a stage gives.
enum Output {
    /// At every stage but the last.
    Hidden(Bytes),
    /// At the last.
    Rows(Vec<RowResult>),
}

/// Why a forward was not computed.
struct Failure(FaultCode, String);

fn bad_message(error: impl std::fmt::Display) -> Failure {
    Failure(FaultCode::BadMessage, format!("a forward cannot be computed: {error}"))
}

fn run(stage: &mut Stage, work: &Work, progress: &AtomicU64) -> Result<Output, Failure> {
    let tables: Vec<Vec<u32>> = (work.forward.chunks.iter())
        .map(|chunk| chunk.block_table.iter().map(|block| block.0).collect())
        .collect();
    let chunks: Vec<ChunkRef<'_>> = (work.forward.chunks.iter().zip(&tables))
        .map(|(chunk, block_table)| ChunkRef {
            position: chunk.position,
            token_count: chunk.token_count,
            sample_rows: u32::from(chunk.sample_rows),
            block_table,
        })
        .collect();
    let batch = Batch::new(&chunks, stage.limits()).map_err(bad_message)?;
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
        return Ok(Output::Hidden(Bytes::copy_from_slice(bytemuck::cast_slice(hidden))));
    }
    sample(stage, &batch, work.sampling.as_ref()).map(Output::Rows)
}

fn sample(
    stage: &mut Stage,
    batch: &Batch<'_>,
    sampling: Option<&Sampling>,
) -> Result<Vec<RowResult>, Failure> {
    let rows = sampling.map_or(&[][..], |sampling| &sampling.rows);
    let params: Vec<Option<SampleParams<'_>>> = (rows.iter())
        .map(|row| match &row.mode {
            RowMode::Score(_) => None,
            RowMode::Sample(params) => Some(sample_params(params)),
        })
        .collect();
    let requests: Vec<RowRequest<'_>> = (rows.iter().zip(&params))
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

fn sample_params(params: &SamplingParams) -> SampleParams<'_> {
    SampleParams {
        temperature: params.temperature,
        top_k: params.top_k,
        top_p: params.top_p,
        min_p: params.min_p,
        repetition_penalty: params.repetition_penalty,
        frequency_penalty: params.frequency_penalty,
        presence_penalty: params.presence_penalty,
        seed: params.seed,
        choice: params.choice,
        position: params.position,
        logit_bias: &params.logit_bias,
        prompt_counts: &params.prompt_counts,
        output_counts: &params.output_counts,
        mask: &params.mask,
    }
}

fn sampled_row(result: RowResult) -> SampledRow {
    let RowResult { token, logprob, top, non_finite } = result;
    SampledRow { token, logprob, top, non_finite }
}
