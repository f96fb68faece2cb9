//! The beginning of a model: token ids to hidden states.

use super::error::{ForwardError, LoadError};
use super::tensor::{Finder, MatrixRef};
use crate::arch::hyper::HyperParameters;
use crate::quant::dequantize_row;
use crate::weights::Weights;

/// What the first stage begins with.
#[derive(Debug)]
pub(crate) struct Embedding {
    matrix: MatrixRef,
    /// Factor of what is looked up.
    pub(crate) scale: f32,
}

impl Embedding {
    /// Finds the embedding.
    ///
    /// # Errors
    ///
    /// It is missing or has another shape than the hyper-parameters say.
    pub(crate) fn load(find: &Finder<'_>, hyper: &HyperParameters) -> Result<Self, LoadError> {
        let (vocab, hidden) = (hyper.vocab as usize, hyper.hidden as usize);
        let matrix = find.matrix("token_embd.weight", vocab, hidden)?;
        Ok(Self { matrix, scale: hyper.embedding_scale.unwrap_or(1.0) })
    }

    /// Writes the embedding of each token to a row of `x`.
    pub(crate) fn rows(
        &self,
        weights: &Weights,
        tokens: &[u32],
        x: &mut [f32],
    ) -> Result<(), ForwardError> {
        let matrix = self.matrix.matrix(weights);
        if let Some(token) = tokens.iter().find(|t| **t as usize >= matrix.rows) {
            return Err(ForwardError::Token { token: *token, vocab: matrix.rows });
        }
        let bytes = matrix.ty.row_bytes(matrix.cols);
        for (token, x) in tokens.iter().zip(x.chunks_exact_mut(matrix.cols)) {
            let row = *token as usize * bytes;
            dequantize_row(matrix.ty, &matrix.bytes[row..row + bytes], x);
        }
        Ok(())
    }
}
