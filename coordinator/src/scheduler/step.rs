//! Builds one microbatch: its chunks, its rows, what is sampled, and the limits of all of them.

use super::limits::{PlanLimits, blocks_for, to_u32, to_usize};
use super::sequence::Sequence;
use std::mem::take;
use std::ops::Range;
use std::time::Duration;
use woolly_protocol::failpoint::planted;
use woolly_protocol::forward::{BlockTables, CacheTables, Chunk, Forward};
use woolly_protocol::ids::{MicrobatchId, SequenceId};
use woolly_protocol::limits::{
    CACHE_GROUPS_MAX, FORWARD_ARCHIVE_MAX, LOGIT_BIAS_MAX, MASK_WORDS_MAX, PENALTY_TOKENS_MAX,
    ROWS_PER_MICROBATCH_MAX, SAMPLING_ARCHIVE_MAX,
};
use woolly_protocol::sampling::{
    RowMode, SampleBy, Sampling, SamplingParams, SamplingRow, TokenMask,
};

/// One microbatch for stage 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The chunks.
    pub forward: Forward,
    /// The token of every row: the payload for stage 0.
    pub tokens: Vec<u32>,
    /// For the last stage; `None` if no row is sampled or scored.
    pub sampling: Option<Sampling>,
}

/// Archive bytes of one row.
const ROW_BYTES: usize = SamplingRow::ARCHIVED_BYTES;
/// Archive bytes of a row's parameters without their lists; each list may begin with padding.
const PARAMS_BYTES: usize = SamplingParams::ARCHIVED_BYTES + 3 * 8;
/// Archive bytes of one entry of a list of parameters.
const ENTRY_BYTES: usize = 8;
/// Archive bytes of a mask without its list, which may begin with padding.
const MASK_BYTES: usize = TokenMask::ARCHIVED_BYTES + 8;
/// Archive bytes kept free in a `Sampling` for its header and padding.
const SLACK_BYTES: usize = 64 << 10;
/// Block ids of one microbatch: what fits a `Forward` beside its chunks.
const BLOCK_IDS_MAX: usize = (FORWARD_ARCHIVE_MAX - SLACK_BYTES) / 4;

/// The largest chunk alone: every row scored, the last one sampled with full lists.
const CHUNK_SAMPLING_BYTES_MAX: usize = ROWS_PER_MICROBATCH_MAX * ROW_BYTES
    + PARAMS_BYTES
    + (LOGIT_BIAS_MAX + 2 * PENALTY_TOKENS_MAX) * ENTRY_BYTES
    + MASK_BYTES
    + MASK_WORDS_MAX * 8;
/// The quarter that decode leaves to prefill holds any chunk, so that none is put off for ever.
const _: () = assert!(CHUNK_SAMPLING_BYTES_MAX <= (SAMPLING_ARCHIVE_MAX - SLACK_BYTES) / 4);

/// What a microbatch holds, or may hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    pub(super) rows: usize,
    chunks: usize,
    block_ids: usize,
    sampling_bytes: usize,
}

impl Room {
    /// All that one microbatch may hold.
    pub(super) fn whole(plan: &PlanLimits, rows_per_step: usize) -> Self {
        Self {
            rows: to_usize(plan.rows_max).min(rows_per_step).max(1),
            chunks: to_usize(plan.chunks_max),
            block_ids: BLOCK_IDS_MAX,
            sampling_bytes: SAMPLING_ARCHIVE_MAX - SLACK_BYTES,
        }
    }

    /// The same with so many rows at most.
    pub(super) fn with_rows(self, rows: usize) -> Self {
        Self { rows: self.rows.min(rows), ..self }
    }

    /// What decode may take while prompts wait to be computed: three quarters. `keep_one` leaves at
    /// least one row and chunk, for plans so small that a quarter is nothing.
    pub(super) fn without_prefill_share(self, keep_one: bool) -> Self {
        let least = usize::from(keep_one);
        let share = |all: usize| all - (all / 4).max(least);
        Self {
            rows: share(self.rows),
            chunks: share(self.chunks),
            block_ids: share(self.block_ids),
            sampling_bytes: share(self.sampling_bytes),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            chunks: self.chunks + other.chunks,
            block_ids: self.block_ids + other.block_ids,
            sampling_bytes: self.sampling_bytes + other.sampling_bytes,
        }
    }

    fn fits_in(self, room: Self) -> bool {
        self.rows <= room.rows
            && self.chunks <= room.chunks
            && self.block_ids <= room.block_ids
            && self.sampling_bytes <= room.sampling_bytes
    }

