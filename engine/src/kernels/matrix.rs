//! A weight matrix, as kernels see it.

use crate::quant::TensorType;

/// A weight matrix as it lies in the file: `rows` rows of `cols` weights.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The weights' format.
    pub ty: TensorType,
    /// Outputs.
    pub rows: usize,
    /// Inputs; a multiple of the format's block.
    pub cols: usize,
    /// `rows` rows of `ty.row_bytes(cols)` bytes.
    pub bytes: &'a [u8],
}
