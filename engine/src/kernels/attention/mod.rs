//! Causal attention over a paged cache.
//!
//! For one query: positions in ranges of [`RANGE`] from 0, each an online softmax over tiles of
//! [`TILE`] positions ascending,
//!
//! ```text
//! s_j = (Σ q_i · k_ji) · scale          one fused sum, i ascending; −∞ past the query's position
//! m'  = max(m, s_j …)
//! c   = exp(m − m')                     (0 before the first tile)
//! p_j = exp(s_j − m')
//! l   = fma(l, c, Σ p_j)                sixteen lanes (j and j + 16) and the tree
//! a   = a · c, then fma(p_j, v_j, a)    ascending
//! ```
//!
//! and the ranges merged ascending in the same way. The result is `a / l`. Values past the query's
//! own position are never multiplied.
//!
//! With a window, tiles that are wholly before it are passed over; in the tile where it begins the
//! positions before it have `s_j = −∞`. With sinks, a head's own score joins `l` after the last range, as a
//! range with no value.
//!
//! A task is some rows of one chunk and all query heads of one key head: keys and values are read,
//! and widened, once for all of them.

pub mod cache;
pub mod heads;

use self::cache::{widen_keys, widen_values};
use self::heads::{AttentionShape, QUERIES_MAX, QueryChunk, TILE};
use crate::kernels::accumulate::{Operands, ROWS};
use crate::kernels::dispatch::accumulate;
use crate::kernels::scratch::Scratch;
use crate::kernels::simd::prefetch_far;
use crate::kernels::{LANES, Level, per_level, sum_lanes};
use crate::kv::{KvType, LayerCache};
use crate::math;
use crate::pool::{Pool, Shared};
use std::ops::Range;

/// Positions whose online softmax is one.
pub const RANGE: usize = 1024;
/// Blocks ahead of the one at hand that are asked for.
const AHEAD: usize = 2;

/// `out = attention(q)` for all rows of all `chunks`; both are `[rows, heads · head_dim]`. `sinks` has a
/// score for each head, if the layer has some.
pub fn attend<'a, C>(
    pool: &Pool,
    (shape, sinks): (&AttentionShape, Option<&[f32]>),
    cache: LayerCache<'_>,
    chunks: C,
    q: &[f32],
    out: &mut [f32],
) where
    C: Iterator<Item = QueryChunk<'a>> + Clone + Sync,
{
    let out = Shared::new(out);
    let tasks = |chunk: &QueryChunk<'_>| chunk.rows.div_ceil(shape.rows()) * shape.kv_heads;
    let total = chunks.clone().map(|chunk| tasks(&chunk)).sum();
    pool.each(total, &|scratch, mut index| {
        for chunk in chunks.clone() {
            if index < tasks(&chunk) {
                // The last rows have the most positions: first, so that no thread ends long after.
                let tile = chunk.rows.div_ceil(shape.rows()) - 1 - index / shape.kv_heads;
                let first = tile * shape.rows();
                let task = Task {
                    level: pool.level(),
                    shape,
                    sinks,
                    cache,
                    chunk,
                    rows: first..chunk.rows.min(first + shape.rows()),
                    kv_head: index % shape.kv_heads,
                };
                return task.run(scratch, q, &out);
            }
            index -= tasks(&chunk);
        }
    });
}

struct Task<'a> {
    level: Level,
    shape: &'a AttentionShape,
    sinks: Option<&'a [f32]>,
    cache: LayerCache<'a>,
    chunk: QueryChunk<'a>,
    /// Rows of the chunk.
    rows: Range<usize>,
    kv_head: usize,
}

/// A running softmax: maximum and sum.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    sum: f32,
}

const EMPTY: Running = Running { max: f32::NEG_INFINITY, sum: 0.0 };

