//! The second half of a layer: what each row makes of itself.
//!
//! ```text
//! x ─► norm ─► gate, up ─► silu(gate) · up ─► down ─► norm? ─► x      one network, or one for each expert
//! ```

use super::error::LoadError;
use super::experts::Experts;
use super::gated::Gated;
use super::run::{Run, Scratch};
use super::tensor::Finder;
use crate::arch::layer::{FeedForwardKind, LayerShape};
use crate::kernels::activations::Forms;
use crate::kernels::matmul::matmul;
use crate::kernels::rows;

/// The feed-forward network of one layer, by kind.
#[derive(Debug)]
pub enum FeedForward {
    /// One for all rows.
    Dense(Box<Dense>),
    /// Several, of which each row goes to some.
    Experts(Box<Experts>),
}

/// The tensors of one network and its norm.
#[derive(Debug)]
pub struct Dense {
    norm: Vec<f32>,
    network: Gated,
    norm_after: Option<Vec<f32>>,
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
                Dense::load(find, shape, width, index).map(|dense| Self::Dense(Box::new(dense)))
            }
            FeedForwardKind::Experts { .. } => {
                Experts::load(find, shape, index).map(|experts| Self::Experts(Box::new(experts)))
            }
        }
    }

    /// The forms of their inputs that all its matrices need together.
    pub fn forms(&self) -> Forms {
        match self {
            Self::Dense(dense) => dense.network.forms(),
            Self::Experts(experts) => experts.forms(),
        }
    }

    /// Adds what the network gives to `x`, `[rows, hidden]`.
    pub fn forward(&self, run: &Run<'_>, shape: &LayerShape, x: &mut [f32], scratch: &mut Scratch) {
        match self {
            Self::Dense(dense) => dense.forward(run, shape, x, scratch),
            Self::Experts(experts) => experts.forward(run, shape, x, scratch),
        }
    }
}

impl Dense {
    fn load(
        find: &Finder<'_>,
        shape: &LayerShape,
        width: usize,
        index: u32,
    ) -> Result<Self, LoadError> {
        let after = format!("blk.{index}.post_ffw_norm.weight");
        Ok(Self {
            norm: find.vector(&shape.ffn_norm(index), shape.hidden)?,
            network: Gated::load(find, index, "", (shape, width))?,
            norm_after: shape.norms.after.then(|| find.vector(&after, shape.hidden)).transpose()?,
        })
    }

    fn forward(&self, run: &Run<'_>, shape: &LayerShape, x: &mut [f32], s: &mut Scratch) {
        run.norm(shape, x, &self.norm, self.network.input_forms(), &mut s.input);
        if let Some(norm) = &self.norm_after {
            self.network.forward(run, shape.hidden, s);
            let apart = &s.apart[..x.len()];
            rows::add_normed(run.pool, x, (apart, norm), (shape.eps, shape.residual_scale));
            return;
        }
        self.network.inner(run, s);
        let down = self.network.down().added(run, shape.residual_scale, x);
        matmul(run.pool, &s.input, [down]);
    }
}
