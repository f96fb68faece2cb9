//! `Forward`: one microbatch on its way through the stages.

use crate::check::{Check, MessageError};
use crate::frame::Message;
use crate::ids::{BlockId, MicrobatchId, PlanEpoch, SequenceId};
use crate::kind::Kind;
use crate::limits::{
    BLOCK_LEN, CACHE_GROUPS_MAX, CHUNKS_PER_MICROBATCH_MAX, CTX_MAX, HIDDEN_MAX, KV_BLOCKS_MAX,
    ROWS_PER_MICROBATCH_MAX, STATE_SLOTS_MAX,
};
use crate::trace::SequenceTrace;
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
    /// For whom chunks are computed: of those whose sequence the plan's stages have not seen before.
    pub traces: Vec<SequenceTrace>,
    /// From 1 to `CHUNKS_PER_MICROBATCH_MAX`, no sequence twice.
    pub chunks: Vec<Chunk>,
    /// What the chunks' sequences hold in each cache group of the plan, in its order.
    pub caches: Vec<CacheTables>,
}

/// Consecutive tokens of one sequence.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Chunk {
    /// The sequence that these tokens belong to.
    pub sequence: SequenceId,
    /// Position of the first token, counted from 0. All before it is in the caches already.
    pub position: u32,
    /// Tokens in this chunk, at least 1.
    pub token_count: u32,
    /// How many of the last rows are sampled or scored: at most `token_count`.
    pub sample_rows: u16,
}

/// What the chunks of a microbatch hold in one cache group: the layers that share a rule of
/// forgetting.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum CacheTables {
    /// Layers that remember positions, all of them or a window.
    Blocks(BlockTables),
    /// Layers that keep a state of a fixed size; one entry per chunk.
    Slots(Vec<StateSlots>),
}

/// The block tables of all chunks in one cache group, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct BlockTables {
    /// The blocks of every chunk's sequence, in order of position.
    pub blocks: Vec<BlockId>,
    /// Which of them belong to which chunk; one entry per chunk.
    pub spans: Vec<TableSpan>,
}

/// The block table of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct TableSpan {
    /// The place of its first block in the sequence: 0 unless a window has left blocks behind.
    pub first: u32,
    /// Its blocks. They cover all positions that the chunk reads and writes.
    pub len: u32,
}

/// Where a chunk finds the state of its sequence, and where it leaves it. The same chunk may be
/// computed twice: what it reads is not what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct StateSlots {
    /// The slot with the state before the chunk; `None` is the state before any token, all zeros.
    pub read: Option<u32>,
    /// The slot for the state after it.
    pub write: u32,
}

/// What one cache group of a plan holds, the same on every stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum CacheLimits {
    /// Layers that remember positions.
    Blocks(BlockLimits),
    /// Layers that keep a state: so many slots.
    Slots(u32),
}

/// The blocks of a cache group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct BlockLimits {
    /// KV blocks of [`BLOCK_LEN`] positions.
    pub count: u32,
    /// Positions that are remembered, the present one included; `None` remembers all.
    pub window: Option<u32>,
}

/// What the plan allows in a [`Forward`]; the numbers are those of `Assign`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardLimits<'a> {
    /// Rows of a microbatch at most.
    pub rows_max: u32,
    /// Positions of a sequence at most.
    pub ctx_size: u32,
    /// The plan's cache groups.
    pub caches: &'a [CacheLimits],
    /// Width of the hidden states in values.
    pub hidden: u32,
    /// Whether the receiver is stage 0: its payload is token ids, not hidden states.
    pub first_stage: bool,
}

impl ForwardLimits<'_> {
    /// The widest limits that any plan can have, its cache groups apart.
    const ANY: ForwardLimits<'static> = ForwardLimits {
        rows_max: ROWS_PER_MICROBATCH_MAX as u32,
        ctx_size: CTX_MAX,
        caches: &[],
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
        limits: &ForwardLimits<'_>,
        payload_len: usize,
    ) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        self.check_chunks(limits)?;
        let groups = limits.caches.len();
        check.count("caches", self.caches.len(), groups..=groups)?;
        for (tables, limits) in self.caches.iter().zip(limits.caches) {
            tables.check(check, &self.chunks, limits)?;
        }
        let expected = limits.payload_len(self.rows());
        let ok = payload_len == expected;
        check.that(ok, "payload", format_args!("{expected} bytes"), payload_len)
    }

    fn check_chunks(&self, limits: &ForwardLimits<'_>) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        check.not_zero("epoch", self.epoch.0.into())?;
        check.not_zero("microbatch", self.microbatch.0)?;
        check.count("chunks", self.chunks.len(), 1..=CHUNKS_PER_MICROBATCH_MAX)?;
        self.chunks.iter().try_for_each(|chunk| chunk.check(check, limits))?;
        check.range("rows", self.rows(), 1..=limits.rows_max as usize)?;
        self.check_traces(check)?;
        let mut sequences = [SequenceId(0); CHUNKS_PER_MICROBATCH_MAX];
        let sequences = &mut sequences[..self.chunks.len()];
        for (sequence, chunk) in sequences.iter_mut().zip(&self.chunks) {
            *sequence = chunk.sequence;
        }
        sequences.sort_unstable();
        let twice = sequences.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].0);
        let found = twice.unwrap_or_default();
        check.that(twice.is_none(), "chunks.sequence", "every sequence once", found)
    }
}

impl Forward {
    /// Each names a chunk that those before it do not name.
    fn check_traces(&self, check: Check) -> Result<(), MessageError> {
        check.count("traces", self.traces.len(), 0..=self.chunks.len())?;
        let mut next = 0;
        for trace in &self.traces {
            check.range("traces.chunk", trace.chunk as usize, next..=self.chunks.len() - 1)?;
            next = trace.chunk as usize + 1;
            let is_named = trace.trace != [0; 16] && trace.span != [0; 8];
            check.that(is_named, "traces.trace", "ids that are not all zeros", 0)?;
        }
        Ok(())
    }
}