    /// What the next `rows` rows of a sequence take.
    fn of_chunk(sequence: &Sequence, rows: usize) -> Self {
        let mut sampling_bytes = sequence.rows_to_score(rows).len() * ROW_BYTES;
        if sequence.samples_after(rows) {
            sampling_bytes += ROW_BYTES + PARAMS_BYTES + sequence.sampling_entries() * ENTRY_BYTES;
            sampling_bytes += sequence.mask().map_or(0, mask_bytes);
        }
        let end = blocks_for(sequence.sent + rows);
        let block_ids = sequence.tables.iter().map(|table| end - table.first).sum();
        Self { rows, chunks: 1, block_ids, sampling_bytes }
    }
}

/// A chunk in flight: what its rows in the answer mean.
#[derive(Clone, Debug)]
pub(super) struct SentChunk {
    pub(super) sequence: SequenceId,
    /// Prompt rows that are scored.
    pub(super) scored: Range<usize>,
    /// Whether a token is sampled after them.
    pub(super) samples: bool,
    /// When the token before came, if that is known: the gap to the sampled one begins there.
    pub(super) token_at: Option<Duration>,
}

impl SentChunk {
    /// Rows of the answer that belong to this chunk.
    pub(super) fn answer_rows(&self) -> usize {
        self.scored.len() + usize::from(self.samples)
    }
}

/// A microbatch in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) microbatch: MicrobatchId,
    pub(super) sent_at: Duration,
    pub(super) rows: u32,
    pub(super) chunks: Vec<SentChunk>,
    /// Whether it holds decode rows.
    pub(super) decodes: bool,
    /// Whether it holds prefill rows.
    pub(super) prefills: bool,
    /// What the answer may hold: the target of each scored row (`None` if it is sampled) and the
    /// greatest number of other tokens.
    pub(super) asked: Vec<(Option<u32>, u8)>,
    /// Block ids that it names of each cache group.
    blocks: [usize; CACHE_GROUPS_MAX],
}

/// A microbatch in the making. One is used for all: what a microbatch was made of comes back to it when
/// it was sent ([`take_back`](Self::take_back)) and answered.
#[derive(Debug, Default)]
pub(super) struct StepBuilder {
    used: Room,
    pub(super) decodes: usize,
    /// Rows of those that decode: one each, and more after tokens that were not sampled.
    pub(super) decode_rows: usize,
    chunks: Vec<Chunk>,
    /// Of each cache group.
    tables: Vec<BlockTables>,
    tokens: Vec<u32>,
    params: Vec<SamplingParams>,
    masks: Vec<TokenMask>,
    rows: Vec<SamplingRow>,
    sent: Vec<SentChunk>,
    asked: Vec<(Option<u32>, u8)>,
    /// Chunks, and block ids of each cache group, that are likely.
    expected: (usize, [usize; CACHE_GROUPS_MAX]),
    /// Positions of an extent, and the sequences that filled one.
    extent_len: usize,
    pub(super) filled: Vec<SequenceId>,
}

impl StepBuilder {
    /// Begins a microbatch for so many cache groups and extents of this length. With its first chunk it takes
    /// room for about as many as `like` has.
    pub(super) fn begin(&mut self, like: Option<&InFlight>, (groups, extent_len): (usize, usize)) {
        self.expected = like.map_or_else(Default::default, |like| (like.chunks.len(), like.blocks));
        self.tables.resize_with(groups, BlockTables::default);
        self.extent_len = extent_len;
        self.used = Room::default();
        (self.decodes, self.decode_rows) = (0, 0);
    }

    /// A microbatch was sent: its lists are used again.
    pub(super) fn take_back(&mut self, step: Step) {
        let Step { forward, tokens, sampling } = step;
        self.chunks = emptied(forward.chunks);
        self.tokens = emptied(tokens);
        self.tables.clear();
        self.tables.extend(forward.caches.into_iter().filter_map(|tables| match tables {
            CacheTables::Blocks(BlockTables { blocks, spans }) => {
                Some(BlockTables { blocks: emptied(blocks), spans: emptied(spans) })
            }
            CacheTables::Slots(_) => None,
        }));
        if let Some(Sampling { params, rows, .. }) = sampling {
            (self.params, self.rows) = (emptied(params), emptied(rows));
        }
    }

    /// The same of what was remembered of one that was answered.
    pub(super) fn take_back_answered(&mut self, in_flight: InFlight) {
        self.sent = emptied(in_flight.chunks);
        self.asked = emptied(in_flight.asked);
    }

