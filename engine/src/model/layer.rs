//! One decoder layer, for every family.
//!
//! ```text
//! x ─► norm ─► q, k, v (+ bias) ─► norm per head? ─► rotate ─► cache ─► attention ─► output ─► x
//! x ─► norm ─► gate, up ─► silu(gate) · up ─► down ─► x
//! ```

use super::error::LoadError;
use super::tensor::{Finder, MatrixRef};
use crate::arch::families::LayerShape;
use crate::batch::Batch;
use crate::huge::Buffer;
use crate::kernels::activations::{Activations, Forms};
use crate::kernels::attention::attend;
use crate::kernels::cache::{Rotation, store};
use crate::kernels::heads::QueryChunk;
use crate::kernels::matmul::{Product, matmul};
use crate::kernels::rows;
use crate::kv::Cache;
use crate::pool::Pool;
use crate::weights::Weights;

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

    fn product<'a>(&'a self, run: &Run<'a>, out: &'a mut [f32]) -> Product<'a> {
        let bias = self.bias.as_deref();
        Product { bias, ..Product::new(self.matrix.matrix(run.weights), out) }
    }

    /// The products times `scale`, added to `out`.
    fn added<'a>(&'a self, run: &Run<'a>, scale: f32, out: &'a mut [f32]) -> Product<'a> {
        Product { add_scaled: Some(scale), ..self.product(run, out) }
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

impl<'a> Run<'a> {
    /// The batch's chunks with their rows.
    fn chunks(&self) -> impl Iterator<Item = QueryChunk<'a>> + Clone + use<'a> {
        let mut end = 0;
        self.batch.chunks().iter().map(move |chunk| {
            let first_row = end;
            end += chunk.token_count as usize;
            QueryChunk {
                first_row,
                rows: chunk.token_count as usize,
                position: chunk.position as usize,
                block_table: chunk.block_table,
            }
        })
    }
}

/// Buffers of a forward, allocated when the stage is loaded; sizes are for the largest batch.
#[derive(Debug)]
pub struct Scratch {
    input: Activations,
    q: Buffer<f32>,
    k: Buffer<f32>,
    v: Buffer<f32>,
    gate: Buffer<f32>,
    up: Buffer<f32>,
    attended: Buffer<f32>,
}

impl Scratch {
    /// Buffers for batches of at most `rows` rows.
    pub fn new(shape: &LayerShape, rows: usize, forms: Forms) -> Self {
        let widest = shape.hidden.max(shape.q_width()).max(shape.ffn);
        Self {
            input: Activations::new(rows, widest, forms),
            q: Buffer::new(rows * shape.q_width()),
            k: Buffer::new(rows * shape.kv_width()),
            v: Buffer::new(rows * shape.kv_width()),
            gate: Buffer::new(rows * shape.ffn),
            up: Buffer::new(rows * shape.ffn),
            attended: Buffer::new(rows * shape.q_width()),
        }
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        let floats = [&self.q, &self.k, &self.v, &self.gate, &self.up, &self.attended];
        self.input.bytes() + floats.iter().map(|f| f.bytes() as u64).sum::<u64>()
    }

    /// Fills every buffer with NaN: what is read without having been written shows.
    pub fn poison(&mut self) {
        self.input.poison();
        let Self { q, k, v, gate, up, attended, .. } = self;
        for buffer in [q, k, v, gate, up, attended] {
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
        let head_norm = |part: &str| {
            if shape.family.head_norm {
                find.vector(&name(part), shape.attention.head_dim).map(Some)
            } else {
                Ok(None)
            }
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
        let (pool, shape, count) = (run.pool, run.shape, run.batch.rows());
        let forms = self.q.matrix.forms().or(self.k.matrix.forms()).or(self.v.matrix.forms());
        norm(run, x, &self.attention_norm, forms, &mut s.input);
        let (q, k) = (&mut s.q[..count * shape.q_width()], &mut s.k[..count * shape.kv_width()]);
        let v = &mut s.v[..count * shape.kv_width()];
        let products = [self.q.product(run, q), self.k.product(run, k), self.v.product(run, v)];
        matmul(pool, &s.input, products);
        let rotation = Rotation {
            attention: &shape.attention,
            pairing: shape.family.pairing,
            eps: shape.eps,
            q_norm: self.q_norm.as_deref(),
            k_norm: self.k_norm.as_deref(),
            angles: run.angles,
            pairs: run.angles.len() / count,
        };
        store(pool, &rotation, run.chunks(), cache.layer_mut(index), (q, k, v));
        let attended = &mut s.attended[..count * shape.q_width()];
        attend(pool, &shape.attention, cache.layer(index), run.chunks(), q, attended);
        let (width, attended) = (shape.q_width(), &*attended);
        s.input.fill(pool, (count, width), self.output.matrix.forms(), &|row, columns, out| {
            out.copy_from_slice(&attended[row * width..][columns]);
        });
        matmul(pool, &s.input, [self.output.added(run, shape.residual_scale, x)]);
    }

    fn feed_forward(&self, run: &Run<'_>, x: &mut [f32], s: &mut Scratch) {
        let (pool, shape, count) = (run.pool, run.shape, run.batch.rows());
        let forms = self.gate.matrix.forms().or(self.up.matrix.forms());
        norm(run, x, &self.ffn_norm, forms, &mut s.input);
        let (gate, up) = (&mut s.gate[..count * shape.ffn], &mut s.up[..count * shape.ffn]);
        matmul(pool, &s.input, [self.gate.product(run, gate), self.up.product(run, up)]);
        let (gate, up, width) = (&*gate, &*up, shape.ffn);
        s.input.fill(pool, (count, width), self.down.matrix.forms(), &|row, columns, out| {
            let (gate, up) = (&gate[row * width..][columns.clone()], &up[row * width..][columns]);
            rows::swiglu(pool.level(), gate, up, out);
        });
        matmul(pool, &s.input, [self.down.added(run, shape.residual_scale, x)]);
    }
}

/// The normed rows of `x` in the `forms` that the next products need.
fn norm(run: &Run<'_>, x: &[f32], weight: &[f32], forms: Forms, input: &mut Activations) {
    let (shape, level) = (run.shape, run.pool.level());
    let width = shape.hidden;
    input.fill(run.pool, (run.batch.rows(), width), forms, &|row, columns, out| {
        let x = &x[row * width..(row + 1) * width];
        rows::rms_norm_columns(level, x, weight, shape.eps, columns, out);
    });
}
