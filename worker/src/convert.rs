//! Wire types to engine types and back: the only file that names both.

use crate::stage::timings::Times;
use crate::weights::model_files::{ModelFiles, PartFile};
use bytes::Bytes;
use std::path::PathBuf;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use woolly_engine::batch::ChunkRef;
use woolly_engine::kv::{BlockTable, GroupBlocks, KvType};
use woolly_engine::plan::SliceId;
use woolly_engine::sampler::{RowRequest, RowResult, RowToken, SampleParams, TokenMask};
use woolly_engine::stage::{Stage, StageConfig};
use woolly_protocol::control::{KvType as WireKvType, ModelPart, ModelSource, StageSpec};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::forward::{BlockLimits, CacheLimits, CacheTables, Chunk, Forward};
use woolly_protocol::frame::{EncodedFrame, Frame};
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, SequenceId};
use woolly_protocol::limits::{BLOCK_LEN, CHUNKS_PER_MICROBATCH_MAX};
use woolly_protocol::preamble::Preamble;
use woolly_protocol::sampling::{
    RowMode, SampleBy, Sampled, SampledRow, SampledToken, Sampling, SamplingParams, SamplingRow,
    TokenMask as WireMask,
};
use woolly_protocol::slices::SliceKey;
use woolly_protocol::trace::SequenceTrace;

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
    /// When it was ready to be computed.
    came: Instant,
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
        Work { forward, frame, sampling, came: Instant::now(), _place: place }
    }

    /// The plan that it belongs to.
    pub fn epoch(&self) -> PlanEpoch {
        self.forward.epoch
    }

    /// The microbatch, for the heartbeat and for its timing.
    pub fn microbatch(&self) -> MicrobatchId {
        self.forward.microbatch
    }

    /// The block tables of its chunks, those of one chunk together: one for each cache group.
    ///
    /// # Errors
    ///
    /// A cache group is not of blocks.
    pub fn tables(&self) -> Result<Vec<BlockTable<'_>>, Failure> {
        let Forward { chunks, caches, .. } = &self.forward;
        let mut tables = vec![BlockTable::whole(&[]); chunks.len() * caches.len()];
        for (group, of_group) in caches.iter().enumerate() {
            let CacheTables::Blocks(of_group) = of_group else {
                return Err(Failure::bad_message("expected cache groups of blocks, found slots"));
            };
            let places = tables.iter_mut().skip(group).step_by(caches.len());
            for (table, (span, blocks)) in places.zip(of_group.spans.iter().zip(of_group.tables()))
            {
                *table = BlockTable { first: span.first, blocks: bytemuck::cast_slice(blocks) };
            }
        }
        Ok(tables)
    }

    /// Its chunks with their [`tables`](Self::tables).
    pub fn chunks<'a>(&self, tables: &'a [BlockTable<'a>]) -> Vec<ChunkRef<'a>> {
        let groups = self.forward.caches.len().max(1);
        let chunks = self.forward.chunks.iter().zip(tables.chunks_exact(groups));
        let chunk = |(chunk, tables): (&Chunk, _)| ChunkRef {
            position: chunk.position,
            token_count: chunk.token_count,
            sample_rows: u32::from(chunk.sample_rows),
            tables,
        };
        chunks.map(chunk).collect()
    }

    /// When it was ready to be computed.
    pub fn came(&self) -> Instant {
        self.came
    }

    /// The requests of its sequences that no forward of the plan had before, with the sequences.
    pub fn traces(&self) -> impl Iterator<Item = (SequenceTrace, SequenceId)> {
        let Forward { traces, chunks, .. } = &self.forward;
        traces.iter().filter_map(|trace| {
            let chunk = chunks.get(usize::try_from(trace.chunk).ok()?)?;
            Some((*trace, chunk.sequence))
        })
    }

    /// Its rows.
    pub fn rows(&self) -> u64 {
        self.forward.chunks.iter().map(|chunk| u64::from(chunk.token_count)).sum()
    }

    /// Token ids or hidden states.
    pub fn payload(&self) -> &[u8] {
        self.frame.payload()
    }

    /// Whether its sampling, if it has one, fits its rows and a vocabulary of so many tokens.
    ///
    /// # Errors
    ///
    /// Names the field, what was expected and what came.
    pub fn check_sampling(&self, vocab: usize) -> Result<(), Failure> {
        let Some(sampling) = &self.sampling else { return Ok(()) };
        let vocab = u32::try_from(vocab).map_err(Failure::bad_message)?;
        let rows = self.forward.sample_rows();
        sampling.check_against(rows, vocab).map_err(Failure::bad_message)
    }

    /// How the token of each row is chosen that is sampled or scored; `None` where it is scored.
    pub fn params(&self) -> Vec<Option<SampleParams<'_>>> {
        let Some(sampling) = &self.sampling else { return Vec::new() };
        sampling.rows.iter().map(|row| sample_params(sampling, row)).collect()
    }

    /// What to do with each of these rows; `params` are theirs.
    pub fn requests<'a>(&self, params: &'a [Option<SampleParams<'a>>]) -> Vec<RowRequest<'a>> {
        let Some(sampling) = &self.sampling else { return Vec::new() };
        let request = |(row, params): (&SamplingRow, &'a Option<SampleParams<'a>>)| {
            let top = usize::from(row.top_logprobs);
            match (&row.mode, params) {
                (_, Some(params)) => RowRequest::Sample { params, top },
                (RowMode::Score(target), None) => RowRequest::Score { target: *target, top },
                (RowMode::Sample(_), None) => unreachable!("parameters are made for it"),
            }
        };
        sampling.rows.iter().zip(params).map(request).collect()
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
        FaultMessage::new(code, epoch, microbatch, text)
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
    let blocks = spec.caches.iter().map(|cache| match *cache {
        CacheLimits::Blocks(BlockLimits { count, window }) => Some(GroupBlocks { window, count }),
        CacheLimits::Slots(_) => None,
    });
    let Some(caches) = blocks.collect() else {
        let groups: Vec<String> = spec.caches.iter().map(cache_name).collect();
        return Err(format!(
            "this worker's version computes stages with cache groups of blocks; the plan has {}: update this \
             worker",
            groups.join(" and ")
        ));
    };
    Ok(StageConfig {
        layers: spec.layer_first..spec.layer_end,
        ctx_size: spec.ctx_size,
        caches,
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

/// Why a forward was not computed.
#[derive(Debug)]
pub struct Failure(FaultCode, String);

impl Failure {
    /// It was not meaningful.
    pub fn bad_message(why: impl std::fmt::Display) -> Failure {
        Failure(FaultCode::BadMessage, format!("a forward cannot be computed: {why}"))
    }

    /// What the stage was loaded from is not there any more.
    pub fn load_failed(why: impl std::fmt::Display) -> Failure {
        Failure(FaultCode::LoadFailed, why.to_string())
    }
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
        xtc_probability: options.xtc_probability,
        xtc_threshold: options.xtc_threshold,
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
