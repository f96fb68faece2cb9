//! The second half of a layer: what each row makes of itself.
//!
//! ```text
//! x ─► norm ─► gate, up ─► silu(gate) · up ─► down ─► x
//! ```

use super::error::LoadError;
use super::projection::Projection;
use super::run::{Run, Scratch};
use super::tensor::Finder;
use crate::arch::layer::{FeedForwardKind, LayerShape};
use crate::kernels::activations::Forms;
use crate::kernels::elementwise;
use crate::kernels::matmul::matmul;

/// The feed-forward network of one layer, by kind.
#[derive(Debug)]
pub enum FeedForward {
    /// One for all rows.
    Dense(Dense),
}

/// The tensors of one gated network.
#[derive(Debug)]
pub struct Dense {
    norm: Vec<f32>,
    gate: Projection,
    up: Projection,
    down: Projection,
    /// Values between its matrices.
    width: usize,
}

impl FeedForward {
    /// Finds the tensors of layer `index` and checks their shapes.
    ///
    /// # Errors
    ///
    /// A tensor is missing or has another shape than the hyper-parameters say; a kind that is not
    /// computed.
    pub fn load(find: &Finder<'_>, shape: &LayerShape, index: u32) -> Result<Self, LoadError> {
        match shape.feed_forward {
            FeedForwardKind::Dense { width } => {
                Dense::load(find, shape.hidden, width, index).map(Self::Dense)
            }
            FeedForwardKind::Experts { .. } => Err(LoadError::not_computed(index, shape)),
        }
    }

    /// The forms of their inputs that all its matrices need together.
    pub fn forms(&self) -> Forms {
        let Self::Dense(dense) = self;
        dense.gate.forms().or(dense.up.forms()).or(dense.down.forms())
    }

    /// Adds what the network gives to `x`, `[rows, hidden]`.
    pub fn forward(&self, run: &Run<'_>, shape: &LayerShape, x: &mut [f32], scratch: &mut Scratch) {
        match self {
            Self::Dense(dense) => dense.forward(run, shape, x, scratch),
        }
    }
}

impl Dense {
    fn load(find: &Finder<'_>, hidden: usize, width: usize, index: u32) -> Result<Self, LoadError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        Ok(Self {
            norm: find.vector(&name("ffn_norm.weight"), hidden)?,
            gate: Projection::load(find, &name("ffn_gate"), width, hidden)?,
            up: Projection::load(find, &name("ffn_up"), width, hidden)?,
            down: Projection::load(find, &name("ffn_down"), hidden, width)?,
            width,
        })
    }

    fn forward(&self, run: &Run<'_>, shape: &LayerShape, x: &mut [f32], s: &mut Scratch) {
        let (pool, count) = (run.pool, run.batch.rows());
        let forms = self.gate.forms().or(self.up.forms());
        run.norm(shape, x, &self.norm, forms, &mut s.input);
        let width = self.width;
        let (gate, up) = (&mut s.gate[..count * width], &mut s.up[..count * width]);
        matmul(pool, &s.input, [self.gate.product(run, gate), self.up.product(run, up)]);
        let (gate, up) = (&*gate, &*up);
        s.input.fill(pool, (count, width), self.down.forms(), &|row, columns, out| {
            let (gate, up) = (&gate[row * width..][columns.clone()], &up[row * width..][columns]);
            elementwise::swiglu(pool.level(), gate, up, out);
        });
        matmul(pool, &s.input, [self.down.added(run, shape.residual_scale, x)]);
    }
}
