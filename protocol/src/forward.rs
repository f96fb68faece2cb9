//! `Forward`: one microbatch on its way through the stages.

use crate::check::{Check, MessageError};
use crate::frame::Message;
use crate::ids::{BlockId, MicrobatchId, PlanEpoch, SequenceId};
use crate::kind::Kind;
use crate::limits::{
    BLOCK_LEN, CHUNKS_PER_MICROBATCH_MAX, CTX_MAX, HIDDEN_MAX, KV_BLOCKS_MAX,
    ROWS_PER_MICROBATCH_MAX,
};
use rkyv::{Archive, Deserialize, Serialize};

/// Consecutive tokens of one or more sequences, to be computed together.
///
/// Payload: at stage 0 the token ids, `u32` little-endian, one per row; after that the hidden
/// states, `f32` little-endian, `[rows, hidden]`. Rows follow the order of `chunks` and, inside a
/// chunk, of position.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Forward {
    /// The plan that this microbatch was made for.
    pub epoch: PlanEpoch,
    /// Unique while in flight; `Sampled` repeats it.
    pub microbatch: MicrobatchId,
    /// From 1 to `CHUNKS_PER_MICROBATCH_MAX`, no sequence twice.
    pub chunks: Vec<Chunk>,
}

/// Consecutive tokens of one sequence.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Chunk {
    /// The sequence that these tokens belong to.
    pub sequence: SequenceId,
    /// Position of the first token, counted from 0. All before it is in the KV cache already.
    pub position: u32,
    /// Tokens in this chunk, at least 1.
    pub token_count: u32,
    /// How many of the last rows are sampled or scored: at most `token_count`.
    pub sample_rows: u16,
    /// The sequence's blocks in order of position, covering `position + token_count` positions.
    pub block_table: Vec<BlockId>,
}

/// What the plan allows in a [`Forward`]; the numbers are those of `Assign`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardLimits {
    /// Rows of a microbatch at most.
    pub rows_max: u32,
    /// Positions of a sequence at most.
    pub ctx_size: u32,
    /// KV blocks of 32 positions.
    pub kv_blocks: u32,
    /// Width of the hidden states in values.
    pub hidden: u32,
    /// Whether the receiver is stage 0: its payload is token ids, not hidden states.
    pub first_stage: bool,
}

impl ForwardLimits {
    /// The widest limits that any plan can have.
    const ANY: Self = Self {
        rows_max: ROWS_PER_MICROBATCH_MAX as u32,
        ctx_size: CTX_MAX,
        kv_blocks: KV_BLOCKS_MAX,
        hidden: HIDDEN_MAX as u32,
        first_stage: true,
    };

    /// Bytes of the payload for this many rows.
    pub fn payload_len(&self, rows: usize) -> usize {
        let width = if self.first_stage { 1 } else { self.hidden as usize };
        rows * width * size_of::<u32>()
    }

    /// Bytes of the longest payload.
    pub fn payload_max(&self) -> usize {
        self.payload_len(self.rows_max as usize)
    }
}

impl Forward {
    /// Rows (tokens) over all chunks.
    pub fn rows(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.token_count as usize).sum()
    }

    /// Rows that are sampled or scored: the entries of its `Sampling`, which is only sent if there
    /// are any.
    pub fn sample_rows(&self) -> usize {
        self.chunks.iter().map(|chunk| usize::from(chunk.sample_rows)).sum()
    }

    /// Whether the message fits the plan and its payload has the right length. Token ids are not
    /// looked at.
    ///
    /// # Errors
    ///
    /// Names the field, what was expected and what came.
    pub fn check_against(
        &self,
        limits: &ForwardLimits,
        payload_len: usize,
    ) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        check.not_zero("epoch", self.epoch.0.into())?;
        check.not_zero("microbatch", self.microbatch.0)?;
        check.count("chunks", self.chunks.len(), 1..=CHUNKS_PER_MICROBATCH_MAX)?;
        self.chunks.iter().try_for_each(|chunk| chunk.check(check, limits))?;
        check.range("rows", self.rows(), 1..=limits.rows_max as usize)?;
        let mut sequences: Vec<_> = self.chunks.iter().map(|chunk| chunk.sequence).collect();
        sequences.sort_unstable();
        let twice = sequences.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].0);
        let found = twice.unwrap_or_default();
        check.that(twice.is_none(), "chunks.sequence", "every sequence once", found)?;
        let expected = limits.payload_len(self.rows());
        let ok = payload_len == expected;
        check.that(ok, "payload", format_args!("{expected} bytes"), payload_len)
    }
}

impl Chunk {
    fn check(&self, check: Check, limits: &ForwardLimits) -> Result<(), MessageError> {
        check.range("chunks.token_count", self.token_count, 1..=limits.rows_max)?;
        let sample_rows = u32::from(self.sample_rows);
        check.range("chunks.sample_rows", sample_rows, 0..=self.token_count)?;
        let end = u64::from(self.position) + u64::from(self.token_count);
        let ctx = u64::from(limits.ctx_size);
        check.range("chunks.position + token_count", end, 1..=ctx)?;
        let needed = end.div_ceil(u64::from(BLOCK_LEN));
        let most = ctx.div_ceil(u64::from(BLOCK_LEN));
        check.range("chunks.block_table entries", self.block_table.len() as u64, needed..=most)?;
        let highest = self.block_table.iter().max().expect("at least one block is needed").0;
        check.range("chunks.block_table", highest, 0..=limits.kv_blocks - 1)
    }
}

impl Message for Forward {
    const KIND: Kind = Kind::Forward;

    /// The part that holds for every plan; see [`check_against`](Forward::check_against).
    fn check(&self) -> Result<(), MessageError> {
        self.check_against(&ForwardLimits::ANY, ForwardLimits::ANY.payload_len(self.rows()))
    }
}
