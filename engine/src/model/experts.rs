//! The second half of a layer with experts.
//!
//! ```text
//! x ─► norm ─┬─► router ─► routes
//!            ├─► by expert: gate, up ─► silu(gate) · up ─► down ─► weighted sum ─┬─► x
//!            └─► shared expert? (all rows) ─► times its gate? ───────────────────┘
//! ```

use super::error::LoadError;
use super::gated::Gated;
use super::projection::Projection;
use super::run::{Run, Scratch};
use super::tensor::{Finder, StackRef};
use crate::arch::layer::{FeedForwardKind, LayerShape};
use crate::kernels::activations::Forms;
use crate::kernels::elementwise::{self, Activation};
use crate::kernels::experts::{Combined, ExpertProduct, by_expert, combine};
use crate::kernels::matmul::{Product, matmul};
use crate::kernels::matrix::Matrix;
use crate::kernels::routing::Router;
use crate::math;
use crate::quant::TensorType;

/// The tensors of a layer's experts.
#[derive(Debug)]
pub struct Experts {
    norm: Vec<f32>,
    router: Router,
    scores: Projection,
    choice_bias: Option<Vec<f32>>,
    gate: Stacked,
    up: Stacked,
    down: Stacked,
    activation: Activation,
    /// Chosen for a row, and all.
    numbers: (usize, usize),
    /// Values between the matrices of one.
    width: usize,
    shared: Option<Shared>,
}

/// A matrix for each expert, with the biases that some families have.
#[derive(Debug)]
struct Stacked {
    matrices: StackRef,
    /// `[experts, rows]`.
    biases: Option<Vec<f32>>,
}

/// The expert that all rows go to.
#[derive(Debug)]
struct Shared {
    network: Gated,
    /// One weight for each value of its input.
    gate: Option<Vec<f32>>,
}

impl Experts {
    /// Finds the tensors of layer `index` and checks their shapes.
    ///
    /// # Errors
    ///
    /// A tensor is missing or has another shape than the hyper-parameters say; a layer without experts.
    pub(super) fn load(
        find: &Finder<'_>,
        shape: &LayerShape,
        index: u32,
    ) -> Result<Self, LoadError> {
        let FeedForwardKind::Experts { count, used, width, router, shared_width, .. } =
            shape.feed_forward
        else {
            return Err(LoadError::not_computed(index, shape));
        };
        let name = |part: &str| format!("blk.{index}.{part}");
        let hidden = shape.hidden;
        let stack = |part: &str, rows: usize, cols: usize| {
            let name = name(&format!("{part}_exps"));
            Ok::<_, LoadError>(Stacked {
                matrices: find.stack(&format!("{name}.weight"), count, rows, cols)?,
                biases: find.optional_table(&format!("{name}.bias"), count, rows)?,
            })
        };
        Ok(Self {
            norm: find.vector(&shape.ffn_norm(index), hidden)?,
            router,
            scores: Projection::load(find, &name("ffn_gate_inp"), count, hidden)?,
            choice_bias: find.optional_vector(&name("exp_probs_b.bias"), count)?,
            gate: stack("ffn_gate", width, hidden)?,
            up: stack("ffn_up", width, hidden)?,
            down: stack("ffn_down", hidden, width)?,
            activation: shape.activation,
            numbers: (count, used),
            width,
            shared: match shared_width {
                0 => None,
                width => Some(Shared::load(find, shape, index, width)?),
            },
        })
    }

    /// The forms of their inputs that all its matrices need together.
    pub(super) fn forms(&self) -> Forms {
        self.input_forms().or(self.down.matrices.forms())
    }

    fn input_forms(&self) -> Forms {
        let own = self.scores.forms().or(self.expert_forms());
        self.shared.as_ref().map_or(own, |shared| own.or(shared.forms()))
    }

    fn expert_forms(&self) -> Forms {
        self.gate.matrices.forms().or(self.up.matrices.forms())
    }

