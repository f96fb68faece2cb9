//! Products of mixtures of experts: each expert's matrix with the rows that go to it.
//!
//! ```text
//! rows ─► by expert: gate, up        [`by_expert`]: a unit is some rows of one expert's matrix
//!                 └─► down ─► sum    [`combine`]: a unit is the same rows of every expert's matrix
//! ```
//!
//! The outputs of a row's experts are added up in the order in which they were chosen, so that a row's result
//! does not depend on the rows beside it. That needs all of them: so a unit of [`combine`] has a few outputs of
//! all experts, which stay in the thread's cache until they are added up.

use super::activations::Activations;
use super::activations::part::Part;
use super::job::{Job, Output, check};
use super::matrix::Matrix;
use super::partition;
use super::per_level;
use super::routing::Routes;
use super::scratch::PASS_ROWS;
use crate::pool::{Pool, Shared};
use crate::quant::TensorType;
use std::ops::Range;

/// Values that are added up side by side.
const SIDE: usize = 16;

/// One matrix for each expert, one after the other as a file has them.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    /// Type of the weights.
    pub ty: TensorType,
    /// Outputs of each.
    pub rows: usize,
    /// Inputs of each.
    pub cols: usize,
    /// All of them.
    pub bytes: &'a [u8],
}

impl<'a> Stack<'a> {
    /// The matrix of one expert.
    fn matrix(&self, expert: usize) -> Matrix<'a> {
        let Self { ty, rows, cols, .. } = *self;
        let len = rows * ty.row_bytes(cols);
        Matrix { ty, rows, cols, bytes: &self.bytes[expert * len..(expert + 1) * len] }
    }
}

/// A stack to multiply with.
pub struct ExpertProduct<'a> {
    /// The weights.
    pub stack: Stack<'a>,
    /// `[experts, rows]`, added to the products.
    pub bias: Option<&'a [f32]>,
    /// `[places, rows]`.
    pub out: &'a mut [f32],
}

/// What each row gets of its experts.
pub struct Combined<'a> {
    /// The weights of the last products.
    pub stack: Stack<'a>,
    /// `[experts, rows]`, added to the products before they are weighted.
    pub bias: Option<&'a [f32]>,
    /// What comes on top of the experts' sum: `[rows of the input, rows]`, and a factor for each row if
    /// it has any.
    pub beside: Option<(&'a [f32], Option<&'a [f32]>)>,
    /// Factor of the sum.
    pub scale: f32,
    /// `[rows of the input, rows]`: what it is added to.
    pub out: &'a mut [f32],
}

/// The rows that the expert at `index` of those that have any is given: its group of the input, or the only
/// row there is.
fn part<'a>(inputs: &'a Activations, routes: &Routes, index: usize) -> Part<'a> {
    if inputs.rows() == 1 { inputs.all() } else { inputs.part(routes.groups()[index].clone()) }
}