impl Task<'_> {
    /// Queries: `group` per row.
    fn queries(&self) -> usize {
        self.rows.len() * self.shape.group()
    }

    /// The row of the chunk that query `index` is of.
    fn row(&self, index: usize) -> usize {
        self.rows.start + index / self.shape.group()
    }

    /// The head that query `index` is of.
    fn head(&self, index: usize) -> usize {
        let group = self.shape.group();
        self.kv_head * group + index % group
    }

    /// Where query `index` is in `q` and `out`.
    fn place(&self, index: usize) -> Range<usize> {
        let row = self.chunk.first_row + self.row(index);
        let at = (row * self.shape.heads + self.head(index)) * self.shape.head_dim;
        at..at + self.shape.head_dim
    }

    /// The end of the positions that row `row` of the chunk sees.
    fn end(&self, row: usize) -> usize {
        self.chunk.position + row + 1
    }

    /// The first of them.
    fn begin(&self, row: usize) -> usize {
        self.shape.window.map_or(0, |window| self.end(row).saturating_sub(window))
    }

    fn run(&self, scratch: &mut Scratch, q: &[f32], out: &Shared<'_, f32>) {
        let (queries, dim) = (self.queries(), self.shape.head_dim);
        for index in 0..queries {
            let to = &mut scratch.queries[index * dim..(index + 1) * dim];
            to.copy_from_slice(&q[self.place(index)]);
        }
        let mut total = [EMPTY; QUERIES_MAX];
        let first = self.begin(self.rows.start) / RANGE * RANGE;
        for start in (first..self.end(self.rows.end - 1)).step_by(RANGE) {
            let mut running = [EMPTY; QUERIES_MAX];
            self.range(scratch, start, &mut running);
            for index in 0..queries {
                let (begin, end) = (self.begin(self.row(index)), self.end(self.row(index)));
                if end <= start || begin >= start + RANGE {
                    continue;
                }
                let at = index * self.shape.stride();
                let a = &scratch.partial[at..at + dim];
                // SAFETY: rows of this head are this task's alone.
                let out = unsafe { out.part(self.place(index)) };
                if begin >= start {
                    total[index] = running[index];
                    out.copy_from_slice(a);
                } else {
                    merge(&mut total[index], out, running[index], a);
                }
            }
        }
        for (index, total) in total[..queries].iter().enumerate() {
            let sink = self.sinks.map(|sinks| sinks[self.head(index)]);
            let (factor, sum) = with_sink(*total, sink);
            // SAFETY: as above.
            for out in unsafe { out.part(self.place(index)) } {
                *out = *out * factor / sum;
            }
        }
    }

    /// One range of positions, to `scratch.partial`.
    fn range(&self, scratch: &mut Scratch, start: usize, running: &mut [Running; QUERIES_MAX]) {
        let (stride, group) = (self.shape.stride(), self.shape.group());
        scratch.partial[..self.queries() * stride].fill(0.0);
        let end = self.end(self.rows.end - 1).min(start + RANGE);
        let begin = (self.begin(self.rows.start) / TILE * TILE).max(start);
        for start in (begin..end).step_by(TILE) {
            let block = self.chunk.table.block(start / TILE);
            let ahead = start / TILE + AHEAD;
            let ahead = (ahead < end.div_ceil(TILE)).then(|| self.chunk.table.block(ahead));
            if let Some(ahead) = ahead {
                ask_for(self.cache.keys(ahead, self.kv_head));
            }
            // Rows that see none of the tile are passed over; those that see all go together.
            let sees = |row: &usize| self.end(*row) > start && self.begin(*row) < start + TILE;
            let first_row = self.rows.clone().find(sees).expect("a row sees the tile");
            let rows = self.rows.clone().filter(sees).count();
            let first = (first_row - self.rows.start) * group;
            let seeing = first..first + rows * group;
            self.scores(scratch, block, seeing.clone());
            if let Some(ahead) = ahead {
                ask_for(self.cache.values(ahead, self.kv_head));
            }
            let count = TILE.min(end - start);
            let values = self.cache.values(block, self.kv_head);
            let halves = Some(values).filter(|_| self.takes_halves(&seeing));
            if halves.is_none() {
                let out = &mut scratch.tile;
                widen_values(self.level, self.cache.shape, (values, count), stride, out);
            }
            for index in seeing.clone() {
                let count = TILE.min(self.end(self.row(index)) - start);
                let seen = self.begin(self.row(index)).saturating_sub(start)..count;
                let running = &mut running[index];
                let scores = &mut scratch.scores[index * TILE..(index + 1) * TILE];
                let acc = &mut scratch.partial[index * stride..(index + 1) * stride];
                let scores = scores.first_chunk_mut().expect("a tile of scores");
                softmax(self.level, self.shape.scale, seen, scores, running, acc);
            }
            let whole = self.end(first_row) >= start + TILE;
            let step = if whole { seeing.len() } else { group };
            for part in seeing.clone().step_by(step) {
                let part_end = seeing.end.min(part + step);
                let count = TILE.min(self.end(self.row(part)) - start);
                self.add_values(scratch, part..part_end, count, halves);
            }
        }
    }

    /// Whether `queries` take keys and values as the cache has them: if they all do so at once.
    fn takes_halves(&self, queries: &Range<usize>) -> bool {
        let plain = self.shape.stride() == self.shape.head_dim;
        plain && self.cache.shape.ty == KvType::F16 && queries.len() <= ROWS
    }

    /// Scores of `queries` with a tile of keys.
    fn scores(&self, scratch: &mut Scratch, block: u32, queries: Range<usize>) {
        let dim = self.shape.head_dim;
        let keys = self.cache.keys(block, self.kv_head);
        let halves = self.takes_halves(&queries);
        if !halves {
            widen_keys(self.level, self.cache.shape, keys, &mut scratch.tile);
        }
        for index in queries.clone().step_by(ROWS) {
            let count = ROWS.min(queries.end - index);
            let operands = Operands {
                a: scratch.queries[index * dim..].as_ptr(),
                a_stride: dim,
                b: if halves { keys.as_ptr() } else { scratch.tile.as_ptr().cast() },
                halves,
                b_stride: TILE,
                c: scratch.scores[index * TILE..].as_mut_ptr(),
                c_stride: TILE,
                columns: TILE,
                depth: dim,
                fresh: true,
            };
            // SAFETY: the queries, the tile and the scores are there in these sizes.
            unsafe { accumulate(self.level, count, operands) };
        }
    }

    /// Adds the first `count` values of the tile, or of `values` in halves, to queries `range`, by
    /// their scores.
    fn add_values(
        &self,
        scratch: &mut Scratch,
        range: Range<usize>,
        count: usize,
        values: Option<&[u8]>,
    ) {
        let stride = self.shape.stride();
        for first in range.clone().step_by(ROWS) {
            let rows = ROWS.min(range.end - first);
            let operands = Operands {
                a: scratch.scores[first * TILE..].as_ptr(),
                a_stride: TILE,
                b: values.map_or(scratch.tile.as_ptr().cast(), <[u8]>::as_ptr),
                halves: values.is_some(),
                b_stride: stride,
                c: scratch.partial[first * stride..].as_mut_ptr(),
                c_stride: stride,
                columns: stride,
                depth: count,
                fresh: false,
            };
            // SAFETY: as above.
            unsafe { accumulate(self.level, rows, operands) };
        }
    }
}

