//! Weights times activations: `out[t, r] = Σ W[r, k] · x[t, k]`.
//!
//! Threads share out rows of weights; what one does with its rows is in `job`.

use super::activations::Activations;
use super::job::{Job, Output, check};
use super::matrix::Matrix;
use super::partition;
use crate::pool::{Pool, Shared};

/// One matrix to multiply with, and what becomes of the products.
pub struct Product<'a> {
    /// The weights.
    pub matrix: Matrix<'a>,
    /// Added to each token's products: one value per row.
    pub bias: Option<&'a [f32]>,
    /// Outputs are added to what `out` has, times this, fused; otherwise they replace it.
    pub add_scaled: Option<f32>,
    /// `[tokens, matrix.rows]`.
    pub out: &'a mut [f32],
}

impl<'a> Product<'a> {
    /// Plain products.
    pub fn new(matrix: Matrix<'a>, out: &'a mut [f32]) -> Self {
        Self { matrix, bias: None, add_scaled: None, out }
    }
}

/// Computes `products` of the same activations, all of them in one region of the pool.
///
/// # Panics
///
/// If the shapes do not agree, or the activations lack the form that the weights need.
pub fn matmul<const N: usize>(pool: &Pool, activations: &Activations, products: [Product<'_>; N]) {
    let tokens = activations.rows();
    let jobs = products.map(|product| {
        let Product { matrix, bias, add_scaled, out } = product;
        check(&matrix, activations);
        assert_eq!(out.len(), tokens * matrix.rows, "outputs of the matrix");
        assert!(bias.is_none_or(|bias| bias.len() == matrix.rows), "one bias per output");
        let out = Output { values: Shared::new(out), first: 0, stride: matrix.rows, origin: 0 };
        Job { bias, add_scaled, ..Job::new(pool.level(), matrix, activations.all(), out) }
    });
    let threads = pool.threads();
    let lens = std::array::from_fn::<_, N, _>(|i| {
        let matrix = &jobs[i].matrix;
        partition::unit_rows(threads, matrix, tokens, matrix.rows)
    });
    let units = std::array::from_fn::<_, N, _>(|i| jobs[i].matrix.rows.div_ceil(lens[i]));
    pool.each(units.iter().sum(), &|scratch, index| {
        let (i, unit) = partition::unit_at(&units, threads, index);
        let (job, start) = (&jobs[i], unit * lens[i]);
        job.rows(pool, scratch, start..job.matrix.rows.min(start + lens[i]));
    });
}
