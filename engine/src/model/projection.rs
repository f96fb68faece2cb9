//! A matrix of a layer with the bias that some families have.

use super::error::LoadError;
use super::run::Run;
use super::tensor::{Finder, MatrixRef};
use crate::kernels::activations::Forms;
use crate::kernels::matmul::Product;
use std::ops::Range;

/// A matrix with the bias that some families have.
#[derive(Debug)]
pub(super) struct Projection {
    matrix: MatrixRef,
    bias: Option<Vec<f32>>,
}

impl Projection {
    /// Finds `name.weight`, and `name.bias` if there is one.
    ///
    /// # Errors
    ///
    /// It is missing or has another shape.
    pub(super) fn load(
        find: &Finder<'_>,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            matrix: find.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: find.optional_vector(&format!("{name}.bias"), rows)?,
        })
    }

    /// Finds the `rows` among the `all` rows of `name.weight`, with the same part of `name.bias` if there
    /// is one.
    ///
    /// # Errors
    ///
    /// It is missing or has another shape.
    pub(super) fn load_part(
        find: &Finder<'_>,
        name: &str,
        (rows, all): (Range<usize>, usize),
        cols: usize,
    ) -> Result<Self, LoadError> {
        let Self { matrix, bias } = Self::load(find, name, all, cols)?;
        let bias = bias.map(|bias| bias[rows.clone()].to_vec());
        Ok(Self { matrix: matrix.part(rows), bias })
    }

    /// The products with every row of the input, written to `out`.
    pub(super) fn product<'a>(&'a self, run: &Run<'a>, out: &'a mut [f32]) -> Product<'a> {
        let bias = self.bias.as_deref();
        Product { bias, ..Product::new(self.matrix.matrix(run.weights), out) }
    }

    /// The products times `scale`, added to `out`.
    pub(super) fn added<'a>(
        &'a self,
        run: &Run<'a>,
        scale: f32,
        out: &'a mut [f32],
    ) -> Product<'a> {
        Product { add_scaled: Some(scale), ..self.product(run, out) }
    }

    /// The forms of its input that it needs.
    pub(super) fn forms(&self) -> Forms {
        self.matrix.forms()
    }
}
