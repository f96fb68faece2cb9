//! The first half of a layer: what its rows take from the positions before them.
//!
//! ```text
//! x ─► norm ─► q, k, v (+ bias) ─► norm? ─► rotate ─► norm? ─► cache ─► attention ─► output ─► norm? ─► x
//! ```

use super::error::LoadError;
use super::projection::Projection;
use super::run::{Run, Scratch};
use super::tensor::Finder;
use crate::arch::families::QkNorm;
use crate::arch::layer::{AttentionKind, LayerShape};
use crate::kernels::activations::Forms;
use crate::kernels::attention::attend;
use crate::kernels::attention::cache::{Rotation, store};
use crate::kernels::matmul::matmul;
use crate::kernels::rows;
use crate::kv::Cache;
use std::ops::Range;

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
    norm_after: Option<Vec<f32>>,
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
        let vector = |is_there: bool, part: &str, len: usize| {
            is_there.then(|| find.vector(&name(part), len)).transpose()
        };
        let norm = |part: &str, row: usize| match shape.qk_norm {
            QkNorm::None => Ok(None),
            QkNorm::Head { is_optional: true } => find.optional_vector(&name(part), shape.key_dim),
            QkNorm::Head { .. } | QkNorm::RotatedHead => vector(true, part, shape.key_dim),
            QkNorm::Row => vector(true, part, row),
        };
        let [q, k, v] = query_key_value(find, shape, index)?;
        Ok(Self {
            norm: find.vector(&name("attn_norm.weight"), hidden)?,
            q,
            k,
            v,
            q_norm: norm("attn_q_norm.weight", q_width)?,
            k_norm: norm("attn_k_norm.weight", kv_width)?,
            sinks: vector(shape.has_sinks, "attn_sinks.weight", shape.heads)?,
            output: Projection::load(find, &name("attn_output"), hidden, q_width)?,
            norm_after: vector(shape.norms.after, "post_attention_norm.weight", hidden)?,
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
        let (mut q_norm, mut k_norm) = (self.q_norm.as_deref(), self.k_norm.as_deref());
        if shape.qk_norm == QkNorm::Row {
            for (norm, x) in [(q_norm.take(), &mut *q), (k_norm.take(), &mut *k)] {
                rows::norm(pool, x, norm.expect("it was loaded"), shape.eps);
            }
        }
        let heads = shape.attention_shape();
        let rotation = Rotation {
            attention: &heads,
            pairing: shape.pairing,
            eps: shape.eps,
            q_norm,
            k_norm,
            is_normed_after: shape.qk_norm == QkNorm::RotatedHead,
            angles: run.angles(shape.rope),
            pairs: run.ropes.pairs(),
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
        let Some(norm) = &self.norm_after else {
            matmul(pool, &s.input, [self.output.added(run, shape.residual_scale, x)]);
            return;
        };
        let apart = &mut s.apart[..x.len()];
        matmul(pool, &s.input, [self.output.product(run, apart)]);
        rows::add_normed(pool, x, (apart, norm), (shape.eps, shape.residual_scale));
    }
}

/// The matrices of queries, keys and values: three, or parts of one.
fn query_key_value(
    find: &Finder<'_>,
    shape: &LayerShape,
    index: u32,
) -> Result<[Projection; 3], LoadError> {
    let name = |part: &str| format!("blk.{index}.{part}");
    let (hidden, q, kv) = (shape.hidden, shape.q_width(), shape.kv_width());
    if shape.is_qkv_fused {
        let part = |rows: Range<usize>| {
            Projection::load_part(find, &name("attn_qkv"), (rows, q + 2 * kv), hidden)
        };
        return Ok([part(0..q)?, part(q..q + kv)?, part(q + kv..q + 2 * kv)?]);
    }
    let whole = |part: &str, rows: usize| Projection::load(find, &name(part), rows, hidden);
    Ok([whole("attn_q", q)?, whole("attn_k", kv)?, whole("attn_v", kv)?])
}