    /// Adds what the experts give to `x`, `[rows, hidden]`.
    pub(super) fn forward(
        &self,
        run: &Run<'_>,
        shape: &LayerShape,
        x: &mut [f32],
        s: &mut Scratch,
    ) {
        run.norm(shape, x, &self.norm, self.input_forms(), &mut s.input);
        self.route(run, s);
        if run.weights.is_on_disk() {
            self.will_need(run, s.routes.experts());
        }
        self.inner(run, s);
        let (rows, hidden) = (run.batch.rows(), shape.hidden);
        if let Some(shared) = &self.shared {
            shared.forward(run, hidden, s);
        }
        let factors = self.shared.as_ref().is_some_and(|shared| shared.gate.is_some());
        let factors = factors.then(|| &s.shared_gate[..rows]);
        let combined = Combined {
            stack: self.down.matrices.stack(run.weights),
            bias: self.down.biases.as_deref(),
            beside: self.shared.as_ref().map(|_| (&s.apart[..rows * hidden], factors)),
            scale: shape.residual_scale,
            out: x,
        };
        combine(run.pool, &s.sorted, &s.routes, combined);
    }

    /// Says which rows go to which experts.
    fn route(&self, run: &Run<'_>, s: &mut Scratch) {
        let scores = &mut s.scores[..run.batch.rows() * self.numbers.0];
        matmul(run.pool, &s.input, [self.scores.product(run, scores)]);
        let bias = self.choice_bias.as_deref();
        s.routes.choose(run.pool, &self.router, self.numbers, (scores, bias));
    }

    /// Asks the system for the matrices of the chosen experts, in the order in which they are used: they are read
    /// beside each other, and while the first ones are computed.
    fn will_need(&self, run: &Run<'_>, experts: &[u32]) {
        for &expert in experts {
            self.gate.matrices.will_need(run.weights, expert as usize);
            self.up.matrices.will_need(run.weights, expert as usize);
        }
        for &expert in experts {
            self.down.matrices.will_need(run.weights, expert as usize);
        }
    }

    /// From the input to what the experts' last matrices are given, sorted by expert.
    fn inner(&self, run: &Run<'_>, s: &mut Scratch) {
        let (pool, width, places) = (run.pool, self.width, s.routes.sources().len());
        let (gate, up) = (&mut s.gate[..places * width], &mut s.up[..places * width]);
        let products =
            [(&self.gate, &mut *gate), (&self.up, &mut *up)].map(|(stack, out)| ExpertProduct {
                stack: stack.matrices.stack(run.weights),
                bias: stack.biases.as_deref(),
                out,
            });
        if run.batch.rows() == 1 {
            by_expert(pool, &s.input, &s.routes, products);
        } else {
            let sorting = (s.routes.sources(), s.routes.groups());
            s.sorted.gather(pool, &s.input, sorting, self.expert_forms());
            by_expert(pool, &s.sorted, &s.routes, products);
        }
        let (gate, up) = (&*gate, &*up);
        let groups = (s.routes.groups(), width);
        let (forms, activation) = (self.down.matrices.forms(), self.activation);
        s.sorted.fill_groups(pool, groups, forms, &|place, columns, out| {
            let at = place * width + columns.start..place * width + columns.end;
            elementwise::gated(pool.level(), activation, &gate[at.clone()], &up[at], out);
        });
    }
}

impl Shared {
    fn load(
        find: &Finder<'_>,
        shape: &LayerShape,
        index: u32,
        width: usize,
    ) -> Result<Self, LoadError> {
        let FeedForwardKind::Experts { is_shared_gated, .. } = shape.feed_forward else {
            return Err(LoadError::not_computed(index, shape));
        };
        let gate = format!("blk.{index}.ffn_gate_inp_shexp.weight");
        let gate = is_shared_gated.then(|| find.vector(&gate, shape.hidden)).transpose()?;
        Ok(Self { network: Gated::load(find, index, "_shexp", (shape, width))?, gate })
    }

    fn forms(&self) -> Forms {
        let gate = Forms { values: self.gate.is_some(), ..Forms::default() };
        self.network.forms().or(gate)
    }

    /// What it gives to `s.apart`, and its gates to `s.shared_gate`; the input is used up.
    fn forward(&self, run: &Run<'_>, hidden: usize, s: &mut Scratch) {
        if let Some(gate) = &self.gate {
            let bytes = bytemuck::cast_slice(gate);
            let matrix = Matrix { ty: TensorType::F32, rows: 1, cols: hidden, bytes };
            let gates = &mut s.shared_gate[..run.batch.rows()];
            matmul(run.pool, &s.input, [Product::new(matrix, gates)]);
            gates.iter_mut().for_each(|gate| *gate = math::sigmoid(*gate));
        }
        self.network.forward(run, hidden, s);
    }
}
