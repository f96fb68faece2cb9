//! Causal attention over a paged cache.
//!
//! For one query and its key head: positions in ranges of [`RANGE`], each an online softmax over tiles
//! of [`TILE`] positions ascending,
//!
//! ```text
//! s_j = (q · k_j) · scale               sixteen lanes and the tree
//! m'  = max(m, s_j …)                   over the tile, ascending
//! c   = exp(m − m')                     (0 before the first tile)
//! p_j = exp(s_j − m')
//! l   = l · c + Σ p_j                   p_j added one by one, ascending
//! a   = a · c, then fma(p_j, v_j, a)    ascending
//! ```
//!
//! and the ranges merged ascending in the same way. The result is `a / l`. A position past the query's
//! own is never read.

use super::{dot_f32, per_level};
use crate::kv::{BLOCK_LEN, LayerCache};
use crate::math;
use crate::pool::Pool;
use crate::quant::f16::f16_to_f32;

/// Positions whose scores are taken together: one block of the cache.
pub const TILE: usize = BLOCK_LEN;
/// Positions whose online softmax is one.
pub const RANGE: usize = 1024;
/// Values of `heads per key head · head width`, which one query keeps.
const STATE_MAX: usize = 8192;
/// Heads per key head.
const HEADS_MAX: usize = 128;
/// Queries of a chunk that are one task.
const QUERIES: usize = 8;
/// The widest head.
pub const HEAD_DIM_MAX: usize = 256;

/// What is the same for all rows of a layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, at most [`HEAD_DIM_MAX`].
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
}

impl AttentionShape {
    /// Query heads per key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Why the kernel cannot compute this shape, if it cannot.
    pub fn refusal(&self) -> Option<String> {
        if self.head_dim > HEAD_DIM_MAX || self.group() * self.head_dim > STATE_MAX {
            return Some(format!(
                "{} query heads per key head of width {} (at most {HEAD_DIM_MAX} wide and \
                 {STATE_MAX} values in all)",
                self.group(),
                self.head_dim
            ));
        }
        (self.group() > HEADS_MAX).then(|| format!("more than {HEADS_MAX} heads per key head"))
    }
}

/// Consecutive queries of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct QueryChunk<'a> {
    /// First row in `q` and `out`.
    pub first_row: usize,
    /// Rows.
    pub rows: usize,
    /// Position of the first row.
    pub position: usize,
    /// Blocks of the sequence.
    pub block_table: &'a [u32],
}

/// `out = attention(q)` for all rows of `chunk`; both are `[rows, heads · head_dim]` of the batch.
pub fn attend(
    pool: &Pool,
    shape: &AttentionShape,
    cache: LayerCache<'_>,
    chunk: &QueryChunk<'_>,
    q: &[f32],
    out: &mut [f32],
) {
    let width = shape.heads * shape.head_dim;
    let rows = chunk.first_row * width..(chunk.first_row + chunk.rows) * width;
    let q = &q[rows.clone()];
    // Some rows are a task; with few rows their key heads are tasks as well.
    pool.fill_pieces(&mut out[rows], QUERIES * width, &|tile, out| {
        let first = tile * QUERIES;
        let task = Task {
            shape,
            position: chunk.position + first,
            block_table: chunk.block_table,
            q: &q[first * width..first * width + out.len()],
        };
        if pool.threads() == 1 || chunk.rows > QUERIES * pool.threads() {
            (0..shape.kv_heads).for_each(|head| task.heads(pool, cache, head, out));
        } else {
            task.split_heads(pool, cache, out);
        }
    });
}

struct Task<'a> {
    shape: &'a AttentionShape,
    position: usize,
    block_table: &'a [u32],
    q: &'a [f32],
}

impl Task<'_> {
    /// One key head for all rows of the task.
    fn heads(&self, pool: &Pool, cache: LayerCache<'_>, kv_head: usize, out: &mut [f32]) {
        let width = self.shape.heads * self.shape.head_dim;
        let group = self.shape.group() * self.shape.head_dim;
        for row in 0..out.len() / width {
            let at = row * width + kv_head * group;
            let query = Query {
                q: &self.q[at..at + group],
                position: self.position + row,
                block_table: self.block_table,
                kv_head,
            };
            one_query(pool.level(), self.shape, cache, query, &mut out[at..at + group]);
        }
    }

    /// Few rows: the key heads of each row are shared out as well.
    fn split_heads(&self, pool: &Pool, cache: LayerCache<'_>, out: &mut [f32]) {
        let group = self.shape.group() * self.shape.head_dim;
        pool.fill_pieces(out, group, &|piece, out| {
            let (row, kv_head) = (piece / self.shape.kv_heads, piece % self.shape.kv_heads);
            let query = Query {
                q: &self.q[piece * group..(piece + 1) * group],
                position: self.position + row,
                block_table: self.block_table,
                kv_head,
            };
            one_query(pool.level(), self.shape, cache, query, out);
        });
    }
}

