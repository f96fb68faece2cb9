//! Tensors of a stage by role, with their shapes checked against the hyper-parameters.

use super::error::LoadError;
use crate::gguf::{Gguf, WrongScale, wrong_block};
use crate::kernels::activations::Forms;
use crate::kernels::experts::Stack;
use crate::kernels::matrix::Matrix;
use crate::quant::TensorType;
use crate::weights::{Place, Weights};
use std::ops::Range;

/// Finds tensors and checks their shapes while a stage is loaded.
#[derive(Clone, Copy)]
pub struct Finder<'a> {
    /// The tensor table.
    pub gguf: &'a Gguf,
    /// The mapped bytes.
    pub weights: &'a Weights,
}

/// A weight matrix of the stage: where it lies in the weights that it was found in.
#[derive(Clone, Copy, Debug)]
pub struct MatrixRef {
    place: Place,
    ty: TensorType,
    rows: usize,
    cols: usize,
}

impl MatrixRef {
    /// Its rows as they lie in the file.
    pub fn matrix<'a>(&self, weights: &'a Weights) -> Matrix<'a> {
        Matrix { ty: self.ty, rows: self.rows, cols: self.cols, bytes: weights.at(self.place) }
    }

    /// Some of its rows.
    pub fn part(&self, rows: Range<usize>) -> Self {
        let bytes = self.ty.row_bytes(self.cols);
        let place = self.place.part(rows.start * bytes..rows.end * bytes);
        Self { place, rows: rows.len(), ..*self }
    }

    /// The forms of its input that it needs.
    pub fn forms(&self) -> Forms {
        Forms::of(self.ty)
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// A matrix for each expert.
#[derive(Clone, Copy, Debug)]
pub struct StackRef {
    experts: usize,
    /// All of them below each other.
    all: MatrixRef,
}

impl StackRef {
    /// The matrices as they lie in the file.
    pub fn stack<'a>(&self, weights: &'a Weights) -> Stack<'a> {
        let Matrix { ty, rows, cols, bytes } = self.all.matrix(weights);
        Stack { ty, rows: rows / self.experts, cols, bytes }
    }

    /// The forms of their inputs that they need.
    pub fn forms(&self) -> Forms {
        self.all.forms()
    }

    /// Asks the system for one expert's matrix, if it may be on the disk.
    pub fn will_need(&self, weights: &Weights, expert: usize) {
        let len = weights.at(self.all.place).len() / self.experts;
        weights.will_need(self.all.place, expert * len..(expert + 1) * len);
    }
}

impl Finder<'_> {
    /// The matrix `name` with `rows` outputs of `cols` inputs.
    ///
    /// # Errors
    ///
    /// It is missing, or its shape is another one.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<MatrixRef, LoadError> {
        self.shaped(name, &[cols as u64, rows as u64], (rows, cols))
    }

    /// The matrices `name` of `experts` experts, each with `rows` outputs of `cols` inputs.
    ///
    /// # Errors
    ///
    /// They are missing, or their shape is another one.
    pub fn stack(
        &self,
        name: &str,
        experts: usize,
        rows: usize,
        cols: usize,
    ) -> Result<StackRef, LoadError> {
        let shape = [cols, rows, experts].map(|len| len as u64);
        let all = self.shaped(name, &shape, (rows * experts, cols))?;
        Ok(StackRef { experts, all })
    }

    fn shaped(
        &self,
        name: &str,
        shape: &[u64],
        (rows, cols): (usize, usize),
    ) -> Result<MatrixRef, LoadError> {
        let tensor = self.gguf.tensor(name).ok_or_else(|| missing(name))?;
        check_shape(name, shape, &tensor.shape)?;
        let place = self.weights.place(name).ok_or_else(|| missing(name))?;
        let len = self.weights.at(place).len() as u64;
        assert_eq!(len, tensor.len, "the mapping has the tensor's own length");
        if !self.weights.is_on_disk() {
            // Else all would be read for it.
            check_scales(name, tensor.ty, self.weights.at(place))?;
        }
        Ok(MatrixRef { place, ty: tensor.ty, rows, cols })
    }

    /// The `len` values of an F32 vector, copied: vectors are small and read at every step.
    ///
    /// # Errors
    ///
    /// It is missing, of another type or length.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        self.optional_vector(name, len)?.ok_or_else(|| missing(name))
    }

    /// As [`vector`](Self::vector), `None` if the file has no such tensor.
    ///
    /// # Errors
    ///
    /// It is of another type or length.
    pub fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, LoadError> {
        self.optional_values(name, &[len as u64])
    }

    /// The F32 values `[rows, len]`, `None` if the file has no such tensor.
    ///
    /// # Errors
    ///
    /// They are of another type or shape.
    pub fn optional_table(
        &self,
        name: &str,
        rows: usize,
        len: usize,
    ) -> Result<Option<Vec<f32>>, LoadError> {
        self.optional_values(name, &[len as u64, rows as u64])
    }

    fn optional_values(&self, name: &str, shape: &[u64]) -> Result<Option<Vec<f32>>, LoadError> {
        let Some(tensor) = self.gguf.tensor(name) else { return Ok(None) };
        check_shape(name, shape, &tensor.shape)?;
        if tensor.ty != TensorType::F32 {
            return Err(LoadError::VectorType { name: name.to_owned(), found: tensor.ty });
        }
        let bytes = self.weights.bytes(name).ok_or_else(|| missing(name))?;
        Ok(Some(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
    }
}

/// Refuses scales that stand for no number.
fn check_scales(name: &str, ty: TensorType, bytes: &[u8]) -> Result<(), LoadError> {
    match wrong_block(ty, bytes) {
        Some(block) => Err(WrongScale { tensor: name.to_owned(), block: block as u64 }.into()),
        None => Ok(()),
    }
}

fn missing(name: &str) -> LoadError {
    LoadError::Missing { name: name.to_owned() }
}

fn check_shape(name: &str, expected: &[u64], found: &[u64]) -> Result<(), LoadError> {
    // Trailing ones mean nothing.
    let significant = found.iter().rposition(|d| *d != 1).map_or(1, |last| last + 1);
    let found = &found[..significant.max(expected.len()).min(found.len())];
    if found == expected {
        return Ok(());
    }
    let (name, expected, found) = (name.to_owned(), expected.to_vec(), found.to_vec());
    Err(LoadError::Shape { name, expected, found })
}
