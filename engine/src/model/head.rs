//! The end of a model: hidden states to logits.

use super::error::{ForwardError, LoadError};
use crate::arch::hyper::HyperParameters;
use crate::kernels::activations::Activations;
use crate::kernels::elementwise;
use crate::kernels::matmul::{Product, matmul};
use crate::kernels::rows;
use crate::limits::LOGIT_ROWS;
use crate::memory::Buffer;
use crate::model::tensor::{Finder, MatrixRef};
use crate::pool::Pool;
use crate::sampler::{RowRequest, Sampler};
use crate::weights::Weights;

/// What the last stage ends with.
#[derive(Debug)]
pub(crate) struct Head {
    norm: Vec<f32>,
    matrix: MatrixRef,
    logit_factor: f32,
    logit_cap: Option<f32>,
    input: Activations,
    /// `[LOGIT_ROWS, vocab]`.
    logits: Buffer<f32>,
    sampler: Sampler,
}

/// What the head needs of the stage.
pub(crate) struct HeadRun<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) weights: &'a Weights,
    pub(crate) eps: f32,
}

impl Head {
    /// Finds the head's tensors and allocates what it needs.
    ///
    /// # Errors
    ///
    /// A tensor is missing or has another shape than the hyper-parameters say.
    pub(crate) fn load(
        find: &Finder<'_>,
        hyper: &HyperParameters,
        pool: &Pool,
    ) -> Result<Self, LoadError> {
        let (hidden, vocab) = (hyper.hidden as usize, hyper.vocab as usize);
        // Without a matrix of its own the output is the embedding's.
        let name = match find.gguf.tensor("output.weight") {
            Some(_) => "output.weight",
            None => "token_embd.weight",
        };
        let matrix = find.matrix(name, vocab, hidden)?;
        Ok(Self {
            norm: find.vector("output_norm.weight", hidden)?,
            logit_factor: 1.0 / hyper.logit_scale.unwrap_or(1.0),
            logit_cap: hyper.logit_cap,
            input: Activations::new(LOGIT_ROWS, hidden, matrix.forms()),
            logits: Buffer::new(LOGIT_ROWS * vocab),
            sampler: Sampler::new(pool.level(), vocab),
            matrix,
        })
    }

    /// Refuses a token that is not in the vocabulary.
    pub(crate) fn check(&self, request: &RowRequest<'_>) -> Result<(), ForwardError> {
        let vocab = self.matrix.rows();
        let check = |token: u32| {
            if (token as usize) < vocab {
                Ok(())
            } else {
                Err(ForwardError::Token { token, vocab })
            }
        };
        match request {
            RowRequest::Score { target, .. } => check(*target),
            RowRequest::Sample { params: p, .. } => {
                p.logit_bias.iter().try_for_each(|e| check(e.0))?;
                p.prompt_counts.iter().chain(p.output_counts).try_for_each(|e| check(e.0))
            }
        }
    }

    /// The logits of `count` rows `x`, with the vocabulary's size and the sampler.
    pub(crate) fn logits<'a>(
        &mut self,
        run: &HeadRun<'_>,
        count: usize,
        x: &(impl Fn(usize) -> &'a [f32] + Sync),
    ) -> (&mut [f32], usize, &mut Sampler) {
        let (vocab, level) = (self.matrix.rows(), run.pool.level());
        let logits = &mut self.logits[..count * vocab];
        let (norm, eps) = (&self.norm, run.eps);
        run.pool.enter(|| {
            let shape = (count, norm.len());
            self.input.fill(run.pool, shape, self.matrix.forms(), &|row, columns, out| {
                elementwise::rms_norm_columns(level, x(row), norm, eps, columns, out);
            });
            let product = Product::new(self.matrix.matrix(run.weights), logits);
            matmul(run.pool, &self.input, [product]);
        });
        if self.logit_factor != 1.0 {
            elementwise::scale(level, logits, self.logit_factor);
        }
        if let Some(cap) = self.logit_cap {
            run.pool.enter(|| rows::cap(run.pool, logits, cap));
        }
        (logits, vocab, &mut self.sampler)
    }

    /// Bytes of its buffers.
    pub(crate) fn bytes(&self) -> u64 {
        self.input.bytes() + self.logits.bytes() as u64 + self.sampler.bytes()
    }

    /// Tokens of the vocabulary.
    pub(crate) fn vocab(&self) -> usize {
        self.matrix.rows()
    }
}