/// The query heads of one row that share a key head.
#[derive(Clone, Copy)]
struct Query<'a> {
    q: &'a [f32],
    position: usize,
    block_table: &'a [u32],
    kv_head: usize,
}

per_level! {
    fn one_query(
        shape: &AttentionShape, cache: LayerCache<'_>, query: Query<'_>, out: &mut [f32],
    ) = one_query_any;
}

/// A running softmax of every head of the group: maximum and sum.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    sum: f32,
}

const EMPTY: Running = Running { max: f32::NEG_INFINITY, sum: 0.0 };

#[inline(always)]
fn one_query_any(shape: &AttentionShape, cache: LayerCache<'_>, query: Query<'_>, out: &mut [f32]) {
    let (dim, group) = (shape.head_dim, shape.group());
    let mut total = [EMPTY; HEADS_MAX];
    let mut partial = [0.0f32; STATE_MAX];
    let mut tile_values = [0.0f32; TILE * HEAD_DIM_MAX];
    let mut scores = [[0.0f32; TILE]; HEADS_MAX];
    let end = query.position + 1;
    for range_start in (0..end).step_by(RANGE) {
        let range_end = end.min(range_start + RANGE);
        let mut running = [EMPTY; HEADS_MAX];
        let partial = &mut partial[..group * dim];
        partial.fill(0.0);
        for start in (range_start..range_end).step_by(TILE) {
            let count = TILE.min(range_end - start);
            let block = query.block_table[start / TILE];
            widen(cache.keys(block, query.kv_head), &mut tile_values[..count * dim]);
            for (g, scores) in scores[..group].iter_mut().enumerate() {
                let q = &query.q[g * dim..(g + 1) * dim];
                for (j, score) in scores[..count].iter_mut().enumerate() {
                    *score = dot_f32(q, &tile_values[j * dim..(j + 1) * dim]) * shape.scale;
                }
            }
            widen(cache.values(block, query.kv_head), &mut tile_values[..count * dim]);
            for g in 0..group {
                let acc = &mut partial[g * dim..(g + 1) * dim];
                add_tile(&mut running[g], &mut scores[g][..count], &tile_values, acc);
            }
        }
        for g in 0..group {
            let (a, out) = (&partial[g * dim..(g + 1) * dim], &mut out[g * dim..(g + 1) * dim]);
            if range_start == 0 {
                total[g] = running[g];
                out.copy_from_slice(a);
            } else {
                merge(&mut total[g], out, running[g], a);
            }
        }
    }
    for g in 0..group {
        for out in &mut out[g * dim..(g + 1) * dim] {
            *out /= total[g].sum;
        }
    }
}

#[inline(always)]
fn widen(halves: &[u16], out: &mut [f32]) {
    for (out, bits) in out.iter_mut().zip(halves) {
        *out = f16_to_f32(*bits);
    }
}

/// One tile of one head: `scores` become probabilities, `acc` takes their share of the values.
#[inline(always)]
fn add_tile(running: &mut Running, scores: &mut [f32], values: &[f32], acc: &mut [f32]) {
    let mut max = running.max;
    for score in scores.iter() {
        max = if *score > max { *score } else { max };
    }
    let correction = math::exp(running.max - max);
    let mut sum = running.sum * correction;
    for score in scores.iter_mut() {
        *score = math::exp(*score - max);
    }
    for p in scores.iter() {
        sum += p;
    }
    for a in acc.iter_mut() {
        *a *= correction;
    }
    let dim = acc.len();
    for (p, v) in scores.iter().zip(values.chunks_exact(dim)) {
        for (a, v) in acc.iter_mut().zip(v) {
            *a = p.mul_add(*v, *a);
        }
    }
    *running = Running { max, sum };
}

/// Merges a later range into the total.
#[inline(always)]
fn merge(total: &mut Running, out: &mut [f32], range: Running, acc: &[f32]) {
    let max = if range.max > total.max { range.max } else { total.max };
    let (old, new) = (math::exp(total.max - max), math::exp(range.max - max));
    for (out, a) in out.iter_mut().zip(acc) {
        *out = a.mul_add(new, *out * old);
    }
    *total = Running { max, sum: range.sum.mul_add(new, total.sum * old) };
}
