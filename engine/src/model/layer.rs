//! One decoder layer, for every family.
//!
//! ```text
//! x ─► norm ─► q, k, v (+ bias) ─► norm per head? ─► rotate ─► cache ─► attention ─► output ─► x
//! x ─► norm ─► gate, up ─► silu(gate) · up ─► down ─► x
//! ```

use super::family::LayerShape;
use super::tensor::{Finder, MatrixRef};
use crate::batch::Batch;
use crate::gguf::mapped::Weights;
use crate::kernels::activations::{Activations, Forms};
use crate::kernels::attention::{QueryChunk, attend};
use crate::kernels::matmul::matmul;
use crate::kernels::rows;
use crate::kv::{BLOCK_LEN, Cache};
use crate::pool::Pool;
use crate::stage::LoadError;

/// One layer's tensors.
#[derive(Debug)]
pub struct Layer {
    attention_norm: Vec<f32>,
    q: Projection,
    k: Projection,
    v: Projection,
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    output: Projection,
    ffn_norm: Vec<f32>,
    gate: Projection,
    up: Projection,
    down: Projection,
}

/// A matrix with the bias that some families have.
#[derive(Debug)]
struct Projection {
    matrix: MatrixRef,
    bias: Option<Vec<f32>>,
}

impl Projection {
    fn load(find: &Finder<'_>, name: &str, rows: usize, cols: usize) -> Result<Self, LoadError> {
        Ok(Self {
            matrix: find.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: find.optional_vector(&format!("{name}.bias"), rows)?,
        })
    }

    fn apply(&self, run: &Run<'_>, input: &Activations, out: &mut [f32]) {
        matmul(run.pool, self.matrix.matrix(run.weights), input, out);
        if let Some(bias) = &self.bias {
            rows::add_bias(run.pool.level(), out, bias);
        }
    }
}

/// What one forward gives to every layer.
pub struct Run<'a> {
    /// The threads.
    pub pool: &'a Pool,
    /// The stage's weights.
    pub weights: &'a Weights,
    /// What layers share.
    pub shape: &'a LayerShape,
    /// The rows.
    pub batch: &'a Batch<'a>,
    /// `[cos, sin]` per row and pair.
    pub angles: &'a [[f32; 2]],
}

/// Buffers of a forward, allocated when the stage is loaded; sizes are for the largest batch.
#[derive(Debug)]
pub struct Scratch {
    input: Activations,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    added: Vec<f32>,
}

impl Scratch {
    /// Buffers for batches of at most `rows` rows.
    pub fn new(shape: &LayerShape, rows: usize, forms: Forms) -> Self {
        let widest = shape.hidden.max(shape.q_width()).max(shape.ffn);
        Self {
            input: Activations::new(rows, widest, forms),
            q: vec![0.0; rows * shape.q_width()],
            k: vec![0.0; rows * shape.kv_width()],
            v: vec![0.0; rows * shape.kv_width()],
            gate: vec![0.0; rows * shape.ffn],
            up: vec![0.0; rows * shape.ffn],
            added: vec![0.0; rows * shape.hidden],
        }
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        let floats = [&self.q, &self.k, &self.v, &self.gate, &self.up, &self.added];
        self.input.bytes() + floats.iter().map(|f| 4 * f.len() as u64).sum::<u64>()
    }

    /// Fills every buffer with NaN: what is read without having been written shows.
    pub fn poison(&mut self) {
        for buffer in
            [&mut self.q, &mut self.k, &mut self.v, &mut self.gate, &mut self.up, &mut self.added]
        {
            buffer.fill(f32::NAN);
        }
    }

    /// Plants the bug of the activations (tests only).
    #[cfg(test)]
    pub fn plant_bug(&mut self) {
        self.input.planted_bug = true;
    }
}

impl Layer {
    /// Finds the tensors of layer `index` and checks their shapes.
    ///
    /// # Errors
    ///
    /// A tensor is missing or has another shape than the hyper-parameters say.
    pub fn load(find: &Finder<'_>, shape: &LayerShape, index: u32) -> Result<Self, LoadError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (hidden, q_width, kv_width) = (shape.hidden, shape.q_width(), shape.kv_width());
        let head_norm = |part: &str| match shape.family.head_norm {
            true => find.vector(&name(part), shape.attention.head_dim).map(Some),
            false => Ok(None),
        };
        let projection =
            |part: &str, rows: usize, cols: usize| Projection::load(find, &name(part), rows, cols);
        Ok(Self {
            attention_norm: find.vector(&name("attn_norm.weight"), hidden)?,
            q: projection("attn_q", q_width, hidden)?,
            k: projection("attn_k", kv_width, hidden)?,
            v: projection("attn_v", kv_width, hidden)?,
            q_norm: head_norm("attn_q_norm.weight")?,
            k_norm: head_norm("attn_k_norm.weight")?,
            output: projection("attn_output", hidden, q_width)?,
            ffn_norm: find.vector(&name("ffn_norm.weight"), hidden)?,
            gate: projection("ffn_gate", shape.ffn, hidden)?,
            up: projection("ffn_up", shape.ffn, hidden)?,
            down: projection("ffn_down", hidden, shape.ffn)?,
        })
    }

