//! What one forward gives to every layer, and the buffers that its layers share. Knows no layer.

use super::rope::Ropes;
use crate::arch::layer::{LayerShape, RopeKind};
use crate::batch::Batch;
use crate::kernels::activations::{Activations, Forms};
use crate::kernels::attention::heads::QueryChunk;
use crate::kernels::elementwise;
use crate::kernels::routing::Routes;
use crate::memory::Buffer;
use crate::pool::Pool;
use crate::weights::Weights;

/// What one forward gives to every layer.
pub struct Run<'a> {
    /// The threads.
    pub pool: &'a Pool,
    /// The stage's weights.
    pub weights: &'a Weights,
    /// The rows.
    pub batch: &'a Batch<'a>,
    /// The rotations of the stage's layers.
    pub ropes: &'a Ropes,
    /// `[cos, sin]` per rotation, row and pair.
    pub angles: &'a [[f32; 2]],
}

impl<'a> Run<'a> {
    /// The batch's chunks with their rows, and their tables in a cache group.
    pub(super) fn chunks(
        &self,
        group: usize,
    ) -> impl Iterator<Item = QueryChunk<'a>> + Clone + use<'a> {
        let mut end = 0;
        self.batch.chunks().iter().map(move |chunk| {
            let first_row = end;
            end += chunk.token_count as usize;
            QueryChunk {
                first_row,
                rows: chunk.token_count as usize,
                position: chunk.position as usize,
                table: chunk.tables[group],
            }
        })
    }

    /// `[cos, sin]` per row and pair of a layer with this rotation.
    pub(super) fn angles(&self, kind: RopeKind) -> &'a [[f32; 2]] {
        let len = self.batch.rows() * self.ropes.pairs();
        &self.angles[self.ropes.place(kind) * len..][..len]
    }

    /// The normed rows of `x` in the `forms` that the next products need.
    pub(super) fn norm(
        &self,
        shape: &LayerShape,
        x: &[f32],
        weight: &[f32],
        forms: Forms,
        input: &mut Activations,
    ) {
        let (level, width) = (self.pool.level(), shape.hidden);
        input.fill(self.pool, (self.batch.rows(), width), forms, &|row, columns, out| {
            let x = &x[row * width..(row + 1) * width];
            elementwise::rms_norm_columns(level, x, weight, shape.eps, columns, out);
        });
    }
}

/// Buffers of a forward, allocated when the stage is loaded; sizes are for the largest batch.
#[derive(Debug)]
pub struct Scratch {
    pub(super) input: Activations,
    pub(super) q: Buffer<f32>,
    pub(super) k: Buffer<f32>,
    pub(super) v: Buffer<f32>,
    pub(super) gate: Buffer<f32>,
    pub(super) up: Buffer<f32>,
    pub(super) attended: Buffer<f32>,
    /// What experts are given, sorted by expert.
    pub(super) sorted: Activations,
    pub(super) routes: Routes,
    /// Of each row for each expert.
    pub(super) scores: Buffer<f32>,
    /// What is not added to the hidden states as it comes.
    pub(super) apart: Buffer<f32>,
    /// The gates of what the shared expert gives.
    pub(super) shared_gate: Buffer<f32>,
}

impl Scratch {
    /// Buffers for batches of at most `rows` rows in layers of these shapes.
    pub fn new(shapes: &[LayerShape], rows: usize, forms: Forms) -> Self {
        let most = |width: fn(&LayerShape) -> usize| shapes.iter().map(width).max().unwrap_or(0);
        let (q_width, kv_width) = (most(LayerShape::q_width), most(LayerShape::kv_width));
        let ffn_width = most(LayerShape::ffn_width);
        let (experts, used) = (most(|shape| shape.experts().0), most(|shape| shape.experts().1));
        let widest = most(|shape| shape.hidden).max(q_width).max(ffn_width);
        Self {
            input: Activations::new(rows, widest, forms),
            q: Buffer::new(rows * q_width),
            k: Buffer::new(rows * kv_width),
            v: Buffer::new(rows * kv_width),
            gate: Buffer::new(rows * ffn_width),
            up: Buffer::new(rows * ffn_width),
            attended: Buffer::new(rows * q_width),
            sorted: Activations::new(rows * used, most(LayerShape::sorted_width), forms),
            routes: Routes::new(rows, used, experts),
            scores: Buffer::new(rows * experts),
            apart: Buffer::new(rows * most(LayerShape::apart_width)),
            shared_gate: Buffer::new(rows * most(LayerShape::apart_width).min(1)),
        }
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        let Self { q, k, v, gate, up, attended, scores, apart, shared_gate, .. } = self;
        let floats = [q, k, v, gate, up, attended, scores, apart, shared_gate];
        let floats = floats.iter().map(|f| f.bytes() as u64).sum::<u64>();
        self.input.bytes() + self.sorted.bytes() + self.routes.bytes() + floats
    }

    /// Fills every buffer with NaN: what is read without having been written shows.
    pub fn poison(&mut self) {
        self.input.poison();
        self.sorted.poison();
        let Self { q, k, v, gate, up, attended, scores, apart, shared_gate, .. } = self;
        for buffer in [q, k, v, gate, up, attended, scores, apart, shared_gate] {
            buffer.fill(f32::NAN);
        }
    }

    /// Plants the bug of the activations (tests only).
    #[cfg(test)]
    pub fn plant_bug(&mut self) {
        self.input.planted_bug = true;
        self.sorted.planted_bug = true;
    }
}