impl Chunk {
    /// One past its last position.
    fn end(&self) -> u64 {
        u64::from(self.position) + u64::from(self.token_count)
    }

    fn check(&self, check: Check, limits: &ForwardLimits<'_>) -> Result<(), MessageError> {
        check.range("chunks.token_count", self.token_count, 1..=limits.rows_max)?;
        let sample_rows = u32::from(self.sample_rows);
        check.range("chunks.sample_rows", sample_rows, 0..=self.token_count)?;
        check.range("chunks.position + token_count", self.end(), 1..=limits.ctx_size.into())
    }
}

impl CacheLimits {
    /// Blocks of a group whose layers remember all positions.
    pub fn all_positions(count: u32) -> Self {
        Self::Blocks(BlockLimits { count, window: None })
    }

    pub(crate) fn check(self, check: Check) -> Result<(), MessageError> {
        match self {
            Self::Blocks(BlockLimits { count, window }) => {
                check.range("caches.count", count, 1..=KV_BLOCKS_MAX)?;
                check.range("caches.window", window.unwrap_or(1), 1..=CTX_MAX)
            }
            Self::Slots(count) => check.range("caches.slots", count, 1..=STATE_SLOTS_MAX),
        }
    }
}

impl CacheTables {
    /// The widest limits that a group of this kind can have in any plan.
    fn widest(&self) -> CacheLimits {
        match self {
            Self::Blocks(_) => {
                CacheLimits::Blocks(BlockLimits { count: KV_BLOCKS_MAX, window: Some(1) })
            }
            Self::Slots(_) => CacheLimits::Slots(STATE_SLOTS_MAX),
        }
    }

    /// Whether the group has one entry per chunk, names what the plan has, and covers what each
    /// chunk reads and writes.
    fn check(
        &self,
        check: Check,
        chunks: &[Chunk],
        limits: &CacheLimits,
    ) -> Result<(), MessageError> {
        match (self, limits) {
            (Self::Blocks(tables), CacheLimits::Blocks(limits)) => {
                tables.check(check, chunks, *limits)
            }
            (Self::Slots(slots), CacheLimits::Slots(count)) => {
                check.count("caches.slots", slots.len(), chunks.len()..=chunks.len())?;
                let named =
                    slots.iter().flat_map(|slots| slots.read.into_iter().chain([slots.write]));
                let highest = named.max().unwrap_or_default();
                check.range("caches.slots", highest, 0..=count.saturating_sub(1))?;
                let same = slots.iter().find(|slots| slots.read == Some(slots.write));
                let found = same.map_or(0, |slots| slots.write);
                check.that(same.is_none(), "caches.slots", "another slot to write", found)
            }
            (Self::Blocks(_), CacheLimits::Slots(_)) => {
                check.that(false, "caches", "state slots", "block tables")
            }
            (Self::Slots(_), CacheLimits::Blocks(_)) => {
                check.that(false, "caches", "block tables", "state slots")
            }
        }
    }
}

impl BlockTables {
    /// Adds the table of the next chunk, whose first block is the sequence's `first`-th.
    pub fn push(&mut self, first: u32, blocks: &[BlockId]) {
        let len = u32::try_from(blocks.len()).expect("a sequence has fewer blocks than positions");
        self.spans.push(TableSpan { first, len });
        self.blocks.extend_from_slice(blocks);
    }

    /// The table of each chunk, in their order.
    pub fn tables(&self) -> impl Iterator<Item = &[BlockId]> {
        let mut rest = self.blocks.as_slice();
        self.spans.iter().map(move |span| {
            let (table, after) = rest.split_at_checked(span.len as usize).unwrap_or((rest, &[]));
            rest = after;
            table
        })
    }

    fn check(
        &self,
        check: Check,
        chunks: &[Chunk],
        BlockLimits { count, window }: BlockLimits,
    ) -> Result<(), MessageError> {
        check.count("caches.spans", self.spans.len(), chunks.len()..=chunks.len())?;
        let sum: u64 = self.spans.iter().map(|span| u64::from(span.len)).sum();
        let named = self.blocks.len() as u64;
        check.range("caches.spans.len in all", sum, named..=named)?;
        let per_sequence = u64::from(CTX_MAX / BLOCK_LEN);
        for (span, chunk) in self.spans.iter().zip(chunks) {
            // Without a window every position from the first on is read.
            let behind = window.map_or(0, |window| {
                (u64::from(chunk.position) + 1).saturating_sub(window.into()) / u64::from(BLOCK_LEN)
            });
            check.range("caches.spans.first", u64::from(span.first), 0..=behind)?;
            let needed = chunk.end().div_ceil(u64::from(BLOCK_LEN));
            let end = u64::from(span.first) + u64::from(span.len);
            check.range("caches.spans.len", end, needed..=per_sequence)?;
        }
        let highest = self.blocks.iter().max().map_or(0, |block| block.0);
        check.range("caches.blocks", highest, 0..=count.saturating_sub(1))
    }
}

impl Message for Forward {
    const KIND: Kind = Kind::Forward;

    /// The part that holds for every plan; see [`check_against`](Forward::check_against).
    fn check(&self) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        self.check_chunks(&ForwardLimits::ANY)?;
        check.count("caches", self.caches.len(), 1..=CACHE_GROUPS_MAX)?;
        self.caches
            .iter()
            .try_for_each(|tables| tables.check(check, &self.chunks, &tables.widest()))
    }
}