    /// The forms of their inputs that all its matrices need together.
    pub fn forms(&self) -> Forms {
        [&self.q, &self.k, &self.v, &self.output, &self.gate, &self.up, &self.down]
            .iter()
            .fold(Forms::default(), |forms, p| forms.or(p.matrix.forms()))
    }

    /// `x` after the layer, in place; `x` is `[rows, hidden]`, `index` counts layers of the cache.
    pub fn forward(
        &self,
        run: &Run<'_>,
        index: usize,
        cache: &mut Cache,
        x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        self.attention(run, index, cache, x, scratch);
        self.feed_forward(run, x, scratch);
    }

    fn attention(
        &self,
        run: &Run<'_>,
        index: usize,
        cache: &mut Cache,
        x: &mut [f32],
        s: &mut Scratch,
    ) {
        let (shape, level, count) = (run.shape, run.pool.level(), run.batch.rows());
        let values = s.input.values_mut(count, shape.hidden);
        rows::rms_norm(level, x, &self.attention_norm, shape.eps, values);
        let forms = self.q.matrix.forms().or(self.k.matrix.forms()).or(self.v.matrix.forms());
        s.input.quantise(level, forms);
        let (q, k) = (&mut s.q[..count * shape.q_width()], &mut s.k[..count * shape.kv_width()]);
        let v = &mut s.v[..count * shape.kv_width()];
        self.q.apply(run, &s.input, q);
        self.k.apply(run, &s.input, k);
        self.v.apply(run, &s.input, v);
        // The projections have been read: the input's buffer takes the normed heads.
        for (heads, norm) in [(&mut *q, &self.q_norm), (&mut *k, &self.k_norm)] {
            if let Some(norm) = norm {
                let normed = s.input.values_mut(count, heads.len() / count);
                rows::rms_norm(level, heads, norm, shape.eps, normed);
                heads.copy_from_slice(normed);
            }
        }
        rotate_rows(run, q, shape.q_width());
        rotate_rows(run, k, shape.kv_width());
        write_cache(run, index, cache, k, v);
        let out = s.input.values_mut(count, shape.q_width());
        let mut first_row = 0;
        for chunk in run.batch.chunks() {
            let chunk = QueryChunk {
                first_row,
                rows: chunk.token_count as usize,
                position: chunk.position as usize,
                block_table: chunk.block_table,
            };
            attend(run.pool, &shape.attention, cache.layer(index), &chunk, q, out);
            first_row += chunk.rows;
        }
        s.input.quantise(level, self.output.matrix.forms());
        let added = &mut s.added[..count * shape.hidden];
        self.output.apply(run, &s.input, added);
        rows::add_scaled(level, x, added, shape.residual_scale);
    }

    fn feed_forward(&self, run: &Run<'_>, x: &mut [f32], s: &mut Scratch) {
        let (shape, level, count) = (run.shape, run.pool.level(), run.batch.rows());
        let values = s.input.values_mut(count, shape.hidden);
        rows::rms_norm(level, x, &self.ffn_norm, shape.eps, values);
        s.input.quantise(level, self.gate.matrix.forms().or(self.up.matrix.forms()));
        let (gate, up) = (&mut s.gate[..count * shape.ffn], &mut s.up[..count * shape.ffn]);
        self.gate.apply(run, &s.input, gate);
        self.up.apply(run, &s.input, up);
        rows::swiglu(level, gate, up, s.input.values_mut(count, shape.ffn));
        s.input.quantise(level, self.down.matrix.forms());
        let added = &mut s.added[..count * shape.hidden];
        self.down.apply(run, &s.input, added);
        rows::add_scaled(level, x, added, shape.residual_scale);
    }
}

fn rotate_rows(run: &Run<'_>, heads: &mut [f32], width: usize) {
    let pairs = run.angles.len() / run.batch.rows();
    for (row, angles) in heads.chunks_exact_mut(width).zip(run.angles.chunks_exact(pairs)) {
        rows::rotate(row, run.shape.attention.head_dim, run.shape.family.pairing, angles);
    }
}

fn write_cache(run: &Run<'_>, layer: usize, cache: &mut Cache, k: &[f32], v: &[f32]) {
    let width = run.shape.kv_width();
    let mut rows = k.chunks_exact(width).zip(v.chunks_exact(width));
    for chunk in run.batch.chunks() {
        let first = chunk.position as usize;
        for position in first..first + chunk.token_count as usize {
            let (k, v) = rows.next().expect("one row per token");
            let block = chunk.block_table[position / BLOCK_LEN];
            cache.write(layer, block, position % BLOCK_LEN, k, v);
        }
    }
}
