//! A gated network: two matrices side by side, and one after them. Knows no norm and no hidden states.

use super::error::LoadError;
use super::projection::Projection;
use super::run::{Run, Scratch};
use super::tensor::Finder;
use crate::arch::layer::LayerShape;
use crate::kernels::activations::Forms;
use crate::kernels::elementwise::{self, Activation};
use crate::kernels::matmul::matmul;

/// The matrices of a gated network.
#[derive(Debug)]
pub(super) struct Gated {
    gate: Projection,
    up: Projection,
    down: Projection,
    /// Values between its matrices.
    width: usize,
    activation: Activation,
}

impl Gated {
    /// Finds the matrices of layer `index` whose names end with `suffix`.
    ///
    /// # Errors
    ///
    /// One is missing or has another shape.
    pub(super) fn load(
        find: &Finder<'_>,
        index: u32,
        suffix: &str,
        (shape, width): (&LayerShape, usize),
    ) -> Result<Self, LoadError> {
        let name = |part: &str| format!("blk.{index}.{part}{suffix}");
        let hidden = shape.hidden;
        let part = |rows| Projection::load_part(find, &name("ffn_up"), (rows, 2 * width), hidden);
        let (gate, up) = if shape.is_gate_fused {
            (part(0..width)?, part(width..2 * width)?)
        } else {
            let whole = |part: &str| Projection::load(find, &name(part), width, hidden);
            (whole("ffn_gate")?, whole("ffn_up")?)
        };
        Ok(Self {
            gate,
            up,
            down: Projection::load(find, &name("ffn_down"), hidden, width)?,
            width,
            activation: shape.activation,
        })
    }

    /// The forms of its input that it needs.
    pub(super) fn input_forms(&self) -> Forms {
        self.gate.forms().or(self.up.forms())
    }

    /// The same with what it needs inside.
    pub(super) fn forms(&self) -> Forms {
        self.input_forms().or(self.down.forms())
    }

    /// From the input to what the last matrix is given, in the same place.
    pub(super) fn inner(&self, run: &Run<'_>, s: &mut Scratch) {
        let (pool, count, width) = (run.pool, run.batch.rows(), self.width);
        let activation = self.activation;
        let (gate, up) = (&mut s.gate[..count * width], &mut s.up[..count * width]);
        matmul(pool, &s.input, [self.gate.product(run, gate), self.up.product(run, up)]);
        let (gate, up) = (&*gate, &*up);
        s.input.fill(pool, (count, width), self.down.forms(), &|row, columns, out| {
            let (gate, up) = (&gate[row * width..][columns.clone()], &up[row * width..][columns]);
            elementwise::gated(pool.level(), activation, gate, up, out);
        });
    }

    /// Its last matrix.
    pub(super) fn down(&self) -> &Projection {
        &self.down
    }

    /// What it gives for each row of the input, to `s.apart`.
    pub(super) fn forward(&self, run: &Run<'_>, hidden: usize, s: &mut Scratch) {
        self.inner(run, s);
        let out = &mut s.apart[..run.batch.rows() * hidden];
        matmul(run.pool, &s.input, [self.down.product(run, out)]);
    }
}