    fn reserve(&mut self) {
        let (chunks, blocks) = self.expected;
        self.chunks.reserve(chunks);
        self.tokens.reserve(chunks);
        self.params.reserve(chunks);
        self.rows.reserve(chunks);
        self.sent.reserve(chunks);
        for (tables, blocks) in self.tables.iter_mut().zip(blocks) {
            tables.spans.reserve(chunks);
            // A block more now and then: sequences grow.
            tables.blocks.reserve(blocks + blocks / 8);
        }
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> usize {
        self.used.rows
    }

    /// Whether the next `rows` rows of the sequence fit into `room` beside what is here.
    pub(super) fn fits(&self, room: Room, sequence: &Sequence, rows: usize) -> bool {
        self.used.plus(Room::of_chunk(sequence, rows)).fits_in(room)
    }

    /// Adds the next `rows` rows of a sequence, whose blocks cover them, and marks them as sent.
    pub(super) fn push(&mut self, id: SequenceId, sequence: &mut Sequence, rows: usize) {
        if self.chunks.is_empty() {
            self.reserve();
        }
        self.used = self.used.plus(Room::of_chunk(sequence, rows));
        let end = sequence.sent + rows;
        let scored = sequence.rows_to_score(rows);
        let samples = sequence.samples_after(rows);
        let top_logprobs = sequence.top();
        let targets = scored.clone().map(|index| RowMode::Score(sequence.score_target(index)));
        self.rows.extend(targets.map(|mode| SamplingRow { top_logprobs, mode }));
        if samples {
            let params = to_u32(self.params.len());
            let mask = sequence.mask().map(|mask| self.mask(mask));
            let by = SampleBy { params, position: to_u32(sequence.tokens.len()), mask };
            self.rows.push(SamplingRow { top_logprobs, mode: RowMode::Sample(by) });
            self.params.push(sequence.sampling_params());
        }
        let token_at = sequence.token_at.filter(|_| samples);
        let sent = SentChunk { sequence: id, scored, samples, token_at };
        self.chunks.push(Chunk {
            sequence: id,
            position: to_u32(sequence.sent),
            token_count: to_u32(rows),
            sample_rows: u16::try_from(sent.answer_rows()).expect("at most 2,048 rows"),
        });
        for (tables, table) in self.tables.iter_mut().zip(&sequence.tables) {
            tables.push(to_u32(table.first), &table.blocks[..blocks_for(end) - table.first]);
        }
        self.tokens.extend_from_slice(&sequence.tokens[sequence.sent..end]);
        if planted("skip-last-token-in-replay") && sequence.was_set_back && samples && rows > 1 {
            self.tokens.pop();
            self.tokens.push(0);
        }
        self.sent.push(sent);
        if end / self.extent_len != sequence.offered {
            self.filled.push(id);
        }
        sequence.sent = end;
        sequence.in_flight += 1;
    }

    /// The place of a mask, which stands once for all rows that have it.
    fn mask(&mut self, mask: &TokenMask) -> u32 {
        let known = self.masks.iter().position(|known| known == mask);
        to_u32(known.unwrap_or_else(|| {
            self.masks.push(mask.clone());
            self.masks.len() - 1
        }))
    }

    /// The microbatch and what to remember of it; `None` if it is empty.
    pub(super) fn finish(
        &mut self,
        plan: &PlanLimits,
        microbatch: MicrobatchId,
        now: Duration,
    ) -> Option<(Step, InFlight)> {
        if self.chunks.is_empty() {
            return None;
        }
        let mut blocks = [0; CACHE_GROUPS_MAX];
        for (blocks, tables) in blocks.iter_mut().zip(&self.tables) {
            *blocks = tables.blocks.len();
        }
        let in_flight = InFlight {
            microbatch,
            sent_at: now,
            rows: to_u32(self.used.rows),
            chunks: take(&mut self.sent),
            decodes: self.decodes > 0,
            prefills: self.used.rows > self.decode_rows,
            asked: {
                self.asked.extend(self.rows.iter().map(asked));
                take(&mut self.asked)
            },
            blocks,
        };
        let epoch = plan.epoch;
        let (params, masks) = (take(&mut self.params), take(&mut self.masks));
        let rows = take(&mut self.rows);
        let sampling =
            (!rows.is_empty()).then_some(Sampling { epoch, microbatch, params, masks, rows });
        let caches = self.tables.drain(..).map(CacheTables::Blocks).collect();
        // Who is behind the sequences the driver knows.
        let (chunks, traces) = (take(&mut self.chunks), Vec::new());
        let forward = Forward { epoch, microbatch, traces, chunks, caches };
        Some((Step { forward, tokens: take(&mut self.tokens), sampling }, in_flight))
    }
}

/// Archive bytes of the masks of a microbatch.
pub(super) fn mask_bytes_of(sampling: &Sampling) -> u64 {
    sampling.masks.iter().map(|mask| mask_bytes(mask) as u64).sum()
}

/// Archive bytes of a mask.
fn mask_bytes(mask: &TokenMask) -> usize {
    MASK_BYTES
        + match mask {
            TokenMask::Only(ids) | TokenMask::AllBut(ids) => 4 * ids.len(),
            TokenMask::Bits(words) => 8 * words.len(),
        }
}

/// A list that holds nothing, with the room that it had.
fn emptied<T>(mut list: Vec<T>) -> Vec<T> {
    list.clear();
    list
}

fn asked(row: &SamplingRow) -> (Option<u32>, u8) {
    let target = match &row.mode {
        RowMode::Score(target) => Some(*target),
        RowMode::Sample(_) => None,
    };
    (target, row.top_logprobs)
}
