//! One decoder layer, for every family: attention, then a feed-forward network.

use super::attention::Attention;
use super::error::LoadError;
use super::ffn::FeedForward;
use super::run::{Run, Scratch};
use super::tensor::Finder;
use crate::arch::layer::LayerShape;
use crate::kernels::activations::Forms;
use crate::kv::Cache;

/// One layer's shape and tensors.
#[derive(Debug)]
pub struct Layer {
    shape: LayerShape,
    attention: Attention,
    feed_forward: FeedForward,
}

impl Layer {
    /// Finds the tensors of layer `index` and checks their shapes.
    ///
    /// # Errors
    ///
    /// A tensor is missing or has another shape than the hyper-parameters say; a layer that is not
    /// computed.
    pub fn load(find: &Finder<'_>, shape: &LayerShape, index: u32) -> Result<Self, LoadError> {
        if let Some(refusal) = shape.attention_shape().refusal() {
            return Err(LoadError::Attention(refusal));
        }
        Ok(Self {
            attention: Attention::load(find, shape, index)?,
            feed_forward: FeedForward::load(find, shape, index)?,
            shape: shape.clone(),
        })
    }

    /// Its shape.
    pub fn shape(&self) -> &LayerShape {
        &self.shape
    }

    /// The forms of their inputs that all its matrices need together.
    pub fn forms(&self) -> Forms {
        self.attention.forms().or(self.feed_forward.forms())
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
        self.attention.forward(run, &self.shape, (cache, index), x, scratch);
        self.feed_forward.forward(run, &self.shape, x, scratch);
    }
}