/// Asks for keys or values that come later: blocks do not follow each other in memory.
fn ask_for(tile: &[u8]) {
    const LINE: usize = 64;
    for line in tile.chunks(LINE) {
        prefetch_far(line.as_ptr());
    }
}

per_level! {
    /// Turns the scores of one query with a tile, of which it sees `seen`, into probabilities, and
    /// scales what the earlier tiles gave.
    fn softmax(
        scale: f32, seen: Range<usize>, scores: &mut [f32; TILE], running: &mut Running, acc: &mut [f32],
    ) = softmax_any;
}

#[inline(always)]
fn softmax_any(
    scale: f32,
    seen: Range<usize>,
    scores: &mut [f32; TILE],
    running: &mut Running,
    acc: &mut [f32],
) {
    for (j, score) in scores.iter_mut().enumerate() {
        *score = if seen.contains(&j) { *score * scale } else { f32::NEG_INFINITY };
    }
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for (i, lane) in lanes.iter_mut().enumerate() {
        let (a, b) = (scores[i], scores[i + LANES]);
        *lane = if a > b { a } else { b };
    }
    let mut max = running.max;
    for lane in lanes {
        max = if lane > max { lane } else { max };
    }
    let correction = math::exp(running.max - max);
    for score in scores.iter_mut() {
        *score = math::exp(*score - max);
    }
    for i in 0..LANES {
        lanes[i] = scores[i] + scores[i + LANES];
    }
    let sum = running.sum.mul_add(correction, sum_lanes(lanes));
    // A factor of one changes nothing.
    if correction != 1.0 {
        for a in acc.iter_mut() {
            *a *= correction;
        }
    }
    *running = Running { max, sum };
}

/// What a query's values are multiplied with, and the sum that they are divided by then.
fn with_sink(total: Running, sink: Option<f32>) -> (f32, f32) {
    let Some(sink) = sink else { return (1.0, total.sum) };
    let max = if sink > total.max { sink } else { total.max };
    let factor = math::exp(total.max - max);
    (factor, total.sum.mul_add(factor, math::exp(sink - max)))
}

/// Merges a later range into the total.
fn merge(total: &mut Running, out: &mut [f32], range: Running, acc: &[f32]) {
    let max = if range.max > total.max { range.max } else { total.max };
    let (old, new) = (math::exp(total.max - max), math::exp(range.max - max));
    for (out, a) in out.iter_mut().zip(acc) {
        *out = a.mul_add(new, *out * old);
    }
    *total = Running { max, sum: range.sum.mul_add(new, total.sum * old) };
}