/// Computes `products` of the same inputs, which are sorted by expert, or are the only row.
///
/// # Panics
///
/// If the shapes do not agree.
pub fn by_expert<const N: usize>(
    pool: &Pool,
    inputs: &Activations,
    routes: &Routes,
    products: [ExpertProduct<'_>; N],
) {
    let (rows, places) = (products[0].stack.rows, routes.sources().len());
    let is_sorted = inputs.rows() == places || (inputs.rows() == 1 && routes.rows() == 1);
    assert!(is_sorted, "the inputs are sorted by expert, or the only row");
    let outs = products.map(|product| {
        let ExpertProduct { stack, bias, out } = product;
        assert_eq!(stack.rows, rows, "shape of the experts");
        check(&stack.matrix(0), inputs);
        assert_eq!(out.len(), places * rows, "outputs of the experts");
        (stack, bias, Shared::new(out))
    });
    let active = routes.experts().len();
    let unit = unit_rows(pool, routes, &outs[0].0, active * N * rows);
    let units = rows.div_ceil(unit);
    pool.each(active * N * units, &|scratch, index| {
        let (expert, which, start) = (index / units / N, index / units % N, index % units * unit);
        let (stack, bias, out) = &outs[which];
        let id = routes.experts()[expert] as usize;
        let first = routes.groups()[expert].start * rows;
        let output = Output { values: *out, first, stride: rows, origin: 0 };
        let bias = bias.map(|bias| &bias[id * rows..(id + 1) * rows]);
        let job = Job::new(pool.level(), stack.matrix(id), part(inputs, routes, expert), output);
        Job { bias, ..job }.rows(pool, scratch, start..rows.min(start + unit));
    });
}

/// Adds to each row what its experts make of `inputs`, which are sorted by expert.
///
/// # Panics
///
/// If the shapes do not agree.
pub fn combine(pool: &Pool, inputs: &Activations, routes: &Routes, combined: Combined<'_>) {
    let Combined { stack, bias, beside, scale, out } = combined;
    let rows = stack.rows;
    check(&stack.matrix(0), inputs);
    assert_eq!(inputs.rows(), routes.sources().len(), "the inputs are sorted by expert");
    assert_eq!(out.len(), routes.rows() * rows, "outputs of the layer");
    let out = Shared::new(out);
    let unit = unit_rows(pool, routes, &stack, rows).min(unsummed_rows(routes));
    pool.each(rows.div_ceil(unit), &|scratch, index| {
        let columns = index * unit..rows.min((index + 1) * unit);
        let mut unsummed = scratch.take_unsummed(routes.unsummed_len());
        let values = Shared::new(&mut unsummed);
        for (expert, group) in routes.groups().iter().enumerate() {
            let id = routes.experts()[expert] as usize;
            let first = group.start * unit;
            let output = Output { values, first, stride: unit, origin: columns.start };
            let bias = bias.map(|bias| &bias[id * rows..(id + 1) * rows]);
            let input = inputs.part(group.clone());
            let job = Job::new(pool.level(), stack.matrix(id), input, output);
            Job { bias, ..job }.rows(pool, scratch, columns.clone());
        }
        for row in 0..routes.rows() {
            let at = row * rows + columns.start..row * rows + columns.end;
            let beside = beside.map(|(values, factors)| {
                (&values[at.clone()], factors.map_or(1.0, |factors| factors[row]))
            });
            // SAFETY: these columns are this unit's alone.
            let out = unsafe { out.part(at) };
            add_up(pool.level(), routes.of_row(row), (&unsummed, unit), beside, scale, out);
        }
        scratch.unsummed = unsummed;
    });
}

/// Rows of a unit.
fn unit_rows(pool: &Pool, routes: &Routes, stack: &Stack<'_>, rows: usize) -> usize {
    let most = routes.groups().iter().map(Range::len).max().unwrap_or(1);
    partition::unit_rows(pool.threads(), &stack.matrix(0), most, rows)
}

/// Rows of a unit whose unsummed outputs fit a thread's buffer.
fn unsummed_rows(routes: &Routes) -> usize {
    routes.unsummed_len() / routes.sources().len().max(1) / PASS_ROWS * PASS_ROWS
}

per_level! {
    /// Adds a row's weighted outputs, in order, times `scale` to `out`.
    fn add_up(
        route: (&[u32], &[f32]),
        outputs: (&[f32], usize),
        beside: Option<(&[f32], f32)>,
        scale: f32,
        out: &mut [f32],
    ) = add_up_values;
}

#[inline(always)]
fn add_up_values(
    (places, weights): (&[u32], &[f32]),
    (outputs, stride): (&[f32], usize),
    beside: Option<(&[f32], f32)>,
    scale: f32,
    out: &mut [f32],
) {
    for (chunk, out) in out.chunks_mut(SIDE).enumerate() {
        let (at, len) = (chunk * SIDE, out.len());
        let mut sums = [0.0f32; SIDE];
        let mut add = |values: &[f32], weight: f32| {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = value.mul_add(weight, *sum);
            }
        };
        for (place, weight) in places.iter().zip(weights) {
            add(&outputs[*place as usize * stride + at..][..len], *weight);
        }
        if let Some((values, factor)) = beside {
            add(&values[at..at + len], factor);
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum.mul_add(scale, *out);
        }
    }
}

#[cfg(test)]
mod tests;
