//! The first half of a layer: what its rows take from the positions before them.
//!
//! ```text
//! x ─► norm ─► q, k, v (+ bias) ─► norm per head? ─► rotate ─► cache ─► attention ─► output ─► x
//! ```

use super::error::LoadError;
use super::projection::Projection;
use super::run::{Run, Scratch};
use super::tensor::Finder;
use crate::arch::layer::{AttentionKind, LayerShape};
use crate::kernels::activations::Forms;
use crate::kernels::attention::attend;
use crate::kernels::attention::cache::{Rotation, store};
use crate::kernels::matmul::matmul;
use crate::kv::Cache;

/// The attention of one layer, by kind.
#[derive(Debug)]
pub enum Attention {
    /// To positions, all of them or those of a window.
    Full(FullAttention),
}

/// The tensors of attention to positions.
#[derive(Debug)]
pub struct FullAttention {
    norm: Vec<f32>,
    q: Projection,
    k: Projection,
    v: Projection,
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    /// A score for each head that takes part in the softmax.
    sinks: Option<Vec<f32>>,
    output: Projection,
}

impl Attention {
    /// Finds the tensors of layer `index` and checks their shapes.
    ///
    /// # Errors
    ///
    /// A tensor is missing or has another shape than the hyper-parameters say; a kind that is not
    /// computed.
    pub fn load(find: &Finder<'_>, shape: &LayerShape, index: u32) -> Result<Self, LoadError> {
        match shape.attention {
            AttentionKind::Full | AttentionKind::Window(_) => {
                FullAttention::load(find, shape, index).map(Self::Full)
            }
        }
    }

    /// The forms of their inputs that all its matrices need together.
    pub fn forms(&self) -> Forms {
        let Self::Full(full) = self;
        [&full.q, &full.k, &full.v, &full.output]
            .iter()
            .fold(Forms::default(), |forms, projection| forms.or(projection.forms()))
    }

    /// Adds what attention gives to `x`, `[rows, hidden]`; `index` counts layers of the cache.
    pub fn forward(
        &self,
        run: &Run<'_>,
        shape: &LayerShape,
        (cache, index): (&mut Cache, usize),
        x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        match self {
            Self::Full(full) => full.forward(run, shape, (cache, index), x, scratch),
        }
    }
}

impl FullAttention {
    fn load(find: &Finder<'_>, shape: &LayerShape, index: u32) -> Result<Self, LoadError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (hidden, q_width, kv_width) = (shape.hidden, shape.q_width(), shape.kv_width());
        let head_norm = |part: &str| {
            if shape.has_head_norm {
                find.vector(&name(part), shape.key_dim).map(Some)
            } else {
                Ok(None)
            }
        };
        let projection =
            |part: &str, rows: usize, cols: usize| Projection::load(find, &name(part), rows, cols);
        Ok(Self {
            norm: find.vector(&name("attn_norm.weight"), hidden)?,
            q: projection("attn_q", q_width, hidden)?,
            k: projection("attn_k", kv_width, hidden)?,
            v: projection("attn_v", kv_width, hidden)?,
            q_norm: head_norm("attn_q_norm.weight")?,
            k_norm: head_norm("attn_k_norm.weight")?,
            sinks: if shape.has_sinks {
                Some(find.vector(&name("attn_sinks.weight"), shape.heads)?)
            } else {
                None
            },
            output: projection("attn_output", hidden, q_width)?,
        })
    }

    fn forward(
        &self,
        run: &Run<'_>,
        shape: &LayerShape,
        (cache, index): (&mut Cache, usize),
        x: &mut [f32],
        s: &mut Scratch,
    ) {
        let (pool, count) = (run.pool, run.batch.rows());
        let forms = self.q.forms().or(self.k.forms()).or(self.v.forms());
        run.norm(shape, x, &self.norm, forms, &mut s.input);
        let (q, k) = (&mut s.q[..count * shape.q_width()], &mut s.k[..count * shape.kv_width()]);
        let v = &mut s.v[..count * shape.kv_width()];
        let products = [self.q.product(run, q), self.k.product(run, k), self.v.product(run, v)];
        matmul(pool, &s.input, products);
        let heads = shape.attention_shape();
        let rotation = Rotation {
            attention: &heads,
            pairing: shape.pairing,
            eps: shape.eps,
            q_norm: self.q_norm.as_deref(),
            k_norm: self.k_norm.as_deref(),
            angles: run.angles,
            pairs: run.angles.len() / count,
        };
        let group = cache.group(index);
        store(pool, &rotation, run.chunks(group), cache.layer_mut(index), (q, k, v));
        let attended = &mut s.attended[..count * shape.q_width()];
        attend(
            pool,
            (&heads, self.sinks.as_deref()),
            cache.layer(index),
            run.chunks(group),
            q,
            attended,
        );
        let (width, attended) = (shape.q_width(), &*attended);
        s.input.fill(pool, (count, width), self.output.forms(), &|row, columns, out| {
            out.copy_from_slice(&attended[row * width..][columns]);
        });
        matmul(pool, &s.input, [self.output.added(run, shape.residual_scale, x)]);
    }
}
